"""Which features matter: the average gradient outer product against differences, and what users do with it."""

import copy
import dataclasses
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.stats import spearmanr
from sklearn.datasets import make_friedman1
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.inspection import permutation_importance
from small_fits import BOTH, classification_data, data_for, regression_data, small

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.data import GivenRows, TrainingSet
from sklearn_subquad._fit.importances import feature_shares

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def of_model(estimator):
    network, inputs, targets, _ = next(estimator._models())
    return SimpleNamespace(network=network, inputs=inputs, targets=targets)


def rows_of(X, sample_weight):
    return TrainingSet.of_all_rows(X, X[:, :1], sample_weight, GivenRows(X, X[:, 0], None))


def shares_by_differences(model, X, sample_weight):
    """Mean over rows of ``g^T C g``, where g are differences of outputs and C is what NumPy calls a covariance."""
    x, d = model.inputs.transform(X, np.float64), X.shape[1]
    owners, h = list(range(d)), 1e-7
    if model.inputs.encoding is not None:
        owners += np.repeat(range(d), model.inputs.encoding.n_ramps).tolist()
    gradients = np.empty((*model.network.forward(x).output.shape, len(owners)))
    for column in range(len(owners)):
        step = h * np.eye(x.shape[1])[column]
        gradients[:, :, column] = model.network.forward(x + step).output - model.network.forward(x - step).output
    shares = np.empty(d)
    for feature in range(d):
        columns = np.flatnonzero(np.array(owners) == feature)
        C = np.cov(x[:, columns].T, aweights=sample_weight, ddof=0).reshape(len(columns), len(columns))
        g = gradients[:, :, columns]
        shares[feature] = np.average(np.einsum("nka,ab,nkb->n", g, C, g), weights=sample_weight)
    return shares / shares.sum()


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("skip_connections", [True, False])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize(("n_outputs", "n_bins"), [(None, None), (3, 5)])
def test_shares_are_those_of_differences(n_layers, skip_connections, sparsifier, n_outputs, n_bins):
    X, y = regression_data(32, n_outputs=n_outputs)
    X[:, 4] = X[:, 4] > 0
    estimator = small(
        SubquadMLPRegressor,
        hidden_layer_sizes=(32, 64)[:n_layers],
        skip_connections=skip_connections,
        sparsifier=sparsifier,
        n_bins=n_bins,
        early_stopping=False,
        precision="double",
    ).fit(X, y)
    model, weights = of_model(estimator), np.random.default_rng(0).uniform(0.5, 2, len(X))
    found = feature_shares(model, rows_of(X, weights), 1, seed=0)
    np.testing.assert_allclose(found, shares_by_differences(model, X, weights), rtol=1e-4)
    # All rows are drawn, and no factor of the weights counts.
    np.testing.assert_allclose(found, feature_shares(model, rows_of(X, 3 * weights), 8, seed=1), rtol=1e-12)


def test_a_metric_is_the_same_as_other_input_weights():
    X, y = regression_data(32)
    model = of_model(small(SubquadMLPRegressor, early_stopping=False, precision="double").fit(X, y))
    metric, same = np.random.default_rng(0).standard_normal((5, 5)), copy.deepcopy(model)
    for layer in same.network.layers:
        layer.input_weights[:, :-1] = layer.input_weights[:, :-1] @ metric.T
    same.network.output_weights[1][:-1] = metric @ same.network.output_weights[1][:-1]
    model.inputs = dataclasses.replace(model.inputs, metric=metric)
    shares = [feature_shares(each, rows_of(X, np.ones(32)), 1, seed=0) for each in (model, same)]
    np.testing.assert_allclose(*shares, rtol=1e-10)


@pytest.fixture(scope="module")
def friedman():
    X, y = make_friedman1(600, n_features=10, noise=1.0, random_state=0)
    return X, y, SubquadMLPRegressor(hidden_layer_sizes=(128, 128), random_state=0).fit(X[:400], y[:400])


def test_they_agree_with_permutation_importance(friedman):
    X, y, model = friedman
    found = model.feature_importances_
    assert found[:5].min() > 3 * found[5:].max()
    # The order of features that do not matter is luck.
    by_permutation = permutation_importance(model, X[400:], y[400:], n_repeats=5, random_state=0).importances_mean
    assert spearmanr(found[:5], by_permutation[:5])[0] >= 0.7
    assert abs(found - by_permutation / by_permutation.sum()).sum() < 0.4


