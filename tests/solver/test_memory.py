"""No step allocates anything of the size of a weight matrix, of rows x width, or of rows x width x outputs."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor, SquaredError
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._network.lazy_weights import LazyWeights
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._solver.criteria import Judgement
from sklearn_subquad._solver.gauss_newton import GaussNewton
from sklearn_subquad._solver.levenberg_marquardt import Batch
from sklearn_subquad._solver.options import SolverOptions

WIDTH, N_ROWS = 2048, 24
WEIGHT_BYTES = WIDTH * WIDTH * 4


def peak_of(work):
    """What `work` returns, and the most bytes that were allocated beyond those before it."""
    tracemalloc.start()
    try:
        result = work()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, peak


def small_problem(n_outputs, n_rows=N_ROWS, **options):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, 6)).astype(np.float32)
    Y = rng.standard_normal((n_rows, n_outputs)).astype(np.float32)
    architecture = Architecture((WIDTH, WIDTH), (0.1, 0.1), **options)
    network = Network.initialise(architecture, x, np.ones(n_rows), n_outputs, seed=0)
    return network, Batch(x, Y, np.ones(n_rows))


def make_solver(network, batch, **options):
    loss = SquaredError(batch.Y.shape[1])
    return GaussNewton(network, batch, loss, SolverOptions(max_iter=2, **options), None, seed=0)


# Dense products are made for an eighth of the matrix at a time, or for a quarter with Strassen's temporaries; the
# rest are activations, two of the dense input and output weights (0.02 of the matrix for 40 outputs), and their undo.
SHARES = pytest.mark.parametrize(("matmul", "share"), [("scatter", 0.2), ("blas", 0.3), ("strassen", 0.45)])


@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("max_rank", [0, None])
@pytest.mark.parametrize("n_outputs", [1, 40])
@SHARES
def test_steps_allocate_less_than_a_weight_matrix(matmul, share, n_outputs, max_rank, sparsifier):
    network, batch = small_problem(n_outputs, max_rank=max_rank, matmul=matmul, sparsifier=sparsifier)
    result, peak = peak_of(make_solver(network, batch, cg_tol=1e-1, max_cg_iter=3).solve)
    assert result.n_iter == 2
    assert peak < share * WEIGHT_BYTES
    if matmul == "scatter" and n_outputs > 1:
        assert peak < N_ROWS * WIDTH * n_outputs * batch.x.itemsize
    # The state of the fitted network is the start's own memory.
    _, peak = peak_of(network.to_state)
    assert peak < 0.01 * WEIGHT_BYTES


class FallingError:
    """A criterion by which every average is better than the one before."""

    def __init__(self):
        self.error = 1.0

    def of_the_constant(self, network):
        return Judgement(self.error, self.error, None, None)

    def of_network(self, network):
        self.error /= 2
        return Judgement(self.error, self.error, None, None)


@pytest.mark.parametrize(("with_criterion", "copies"), [(False, 1), (True, 2)])
@SHARES
def test_batches_take_an_average_and_with_a_criterion_the_best_one(matmul, share, with_criterion, copies):
    network, data = small_problem(1, 4 * N_ROWS, matmul=matmul)
    options = SolverOptions(in_batches=True, batch_size=N_ROWS, max_iter=3, damping=10.0, tol=0.0, n_iter_no_change=100)
    criterion = FallingError() if with_criterion else None
    solver = GaussNewton(network, data, SquaredError(1), options, criterion, 0)
    result, peak = peak_of(solver.solve)
    assert result.n_iter == 3
    assert copies * WEIGHT_BYTES < peak < (copies + share) * WEIGHT_BYTES


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_class_indicators_are_never_doubles(loss):
    n, n_classes = 40_000, 50
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, 2), dtype=np.float32), rng.integers(n_classes, size=n)
    parameters = {"preconditioner": "none", "damping": 1e6, "cg_tol": 0.5, "batch_size": 5000, "max_iter": 1}
    model = SubquadMLPClassifier(
        hidden_layer_sizes=(2,), loss=loss, early_stopping=False, n_bins=None, n_jobs=1, random_state=0, **parameters
    )
    _, peak = peak_of(lambda: model.fit(X, y))
    # A byte each, in single precision as targets, and once more as outputs that are zero; batches have an eighth of it.
    assert peak < 20 * n * n_classes


def test_no_copy_of_the_features_lives_beside_the_scaled_ones(monkeypatch):
    held = []
    monkeypatch.setattr(GaussNewton, "solve", lambda self: held.append(tracemalloc.get_traced_memory()[0]) or 1 / 0)
    X = np.random.default_rng(0).standard_normal((20_000, 100), dtype=np.float32)
    model = SubquadMLPRegressor(hidden_layer_sizes=(8,), early_stopping="validation", batch_size=1000)
    with pytest.raises(ZeroDivisionError):
        peak_of(lambda: model.fit(X, X[:, 0]))
    # With the 4,096 rows on which the network was calibrated.
    assert X.nbytes < held[0] < 1.5 * X.nbytes


@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initial_weights_are_drawn_in_place(dtype, sparsifier):
    x = np.random.default_rng(0).standard_normal((N_ROWS, 6)).astype(dtype)
    architecture = Architecture((WIDTH, WIDTH), (0.1, 0.1), sparsifier=sparsifier)
    _, peak = peak_of(lambda: Network.initialise(architecture, x, np.ones(N_ROWS), 1, seed=0))
    assert peak < 1.1 * WIDTH * WIDTH * x.itemsize


# Beside the share of one push, the sparse route keeps the transposed patterns of all that is pending.
@pytest.mark.parametrize(("matmul", "share"), [("scatter", 0.3), ("blas", 0.2), ("strassen", 0.35)])
def test_folding_in_many_pending_steps_allocates_less_than_the_weights(matmul, share):
    rng = np.random.default_rng(0)
    weights = LazyWeights(PackedMatrix.zeros(WIDTH, WIDTH, np.float32), matmul=matmul)
    for _ in range(60):
        factors = rng.standard_normal((2, N_ROWS, WIDTH), np.float32) * (rng.random((2, N_ROWS, WIDTH)) < 0.1)
        weights.push(*(SparseRows.from_csr(csr_array(factor)) for factor in factors))
    assert weights.rank > WIDTH // 2
    _, peak = peak_of(weights.flush)
    assert peak < share * WEIGHT_BYTES


@pytest.mark.parametrize("k", [1, 5])
def test_no_pass_holds_dense_rows_times_width(k):
    # An eighth of the columns at a time is dense; the rest is sparse rows.
    n_rows, widths = 256, (8192, 1024)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, 6)).astype(np.float32)
    C = rng.standard_normal((n_rows, k)).astype(np.float32)
    architecture = Architecture(widths, (0.05, 0.05), max_rank=10_000)
    network = Network.initialise(architecture, x, np.ones(n_rows), k, seed=0)
    peaks = {}
    activations, peaks["forward"] = peak_of(lambda: network.forward(x))
    probes = make_probes(k, np.random.default_rng(0), n_random=1)
    jacobian, peaks["Jacobian"] = peak_of(
        lambda: Jacobian(network, activations, np.ones(n_rows), probes, IdentityFactor())
    )
    _, peaks["cotangents"] = peak_of(lambda: jacobian.cotangents(C))
    step, peaks["Jt"] = peak_of(lambda: jacobian.Jt(C))
    for depth in range(len(widths) + 1):
        # The others keep them.
        _, peaks[f"Gram matrix of layer {depth}"] = peak_of(lambda depth=depth: jacobian._layer_grams.matrix(depth))
    _, peaks["gram"] = peak_of(jacobian.gram.matrix)
    _, peaks["gram_matvec"] = peak_of(lambda: jacobian.gram_matvec(C))
    _, peaks["mean_diagonal"] = peak_of(jacobian.mean_diagonal)
    network.apply(step)
    _, peaks["forward with pending factors"] = peak_of(lambda: network.forward(x))
    half = 0.5 * n_rows * widths[0] * x.itemsize
    assert {name: peak for name, peak in peaks.items() if peak >= half} == {}
