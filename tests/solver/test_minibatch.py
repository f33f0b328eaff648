"""Passes over shuffled batches: who is in which, what is averaged, what is returned, and when it ends."""

import numpy as np
import pytest
from cases import DenseNetwork, dense_densities, fitting_problem, held_out_error, parameters

from sklearn_subquad._curvature.losses import make_loss
from sklearn_subquad._curvature.preconditioners import default_sketch_size
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._solver import levenberg_marquardt
from sklearn_subquad._solver.criteria import HeldOutError, Judgement
from sklearn_subquad._solver.gauss_newton import GaussNewton
from sklearn_subquad._solver.levenberg_marquardt import Batch, LevenbergMarquardt
from sklearn_subquad._solver.options import SolverOptions
from sklearn_subquad._solver.stopping import StopReason

# None of these stops a fit before max_iter.
ENDLESS = {"tol": 0.0, "n_iter_no_change": 10_000}
LOSSES = pytest.mark.parametrize(
    ("name", "k"), [("squared_error", 1), ("squared_error", 5), ("log_loss", 1), ("log_loss", 3), ("poisson", 2)]
)


class Record:
    """What happens in a fit: the batches that are linearised, the network before and after every step."""

    def __init__(self, monkeypatch, data):
        self.batches, self.befores, self.iterates, self.dampings, self.n_failed = [], [], [], [], 0
        linearise, step = LevenbergMarquardt.linearise, LevenbergMarquardt.step
        record = self

        def recording_linearise(self, batch, point, *arguments):
            # Rows are known by their inputs.
            places = [int(np.flatnonzero((data.x == x).all(axis=1))[0]) for x in batch.x]
            record.batches.append(places)
            for name in ("x", "Y", "sample_weight"):
                np.testing.assert_array_equal(getattr(batch, name), getattr(data, name)[places])
            linearise(self, batch, point, *arguments)
            record.dampings.append(self.damping)
            record.befores.append(DenseNetwork.of(self._network))

        def recording_step(self):
            accepted = step(self)
            if accepted is None:
                record.n_failed += 1
            else:
                record.iterates.append(parameters(self._network))
            record.dampings.append(self.damping)
            return accepted

        monkeypatch.setattr(LevenbergMarquardt, "linearise", recording_linearise)
        monkeypatch.setattr(LevenbergMarquardt, "step", recording_step)

    def average(self, n_steps=None):
        """Of the first iterates; iterate t counts t (t + 1) (t + 2)."""
        iterates = self.iterates[:n_steps]
        t = np.arange(1, len(iterates) + 1)
        return np.average(iterates, axis=0, weights=t * (t + 1) * (t + 2))


def solve(problem, batch_size, criterion=None, seed=0, **options):
    network, data, loss = problem
    in_batches = {"in_batches": True, "batch_size": batch_size, "sketch_size": default_sketch_size(batch_size)}
    return GaussNewton(network, data, loss, SolverOptions(**in_batches | options), criterion, seed).solve()


def assert_parameters(network, wanted, tolerance=1e-10):
    np.testing.assert_allclose(parameters(network), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


# ---- batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (60, 20, [20, 20, 20]),
        (61, 20, [16, 15, 15, 15]),
        (59, 20, [20, 20, 19]),
        (7, 3, [3, 2, 2]),
        (11, 10, [6, 5]),
        (5, 1, [1, 1, 1, 1, 1]),
        (9, 8, [5, 4]),
    ],
)
def test_every_pass_has_every_row_once_in_batches_of_equal_size(n, batch_size, sizes, monkeypatch):
    problem = fitting_problem(n=n, widths=(30, 20), weighted=True)
    record = Record(monkeypatch, problem[1])
    result = solve(problem, batch_size, max_iter=3, **ENDLESS)
    assert result.n_iter == 3
    assert [len(batch) for batch in record.batches] == 3 * sizes
    assert max(sizes) <= batch_size
    passes = np.concatenate(record.batches).reshape(3, n).tolist()
    for rows in passes:
        assert sorted(rows) == list(range(n))
    if n > 10:
        # In another order every time, and not in that of the data.
        assert passes[0] != passes[1] != passes[2]
        assert all(sorted(first) != first for first in passes)


