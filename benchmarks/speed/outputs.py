"""What more outputs cost: seconds and inner iterations of targets and classes, and how closely to solve for many.

python benchmarks/speed/outputs.py targets classes tolerance     # some minutes
python benchmarks/speed/outputs.py --smoke

Targets are sums of twenty ridge functions with noise, classes are Gaussian clouds: as hard for many outputs as for few.
Without an argument, fits are of one network on one thread, because phases and inner iterations are those of a network.
"""

import pathlib
import sys
import time
import warnings

import numpy as np

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.evaluation import standard_error
from common.program import network_options, run_chosen
from common.results import table

N_FEATURES, N_RIDGES, N_TEST = 10, 20, 1000
# All rows at once, and batches of 256.
N_ROWS = (400, 4000)


def with_targets(n_rows, k, seed=0):
    """X, Y of n_rows and X, Y of test rows."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(n_rows + N_TEST, N_FEATURES))
    ridges = np.tanh(2 * X @ rng.standard_normal((N_FEATURES, N_RIDGES)))
    Y = ridges @ rng.standard_normal((N_RIDGES, k)) / np.sqrt(N_RIDGES)
    noisy = Y[:n_rows] + 0.1 * rng.standard_normal((n_rows, k))
    return X[:n_rows], noisy, X[n_rows:], Y[n_rows:]


def with_classes(n_rows, k, seed=0):
    """X, y of n_rows and X, y of test rows."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows + N_TEST) % k
    X = rng.standard_normal((k, N_FEATURES))[y] + 0.4 * rng.standard_normal((len(y), N_FEATURES))
    return X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:]


def timed(model, X, y):
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y if np.ndim(y) == 1 or y.shape[1] > 1 else y[:, 0])
    return time.perf_counter() - start


def rmse(model, X, Y):
    return float(np.sqrt(np.mean((model.predict(X).reshape(Y.shape) - Y) ** 2)))


def row_of(make, data, label, score):
    """Cells: seconds at the defaults, and of one network its seconds, steps, inner iterations and what each takes."""
    X, y, X_test, y_test = data
    whole = timed(make(), X, y)
    single = make(n_folds=1, n_jobs=1)
    seconds = timed(single, X, y)
    inner = np.asarray(single.n_cg_iter_)
    phases = single.phase_times_
    step = sum(phases[name] for name in ("forward", "jacobian", "solve", "update", "flush")) / len(inner)
    return [
        *label,
        f"{whole:.2f}",
        f"{seconds:.2f}",
        len(inner),
        f"{inner.mean():.1f}",
        f"{1e3 * step:.1f}",
        f"{1e3 * phases['solve'] / inner.sum():.2f}",
        f"{score(single, X_test, y_test):.3f}",
    ]


HEAD = ["seconds at the defaults", "one network", "steps", "inner iterations a step", "ms a step", "ms an inner one"]


def targets(arguments):
    """Regression with 1 to 200 targets."""
    options = network_options(arguments)
    rows = []
    for n_rows in (100,) if arguments.smoke else N_ROWS:
        for k in (1, 3) if arguments.smoke else (1, 3, 10, 100, 200):
            data = with_targets(n_rows, k)
            # The first fit loads what loads late.
            timed(SubquadMLPRegressor(**options | {"n_folds": 1, "max_iter": 1}), *data[:2])
            rows.append(
                row_of(lambda **more: SubquadMLPRegressor(random_state=0, **options | more), data, [n_rows, k], rmse)
            )
    print("\n".join(table(["rows", "targets", *HEAD, "RMSE"], rows)), flush=True)


def classes(arguments):
    """2 to 100 classes by either loss."""
    options = network_options(arguments)
    rows = []
    for n_rows in (100,) if arguments.smoke else (300, 3000):
        for k in (2, 3) if arguments.smoke else (2, 3, 10, 100):
            for loss in ("squared_error", "log_loss"):

                def make(loss=loss, **more):
                    return SubquadMLPClassifier(loss=loss, random_state=0, **options | more)

                data = with_classes(n_rows, k)
                rows.append(row_of(make, data, [n_rows, k, loss], lambda model, X, y: model.score(X, y)))
    print("\n".join(table(["rows", "classes", "loss", *HEAD, "accuracy"], rows)), flush=True)


def tolerance(arguments):
    """RMSE and seconds by `cg_tol` over those of 0.01 where all rows are one batch."""
    options = network_options(arguments)
    rows = []
    sizes = [(60, 3)] if arguments.smoke else [(n_rows, k) for n_rows in (200, 400, 900) for k in (2, 3, 10, 30, 100)]
    for n_rows, k in sizes:
        logs = []
        for seed in range(2 if arguments.smoke else 5):
            X, Y, X_test, Y_test = with_targets(n_rows, k, seed)
            logs.append([])
            for cg_tol in (0.01, 0.03, 0.1, 0.3):
                model = SubquadMLPRegressor(cg_tol=cg_tol, n_folds=1, n_jobs=1, random_state=seed, **options)
                seconds = timed(model, X, Y)
                logs[-1].append((np.log(rmse(model, X_test, Y_test)), np.log(seconds)))
        logs = np.array(logs)
        logs = logs[:, 1:] - logs[:, :1]
        cells = [
            f"{np.exp(errors.mean()):.3f} ± {standard_error(errors):.3f}, {np.exp(np.median(seconds)):.2f}"
            for errors, seconds in logs.transpose(1, 2, 0)
        ]
        rows.append([n_rows, k, *cells])
    print("\n".join(table(["rows", "targets", "0.03: RMSE, seconds", "0.1", "0.3"], rows)), flush=True)


if __name__ == "__main__":
    run_chosen(__doc__, [targets, classes, tolerance])
