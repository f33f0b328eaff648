"""Several outputs; classes, their labels, scores and probabilities."""

import numpy as np
import pytest
from scipy.special import logit
from small_fits import classification_data, data_for_loss, fixed_steps, regression_data, small

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


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


# ---- classes -------------------------------------------------------------------------------------


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


# ---- scores and probabilities --------------------------------------------------------------------


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


@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_probabilities_in_single_precision_are_logarithms_of_the_probabilities(n_classes):
    X, y = classification_data(n_classes=n_classes, dtype=np.float32)
    estimator = small(SubquadMLPClassifier, loss="log_loss", early_stopping=False, damping=0.01, max_iter=9).fit(X, y)
    p, log_p = estimator.predict_proba(X), estimator.predict_log_proba(X)
    assert p.dtype == log_p.dtype == np.float32
    assert p.max() > 1 - 1e-5
    # A probability close to one is rounded by half its last bit.
    np.testing.assert_allclose(p, np.exp(log_p.astype(np.float64)), rtol=3e-7, atol=2**-24)


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
