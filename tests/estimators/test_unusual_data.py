"""Data at the edge: constant, huge, tiny, few, equal; networks of a neuron or two."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from small_fits import BOTH, data_for, outputs, precision_of, regression_data, small

from sklearn_subquad import SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


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
    parameters = {"hidden_layer_sizes": (16, 16), "early_stopping": early_stopping, "precision": precision_of(dtype)}
    estimator = small(estimator_class, **parameters).fit(X, y)
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
    parameters = {"early_stopping": early_stopping, "precision": precision_of(dtype), "max_iter": 8}
    estimator = small(SubquadMLPRegressor, **parameters).fit(X, y)
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_beyond_the_range_of_the_type_end_in_a_warning():
    X, y = data_for(SubquadMLPRegressor)
    X = X.astype(np.float32) * np.float32(1e30)
    estimator = small(SubquadMLPRegressor, standardize=False, precision="single")
    with pytest.warns(ConvergenceWarning, match="leave standardize=True"):
        estimator.fit(X, y)
    assert np.isfinite(estimator.predict(X)).all()
