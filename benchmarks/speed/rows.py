"""Many rows: images against scikit-learn's MLP, and seconds and memory against the number of rows; sparse rows.

python benchmarks/speed/rows.py images linear sparse methods     # about ten minutes
python benchmarks/speed/rows.py --smoke

Fashion-MNIST is read from ``../shared/data`` beside the repository (or --data) and left out where that is missing.
Every number of rows runs in a process of its own, so that its peak memory is known.
"""

import contextlib
import json
import pathlib
import resource
import subprocess
import sys
import time
import unittest.mock
import warnings

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import is_classifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._solver import iterations
from sklearn_subquad._solver.averaging import IterateAverage

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.evaluation import rmse
from common.program import network_options, run_chosen
from common.sets import has_data, load_images, load_splits
from suite.problems import friedman

MLP_EPOCHS = 15
# Rows of which the Gram matrix is formed: it takes 2 GiB of 16,384.
MAX_GRAM_ROWS = 16_384


def images(arguments):
    """Fits at the defaults and of one network against 15 epochs of scikit-learn's MLP; support vector machines."""
    loaded = load_images(arguments.data)
    if loaded is None:
        print(f"images: left out, no Fashion-MNIST in {arguments.data}.")
        return
    X, y, X_test, y_test = loaded
    widths = (4096, 4096)
    if arguments.smoke:
        X, y, X_test, y_test, widths = X[:300], y[:300], X_test[:300], y_test[:300], (64, 64)
    mlp = MLPClassifier(widths, random_state=0, max_iter=1)
    folds = ("auto", 1)
    epochs, ours = [], {n_folds: [] for n_folds in folds}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repeat in range(1 if arguments.smoke else 3):
            start = time.perf_counter()
            mlp.partial_fit(X, y, classes=np.unique(y))
            epochs.append(time.perf_counter() - start)
            for n_folds in folds:
                model = SubquadMLPClassifier(hidden_layer_sizes=widths, n_folds=n_folds, random_state=repeat)
                start = time.perf_counter()
                model.fit(X, y)
                ours[n_folds].append((time.perf_counter() - start, model.score(X_test, y_test), model.n_iter_))
    print(f"images, widths {widths}: an epoch of scikit-learn's MLP {np.median(epochs):.1f} s", flush=True)
    for n_folds, results in ours.items():
        seconds, accuracy, passes = np.array(results).T
        ratio = np.median(MLP_EPOCHS * np.array(epochs) / seconds)
        print(
            f"n_folds={n_folds}: {np.median(seconds):.1f} s, test accuracy "
            f"{', '.join(f'{share:.4f}' for share in accuracy)} (seeds 0, 1, ...), passes {passes.mean():.1f}; "
            f"{MLP_EPOCHS} epochs take {ratio:.1f} times as long",
            flush=True,
        )
    for C in (3, 10):
        start = time.perf_counter()
        machine = SVC(C=C).fit(X, y)
        seconds = time.perf_counter() - start
        print(f"support vector machine, C={C}: {seconds:.1f} s, test accuracy {machine.score(X_test, y_test):.4f}")


def one_linear(n_rows, smoke):
    """A fit of synthetic rows in this process: seconds per pass and peak memory."""
    width, passes = (64, 1) if smoke else (2048, 2)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 50), dtype=np.float32)
    y = np.sin(X[:, 0] * X[:, 1]) + X[:, 2:10].sum(axis=1) / 3 + 0.1 * rng.standard_normal(n_rows)
    # One network, whose passes are over all rows: seconds of several are summed up, their passes are not.
    options = {"hidden_layer_sizes": (width, width), "max_iter": passes, "early_stopping": False}
    model = SubquadMLPRegressor(**options, random_state=0).fit(X, y)
    init = model.phase_times_["init"]
    seconds = (sum(model.phase_times_.values()) - init) / model.n_iter_
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "init": init, "peak_bytes": peak}


def linear(arguments):
    """Seconds per pass and peak memory for growing numbers of rows, 50 features, one output, widths (2048, 2048)."""
    sizes = (500, 1000) if arguments.smoke else (6250, 12500, 25000, 50000)
    print("rows, seconds per pass, microseconds per row, initialisation, peak memory of the process")
    for n_rows in sizes:
        if arguments.smoke:
            report = one_linear(n_rows, smoke=True)
        else:
            command = [sys.executable, __file__, "one_linear", str(n_rows)]
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{n_rows:6d}  {report['seconds']:6.2f} s  {1e6 * report['seconds'] / n_rows:6.0f} µs  "
            f"{report['init']:5.2f} s  {report['peak_bytes'] / 2**30:5.2f} GiB",
            flush=True,
        )


class MomentumAverage(IterateAverage):
    """An average that lets the next step start ahead of the iterate, where its last change leads.

    To first order in that change a step then stays close to the one before, as in G. Goldshlager, N. Abrahamsen,
    L. Lin, "A Kaczmarz-inspired approach to accelerate the optimization of neural network wavefunctions", 2024.
    """

    momentum = 0.9

    def __init__(self):
        super().__init__()
        self._before = None

    def update(self, parameters):
        super().update(parameters)
        before, self._before = self._before, parameters.copy()
        if before is not None:
            parameters.move_towards(before, -self.momentum)


