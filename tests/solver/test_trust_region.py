"""Single steps against dense normal equations in the parameters, and what becomes of steps that are not good."""

from dataclasses import dataclass

import numpy as np
import pytest
from cases import DenseNetwork, fitting_problem, parameters
from scipy.special import expit, softmax

from sklearn_subquad._curvature.gram import GramMatrix
from sklearn_subquad._curvature.jacobian import Jacobian
from sklearn_subquad._curvature.losses import PoissonDeviance, SquaredError
from sklearn_subquad._curvature.preconditioners import default_sketch_size
from sklearn_subquad._solver import damping_schedule, levenberg_marquardt
from sklearn_subquad._solver.levenberg_marquardt import LevenbergMarquardt
from sklearn_subquad._solver.options import SolverOptions
from sklearn_subquad._utils.stopwatch import Stopwatch

EXACT = {"cg_tol": 1e-10, "max_cg_iter": 500}


def make_stepper(network, data, loss, *, batch_size=None, in_batches=False, seed=0, **options):
    n_rows = len(data) if batch_size is None else batch_size
    options = {"in_batches": in_batches, "sketch_size": default_sketch_size(n_rows)} | EXACT | options
    stepper = LevenbergMarquardt(network, loss, SolverOptions(**options), seed, Stopwatch())
    if in_batches:
        stepper.find_damping(data, n_rows)
    return stepper


def linearise(stepper, batch):
    stepper.linearise(batch, stepper.evaluate(batch))


@pytest.fixture
def judged(monkeypatch):
    """(actual, predicted) decrease of all attempts, in the order in which they were judged."""
    pairs, is_good = [], levenberg_marquardt._is_good

    def recording(actual, predicted):
        pairs.append((actual, predicted))
        return is_good(actual, predicted)

    monkeypatch.setattr(levenberg_marquardt, "_is_good", recording)
    return pairs


# ---- the step ---------------------------------------------------------------------------------------------------


@dataclass
class DenseModel:
    """Loss of a batch to second order in the parameters, Gauss-Newton, in double precision."""

    value: float
    gradient: np.ndarray
    curvature: np.ndarray
    J: np.ndarray
    S: np.ndarray

    @classmethod
    def of(cls, network, batch, loss):
        """Of a `Network` or a `DenseNetwork`."""
        dense = network if isinstance(network, DenseNetwork) else DenseNetwork.of(network)
        F, _, _ = dense.forward(batch.x)
        J, Y, w = dense.jacobian(batch.x), batch.Y.astype(np.float64), batch.sample_weight
        n, k = F.shape
        raw = loss.baseline + F
        if isinstance(loss, SquaredError):
            slope, values, S = F - Y, 0.5 * ((Y - F) ** 2).sum(axis=1), np.tile(np.eye(k), (n, 1, 1))
        elif isinstance(loss, PoissonDeviance):
            mean = np.exp(raw)
            slope, S = mean - Y, np.sqrt(mean)[:, :, None] * np.eye(k)
            values = (mean - Y * raw + Y * np.log(np.maximum(Y, 1)) - Y).sum(axis=1)
        elif k == 1:
            p = expit(raw)
            slope, S = p - Y, np.sqrt(p * (1 - p))[:, :, None]
            values = -np.log(np.where(Y == 1, p, 1 - p))[:, 0]
        else:
            p = softmax(raw, axis=1)
            slope, values = p - Y, -np.log((p * Y).sum(axis=1))
            S = np.stack([np.diag(np.sqrt(row)) - np.outer(row, np.sqrt(row)) for row in p])
            hessian = np.stack([np.diag(row) - np.outer(row, row) for row in p])
            np.testing.assert_allclose(S @ S.transpose(0, 2, 1), hessian, atol=1e-14)
        H = np.einsum("i,iab,icb->iac", w, S, S)
        return cls(
            value=float(w @ values),
            gradient=np.einsum("i,icp,ic->p", w, J, slope),
            curvature=np.einsum("iap,iab,ibq->pq", J, H, J, optimize=True),
            J=J,
            S=S,
        )

    def decrease(self, change):
        """By how much the loss falls in the model."""
        return -float(self.gradient @ change + 0.5 * change @ self.curvature @ change)

    def step(self, ridge):
        """The minimiser of the model with ``1/2 ridge |change|²``."""
        return -np.linalg.solve(self.curvature + ridge * np.eye(len(self.gradient)), self.gradient)

    def mean_diagonal(self, probes, sample_weight):
        """What the damping is relative to: probes' mean of J J^T times the mean square norm of the columns of S."""
        of_probes = (np.einsum("icp,cv->ivp", self.J, probes) ** 2).sum(axis=(1, 2)) / probes.shape[1]
        return float(np.average(of_probes * (self.S**2).sum(axis=1).mean(axis=1), weights=sample_weight))