@pytest.mark.parametrize("n", [15, 20])
def test_rows_that_are_one_batch_are_averaged_as_well(n, monkeypatch):
    problem = fitting_problem(n=n, widths=(30, 20))
    record = Record(monkeypatch, problem[1])
    result = solve(problem, 20, max_iter=3, **ENDLESS)
    assert record.batches == 3 * [list(range(n))]
    assert len(result.loss_curve) == result.n_iter == 3
    assert_parameters(problem[0], record.average())


def test_the_order_of_rows_depends_on_the_seed_alone(monkeypatch):
    def batches(seed, **options):
        problem = fitting_problem(n=30, widths=(30, 20), **options)
        with monkeypatch.context() as patch:
            record = Record(patch, problem[1])
            solve(problem, 7, seed=seed, max_iter=2, damping=1.0, **ENDLESS)
        return record.batches

    first = batches([3, 2])
    assert batches([3, 2]) == first
    assert batches([3, 2], dtype=np.float32, weighted=True) == first
    assert batches([4, 2]) != first


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_jobs", [2, 4])
def test_fits_do_not_depend_on_the_number_of_threads(n_jobs, dtype, name, k):
    def fit():
        problem = fitting_problem(name, k, n=60, widths=(130, 140), dtype=dtype, max_rank=None, weighted=True)
        result = solve(problem, 25, max_iter=2, **ENDLESS)
        return parameters(problem[0]).tobytes(), result.loss_curve, result.n_cg_iter, result.damping

    # Also the reference with BLAS on one thread: its sums depend on their number.
    with worker_threads(1):
        serial = fit()
    with worker_threads(n_jobs):
        assert fit() == serial


# ---- the average ------------------------------------------------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("max_rank", [None, 100_000])
def test_the_result_is_the_average_of_all_iterates(max_rank, name, k, monkeypatch):
    problem = fitting_problem(name, k, n=50, widths=(40, 30), max_rank=max_rank, weighted=True)
    network, data, _ = problem
    record = Record(monkeypatch, data)
    result = solve(problem, 20, max_iter=3, **ENDLESS)
    assert result.n_iter == result.best_iter == 3
    assert result.stop_reason is StopReason.MAX_ITER
    assert len(record.iterates) == 9 - record.n_failed == len(result.n_cg_iter)
    wanted = record.average()
    assert_parameters(network, wanted)
    assert np.abs(wanted - record.iterates[-1]).max() > 1e-3
    # As a fitted network: nothing is pending, and its state is the same function.
    assert all(weights.rank == 0 for weights in network.lazy_weights())
    output = network.forward(data.x).output
    restored = Network.from_state(network.architecture, network.to_state())
    np.testing.assert_allclose(restored.forward(data.x).output, output, atol=1e-12 * np.abs(output).max())


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("widths", [(40,), (40, 30, 20)], ids=str)
def test_networks_of_other_shapes_are_averaged(widths, skip, monkeypatch):
    _, data, loss = fitting_problem(n=50)
    architecture = Architecture(widths, (0.25,) * len(widths), skip_connections=skip, init_scale=0.1)
    network = Network.initialise(architecture, data.x, data.sample_weight, 1, 0)
    record = Record(monkeypatch, data)
    solve((network, data, loss), 20, max_iter=2, **ENDLESS)
    assert_parameters(network, record.average())


