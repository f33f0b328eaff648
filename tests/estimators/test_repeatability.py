"""What fixes a fit to the bit, and what follows the dtype of the features."""

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from small_fits import BOTH, classification_data, data_for, fixed_steps, flat_weights, outputs, regression_data, small

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
    serial = small(estimator_class, hidden_layer_sizes=(300, 300), sparsifier=sparsifier, n_jobs=1, max_iter=2).fit(
        X, y
    )
    threaded = clone(serial).set_params(n_jobs=n_jobs).fit(X, y)
    assert flat_weights(threaded._state_).tobytes() == flat_weights(serial._state_).tobytes()
    expected = outputs(serial, X)
    assert outputs(threaded, X).tobytes() == expected.tobytes()
    assert outputs(serial.set_params(n_jobs=n_jobs), X).tobytes() == expected.tobytes()


# ---- dtypes --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("preconditioner", ["gram", "sketch"])
def test_computation_follows_the_dtype_of_X(estimator_class, dtype, preconditioner):
    X, y = data_for(estimator_class, dtype=dtype)
    estimator = small(estimator_class, preconditioner=preconditioner)
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


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_targets_beyond_the_range_of_the_type_of_x_are_refused(loss):
    X, y = regression_data(dtype=np.float32)
    y = np.abs(y.astype(np.float64)) * 1e40
    with pytest.raises(ValueError, match=r"y holds .*e\+40, but predictions are float32 as X is"):
        small(SubquadMLPRegressor, loss=loss).fit(X, y)
    X = X.astype(np.float64)
    assert np.isfinite(small(SubquadMLPRegressor, loss=loss).fit(X, y).predict(X)).all()
