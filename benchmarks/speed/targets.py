"""The figures that the kernels are held to: ours and dense NumPy in one process, in turn, medians of ratios.

python benchmarks/speed/targets.py predict iteration backward flush strassen init folding     # some minutes
python benchmarks/speed/targets.py --smoke
"""

import itertools
import pathlib
import sys
import time
from functools import partial
from unittest import mock

import numpy as np

from sklearn_subquad._curvature.losses import SquaredError
from sklearn_subquad._linalg.costs import cheapest_route
from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix, strassen_columns, strassen_levels
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.activations import auto_density
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._solver.gauss_newton import GaussNewton
from sklearn_subquad._solver.levenberg_marquardt import Batch
from sklearn_subquad._solver.options import SolverOptions

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import run_chosen
from speed.dense import DenseNetwork
from suite import kernels
from suite.problems import friedman, network_inputs

N_ROWS = 1024

sparse_rows = partial(kernels.sparse_rows, dtype=np.float32, drawn_as=np.float32)


def seconds(work):
    """Time of one call. BLAS' threads go on spinning after a product, which a run before would leave to the next."""
    time.sleep(0.2)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(ours, others, repeats):
    """Median seconds of both, and the median of the ratios other / ours of neighbouring runs."""
    pairs = np.array([(seconds(ours), seconds(others)) for _ in range(repeats)])
    return *np.median(pairs, axis=0), np.median(pairs[:, 1] / pairs[:, 0])


def network(m, x):
    scale = 0.05 * np.sqrt(2048 / m)
    architecture = Architecture((m, m), (auto_density(m),) * 2, init_scale=scale)
    return Network.initialise(architecture, x, np.ones(len(x)), 1, seed=0)


def predict(widths, repeats):
    """A forward pass of two layers at density auto."""
    x, _ = network_inputs(*friedman(N_ROWS))
    for m in widths:
        with worker_threads():
            ours = network(m, x)
        dense = DenseNetwork(ours)

        def forward(net=ours):
            with worker_threads():
                net.forward(x)

        mine, other, ratio = alternate(forward, lambda net=dense: net.forward(x), repeats)
        print(f"predict, m = {m}: {mine:.3f} s, dense {other:.3f} s, ratio {ratio:.2f}", flush=True)


def iteration(widths, repeats):
    """Full iterations: linearise, Gram matrix, Cholesky, step, trial; ours folds its factors in when it finds fit."""
    x, y = network_inputs(*friedman(N_ROWS))
    batch, steps = Batch(x, y, np.ones(len(x))), 4
    for m in widths:
        with worker_threads():
            ours = network(m, x)
        dense = DenseNetwork(ours)
        state = dense.forward(x)
        rows = []
        for _ in range(repeats):
            options = SolverOptions(damping=1.0, max_iter=steps, tol=0.0, n_iter_no_change=steps + 1)
            with worker_threads():
                result = GaussNewton(ours, batch, SquaredError(), options, None, 0).solve()
            # The solver's own first forward pass is one more than an iteration has.
            forward = result.phase_times["forward"] / (result.n_iter + 1)
            mine = (sum(result.phase_times.values()) - forward) / result.n_iter
            start = time.perf_counter()
            for _ in range(steps):
                state = dense.iteration(x, y, *state, damping=1.0)
            rows.append((mine, (time.perf_counter() - start) / steps))
        rows = np.array(rows)
        mine, other = np.median(rows, axis=0)
        ratio = np.median(rows[:, 1] / rows[:, 0])
        print(f"iteration, m = {m}: {mine:.3f} s, dense {other:.3f} s, ratio {ratio:.2f}", flush=True)


def backward(widths, repeats):
    """The backward product against the forward product with one matrix."""
    for m in widths:
        W = PackedMatrix.zeros(m, m, np.float32)
        rows = sparse_rows(N_ROWS, m, auto_density(m))
        with worker_threads():
            forward, back, ratio = alternate(partial(W.forward, rows), partial(W.backward, rows), repeats)
        rate = 2e-9 * rows.nnz * m / forward
        print(
            f"products, m = {m}: forward {forward:.3f} s ({rate:.0f} GFLOP/s), backward {back:.3f} s, "
            f"backward / forward {ratio:.2f}",
            flush=True,
        )


