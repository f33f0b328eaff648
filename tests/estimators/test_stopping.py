"""The path of steps: when it stops, which iterate is kept, and what is said of it."""

import warnings

import numpy as np
import pytest
from cases import first_split
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from small_fits import BOTH, data_for, fixed_steps, outputs, regression_data, small

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@BOTH
@pytest.mark.parametrize("init_scale", ["auto", 1.0])
@pytest.mark.parametrize("damping", ["auto", 1e-3])
def test_loss_never_rises(estimator_class, init_scale, damping):
    X, y = data_for(estimator_class)
    estimator = fixed_steps(estimator_class, 8, init_scale=init_scale, damping=damping).fit(X, y)
    assert len(estimator.loss_curve_) > 4
    assert np.all(np.diff(estimator.loss_curve_) < 0)


# ---- reasons -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"max_iter": 2}, "max_iter was reached"),
        ({"max_iter": 50, "tol": 0.99}, "training loss has fallen by less than tol"),
        ({"max_iter": 50, "early_stopping": "loo", "tol": 0.5}, "early-stopping error has not improved"),
    ],
    ids=["max_iter", "loss", "error"],
)
def test_stop_reason(parameters, reason):
    X, y = regression_data()
    assert reason in small(SubquadMLPRegressor, **{"early_stopping": False} | parameters).fit(X, y).stop_reason_


@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-5), ("double", 1e-10)])
def test_stops_once_the_targets_are_fitted_to_rounding(precision, tolerance):
    X, y = regression_data(n=10)
    parameters = {"early_stopping": False, "max_iter": 200, "damping": 0.1, "precision": precision}
    estimator = small(SubquadMLPRegressor, **parameters).fit(X, y)
    assert "fitted to rounding" in estimator.stop_reason_
    np.testing.assert_allclose(estimator.predict(X), y, atol=tolerance)


def test_a_fit_without_descent_takes_no_step():
    # Every row exists with both targets: the start, at zero, cannot be improved upon.
    X = np.repeat(np.random.default_rng(0).standard_normal((4, 3)), 2, axis=0)
    y = np.array([0.0, 2.0] * 4)
    estimator = small(SubquadMLPRegressor, early_stopping=False, init_scale=1.0)
    with pytest.warns(ConvergenceWarning, match="predicts the mean of y"):
        estimator.fit(X, y)
    assert "no damping" in estimator.stop_reason_
    assert estimator.n_iter_ == estimator.best_iter_ == 0
    assert len(estimator.loss_curve_) == 1
    assert len(estimator.n_cg_iter_) == 0
    np.testing.assert_allclose(estimator.predict(X), 1, atol=1e-12)


# ---- early stopping ------------------------------------------------------------------------------


def test_leave_one_out_returns_the_best_iterate():
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:150], y[:150]
    stopped = small(SubquadMLPRegressor, early_stopping="loo", precision="double", max_iter=20).fit(X, y)
    assert 1 <= stopped.best_iter_ < stopped.n_iter_
    direct = fixed_steps(SubquadMLPRegressor, stopped.best_iter_, precision="double").fit(X, y)
    np.testing.assert_allclose(stopped.predict(X), direct.predict(X), rtol=1e-8)


def test_leave_one_out_returns_the_best_iterate_of_a_classifier():
    X, y = load_iris(return_X_y=True)
    y = np.where(np.random.default_rng(0).random(len(y)) < 0.3, 0, y)
    stopped = small(SubquadMLPClassifier, early_stopping="loo", precision="double", max_iter=20).fit(X, y)
    assert 1 <= stopped.best_iter_ < stopped.n_iter_
    direct = fixed_steps(SubquadMLPClassifier, stopped.best_iter_, precision="double").fit(X, y)
    np.testing.assert_allclose(stopped.decision_function(X), direct.decision_function(X), atol=1e-8)


@BOTH
def test_validation_returns_the_best_iterate_of_a_fit_without_the_held_out_rows(estimator_class):
    X, y = data_for(estimator_class, n=200)
    parameters = {"init_scale": 0.3, "precision": "double"}
    stopped = small(estimator_class, early_stopping="validation", max_iter=20, validation_fraction=0.3, **parameters)
    stopped.fit(X, y)
    assert 1 <= stopped.best_iter_ < stopped.n_iter_
    assert len(stopped.loss_curve_) == len(stopped.validation_scores_) == stopped.n_iter_ + 1
    fitted, _ = first_split(stopped, y, 0.3)
    direct = fixed_steps(estimator_class, stopped.best_iter_, **parameters).fit(X[fitted], y[fitted])
    # Steps that were taken back leave their rounding.
    np.testing.assert_allclose(outputs(stopped, X), outputs(direct, X), rtol=1e-8, atol=1e-8)
    n_common = stopped.best_iter_ + 1
    assert stopped.loss_curve_[:n_common] == direct.loss_curve_
    np.testing.assert_array_equal(stopped.density_curve_[:n_common], direct.density_curve_)
    assert stopped.rank_curve_[:n_common] == direct.rank_curve_


