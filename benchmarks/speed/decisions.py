"""Seconds and iterations behind the decisions in doc/decisions.md.

python benchmarks/speed/decisions.py threads alignment small_steps nearby_shifts deviations      # results/decisions.md
python benchmarks/speed/decisions.py searches networks      # results/searches.md
python benchmarks/speed/decisions.py onnx        # results/decisions.md
python benchmarks/speed/decisions.py memory         # ends with an error where the memory grows over a thousand fits
python benchmarks/speed/decisions.py --smoke
"""

import contextlib
import functools
import gc
import importlib.util
import itertools
import pathlib
import pickle
import sys
import time
import unittest.mock
import warnings

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _kernels
from sklearn_subquad._curvature import preconditioners
from sklearn_subquad._fit import plan
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._linalg.threads import worker_threads

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import network_options, run_chosen
from speed import outputs
from suite.problems import friedman


def median_ms(arguments, work):
    seconds = []
    for _ in range(1 if arguments.smoke else 31):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1e3 * np.median(seconds)


def forward_problem(arguments):
    """Sparse rows of density 0.25 and a packed m x m matrix, single precision."""
    n = m = 256 if arguments.smoke else 1024
    rng = np.random.default_rng(0)
    rows = SparseRows(*_kernels.select(rng.standard_normal((n, m), np.float32), 0.6745, 128, 1.0))
    return rows, PackedMatrix.from_dense(rng.standard_normal((m, m), np.float32))


def threads(arguments):
    with joblib.Parallel(n_jobs=2, backend="threading") as pool:
        call = median_ms(arguments, lambda: pool(joblib.delayed(abs)(i) for i in range(2)))
    print(f"joblib threading backend, two empty tasks: {call:.1f} ms a call")
    rows, W = forward_problem(arguments)
    A = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)
    for n_threads in (1, 2, 1, 2):
        with worker_threads(2), threadpool_limits(n_threads, user_api="blas"):
            both = median_ms(arguments, lambda: (A @ A, W.forward(rows)))
            product = median_ms(arguments, lambda: A @ A)
        print(f"kernel right after a BLAS product on {n_threads} thread(s): {both - product:.1f} ms")


def alignment(arguments):
    rows, W = forward_problem(arguments)
    n, m = rows.shape
    out = np.empty((n, m), np.float32)
    memory = np.zeros(W.tiles.nbytes + 128, np.uint8)
    for offset in (0, 16, 0, 16):
        first = -memory.ctypes.data % 64 + offset
        tiles = memory[first : first + W.tiles.nbytes].view(np.float32).reshape(W.tiles.shape)
        tiles[:] = W.tiles
        ms = median_ms(arguments, lambda t=tiles: _kernels.forward(rows.pattern, rows.values, t, out))
        print(f"forward, one thread, tiles {offset} bytes off a cache line: {2e-6 * rows.nnz * m / ms:.0f} GFLOP/s")


def small_steps(arguments):
    """Fits in batches of 128 rows, width 1024: below 400,000 rows times neurons a step has one thread."""
    X, y = friedman(512)
    options = {"max_iter": 4} | network_options(arguments)
    model = SubquadMLPRegressor(batch_size=128, early_stopping=False, random_state=0, **options)
    seconds = {1: [], 2: []}
    with unittest.mock.patch.object(plan, "_MIN_STEP_FOR_THREADS", 0):
        for _ in range(1 if arguments.smoke else 7):
            for n_threads, runs in seconds.items():
                start = time.perf_counter()
                model.set_params(n_jobs=n_threads).fit(X, y)
                runs.append(time.perf_counter() - start)
    for n_threads, runs in seconds.items():
        print(
            f"four passes over 512 rows in batches of 128, {n_threads} thread(s): {np.median(runs):.2f} s", flush=True
        )


def nearby_shifts(arguments):
    """What it is worth that a factor serves shifts up to four times its own, as after a rejected step."""
    X, y = load_digits(return_X_y=True)
    n_rows = 100 if arguments.smoke else 1000
    X, y = X[:n_rows].astype(np.float32), y[:n_rows]
    ratios = (1.0, 2.5, 4.0)
    seconds, iterations = dict.fromkeys(ratios, 0.0), dict.fromkeys(ratios, 0)
    options = {"hidden_layer_sizes": (512, 512), "max_iter": 8} | network_options(arguments)
    for damping in (0.01, 0.001):
        for seed in range(1 if arguments.smoke else 3):
            for ratio in ratios:
                with unittest.mock.patch.object(preconditioners, "_NEARBY_RIDGE", ratio):
                    model = SubquadMLPClassifier(
                        loss="log_loss",
                        damping=damping,
                        early_stopping=False,
                        init="gaussian",
                        batch_size=len(X),
                        random_state=seed,
                        **options,
                    ).fit(X, y)
                seconds[ratio] += model.phase_times_["solve"]
                iterations[ratio] += sum(model.n_cg_iter_)
    for ratio in ratios:
        print(f"factors serve shifts up to {ratio} times: {seconds[ratio]:.1f} s, {iterations[ratio]} inner iterations")


