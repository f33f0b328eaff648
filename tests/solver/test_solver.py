"""The path of steps on all rows: scores, stop reasons, the way back to the best iterate, leave-one-out errors."""

import numpy as np
import pytest
from cases import DenseNetwork, as_vector, dense_densities, fitting_problem, held_out_error, parameters
from sklearn import config_context

from sklearn_subquad._curvature.jacobian import Jacobian
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.network import Network
from sklearn_subquad._solver.criteria import HeldOutError, Judgement, LeaveOneOutError
from sklearn_subquad._solver.gauss_newton import GaussNewton
from sklearn_subquad._solver.levenberg_marquardt import Batch, LevenbergMarquardt
from sklearn_subquad._solver.options import SolverOptions
from sklearn_subquad._solver.stopping import Patience, StopReason

LOSSES = pytest.mark.parametrize(
    ("name", "k"), [("squared_error", 1), ("squared_error", 5), ("log_loss", 1), ("log_loss", 3), ("poisson", 2)]
)
DTYPES = [np.float32, np.float64]


def make_solver(problem, criterion=None, seed=0, **options):
    network, batch, loss = problem
    return GaussNewton(network, batch, loss, SolverOptions(**options), criterion, seed)


def linearise(network, batch, row_scale=None, n_outputs=1):
    row_scale = np.ones(len(batch)) if row_scale is None else row_scale
    return Jacobian(network, network.forward(batch.x), row_scale, np.eye(n_outputs), IdentityFactor())


def after_step(error, jacobian, ridge, outputs):
    """The `LeaveOneOutError` after one more step along its path."""
    error.follow(jacobian.gram, ridge, outputs)
    return error.of_network(jacobian.network).error


