"""The estimators as their users see them: scikit-learn's tools around them, fitted attributes, promises."""

import dataclasses
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import logit
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_poisson_deviance
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._curvature.jacobian import Jacobian
from sklearn_subquad._curvature.losses import make_loss
from sklearn_subquad._fit.calibration import project_onto_simplex
from sklearn_subquad._fit.scaling import InputScaling, effective_dimension
from sklearn_subquad._linalg import threads
from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix
from sklearn_subquad._network.network import Architecture, Network

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread():
    # Matrices as small as these gain nothing from threads, and lose much where the processors are busy.
    with threadpool_limits(1, user_api="blas"):
        yield


def small(estimator_class, **parameters):
    return estimator_class(**{"hidden_layer_sizes": (64, 64), "max_iter": 4, "random_state": 0} | parameters)


def fixed_steps(estimator_class, n_steps, **parameters):
    """An estimator that takes a given number of steps and keeps them all."""
    parameters = {"early_stopping": False, "tol": 0.0} | parameters
    return small(estimator_class, max_iter=n_steps, **parameters)


def regression_data(n=80, d=5, n_outputs=None, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    Y = np.sin(2 * X[:, [0]]) + X[:, [1]] * X[:, [2 % d]] * np.arange(1, 1 + (n_outputs or 1))
    Y += 0.3 * rng.standard_normal(Y.shape)
    return X.astype(dtype), (Y if n_outputs else Y[:, 0]).astype(dtype)


def classification_data(n=80, d=5, n_classes=3, dtype=np.float64):
    X, y = regression_data(n, d)
    return X.astype(dtype), np.argsort(np.argsort(y)) * n_classes // n


def data_for(estimator_class, **kwargs):
    if estimator_class is SubquadMLPClassifier:
        return classification_data(**kwargs)
    return regression_data(**kwargs)


def outputs(estimator, X):
    """What the network computes, before it is turned into labels."""
    return estimator.decision_function(X) if is_classifier(estimator) else estimator.predict(X)


# ---- scikit-learn's tools -----------------------------------------------------------------------------------


@BOTH
def test_pipeline_with_scaler(estimator_class):
    X, y = data_for(estimator_class)
    pipeline = make_pipeline(StandardScaler(), small(estimator_class)).fit(X, y)
    assert pipeline.predict(X).shape == y.shape
    assert pipeline.score(X, y) > 0.5


@BOTH
def test_pipeline_with_column_transformer_on_a_data_frame(estimator_class):
    X, y = data_for(estimator_class)
    frame = pd.DataFrame(X, columns=list("abcde")).assign(colour=np.where(X[:, 0] > 0, "red", "blue"))
    columns = ColumnTransformer([("numbers", StandardScaler(), list("abcde")), ("rest", OneHotEncoder(), ["colour"])])
    pipeline = make_pipeline(columns, small(estimator_class)).fit(frame, y)
    assert pipeline[-1].n_features_in_ == 7
    assert pipeline.score(frame, y) > 0.5


@BOTH
def test_feature_names_are_remembered(estimator_class):
    X, y = data_for(estimator_class)
    frame = pd.DataFrame(X, columns=list("abcde"))
    estimator = small(estimator_class).fit(frame, pd.Series(y))
    assert list(estimator.feature_names_in_) == list("abcde")
    assert estimator.n_features_in_ == 5
    assert estimator.predict(frame).shape == y.shape


@BOTH
def test_grid_search_in_parallel(estimator_class):
    X, y = data_for(estimator_class)
    grid = [
        {"density": [0.1, (0.3, 0.2)], "max_rank": [0, "auto"]},
        {"preconditioner": ["gram", "sketch", "none"], "sketch_size": [20, "auto"]},
    ]
    estimator = small(estimator_class, hidden_layer_sizes=(32, 32), max_iter=2)
    search = GridSearchCV(estimator, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    assert search.best_estimator_.predict(X).shape == y.shape


@BOTH
def test_clone_and_parameters_round_trip(estimator_class):
    estimator = small(estimator_class, density=(0.1, 0.2), alpha=0.5)
    copy = clone(estimator)
    assert copy is not estimator
    assert copy.get_params() == estimator.get_params()
    assert copy.set_params(alpha=2.0).get_params() == estimator.get_params() | {"alpha": 2.0}
    assert estimator.alpha == 0.5


@BOTH
def test_fit_does_not_change_parameters_or_data(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, hidden_layer_sizes=[64, 32])
    before = joblib.hash((estimator.get_params(), X, y))
    assert estimator.fit(X, y) is estimator
    assert joblib.hash((estimator.get_params(), X, y)) == before


# ---- storing ---------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pickle_keeps_predictions_to_the_bit(estimator_class, dtype):
    X, y = data_for(estimator_class, dtype=dtype)
    estimator = small(estimator_class).fit(X, y)
    restored = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(outputs(restored, X), outputs(estimator, X))
    for now, then in zip(restored.coefs_, estimator.coefs_, strict=True):
        np.testing.assert_array_equal(now, then)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predicts_from_a_read_only_memory_map(estimator_class, dtype, tmp_path):
    X, y = data_for(estimator_class, dtype=dtype)
    estimator = small(estimator_class, hidden_layer_sizes=(64, 64, 32)).fit(X, y)
    joblib.dump(estimator, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(mapped._state_["tiles"][0], np.memmap)
    assert not mapped._state_["tiles"][0].flags.writeable
    np.testing.assert_array_equal(outputs(mapped, X), outputs(estimator, X))


# ---- repeatability and dtypes ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("early_stopping", "preconditioner"), [("loo", "gram"), ("validation", "sketch"), (False, "none")]
)
def test_random_state_fixes_the_fit_to_the_bit(estimator_class, early_stopping, preconditioner):
    X, y = data_for(estimator_class)
    parameters = {"early_stopping": early_stopping, "preconditioner": preconditioner}
    first, second = (small(estimator_class, **parameters).fit(X, y) for _ in range(2))
    other = small(estimator_class, **parameters, random_state=3).fit(X, y)
    np.testing.assert_array_equal(outputs(first, X), outputs(second, X))
    assert first.loss_curve_ == second.loss_curve_
    assert not np.allclose(outputs(first, X), outputs(other, X))


@BOTH
def test_random_state_instance_moves_on(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, random_state=np.random.RandomState(0))
    first = outputs(estimator.fit(X, y), X)
    assert not np.allclose(first, outputs(estimator.fit(X, y), X))


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("preconditioner", ["gram", "sketch"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_computation_follows_the_dtype_of_X(estimator_class, dtype, preconditioner, alpha):
    X, y = data_for(estimator_class, dtype=dtype)
    estimator = small(estimator_class, preconditioner=preconditioner, alpha=alpha)
    estimator.fit(X, y if is_classifier(estimator) else y.astype(np.float64))
    assert outputs(estimator, X).dtype == dtype
    assert {array.dtype for array in [*estimator.coefs_, *estimator.intercepts_]} == {np.dtype(dtype)}


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "decision_function"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_classes_follow_the_dtype_of_X(method, n_classes, dtype):
    X, y = classification_data(n_classes=n_classes, dtype=dtype)
    estimator = small(SubquadMLPClassifier, init_scale=0.01, max_iter=1).fit(X, y)
    assert getattr(estimator, method)(X).dtype == dtype


@BOTH
@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool, object])
def test_other_dtypes_are_computed_in_double_precision(estimator_class, dtype):
    X, y = data_for(estimator_class)
    X = (X > 0).astype(dtype)
    assert outputs(small(estimator_class).fit(X, y), X).dtype == np.float64


@BOTH
def test_single_and_double_precision_agree(estimator_class):
    X, y = data_for(estimator_class)
    X, single = X.astype(np.float32).astype(np.float64), X.astype(np.float32)
    parameters = {"damping": 1.0, "cg_tol": 1e-5}
    in_double = outputs(fixed_steps(estimator_class, 3, **parameters).fit(X, y), X)
    in_single = outputs(fixed_steps(estimator_class, 3, **parameters).fit(single, y), single)
    np.testing.assert_allclose(in_single, in_double, atol=1e-3)


@BOTH
def test_a_second_fit_equals_a_first_one(estimator_class):
    X, y = data_for(estimator_class)
    refitted = small(estimator_class, hidden_layer_sizes=(16, 8, 8), early_stopping="loo").fit(X[:, :2], y)
    assert hasattr(refitted, "loo_curve_")
    refitted.set_params(hidden_layer_sizes=(64, 64), early_stopping="validation").fit(X, y)
    assert not hasattr(refitted, "loo_curve_")
    assert hasattr(refitted, "validation_scores_")
    refitted.set_params(early_stopping=False).fit(X, y)
    fresh = small(estimator_class, early_stopping=False).fit(X, y)
    assert not hasattr(refitted, "validation_scores_")
    assert set(vars(refitted)) == set(vars(fresh))
    np.testing.assert_array_equal(outputs(refitted, X), outputs(fresh, X))


@BOTH
def test_feature_names_are_forgotten_by_a_fit_without_them(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class).fit(pd.DataFrame(X, columns=list("abcde")), y).fit(X, y)
    assert not hasattr(estimator, "feature_names_in_")


# ---- fitted attributes -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("early_stopping", ["loo", "validation", False])
def test_fitted_attributes(estimator_class, early_stopping):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, density=(0.1, 0.3), early_stopping=early_stopping, random_state=2).fit(X, y)
    n_steps = estimator.n_iter_
    assert 1 <= n_steps <= 4
    assert 0 <= estimator.best_iter_ <= n_steps
    assert len(estimator.loss_curve_) == n_steps + 1
    assert len(estimator.n_cg_iter_) == n_steps
    assert all(isinstance(count, int) and count >= 1 for count in estimator.n_cg_iter_)
    assert hasattr(estimator, "loo_curve_") == (early_stopping == "loo")
    assert hasattr(estimator, "validation_scores_") == (early_stopping == "validation")
    if early_stopping == "loo":
        assert len(estimator.loo_curve_) == n_steps + 1
        assert estimator.best_iter_ == np.argmin(estimator.loo_curve_)
    elif early_stopping == "validation":
        # The search may look further than the fit on all rows goes.
        assert len(estimator.validation_scores_) >= n_steps + 1
        assert estimator.best_iter_ == np.argmax(estimator.validation_scores_)
    assert estimator.shifts_.shape == estimator.gains_.shape == estimator.densities_.shape == (2,)
    assert np.all(estimator.shifts_ > 0)
    assert np.all(estimator.gains_ > 0)
    assert np.all((estimator.densities_ > 0) & (estimator.densities_ < 0.6))
    assert estimator.densities_[0] < estimator.densities_[1]
    assert type(estimator.density_curve_) is np.ndarray
    assert estimator.density_curve_.shape == (n_steps + 1, 2)
    # As many rows as this are counted in both.
    np.testing.assert_allclose(estimator.density_curve_[estimator.best_iter_], estimator.densities_, atol=1e-3)
    assert len(estimator.rank_curve_) == n_steps + 1
    assert all(type(rank) is int for rank in estimator.rank_curve_)
    assert estimator.rank_curve_[0] == 0
    assert min(estimator.rank_curve_[1:]) >= 80
    if early_stopping is False:
        # Otherwise going back to the best iterate may take more.
        assert max(estimator.rank_curve_) == estimator.rank_
    assert estimator.damping_ > 0
    assert estimator.rank_ >= 80
    assert estimator.n_layers_ == 4
    assert estimator.n_outputs_ == (3 if is_classifier(estimator) else 1)
    assert estimator.out_activation_ == "identity"
    assert isinstance(estimator.stop_reason_, str)
    assert estimator.n_features_in_ == 5
    assert {"init", "forward", "jacobian", "solve", "update", "flush"} <= set(estimator.phase_times_)
    assert all(seconds >= 0 for seconds in estimator.phase_times_.values())
    if is_classifier(estimator):
        np.testing.assert_array_equal(estimator.classes_, [0, 1, 2])


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


def test_stops_once_the_targets_are_fitted_to_rounding():
    X, y = regression_data(n=10)
    estimator = small(SubquadMLPRegressor, early_stopping=False, max_iter=200, damping=0.1).fit(X, y)
    assert "fitted to rounding" in estimator.stop_reason_
    np.testing.assert_allclose(estimator.predict(X), y, atol=1e-10)


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


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 20])
def test_who_gets_a_constant_is_told_so(estimator_class, batch_size):
    X, y = data_for(estimator_class)
    y = np.random.default_rng(2).permutation(y)
    estimator = small(estimator_class, early_stopping="validation", batch_size=batch_size, damping=1e-3, max_iter=8)
    with pytest.warns(ConvergenceWarning, match="below that of a constant: the model predicts the mean of y"):
        estimator.fit(X, y)
    assert estimator.best_iter_ == 0
    constant = small(estimator_class, batch_size=batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        if estimator_class is SubquadMLPRegressor:
            constant.fit(X, np.full(len(X), 3.0))


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 40])
@pytest.mark.parametrize("early_stopping", ["validation", False])
@pytest.mark.parametrize("damping", [1e-9, 1e-12, 5e-324])
def test_a_damping_that_is_too_small_is_raised(estimator_class, damping, early_stopping, batch_size):
    X, y = data_for(estimator_class, n=200)
    parameters = {"early_stopping": early_stopping, "batch_size": batch_size, "max_iter": 8}
    estimator = small(estimator_class, damping=damping, **parameters).fit(X, y)
    assert estimator.best_iter_ > 0
    assert estimator.score(X, y) > 0.7