STEPS = [
    ("squared_error", 1),
    ("squared_error", 2),
    ("squared_error", 5),
    ("log_loss", 1),
    ("log_loss", 3),
    ("log_loss", 5),
    ("poisson", 1),
    ("poisson", 2),
    ("poisson", 5),
]
every_step = pytest.mark.parametrize(("name", "k"), STEPS)


class Beside:
    """Takes steps with a stepper, and says what each should have been: it keeps the damping."""

    def __init__(self, stepper, network, loss, damping):
        self.stepper, self.network, self.loss = stepper, network, loss
        self.damping, self.diagonal = damping, 0.0

    def linearise(self, batch):
        linearise(self.stepper, batch)
        self.before, self.dense_before = parameters(self.network), DenseNetwork.of(self.network)
        self.model = DenseModel.of(self.network, batch, self.loss)
        diagonal = self.model.mean_diagonal(self.stepper.jacobian.probes, batch.sample_weight)
        # Where the curvature changes, the damping keeps to the largest so far.
        self.diagonal = max(diagonal, 0.0 if isinstance(self.loss, SquaredError) else self.diagonal)

    def step(self, judged):
        """Let the stepper step; checks the change, and returns the accepted step."""
        judged.clear()
        accepted = self.stepper.step()
        ridge = self.damping * 4.0 ** (len(judged) - 1) * self.diagonal
        assert accepted.solution.ridge == pytest.approx(ridge, rel=1e-9)
        wanted = self.model.step(ridge)
        self.after, self.damping = parameters(self.network), self.stepper.damping
        self.change = self.after - self.before
        np.testing.assert_allclose(self.change, wanted, atol=1e-6 * np.abs(wanted).max())
        return accepted

    def check_judgement(self, tried, judged):
        """Of the last step, which was tried on these rows."""
        actual, predicted = judged[-1]
        before, after = (DenseModel.of(at, tried, self.loss) for at in (self.dense_before, self.network))
        assert predicted == pytest.approx(before.decrease(self.change), rel=1e-6)
        assert actual == pytest.approx(before.value - after.value, rel=1e-6)
        assert actual > 0
        return after.value


@every_step
@pytest.mark.parametrize("preconditioner", ["gram", "none"])
def test_steps_minimise_the_damped_quadratic_model(preconditioner, name, k, judged):
    # Against the primal normal equations, which know nothing of duals or factors.
    network, data, loss = fitting_problem(name, k, n=12, widths=(24, 16), weighted=True)
    stepper = make_stepper(network, data, loss, damping=0.7, preconditioner=preconditioner)
    beside = Beside(stepper, network, loss, 0.7)
    for _ in range(3):
        beside.linearise(data)
        accepted = beside.step(judged)
        assert accepted.point.loss == pytest.approx(beside.check_judgement(data, judged))
    assert stepper.n_unconverged == 0
    assert stepper.n_solves >= 3