def momentum(strength):
    """Batches with so much of it."""
    average = type("Average", (MomentumAverage,), {"momentum": strength})
    return unittest.mock.patch.object(iterations, "IterateAverage", average)


WAYS = {
    "default": {},
    "batches of 128": {"batch_size": 128},
    "batches of 1,024": {"batch_size": 1024},
    "batches of 4,096": {"batch_size": 4096},
    "all rows, Gram matrix": {"batch_size": 10**6, "preconditioner": "gram"},
    "all rows, sketch": {"batch_size": 10**6, "preconditioner": "sketch"},
    "momentum 0.5": {},
    "momentum 0.9": {},
}


def methods(arguments):
    """One network by batches of several sizes, all rows at once, and momentum: seconds and test errors."""
    for name, (estimator, X, y, X_test, y_test) in large_problems(arguments).items():
        for way, parameters in WAYS.items():
            if parameters.get("preconditioner") == "gram" and len(X) > MAX_GRAM_ROWS:
                continue
            model = estimator(n_folds=1, random_state=0, **network_options(arguments), **parameters)
            changed = momentum(float(way.split()[1])) if "momentum" in way else contextlib.nullcontext()
            start = time.perf_counter()
            with changed, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(X, y)
            seconds = time.perf_counter() - start
            predicted = model.predict(X_test)
            error = 100 * np.mean(predicted != y_test) if is_classifier(model) else rmse(y_test, predicted)
            phases = model.phase_times_
            print(
                f"{name}, {way}: {seconds:.2f} s, error {error:.4g}; {model.n_iter_} iterations, solving "
                f"{phases['solve'] / seconds:.0%} and linearising {phases['jacobian'] / seconds:.0%} of it, "
                f"{np.mean(model.n_cg_iter_):.1f} inner iterations a step",
                flush=True,
            )


def large_problems(arguments):
    """Estimators and data: real sets of 7,000 to 17,000 rows where they are, and Friedman's function with noise."""
    rng, problems = np.random.default_rng(0), {}
    if has_data(arguments.data, "kin8nm, power-plant, magic"):
        for name in ("kin8nm", "power-plant", "magic"):
            estimator = SubquadMLPClassifier if name == "magic" else SubquadMLPRegressor
            problems[name] = (estimator, *load_splits(arguments.data, name)[0])
    for n_rows in (300,) if arguments.smoke else (5000, 50_000):
        X, y = friedman(n_rows + 2000)
        noisy = y[:n_rows] + rng.standard_normal(n_rows)
        problems[f"{n_rows:,} rows"] = (SubquadMLPRegressor, X[:n_rows], noisy, X[n_rows:], y[n_rows:])
    if arguments.smoke:
        # Spread over the rows, which may be sorted by class.
        problems = {
            name: (estimator, *(part[:: -(-len(part) // 300)] for part in parts))
            for name, (estimator, *parts) in problems.items()
        }
    return problems


def one_sparse(form, n_features, n_entries, smoke):
    """A fit at the defaults to synthetic rows of so many words, as a matrix of that form, in this process.

    The first features are frequent, as the words of a language are, and 300 of them count.
    """
    rng, n_rows = np.random.default_rng(0), 500 if smoke else 5000
    words = (n_features * rng.uniform(size=(n_rows, n_entries)) ** 4).astype(np.int32)
    counts = np.ones(words.size, dtype=np.float32)
    X = csr_array((counts, words.ravel(), np.arange(n_rows + 1) * n_entries), shape=(n_rows, n_features))
    X.sum_duplicates()
    y = X[:, :300] @ rng.standard_normal(300)
    y = y / y.std() + 0.3 * rng.standard_normal(n_rows)
    if form == "dense":
        X = X.toarray()
    model = SubquadMLPRegressor(hidden_layer_sizes=(64, 64) if smoke else (512, 512), random_state=0)
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak_bytes": peak, "oof_score": model.oof_score_, "n_iter": model.n_iter_}


def sparse(arguments):
    """Seconds and peak memory of 5,000 sparse rows at the defaults, and of the same rows as an array."""
    print(
        "features, words of a row, form, seconds of a fit, peak memory of the process, out-of-fold score, most passes"
    )
    few = [("dense", 500, 50), ("sparse", 500, 50)]
    for form, n_features, n_entries in [*few, *few, ("sparse", 50_000, 50)]:
        if arguments.smoke:
            report = one_sparse(form, n_features, n_entries, smoke=True)
        else:
            command = [sys.executable, __file__, "one_sparse", form, str(n_features), str(n_entries)]
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{n_features:6d}  {n_entries:3d}  {form:6s}  {report['seconds']:5.1f} s  "
            f"{report['peak_bytes'] / 2**30:5.2f} GiB  {report['oof_score']:.4f}  {report['n_iter']}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["one_linear"]:
        print(json.dumps(one_linear(int(sys.argv[2]), smoke=False)))
    elif sys.argv[1:2] == ["one_sparse"]:
        print(json.dumps(one_sparse(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), smoke=False)))
    else:
        # The one that measures memory first: a child's peak begins at what its parent holds.
        run_chosen(__doc__, (linear, sparse, images, methods))