@BOTH
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"early_stopping": False, "damping": 1e20}, "lowers the training loss: .* damping, alpha or init_scale"),
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


def test_sure_predictions_are_not_made_surer_for_ever():
    # Every held-out row is predicted right from a few steps on: only the doubt ends the fit before max_iter.
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-1, 0.2, (60, 3)), rng.normal(1, 0.2, (60, 3))])
    y = np.repeat([0, 1], 60)
    estimator = small(SubquadMLPClassifier, loss="log_loss", early_stopping="validation", max_iter=30).fit(X, y)
    assert 1 <= estimator.best_iter_ < 15
    assert 0.9 < estimator.predict_proba(X).max(axis=1).mean() < 0.9999


def test_who_gets_a_constant_although_the_training_rows_are_fitted_is_told_so():
    X, y = regression_data(n=30)
    y = np.random.default_rng(3).permutation(y)
    parameters = {"early_stopping": "validation", "damping": 1e-3, "n_iter_no_change": 100, "max_iter": 100}
    with pytest.warns(ConvergenceWarning, match="No step lowers the early-stopping error"):
        estimator = small(SubquadMLPRegressor, hidden_layer_sizes=(256,), **parameters).fit(X, y)
    assert estimator.best_iter_ == 0
    assert "fitted to rounding" in estimator.stop_reason_ or "no damping" in estimator.stop_reason_


@pytest.mark.parametrize("early_stopping", ["validation", False])
def test_who_gets_mostly_inexact_steps_is_told_so_once(early_stopping):
    X, _ = regression_data(n=200)
    y = X[:, 0]
    hard = {"preconditioner": "none", "cg_tol": 1e-6, "max_cg_iter": 3, "damping": 1.0}
    estimator = small(SubquadMLPRegressor, early_stopping=early_stopping, **hard)
    with pytest.warns(ConvergenceWarning) as caught:
        estimator.fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]
    # Of the final fit, not of the search for the number of steps; every attempt took three iterations.
    n_solves = sum(estimator.n_cg_iter_) // 3
    told = str(caught[0].message)
    assert f"{n_solves} of {n_solves} inner solves did not reach cg_tol=1e-06 in max_cg_iter=3 iterations" in told
    for enough in ({"max_cg_iter": 500}, {"cg_tol": 0.9}, {"preconditioner": "gram"}, {"batch_size": 60}):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            clone(estimator).set_params(**enough).fit(X, y)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_targets_beyond_the_range_of_the_type_of_x_are_refused(loss):
    X, y = regression_data(dtype=np.float32)
    y = np.abs(y.astype(np.float64)) * 1e40
    with pytest.raises(ValueError, match=r"y holds .*e\+40, but predictions are float32 as X is"):
        small(SubquadMLPRegressor, loss=loss).fit(X, y)
    X = X.astype(np.float64)
    assert np.isfinite(small(SubquadMLPRegressor, loss=loss).fit(X, y).predict(X)).all()


