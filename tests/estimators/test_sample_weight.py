"""What a weight of a row means: only ratios count, equal rows are one row, none is as if the row were not there."""

import numpy as np
import pytest
from cases import EVERY_LOSS
from sklearn.base import clone, is_classifier
from small_fits import (
    BOTH,
    OTHER_LOSSES,
    classification_data,
    data_for,
    data_for_loss,
    fixed_steps,
    outputs,
    raw_outputs,
    small,
)

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit import data as data_module
from sklearn_subquad._fit.data import distinct_rows

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SETTINGS = {"hidden_layer_sizes": (32, 32), "max_iter": 5, "random_state": 0}
# With leave-one-out and with held-out rows; in batches, the smaller ones without either.
SIZES = pytest.mark.parametrize("n", [80, 250])
BATCHES = pytest.mark.parametrize("batch_size", ["auto", 50])


def data(estimator_class, n, noise=0.5):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    y = np.sin(2 * X[:, 0]) + X[:, 1] + noise * rng.standard_normal(n)
    return X, np.digitize(y, [-0.5, 0.5]) if estimator_class is SubquadMLPClassifier else y - y.min()


def said(model, X):
    """All that a model says of rows."""
    if is_classifier(model):
        return [model.predict_proba(X)]
    return [model.predict(X)] if model.loss == "poisson" else list(model.predict(X, return_std=True))


def assert_the_same(model, other, X, rtol=1e-5):
    for one, two in zip(said(model, X), said(other, X), strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=rtol)


@EVERY_LOSS
@SIZES
@pytest.mark.parametrize("weight", [0.01, 1000.0])
def test_a_common_factor_changes_nothing_but_rounding(estimator_class, loss, n, weight):
    X, y = data(estimator_class, n)
    plain = estimator_class(loss=loss, **SETTINGS).fit(X, y)
    assert_the_same(plain, clone(plain).fit(X, y, sample_weight=np.full(n, weight)), X)


@EVERY_LOSS
@SIZES
@BATCHES
def test_a_factor_changes_nothing_where_weights_differ(estimator_class, loss, n, batch_size):
    X, y = data(estimator_class, n)
    weights = np.random.default_rng(1).uniform(0.2, 5, n)
    model = estimator_class(loss=loss, batch_size=batch_size, **SETTINGS)
    assert_the_same(clone(model).fit(X, y, weights), clone(model).fit(X, y, 128 * weights), X)


@EVERY_LOSS
@SIZES
@BATCHES
def test_a_row_of_weight_two_is_two_equal_rows(estimator_class, loss, n, batch_size):
    X, y = data(estimator_class, n)
    copies = np.random.default_rng(1).integers(0, 4, n)
    model = estimator_class(loss=loss, batch_size=batch_size, **SETTINGS)
    weighted = clone(model).fit(X, y, sample_weight=copies)
    repeated = clone(model).fit(np.repeat(X, copies, axis=0), np.repeat(y, copies))
    assert_the_same(weighted, repeated, X, rtol=1e-12)
    assert weighted.best_iter_ == repeated.best_iter_
    for curve in ("loss_curve_", "loo_curve_", "validation_scores_"):
        np.testing.assert_allclose(getattr(weighted, curve, []), getattr(repeated, curve, []), rtol=1e-12)


def test_a_factor_on_the_weights_of_classes_changes_nothing():
    X, y = data(SubquadMLPClassifier, 60)
    plain = SubquadMLPClassifier(**SETTINGS).fit(X, y)
    weighted = SubquadMLPClassifier(class_weight={0: 7, 1: 7, 2: 7, "not there": 1}, **SETTINGS).fit(X, y)
    assert_the_same(plain, weighted, X)


