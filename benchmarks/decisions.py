"""The measurements behind the decisions in doc/architecture.md, and how much is luck of the draw.

python benchmarks/decisions.py threads alignment small_steps nearby_shifts deviations noise outputs
python benchmarks/decisions.py mirrored draws         # minutes; need the data folder, see uci_sets.py
"""

import argparse
import time
import unittest.mock

import joblib
import numpy as np
from provenance import print_provenance
from sklearn.datasets import load_diabetes, load_digits, make_friedman1
from sklearn.metrics import accuracy_score, root_mean_squared_error
from sklearn.model_selection import cross_val_score
from suite.problems import friedman
from threadpoolctl import threadpool_limits
from uci_sets import DATA, SMALL, load_splits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _kernels
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network import network as network_module
from sklearn_subquad._solver import levenberg_marquardt


def median_ms(work, repeats=31):
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1e3 * np.median(seconds)


def forward_problem(n=1024, m=1024):
    """Sparse rows of density 0.25 and a packed m x m matrix, single precision."""
    rng = np.random.default_rng(0)
    rows = SparseRows(*_kernels.select(rng.standard_normal((n, m), np.float32), 0.6745, 128, 1.0))
    return rows, PackedMatrix.from_dense(rng.standard_normal((m, m), np.float32))


def threads():
    with joblib.Parallel(n_jobs=2, backend="threading") as pool:
        call = median_ms(lambda: pool(joblib.delayed(abs)(i) for i in range(2)))
    print(f"joblib threading backend, two empty tasks: {call:.1f} ms a call")
    rows, W = forward_problem()
    A = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)
    for n_threads in (1, 2, 1, 2):
        with worker_threads(2), threadpool_limits(n_threads, user_api="blas"):
            both = median_ms(lambda: (A @ A, W.forward(rows)))
            product = median_ms(lambda: A @ A)
        print(f"kernel right after a BLAS product on {n_threads} thread(s): {both - product:.1f} ms")


def alignment():
    rows, W = forward_problem()
    out = np.empty((1024, 1024), np.float32)
    memory = np.zeros(W.tiles.nbytes + 128, np.uint8)
    for offset in (0, 16, 0, 16):
        first = -memory.ctypes.data % 64 + offset
        tiles = memory[first : first + W.tiles.nbytes].view(np.float32).reshape(W.tiles.shape)
        tiles[:] = W.tiles
        ms = median_ms(lambda t=tiles: _kernels.forward(rows.pattern, rows.values, t, out))
        print(f"forward, one thread, tiles {offset} bytes off a cache line: {2e-6 * rows.nnz * 1024 / ms:.0f} GFLOP/s")


def small_steps():
    """Fits in batches of 128 rows, width 1024: below 400,000 rows times neurons a step has one thread."""
    X, y = friedman(512)
    model = SubquadMLPRegressor(batch_size=128, max_iter=4, early_stopping=False, random_state=0)
    seconds = {1: [], 2: []}
    with unittest.mock.patch("sklearn_subquad._base._MIN_STEP_FOR_THREADS", 0):
        for _ in range(7):
            for n_threads, runs in seconds.items():
                start = time.perf_counter()
                model.set_params(n_jobs=n_threads).fit(X, y)
                runs.append(time.perf_counter() - start)
    for n_threads, runs in seconds.items():
        print(
            f"four passes over 512 rows in batches of 128, {n_threads} thread(s): {np.median(runs):.2f} s", flush=True
        )


