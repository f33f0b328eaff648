"""Weights and a validation set on their way through scikit-learn's pipelines and searches, with and without routing."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.metadata_routing import get_routing_for_object

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

ESTIMATORS = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
SETTINGS = {"hidden_layer_sizes": 32, "max_iter": 4, "random_state": 0}
FOLDS = KFold(2)


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def data(estimator_class, n=150):
    """Features, targets, uneven weights, and a validation set."""
    load = load_diabetes if estimator_class is SubquadMLPRegressor else load_breast_cancer
    X, y = load(return_X_y=True)
    weights = np.random.default_rng(0).choice([0.1, 1.0, 5.0], n)
    return X[:n], y[:n], weights, X[n : n + 60], y[n : n + 60]


def fitted_outputs(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


# ---- with routing ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_routing")
@ESTIMATORS
def test_methods_say_what_they_take(estimator_class):
    requests = get_routing_for_object(estimator_class())
    assert set(requests.fit.requests) == {"sample_weight", "X_val", "y_val", "sample_weight_val"}
    classes = {"classes"} if estimator_class is SubquadMLPClassifier else set()
    assert set(requests.partial_fit.requests) == {"sample_weight"} | classes
    assert set(requests.score.requests) == {"sample_weight"}
    model = estimator_class().set_fit_request(sample_weight=True, X_val="X_test", y_val=False)
    model.set_partial_fit_request(sample_weight="part_weight").set_score_request(sample_weight=False)
    requests = get_routing_for_object(clone(model))
    assert requests.fit.requests == {
        "sample_weight": True,
        "X_val": "X_test",
        "y_val": False,
        "sample_weight_val": None,
    }
    assert requests.partial_fit.requests["sample_weight"] == "part_weight"
    assert requests.score.requests["sample_weight"] is False


@pytest.mark.usefixtures("_routing")
@ESTIMATORS
def test_a_pipeline_hands_weights_and_the_validation_set_on(estimator_class):
    X, y, weights, X_val, y_val = data(estimator_class)
    scaler = MinMaxScaler().fit(X)
    expected = estimator_class(**SETTINGS, early_stopping="validation").fit(
        scaler.transform(X), y, weights, X_val=scaler.transform(X_val), y_val=y_val, sample_weight_val=np.arange(1, 61)
    )
    model = estimator_class(**SETTINGS, early_stopping="validation").set_fit_request(
        sample_weight=True, X_val=True, y_val=True, sample_weight_val=True
    )
    # `transform_input` is what sends a validation set through the steps before.
    pipeline = Pipeline([("scale", MinMaxScaler()), ("fit", model)], transform_input=["X_val"])
    pipeline.fit(X, y, sample_weight=weights, X_val=X_val, y_val=y_val, sample_weight_val=np.arange(1, 61))
    assert pipeline["fit"].validation_scores_ == expected.validation_scores_
    np.testing.assert_array_equal(fitted_outputs(pipeline, X), fitted_outputs(expected, scaler.transform(X)))


@pytest.mark.usefixtures("_routing")
@ESTIMATORS
def test_a_search_hands_weights_to_fits_and_scores(estimator_class):
    X, y, weights, *_ = data(estimator_class)
    grid = {"density": [0.1, 0.4]}
    model = estimator_class(**SETTINGS).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    search = GridSearchCV(model, grid, cv=FOLDS).fit(X, y, sample_weight=weights)
    for density, found in zip(grid["density"], search.cv_results_["mean_test_score"], strict=True):
        scores = [
            clone(model).set_params(density=density).fit(X[a], y[a], weights[a]).score(X[b], y[b], weights[b])
            for a, b in FOLDS.split(X)
        ]
        assert found == pytest.approx(np.mean(scores), rel=1e-12)
    refitted = clone(model).set_params(**search.best_params_).fit(X, y, weights)
    np.testing.assert_array_equal(fitted_outputs(search, X), fitted_outputs(refitted, X))


@pytest.mark.usefixtures("_routing")
@ESTIMATORS
def test_cross_validation_hands_the_validation_set_to_every_fit(estimator_class):
    X, y, weights, X_val, y_val = data(estimator_class)
    model = estimator_class(**SETTINGS, early_stopping="validation").set_fit_request(
        sample_weight="w", X_val=True, y_val=True
    )
    model.set_score_request(sample_weight=False)
    found = cross_validate(
        model, X, y, cv=FOLDS, params={"w": weights, "X_val": X_val, "y_val": y_val}, return_estimator=True
    )
    for (a, _), fitted in zip(FOLDS.split(X), found["estimator"], strict=True):
        expected = clone(model).fit(X[a], y[a], weights[a], X_val=X_val, y_val=y_val)
        assert fitted.validation_scores_ == expected.validation_scores_
        np.testing.assert_array_equal(fitted_outputs(fitted, X), fitted_outputs(expected, X))


@pytest.mark.usefixtures("_routing")
@ESTIMATORS
def test_weights_that_nobody_asked_for_or_against_are_refused(estimator_class):
    X, y, weights, *_ = data(estimator_class)
    for route in (
        lambda: make_pipeline(MinMaxScaler(), estimator_class(**SETTINGS)).fit(X, y, sample_weight=weights),
        lambda: GridSearchCV(estimator_class(**SETTINGS), {"density": [0.1]}).fit(X, y, sample_weight=weights),
        lambda: cross_validate(estimator_class(**SETTINGS), X, y, params={"sample_weight": weights}),
    ):
        with pytest.raises(UnsetMetadataPassedError, match=r"sample_weight.* are passed .*not explicitly set"):
            route()


@pytest.mark.usefixtures("_routing")
@ESTIMATORS
def test_weights_that_are_asked_against_are_not_handed_on(estimator_class):
    X, y, weights, *_ = data(estimator_class)
    model = estimator_class(**SETTINGS).set_fit_request(sample_weight=False)
    # Where one step takes them, the other goes without.
    scaler = MinMaxScaler()
    plain = clone(model).fit(scaler.fit_transform(X), y)
    search = GridSearchCV(model, {"density": ["auto"]}, cv=FOLDS)
    search.estimator.set_score_request(sample_weight=True)
    found = search.fit(scaler.transform(X), y, sample_weight=weights)
    np.testing.assert_array_equal(
        fitted_outputs(found, scaler.transform(X)), fitted_outputs(plain, scaler.transform(X))
    )
    with pytest.raises(TypeError, match="unexpected argument"):
        make_pipeline(MinMaxScaler(), model).fit(X, y, sample_weight=weights)


@ESTIMATORS
def test_requests_need_routing_to_be_on(estimator_class):
    with pytest.raises(RuntimeError, match="only available when metadata routing is enabled"):
        estimator_class().set_fit_request(sample_weight=True)


# ---- without -----------------------------------------------------------------------------------------------------


@ESTIMATORS
def test_a_pipeline_hands_on_what_has_the_name_of_the_step(estimator_class):
    X, y, weights, X_val, y_val = data(estimator_class)
    scaler = MinMaxScaler().fit(X)
    settings = SETTINGS | {"early_stopping": "validation"}
    x, x_val = scaler.transform(X), scaler.transform(X_val)
    expected = estimator_class(**settings).fit(x, y, weights, X_val=x_val, y_val=y_val)
    pipeline = Pipeline([("scale", MinMaxScaler()), ("fit", estimator_class(**settings))])
    pipeline.fit(X, y, fit__sample_weight=weights, fit__X_val=x_val, fit__y_val=y_val)
    np.testing.assert_array_equal(fitted_outputs(pipeline, X), fitted_outputs(expected, x))
    search = GridSearchCV(pipeline, {"fit__density": ["auto"]}, cv=FOLDS)
    search.fit(X, y, fit__sample_weight=weights, fit__X_val=x_val, fit__y_val=y_val)
    np.testing.assert_array_equal(fitted_outputs(search, X), fitted_outputs(expected, x))


@ESTIMATORS
def test_a_search_hands_weights_to_fits(estimator_class):
    X, y, weights, *_ = data(estimator_class)
    search = GridSearchCV(estimator_class(**SETTINGS), {"density": [0.3]}, cv=FOLDS).fit(X, y, sample_weight=weights)
    expected = estimator_class(**SETTINGS, density=0.3).fit(X, y, weights)
    np.testing.assert_array_equal(fitted_outputs(search, X), fitted_outputs(expected, X))
