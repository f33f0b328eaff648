"""What fixes a fit to the bit, what follows `precision`, and what the dtype of the features."""

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from small_fits import (
    BOTH,
    classification_data,
    data_for,
    fixed_steps,
    flat_weights,
    outputs,
    precision_of,
    regression_data,
    small,
)

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


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
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("n_jobs", [2, 4])
def test_n_jobs_does_not_change_results(estimator_class, n_jobs, sparsifier, dtype):
    # To the bit: items of work depend on shapes alone, and BLAS has one thread for work of this size.
    X, y = data_for(estimator_class, dtype=dtype)
    parameters = {"hidden_layer_sizes": (300, 300), "sparsifier": sparsifier, "precision": precision_of(dtype)}
    serial = small(estimator_class, **parameters, n_jobs=1, max_iter=2).fit(X, y)
    threaded = clone(serial).set_params(n_jobs=n_jobs).fit(X, y)
    assert flat_weights(threaded._state_).tobytes() == flat_weights(serial._state_).tobytes()
    expected = outputs(serial, X)
    assert outputs(threaded, X).tobytes() == expected.tobytes()
    assert outputs(serial.set_params(n_jobs=n_jobs), X).tobytes() == expected.tobytes()


# ---- precision of the network, dtype of the features -----------------------------------------------


WEIGHTS = {"single": np.float32, "double": np.float64}
PRECISIONS = pytest.mark.parametrize("precision", WEIGHTS)


@BOTH
@PRECISIONS
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
@pytest.mark.parametrize("preconditioner", ["gram", "sketch"])
def test_weights_have_the_precision_asked_for_and_predictions_the_dtype_of_X(
    estimator_class, precision, dtype, preconditioner
):
    X, y = data_for(estimator_class)
    X = (X > 0).astype(dtype) if dtype in (np.int64, bool) else X.astype(dtype)
    estimator = small(estimator_class, preconditioner=preconditioner, precision=precision).fit(X, y)
    assert {array.dtype for array in [*estimator.coefs_, *estimator.intercepts_]} == {np.dtype(WEIGHTS[precision])}
    for rows in (X, X.astype(np.float32), X.astype(np.float64)):
        expected = np.float32 if rows.dtype == np.float32 else np.float64
        assert outputs(estimator, rows).dtype == expected
        if not is_classifier(estimator):
            assert {array.dtype for array in estimator.predict(rows, return_std=True)} == {np.dtype(expected)}


@BOTH
@pytest.mark.parametrize(("n", "method", "weights"), [(99, "fit", "f8"), (100, "fit", "f4"), (99, "partial_fit", "f4")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_automatic_precision_follows_the_number_of_rows(estimator_class, n, method, weights, dtype):
    X, y = data_for(estimator_class, n=n, dtype=dtype)
    classes = {"classes": np.unique(y)} if estimator_class is SubquadMLPClassifier and method == "partial_fit" else {}
    estimator = getattr(small(estimator_class), method)(X, y, **classes)
    assert {array.dtype for array in estimator.coefs_} == {np.dtype(weights)}
    # A fit that goes on has the precision that there is.
    X, y = data_for(estimator_class, n=199 - n, dtype=dtype)
    estimator.set_params(warm_start=True).fit(X, y)
    assert {array.dtype for array in estimator.coefs_} == {np.dtype(weights)}


@BOTH
@PRECISIONS
@pytest.mark.parametrize("n_bins", [None, "auto"])
@pytest.mark.parametrize("early_stopping", ["loo", "validation"])
def test_equal_numbers_of_other_dtypes_give_the_same_fit(estimator_class, precision, n_bins, early_stopping):
    """Features are scaled in double precision, whatever they are in; of ramps, knots and the ramps are in X's dtype."""
    X, y = data_for(estimator_class, n=150)
    single = (7 * X + 3).astype(np.float32)
    parameters = {"precision": precision, "n_bins": n_bins, "early_stopping": early_stopping}
    models = [small(estimator_class, **parameters).fit(rows, y) for rows in (single, single.astype(np.float64))]
    of_both = [outputs(model, single) for model in models]
    if n_bins is None:
        assert len({flat_weights(model._state_).tobytes() for model in models}) == 1
        np.testing.assert_array_equal(*of_both)
    else:
        np.testing.assert_allclose(*of_both, atol=1e-3)


@BOTH
@pytest.mark.parametrize("early_stopping", ["auto", False])
def test_features_far_from_zero_are_scaled_before_they_are_rounded(estimator_class, early_stopping):
    X, y = data_for(estimator_class, n=150)
    parameters = {"early_stopping": early_stopping, "n_folds": "auto", "n_bins": "auto"}
    near = small(estimator_class, **parameters).fit(X, y)
    far = small(estimator_class, **parameters).fit(X + 1e9, y)
    np.testing.assert_allclose(outputs(far, X + 1e9), outputs(near, X), atol=1e-3)
    assert far.score(X + 1e9, y) > 0.5


@BOTH
def test_scores_and_callbacks_get_predictions_in_the_dtype_of_the_rows(estimator_class):
    X, y = data_for(estimator_class, n=150)
    seen = []

    def score(estimator, rows, targets):
        seen.append((estimator.coefs_[0].dtype, outputs(estimator, rows).dtype))
        return estimator.score(rows, targets)

    model = small(estimator_class, n_folds=3, scoring=score).fit(X, y)
    assert set(seen) == {(np.dtype(np.float32), np.dtype(np.float64))}
    out_of_fold = model.oof_decision_function_ if is_classifier(model) else model.oof_prediction_
    assert out_of_fold.dtype == np.float64


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "decision_function"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@PRECISIONS
def test_scores_of_classes_follow_the_dtype_of_X(method, n_classes, dtype, precision):
    X, y = classification_data(n_classes=n_classes, dtype=dtype)
    estimator = small(SubquadMLPClassifier, init_scale=0.01, precision=precision, max_iter=1).fit(X, y)
    assert getattr(estimator, method)(X).dtype == dtype


@BOTH
@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool, object])
def test_predictions_of_other_dtypes_are_in_double_precision(estimator_class, dtype):
    X, y = data_for(estimator_class)
    X = (X > 0).astype(dtype)
    assert outputs(small(estimator_class).fit(X, y), X).dtype == np.float64


@BOTH
def test_single_and_double_precision_agree(estimator_class):
    X, y = data_for(estimator_class)
    X, single = X.astype(np.float32).astype(np.float64), X.astype(np.float32)
    parameters = {"damping": 1.0, "cg_tol": 1e-5}
    in_double = outputs(fixed_steps(estimator_class, 3, precision="double", **parameters).fit(X, y), X)
    in_single = outputs(fixed_steps(estimator_class, 3, precision="single", **parameters).fit(single, y), single)
    assert np.abs(in_single - in_double).max() > 0
    np.testing.assert_allclose(in_single, in_double, atol=1e-3)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_targets_beyond_the_range_of_the_type_of_x_are_refused(loss):
    X, y = regression_data(dtype=np.float32)
    y = np.abs(y.astype(np.float64)) * 1e40
    with pytest.raises(ValueError, match=r"y holds .*e\+40, but predictions are float32 as X is"):
        small(SubquadMLPRegressor, loss=loss).fit(X, y)
    X = X.astype(np.float64)
    # Counts are fitted in their own unit, other targets in that of their deviation.
    precision = "double" if loss == "poisson" else "single"
    model = small(SubquadMLPRegressor, loss=loss, precision=precision).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
