"""One Gauss-Newton step and the path of steps, against dense linear algebra."""

import dataclasses

import numpy as np
import pytest
from cases import CASES, DenseNetwork, as_vector, build

from sklearn_subquad._jacobian import Jacobian, make_probes
from sklearn_subquad._network import Architecture, Network
from sklearn_subquad._pcg import pcg
from sklearn_subquad._preconditioner import make_preconditioner
from sklearn_subquad._sketch import JacobianSketch
from sklearn_subquad._solver import GaussNewtonSolver, SolverOptions
from sklearn_subquad._stopping import LeaveOneOutError, StopReason

STEP_CASES = [case for case in CASES if case.dtype == "float64" and case.density == 0.25 and case.n_layers < 3]
PRECONDITIONERS = [
    ("none", "tensor_srht", "auto"),
    ("gram", "tensor_srht", "auto"),
    ("sketch", "tensor_srht", "auto"),
    ("sketch", "tensor_srht", 7),
    ("sketch", "tensor_sketch", "auto"),
    ("sketch", "tensor_sketch", 7),
]


@pytest.mark.parametrize(("name", "sketch", "size"), PRECONDITIONERS)
@pytest.mark.parametrize("case", STEP_CASES, ids=str)
def test_inner_solve_equals_a_dense_solve(case, name, sketch, size):
    network, x = build(case)
    row_scale = np.sqrt(np.random.default_rng(1).uniform(0.5, 2, len(x)))
    probes = make_probes(case.n_outputs, np.random.default_rng(2))
    jacobian = Jacobian(network, network.forward(x), row_scale, probes)
    shift = 0.3 * jacobian.mean_diagonal()
    rhs = np.random.default_rng(3).standard_normal((len(x), case.n_outputs))
    preconditioner = make_preconditioner(name, sketch=sketch, sketch_size=size, seed=0)
    preconditioner.factor(jacobian, shift)
    inner = pcg(lambda C: jacobian.J(jacobian.Jt(C)) + shift * C, rhs, preconditioner.apply, tol=1e-10, max_iter=500)
    dense = DenseNetwork.of(network).jacobian(x) * row_scale[:, None, None]
    J = dense.reshape(rhs.size, -1)
    wanted = np.linalg.solve(J @ J.T + shift * np.eye(rhs.size), rhs.ravel()).reshape(rhs.shape)
    assert inner.converged
    # The error is at most cond * tol relative to the solution; cond <= 1 + |J J^T| / shift < 1e3 here.
    np.testing.assert_allclose(inner.solution, wanted, atol=1e-7 * np.abs(wanted).max())
    if preconditioner.exact:
        np.testing.assert_allclose(preconditioner.apply(rhs), wanted, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["tensor_srht", "tensor_sketch"])
@pytest.mark.parametrize("case", STEP_CASES[::3], ids=str)
def test_jacobian_sketch_is_unbiased(case, kind):
    network, x = build(case)
    probes = make_probes(case.n_outputs, np.random.default_rng(2))
    row_scale = np.sqrt(np.random.default_rng(1).uniform(0.5, 2, len(x)))
    jacobian = Jacobian(network, network.forward(x), row_scale, probes)
    products = []
    for seed in range(200):
        features = JacobianSketch(kind, 64, seed).features(jacobian)
        products.append(features @ features.T)
    mean, error = np.mean(products, axis=0), np.std(products, axis=0) / np.sqrt(len(products))
    # 289 entries: 5 standard errors leave a false alarm below one in a thousand.
    assert (np.abs(mean - jacobian.gram()) <= 5 * error + 1e-12).all()
    assert error.max() < 0.1 * np.abs(jacobian.gram()).max(), "too wide to tell a bias"