def deviations(arguments):
    """Predictions with and without standard deviations, defaults, 1,000 fitted rows and as many new ones."""
    X, y = friedman(2000)
    model = SubquadMLPRegressor(**({"max_iter": 5, "random_state": 0} | network_options(arguments)))
    model.fit(X[:1000], y[:1000])
    mean = median_ms(arguments, lambda: model.predict(X[1000:]))
    both = median_ms(arguments, lambda: model.predict(X[1000:], return_std=True))
    print(f"predict of 1,000 rows: {mean:.0f} ms, with deviations {both:.0f} ms", flush=True)


def onnx(arguments):
    """ONNX models beside `predict` on one thread: bytes, and milliseconds for 1, 100 and 1,000 rows."""
    missing = [package for package in ("onnx", "onnxruntime", "pandas") if importlib.util.find_spec(package) is None]
    if missing:
        print(f"onnx: left out, it needs {', '.join(missing)}.")
        return
    options = {"max_iter": 5, "n_jobs": 1, "random_state": 0} | network_options(arguments)
    X, y = friedman(2000)
    for n_folds in (1, 8):
        model = SubquadMLPRegressor(n_folds=n_folds, **options).fit(X[:1000], y[:1000])
        onnx_beside_predict(arguments, model, X[1000:], X.dtype)
    table = census_table(2000)
    model = SubquadMLPClassifier(n_folds=8, **options).fit(table[:1000], y[:1000] > np.median(y))
    onnx_beside_predict(arguments, model, table[1000:], "float64")


def census_table(n_rows):
    """A frame with as many numbers and categories as the set "adult" has, and as many levels of these."""
    import pandas

    rng = np.random.default_rng(0)
    numbers = {f"number {i}": rng.random(n_rows) for i in range(6)}
    levels = dict(enumerate((8, 16, 7, 14, 6, 5, 2, 41)))
    words = {f"category {i}": rng.integers(0, n, n_rows).astype("U") + np.array(" of those") for i, n in levels.items()}
    return pandas.DataFrame(numbers | words)


def onnx_beside_predict(arguments, model, X, dtype):
    """Bytes of a model, and its milliseconds for rows of an array or a frame, whose columns are made inputs before."""
    import onnxruntime

    from sklearn_subquad.onnx import to_onnx

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    stored = to_onnx(model, dtype=dtype).SerializeToString()
    session = onnxruntime.InferenceSession(stored, settings)
    n_networks = len(model.estimators_)
    print(
        f"{type(model).__name__}, {type(X).__name__} of {X.shape[1]} columns, {n_networks} network(s): "
        f"{len(pickle.dumps(model)):,} bytes as a pickle, {len(stored):,} as ONNX"
    )
    for n_rows in (1, 100, 1000):
        rows = X[:n_rows]
        inputs = {"X": rows} if isinstance(X, np.ndarray) else {name: rows[[name]].to_numpy() for name in rows}
        with threadpool_limits(1):
            own = median_ms(arguments, lambda rows=rows: model.predict(rows))
        theirs = median_ms(arguments, lambda inputs=inputs: session.run(None, inputs))
        print(f"{n_rows} row(s): predict {own:.2f} ms, onnxruntime {theirs:.2f} ms", flush=True)


# ---- parallel searches ------------------------------------------------------------------------------------

N_JOBS = 2


def networks(arguments):
    """Seconds of one fit of several networks: one by one, on threads and in processes, which are there already."""
    settings = [{"n_jobs": 1}, {"n_jobs": N_JOBS}, {"backend": "loky", "n_jobs": N_JOBS}]
    problems = {
        "700 rows, one target": (SubquadMLPRegressor, *friedman(700)),
        "6,000 rows, one target": (SubquadMLPRegressor, *friedman(6000)),
        "300 rows, 100 classes, log loss": (
            functools.partial(SubquadMLPClassifier, loss="log_loss"),
            *outputs.with_classes(300, 100)[:2],
        ),
        "1,500 rows, 4 classes": (SubquadMLPClassifier, *outputs.with_classes(1500, 4)[:2]),
    }
    for name, (estimator, X, y) in problems.items():
        rows = slice(None, 200 if arguments.smoke else None)
        seconds = []
        # The first round loads what loads late, and starts processes.
        for _ in range(2 if arguments.smoke else 6):
            seconds.append([])
            for setting in settings:
                with joblib.parallel_config(**setting):
                    model = estimator(random_state=0, **network_options(arguments))
                    seconds[-1].append(outputs.timed(model, X[rows], y[rows]))
        first, *others = np.array(seconds)
        one, threads, processes = np.median(others, axis=0)
        ratios = np.median(np.array(others)[:, :1] / np.array(others), axis=0)
        print(
            f"{name}: one by one {one:.2f} s, {N_JOBS} threads {threads:.2f} s ({ratios[1]:.2f} times as fast), "
            f"{N_JOBS} processes {processes:.2f} s ({ratios[2]:.2f}); the first time {first[1]:.2f}, {first[2]:.2f} s",
            flush=True,
        )