def test_only_the_poisson_loss_asks_for_positive_targets():
    tags = [SubquadMLPRegressor(loss=loss).__sklearn_tags__() for loss in ("squared_error", "poisson")]
    assert [tag.target_tags.positive_only for tag in tags] == [False, True]
    assert all(tag.target_tags.multi_output for tag in tags)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_probabilities_in_single_precision_are_logarithms_of_the_probabilities(n_classes):
    X, y = classification_data(n_classes=n_classes, dtype=np.float32)
    estimator = small(SubquadMLPClassifier, loss="log_loss", early_stopping=False, damping=0.01, max_iter=9).fit(X, y)
    p, log_p = estimator.predict_proba(X), estimator.predict_log_proba(X)
    assert p.dtype == log_p.dtype == np.float32
    assert p.max() > 1 - 1e-5
    # A probability close to one is rounded by half its last bit.
    np.testing.assert_allclose(p, np.exp(log_p.astype(np.float64)), rtol=3e-7, atol=2**-24)


def test_weights_far_apart_leave_two_classes_two():
    X, y = classification_data(n_classes=2)
    weight = np.where(y == 0, 1e-17, 1.0)
    estimator = small(SubquadMLPClassifier, loss="log_loss").fit(X, y, sample_weight=weight)
    assert (estimator.predict_proba(X)[:, 0] < 1e-3).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_beyond_the_range_of_the_type_end_in_a_warning():
    X, y = data_for(SubquadMLPRegressor)
    X = X.astype(np.float32) * np.float32(1e30)
    estimator = small(SubquadMLPRegressor, standardize=False)
    with pytest.warns(ConvergenceWarning, match="leave standardize=True"):
        estimator.fit(X, y)
    assert np.isfinite(estimator.predict(X)).all()


WIDTHS = {1: (40,), 2: (40, 70), 3: (40, 70, 33)}


@BOTH
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("skip_connections", [True, False])
def test_shapes_of_weights(estimator_class, n_layers, skip_connections):
    X, y = data_for(estimator_class)
    k = 3 if estimator_class is SubquadMLPClassifier else 1
    estimator = small(
        estimator_class, hidden_layer_sizes=WIDTHS[n_layers], skip_connections=skip_connections, max_iter=1
    ).fit(X, y)
    widths = [0, *WIDTHS[n_layers], k]
    features = [5 if skip_connections or depth == 0 else 0 for depth in range(n_layers + 1)]
    shapes = [(m + d, m_next) for m, d, m_next in zip(widths[:-1], features, widths[1:], strict=True)]
    assert [coef.shape for coef in estimator.coefs_] == shapes
    assert [intercept.shape for intercept in estimator.intercepts_] == [(m,) for m in widths[1:]]
    assert estimator.n_layers_ == n_layers + 2


def forward_pass(estimator, X):
    """Outputs of a fitted network and its measured densities, from the public attributes and the scaling."""
    state = estimator._state_
    x = (X - state["input_mean"]) / state["input_scale"] / np.sqrt(X.shape[1])
    g, densities = x, []
    for depth in range(len(estimator.shifts_)):
        z = g @ estimator.coefs_[depth] + estimator.intercepts_[depth]
        shift, gain = estimator.shifts_[depth], estimator.gains_[depth]
        if estimator.sparsifier == "topk":
            n_active = round(estimator.density * z.shape[1])
            active = z >= np.sort(z, axis=1)[:, [-n_active]]
        else:
            active = z > shift
        h = np.where(active, gain * (z - shift), 0)
        densities.append(active.mean())
        g = np.hstack([h, x]) if estimator.skip_connections else h
    output = g @ estimator.coefs_[-1] + estimator.intercepts_[-1]
    return output * state["target_scale"] + state["target_mean"], densities


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("skip_connections", [True, False])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("n_outputs", [None, 3])
def test_attributes_describe_the_network(n_layers, skip_connections, sparsifier, n_outputs):
    X, y = regression_data(n_outputs=n_outputs)
    estimator = fixed_steps(
        SubquadMLPRegressor,
        2,
        hidden_layer_sizes=WIDTHS[n_layers],
        skip_connections=skip_connections,
        sparsifier=sparsifier,
        density=0.2,
        init_scale=0.2,
    ).fit(X, y)
    output, densities = forward_pass(estimator, X)
    np.testing.assert_allclose(estimator.predict(X).reshape(len(X), -1), output, atol=1e-10)
    np.testing.assert_allclose(estimator.densities_, densities, rtol=1e-12)


@pytest.mark.parametrize("standardize", [True, False])
def test_attributes_describe_the_network_of_a_classifier(standardize):
    X, y = classification_data()
    estimator = small(SubquadMLPClassifier, standardize=standardize, max_iter=2).fit(10 * X + 3, y)
    output, _ = forward_pass(estimator, 10 * X + 3)
    np.testing.assert_allclose(estimator.decision_function(10 * X + 3), output, atol=1e-10)


def test_standardising_inside_equals_standardising_outside():
    X, y = regression_data()
    X = X * [1, 10, 100, 0.1, 1] + 5
    inside = small(SubquadMLPRegressor).fit(X, y).predict(X)
    Z = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(small(SubquadMLPRegressor, standardize=False).fit(Z, y).predict(Z), inside, rtol=1e-6)


# ---- the path of steps and when it stops -----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("init_scale", ["auto", 1.0])
@pytest.mark.parametrize("damping", ["auto", 1e-3])
def test_loss_never_rises(estimator_class, init_scale, damping):
    X, y = data_for(estimator_class)
    estimator = fixed_steps(estimator_class, 8, init_scale=init_scale, damping=damping).fit(X, y)
    assert len(estimator.loss_curve_) > 4
    assert np.all(np.diff(estimator.loss_curve_) < 0)


@pytest.mark.parametrize("n_outputs", [None, 2])
def test_loss_curve_is_the_mean_square_of_scaled_residuals(n_outputs):
    X, y = regression_data(n_outputs=n_outputs)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(X))
    estimator = fixed_steps(SubquadMLPRegressor, 3).fit(X, y, sample_weight=weights)
    residual = (y - estimator.predict(X)).reshape(len(X), -1) / estimator._state_["target_scale"]
    assert estimator.loss_curve_[-1] == pytest.approx(np.average((residual**2).mean(axis=1), weights=weights))


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_leave_one_out_returns_the_best_iterate(alpha):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:150], y[:150]
    stopped = small(SubquadMLPRegressor, early_stopping="loo", max_iter=20, alpha=alpha).fit(X, y)
    assert 1 <= stopped.best_iter_ < stopped.n_iter_
    direct = fixed_steps(SubquadMLPRegressor, stopped.best_iter_, alpha=alpha).fit(X, y)
    np.testing.assert_allclose(stopped.predict(X), direct.predict(X), rtol=1e-8)


def test_leave_one_out_returns_the_best_iterate_of_a_classifier():
    X, y = load_iris(return_X_y=True)
    y = np.where(np.random.default_rng(0).random(len(y)) < 0.3, 0, y)
    stopped = small(SubquadMLPClassifier, early_stopping="loo", max_iter=20).fit(X, y)
    assert 1 <= stopped.best_iter_ < stopped.n_iter_
    direct = fixed_steps(SubquadMLPClassifier, stopped.best_iter_).fit(X, y)
    np.testing.assert_allclose(stopped.decision_function(X), direct.decision_function(X), atol=1e-8)


@BOTH
def test_validation_takes_the_steps_found_on_all_rows(estimator_class):
    X, y = data_for(estimator_class)
    stopped = small(estimator_class, early_stopping="validation", max_iter=20, random_state=2)
    stopped.fit(X, y)
    assert stopped.n_iter_ == stopped.best_iter_ >= 1
    assert len(stopped.loss_curve_) == stopped.best_iter_ + 1 < len(stopped.validation_scores_)
    direct = fixed_steps(estimator_class, stopped.best_iter_, random_state=2).fit(X, y)
    np.testing.assert_array_equal(outputs(stopped, X), outputs(direct, X))
    assert stopped.loss_curve_ == direct.loss_curve_
    np.testing.assert_array_equal(stopped.density_curve_, direct.density_curve_)
    assert stopped.rank_curve_ == direct.rank_curve_


@pytest.mark.parametrize(("n", "attribute"), [(99, "loo_curve_"), (100, "validation_scores_")])
def test_auto_holds_rows_out_where_there_are_enough(n, attribute):
    X, y = regression_data(n=n)
    assert hasattr(small(SubquadMLPRegressor, max_iter=1).fit(X, y), attribute)


def test_auto_counts_only_rows_of_positive_weight():
    X, y = regression_data(n=110)
    weights = np.r_[np.ones(90), np.zeros(20)]
    weighted = small(SubquadMLPRegressor, max_iter=1).fit(X, y, sample_weight=weights)
    assert hasattr(weighted, "loo_curve_") == hasattr(small(SubquadMLPRegressor).fit(X[:90], y[:90]), "loo_curve_")