def test_several_networks_are_averaged_by_their_weights(friedman):
    model = friedman[2]
    of_each = [each.feature_importances_ for each in model.estimators_]
    np.testing.assert_allclose(model.feature_importances_, model._state_["weights"] @ of_each, rtol=1e-12)
    assert len(of_each) == 8
    assert not np.array_equal(of_each[0], of_each[2])


def test_steps_and_indicators_count_by_what_they_do():
    """Of a step, and of an indicator of one row in ten, derivatives by the feature are zero on nearly all rows."""
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(500, 4))
    X[:, 1], X[:, 2] = X[:, 1] < 0.1, np.round(5 * X[:, 2])
    y = (X[:, 0] > 0.7) + X[:, 1] + 0.2 * X[:, 2] + 0.01 * rng.standard_normal(500)
    settings = {"hidden_layer_sizes": (128, 128), "random_state": 0}
    found = SubquadMLPRegressor(n_bins=8, **settings).fit(X, y).feature_importances_
    # The variances of the terms.
    expected = np.array([0.21, 0.09, 0.04 * 2.7, 0])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.2)
    assert found[3] < 0.03
    # Networks of loud ramps, which are best here, turn more often: the step counts for more than it does.
    found = SubquadMLPRegressor(**settings).fit(X, y).feature_importances_
    assert found[0] > found[[1, 2]].max() > found[[1, 2]].min() > 2 * found[3]


@BOTH
@pytest.mark.parametrize("n_folds", [1, 3])
def test_they_sum_to_one_and_are_stored(estimator_class, n_folds):
    X, y = data_for(estimator_class, n=120)
    X[:, 3] = 7.0
    model = small(estimator_class, n_folds=n_folds, n_bins=4).fit(X, y)
    found = model.feature_importances_
    assert found.shape == (5,)
    assert found.dtype == np.float64
    assert found.sum() == pytest.approx(1)
    assert found[3] == 0
    assert (np.delete(found, 3) > 0).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).feature_importances_, found)
    np.testing.assert_array_equal(
        small(estimator_class, n_folds=n_folds, n_bins=4).fit(X, y).feature_importances_, found
    )


@BOTH
@pytest.mark.parametrize("n_folds", [1, 3])
def test_a_column_of_a_table_has_one_whatever_is_made_of_it(estimator_class, n_folds):
    """Three levels, as many as have means of two targets, a column with gaps, and a number that says nothing."""
    rng, n = np.random.default_rng(0), 300
    few, many = rng.integers(3, size=n), rng.integers(30, size=n)
    number = rng.standard_normal(n)
    y = few + rng.standard_normal(30)[many] + np.where(number > 1, 0.0, number)
    y = np.column_stack([y, 2 * y]) if estimator_class is SubquadMLPRegressor else y > y.mean()
    X = pd.DataFrame({
        "nothing": rng.standard_normal(n),
        "few": np.array(list("abc"))[few],
        "many": many.astype(str),
        "gaps": np.where(number > 1, np.nan, number),
    }).astype({"many": "category"})  # fmt: skip
    found = small(estimator_class, n_folds=n_folds, max_iter=5).fit(X, y).feature_importances_
    assert found.shape == (4,)
    assert found.sum() == pytest.approx(1)
    assert found[0] < found[1:].min()