@pytest.mark.parametrize("dtype", DTYPES)
@LOSSES
def test_the_loss_falls_with_every_step(name, k, dtype, monkeypatch):
    problem = fitting_problem(name, k, dtype=dtype, weighted=True)
    network, batch, loss = problem
    losses, step = [], LevenbergMarquardt.step

    def recording(self):
        if not losses:
            losses.append(self._point.loss)
        accepted = step(self)
        if accepted is not None:
            outputs = DenseNetwork.of(network).forward(batch.x)[0]
            losses.append(loss.value(batch.Y, outputs, batch.sample_weight))
        return accepted

    monkeypatch.setattr(LevenbergMarquardt, "step", recording)
    result = make_solver(problem, max_iter=8).solve()
    assert len(losses) > 3
    assert result.n_iter == len(losses) - 1 == len(result.n_cg_iter)
    tolerance = 100 * np.finfo(dtype).eps * losses[0]
    assert (np.diff(losses) < tolerance).all()
    assert losses[-1] < 0.9 * losses[0]
    # Which is what the loss curve says, in the unit that users read.
    means = np.array(losses[1:]) / batch.sample_weight.sum()
    np.testing.assert_allclose(result.loss_curve[1:], [loss.reported(mean) for mean in means], rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@LOSSES
@pytest.mark.parametrize("n_jobs", [2, 4])
def test_fits_do_not_depend_on_the_number_of_threads(n_jobs, name, k, dtype):
    def fit():
        problem = fitting_problem(name, k, n=50, widths=(130, 140), dtype=dtype, max_rank=None)
        result = make_solver(problem, max_iter=3).solve()
        return parameters(problem[0]).tobytes(), result.loss_curve, result.n_cg_iter, result.damping

    # Also the reference with BLAS on one thread: its sums depend on their number.
    with worker_threads(1):
        serial = fit()
    with worker_threads(n_jobs):
        assert fit() == serial


def test_the_reported_loss_is_in_the_unit_of_users():
    # Mean squared error and Poisson deviance per output, log loss per row.
    for name, k, unit in (("squared_error", 3, 2 / 3), ("poisson", 2, 2 / 2), ("log_loss", 1, 1), ("log_loss", 3, 1)):
        network, batch, loss = fitting_problem(name, k, n=20, weighted=True)
        output = network.forward(batch.x).output
        solver = make_solver((network, batch, loss), HeldOutError(batch, loss), max_iter=1)
        result = solver.solve()
        weight = batch.sample_weight.sum()
        mean = loss.value(batch.Y, output, batch.sample_weight) / weight
        assert result.loss_curve[0] == pytest.approx(unit * mean)
        # Of the rows that are fitted here.
        output = network.forward(batch.x).output
        errors = [held_out_error(loss, batch, outputs) for outputs in (0 * output, output)]
        np.testing.assert_allclose(result.error_curve, errors, rtol=1e-6)
        assert result.loss_curve[1] == pytest.approx(unit * loss.value(batch.Y, output, batch.sample_weight) / weight)


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_criterion", [False, True])
def test_densities_are_those_of_a_dense_network_after_every_step(with_criterion, dtype, in_blocks, monkeypatch):
    network, batch, loss = fitting_problem(widths=(96, 80, 70), weighted=True, dtype=dtype)
    networks, step = [DenseNetwork.of(network)], LevenbergMarquardt.step

    def recording(self):
        accepted = step(self)
        networks.append(DenseNetwork.of(network))
        return accepted

    monkeypatch.setattr(LevenbergMarquardt, "step", recording)
    # The second step is the best one: the curve is of all that were taken all the same.
    criterion = ScriptedCriterion(9, 8, 7, 8, 8) if with_criterion else None
    options = {"damping": 0.05, "max_iter": 4, "n_iter_no_change": 9}
    if in_blocks:
        options |= {"preconditioner": "sketch", "sketch_size": 120, "block_rows": 25}
    result = make_solver((network, batch, loss), criterion, **options).solve()
    assert result.n_iter == 4
    # A neuron at its threshold may be active in one precision only.
    wanted = [dense_densities(dense, batch.x) for dense in networks]
    np.testing.assert_allclose(result.density_curve, wanted, rtol=0, atol=1e-12 if dtype == np.float64 else 1e-3)
    # No two steps leave the same neurons active, and hence no step can be taken for another.
    assert len(np.unique(wanted, axis=0)) == 5
    returned = dense_densities(DenseNetwork.of(network), batch.x)
    np.testing.assert_allclose(result.density_curve[result.best_iter], returned, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("widths", "max_rank", "ranks"),
    [
        # Every step adds as many terms as there are rows; more than max_rank are folded in after it.
        ((40, 30), 100_000, [0, 20, 40, 60, 80]),
        ((40, 30, 35), 100_000, [0, 20, 40, 60, 80]),
        ((40, 30), 45, [0, 20, 40, 60, 20]),
        ((40, 30), 0, [0, 20, 20, 20, 20]),
        ((40,), 100_000, [0, 0, 0, 0, 0]),
    ],
)
def test_the_rank_is_what_was_pending_in_every_step_at_most(widths, max_rank, ranks):
    problem = fitting_problem(n=20, widths=widths, max_rank=max_rank)
    result = make_solver(problem, damping=5.0, max_iter=4, n_iter_no_change=9).solve()
    assert result.rank_curve == ranks
    assert all(type(rank) is int for rank in result.rank_curve)


def test_the_rank_is_that_of_the_matrix_with_the_most_pending():
    network, batch, loss = fitting_problem(n=20, widths=(40, 30, 35))
    first, _ = network.lazy_weights()
    first.flush_if_full = first.flush
    result = make_solver((network, batch, loss), damping=5.0, max_iter=2, n_iter_no_change=9).solve()
    assert result.rank_curve == [0, 20, 40]


def test_the_rank_counts_what_a_query_folds_in_within_the_step():
    # So many rows that the forward pass of every attempt folds it in.
    problem = fitting_problem(n=250, max_rank=None)
    result = make_solver(problem, damping=5.0, max_iter=3, n_iter_no_change=9).solve()
    assert result.rank_curve == [0, 250, 250, 250]


def test_a_fit_without_any_step_has_the_activity_of_the_start():
    network, batch, loss = fitting_problem()
    wanted = dense_densities(DenseNetwork.of(network), batch.x)
    result = make_solver((network, batch, loss), max_iter=0).solve()
    np.testing.assert_allclose(result.density_curve, [wanted], rtol=0, atol=1e-12)
    assert result.rank_curve == [0]


# ---- the way back -----------------------------------------------------------------------------------------------


def test_rejected_steps_leave_no_trace():
    network, batch, _ = fitting_problem()
    before = [weights.to_dense() for weights in network.lazy_weights()]
    undo_output = network.output_weights
    undo = network.apply(linearise(network, batch).Jt(batch.Y))
    network.revert(undo)
    assert network.output_weights is undo_output
    for weights, dense in zip(network.lazy_weights(), before, strict=True):
        assert (weights.to_dense() == dense).all()


def test_steps_that_a_query_folded_in_are_rejected_to_rounding():
    # So many rows that the forward pass of the attempt folds the attempt in, twice at one linearisation.
    network, batch, _ = fitting_problem(n=250, max_rank=None)
    (weights,) = network.lazy_weights()
    before, output_weights = weights.to_dense(), network.output_weights
    output = network.forward(batch.x).output
    jacobian = linearise(network, batch)
    for size in (1.0, 0.1):
        undo = network.apply(jacobian.Jt(size * batch.Y))
        network.forward(batch.x)
        assert weights.rank == 0
        network.revert(undo)
        assert weights.rank == len(batch)
        np.testing.assert_allclose(weights.to_dense(), before, atol=1e-12 * np.abs(before).max())
    assert network.output_weights is output_weights
    np.testing.assert_allclose(network.forward(batch.x).output, output, atol=1e-10)


class ScriptedCriterion:
    """Errors as told, of the constant and after every step; keeps the networks that it was shown."""

    def __init__(self, *errors, flush=False):
        self.errors, self.seen, self.flush = list(errors), [], flush

    def of_the_constant(self, network):
        return self._next()

    def of_network(self, network):
        self.seen.append(parameters(network))
        if self.flush:
            for weights in network.lazy_weights():
                weights.flush()
        return self._next()

    def _next(self):
        error = self.errors.pop(0)
        return Judgement(error, error, None, None)


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize(
    ("errors", "n_iter", "best_iter", "reason"),
    [
        ([1.0, 0.5, 0.1, 0.9, 0.8, 0.7, 0.0], 5, 2, StopReason.NO_IMPROVEMENT),
        ([1.0, 1.5, 1.2, 1.1, 0.0, 0.0, 0.0], 6, 4, StopReason.MAX_ITER),
        ([1.0, 1.5, 1.2, 1.1, 1.0, 0.0, 0.0], 4, 0, StopReason.NO_IMPROVEMENT),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 6, 6, StopReason.MAX_ITER),
        ([1.0, 0.9, 0.8, 0.7, 0.9, 0.9, 0.6], 6, 6, StopReason.MAX_ITER),
        # Both at once: the first reason is the one that counts.
        ([1.0, 0.9, 0.8, 0.7, 0.9, 0.9, 0.9], 6, 3, StopReason.MAX_ITER),
        ([1.0, np.inf, np.inf, np.inf, np.inf, 0.1, 0.1], 4, 0, StopReason.NO_IMPROVEMENT),
    ],
)
def test_the_best_iterate_is_returned_even_after_flushes(errors, n_iter, best_iter, reason, flush):
    network, batch, loss = fitting_problem(n=40)
    criterion = ScriptedCriterion(*errors, flush=flush)
    result = make_solver((network, batch, loss), criterion, damping=1.0, max_iter=6, n_iter_no_change=3).solve()
    assert (result.n_iter, result.best_iter, result.stop_reason) == (n_iter, best_iter, reason)
    np.testing.assert_array_equal(result.error_curve, errors[: n_iter + 1])
    if best_iter:
        np.testing.assert_allclose(parameters(network), criterion.seen[best_iter - 1], atol=1e-10)
    else:
        assert (network.forward(batch.x).output == 0).all()
    assert all(weights.rank == 0 for weights in network.lazy_weights())