def nearby_shifts():
    """What it is worth that a factor serves shifts up to four times its own, as after a rejected step."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:1000].astype(np.float32), y[:1000]
    ratios = (1.0, 2.5, 4.0)
    seconds, iterations = dict.fromkeys(ratios, 0.0), dict.fromkeys(ratios, 0)
    for damping in (0.01, 0.001):
        for seed in range(3):
            for ratio in ratios:
                with unittest.mock.patch("sklearn_subquad._curvature.preconditioners._NEARBY_SHIFT", ratio):
                    model = SubquadMLPClassifier(
                        hidden_layer_sizes=(512, 512),
                        loss="log_loss",
                        damping=damping,
                        max_iter=8,
                        early_stopping=False,
                        init="gaussian",
                        batch_size=len(X),
                        random_state=seed,
                    ).fit(X, y)
                seconds[ratio] += model.phase_times_["solve"]
                iterations[ratio] += sum(model.n_cg_iter_)
    for ratio in ratios:
        print(f"factors serve shifts up to {ratio} times: {seconds[ratio]:.1f} s, {iterations[ratio]} inner iterations")


def deviations():
    """Predictions with and without standard deviations, defaults, 1,000 fitted rows and as many new ones."""
    X, y = friedman(2000)
    model = SubquadMLPRegressor(max_iter=5, random_state=0)
    model.fit(X[:1000], y[:1000])
    mean = median_ms(lambda: model.predict(X[1000:]))
    both = median_ms(lambda: model.predict(X[1000:], return_std=True))
    print(f"predict of 1,000 rows: {mean:.0f} ms, with deviations {both:.0f} ms", flush=True)


def noise():
    """Whether rows have to be held out: R² by cross-validation where targets have little noise, and much."""
    problems = {"diabetes": load_diabetes(return_X_y=True)}
    for deviation in (0, 1, 5):
        data = make_friedman1(400, n_features=10, noise=deviation, random_state=0)
        problems[f"Friedman's function, 400 rows, noise of deviation {deviation}"] = data
    for name, (X, y) in problems.items():
        for early_stopping in ("auto", False):
            model = SubquadMLPRegressor(early_stopping=early_stopping, random_state=0)
            scores = cross_val_score(model, X, y, cv=3)
            print(
                f"{name}, early_stopping={early_stopping}: R² {', '.join(f'{each:.3f}' for each in scores)}", flush=True
            )


def outputs():
    """Fits to few rows with 1 to 200 outputs: targets with noise, and classes of three rows or more, by both losses."""
    print("outputs | what | inner solves | inner iterations | most of a solve | not to cg_tol | seconds")
    options = {"random_state": 0}
    for k in (1, 3, 10, 32, 100, 200):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((400, 10))
        Y = np.sin(X @ rng.standard_normal((10, k)) / 2) + 0.3 * rng.standard_normal((400, k))
        _print_inner_solves(k, "targets", SubquadMLPRegressor(**options), X, Y[:, 0] if k == 1 else Y)
        # One output stands for two classes.
        y = np.arange(max(300, 3 * k)) % max(k, 2)
        X = rng.standard_normal((max(k, 2), 10))[y] + 0.5 * rng.standard_normal((len(y), 10))
        for loss in ("squared_error", "log_loss"):
            _print_inner_solves(k, f"classes, {loss}", SubquadMLPClassifier(loss=loss, **options), X, y)


def _print_inner_solves(k, name, model, X, y):
    solves, pcg = [], levenberg_marquardt.pcg

    def recording(*args, **named):
        solves.append(pcg(*args, **named))
        return solves[-1]

    with unittest.mock.patch("sklearn_subquad._solver.levenberg_marquardt.pcg", recording):
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
    counts = [each.n_iter for each in solves]
    failed = sum(not each.converged for each in solves)
    columns = (k, name, len(counts), sum(counts), max(counts, default=0), failed, f"{seconds:.1f}")
    print(" | ".join(map(str, columns)), flush=True)


def best_rmse(split, seed):
    """Lowest test RMSE on the path of 20 steps at the defaults: what a perfect stopping rule would reach."""
    X, y, X_test, y_test = split
    model = SubquadMLPRegressor(tol=0.0, n_iter_no_change=20, batch_size=len(X), random_state=seed)
    model.fit(X, y, X_val=X_test, y_val=y_test)
    return np.sqrt(1 - max(model.validation_scores_)) * y.std()


def mirrored():
    splits = load_splits(DATA, "energy")[:3]
    for threshold, name in ((network_module.MIRROR_INIT_SCALE, "random"), (0.0, "mirrored")):
        with unittest.mock.patch("sklearn_subquad._network.network.MIRROR_INIT_SCALE", threshold):
            rmse = np.mean([best_rmse(split, seed=123 + number) for number, split in enumerate(splits)])
        print(f"energy, 3 splits, best iterate, {name} start: RMSE {rmse:.3f}", flush=True)


def draws():
    """Three draws of the initial weights at the defaults, and the mean of their predictions."""
    outputs = _outputs_of_draws("boston", SubquadMLPRegressor(), 20)
    rmse = [[root_mean_squared_error(y, each) for each in (*o, np.mean(o, axis=0))] for y, o in outputs]
    _print_draws("boston, 20 splits, RMSE", rmse)
    shares = []
    for name in SMALL:
        for y, o in _outputs_of_draws(name, SubquadMLPClassifier(), 2):
            # Classes are numbered from zero in these sets.
            shares.append([100 * accuracy_score(y, each.argmax(axis=1)) for each in (*o, np.mean(o, axis=0))])
    _print_draws(f"{len(SMALL)} small sets, 2 splits, accuracy in percent", shares)


def _outputs_of_draws(name, estimator, n_splits):
    """For every split the test targets, and what models of three draws predict: means, or probabilities."""
    splits = load_splits(DATA, name)[:n_splits]
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        outputs = joblib.Parallel(n_jobs=-1)(
            joblib.delayed(_output_of_draw)(estimator, split, seed) for split in splits for seed in range(3)
        )
    return [(split[3], outputs[3 * i : 3 * i + 3]) for i, split in enumerate(splits)]


def _output_of_draw(estimator, split, seed):
    X, y, X_test, _ = split
    model = estimator.set_params(random_state=seed).fit(X, y)
    return model.predict_proba(X_test) if hasattr(model, "classes_") else model.predict(X_test)


def _print_draws(title, scores):
    *single, together = np.mean(scores, axis=0)
    print(f"{title}: draws {', '.join(f'{score:.3f}' for score in single)}, their mean {together:.3f}", flush=True)


if __name__ == "__main__":
    MEASUREMENTS = {
        f.__name__: f
        for f in (threads, alignment, small_steps, nearby_shifts, deviations, noise, outputs, mirrored, draws)
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", nargs="+", choices=MEASUREMENTS)
    arguments = parser.parse_args()
    print_provenance()
    for chosen in arguments.measurements:
        MEASUREMENTS[chosen]()