@every_step
def test_steps_on_batches_minimise_the_model_of_their_batch(name, k, judged):
    network, data, loss = fitting_problem(name, k, n=24, widths=(24, 16), weighted=True)
    stepper = make_stepper(network, data, loss, damping=2.0, in_batches=True, batch_size=12)
    beside = Beside(stepper, network, loss, 2.0)
    for rows in (slice(0, 12), slice(12, 24), slice(6, 17)):
        beside.linearise(data[rows])
        beside.step(judged)
        beside.check_judgement(data[rows], judged)


@pytest.mark.parametrize(("name", "k"), [("squared_error", 1), ("log_loss", 3), ("poisson", 5)])
def test_steps_on_large_batches_are_tried_on_some_of_their_rows(name, k, judged, monkeypatch):
    monkeypatch.setattr(levenberg_marquardt, "_TRIAL_ROWS", 10)
    network, data, loss = fitting_problem(name, k, n=60, widths=(30, 20), weighted=True)
    stepper = make_stepper(network, data, loss, damping=2.0, in_batches=True, batch_size=30)
    beside, tried, trials, evaluate = Beside(stepper, network, loss, 2.0), [], [], stepper.evaluate
    monkeypatch.setattr(stepper, "evaluate", lambda rows: tried.append(rows) or evaluate(rows))
    for batch in (data[:30], data[30:]):
        beside.linearise(batch)
        tried.clear()
        beside.step(judged)
        # All attempts on the same ten rows.
        assert len(tried) == len(judged)
        trial = tried[0]
        assert all(rows is trial for rows in tried)
        places = [int(np.flatnonzero((batch.x == x).all(axis=1))[0]) for x in trial.x]
        assert len(set(places)) == 10
        np.testing.assert_array_equal(trial.Y, batch.Y[places])
        np.testing.assert_array_equal(trial.sample_weight, batch.sample_weight[places])
        beside.check_judgement(trial, judged)
        trials.append(places)
    assert trials[0] != trials[1]


@pytest.mark.parametrize(("in_batches", "limit", "tried"), [(True, 29, 29), (True, 30, 30), (False, 10, 30)])
def test_steps_on_all_rows_and_on_small_batches_are_tried_on_every_row(in_batches, limit, tried, monkeypatch):
    monkeypatch.setattr(levenberg_marquardt, "_TRIAL_ROWS", limit)
    network, data, loss = fitting_problem(n=30)
    stepper = make_stepper(network, data, loss, damping=2.0, in_batches=in_batches)
    linearise(stepper, data)
    accepted = stepper.step()
    assert len(accepted.point.activations.output) == tried


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "k"), [("squared_error", 2), ("log_loss", 1), ("log_loss", 3), ("poisson", 2)])
def test_inexact_steps_in_both_precisions_are_near_the_exact_one(name, k, dtype, judged):
    network, data, loss = fitting_problem(name, k, n=12, widths=(30, 20), weighted=True, dtype=dtype)
    stepper = make_stepper(network, data, loss, damping=0.7, cg_tol=1e-2, max_cg_iter=50)
    beside = Beside(stepper, network, loss, 0.7)
    beside.linearise(data)
    accepted = stepper.step()
    wanted = beside.model.step(accepted.solution.ridge)
    change = parameters(network) - beside.before
    # In the norm of the damped model; its condition turns the tolerance of residuals into one of steps.
    assert np.linalg.norm(change - wanted) < 0.1 * np.linalg.norm(wanted)
    assert judged[-1][1] == pytest.approx(beside.model.decrease(change), rel=1e-2)
    assert parameters(network).dtype == np.float64
    assert network.dtype == dtype