def flat_weights(state):
    arrays = [*state["tiles"], *state["input_weights"], *state["output_weights"]]
    return np.concatenate([array.ravel() for array in arrays if array is not None])


def initial_network(estimator, X):
    """The network that `fit` starts from on X, and its inputs."""
    ones = np.ones(len(X))
    x = InputScaling.fit(X, ones, estimator.standardize).transform(X)
    seed = np.random.RandomState(estimator.random_state).randint(np.iinfo(np.int32).max)
    architecture = dataclasses.replace(estimator._architecture(), init_scale=estimator.init_scale_)
    return Network.initialise(architecture, x, ones, 1, seed), x


def distance_from_start(estimator, X):
    network, _ = initial_network(estimator, X)
    return np.linalg.norm(flat_weights(estimator._state_) - flat_weights(network.to_state()))


def test_alpha_pulls_towards_the_start():
    X, y = regression_data()
    fits = [fixed_steps(SubquadMLPRegressor, 10, alpha=alpha).fit(X, y) for alpha in (0.0, 0.1, 1.0, 10.0, 1e6)]
    losses = [fit.loss_curve_[-1] for fit in fits]
    distances = [distance_from_start(fit, X) for fit in fits]
    assert np.all(np.diff(losses) > 0)
    assert np.all(np.diff(distances) < 0)
    assert losses[-1] == pytest.approx(fits[-1].loss_curve_[0], rel=1e-4)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_penalised_loss_never_rises(loss):
    X, y = regression_data()
    y = np.exp(y) if loss == "poisson" else y
    alpha, objectives, ones = 0.3, [], np.ones(len(X))
    network, x = initial_network(small(SubquadMLPRegressor).fit(X, y), X)
    activations = network.forward(x)
    factor = make_loss(loss, y[:, None], ones).factor(activations.output)
    jacobian = Jacobian(network, activations, ones, np.eye(1), factor)
    for n_steps in range(1, 7):
        estimator = fixed_steps(SubquadMLPRegressor, n_steps, alpha=alpha, loss=loss).fit(X, y)
        penalty = alpha * jacobian.mean_diagonal() * distance_from_start(estimator, X) ** 2
        objectives.append(len(X) * estimator.loss_curve_[-1] + penalty)
    assert len(X) * estimator.loss_curve_[0] > objectives[0]
    assert np.all(np.diff(objectives) < 0)


# ---- the other losses ------------------------------------------------------------------------------------

OTHER_LOSSES = pytest.mark.parametrize(
    ("estimator_class", "loss", "k"),
    [
        (SubquadMLPClassifier, "log_loss", 2),
        (SubquadMLPClassifier, "log_loss", 4),
        (SubquadMLPRegressor, "poisson", None),
        (SubquadMLPRegressor, "poisson", 3),
    ],
    ids=["log_loss-2", "log_loss-4", "poisson", "poisson-3"],
)


def data_for_loss(loss, k, n=80, dtype=np.float64):
    """Rows, and labels of k classes that overlap, or k columns of counts."""
    rng = np.random.default_rng(1)
    if loss == "poisson":
        X, Y = regression_data(n, n_outputs=k, dtype=dtype)
        return X, rng.poisson(np.exp(np.clip(Y, -2, 3)))
    X, y = classification_data(n, n_classes=k, dtype=dtype)
    return X, np.where(rng.random(n) < 0.1, rng.integers(k, size=n), y)


def raw_outputs(estimator, X):
    """Logarithms of what is predicted, to a constant for classes."""
    return estimator.decision_function(X) if is_classifier(estimator) else np.log(estimator.predict(X))


def mean_loss(estimator, X, y, sample_weight=None):
    """What `loss_curve_` is meant to hold, by scikit-learn's metrics."""
    if is_classifier(estimator):
        return log_loss(y, estimator.predict_proba(X), sample_weight=sample_weight)
    Y, predictions = y.reshape(len(X), -1), estimator.predict(X).reshape(len(X), -1)
    columns = zip(Y.T, predictions.T, strict=True)
    return np.mean([mean_poisson_deviance(*column, sample_weight=sample_weight) for column in columns])


@OTHER_LOSSES
@pytest.mark.parametrize("init_scale", ["auto", 1.0])
@pytest.mark.parametrize("damping", ["auto", 1e-3])
def test_other_losses_never_rise(estimator_class, loss, k, init_scale, damping):
    X, y = data_for_loss(loss, k)
    estimator = fixed_steps(estimator_class, 6, loss=loss, init_scale=init_scale, damping=damping).fit(X, y)
    assert estimator.n_iter_ == 6
    assert np.all(np.diff(estimator.loss_curve_) < 0)


@OTHER_LOSSES
def test_loss_curve_is_the_metric_of_the_loss(estimator_class, loss, k):
    X, y = data_for_loss(loss, k)
    weights = np.random.default_rng(2).uniform(0.5, 2, len(X))
    estimator = fixed_steps(estimator_class, 3, loss=loss).fit(X, y, sample_weight=weights)
    assert estimator.loss_curve_[-1] == pytest.approx(mean_loss(estimator, X, y, weights))
    assert estimator.out_activation_ == {2: "logistic", 4: "softmax"}.get(k, "exp")
    assert estimator.n_outputs_ == {2: 1, None: 1}.get(k, k)


@OTHER_LOSSES
@pytest.mark.parametrize("early_stopping", ["validation", "auto"])
def test_other_losses_take_the_steps_found_on_held_out_rows(estimator_class, loss, k, early_stopping):
    X, y = data_for_loss(loss, k, n=150)
    parameters = {"loss": loss, "early_stopping": early_stopping}
    stopped = small(estimator_class, **parameters, max_iter=20).fit(X, y)
    assert stopped.n_iter_ == stopped.best_iter_ == np.argmax(stopped.validation_scores_) >= 1
    direct = fixed_steps(estimator_class, stopped.best_iter_, loss=loss).fit(X, y)
    np.testing.assert_array_equal(raw_outputs(stopped, X), raw_outputs(direct, X))


@pytest.mark.parametrize("load", [load_breast_cancer, load_digits])
def test_log_loss_beats_the_prior_on_new_rows(load):
    X, y = load(return_X_y=True)
    train, test = slice(300), slice(300, None)
    model = small(SubquadMLPClassifier, loss="log_loss", max_iter=6).fit(X[train], y[train])
    prior = np.tile(np.bincount(y[train]) / 300, (len(y[test]), 1))
    assert log_loss(y[test], model.predict_proba(X[test])) < 0.4 * log_loss(y[test], prior)


@pytest.mark.parametrize("n_outputs", [None, 3])
def test_poisson_beats_the_mean_on_new_rows(n_outputs):
    X, y = data_for_loss("poisson", n_outputs, n=500)
    model = small(SubquadMLPRegressor, loss="poisson", max_iter=10).fit(X[:300], y[:300])
    predictions, mean = model.predict(X[300:]), np.broadcast_to(y[:300].mean(axis=0), y[300:].shape)
    assert predictions.shape == y[300:].shape
    assert np.all(predictions > 0)
    deviances = [mean_poisson_deviance(y[300:].ravel(), which.ravel()) for which in (predictions, mean)]
    assert deviances[0] < 0.8 * deviances[1]


@OTHER_LOSSES
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_integer_weights_are_repeated_rows_to_other_losses(estimator_class, loss, k, alpha):
    X, y = data_for_loss(loss, k, n=40)
    weights = np.random.default_rng(1).integers(1, 4, size=40)
    parameters = {"loss": loss, "alpha": alpha, "cg_tol": 1e-10, "max_cg_iter": 1000}
    weighted = fixed_steps(estimator_class, 4, **parameters).fit(X, y, sample_weight=weights)
    repeated = fixed_steps(estimator_class, 4, **parameters)
    repeated.fit(np.repeat(X, weights, axis=0), np.repeat(y, weights, axis=0))
    np.testing.assert_allclose(raw_outputs(weighted, X), raw_outputs(repeated, X), atol=1e-6)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-6)