@BOTH
@pytest.mark.parametrize("n_bins", [None, 4])
@pytest.mark.parametrize("n_features", [30, 300])
def test_those_of_sparse_rows_are_those_of_the_array(estimator_class, n_features, n_bins, monkeypatch):
    """Also where weights are combinations of the rows, and where columns are too many for a Gram matrix."""
    X, y = data_for(estimator_class, n=120)
    rng = np.random.default_rng(0)
    X = np.where(rng.random((120, n_features)) < 0.2, rng.standard_normal((120, n_features)), 0.0)
    X[:, 0] += np.where(y > np.median(y), 1.0, 0.0)
    # On all rows.
    monkeypatch.setattr("sklearn_subquad._fit.importances._LEAST_ROWS", 120)
    settings = {"n_bins": n_bins, "precision": "double", "early_stopping": False}
    fits = [small(estimator_class, **settings).fit(rows, y).feature_importances_ for rows in (X, csr_array(X))]
    np.testing.assert_allclose(*fits, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr("sklearn_subquad._fit.importances._MAX_GRAM_COLUMNS", 0)
    looped = small(estimator_class, **settings).fit(X, y).feature_importances_
    np.testing.assert_allclose(looped, fits[0], rtol=1e-10)


@BOTH
@pytest.mark.parametrize("n_folds", [1, 3])
def test_tools_of_scikit_learn_select_features(estimator_class, n_folds):
    X, y = data_for(estimator_class, n=150)
    X = pd.DataFrame(X, columns=list("abcde"))
    estimator = small(estimator_class, n_folds=n_folds)
    for selector in (
        RFE(estimator, n_features_to_select=3),
        SelectFromModel(estimator, threshold=-np.inf, max_features=3),
    ):
        assert list(selector.fit(X, y).get_feature_names_out()) == ["a", "b", "c"]


@BOTH
def test_parts_add_up(estimator_class):
    X, y = data_for(estimator_class, n=200)
    options = {} if estimator_class is SubquadMLPRegressor else {"classes": np.unique(y)}
    model = small(estimator_class).partial_fit(X[:120], y[:120], **options)
    first, of_rows = model.feature_importances_, model._state_["importances"]
    assert of_rows.sum() == pytest.approx(120)
    model.partial_fit(X[120:], y[120:])
    assert model._state_["importances"].sum() == pytest.approx(200)
    assert not np.array_equal(model.feature_importances_, first)
    # In a single row nothing varies: it says nothing, and takes nothing away.
    before = model.feature_importances_
    np.testing.assert_allclose(model.partial_fit(X[:1], y[:1]).feature_importances_, before, rtol=1e-12)


@BOTH
def test_a_fit_that_goes_on_finds_them_again(estimator_class):
    X, y = data_for(estimator_class, n=120)
    model = small(estimator_class, max_iter=1, warm_start=True).fit(X, y)
    first = model.feature_importances_
    model.fit(X[:, ::-1].copy(), y)
    assert model._state_["importances"].sum() == pytest.approx(120)
    assert not np.array_equal(model.feature_importances_, first)


def test_constant_models_have_none():
    X, _ = regression_data(120)
    for y in (np.ones(120), np.random.default_rng(1).standard_normal(120)):
        model = small(SubquadMLPRegressor, n_folds=3, max_iter=1, damping=1e30).fit(X, y)
        np.testing.assert_array_equal(model.feature_importances_, np.zeros(5))


def test_constant_targets_have_no_say():
    X, Y = regression_data(60, n_outputs=2)
    Y[:, 0] = 3.0
    model = of_model(small(SubquadMLPRegressor, early_stopping=False, precision="double").fit(X, Y))
    alone = copy.deepcopy(model)
    alone.network.output_weights = tuple(part[:, 1:] for part in alone.network.output_weights)
    alone.targets = SimpleNamespace(scale=model.targets.scale[1:])
    shares = [feature_shares(each, rows_of(X, np.ones(60)), 1, seed=0) for each in (model, alone)]
    np.testing.assert_allclose(*shares, rtol=1e-10)


@BOTH
def test_what_has_none_says_why(estimator_class):
    model = small(estimator_class)
    with pytest.raises(NotFittedError, match="not fitted"):
        model.feature_importances_  # noqa: B018
    X, y = data_for(estimator_class)
    model.fit(X, y)
    del model._state_["importances"]
    with pytest.raises(
        AttributeError, match=f"{estimator_class.__name__} has no feature_importances_.*earlier version"
    ):
        model.feature_importances_  # noqa: B018
    assert not hasattr(model, "feature_importances_")
    # A part that comes later is all that is known then.
    assert model.partial_fit(X, y).feature_importances_.sum() == pytest.approx(1)


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_many_classes_are_seen_through_probes(loss):
    X, y = classification_data(300, n_classes=6)
    model = small(SubquadMLPClassifier, loss=loss).fit(X, y)
    assert set(np.argsort(model.feature_importances_)[2:]) == {0, 1, 2}