# ---- stop reasons -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_a_loss_that_cannot_fall_stops_with_a_reason(k, monkeypatch):
    network, batch, loss = fitting_problem(n_outputs=k)
    solver = make_solver((network, batch, loss))
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
    assert (result.n_iter, result.n_cg_iter) == (0, [])
    assert np.isfinite(result.damping)


@pytest.mark.parametrize("k", [1, 3])
def test_targets_that_are_the_constant_model_need_no_step(k):
    network, batch, loss = fitting_problem(n_outputs=k)
    batch = Batch(batch.x, 0 * batch.Y, batch.sample_weight)
    result = make_solver((network, batch, loss)).solve()
    assert result.stop_reason is StopReason.INTERPOLATED
    assert result.n_iter == 0
    assert np.isnan(result.damping)
    assert (network.forward(batch.x).output == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_that_are_fitted_to_rounding_end_the_fit(dtype):
    problem = fitting_problem(n=15, widths=(200, 200), dtype=dtype)
    result = make_solver(problem, damping=1e-3, max_iter=60, tol=0.0, n_iter_no_change=60).solve()
    assert result.stop_reason is StopReason.INTERPOLATED
    assert result.loss_curve[-1] <= (4 * np.finfo(dtype).eps) ** 2


@LOSSES
def test_a_loss_that_hardly_falls_ends_the_fit(name, k):
    result = make_solver(fitting_problem(name, k), damping=100.0, tol=0.9, n_iter_no_change=2).solve()
    assert result.stop_reason is StopReason.LOSS_CONVERGED
    assert result.best_iter == result.n_iter


class TestPatience:
    def test_waits_for_a_fall_by_more_than_tol(self):
        patience = Patience(0.1, 2)
        best = [patience.update(score) for score in (10.0, 9.5, 8.0, 7.9, 7.5)]
        assert best == [True] * 5
        # 9.5 was no fall from 10, 8 was one from it; 7.9 and 7.5 are none from 8.
        assert patience.exhausted
        assert (patience.best, patience.best_iter) == (7.5, 4)

    @pytest.mark.parametrize("score", [np.nan, np.inf, 5.0])
    def test_what_is_not_lower_is_waited_out(self, score):
        """And once more where the first one is the best."""
        for before, best, n_waits in (([6.0, 5.0], 1, 3), ([5.0], 0, 4)):
            patience = Patience(0.0, 3)
            for each in before:
                patience.update(each)
            for i in range(n_waits):
                assert not patience.exhausted, i
                assert not patience.update(score)
            assert patience.exhausted
            assert patience.best_iter == best


# ---- leave-one-out and held-out errors --------------------------------------------------------------------------


def without_centring(error):
    """The formula is exact without."""
    error._mean = np.zeros_like(error._mean)
    error._set_left_out(np.zeros_like(error._batch.Y), np.ones(len(error._mean)))
    return error


def test_leave_one_out_is_exact_for_one_linear_step():
    # In the linear model one step is ridge regression on the kernel; refit it without each row in turn.
    network, batch, _ = fitting_problem(n=25)
    jacobian = linearise(network, batch)
    ridge = 0.5 * jacobian.mean_diagonal()
    residual = np.random.default_rng(1).standard_normal((25, 1))
    K, squares = jacobian.gram.matrix(), []
    for i in range(25):
        rest = np.delete(np.arange(25), i)
        c = np.linalg.solve(K[np.ix_(rest, rest)] + ridge * np.eye(24), residual[rest])
        squares.append((residual[i] - K[i, rest] @ c) ** 2)
    error = without_centring(LeaveOneOutError(batch, np.random.default_rng(0)))
    assert error.error_after_first_step(jacobian, ridge, residual) == pytest.approx(np.mean(squares))
    # And along the path: outputs and residuals after the step are those of the linear model.
    after = residual - K @ np.linalg.solve(K + ridge * np.eye(25), residual)
    error = without_centring(LeaveOneOutError(Batch(batch.x, residual, batch.sample_weight), np.random.default_rng(0)))
    assert after_step(error, jacobian, ridge, residual - after) == pytest.approx(np.mean(squares))


def test_leave_one_out_follows_the_ridges():
    # What is left of residuals is a matrix, which every step multiplies.
    network, batch, _ = fitting_problem(n=25, n_outputs=2)
    jacobian = linearise(network, batch, n_outputs=2)
    K, kept, output = jacobian.gram.matrix(), np.eye(25) - 1 / 25, 0.3 * batch.Y
    error = LeaveOneOutError(batch, np.random.default_rng(0))
    for damping in (0.5, 0.2, 2.0):
        ridge = damping * jacobian.mean_diagonal()
        kept = ridge * np.linalg.solve(K + ridge * np.eye(25), kept)
        wanted = (((batch.Y - output) / np.diag(kept)[:, None]) ** 2).mean()
        assert after_step(error, jacobian, ridge, output) == pytest.approx(wanted)


@pytest.mark.parametrize("factor", [0.01, 1.0, 1000.0])
def test_leave_one_out_leaves_out_a_row_whole_whatever_it_weighs(factor):
    # Ridge regression on the kernel, with weights: refit it without each row in turn.
    rng = np.random.default_rng(2)
    weights = rng.integers(1, 4, 20).astype(float)
    network, batch, _ = fitting_problem(n=20)
    batch = Batch(batch.x, batch.Y, weights / weights.mean())
    roots = np.sqrt(batch.sample_weight)[:, None]
    jacobian = linearise(network, batch, roots[:, 0])
    ridge = factor * jacobian.mean_diagonal()
    residual, K, squares = roots * rng.standard_normal((20, 1)), jacobian.gram.matrix(), []
    for i in range(20):
        rest = np.delete(np.arange(20), i)
        c = np.linalg.solve(K[np.ix_(rest, rest)] + ridge * np.eye(19), residual[rest])
        squares.append((residual[i] - K[i, rest] @ c) ** 2)
    error = without_centring(LeaveOneOutError(batch, rng))
    expected = np.sum(squares) / batch.sample_weight.sum()
    assert error.error_after_first_step(jacobian, ridge, residual) == pytest.approx(expected)


class Shares:
    """The Gram matrix of a step of ridge one that leaves these shares of the residuals."""

    def __init__(self, *shares):
        self._shares = np.asarray(shares)

    def shifted(self, ridge):
        return self

    def solve(self, target):
        return self._shares[:, None] * target


def test_rows_of_which_a_path_leaves_nothing_keep_the_residual_that_they_had():
    """A quotient of two numbers near zero is no error of zero."""
    Y = np.arange(1.0, 5.0)[:, None]
    batch = Batch(np.ones((4, 2)), Y, np.ones(4))
    error = without_centring(LeaveOneOutError(batch, np.random.default_rng(0)))
    assert error.of_the_constant(None).error == pytest.approx((Y**2).mean())
    # Two rows are known after the first step; the others are as if it had not been.
    error.follow(Shares(0.5, 0.1, 1e-5, 1e-7), 1.0, Y - 1e-9)
    first = error.of_network(None)
    assert first.error == first.loss == pytest.approx(np.mean([(2e-9) ** 2, (1e-8) ** 2, 9, 16]))
    np.testing.assert_allclose(first.outputs, [Y[0] - 2e-9, Y[1] - 1e-8, [0], [0]], rtol=0, atol=1e-12)
    # One of four is too few.
    error.follow(Shares(0.5, 1e-5, 1.0, 1.0), 1.0, Y - 1e-9)
    assert error.of_network(None).error == np.inf


def test_a_row_that_weighs_nearly_all_does_not_count():
    """What it would be without itself is unknown from the start; the others are known."""
    weights = np.array([1e6, 1.0, 1.0, 1.0])
    batch = Batch(np.ones((4, 2)), np.array([[0.0], [1.0], [-1.0], [2.0]]), weights / weights.mean())
    error = LeaveOneOutError(batch, np.random.default_rng(0))
    assert error.of_the_constant(None).error == pytest.approx(2.0, rel=1e-5)


def test_leave_one_out_error_stays_infinite_after_a_failed_factorisation():
    network, batch, _ = fitting_problem(n=20)
    jacobian = linearise(network, batch)
    error, output = LeaveOneOutError(batch, np.random.default_rng(0)), 0 * batch.Y
    assert np.isfinite(after_step(error, jacobian, 0.5, output))
    # A ridge below minus the smallest eigenvalue: the sum is not positive definite.
    assert after_step(error, jacobian, -1e6, output) == np.inf
    assert after_step(error, jacobian, 0.5, output) == np.inf


def test_noise_gives_the_mean_unless_a_step_beats_it():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network, batch, loss = fitting_problem(n=60, seed=seed)
        Y = rng.standard_normal((60, 1))
        Y -= Y.mean()
        batch = Batch(batch.x, Y, batch.sample_weight)
        result = make_solver((network, batch, loss), LeaveOneOutError(batch, rng)).solve()
        # Leaving one out of n, the mean of the others is off by 1 / (n - 1).
        assert result.error_curve[0] == pytest.approx((Y**2).mean() * (60 / 59) ** 2)
        assert result.error_curve[result.best_iter] == min(result.error_curve)
        assert (network.forward(batch.x).output == 0).all() == (result.best_iter == 0)


def test_probed_trace_is_close_to_the_exact_one():
    network, batch, _ = fitting_problem(n=300)
    jacobian = linearise(network, batch)
    ridge = 0.5 * jacobian.mean_diagonal()
    exact = LeaveOneOutError(batch, np.random.default_rng(0))
    probed = LeaveOneOutError(batch, np.random.default_rng(0), max_exact_rows=299)
    for error in (exact, probed):
        after_step(error, jacobian, ridge, network.forward(batch.x).output)
    exact_matrix = exact._smoothed
    trace = np.einsum("ij,ij->", probed._probes, probed._smoothed) / LeaveOneOutError.N_PROBES
    # Hutchinson: the variance of a probe is twice the squared off-diagonal norm of the symmetric part.
    symmetric = 0.5 * (exact_matrix + exact_matrix.T)
    off_diagonal = symmetric - np.diag(np.diag(symmetric))
    deviation = np.sqrt(2 * (off_diagonal**2).sum() / LeaveOneOutError.N_PROBES)
    assert abs(trace - np.trace(exact_matrix)) < 4 * deviation


@LOSSES
def test_held_out_error_is_the_mean_loss_in_the_unit_of_users(name, k):
    network, batch, loss = fitting_problem(name, k, n=30, weighted=True)
    error = HeldOutError(batch, loss)
    for outputs, judgement in (
        (network.forward(batch.x).output, error.of_network(network)),
        (np.zeros_like(batch.Y), error.of_the_constant(network)),
    ):
        assert judgement.error == judgement.loss == pytest.approx(held_out_error(loss, batch, outputs))
        assert error.of_outputs(outputs) == pytest.approx(judgement.error)
        np.testing.assert_allclose(judgement.outputs, outputs, rtol=1e-12)


@pytest.mark.parametrize(
    ("errors", "best"),
    [([1.0, 0.5, 0.7, 0.6], 1), ([1.0, 0.5, 0.4, 0.3], 3), ([1.0, 2.0, 3.0, 4.0], 0), ([np.inf] * 4, 0)],
)
def test_the_judgements_are_those_of_the_last_iterate_and_of_the_returned_network(errors, best, monkeypatch):
    seen = []

    def scripted(self, network):
        value = errors[len(seen)]
        seen.append(Judgement(value, 10 * value, None, None))
        return seen[-1]

    for name in ("of_the_constant", "of_network"):
        monkeypatch.setattr(HeldOutError, name, scripted)
    network, batch, loss = fitting_problem(n=40)
    result = make_solver((network, batch, loss), HeldOutError(batch, loss), max_iter=3, n_iter_no_change=3).solve()
    assert result.error_curve == errors
    assert result.judgement is seen[3]
    assert result.best_judgement is seen[best]
    assert result.best_iter == best
    assert result.left_out_error == 10 * errors[best]


def test_the_best_judgement_is_of_the_returned_network():
    network, batch, loss = fitting_problem(n=40)
    criterion = HeldOutError(batch, loss)
    result = make_solver((network, batch, loss), criterion, max_iter=3).solve()
    np.testing.assert_allclose(result.best_judgement.outputs, network.forward(batch.x).output, atol=1e-10)
    assert make_solver(fitting_problem(n=40), max_iter=3).solve().best_judgement is None


@pytest.mark.parametrize(("n", "doubt"), [(10, 0.01), (100, 0.01), (400, 0.0025)])
def test_of_many_held_out_rows_one_more_has_another_label(n, doubt):
    network, batch, loss = fitting_problem("log_loss", 3, n=n)
    output = network.forward(batch.x).output
    own, other = (value(batch.Y, output, batch.sample_weight) for value in (loss.value, loss.value_of_other_labels))
    assert HeldOutError(batch, loss).of_outputs(output) == pytest.approx((own + doubt * other) / (n * (1 + doubt)))


@LOSSES
@pytest.mark.parametrize("dtype", DTYPES)
def test_held_out_rows_are_evaluated_in_parts_that_fit_in_the_working_memory(name, k, dtype, monkeypatch):
    network, batch, loss = fitting_problem(name, k, n=400, widths=(1000, 900), dtype=dtype, weighted=True)
    error = HeldOutError(batch, loss)
    at_once = error.of_network(network).error
    sizes, forward = [], Network.forward

    def spy(self, x):
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Network, "forward", spy)
    with config_context(working_memory=1):
        in_parts = error.of_network(network).error
    # A quarter of 1,900 neurons a row, each with a value and two bytes of its place.
    assert max(sizes) == int(2**20 / (475 * (dtype().itemsize + 2)))
    assert sum(sizes) == 400
    assert in_parts == pytest.approx(at_once, rel=1e-5 if dtype == np.float32 else 1e-12)


def test_step_as_vector_matches_what_apply_adds():
    network, batch, _ = fitting_problem(n=12, n_outputs=2)
    before = parameters(network)
    step = linearise(network, batch, n_outputs=2).Jt(batch.Y)
    network.apply(step)
    after = parameters(network)
    np.testing.assert_allclose(after - before, as_vector(step, network), atol=1e-12 * np.abs(after).max())