@pytest.mark.parametrize("max_cg_iter", [1, 3, 50])
@pytest.mark.parametrize(("name", "k"), [("squared_error", 5), ("log_loss", 1), ("log_loss", 4), ("poisson", 2)])
def test_a_step_takes_one_backward_pass_for_every_inner_iteration(name, k, max_cg_iter, monkeypatch):
    network, data, loss = fitting_problem(name, k, n=20, weighted=True)
    stepper = make_stepper(network, data, loss, damping=0.1, preconditioner="none", max_cg_iter=max_cg_iter)
    linearise(stepper, data)
    jacobian, passes, scaled_cotangents = stepper.jacobian, [], Jacobian.scaled_cotangents

    def counting(self, C):
        passes.append(1)
        return scaled_cotangents(self, C)

    with monkeypatch.context() as patch:
        patch.setattr(Jacobian, "scaled_cotangents", counting)
        accepted = stepper.step()
    assert len(passes) == stepper.n_cg_iter[-1]
    # Cotangents are those of the weights before the step.
    network.revert(accepted.undo)
    for mine, wanted in zip(accepted.solution.cotangents, jacobian.scaled_cotangents(accepted.solution.c), strict=True):
        assert mine.pattern is wanted.pattern
        np.testing.assert_allclose(mine.values, wanted.values, atol=1e-12 * np.abs(wanted.values).max())


@pytest.mark.parametrize(("name", "k"), [("squared_error", 2), ("log_loss", 3), ("poisson", 1)])
def test_the_way_back_is_the_way_there(name, k):
    network, data, loss = fitting_problem(name, k, n=20)
    stepper = make_stepper(network, data, loss, damping=1.0)
    visited, undos = [parameters(network)], []
    for _ in range(3):
        linearise(stepper, data)
        undos.append(stepper.step().undo)
        visited.append(parameters(network))
    for wanted in reversed(visited[:-1]):
        network.revert(undos.pop())
        np.testing.assert_allclose(parameters(network), wanted, atol=1e-12 * np.abs(wanted).max())


# ---- steps that are not good ------------------------------------------------------------------------------------


class ScriptedSquaredError(SquaredError):
    """The squared error, but what `value` returns is decided by a function of the value and of the call's number."""

    def __init__(self, change, n_outputs=1):
        super().__init__(n_outputs)
        self.change, self.n_calls = change, 0

    def value(self, Y, F, sample_weight):
        self.n_calls += 1
        return self.change(super().value(Y, F, sample_weight), self.n_calls)


# What the first attempts find, given the true loss.
BAD = {
    "higher": lambda value: value + 1e3,
    "infinite": lambda value: np.inf,
    "not a number": lambda value: np.nan,
}
every_failure = pytest.mark.parametrize("failure", list(BAD))


def rejecting(n_rejected, failure):
    """A loss whose first call is right, as before the step, and whose next ones are bad."""
    return ScriptedSquaredError(lambda value, call: BAD[failure](value) if 1 < call <= 1 + n_rejected else value)


@every_failure
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("max_rank", [100_000, None, 0])
@pytest.mark.parametrize("n_rejected", [1, 9])
def test_rejected_attempts_raise_the_damping_and_leave_no_trace(n_rejected, max_rank, in_batches, failure):
    network, data, _ = fitting_problem(n=40, max_rank=max_rank, widths=(30, 20), weighted=True)
    loss = rejecting(n_rejected, failure)
    stepper = make_stepper(network, data, loss, damping=0.5, in_batches=in_batches)
    beside = Beside(stepper, network, loss, 0.5)
    beside.linearise(data)
    accepted = stepper.step()
    ridge = 0.5 * 4.0**n_rejected * beside.diagonal
    assert accepted.solution.ridge == pytest.approx(ridge, rel=1e-9)
    # As if that had been the first damping.
    wanted = beside.model.step(ridge)
    change = parameters(network) - beside.before
    np.testing.assert_allclose(change, wanted, atol=1e-6 * np.abs(wanted).max())
    # A good step halves it.
    assert stepper.damping == 0.5 * 4.0**n_rejected * 0.5
    assert stepper.n_cg_iter == [n_rejected + 1]