@pytest.mark.parametrize("n", [60, 200])
def test_deviations_with_weights_of_variances_are_those_of_a_row_of_mean_weight(n):
    """1 / sigma² as weights: half of the rows are exact to 0.1, half to 1."""
    rng = np.random.default_rng(0)
    X, sigma = rng.standard_normal((n, 3)), np.where(np.arange(n) % 2, 0.1, 1.0)
    y = X[:, 0] + sigma * rng.standard_normal(n)
    models = [SubquadMLPRegressor(**SETTINGS).fit(X, y, factor / sigma**2) for factor in (1e-3, 1e3)]
    assert_the_same(*models, X)
    # The weighted mean of the variances is 0.02; what is not known of the function comes on top.
    assert 0.07 < np.median(models[0].predict(X, return_std=True)[1]) < 0.6


@pytest.mark.parametrize("n", [40, 150])
def test_one_heavy_row_does_not_hide_the_others(n):
    """A survey weight that is as much as all others together."""
    X, y = data(SubquadMLPRegressor, n, noise=0.1)
    new = np.random.default_rng(1).standard_normal((400, 4))
    truth, mean = np.sin(2 * new[:, 0]) + new[:, 1], y.mean() - np.mean(np.sin(2 * X[:, 0]) + X[:, 1])
    weights = np.where(np.arange(n) == 3, n, 1.0)
    plain, heavy = (SubquadMLPRegressor(**SETTINGS).fit(X, y, w).score(new, truth + mean) for w in (None, weights))
    assert heavy > plain - 0.3


@EVERY_LOSS
def test_parts_weigh_what_their_rows_do(estimator_class, loss):
    """The unit is that of the first part: a second one of a thousandth of the weight changes less."""
    X, y = data(estimator_class, 80)
    classes = {"classes": [0, 1, 2]} if estimator_class is SubquadMLPClassifier else {}

    changes = []
    for factor in (1.0, 1e-3):
        model = estimator_class(loss=loss, damping=1.0, **SETTINGS)
        model.partial_fit(X[:40], y[:40], sample_weight=np.full(40, 3.0), **classes)
        before = outputs(model, X)
        model.partial_fit(X[40:], y[40:], sample_weight=np.full(40, 3.0 * factor))
        changes.append((model._state_["weight_unit"], np.abs(outputs(model, X) - before).max()))
    (unit, whole), (same_unit, little) = changes
    assert unit == same_unit == 3.0
    assert little < whole


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_kinds", [1, 7, 40, 10_000])
@pytest.mark.parametrize("labels", [True, False])
def test_equal_rows_are_found(n_kinds, labels, dtype):
    rng = np.random.default_rng(0)
    kinds = rng.integers(-2, 3, (n_kinds, 6)).astype(dtype)
    X, Y = kinds[rng.integers(n_kinds, size=1500)], rng.integers(2, size=(1500, 2))
    # Some zeros are minus zero.
    X *= np.where((X == 0) & (rng.random(X.shape) < 0.5), -1, 1).astype(dtype)
    Y = Y.astype(bool) if labels else Y / 3
    first, number = distinct_rows(X, Y)
    # The oracle sorts all rows.
    _, expected, inverse = np.unique(np.hstack([X + 0.0, Y]), axis=0, return_index=True, return_inverse=True)
    assert np.array_equal(first, np.sort(expected))
    assert np.array_equal(first[number], expected[inverse.ravel()])


def test_rows_that_share_a_key_by_chance_stay_apart(monkeypatch):
    monkeypatch.setattr(data_module, "_row_keys", lambda values: np.zeros(len(values), dtype=np.uint64))
    X = np.array([[1.0], [2.0], [1.0], [3.0], [2.0]])
    first, number = distinct_rows(X, np.zeros((5, 1)))
    # Copies of the first row are found; of the others none is, and nothing is lost.
    assert np.array_equal(X[first][number], X)
    assert first.tolist() == [0, 1, 3, 4]


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


def test_weights_far_apart_leave_two_classes_two():
    X, y = classification_data(n_classes=2)
    weight = np.where(y == 0, 1e-17, 1.0)
    estimator = small(SubquadMLPClassifier, loss="log_loss").fit(X, y, sample_weight=weight)
    assert (estimator.predict_proba(X)[:, 0] < 1e-3).all()