@BOTH
@pytest.mark.parametrize(("n_rows", "curve"), [(99, "loo_curve_"), (100, "validation_scores_")])
def test_automatic_early_stopping_follows_the_number_of_rows(estimator_class, n_rows, curve):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 3))
    estimator = small(estimator_class, early_stopping="auto", max_iter=2).fit(X, np.sign(X[:, 0]))
    assert [name for name in ("loo_curve_", "validation_scores_") if hasattr(estimator, name)] == [curve]


def test_auto_counts_only_rows_of_positive_weight():
    X, y = regression_data(n=110)
    weights = np.r_[np.ones(90), np.zeros(20)]
    weighted = small(SubquadMLPRegressor, max_iter=1).fit(X, y, sample_weight=weights)
    assert hasattr(weighted, "loo_curve_") == hasattr(small(SubquadMLPRegressor).fit(X[:90], y[:90]), "loo_curve_")


def test_sure_predictions_are_not_made_surer_for_ever():
    # Every held-out row is predicted right from a few steps on: only the doubt ends the fit before max_iter.
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-1, 0.2, (60, 3)), rng.normal(1, 0.2, (60, 3))])
    y = np.repeat([0, 1], 60)
    estimator = small(SubquadMLPClassifier, loss="log_loss", early_stopping="validation", max_iter=30).fit(X, y)
    assert 1 <= estimator.best_iter_ < 15
    assert 0.9 < estimator.predict_proba(X).max(axis=1).mean() < 0.9999


# ---- warnings ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 20])
def test_who_gets_a_constant_is_told_so(estimator_class, batch_size):
    X, y = data_for(estimator_class)
    y = np.random.default_rng(2).permutation(y)
    parameters = {"early_stopping": "validation", "validation_fraction": 0.4, "damping": 1e-3, "max_iter": 8}
    estimator = small(estimator_class, batch_size=batch_size, **parameters)
    with pytest.warns(ConvergenceWarning, match="below that of a constant: the model predicts the mean of y"):
        estimator.fit(X, y)
    assert estimator.best_iter_ == 0
    constant = small(estimator_class, batch_size=batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        if estimator_class is SubquadMLPRegressor:
            constant.fit(X, np.full(len(X), 3.0))


@BOTH
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"early_stopping": False, "damping": 1e20}, "lowers the training loss: .* damping or init_scale"),
        ({"early_stopping": "validation", "damping": 1e6, "batch_size": 20}, "early-stopping error .* another damping"),
        ({"early_stopping": "validation", "damping": 1e6, "max_iter": 1, "batch_size": 20}, "a larger max_iter"),
    ],
    ids=["lost in rounding", "too short", "too few"],
)
def test_who_gets_a_constant_by_parameters_reads_their_names(estimator_class, parameters, named):
    X, y = data_for(estimator_class)
    with pytest.warns(ConvergenceWarning, match=named):
        estimator = small(estimator_class, init="gaussian", **parameters).fit(X, y)
    assert estimator.best_iter_ == 0


def test_who_gets_a_constant_although_the_training_rows_are_fitted_is_told_so():
    X, y = regression_data(n=30)
    y = np.random.default_rng(3).permutation(y)
    parameters = {"early_stopping": "validation", "validation_fraction": 0.4, "damping": 1e-3}
    parameters |= {"n_iter_no_change": 100, "max_iter": 100}
    with pytest.warns(ConvergenceWarning, match="No step lowers the early-stopping error"):
        estimator = small(SubquadMLPRegressor, hidden_layer_sizes=(256,), **parameters).fit(X, y)
    assert estimator.best_iter_ == 0
    assert "fitted to rounding" in estimator.stop_reason_ or "no damping" in estimator.stop_reason_


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 40])
@pytest.mark.parametrize("early_stopping", ["validation", False])
@pytest.mark.parametrize("damping", [1e-9, 1e-12, 5e-324])
def test_a_damping_that_is_too_small_is_raised(estimator_class, damping, early_stopping, batch_size):
    X, y = data_for(estimator_class, n=200)
    parameters = {"early_stopping": early_stopping, "batch_size": batch_size, "n_folds": "auto", "max_iter": 8}
    estimator = small(estimator_class, damping=damping, **parameters).fit(X, y)
    assert estimator.best_iter_ > 0
    assert estimator.score(X, y) > 0.7


@pytest.mark.parametrize("early_stopping", ["validation", False])
def test_who_gets_mostly_inexact_steps_is_told_so_once(early_stopping):
    X, _ = regression_data(n=200)
    y = X[:, 0]
    hard = {"preconditioner": "none", "cg_tol": 1e-6, "max_cg_iter": 3, "damping": 1.0}
    estimator = small(SubquadMLPRegressor, early_stopping=early_stopping, **hard)
    with pytest.warns(ConvergenceWarning) as caught:
        estimator.fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]
    # Every attempt took three iterations.
    n_solves = sum(estimator.n_cg_iter_) // 3
    told = str(caught[0].message)
    assert f"{n_solves} of {n_solves} inner solves did not reach cg_tol=1e-06 in max_cg_iter=3 iterations" in told
    for enough in ({"max_cg_iter": 500}, {"cg_tol": 0.9}, {"preconditioner": "gram"}, {"batch_size": 60}):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            clone(estimator).set_params(**enough).fit(X, y)