@OTHER_LOSSES
def test_rows_of_no_weight_are_not_looked_at_by_other_losses(estimator_class, loss, k):
    X, y = data_for_loss(loss, k)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 2.0], size=len(X))
    kept = weights > 0
    X[~kept] *= 1000
    if loss == "poisson":
        y[~kept] = -1
    weighted = small(estimator_class, loss=loss).fit(X, y, sample_weight=weights)
    removed = small(estimator_class, loss=loss).fit(X[kept], y[kept], sample_weight=weights[kept])
    np.testing.assert_array_equal(raw_outputs(weighted, X[kept]), raw_outputs(removed, X[kept]))


@OTHER_LOSSES
def test_single_and_double_precision_agree_on_other_losses(estimator_class, loss, k):
    X, y = data_for_loss(loss, k)
    single = X.astype(np.float32)
    parameters = {"loss": loss, "damping": 1.0, "cg_tol": 1e-5, "max_cg_iter": 200}
    in_double = raw_outputs(fixed_steps(estimator_class, 3, **parameters).fit(single.astype(np.float64), y), single)
    in_single = raw_outputs(fixed_steps(estimator_class, 3, **parameters).fit(single, y), single)
    assert in_single.dtype == np.float32
    np.testing.assert_allclose(in_single, in_double, atol=1e-3)


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1, 1e4, 1e18])
def test_fitted_probabilities_agree_with_scores_and_labels(k, dtype, factor):
    X, y = data_for_loss("log_loss", k, dtype=dtype)
    labels = np.array([f"class {c}" for c in range(k)])
    estimator = fixed_steps(SubquadMLPClassifier, 3, loss="log_loss").fit(X, labels[y])
    X = X * dtype(factor)
    probabilities, logarithms = estimator.predict_proba(X), estimator.predict_log_proba(X)
    scores = estimator.decision_function(X)
    assert probabilities.dtype == logarithms.dtype == scores.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=10 * eps)
    np.testing.assert_allclose(np.exp(logarithms), probabilities, rtol=1e-4, atol=10 * eps)
    assert np.isfinite(logarithms).all()
    np.testing.assert_array_equal(estimator.classes_, labels)
    np.testing.assert_array_equal(estimator.predict(X), labels[probabilities.argmax(axis=1)])
    if factor == 1:
        # Log odds of two classes; of more, logarithms to a constant per row.
        expected = logit(probabilities[:, 1]) if k == 2 else logarithms - logarithms.mean(axis=1, keepdims=True)
        actual = scores if k == 2 else scores - scores.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(actual, expected, atol=1e-3 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [10, 1e4])
def test_counts_far_from_the_training_rows_are_positive_and_finite(dtype, factor):
    X, y = data_for_loss("poisson", None, dtype=dtype)
    predictions = fixed_steps(SubquadMLPRegressor, 3, loss="poisson").fit(X, y).predict(X * dtype(factor))
    assert predictions.dtype == dtype
    assert np.all((predictions > 0) & np.isfinite(predictions))


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("n_outputs", [None, 3])
def test_counts_of_any_unit(unit, n_outputs):
    X, y = data_for_loss("poisson", n_outputs)
    parameters = {"loss": "poisson", "cg_tol": 1e-10}
    expected = fixed_steps(SubquadMLPRegressor, 3, **parameters).fit(X, y).predict(X)
    scaled = fixed_steps(SubquadMLPRegressor, 3, **parameters).fit(X, y * unit).predict(X)
    np.testing.assert_allclose(scaled / unit, expected, rtol=1e-6)


@pytest.mark.parametrize("skip_connections", [True, False])
def test_attributes_describe_the_network_of_counts(skip_connections):
    X, y = data_for_loss("poisson", 3)
    estimator = fixed_steps(SubquadMLPRegressor, 2, loss="poisson", skip_connections=skip_connections).fit(X, y)
    output, _ = forward_pass(estimator, X)
    np.testing.assert_allclose(np.log(estimator.predict(X)), output, atol=1e-10)


@OTHER_LOSSES
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("preconditioner", ["gram", "sketch", "none"])
def test_result_of_other_losses_does_not_depend_on_the_preconditioner(
    estimator_class, loss, k, sparsifier, preconditioner
):
    X, y = data_for_loss(loss, k, n=50)
    parameters = {"loss": loss, "sparsifier": sparsifier, "cg_tol": 1e-8, "max_cg_iter": 1000}
    usual = fixed_steps(estimator_class, 3, **parameters).fit(X, y)
    other = fixed_steps(estimator_class, 3, preconditioner=preconditioner, **parameters).fit(X, y)
    np.testing.assert_allclose(raw_outputs(other, X), raw_outputs(usual, X), atol=1e-4)


@OTHER_LOSSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_losses_survive_pickling_and_threads(estimator_class, loss, k, dtype):
    X, y = data_for_loss(loss, k, dtype=dtype)
    estimator = fixed_steps(estimator_class, 3, loss=loss, n_jobs=1, random_state=5).fit(X, y)
    expected = raw_outputs(estimator, X)
    np.testing.assert_array_equal(raw_outputs(pickle.loads(pickle.dumps(estimator)), X), expected)
    np.testing.assert_array_equal(raw_outputs(clone(estimator).set_params(n_jobs=2).fit(X, y), X), expected)
    other = clone(estimator).set_params(random_state=6).fit(X, y)
    assert not np.allclose(raw_outputs(other, X), expected)


# ---- every parameter does something ----------------------------------------------------------------------

# Parameter, values of others, two values of it, and what has to differ between the fits.
EFFECTS = [
    ("hidden_layer_sizes", {}, (64, 64), (64, 32), "outputs"),
    ("sparsifier", {}, "shifted_relu", "topk", "outputs"),
    ("density", {}, "auto", 0.1, "densities_"),
    ("density", {}, (0.1, 0.3), (0.3, 0.1), "densities_"),
    ("skip_connections", {}, True, False, "outputs"),
    ("init", {}, "axis_aligned", "gaussian", "outputs"),
    ("init_scale", {}, "auto", 1.0, "outputs"),
    ("damping", {}, "auto", 5.0, "damping_"),
    ("alpha", {}, 0.0, 1.0, "outputs"),
    ("max_rank", {}, 0, 1000, "rank_"),
    ("preconditioner", {}, "gram", "none", "n_cg_iter_"),
    ("preconditioner", {}, "gram", "sketch", "n_cg_iter_"),
    ("sketch", {"preconditioner": "sketch"}, "tensor_srht", "tensor_sketch", "outputs"),
    ("sketch_size", {"preconditioner": "sketch"}, 10, 1000, "n_cg_iter_"),
    ("cg_tol", {"preconditioner": "none"}, 1e-1, 1e-4, "n_cg_iter_"),
    ("max_cg_iter", {"preconditioner": "none"}, 2, 50, "n_cg_iter_"),
    ("max_iter", {}, 4, 2, "n_iter_"),
    ("batch_size", {"max_iter": 2, "early_stopping": False}, 40, 20, "n_cg_iter_"),
    ("tol", {"max_iter": 6, "early_stopping": False}, 1e-3, 0.99, "n_iter_"),
    ("early_stopping", {}, "loo", "validation", "loo_curve_"),
    ("early_stopping", {}, False, "validation", "validation_scores_"),
    ("validation_fraction", {"early_stopping": "validation"}, 0.1, 0.4, "validation_scores_"),
    ("scoring", {"early_stopping": "validation"}, "loss", None, "validation_scores_"),
    ("n_iter_no_change", {"tol": 0.9, "early_stopping": False}, 1, 3, "n_iter_"),
    ("feature_metric", {"early_stopping": "validation"}, "learned", None, "phase_times_"),
    ("standardize", {}, True, False, "outputs"),
    ("random_state", {}, 0, 1, "outputs"),
]


@BOTH
@pytest.mark.parametrize(("parameter", "others", "one", "another", "changes"), EFFECTS)
def test_every_parameter_has_an_effect(estimator_class, parameter, others, one, another, changes):
    X, y = data_for(estimator_class)
    X = 2 * X + 1
    seen = []
    for value in (one, another):
        estimator = small(estimator_class, **others | {parameter: value}).fit(X, y)
        seen.append(outputs(estimator, X) if changes == "outputs" else getattr(estimator, changes, None))
    assert not np.array_equal(*seen)


@BOTH
@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_prints_a_line_a_step(estimator_class, verbose, capsys):
    X, y = data_for(estimator_class)
    small(estimator_class, verbose=verbose, early_stopping=False).fit(X, y)
    # A title, the start, four steps and the reason to stop.
    assert len(capsys.readouterr().out.splitlines()) == 7 * verbose


