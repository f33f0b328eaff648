"""The log loss and the Poisson loss: steps, curves, what is predicted."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import log_loss, mean_poisson_deviance
from small_fits import OTHER_LOSSES, data_for_loss, fixed_steps, precision_of, raw_outputs, small

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


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
def test_other_losses_return_the_best_iterate_on_held_out_rows(estimator_class, loss, k, early_stopping):
    X, y = data_for_loss(loss, k, n=300)
    parameters = {"loss": loss, "early_stopping": early_stopping, "validation_fraction": 0.3, "precision": "double"}
    stopped = small(estimator_class, **parameters, max_iter=20).fit(X, y)
    assert stopped.n_iter_ > stopped.best_iter_ == np.argmax(stopped.validation_scores_) >= 1
    direct = small(estimator_class, **parameters, max_iter=stopped.best_iter_).fit(X, y)
    assert direct.best_iter_ == direct.n_iter_
    np.testing.assert_allclose(raw_outputs(stopped, X), raw_outputs(direct, X), rtol=1e-8, atol=1e-8)


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


def test_only_the_poisson_loss_asks_for_positive_targets():
    tags = [SubquadMLPRegressor(loss=loss).__sklearn_tags__() for loss in ("squared_error", "poisson")]
    assert [tag.target_tags.positive_only for tag in tags] == [False, True]
    assert all(tag.target_tags.multi_output for tag in tags)


@OTHER_LOSSES
def test_single_and_double_precision_agree_on_other_losses(estimator_class, loss, k):
    X, y = data_for_loss(loss, k)
    single = X.astype(np.float32)
    parameters = {"loss": loss, "damping": 1.0, "cg_tol": 1e-5, "max_cg_iter": 200}
    in_double, in_single = (
        raw_outputs(fixed_steps(estimator_class, 3, precision=precision, **parameters).fit(single, y), single)
        for precision in ("double", "single")
    )
    assert in_single.dtype == np.float32
    np.testing.assert_allclose(in_single, in_double, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("factor", [10, 1e4])
def test_counts_far_from_the_training_rows_are_positive_and_finite(dtype, precision, factor):
    X, y = data_for_loss("poisson", None, dtype=dtype)
    model = fixed_steps(SubquadMLPRegressor, 3, loss="poisson", precision=precision).fit(X, y)
    predictions = model.predict(X * dtype(factor))
    assert predictions.dtype == dtype
    assert np.all((predictions > 0) & np.isfinite(predictions))


@pytest.mark.parametrize(
    ("unit", "precision", "tolerance"),
    [
        *((unit, "double", 1e-6) for unit in (1e-200, 1e-30, 1e30, 1e200)),
        *((unit, "single", 1e-4) for unit in (1e-22, 1e22)),
    ],
)
@pytest.mark.parametrize("n_outputs", [None, 3])
def test_counts_of_any_unit(unit, precision, tolerance, n_outputs):
    X, y = data_for_loss("poisson", n_outputs)
    parameters = {"loss": "poisson", "precision": precision, "cg_tol": 1e-10 if precision == "double" else 1e-6}
    expected = fixed_steps(SubquadMLPRegressor, 3, **parameters).fit(X, y).predict(X)
    scaled = fixed_steps(SubquadMLPRegressor, 3, **parameters).fit(X, y * unit).predict(X)
    np.testing.assert_allclose(scaled / unit, expected, rtol=tolerance)


@pytest.mark.parametrize(
    ("unit", "named"),
    [
        (
            1e40,
            r"The largest value of y, or of a column of it, is .*e\+41, .*from 8.27e-25 to 4.84e\+24. Use",
        ),
        (1e-40, r"is .*e-39, but where the network is float32, loss='poisson' .* Use precision='double', or scale y."),
    ],
)
@pytest.mark.parametrize("n_outputs", [None, 3])
def test_counts_that_single_precision_cannot_hold_are_refused(unit, named, n_outputs):
    X, y = data_for_loss("poisson", n_outputs)
    with pytest.raises(ValueError, match=named):
        small(SubquadMLPRegressor, loss="poisson", precision="single").fit(X, y * unit)
    model = small(SubquadMLPRegressor, loss="poisson", precision="double", early_stopping=False).fit(X, y * unit)
    assert model.score(X, y * unit) > 0.3
    # The network is what it is, whatever is asked of a fit that goes on.
    model.set_params(precision="single").partial_fit(X, y * unit)
    with pytest.raises(ValueError, match="of y_val, or of a column of it"):
        small(SubquadMLPRegressor, loss="poisson", precision="single").fit(X, y, X_val=X, y_val=y * unit)


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
    parameters = {"precision": precision_of(dtype), "n_jobs": 1, "random_state": 5}
    estimator = fixed_steps(estimator_class, 3, loss=loss, **parameters).fit(X, y)
    expected = raw_outputs(estimator, X)
    np.testing.assert_array_equal(raw_outputs(pickle.loads(pickle.dumps(estimator)), X), expected)
    np.testing.assert_array_equal(raw_outputs(clone(estimator).set_params(n_jobs=2).fit(X, y), X), expected)
    other = clone(estimator).set_params(random_state=6).fit(X, y)
    assert not np.allclose(raw_outputs(other, X), expected)