@every_failure
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("max_rank", [100_000, None, 0])
@pytest.mark.parametrize("k", [1, 3])
def test_ten_rejected_attempts_are_none(k, max_rank, in_batches, failure):
    network, data, _ = fitting_problem(n_outputs=k, n=40, max_rank=max_rank, widths=(30, 20))
    loss = ScriptedSquaredError(lambda value, call: value, k)
    stepper = make_stepper(network, data, loss, damping=0.5, in_batches=in_batches)
    linearise(stepper, data)
    assert stepper.step() is not None
    damping, counts = stepper.damping, list(stepper.n_cg_iter)
    linearise(stepper, data)
    before, output = parameters(network), network.forward(data.x).output
    loss.n_calls, loss.change = 0, lambda value, call: BAD[failure](value)
    assert stepper.step() is None
    assert loss.n_calls == 10
    np.testing.assert_allclose(parameters(network), before, atol=1e-12 * np.abs(before).max())
    np.testing.assert_allclose(network.forward(data.x).output, output, atol=1e-11 * np.abs(output).max())
    assert stepper.n_cg_iter == counts
    # In batches the next one may be easier: it begins from where all began.
    assert stepper.damping == (0.5 if in_batches else damping * 4.0**10)
    # And nothing else of the attempts is left: the next step is a good one.
    loss.change = lambda value, call: value
    linearise(stepper, data)
    accepted = stepper.step()
    assert accepted.point.loss < loss.value(data.Y, output, data.sample_weight)


@every_failure
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize(("damping", "n_attempts"), [(1e-200, 13), (1e-9, 13), (1e-3, 12), (0.005, 11), (1e5, 10)])
def test_a_small_damping_is_raised_until_it_is_large(damping, n_attempts, in_batches, failure):
    network, data, _ = fitting_problem(n=20, widths=(30, 20))
    loss = ScriptedSquaredError(lambda value, call: value)
    stepper = make_stepper(network, data, loss, damping=damping, preconditioner="none", in_batches=in_batches)
    linearise(stepper, data)
    loss.n_calls, loss.change = 0, lambda value, call: BAD[failure](value)
    assert stepper.step() is None
    assert loss.n_calls == n_attempts
    # From below the least of adapting dampings at once to that; in batches the next one begins with no less, either.
    raised = max(4.0 * damping, 1e-3) * 4.0 ** (n_attempts - 1)
    assert stepper.damping == pytest.approx(max(damping, 1e-3) if in_batches else raised)


def test_in_batches_a_damping_that_failed_is_not_returned_to():
    network, data, _ = fitting_problem(n=40)
    loss = ScriptedSquaredError(lambda value, call: value)
    stepper = make_stepper(network, data, loss, damping=1e-9, preconditioner="none", in_batches=True, batch_size=20)
    linearise(stepper, data[:20])
    loss.n_calls, loss.change = 0, lambda value, call: BAD["higher"](value) if call <= 4 else value
    assert stepper.step() is not None
    dampings = []
    for _ in range(12):
        linearise(stepper, data[20:])
        if stepper.step() is None:
            break
        dampings.append(stepper.damping)
    assert min(dampings) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("ratio", "accepted", "factor"), [(0.09, False, 4.0), (0.11, True, 1.0), (0.74, True, 1.0), (0.76, True, 0.5)]
)
def test_the_ratio_of_actual_to_predicted_decrease_decides(ratio, accepted, factor, judged):
    network, data, _ = fitting_problem(n=20)
    loss = ScriptedSquaredError(lambda value, call: value)
    stepper = make_stepper(network, data, loss, damping=0.5)
    linearise(stepper, data)
    # What the model predicts, from a step that is taken back.
    network.revert(stepper.step().undo)
    predicted, before = judged[-1][1], stepper._point.loss
    stepper.damping = 0.5
    loss.n_calls = 0
    loss.change = lambda value, call: before - ratio * predicted if call == 1 else np.nan
    result = stepper.step()
    assert judged[1][0] == pytest.approx(ratio * predicted)
    assert (result is not None) == accepted
    assert stepper.damping == (0.5 * factor if accepted else 0.5 * 4.0**10)