@pytest.mark.parametrize("route", ["auto", "scatter", "blas", "strassen"])
def test_matmul_chooses_how_weights_are_updated(route, monkeypatch):
    routes, add_product = [], PackedMatrix.add_product

    def spy(self, U, G, route):
        routes.append(route)
        return add_product(self, U, G, route)

    monkeypatch.setattr(PackedMatrix, "add_product", spy)
    X, y = regression_data()
    estimator = small(SubquadMLPRegressor, matmul=route).fit(X, y)
    # "auto" is decided by measured costs.
    assert routes
    assert set(routes) <= (set(ROUTES) if route == "auto" else {route})
    monkeypatch.undo()
    np.testing.assert_allclose(small(SubquadMLPRegressor).fit(X, y).predict(X), estimator.predict(X), rtol=1e-6)


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_n_jobs_is_the_number_of_threads(n_jobs, monkeypatch):
    counts, pool = [1], threads.ThreadPoolExecutor

    def spy(max_workers, **kwargs):
        counts.append(max_workers)
        return pool(max_workers, **kwargs)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", spy)
    X, y = regression_data()
    small(SubquadMLPRegressor, n_jobs=n_jobs, max_iter=1).fit(X, y).predict(X)
    assert max(counts) == n_jobs


@BOTH
def test_no_parameter_is_missing_from_these_tests(estimator_class):
    tested = {row[0] for row in EFFECTS} | {"loss", "verbose", "matmul", "n_jobs"}
    elsewhere = {"warm_start"} | ({"class_weight"} if estimator_class is SubquadMLPClassifier else set())
    assert tested | elsewhere == set(estimator_class().get_params())


@BOTH
@pytest.mark.parametrize("max_rank", [0, 100, 10_000])
def test_result_does_not_depend_on_when_weights_are_flushed(estimator_class, max_rank):
    X, y = data_for(estimator_class)
    lazy = fixed_steps(estimator_class, 3, max_rank=max_rank, cg_tol=1e-6).fit(X, y)
    usual = fixed_steps(estimator_class, 3, cg_tol=1e-6).fit(X, y)
    np.testing.assert_allclose(outputs(lazy, X), outputs(usual, X), atol=1e-8)


@pytest.mark.parametrize("n_outputs", [None, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_result_does_not_depend_on_the_preconditioner(n_outputs, alpha):
    X, Y = regression_data(n=50, n_outputs=n_outputs)
    predictions = [
        fixed_steps(
            SubquadMLPRegressor,
            3,
            preconditioner=preconditioner,
            sketch=sketch,
            sketch_size=sketch_size,
            alpha=alpha,
            cg_tol=1e-6,
            max_cg_iter=1000,
        )
        .fit(X, Y)
        .predict(X)
        for preconditioner, sketch, sketch_size in [
            ("auto", "tensor_srht", "auto"),
            ("gram", "tensor_srht", "auto"),
            ("none", "tensor_srht", "auto"),
            ("sketch", "tensor_srht", "auto"),
            ("sketch", "tensor_srht", 20),
            ("sketch", "tensor_sketch", "auto"),
            ("sketch", "tensor_sketch", 20),
        ]
    ]
    for prediction in predictions[1:]:
        np.testing.assert_allclose(prediction, predictions[0], atol=1e-4)


# ---- the start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(64,), (9,), (1,), (64, 64), (65, 33), (8, 129), (5, 1)])
@pytest.mark.parametrize("skip_connections", [True, False])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("init_scale", [0.3, 1.0])
def test_large_initial_output_weights_start_at_zero(widths, skip_connections, sparsifier, init_scale):
    if sparsifier == "topk" and widths[-1] % 2:
        widths = (*widths[:-1], widths[-1] + 1)  # the neuron without a partner may split a pair, see Architecture
    x = np.random.default_rng(0).standard_normal((30, 4))
    architecture = Architecture(
        widths=widths,
        densities=(0.25,) * len(widths),
        sparsifier=sparsifier,
        skip_connections=skip_connections,
        init_scale=init_scale,
    )
    network = Network.initialise(architecture, x, np.ones(30), 3, seed=0)
    np.testing.assert_allclose(network.forward(x).output, 0, atol=1e-13)


SMALL_INIT_SCALE = 0.05 * np.sqrt(2048 / 200)


@BOTH
@pytest.mark.parametrize(
    ("n_independent", "n_copies", "standardize", "expected"),
    [
        (5, 1, True, SMALL_INIT_SCALE),
        # Many features, but few directions.
        (5, 20, True, SMALL_INIT_SCALE),
        (40, 1, True, 1.0),
        # exp of the entropy of 14 equal shares is 14 = 10 * 2^share.
        (14, 1, True, SMALL_INIT_SCALE ** (1 - np.log2(1.4))),
        (14, 2, True, SMALL_INIT_SCALE ** (1 - np.log2(1.4))),
        # As they come, one of them has all the variance.
        (40, 1, False, SMALL_INIT_SCALE),
    ],
)
def test_automatic_initial_scale_follows_the_effective_dimension(
    estimator_class, n_independent, n_copies, standardize, expected
):
    rng = np.random.default_rng(0)
    # Exactly orthogonal columns of mean zero and equal variance.
    X = np.linalg.qr(np.column_stack([np.ones(300), rng.standard_normal((300, n_independent))]))[0][:, 1:]
    X = np.tile(X, n_copies) * 300**0.5
    if not standardize:
        X[:, 0] *= 100
    y = np.sign(X[:, 0])
    settings = {"hidden_layer_sizes": (20, 200), "max_iter": 1, "early_stopping": False, "standardize": standardize}
    estimator = small(estimator_class, **settings).fit(X, y)
    # No deviation exceeds the cap of six, so that scaling changes nothing.
    assert np.abs(X[:, 1:]).max() < 6
    assert estimator.init_scale_ == pytest.approx(expected, rel=1e-6 if standardize else 0.01)
    assert small(estimator_class, **settings, init_scale=0.2).fit(X, y).init_scale_ == 0.2


@pytest.mark.parametrize(("n_features", "numbers"), [(40, 0), (40, 1 << 23), (3000, 1 << 18)])
def test_the_effective_dimension_is_counted_on_some_of_many_rows(n_features, numbers, monkeypatch):
    monkeypatch.setattr("sklearn_subquad._fit.train._DIMENSION_NUMBERS", numbers)
    seen = []

    def counting(x, sample_weight):
        seen.append(x.shape)
        return effective_dimension(x, sample_weight)

    monkeypatch.setattr("sklearn_subquad._fit.train.effective_dimension", counting)
    X = np.random.default_rng(0).standard_normal((1500, n_features), np.float32)
    settings = {"hidden_layer_sizes": (20, 200), "max_iter": 1, "early_stopping": False}
    assert small(SubquadMLPRegressor, **settings).fit(X, X[:, 0]).init_scale_ == 1.0
    assert seen == [({0: 64, 1 << 18: 87, 1 << 23: 1024}[numbers], n_features)]


@BOTH
@pytest.mark.parametrize(("n_rows", "curve"), [(99, "loo_curve_"), (100, "validation_scores_")])
def test_automatic_early_stopping_follows_the_number_of_rows(estimator_class, n_rows, curve):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 3))
    estimator = small(estimator_class, early_stopping="auto", max_iter=2).fit(X, np.sign(X[:, 0]))
    assert [name for name in ("loo_curve_", "validation_scores_") if hasattr(estimator, name)] == [curve]


@pytest.mark.parametrize("init_scale", [0.05, 0.2])
def test_small_initial_output_weights_start_at_their_scale(init_scale):
    x = np.random.default_rng(0).standard_normal((200, 4))
    architecture = Architecture(widths=(512, 512), densities=(0.25, 0.25), init_scale=init_scale)
    network = Network.initialise(architecture, x, np.ones(200), 50, seed=0)
    assert network.forward(x).output.std() == pytest.approx(init_scale, rel=0.2)


@BOTH
def test_mirrored_networks_learn(estimator_class):
    X, y = data_for(estimator_class)
    assert small(estimator_class, init_scale=1.0, hidden_layer_sizes=(65, 63), max_iter=8).fit(X, y).score(X, y) > 0.5


# ---- sample weights --------------------------------------------------------------------------------------


@BOTH
def test_weights_that_sum_to_one_are_brought_to_mean_one(estimator_class):
    X, y = data_for(estimator_class)
    plain = small(estimator_class).fit(X, y)
    normalised = small(estimator_class).fit(X, y, sample_weight=np.full(len(X), 1 / len(X)))
    assert normalised.n_iter_ == plain.n_iter_
    np.testing.assert_allclose(outputs(normalised, X), outputs(plain, X), atol=1e-6)