def test_a_better_preconditioner_needs_fewer_iterations():
    case = next(case for case in STEP_CASES if case.n_outputs == 3 and case.skip)
    network, x = build(case)
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), make_probes(3, np.random.default_rng(0)))
    shift = 1e-2 * jacobian.mean_diagonal()
    rhs = np.random.default_rng(3).standard_normal((len(x), 3))
    needed = {}
    for name, size in [("none", "auto"), ("sketch", 4000), ("gram", "auto")]:
        preconditioner = make_preconditioner(name, sketch="tensor_srht", sketch_size=size, seed=0)
        preconditioner.factor(jacobian, shift)
        needed[name] = pcg(
            lambda C: jacobian.J(jacobian.Jt(C)) + shift * C,
            rhs,
            preconditioner.apply,
            tol=1e-6,
            max_iter=500,
        ).n_iter
    assert needed["gram"] <= needed["sketch"] < needed["none"]


def make_problem(n=60, k=1, alpha=0.0, widths=(96, 80), seed=0, dtype=np.float64, max_rank=100_000):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.standard_normal((n, 4)) / 2, np.full(n, 0.5)]).astype(dtype)
    Y = np.column_stack([np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + c * x[:, 3] for c in range(k)])
    Y = ((Y - Y.mean(axis=0)) / Y.std(axis=0)).astype(dtype)
    architecture = Architecture(widths, (0.25,) * len(widths), init_scale=0.1, max_rank=max_rank, keep_start=alpha > 0)
    return Network.initialise(architecture, x, np.ones(n), k, seed), x, Y


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("k", [1, 2])
def test_a_step_minimises_the_damped_linear_model(alpha, k):
    # Against the primal normal equations, which know nothing of duals, factors or shrinking.
    def problem():
        return make_problem(n=12, k=k, alpha=alpha, widths=(30, 20))

    def parameters(network):
        return np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])

    network, x, Y = problem()
    weights = np.random.default_rng(5).uniform(0.5, 2, len(x))
    W = np.repeat(weights, k)
    options = SolverOptions(alpha=alpha, damping=0.7, cg_tol=1e-10, max_cg_iter=500, tol=0.0)
    start = parameters(network)
    before, damping, penalty = start, options.damping, None
    for n_steps in (1, 2):
        dense = DenseNetwork.of(problem()[0]).moved(before - start)
        out, _, _ = dense.forward(x)
        J = dense.jacobian(x).reshape(out.size, -1)
        # All outputs are probed (k <= 3), so that the mean diagonal is exact.
        mean_diagonal = (W * (J**2).sum(axis=1)).sum() / W.sum()
        penalty = alpha * mean_diagonal if penalty is None else penalty
        lhs = (J.T * W) @ J + (damping * mean_diagonal + penalty) * np.eye(J.shape[1])
        rhs = J.T @ (W * (Y - out).ravel()) - penalty * (before - start)
        wanted = before + np.linalg.solve(lhs, rhs)

        network, _, _ = problem()
        limited = dataclasses.replace(options, max_iter=n_steps)
        result = GaussNewtonSolver(network, x, Y, weights, limited, None, seed=0).solve()
        assert result.n_iter == n_steps
        np.testing.assert_allclose(parameters(network), wanted, atol=1e-6 * np.abs(wanted - start).max())
        # The second step starts from the damping that the first one left behind.
        before, damping = parameters(network), result.damping


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_the_objective_falls_with_every_step(alpha, dtype):
    network, x, Y = make_problem(alpha=alpha, dtype=dtype)
    solver = GaussNewtonSolver(network, x, Y, np.ones(len(x)), SolverOptions(alpha=alpha), None, seed=0)
    objectives = []
    accept = solver._accept

    def recording_accept(solution, undo, activations, data_loss):
        objectives.append(data_loss + 0.5 * solver._penalty * solution.distance)
        accept(solution, undo, activations, data_loss)

    solver._accept = recording_accept
    solver.solve()
    assert len(objectives) > 3
    assert (np.diff(objectives) < 0).all()


def test_tracked_distance_is_the_distance():
    network, x, Y = make_problem(alpha=0.3)
    solver = GaussNewtonSolver(network, x, Y, np.ones(len(x)), SolverOptions(alpha=0.3, max_iter=5), None, seed=0)
    start = np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])
    solver.solve()
    now = np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])
    assert solver._distance == pytest.approx(((now - start) ** 2).sum(), rel=1e-6)


