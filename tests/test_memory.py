"""No step allocates anything of the size of a weight matrix, or of rows x width x outputs."""

import tracemalloc

import numpy as np
import pytest

from sklearn_subquad._network import Architecture, Network
from sklearn_subquad._solver import GaussNewtonSolver, SolverOptions

WIDTH, N_ROWS = 2048, 24


@pytest.mark.parametrize("n_outputs", [1, 40])
# Dense products are made for an eighth of the matrix at a time, or for a quarter with Strassen's temporaries;
# the rest is about fifteen arrays of rows x width (0.012 of the matrix each) and one per inner vector.
@pytest.mark.parametrize(("matmul", "share"), [("scatter", 0.3), ("blas", 0.5), ("strassen", 0.85)])
def test_steps_allocate_less_than_a_weight_matrix(matmul, share, n_outputs):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_ROWS, 6)).astype(np.float32)
    Y = rng.standard_normal((N_ROWS, n_outputs)).astype(np.float32)
    # max_rank=0 folds every step in at once: what a step can cost in memory, it costs here.
    architecture = Architecture((WIDTH, WIDTH), (0.1, 0.1), max_rank=0, matmul=matmul)
    network = Network.initialise(architecture, x, np.ones(N_ROWS), n_outputs, seed=0)
    options = SolverOptions(max_iter=2, cg_tol=1e-1, max_cg_iter=3)
    solver = GaussNewtonSolver(network, x, Y, np.ones(N_ROWS), options, None, seed=0)
    tracemalloc.start()
    result = solver.solve()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.n_iter == 2
    assert peak < share * WIDTH * WIDTH * x.itemsize
    if matmul == "scatter" and n_outputs > 1:
        assert peak < N_ROWS * WIDTH * n_outputs * x.itemsize