@BOTH
@pytest.mark.parametrize("early_stopping", ["loo", False])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
def test_integer_weights_are_repeated_rows(estimator_class, early_stopping, alpha, sparsifier):
    X, y = data_for(estimator_class, n=40)
    weights = np.random.default_rng(1).integers(1, 4, size=40)
    parameters = {"early_stopping": early_stopping, "alpha": alpha, "sparsifier": sparsifier, "cg_tol": 1e-8}
    weighted = small(estimator_class, **parameters).fit(X, y, sample_weight=weights)
    repeated = small(estimator_class, **parameters).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    assert weighted.n_iter_ == repeated.n_iter_
    assert weighted.best_iter_ == repeated.best_iter_
    np.testing.assert_allclose(outputs(weighted, X), outputs(repeated, X), atol=1e-6)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-6)
    if early_stopping == "loo":
        np.testing.assert_allclose(weighted.loo_curve_, repeated.loo_curve_, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("early_stopping", ["loo", "validation", False])
def test_zero_weights_remove_rows(estimator_class, early_stopping):
    X, y = data_for(estimator_class)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 2.0], size=len(X))
    # Rows without weight must not be looked at, not even by the scaling.
    X[weights == 0] *= 1000
    kept = weights > 0
    weighted = small(estimator_class, early_stopping=early_stopping).fit(X, y, sample_weight=weights)
    removed = small(estimator_class, early_stopping=early_stopping).fit(X[kept], y[kept], sample_weight=weights[kept])
    np.testing.assert_array_equal(outputs(weighted, X[kept]), outputs(removed, X[kept]))
    np.testing.assert_array_equal(weighted.densities_, removed.densities_)


@BOTH
@pytest.mark.parametrize("weight", [None, 1, 1.0, np.ones(80, dtype=np.int64), [1] * 80], ids=repr)
def test_unit_weights_change_nothing(estimator_class, weight):
    X, y = data_for(estimator_class)
    weighted = small(estimator_class).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(outputs(weighted, X), outputs(small(estimator_class).fit(X, y), X))


@BOTH
def test_heavier_rows_are_fitted_better(estimator_class):
    X, y = data_for(estimator_class)
    heavy = np.arange(80) < 20
    plain = fixed_steps(estimator_class, 3, damping=0.3).fit(X, y)
    weighted = fixed_steps(estimator_class, 3, damping=0.3).fit(X, y, sample_weight=np.where(heavy, 100.0, 1.0))
    encoded = np.eye(3)[y] if is_classifier(plain) else y
    errors = [np.mean((outputs(fit, X) - encoded)[heavy] ** 2) for fit in (weighted, plain)]
    assert errors[0] < 0.8 * errors[1]


def test_a_class_of_no_weight_stays_a_class_and_is_not_predicted():
    X, y = classification_data()
    estimator = small(SubquadMLPClassifier).fit(X, y, sample_weight=(y != 1).astype(float))
    np.testing.assert_array_equal(estimator.classes_, [0, 1, 2])
    assert 1 not in estimator.predict(X)


# ---- several outputs and classes -------------------------------------------------------------------------


@pytest.mark.parametrize("n_outputs", [2, 5])
def test_regression_of_several_outputs(n_outputs):
    X, Y = regression_data(n_outputs=n_outputs)
    estimator = small(SubquadMLPRegressor, early_stopping=False, max_iter=8).fit(X, Y)
    assert estimator.predict(X).shape == (80, n_outputs)
    assert estimator.n_outputs_ == n_outputs
    assert estimator.score(X, Y) > 0.8


def test_outputs_are_scaled_one_by_one():
    X, Y = regression_data(n_outputs=3)
    units = np.array([1.0, 1e6, 1e-6])
    scaled = small(SubquadMLPRegressor).fit(X, Y * units + 7 * units).predict(X)
    np.testing.assert_allclose(scaled, (small(SubquadMLPRegressor).fit(X, Y).predict(X) + 7) * units, rtol=1e-6)


def test_one_column_of_targets_is_one_output():
    X, y = regression_data()
    expected = small(SubquadMLPRegressor).fit(X, y).predict(X)
    with pytest.warns(UserWarning, match="column-vector"):
        predicted = small(SubquadMLPRegressor).fit(X, y[:, None]).predict(X)
    np.testing.assert_array_equal(predicted, expected)


def test_thirty_classes():
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((30, 8))
    y = np.arange(150) % 30
    X = centres[y] + 0.3 * rng.standard_normal((150, 8))
    estimator = small(SubquadMLPClassifier, early_stopping=False).fit(X, y)
    assert estimator.decision_function(X).shape == estimator.predict_proba(X).shape == (150, 30)
    assert estimator.n_outputs_ == 30
    assert estimator.score(X, y) > 0.95


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "labels",
    [np.array(["b", "aa", "c"]), np.array(["x", "y", "z"], dtype=object), np.array([10, -3, 7])],
    ids=["str", "object", "int"],
)
def test_labels_of_any_kind(n_classes, labels):
    X, y = classification_data(n_classes=n_classes)
    estimator = small(SubquadMLPClassifier, hidden_layer_sizes=(256, 256)).fit(X, labels[y])
    assert list(estimator.classes_) == sorted(labels[:n_classes])
    assert estimator.predict(X).dtype == estimator.classes_.dtype
    assert estimator.score(X, labels[y]) > 0.8


def test_boolean_labels():
    X, y = classification_data(n_classes=2)
    assert small(SubquadMLPClassifier).fit(X, y == 1).predict(X).dtype == bool


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_probabilities_and_labels_agree(n_classes, dtype):
    X, y = classification_data(n_classes=n_classes, dtype=dtype)
    estimator = small(SubquadMLPClassifier).fit(X, y)
    X = np.vstack([X, 3 * X])
    scores, probabilities = estimator.decision_function(X), estimator.predict_proba(X)
    assert scores.shape == ((160,) if n_classes == 2 else (160, n_classes))
    by_score = (scores > 0).astype(int) if n_classes == 2 else scores.argmax(axis=1)
    np.testing.assert_array_equal(estimator.predict(X), by_score)
    np.testing.assert_array_equal(estimator.predict(X), probabilities.argmax(axis=1))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=10 * np.finfo(dtype).eps)
    assert np.all((probabilities >= 0) & (probabilities <= 1))
    # A probability close to one is rounded by half its last bit.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(np.exp(estimator.predict_log_proba(X)), probabilities, rtol=20 * eps, atol=eps)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logarithms_of_probabilities_that_are_not_calibrated_may_be_infinite(n_classes):
    X, y = classification_data(n_classes=n_classes)
    estimator = small(SubquadMLPClassifier, early_stopping=False).fit(X, y)
    with np.errstate(divide="ignore"):
        expected = np.log(estimator.predict_proba(3 * X))
    np.testing.assert_array_equal(estimator.predict_log_proba(3 * X), expected)
    assert np.isneginf(expected).any()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1e4, 1e8, 1e18])
def test_probabilities_far_from_the_training_rows(n_classes, dtype, factor):
    X, y = classification_data(n_classes=n_classes, dtype=dtype)
    estimator = small(SubquadMLPClassifier).fit(X, y)
    far = X * dtype(factor)
    probabilities = estimator.predict_proba(far)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=10 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(estimator.predict(far), probabilities.argmax(axis=1))