def test_steps_go_on_from_the_last_iterate_and_not_from_the_average(monkeypatch):
    problem = fitting_problem(n=50, widths=(40, 30), weighted=True)
    _, held_out, _ = fitting_problem(n=30, seed=1)
    record = Record(monkeypatch, problem[1])
    start = parameters(problem[0])
    solve(problem, 20, HeldOutError(held_out, problem[2]), max_iter=3, **ENDLESS)
    starts = [np.concatenate([part.ravel() for part in before.parts()]) for before in record.befores]
    for before, wanted in zip(starts, [start, *record.iterates[:-1]], strict=True):
        np.testing.assert_allclose(before, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


class ScriptedCriterion:
    """Errors as told, of the constant and after every pass; keeps the networks that it was shown."""

    def __init__(self, *errors):
        self.errors, self.seen = list(errors), []

    def of_the_constant(self, network):
        return self._next()

    def of_network(self, network):
        self.seen.append(parameters(network))
        return self._next()

    def _next(self):
        error = self.errors.pop(0)
        return Judgement(error, error, None, None)


@pytest.mark.parametrize(
    ("errors", "n_iter", "best_iter", "reason"),
    [
        # Three batches a pass: n_iter_no_change=5 steps are two passes.
        ([9, 8, 7, 6, 5, 4], 5, 5, StopReason.MAX_ITER),
        ([9, 8, 5, 6, 7, 0], 4, 2, StopReason.NO_IMPROVEMENT),
        # Both at once: the first reason is the one that counts.
        ([9, 8, 7, 5, 6, 7], 5, 3, StopReason.MAX_ITER),
        ([9, 8, 8, 7, 7.5, 6], 5, 5, StopReason.MAX_ITER),
        # None is better than the constant model so far: one pass more.
        ([9, 10, 11, 12, 0, 0], 3, 0, StopReason.NO_IMPROVEMENT),
        ([9, 10, 11, 0, 1, 2], 5, 3, StopReason.MAX_ITER),
        ([9, 10, 8, 9, 10, 0], 4, 2, StopReason.NO_IMPROVEMENT),
        # Better, but by less than tol: kept, and yet waited out.
        ([9, 8, 7.99, 7.98, 0, 0], 3, 3, StopReason.NO_IMPROVEMENT),
        ([9, np.inf, np.nan, np.inf, 8, 8], 3, 0, StopReason.NO_IMPROVEMENT),
    ],
)
def test_the_criterion_decides_which_average_is_returned_and_when_to_stop(
    errors, n_iter, best_iter, reason, monkeypatch
):
    network, data, loss = fitting_problem(n=50, widths=(40, 30))
    record, criterion = Record(monkeypatch, data), ScriptedCriterion(*errors)
    result = solve((network, data, loss), 20, criterion, max_iter=5, tol=0.01, n_iter_no_change=5, damping=1.0)
    assert (result.n_iter, result.best_iter, result.stop_reason) == (n_iter, best_iter, reason)
    np.testing.assert_array_equal(result.error_curve, errors[: n_iter + 1])
    assert len(result.loss_curve) == n_iter
    assert record.n_failed == 0
    for i, seen in enumerate(criterion.seen, 1):
        wanted = record.average(3 * i)
        np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    if best_iter:
        assert_parameters(network, record.average(3 * best_iter))
    else:
        assert (network.forward(data.x).output == 0).all()


@pytest.mark.parametrize(("n_iter_no_change", "n_iter"), [(1, 2), (3, 2), (4, 3), (6, 3), (7, 4)])
def test_patience_counts_steps_in_whole_passes_and_one_more_where_none_is_better(n_iter_no_change, n_iter):
    problem = fitting_problem(n=50, widths=(30, 20))
    criterion = ScriptedCriterion(*range(1, 10))
    result = solve(problem, 20, criterion, max_iter=9, n_iter_no_change=n_iter_no_change)
    assert result.n_iter == n_iter
    assert result.stop_reason is StopReason.NO_IMPROVEMENT


@pytest.mark.parametrize(
    ("errors", "n_iter", "best_iter"),
    [
        # One pass that is no better ends the fit, but not the first.
        ([9, 8, 8.5, 0], 2, 1),
        ([9, 10, 8, 8.5, 0], 3, 2),
        ([9, 8, 7, 7.5, 0], 3, 2),
    ],
)
def test_a_pass_without_improvement_is_enough_where_it_has_the_steps(errors, n_iter, best_iter):
    problem = fitting_problem(n=50, widths=(30, 20))
    result = solve(problem, 20, ScriptedCriterion(*errors), max_iter=9, n_iter_no_change=3)
    assert (result.n_iter, result.best_iter, result.stop_reason) == (n_iter, best_iter, StopReason.NO_IMPROVEMENT)


@LOSSES
def test_held_out_error_is_that_of_the_average(name, k, monkeypatch):
    network, data, loss = fitting_problem(name, k, n=50, widths=(40, 30), weighted=True)
    _, held_out, _ = fitting_problem(name, k, n=40, seed=1, weighted=True)
    record = Record(monkeypatch, data)
    result = solve((network, data, loss), 20, HeldOutError(held_out, loss), max_iter=3, damping=1.0, **ENDLESS)
    dense, last = DenseNetwork.of(network), parameters(network)
    wanted = [np.zeros_like(held_out.Y)]
    for i in range(1, 4):
        wanted.append(dense.moved(record.average(3 * i) - last).forward(held_out.x)[0])
    wanted = [held_out_error(loss, held_out, F) for F in wanted]
    np.testing.assert_allclose(result.error_curve, wanted, rtol=1e-8)
    assert result.best_iter == np.argmin(wanted)


# ---- the loss, the damping and the end --------------------------------------------------------------------------


@LOSSES
def test_the_loss_curve_is_the_mean_over_the_batches_before_their_steps(name, k, monkeypatch):
    problem = fitting_problem(name, k, n=50, widths=(40, 30), weighted=True)
    _, data, loss = problem
    record = Record(monkeypatch, data)
    result = solve(problem, 20, max_iter=3, damping=10.0, **ENDLESS)
    values = []
    for before, rows in zip(record.befores, record.batches, strict=True):
        batch = data[rows]
        values.append(loss.value(batch.Y, before.forward(batch.x)[0], batch.sample_weight))
    means = np.reshape(values, (3, 3)).sum(axis=1) / data.sample_weight.sum()
    np.testing.assert_allclose(result.loss_curve, [loss.reported(mean) for mean in means], rtol=1e-9)
    assert result.loss_curve[-1] < result.loss_curve[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_densities_are_means_over_a_pass_of_what_is_active_before_each_step(dtype, monkeypatch):
    # 25, 25 and 24 rows: a mean over batches would not be one over rows.
    problem = fitting_problem(n=74, widths=(40, 30), weighted=True, dtype=dtype)
    record = Record(monkeypatch, problem[1])
    result = solve(problem, 25, max_iter=3, damping=1.0, **ENDLESS)
    active = []
    for before, rows in zip(record.befores, record.batches, strict=True):
        active.append(len(rows) * np.array(dense_densities(before, problem[1].x[rows])))
    wanted = np.reshape(active, (3, 3, 2)).sum(axis=1) / 74
    np.testing.assert_allclose(result.density_curve, wanted, rtol=0, atol=1e-12 if dtype == np.float64 else 1e-3)
    assert len(np.unique(wanted, axis=0)) == 3


def test_the_rank_is_the_mean_over_the_steps_of_a_pass():
    problem = fitting_problem(n=50, widths=(40, 30))
    result = solve(problem, 20, max_iter=2, damping=2.0, **ENDLESS)
    # Batches of 17, 17 and 16 rows, each of which adds a term a row and is folded in afterwards.
    assert result.rank_curve == pytest.approx([50 / 3, 50 / 3])
    assert all(type(rank) is float for rank in result.rank_curve)
    assert solve(fitting_problem(n=50, widths=(40,)), 20, max_iter=2, **ENDLESS).rank_curve == [0.0, 0.0]


@pytest.mark.parametrize("damping", [None, 0.7])
@LOSSES
def test_the_damping_never_falls_below_its_start(name, k, damping, monkeypatch):
    problem = fitting_problem(name, k, n=60, widths=(40, 30))
    record = Record(monkeypatch, problem[1])
    result = solve(problem, 15, max_iter=4, damping=damping, **ENDLESS)
    start = record.dampings[0]
    assert start == 0.7 or damping is None
    assert min(record.dampings) == start
    assert result.damping == record.dampings[-1]


def test_without_a_criterion_the_loss_decides(monkeypatch):
    problem = fitting_problem(n=60, widths=(40, 30))
    record = Record(monkeypatch, problem[1])
    # A fall of less than 90 % is none.
    result = solve(problem, 20, max_iter=20, tol=0.9, n_iter_no_change=3)
    assert result.stop_reason is StopReason.LOSS_CONVERGED
    assert result.n_iter < 20
    assert result.best_iter == result.n_iter
    assert result.error_curve == []
    assert_parameters(problem[0], record.average())


def rising(monkeypatch, loss, right):
    """Let every value of the loss be higher than the one before, unless ``right(call)``."""
    value, calls = loss.value, []

    def scripted(*arguments):
        calls.append(1)
        return value(*arguments) if right(len(calls)) else 1e6 + len(calls)

    monkeypatch.setattr(loss, "value", scripted)
    return calls


@pytest.mark.parametrize("with_criterion", [False, True])
def test_a_pass_without_any_step_ends_the_fit_with_the_constant_model(with_criterion, monkeypatch):
    network, data, loss = fitting_problem("log_loss", 3, n=50, widths=(40, 30))
    record = Record(monkeypatch, data)
    criterion = ScriptedCriterion(1.0) if with_criterion else None
    rising(monkeypatch, loss, lambda call: False)
    result = solve((network, data, loss), 20, criterion, max_iter=5, damping=0.5)
    assert result.stop_reason is StopReason.NO_DESCENT
    assert (result.n_iter, result.best_iter) == (0, 0)
    assert record.n_failed == 3
    assert result.n_cg_iter == []
    assert len(result.loss_curve) == 1
    assert result.density_curve == result.rank_curve == []
    assert result.damping == 0.5
    assert (network.forward(data.x).output == 0).all()


def test_a_pass_that_finds_everything_fitted_says_so():
    network, data, loss = fitting_problem(n=50, widths=(40, 30))
    data = Batch(data.x, 0 * data.Y, data.sample_weight)
    result = solve((network, data, loss), 20, None, max_iter=5)
    assert result.stop_reason is StopReason.INTERPOLATED
    assert (network.forward(data.x).output == 0).all()


@pytest.mark.parametrize("with_criterion", [False, True])
def test_a_later_pass_without_any_step_leaves_what_was_found(with_criterion, monkeypatch):
    network, data, loss = fitting_problem(n=50, widths=(40, 30))
    record = Record(monkeypatch, data)
    criterion = ScriptedCriterion(9, 8) if with_criterion else None
    # The first pass takes a value before each of its three steps and one after; one more comes before all.
    rising(monkeypatch, loss, lambda call: call <= 7)
    result = solve((network, data, loss), 20, criterion, max_iter=5, damping=2.0)
    assert result.stop_reason is StopReason.NO_DESCENT
    assert (result.n_iter, result.best_iter) == (1, 1)
    assert len(result.loss_curve) == 2
    # The pass does not count.
    assert len(result.density_curve) == len(result.rank_curve) == 1
    assert (len(record.iterates), record.n_failed) == (3, 3)
    assert_parameters(network, record.average())


def test_a_batch_without_a_step_is_left_out_of_the_average(monkeypatch):
    network, data, loss = fitting_problem(n=50, widths=(40, 30))
    record = Record(monkeypatch, data)
    # All ten attempts of the second batch: one value before, ten after.
    rising(monkeypatch, loss, lambda call: call <= 2 or call > 2 + 11)
    result = solve((network, data, loss), 20, max_iter=2, damping=2.0, **ENDLESS)
    assert result.n_iter == 2
    assert (len(record.iterates), record.n_failed) == (5, 1)
    assert len(result.n_cg_iter) == 5
    # Its rows count for the density, which is of all rows, but there is no rank after a step that was not taken.
    taken = [len(rows) for place, rows in enumerate(record.batches[:3]) if place != 1]
    assert result.rank_curve == pytest.approx([np.mean(taken), 50 / 3])
    active = [
        len(rows) * np.array(dense_densities(before, data.x[rows]))
        for before, rows in zip(record.befores[:3], record.batches[:3], strict=True)
    ]
    np.testing.assert_allclose(result.density_curve[0], np.sum(active, axis=0) / 50, atol=1e-12)
    assert_parameters(network, record.average())
    # The next batch begins with the damping of the start.
    assert record.dampings[4] == 2.0


def test_unconverged_inner_solves_are_counted():
    problem = fitting_problem("log_loss", 3, n=50, widths=(40, 30))
    result = solve(problem, 20, max_iter=2, preconditioner="none", max_cg_iter=1, cg_tol=1e-6, damping=1.0, **ENDLESS)
    assert result.n_solves >= result.n_unconverged >= 6
    assert len(result.n_cg_iter) == 6


@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("with_criterion", [False, True])
def test_verbose_prints_a_line_per_pass(verbose, with_criterion, capsys):
    problem = fitting_problem(n=50, widths=(30, 20))
    criterion = ScriptedCriterion(5, 4, 3) if with_criterion else None
    solve(problem, 20, criterion, max_iter=2, verbose=verbose, **ENDLESS)
    lines = capsys.readouterr().out.splitlines()
    if not verbose:
        assert lines == []
    else:
        assert lines[0].split()[0] == "pass"
        assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
        assert "after 2 of 2 passes" in lines[-1]


# ---- data that batches make hard --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "k"), [("log_loss", 1), ("log_loss", 3), ("squared_error", 3)])
@pytest.mark.parametrize("batch_size", [1, 10])
def test_batches_in_which_a_class_is_missing_work(batch_size, name, k, monkeypatch):
    n = 41
    network, data, _ = fitting_problem(n_outputs=k, n=n, widths=(40, 30))
    labels = np.zeros(n, dtype=int)
    labels[20:] = 1 if k == 1 else 2
    labels[7] = 1
    Y = labels[:, None].astype(float) if k == 1 else np.eye(3)[labels]
    if k == 1:
        labels = (data.x[:, 0] > np.sort(data.x[:, 0])[-2]).astype(int)
        Y = labels[:, None].astype(float)
        assert Y.sum() == 1
    if name == "squared_error":
        Y = Y - Y.mean(axis=0)
    data = Batch(data.x, Y, data.sample_weight)
    loss = make_loss(name, Y, data.sample_weight)
    record = Record(monkeypatch, data)
    result = solve((network, data, loss), batch_size, max_iter=6, **ENDLESS)
    assert any(len({int(labels[row]) for row in rows}) < len(set(labels)) for rows in record.batches)
    assert result.n_iter >= 1
    assert np.isfinite(parameters(network)).all()
    assert np.isfinite(result.loss_curve).all()
    of_constant = loss.value(Y, np.zeros_like(Y), data.sample_weight)
    if batch_size > 1:
        assert loss.value(Y, network.forward(data.x).output, data.sample_weight) < of_constant


def test_batches_that_are_fitted_already_are_passed_over():
    network, data, _ = fitting_problem(n=40, widths=(30, 20))
    output = network.forward(data.x).output
    Y = output.copy()
    # Only some rows have an error; a batch of the others has nothing to descend.
    Y[:3] += 1.0
    data = Batch(data.x, Y, data.sample_weight)
    loss = make_loss("squared_error", Y, data.sample_weight)
    before = loss.value(Y, output, data.sample_weight)
    result = solve((network, data, loss), 5, max_iter=5, damping=1.0, **ENDLESS)
    assert result.n_iter >= 1
    assert loss.value(Y, network.forward(data.x).output, data.sample_weight) < before


@pytest.mark.parametrize("preconditioner", ["none", "gram", "sketch"])
@LOSSES
def test_every_preconditioner_serves(name, k, preconditioner):
    problem = fitting_problem(name, k, n=60, widths=(40, 30))
    options = {"max_iter": 3, "damping": 1.0, "cg_tol": 1e-8, "max_cg_iter": 300} | ENDLESS
    solve(problem, 20, preconditioner=preconditioner, **options)
    wanted = fitting_problem(name, k, n=60, widths=(40, 30))
    solve(wanted, 20, preconditioner="none", **options)
    assert_parameters(problem[0], parameters(wanted[0]), 1e-5)


@LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_passes_come_close_to_the_fit_of_all_rows(dtype, name, k):
    problem = fitting_problem(name, k, n=120, widths=(96, 80), dtype=dtype)
    network, data, loss = problem
    result = solve(problem, 40, max_iter=8, **ENDLESS)
    of_constant = loss.value(data.Y, np.zeros_like(data.Y), data.sample_weight)
    of_average = loss.value(data.Y, network.forward(data.x).output, data.sample_weight)
    assert of_average < 0.5 * of_constant
    assert result.loss_curve[-1] < result.loss_curve[0]


def test_tried_rows_of_large_batches_are_drawn_in_the_same_way_every_time(monkeypatch):
    monkeypatch.setattr(levenberg_marquardt, "_TRIAL_ROWS", 8)

    def fit():
        problem = fitting_problem("log_loss", 3, n=60, widths=(40, 30))
        solve(problem, 25, max_iter=3, **ENDLESS)
        return parameters(problem[0])

    np.testing.assert_array_equal(fit(), fit())