def test_rejected_steps_leave_no_trace():
    network, x, Y = make_problem()
    before = [weights.to_dense() for weights in network.lazy_weights()]
    undo_output = network.output_weights
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), np.eye(1))
    undo = network.apply(jacobian.Jt(Y))
    network.revert(undo)
    assert network.output_weights is undo_output
    for weights, dense in zip(network.lazy_weights(), before, strict=True):
        assert (weights.to_dense() == dense).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_steps_that_a_query_folded_in_are_rejected_to_rounding(alpha):
    # So many rows that the forward pass of the attempt folds the attempt in, twice at one linearisation.
    network, x, Y = make_problem(n=250, alpha=alpha, max_rank="auto")
    (weights,) = network.lazy_weights()
    before, output_weights = weights.to_dense(), network.output_weights
    activations = network.forward(x)
    jacobian = Jacobian(network, activations, np.ones(len(x)), np.eye(1))
    for size in (1.0, 0.1):
        step = jacobian.Jt(size * Y)
        step.shrink = 1.0 - alpha
        undo = network.apply(step)
        network.forward(x)
        assert weights.rank == 0
        network.revert(undo)
        assert weights.rank == len(x)
        np.testing.assert_allclose(weights.to_dense(), before, atol=1e-12 * np.abs(before).max())
    assert network.output_weights is output_weights
    np.testing.assert_allclose(network.forward(x).output, activations.output, atol=1e-10)


def test_the_best_iterate_is_returned_even_after_flushes():
    network, x, Y = make_problem(n=40)
    scores = iter([1.0, 0.5, 0.1, 0.9, 0.8, 0.7])
    snapshots = []

    class Scripted:
        def of_the_mean(self, Y):
            return next(scores)

        def update(self, network, residual, jacobian, shift, restored):
            snapshots.append([part.copy() for part in DenseNetwork.of(network).parts()])
            for weights in network.lazy_weights():
                weights.flush()
            return next(scores)

    solver = GaussNewtonSolver(network, x, Y, np.ones(len(x)), SolverOptions(damping=1.0), Scripted(), seed=0)
    result = solver.solve()
    assert result.best_iter == 2
    assert result.stop_reason is StopReason.NO_IMPROVEMENT
    for now, best in zip(DenseNetwork.of(network).parts(), snapshots[1], strict=True):
        np.testing.assert_allclose(now, best, atol=1e-10)


def test_a_loss_that_cannot_fall_stops_with_a_reason(monkeypatch):
    network, x, Y = make_problem()
    solver = GaussNewtonSolver(network, x, Y, np.ones(len(x)), SolverOptions(), None, seed=0)
    forward, calls = network.forward, []

    def broken_forward(rows):
        activations = forward(rows)
        if calls:
            activations.output[0, 0] = np.nan
        calls.append(1)
        return activations

    monkeypatch.setattr(network, "forward", broken_forward)
    result = solver.solve()
    assert result.stop_reason is StopReason.NO_DESCENT
    assert result.n_iter == 0
    assert np.isfinite(result.damping)


def test_leave_one_out_is_exact_for_one_linear_step():
    # In the linear model one step is ridge regression on the kernel; refit it without each row in turn.
    network, x, _ = make_problem(n=25)
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), np.eye(1))
    shift = 0.5 * jacobian.mean_diagonal()
    error = LeaveOneOutError(np.ones(len(x)), np.random.default_rng(0))
    error._smoothed = error._start = np.eye(len(x))  # the exact formula holds without centring
    residual = np.random.default_rng(1).standard_normal((len(x), 1))
    K, squares = jacobian.gram(), []
    for i in range(len(x)):
        rest = np.delete(np.arange(len(x)), i)
        c = np.linalg.solve(K[np.ix_(rest, rest)] + shift * np.eye(len(rest)), residual[rest])
        squares.append((residual[i] - K[i, rest] @ c) ** 2)
    assert error.error_after_first_step(jacobian, shift, residual) == pytest.approx(np.mean(squares))


