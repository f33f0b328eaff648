"""The measurements behind the decisions in doc/architecture.md and the spread in benchmarks/results/accuracy.md.

python benchmarks/decisions.py threads alignment
python benchmarks/decisions.py mirrored draws         # minutes; need the data folder, see uci_sets.py
"""

import argparse
import time

import joblib
import numpy as np
from provenance import print_provenance
from threadpoolctl import threadpool_limits
from uci_sets import DATA

from sklearn_subquad import SubquadMLPRegressor, _kernels, _network
from sklearn_subquad._matmul import PackedMatrix
from sklearn_subquad._parallel import worker_threads
from sklearn_subquad._rows import SparseRows


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


def best_rmse(name, split, seed):
    """Lowest test RMSE on the path of 20 steps at the defaults: what a perfect stopping rule would reach."""
    z = np.load(DATA / "regression" / f"{name}.npz")
    fitting, test = z["train_idx"][split], z["test_idx"][split]
    X, y = z["X"], z["y"].astype(float)
    model = SubquadMLPRegressor(
        tol=0.0,
        n_iter_no_change=20,
        init="axis_aligned",
        feature_metric=None,
        batch_size=len(fitting),
        random_state=seed,
    )
    model.fit(X[fitting], y[fitting], X_val=X[test], y_val=y[test])
    return np.sqrt(1 - max(model.validation_scores_)) * y[fitting].std()


def mirrored():
    original = _network.MIRROR_INIT_SCALE
    for threshold, name in ((original, "random"), (0.0, "mirrored")):
        _network.MIRROR_INIT_SCALE = threshold
        rmse = np.mean([best_rmse("energy", split, seed=123 + split) for split in range(3)])
        print(f"energy, 3 splits, best iterate, {name} start: RMSE {rmse:.3f}", flush=True)
    _network.MIRROR_INIT_SCALE = original


def draws():
    for name, n_splits, seeds in (("energy", 3, (0, 50, 100, 150)), ("boston", 20, (123, 1000))):
        for seed in seeds:
            rmse = np.mean([best_rmse(name, split, seed + split) for split in range(n_splits)])
            print(f"{name}, {n_splits} splits, best iterate, seeds from {seed}: RMSE {rmse:.3f}", flush=True)


if __name__ == "__main__":
    MEASUREMENTS = {f.__name__: f for f in (threads, alignment, mirrored, draws)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", nargs="+", choices=MEASUREMENTS)
    print_provenance()
    for chosen in parser.parse_args().measurements:
        MEASUREMENTS[chosen]()
