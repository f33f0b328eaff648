"""Every choice of a fit, from parameters and the shape of the data."""

import dataclasses

import numpy as np
import pytest

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.plan import FitPlan, resolve_architecture
from sklearn_subquad._fit.plan_table import plan_table
from sklearn_subquad._fit.scaling import Ramps


def resolved(n, k=1, labels=False, partial=False, **parameters):
    """The plan of a fit to n rows with k columns of targets, or of indicators of labels."""
    parameters = {"hidden_layer_sizes": (1024, 1024), "n_folds": 1} | parameters
    model = (SubquadMLPClassifier if labels else SubquadMLPRegressor)(**parameters)
    X = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    Y = (np.arange(n) % max(k, 2))[:, None] == np.arange(k) if labels else X[:, :1].repeat(k, axis=1).astype(np.float64)
    data, _ = TrainingSet.of_distinct_rows(X, Y, np.ones(n), None)
    others = {"unit_variance_targets": True, "covariance": False, "validation": None, "score": None, "start": None}
    return FitPlan.resolve(model, resolve_architecture(model), data, 0, loss=model.loss, partial=partial, **others)


@pytest.mark.parametrize(
    ("data", "parameters", "expected"),
    [
        ((99,), {}, {"early_stopping": "loo", "rows_of_a_step": 99, "n_jobs": None}),
        ((100,), {}, {"early_stopping": "validation", "n_networks": 1, "in_folds": False, "rows_of_a_step": 90}),
        ((500,), {}, {"rows_of_a_step": 450, "n_jobs": None}),
        ((99,), {"hidden_layer_sizes": (500, 500)}, {"n_jobs": 1}),
        ((250, 3, True), {}, {"rows_of_a_step": 225}),
        # The 9,000 rows that are left are two batches, as 10,000 would be.
        ((10_000,), {"batch_size": 5000}, {"in_folds": False, "rows_of_a_step": 4500}),
        ((10_000,), {"batch_size": 10_000}, {"rows_of_a_step": 9000}),
        ((500,), {"early_stopping": False}, {"early_stopping": False, "in_folds": False, "rows_of_a_step": 500}),
        ((500,), {"loss": "poisson", "validation_fraction": 0.4}, {"validation_fraction": 0.4, "rows_of_a_step": 300}),
        ((80,), {"loss": "poisson"}, {"early_stopping": "validation", "rows_of_a_step": 72}),
        ((500,), {"n_folds": 4}, {"n_networks": 4, "in_folds": True, "rows_of_a_step": 375}),
        ((80,), {"n_folds": 4}, {"early_stopping": "validation", "in_folds": True, "rows_of_a_step": 60}),
    ],
)
def test_rows_that_are_held_out(data, parameters, expected):
    plan = resolved(*data, **parameters)
    found = vars(plan) | vars(plan.size)
    assert {name: found[name] for name in expected} == expected


def test_of_a_single_network_one_fit_counts_in_the_bill():
    """However many threads there are; of several, those that run side by side do."""
    one, four = resolved(500, n_jobs=4), resolved(500, n_jobs=4, n_folds=4)
    assert one.n_bytes == one.size.weight_bytes + one.size.row_bytes
    assert four.n_bytes == 4 * (four.size.weight_bytes + four.size.row_bytes)