def test_leave_one_out_of_weighted_rows_is_that_of_repeated_rows():
    rng = np.random.default_rng(2)
    repeats = rng.integers(1, 4, 20)
    network, x, Y = make_problem(n=20)
    scores = []
    for rows, weights in ((np.arange(20), repeats.astype(float)), (np.repeat(np.arange(20), repeats), None)):
        weights = np.ones(len(rows)) if weights is None else weights
        activations = network.forward(x[rows])
        jacobian = Jacobian(network, activations, np.sqrt(weights), np.eye(1))
        shift = 0.5 * jacobian.mean_diagonal()
        error = LeaveOneOutError(weights, rng)
        residual = Y[rows]
        first = error.error_after_first_step(jacobian, shift, residual)
        scores.append([error.of_the_mean(residual), first])
        for _ in range(2):
            scores[-1].append(error.update(network, 0.5 * residual, jacobian, shift, 0.1))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-9)


def test_leave_one_out_error_stays_infinite_after_a_failed_factorisation():
    network, x, Y = make_problem(n=20)
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), np.eye(1))
    error = LeaveOneOutError(np.ones(len(x)), np.random.default_rng(0))
    assert np.isfinite(error.update(network, Y, jacobian, 0.5, 0.0))
    # A shift below the smallest eigenvalue: the shifted matrix is not positive definite.
    assert error.update(network, Y, jacobian, -1e6, 0.0) == np.inf
    assert error.update(network, Y, jacobian, 0.5, 0.0) == np.inf


def test_noise_gives_the_mean_unless_a_step_beats_it():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network, x, _ = make_problem(n=60, seed=seed)
        Y = rng.standard_normal((60, 1))
        Y -= Y.mean()
        criterion = LeaveOneOutError(np.ones(60), rng)
        result = GaussNewtonSolver(network, x, Y, np.ones(60), SolverOptions(), criterion, seed=0).solve()
        # Leaving one out of n, the mean of the others is off by 1 / (n - 1).
        assert result.error_curve[0] == pytest.approx((Y**2).mean() * (60 / 59) ** 2)
        assert result.error_curve[result.best_iter] == min(result.error_curve)
        assert (network.forward(x).output == 0).all() == (result.best_iter == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("damping", [1e-9, 1e-20])
def test_a_penalty_far_above_the_damping_does_not_underflow(damping, dtype):
    network, x, Y = make_problem(alpha=1.0, dtype=dtype)
    options = SolverOptions(alpha=1.0, damping=damping, max_iter=8, tol=0.0)
    result = GaussNewtonSolver(network, x, Y, np.ones(len(x)), options, None, seed=0).solve()
    assert result.n_iter >= 1
    assert np.isfinite(result.loss_curve).all()
    # The minimiser of loss and penalty is reached: no further step helps, or all were taken.
    assert result.loss_curve[-1] < 0.9


def test_probed_trace_is_close_to_the_exact_one(monkeypatch):
    network, x, Y = make_problem(n=300)
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), np.eye(1))
    shift = 0.5 * jacobian.mean_diagonal()
    exact = LeaveOneOutError(np.ones(len(x)), np.random.default_rng(0))
    monkeypatch.setattr(LeaveOneOutError, "MAX_EXACT_ROWS", 10)
    probed = LeaveOneOutError(np.ones(len(x)), np.random.default_rng(0))
    residual = Y - network.forward(x).output
    traces = []
    for error in (exact, probed):
        error.update(network, residual, jacobian, shift, 0.0)
        traces.append(np.einsum("ij,ij->", error._probes, error._smoothed) / error._probes.size * len(x))
    exact_matrix = exact._smoothed
    # Hutchinson: the variance of a probe is twice the squared off-diagonal norm of the symmetric part.
    symmetric = 0.5 * (exact_matrix + exact_matrix.T)
    off_diagonal = symmetric - np.diag(np.diag(symmetric))
    deviation = np.sqrt(2 * (off_diagonal**2).sum() / LeaveOneOutError.N_PROBES)
    assert abs(traces[1] - np.trace(exact_matrix)) < 4 * deviation


def test_step_as_vector_matches_what_apply_adds():
    network, x, Y = make_problem(n=12, k=2)
    before = np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), np.eye(2))
    step = jacobian.Jt(Y)
    network.apply(step)
    after = np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])
    np.testing.assert_allclose(after - before, as_vector(step, network), atol=1e-12 * np.abs(after).max())