def nearest_probabilities(row):
    """The projection's threshold found by bisection."""
    threshold = brentq(lambda t: np.maximum(row - t, 0).sum() - 1, row.min() - 1, row.max(), xtol=1e-14)
    return np.maximum(row - threshold, 0)


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_projection_onto_the_simplex(k, scale):
    rows = scale * np.random.default_rng(0).standard_normal((20, k))
    expected = np.array([nearest_probabilities(row) for row in rows])
    np.testing.assert_allclose(project_onto_simplex(rows), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([1.0, 0.0, 0.0], [1, 0, 0]),
        ([5.0, 0.0, 0.0], [1, 0, 0]),
        ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
        ([-7.0, -7.0], [0.5, 0.5]),
        ([0.8, 0.6, -0.4], [0.6, 0.4, 0]),
        ([1e8, 0.0], [1, 0]),
        ([1e20, 0.0], [1, 0]),
        ([-1e20, -1e20], [0.5, 0.5]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_onto_the_simplex_by_hand(row, expected, dtype):
    projected = project_onto_simplex(np.array([row], dtype=dtype))
    np.testing.assert_allclose(projected, [expected], atol=10 * np.finfo(dtype).eps)


# ---- prediction ------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("n_jobs", [2, 4])
def test_n_jobs_does_not_change_results(estimator_class, n_jobs, sparsifier, dtype):
    # To the bit: items of work depend on shapes alone, and BLAS has one thread for work of this size.
    X, y = data_for(estimator_class, dtype=dtype)
    serial = small(estimator_class, hidden_layer_sizes=(300, 300), sparsifier=sparsifier, n_jobs=1, max_iter=2).fit(
        X, y
    )
    threaded = clone(serial).set_params(n_jobs=n_jobs).fit(X, y)
    assert flat_weights(threaded._state_).tobytes() == flat_weights(serial._state_).tobytes()
    expected = outputs(serial, X)
    assert outputs(threaded, X).tobytes() == expected.tobytes()
    assert outputs(serial.set_params(n_jobs=n_jobs), X).tobytes() == expected.tobytes()


@BOTH
# Megabytes a row in single and double precision, at the density of 0.138: 0.016 and 0.027, under top-k 0.42 and 0.51.
@pytest.mark.parametrize(
    ("sparsifier", "dtype", "working_memory", "n_calls"),
    [
        ("shifted_relu", np.float32, 1, 2),
        ("shifted_relu", np.float64, 1, 3),
        ("topk", np.float32, 3, 12),
        ("topk", np.float64, 3, 14),
        ("shifted_relu", np.float64, 0, 80),
        ("topk", np.float32, 0, 80),
        ("shifted_relu", np.float64, 10, 1),
    ],
)
def test_prediction_does_not_depend_on_row_batches(
    estimator_class, sparsifier, dtype, working_memory, n_calls, monkeypatch
):
    X, y = data_for(estimator_class, dtype=dtype)
    estimator = small(estimator_class, hidden_layer_sizes=(64, 20_000), sparsifier=sparsifier, max_iter=1).fit(X, y)
    expected = outputs(estimator, X)
    sizes, forward = [], Network.forward

    def spy(self, x):
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Network, "forward", spy)
    with config_context(working_memory=working_memory):
        batched = outputs(estimator, X)
    assert len(sizes) == n_calls
    assert sum(sizes) == 80
    # In single precision BLAS' rounding, which depends on the number of rows, decides near-ties of top-k.
    tolerance = 1e-12 if dtype == np.float64 else {"shifted_relu": 1e-5, "topk": 1e-3}[sparsifier]
    np.testing.assert_allclose(batched, expected, atol=tolerance)


@BOTH
def test_prediction_of_one_row_equals_that_of_many(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class).fit(X, y)
    np.testing.assert_allclose(outputs(estimator, X[7:8]), outputs(estimator, X)[7:8], atol=1e-12)


@BOTH
@pytest.mark.parametrize("order", ["F", "strided"])
def test_memory_layout_of_X_does_not_matter(estimator_class, order):
    X, y = data_for(estimator_class)
    laid_out = np.asfortranarray(X) if order == "F" else np.repeat(X, 2, axis=1)[:, ::2]
    estimator = small(estimator_class).fit(X, y)
    np.testing.assert_allclose(outputs(estimator, laid_out), outputs(estimator, X), atol=1e-12)
    np.testing.assert_allclose(outputs(small(estimator_class).fit(laid_out, y), X), outputs(estimator, X), atol=1e-8)


@BOTH
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_prediction_changes_nothing(estimator_class, alpha):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, alpha=alpha).fit(X, y)
    before = joblib.hash(vars(estimator))
    estimator.predict(X)
    estimator.score(X, y)
    estimator.coefs_[1][:] = np.nan
    if is_classifier(estimator):
        estimator.predict_proba(X)
        estimator.predict_log_proba(X)
        estimator.decision_function(X)
    assert joblib.hash(vars(estimator)) == before


@BOTH
def test_score_weighs_rows(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class).fit(X, y)
    weights = (np.arange(80) < 40).astype(float)
    assert estimator.score(X, y, sample_weight=weights) == pytest.approx(estimator.score(X[:40], y[:40]))


# ---- data at the edge ------------------------------------------------------------------------------------


def edge_features():
    X = np.random.default_rng(0).standard_normal((24, 3))
    return {
        "plain": X,
        "constant_feature": np.c_[X, np.full(24, 0.1)],
        "constant_features": np.full((24, 3), 1e6),
        "zeros": np.zeros((24, 3)),
        "one_feature": X[:, :1],
        "many_features": np.random.default_rng(1).standard_normal((24, 200)),
        "duplicates": np.repeat(X[:4], 6, axis=0),
        "two_rows": X[:2],
        "three_rows": X[:3],
        "equal_columns": np.c_[X, X],
        "huge_and_tiny": X * [1e30, 1e-30, 1],
        "nearly_constant": np.c_[X, 1 + 1e-15 * X[:, 0]],
        "rare_indicator": np.c_[X, np.arange(24) == 3],
        "outlier": np.where(np.arange(72).reshape(24, 3) == 10, 1e12, X),
        "far_from_zero": X + 1e9,
    }


@BOTH
@pytest.mark.parametrize("early_stopping", ["loo", "validation", False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", edge_features())
def test_unusual_features_give_finite_predictions(estimator_class, early_stopping, dtype, name):
    X = edge_features()[name].astype(dtype)
    y = np.arange(len(X)) % 2
    estimator = small(estimator_class, hidden_layer_sizes=(16, 16), early_stopping=early_stopping).fit(X, y)
    assert np.all(np.isfinite(outputs(estimator, X)))
    assert np.all(np.isfinite(estimator.loss_curve_))


@BOTH
@pytest.mark.parametrize("widths", [1, (1,), (1, 1), (1, 64), (64, 1), (2, 1, 3), np.array([5, 4])], ids=repr)
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("skip_connections", [True, False])
def test_narrow_networks_give_finite_predictions(estimator_class, widths, sparsifier, skip_connections):
    X, y = data_for(estimator_class, n=24)
    estimator = small(
        estimator_class, hidden_layer_sizes=widths, sparsifier=sparsifier, skip_connections=skip_connections
    ).fit(X, y)
    assert estimator.n_layers_ == np.size(widths) + 2
    assert np.all(np.isfinite(outputs(estimator, X)))


@pytest.mark.parametrize("value", [0.0, -1e6, 1e-9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("early_stopping", ["loo", "validation", False])
def test_a_constant_target_is_learnt(value, dtype, early_stopping):
    X, _ = regression_data(n=30, dtype=dtype)
    y = np.full(30, value, dtype=dtype)
    estimator = small(SubquadMLPRegressor, early_stopping=early_stopping, max_iter=8).fit(X, y)
    np.testing.assert_allclose(estimator.predict(X), y, atol=0.2)


def test_one_constant_target_among_others():
    X, Y = regression_data(n_outputs=2)
    Y[:, 1] = 3.0
    predictions = small(SubquadMLPRegressor, max_iter=8, early_stopping=False).fit(X, Y).predict(X)
    np.testing.assert_allclose(predictions[:, 1], 3.0, atol=0.2)


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1e30, 1e200])
def test_targets_of_any_unit(unit):
    X, y = regression_data()
    expected = small(SubquadMLPRegressor).fit(X, y).predict(X)
    np.testing.assert_allclose(small(SubquadMLPRegressor).fit(X, y * unit).predict(X) / unit, expected, rtol=1e-6)


@pytest.mark.parametrize("offset", [1e3, 1e9])
def test_targets_far_from_zero(offset):
    X, y = regression_data()
    expected = small(SubquadMLPRegressor).fit(X, y).predict(X)
    shifted = small(SubquadMLPRegressor).fit(X, y + offset).predict(X) - offset
    np.testing.assert_allclose(shifted, expected, atol=1e-5)


@BOTH
@pytest.mark.parametrize("exponents", [(30, -30, 0, 10, -10), (150, -150, 0, 0, 0)], ids=repr)
def test_units_of_features_do_not_matter(estimator_class, exponents):
    X, y = data_for(estimator_class)
    units = 2.0 ** np.array(exponents)
    expected = outputs(small(estimator_class).fit(X, y), X)
    np.testing.assert_allclose(outputs(small(estimator_class).fit(X * units, y), X * units), expected, atol=1e-8)
