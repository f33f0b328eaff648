"""No step allocates anything of the size of a weight matrix, or of rows x width x outputs."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad._matmul import PackedMatrix
from sklearn_subquad._network import Architecture, Network
from sklearn_subquad._solver import GaussNewtonSolver, SolverOptions
from sklearn_subquad._weights import LazyWeights

WIDTH, N_ROWS = 2048, 24


@pytest.mark.parametrize("max_rank", [0, "auto"])
@pytest.mark.parametrize("n_outputs", [1, 40])
# Dense products are made for an eighth of the matrix at a time, or for a quarter with Strassen's temporaries;
# the rest is about fifteen arrays of rows x width (0.012 of the matrix each) and one per inner vector.
@pytest.mark.parametrize(("matmul", "share"), [("scatter", 0.3), ("blas", 0.5), ("strassen", 0.85)])
def test_steps_allocate_less_than_a_weight_matrix(matmul, share, n_outputs, max_rank):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_ROWS, 6)).astype(np.float32)
    Y = rng.standard_normal((N_ROWS, n_outputs)).astype(np.float32)
    architecture = Architecture((WIDTH, WIDTH), (0.1, 0.1), max_rank=max_rank, matmul=matmul)
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


@pytest.mark.parametrize(("matmul", "share"), [("scatter", 0.3), ("blas", 0.5), ("strassen", 0.85)])
def test_folding_in_many_pending_steps_allocates_less_than_the_weights(matmul, share):
    rng = np.random.default_rng(0)
    weights = LazyWeights(PackedMatrix.zeros(WIDTH, WIDTH, np.float32), matmul=matmul)
    for _ in range(60):
        factors = rng.standard_normal((2, N_ROWS, WIDTH), np.float32) * (rng.random((2, N_ROWS, WIDTH)) < 0.1)
        weights.push(*map(csr_array, factors))
    assert weights.rank > WIDTH // 2
    tracemalloc.start()
    weights.flush()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < share * WIDTH * WIDTH * 4