@contextlib.contextmanager
def dask_workers():
    from distributed import Client, LocalCluster

    options = {"processes": True, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=N_JOBS, threads_per_worker=1, **options) as cluster, Client(cluster):
        yield


def time_search(way, search, X, y):
    """Seconds of the search, and its mean scores."""
    with dask_workers() if way == "dask" else contextlib.nullcontext():
        settings = {"backend": "sequential"} if way == "one by one" else {"backend": way, "n_jobs": N_JOBS}
        with joblib.parallel_config(**settings):
            # The first task imports the package.
            joblib.Parallel()(joblib.delayed(SubquadMLPClassifier)() for _ in range(2 * N_JOBS))
            start = time.perf_counter()
            search.fit(X, y)
            return time.perf_counter() - start, search.cv_results_["mean_test_score"]


def searches(arguments):
    """A grid search one fit at a time, and two at a time in processes, threads and, where it is installed, Dask."""
    smoke = arguments.smoke
    X, y = load_breast_cancer(return_X_y=True)
    width = 64 if smoke else 512
    model = SubquadMLPClassifier(hidden_layer_sizes=(width, width), max_iter=2 if smoke else 5, random_state=0)
    grid = {"density": [0.1, 0.25] if smoke else [0.1, 0.15, 0.2, 0.25], "loss": ["squared_error"]}
    search = GridSearchCV(model, grid, cv=2, refit=False)
    ways = ["one by one", "loky", "threading"] + ["dask"] * (importlib.util.find_spec("distributed") is not None)
    seconds = {way: [] for way in ways}
    expected = None
    for _ in range(1 if smoke else 2):
        for way in ways:
            taken, scores = time_search(way, search, X, y)
            seconds[way].append(taken)
            expected = scores if expected is None else expected
            # To rounding, which may move a row at the border of two classes.
            np.testing.assert_allclose(scores, expected, atol=2 / len(y))
            print(f"{way}: {taken:.1f} s", flush=True)
    print(f"Medians of {len(grid['density']) * search.cv} fits of {len(X)} rows or fewer, widths ({width}, {width})")
    for way, runs in seconds.items():
        print(f"{way}: {np.median(runs):.1f} s ({min(runs):.1f} to {max(runs):.1f})", flush=True)


# ---- does memory grow? ------------------------------------------------------------------------------------

# Allocators keep what threads and BLAS once asked for. A leak of the 64 x 64 weights of every fit would be 32 MB.
MAX_GROWTH = 16e6
SMALL_FIT = {"hidden_layer_sizes": (64, 64), "max_iter": 2, "n_jobs": 2}
WAYS = [
    {"early_stopping": "loo"},
    {"early_stopping": "validation", "sparsifier": "topk"},
    {"early_stopping": False, "preconditioner": "none"},
    {"batch_size": 20, "preconditioner": "sketch"},
]


def resident_bytes():
    """Memory of this process that is in RAM, as Linux counts it."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def fit_once(number, estimator_class, way):
    """Fit, predict, and let another fit fail after its parameters and data have been looked at."""
    rng = np.random.default_rng(number)
    X, precision = rng.standard_normal((60, 4)), rng.choice(["single", "double"])
    y = X[:, 0] + rng.standard_normal(60)
    if estimator_class is SubquadMLPClassifier:
        y = y > 0
    model = estimator_class(**SMALL_FIT, **way, precision=precision, random_state=number).fit(X, y)
    if not np.isfinite(model.predict(X)).all():
        raise RuntimeError(f"fit {number} predicts numbers that are not finite")
    try:
        model.fit(X, y, sample_weight=-np.ones(60))
    except ValueError:
        return
    raise RuntimeError(f"fit {number} accepts negative weights")


def memory(arguments):
    """Does the memory of the process grow over a thousand small fits, after each of which another one fails?"""
    n_fits = 40 if arguments.smoke else 1000
    cases = list(itertools.product((SubquadMLPRegressor, SubquadMLPClassifier), WAYS))
    n_warm = n_fits // 10
    for number in range(n_warm + n_fits):
        if number == n_warm:
            gc.collect()
            start = resident_bytes()
        fit_once(number, *cases[number % len(cases)])
        if number >= n_warm and (number - n_warm + 1) % (n_fits // 10) == 0:
            gc.collect()
            growth = resident_bytes() - start
            print(f"{number - n_warm + 1:5d} fits: {growth / 1e6:+.1f} MB on {start / 1e6:.0f} MB", flush=True)
    if growth > MAX_GROWTH:
        raise SystemExit(f"memory grew by {growth / 1e6:.1f} MB in {n_fits} fits")


if __name__ == "__main__":
    # Many fits here have a few steps only.
    warnings.simplefilter("ignore", ConvergenceWarning)
    run_chosen(__doc__, (threads, alignment, small_steps, nearby_shifts, deviations, onnx, searches, networks, memory))
