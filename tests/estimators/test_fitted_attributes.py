"""Fitted attributes: which there are, their shapes, and that they describe the network that predicts."""

import numpy as np
import pytest
from cases import first_split
from sklearn.base import is_classifier
from sklearn.preprocessing import StandardScaler
from small_fits import BOTH, classification_data, data_for, data_for_loss, fixed_steps, regression_data, small

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@BOTH
@pytest.mark.parametrize("early_stopping", ["loo", "validation", False])
def test_fitted_attributes(estimator_class, early_stopping):
    X, y = data_for(estimator_class)
    estimator = small(estimator_class, density=(0.1, 0.3), early_stopping=early_stopping).fit(X, y)
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
        assert len(estimator.validation_scores_) == n_steps + 1
        assert estimator.best_iter_ == np.argmax(estimator.validation_scores_)
    assert estimator.shifts_.shape == estimator.gains_.shape == estimator.densities_.shape == (2,)
    assert np.all(estimator.shifts_ > 0)
    assert np.all(estimator.gains_ > 0)
    assert np.all((estimator.densities_ > 0) & (estimator.densities_ < 0.6))
    assert estimator.densities_[0] < estimator.densities_[1]
    assert type(estimator.density_curve_) is np.ndarray
    assert estimator.density_curve_.shape == (n_steps + 1, 2)
    # The curve is of the fitted rows; so few rows are all counted.
    fitted = first_split(estimator, y, 0.1)[0] if early_stopping == "validation" else slice(None)
    for rows, densities in (
        (fitted, estimator.density_curve_[estimator.best_iter_]),
        (slice(None), estimator.densities_),
    ):
        np.testing.assert_allclose(densities, forward_pass(estimator, X[rows])[1], atol=1e-3)
    assert len(estimator.rank_curve_) == n_steps + 1
    assert all(type(rank) is int for rank in estimator.rank_curve_)
    assert estimator.rank_curve_[0] == 0
    assert min(estimator.rank_curve_[1:]) >= len(X[fitted])
    if early_stopping is False:
        # Otherwise going back to the best iterate may take more.
        assert max(estimator.rank_curve_) == estimator.rank_
    assert estimator.damping_ > 0
    assert estimator.rank_ >= len(X[fitted])
    assert estimator.n_layers_ == 4
    assert estimator.n_outputs_ == (3 if is_classifier(estimator) else 1)
    assert estimator.out_activation_ == "identity"
    assert isinstance(estimator.stop_reason_, str)
    assert estimator.n_features_in_ == 5
    assert {"init", "forward", "jacobian", "solve", "update", "flush"} <= set(estimator.phase_times_)
    assert all(seconds >= 0 for seconds in estimator.phase_times_.values())
    if is_classifier(estimator):
        np.testing.assert_array_equal(estimator.classes_, [0, 1, 2])


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
        precision="double",
    ).fit(X, y)
    output, densities = forward_pass(estimator, X)
    np.testing.assert_allclose(estimator.predict(X).reshape(len(X), -1), output, atol=1e-10)
    np.testing.assert_allclose(estimator.densities_, densities, rtol=1e-12)


@pytest.mark.parametrize("standardize", [True, False])
def test_attributes_describe_the_network_of_a_classifier(standardize):
    X, y = classification_data()
    estimator = small(SubquadMLPClassifier, standardize=standardize, precision="double", max_iter=2).fit(10 * X + 3, y)
    output, _ = forward_pass(estimator, 10 * X + 3)
    np.testing.assert_allclose(estimator.decision_function(10 * X + 3), output, atol=1e-10)


@pytest.mark.parametrize("skip_connections", [True, False])
def test_attributes_describe_the_network_of_counts(skip_connections):
    X, y = data_for_loss("poisson", 3)
    parameters = {"loss": "poisson", "skip_connections": skip_connections, "precision": "double"}
    estimator = fixed_steps(SubquadMLPRegressor, 2, **parameters).fit(X, y)
    output, _ = forward_pass(estimator, X)
    np.testing.assert_allclose(np.log(estimator.predict(X)), output, atol=1e-10)


def test_standardising_inside_equals_standardising_outside():
    X, y = regression_data()
    X = X * [1, 10, 100, 0.1, 1] + 5
    inside = small(SubquadMLPRegressor).fit(X, y).predict(X)
    Z = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(small(SubquadMLPRegressor, standardize=False).fit(Z, y).predict(Z), inside, rtol=1e-6)


@pytest.mark.parametrize("n_outputs", [None, 2])
def test_loss_curve_is_the_mean_square_of_scaled_residuals(n_outputs):
    X, y = regression_data(n_outputs=n_outputs)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(X))
    estimator = fixed_steps(SubquadMLPRegressor, 3).fit(X, y, sample_weight=weights)
    residual = (y - estimator.predict(X)).reshape(len(X), -1) / estimator._state_["target_scale"]
    assert estimator.loss_curve_[-1] == pytest.approx(np.average((residual**2).mean(axis=1), weights=weights))