def test_a_step_without_descent_is_not_good():
    for actual, predicted in ((0.0, 1.0), (0.0, 0.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 0.0), (-1.0, -1.0)):
        assert not levenberg_marquardt._is_good(actual, predicted)
    for actual, predicted in ((np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (-np.inf, 1.0), (np.nan, np.nan)):
        assert not levenberg_marquardt._is_good(actual, predicted)
    assert levenberg_marquardt._is_good(1.0, 1.0)


@pytest.mark.parametrize("name", ["gram", "sketch"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("in_batches", [False, True])
def test_systems_that_cannot_be_factored_raise_the_damping(in_batches, k, name, monkeypatch):
    network, data, loss = fitting_problem(n_outputs=k, n=20, widths=(30, 20))
    stepper = make_stepper(network, data, loss, damping=0.5, preconditioner=name, in_batches=in_batches)
    beside = Beside(stepper, network, loss, 0.5)
    beside.linearise(data)
    factor, ridges = stepper._preconditioner.factor, []

    def refusing(ridge):
        ridges.append(ridge)
        if ridge < 20 * beside.diagonal:
            raise np.linalg.LinAlgError
        factor(ridge)

    monkeypatch.setattr(stepper._preconditioner, "factor", refusing)
    accepted = stepper.step()
    # 0.5 * 4^3 is the first damping above 20.
    np.testing.assert_allclose(ridges, beside.diagonal * 0.5 * 4.0 ** np.arange(4), rtol=1e-9)
    assert accepted.solution.ridge == ridges[-1]
    wanted = beside.model.step(ridges[-1])
    np.testing.assert_allclose(parameters(network) - beside.before, wanted, atol=1e-6 * np.abs(wanted).max())
    assert stepper.damping == 16.0


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_systems_that_can_never_be_factored_give_no_step(k, in_batches, monkeypatch):
    network, data, loss = fitting_problem(n_outputs=k, n=20)
    stepper = make_stepper(network, data, loss, damping=0.5, preconditioner="gram", in_batches=in_batches)
    monkeypatch.setattr(GramMatrix, "matrix", lambda self: -1e30 * np.eye(20))
    linearise(stepper, data)
    before = parameters(network)
    assert stepper.step() is None
    np.testing.assert_array_equal(parameters(network), before)
    assert stepper.n_cg_iter == []
    assert stepper.n_solves == 0


@pytest.mark.parametrize(("max_cg_iter", "n_prepared"), [(1, 3), (500, 1)])
def test_a_preconditioner_is_computed_again_where_a_solve_did_not_converge(max_cg_iter, n_prepared, monkeypatch):
    network, data, loss = fitting_problem(n_outputs=3)
    stepper = make_stepper(network, data, loss, damping=0.5, preconditioner="sketch", max_cg_iter=max_cg_iter)
    compute, prepared = stepper._preconditioner._compute, []

    def recording(jacobian):
        prepared.append(jacobian)
        compute(jacobian)

    monkeypatch.setattr(stepper._preconditioner, "_compute", recording)
    for _ in range(3):
        linearise(stepper, data)
        assert stepper.step() is not None
    assert len(prepared) == n_prepared
    assert (stepper.n_unconverged > 0) == (max_cg_iter == 1)


@pytest.mark.parametrize("k", [1, 3])
def test_residuals_that_are_not_numbers_give_no_step(k):
    network, data, loss = fitting_problem(n_outputs=k, n=20)
    data.Y[3] = np.nan
    stepper = make_stepper(network, data, loss, damping=0.5)
    linearise(stepper, data)
    before = parameters(network)
    assert stepper.step() is None
    np.testing.assert_array_equal(parameters(network), before)


# ---- the damping ------------------------------------------------------------------------------------------------


class TestDamping:
    def test_rejection_raises_it_by_four(self):
        assert damping_schedule.after_rejection(0.3) == pytest.approx(1.2)

    def test_rejection_leaves_what_is_below_the_least_of_adapting_ones(self):
        assert damping_schedule.after_rejection(1e-12) == damping_schedule.MIN_DAMPING

    @pytest.mark.parametrize(
        ("damping", "ratio", "least", "expected"),
        [
            (1.0, 0.9, 1e-3, 0.5),
            (1.0, 0.75, 1e-3, 1.0),
            (1.0, 0.2, 1e-3, 1.0),
            (1.0, 0.9, 0.8, 0.8),
            (1.0, 0.9, 1.0, 1.0),
            # Given below the least by the user: not raised.
            (0.5, 0.9, 1.0, 0.5),
            (0.5, 0.2, 1.0, 0.5),
        ],
    )
    def test_acceptance_halves_it_where_the_model_was_right(self, damping, ratio, least, expected):
        assert damping_schedule.after_acceptance(damping, ratio, least) == expected

    @pytest.mark.parametrize(("steady", "factor", "gap"), [(False, 3, 1.5), (True, 1, 1.9)])
    @pytest.mark.parametrize("optimum", [0.5, 2.0, 20.0])
    def test_starts_at_so_many_times_the_optimum_of_the_first_step(self, optimum, steady, factor, gap):
        start = damping_schedule.starting_damping(lambda damping: np.log(damping / optimum) ** 2, steady)
        # The dampings that are tried lie a factor of less than that apart.
        assert factor * optimum / gap < start < factor * optimum * gap

    @pytest.mark.parametrize(
        "error",
        [lambda damping: damping, lambda damping: np.inf, lambda damping: np.nan],
        ids=["rising", "infinite", "not a number"],
    )
    @pytest.mark.parametrize(
        ("steady", "partial", "floor"),
        [(False, False, 0.3), (False, True, 0.3), (True, False, 0.01), (True, True, 0.1)],
    )
    def test_starts_at_the_floor_where_nothing_says_otherwise(self, error, steady, partial, floor):
        assert damping_schedule.starting_damping(error, steady, partial) == pytest.approx(floor)

    @pytest.mark.parametrize("steady", [False, True])
    def test_starts_at_the_ceiling_of_what_was_tried(self, steady):
        assert damping_schedule.starting_damping(lambda damping: -damping, steady) == pytest.approx(100.0)

    @pytest.mark.parametrize(("name", "k"), [("squared_error", 1), ("log_loss", 1), ("poisson", 3), ("log_loss", 3)])
    @pytest.mark.parametrize("in_batches", [False, True])
    def test_automatic_one_is_found_at_the_first_linearisation_only(self, in_batches, name, k):
        network, data, loss = fitting_problem(name, k, n=40)
        stepper = make_stepper(network, data, loss, in_batches=in_batches)
        assert in_batches or stepper.damping is None
        linearise(stepper, data)
        assert (0.01 if in_batches and name == "squared_error" else 0.3) <= stepper.damping <= 100
        stepper.damping = 7.0
        linearise(stepper, data)
        assert stepper.damping == 7.0

    @pytest.mark.parametrize(("name", "k"), [("squared_error", 1), ("log_loss", 3)])
    def test_automatic_one_of_many_rows_is_found_on_some_of_them(self, name, k, monkeypatch):
        network, data, loss = fitting_problem(name, k, n=60, weighted=True)
        monkeypatch.setattr(levenberg_marquardt, "_MAX_DAMPING_ROWS", 25)
        seen, start = [], damping_schedule.starting_damping

        class Recording(levenberg_marquardt.LeaveOneOutError):
            def error_after_first_step(self, jacobian, ridge, residual):
                seen.append((jacobian, ridge, residual))
                return super().error_after_first_step(jacobian, ridge, residual)

        monkeypatch.setattr(levenberg_marquardt, "LeaveOneOutError", Recording)
        monkeypatch.setattr(damping_schedule, "starting_damping", start)
        stepper = make_stepper(network, data, loss)
        linearise(stepper, data)
        jacobian, _, residual = seen[0]
        places = [int(np.flatnonzero((data.x == x).all(axis=1))[0]) for x in jacobian.activations.x]
        assert len(set(places)) == 25
        roots = np.sqrt(data.sample_weight[places])[:, None]
        np.testing.assert_allclose(jacobian.row_scale, roots)
        wanted = roots * loss.residual(data.Y[places], network.forward(data.x[places]).output)
        np.testing.assert_allclose(residual, wanted, rtol=1e-10)
        assert stepper.jacobian.n_rows == 60

    def test_in_small_batches_it_is_found_on_more_rows_than_a_batch_has(self, monkeypatch):
        network, data, loss = fitting_problem(n=60)
        sizes = []

        class Recording(levenberg_marquardt.LeaveOneOutError):
            def __init__(self, batch, *args, **kwargs):
                sizes.append(len(batch))
                super().__init__(batch, *args, **kwargs)

        monkeypatch.setattr(levenberg_marquardt, "LeaveOneOutError", Recording)
        monkeypatch.setattr(levenberg_marquardt, "MIN_DAMPING_ROWS", 40)
        found = []
        for batch_size in (1, 10, 40, 50):
            stepper = make_stepper(network, data, loss, in_batches=True, batch_size=batch_size)
            found.append(stepper.damping)
        assert sizes == [40, 40, 40, 50]
        assert found[0] == found[1] == found[2]

    def test_systems_that_cannot_be_factored_are_infinitely_bad(self, monkeypatch):
        network, data, loss = fitting_problem(n=20)
        monkeypatch.setattr(GramMatrix, "matrix", lambda self: -1e30 * np.eye(20))
        stepper = make_stepper(network, data, loss)
        linearise(stepper, data)
        assert stepper.damping == pytest.approx(0.3)

    @pytest.mark.parametrize(("in_batches", "least"), [(False, 1e-3), (True, 0.5)])
    def test_in_batches_it_does_not_fall_below_its_start(self, in_batches, least):
        network, data, loss = fitting_problem(n=40)
        stepper = make_stepper(network, data, loss, damping=0.5, in_batches=in_batches)
        dampings = []
        for _ in range(14):
            linearise(stepper, data)
            if stepper.step() is None:
                break
            dampings.append(stepper.damping)
        assert min(dampings) == pytest.approx(least) if in_batches else min(dampings) < 0.01
        assert min(dampings) >= least

    @pytest.mark.parametrize(("name", "k"), [("log_loss", 1), ("log_loss", 3), ("poisson", 2)])
    def test_it_holds_where_sure_predictions_leave_no_curvature(self, name, k):
        network, data, loss = fitting_problem(name, k, n=20, widths=(30, 20))
        stepper = make_stepper(network, data, loss, damping=0.5)
        linearise(stepper, data)
        first = stepper.jacobian.mean_diagonal()
        A, inputs = network.output_weights
        # All outputs are far on the side of the first class, or of the mean zero: next to no curvature.
        constant = inputs.copy()
        constant[-1] = -60.0
        if k == 3:
            constant[-1, 0] = 60.0
        network.output_weights = (0.1 * A, constant)
        linearise(stepper, data)
        assert stepper.jacobian.mean_diagonal() < 1e-3 * first
        stepper.n_cg_iter.append(0)
        solution = stepper._inner_solve()
        assert solution.ridge == pytest.approx(0.5 * first)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_everything(seed):
    def changes(seed):
        network, data, loss = fitting_problem("log_loss", 5, n=30, widths=(30, 20))
        stepper = make_stepper(network, data, loss, in_batches=True, preconditioner="sketch", seed=seed, cg_tol=0.1)
        for _ in range(2):
            linearise(stepper, data)
            stepper.step()
        return parameters(network), stepper.n_cg_iter

    first, again, other = changes(seed), changes(seed), changes(seed + 10)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert (first[0] != other[0]).any()


def test_every_second_is_in_a_phase():
    network, data, loss = fitting_problem(n=20)
    stepper = make_stepper(network, data, loss)
    linearise(stepper, data)
    stepper.step()
    seconds = stepper._stopwatch.seconds
    assert all(seconds[phase] > 0 for phase in ("forward", "jacobian", "solve", "update"))