@pytest.mark.parametrize(
    ("data", "parameters", "expected"),
    [
        ((1000,), {}, {"in_batches": False, "batch_size": 1000, "cg_tol": 0.1, "preconditioner": "gram"}),
        ((1001,), {}, {"in_batches": True, "batch_size": 256, "cg_tol": 0.3, "block_rows": None}),
        ((1001, 2), {}, {"in_batches": True, "batch_size": 256}),
        ((4096,), {"loss": "poisson"}, {"in_batches": False, "batch_size": 4096}),
        ((4097,), {"loss": "poisson"}, {"in_batches": True, "batch_size": 2048}),
        ((1025, 2), {"loss": "poisson"}, {"in_batches": True, "batch_size": 1024}),
        ((4096,), {"early_stopping": "loo"}, {"in_batches": False, "batch_size": 4096}),
        ((256, 2, True), {}, {"in_batches": False}),
        ((257, 2, True), {}, {"in_batches": True, "batch_size": 128}),
        ((2000, 3, True), {}, {"batch_size": 250}),
        ((2000, 3, True), {"loss": "log_loss"}, {"batch_size": 1024, "cg_tol": 0.1}),
        ((300,), {"batch_size": np.int8(100)}, {"in_batches": True, "batch_size": 100}),
        ((9000,), {"batch_size": 9000}, {"preconditioner": "sketch", "sketch_size": 2048, "block_rows": 8192}),
        ((9000,), {"batch_size": 9000, "preconditioner": "gram"}, {"block_rows": None}),
        ((50,), {"preconditioner": "sketch"}, {"preconditioner": "sketch", "sketch_size": 100}),
        ((50,), {"sketch_size": 7, "damping": 2}, {"sketch_size": 7, "damping": 2.0}),
        ((50,), {}, {"damping": None, "max_iter": 20, "warm_start": False}),
        ((50, 1, False, True), {}, {"in_batches": True, "max_iter": 1}),
    ],
)
def test_steps(data, parameters, expected):
    solver = resolved(*data, **parameters).solver
    assert {name: getattr(solver, name) for name in expected} == expected


NONE, EIGHT, LOUD = Ramps(None), Ramps(8), Ramps(16, loud=True)


@pytest.mark.parametrize(
    ("data", "parameters", "kinds"),
    [
        ((1000,), {"n_folds": 8}, (EIGHT, NONE, EIGHT, LOUD)),
        ((1000,), {"n_folds": 1}, (EIGHT,)),
        ((1000,), {"n_folds": 8, "n_bins": 5}, (Ramps(5),)),
        ((1000,), {"n_folds": 8, "n_bins": None}, (NONE,)),
        ((999, 2, True), {"n_folds": 8}, (EIGHT, NONE)),
        ((1000, 2, True), {"n_folds": 8}, (EIGHT, NONE, EIGHT, LOUD)),
        ((999, 2, True), {"n_folds": 8, "loss": "log_loss"}, (EIGHT, NONE, EIGHT, LOUD)),
        # Ten rows a bin.
        ((120,), {"n_folds": 8}, (Ramps(5), NONE, Ramps(5), Ramps(12, loud=True))),
    ],
)
def test_kinds_of_networks(data, parameters, kinds):
    plan = resolved(*data, **parameters)
    assert plan.kinds == kinds
    assert plan.ramps == kinds[0]


def test_costs_choose_later_what_depends_on_the_rank():
    architecture = resolved(50, hidden_layer_sizes=(64, 32)).architecture
    assert (architecture.max_rank, architecture.matmul) == (None, None)
    told = resolved(50, hidden_layer_sizes=(64, 32), max_rank=5, matmul="blas", init_scale=0.5).architecture
    assert (told.max_rank, told.matmul, told.init_scale) == (5, "blas", 0.5)


def test_the_bill_reads_what_the_solver_reads():
    plan = resolved(9000, batch_size=9000)
    assert plan.size.block_rows == plan.solver.block_rows
    assert plan.size.sketch_size == plan.solver.sketch_size
    assert resolved(9000, batch_size=9000, preconditioner="gram").size.sketch_size == 0


def test_plans_are_equal_where_all_choices_are_and_cannot_be_changed():
    plan = resolved(120)
    assert plan == resolved(120)
    assert plan != resolved(120, tol=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.loss = "poisson"


def test_a_plan_prints_every_choice():
    lines = plan_table(resolved(120)).splitlines()
    assert lines[0] == "rows:             120"
    assert "early_stopping:   0.1 of the rows held out" in lines
    assert "early_stopping:   3 networks, each without one fold" in plan_table(resolved(120, n_folds=3)).splitlines()
    assert "in batches of at most 60" in plan_table(resolved(120, batch_size=60))
    assert "auto" not in plan_table(resolved(120))
    assert "leave-one-out errors" in plan_table(resolved(50))
