"""Predictions: rows do not depend on each other, nor on how they lie in memory, and nothing changes."""

import joblib
import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import is_classifier
from small_fits import BOTH, data_for, outputs, precision_of, small

from sklearn_subquad._network.network import Network

pytestmark = pytest.mark.usefixtures("one_blas_thread")


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
    parameters = {"sparsifier": sparsifier, "precision": precision_of(dtype), "max_iter": 1}
    estimator = small(estimator_class, hidden_layer_sizes=(64, 20_000), **parameters).fit(X, y)
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
@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-5), ("double", 1e-12)])
def test_prediction_of_one_row_equals_that_of_many(estimator_class, precision, tolerance):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, precision=precision).fit(X, y)
    np.testing.assert_allclose(outputs(estimator, X[7:8]), outputs(estimator, X)[7:8], atol=tolerance)


@BOTH
@pytest.mark.parametrize("order", ["F", "strided"])
def test_memory_layout_of_X_does_not_matter(estimator_class, order):
    X, y = data_for(estimator_class)
    laid_out = np.asfortranarray(X) if order == "F" else np.repeat(X, 2, axis=1)[:, ::2]
    estimator = small(estimator_class).fit(X, y)
    np.testing.assert_allclose(outputs(estimator, laid_out), outputs(estimator, X), atol=1e-12)
    np.testing.assert_allclose(outputs(small(estimator_class).fit(laid_out, y), X), outputs(estimator, X), atol=1e-8)


@BOTH
def test_prediction_changes_nothing(estimator_class):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class).fit(X, y)
    before = joblib.hash(vars(estimator))
    estimator.predict(X)
    estimator.score(X, y)
    estimator.coefs_[1][:] = np.nan
    if is_classifier(estimator):
        estimator.predict_proba(X)
        estimator.predict_log_proba(X)
        estimator.decision_function(X)
    assert joblib.hash(vars(estimator)) == before