def flush(widths, repeats):
    """Folding factors of rank 1024 in, by every route."""
    for m, density in itertools.product(widths, (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)):
        W = PackedMatrix.zeros(m, m, np.float32)
        U, G = (sparse_rows(N_ROWS, m, density, seed=seed) for seed in (0, 1))
        with worker_threads():
            runs = [[seconds(partial(W.add_product, U, G, route)) for route in ROUTES] for _ in range(repeats)]
            chosen = cheapest_route(U, G, m)
        medians = dict(zip(ROUTES, np.median(runs, axis=0), strict=True))
        excess = medians[chosen] / min(medians.values()) - 1
        listed = ", ".join(f"{route} {s:.3f} s" for route, s in medians.items())
        print(f"flush, m = {m}, density {density}: {listed}; auto: {chosen}, {excess:.0%} above the best", flush=True)


def strassen(widths, repeats):
    """Folding dense factors of growing rank in, by BLAS and by Strassen's algorithm over BLAS."""
    for m in widths:
        for rank in (m // 8, m // 4, m // 2):
            W = PackedMatrix.zeros(m, m, np.float32)
            U, G = (sparse_rows(rank, m, 0.5, seed=seed) for seed in (0, 1))
            with worker_threads():
                mine, other, ratio = alternate(
                    partial(W.add_product, U, G, "strassen"), partial(W.add_product, U, G, "blas"), min(repeats, 3)
                )
            levels = strassen_levels(m, rank, strassen_columns(m))
            print(
                f"Strassen, m = {m}, rank {rank}, {levels} levels: {mine:.2f} s, BLAS {other:.2f} s, ratio {ratio:.2f}",
                flush=True,
            )


def init(widths, repeats):
    """Drawing the m x m weights of one layer."""
    x, _ = network_inputs(*friedman(N_ROWS))
    for m in widths:
        with worker_threads():
            took = np.median([seconds(partial(network, m, x)) for _ in range(min(repeats, 3))])
        print(f"initialisation, m = {m}, shifts and gains calibrated on {N_ROWS} rows: {took:.2f} s", flush=True)


def folding(widths, repeats):
    """The sparse route relative to dense BLAS by the density of the right factor, on one thread."""
    densities = (0.05, 0.25, 0.5, 0.75)
    for m, dtype in itertools.product(widths, (np.float32, np.float64)):
        W = PackedMatrix.zeros(m, m, dtype)
        factors = [kernels.sparse_rows(m // 2, m, density, dtype=dtype, drawn_as=np.float32) for density in densities]
        works = [partial(W.add_product, factors[1], G, "scatter") for G in factors]
        works.append(partial(W.add_product, factors[1], factors[1], "blas"))
        with worker_threads(1):
            *sparse, blas = np.min([[seconds(work) for work in works] for _ in range(repeats)], axis=0)
        listed = ", ".join(f"{ratio:.2f} at {density}" for ratio, density in zip(sparse / blas, densities, strict=True))
        print(f"folding, m = {m}, {np.dtype(dtype)}: sparse / BLAS {listed}", flush=True)


# Widths of each measurement.
WIDTHS = {
    predict: (8192, 16384),
    iteration: (8192,),
    backward: (2048, 8192, 16384),
    flush: (8192,),
    strassen: (8192,),
    init: (16384,),
    folding: (1024, 2048),
}


def call(measurement, arguments):
    if not arguments.smoke:
        return measurement(WIDTHS[measurement], 7)
    with mock.patch.object(time, "sleep"), mock.patch.dict(globals(), N_ROWS=128):
        return measurement((256,), 1)


if __name__ == "__main__":
    run_chosen(__doc__, WIDTHS, call)
