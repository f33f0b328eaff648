"""The metric of the features: moments of gradients against dense ones, its scale, and when fits take it."""

import pickle

import numpy as np
import pytest
from cases import DenseNetwork

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.metric import average_gradient_outer_product, learned_metric
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._network.network import Architecture, Network

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])


def make_network(widths=(40, 30), n_outputs=1, dtype=np.float64, skip_connections=True, sparsifier="shifted_relu"):
    """A random network and 25 rows of four inputs."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal((25, 3)), np.full(25, 0.5)]).astype(dtype)
    architecture = Architecture(
        widths,
        (0.3,) * len(widths),
        sparsifier=sparsifier,
        skip_connections=skip_connections,
        init_scale=0.2,
    )
    network = Network.initialise(architecture, x, np.ones(25), n_outputs, seed=0)
    A, inputs = network.output_weights
    if inputs is not None:
        network.output_weights = (A, rng.standard_normal(inputs.shape).astype(dtype))
    return network, x


def dense_gradients(network, x):
    """Gradients (n, k, d + 1) of the outputs by x, by the chain rule forwards from the inputs."""
    dense = DenseNetwork.of(network)
    _, _, slopes = dense.forward(x)
    gradients = np.empty((len(x), dense.output[0].shape[1], x.shape[1]))
    for row in range(len(x)):
        by_x = None
        for depth, slope in enumerate(slopes):
            of_z = 0.0
            if dense.hidden[depth] is not None:
                of_z = of_z + dense.hidden[depth] @ by_x
            if dense.inputs[depth] is not None:
                of_z = of_z + dense.inputs[depth]
            by_x = slope[row][:, None] * of_z
        gradients[row] = dense.output[0].T @ by_x
        if dense.output[1] is not None:
            gradients[row] += dense.output[1].T
    return gradients


def dense_moments(network, x, sample_weight):
    gradients = dense_gradients(network, x)[:, :, :-1]
    of_rows = np.einsum("nki,nkj->nij", gradients, gradients) / gradients.shape[1]
    return np.average(of_rows, axis=0, weights=sample_weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("widths", [(40,), (40, 30), (20, 1, 50)])
@pytest.mark.parametrize("n_outputs", [1, 2, 3])
@pytest.mark.parametrize("skip_connections", [True, False])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
def test_moments_are_those_of_dense_gradients(dtype, widths, n_outputs, skip_connections, sparsifier):
    network, x = make_network(widths, n_outputs, dtype, skip_connections, sparsifier)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(x))
    moments = average_gradient_outer_product(network, x, weights, seed=0)
    expected = dense_moments(network, x, weights)
    assert moments.dtype == np.float64
    np.testing.assert_allclose(moments, expected, atol=1e3 * np.finfo(dtype).eps * np.abs(expected).max())


def test_moments_of_many_outputs_are_right_in_expectation():
    network, x = make_network(n_outputs=6)
    ones, n_draws = np.ones(len(x)), 400
    draws = np.array([average_gradient_outer_product(network, x, ones, seed) for seed in range(n_draws)])
    # Five standard errors of the mean, as the draws themselves have them.
    error = 5 * draws.std(axis=0) / np.sqrt(n_draws)
    assert (np.abs(draws.mean(axis=0) - dense_moments(network, x, ones)) <= error).all()


def test_rows_in_parts_have_the_same_moments(monkeypatch):
    network, x = make_network(n_outputs=2)
    ones = np.ones(len(x))
    whole = average_gradient_outer_product(network, x, ones, seed=0)
    monkeypatch.setattr(Network, "row_batches", lambda self, n_rows: [slice(0, 10), slice(10, n_rows)])
    np.testing.assert_allclose(average_gradient_outer_product(network, x, ones, seed=0), whole, rtol=1e-12)


def test_metric_is_the_fourth_root_of_the_moments():
    factors = np.random.default_rng(0).standard_normal((5, 3))
    # Of rank three: rounding leaves eigenvalues below zero.
    moments = factors @ factors.T
    metric = learned_metric(moments)
    np.testing.assert_allclose(metric, metric.T, atol=1e-14)
    powers = np.linalg.matrix_power(metric, 4)
    np.testing.assert_allclose(powers, moments / np.linalg.eigvalsh(moments)[-1], atol=1e-9)


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_moments_that_say_nothing_give_no_metric(value):
    assert learned_metric(np.full((5, 5), value)) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("standardize", [True, False])
def test_scaling_with_a_metric_keeps_the_mean_square(dtype, standardize):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((2500, 4)) * [1, 2, 3, 4]).astype(dtype)
    weights, metric = rng.uniform(0.5, 2, len(X)), np.diag([3.0, 1.0, 0.1, 0.0]) + 0.2
    plain = InputScaling.fit(X, weights, standardize)
    scaling = InputScaling.fit(X, weights, standardize, metric)
    x, without = scaling.transform(X), plain.transform(X)
    assert x.dtype == dtype
    direction = without[:, :-1].astype(np.float64) @ metric
    factor = np.sqrt(np.average((without[:, :-1].astype(np.float64) ** 2).sum(axis=1), weights=weights))
    factor /= np.sqrt(np.average((direction**2).sum(axis=1), weights=weights))
    np.testing.assert_allclose(x[:, :-1], factor * direction, atol=100 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(x[:, -1], without[:, -1])


def test_a_metric_that_no_row_reaches_is_left_out():
    X = np.column_stack([np.arange(10.0), np.ones(10)])
    assert InputScaling.fit(X, np.ones(10), True, np.diag([0.0, 1.0])).metric is None


def one_direction(estimator_class, n=600, d=12):
    """Rows of which only one oblique direction says anything about y, and labels or numbers."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    signal = np.sin(X[:, 0] - X[:, 1]) + (X[:, 0] - X[:, 1]) ** 2 / 4
    return X, signal if estimator_class is SubquadMLPRegressor else (signal > np.median(signal)).astype(int)


def model(estimator_class, **parameters):
    return estimator_class(
        **{"hidden_layer_sizes": (256, 256), "random_state": 0, "max_iter": 10, "n_bins": None, "n_folds": 1}
        | {"feature_metric": "learned"}
        | parameters
    )


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 200])
def test_directions_that_matter_are_found(estimator_class, batch_size):
    X, y = one_direction(estimator_class)
    fitted, new = slice(300), slice(300, None)
    with_metric = model(estimator_class, batch_size=batch_size).fit(X[fitted], y[fitted])
    without = model(estimator_class, batch_size=batch_size, feature_metric=None).fit(X[fitted], y[fitted])
    assert without._state_["input_metric"] is None
    assert max(with_metric.validation_scores_) > max(without.validation_scores_)
    vector = np.linalg.eigh(with_metric._state_["input_metric"])[1][:, -1]
    assert abs(vector[0] - vector[1]) / np.sqrt(2) > 0.9
    assert with_metric.score(X[new], y[new]) > without.score(X[new], y[new]) + 0.02


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 200])
def test_a_model_with_a_metric_is_its_attributes(estimator_class, batch_size):
    X, y = one_direction(estimator_class)
    estimator = model(estimator_class, batch_size=batch_size).fit(X, y)
    state = estimator._state_
    assert state["input_metric"] is not None
    h, features = np.zeros((len(X), 0)), (X - state["input_mean"]) / state["input_scale"] / np.sqrt(X.shape[1])
    *layers, (A, intercept) = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    for (W, b), shift, gain in zip(layers, estimator.shifts_, estimator.gains_, strict=True):
        h = gain * np.maximum(np.hstack([h, features]) @ W + b - shift, 0)
    output = np.hstack([h, features]) @ A + intercept
    predicted = estimator.predict(X)
    if estimator_class is SubquadMLPRegressor:
        np.testing.assert_allclose(predicted, (output * state["target_scale"] + state["target_mean"])[:, 0], atol=1e-9)
    else:
        decisions = (2 * (output * state["target_scale"] + state["target_mean"]) - 1)[:, 0]
        np.testing.assert_allclose(estimator.decision_function(X), decisions, atol=1e-9)
    assert pickle.loads(pickle.dumps(estimator)).predict(X).tobytes() == predicted.tobytes()
    assert estimator.phase_times_["metric"] > 0


def test_deviations_are_those_of_a_model_with_a_metric():
    X, y = one_direction(SubquadMLPRegressor)
    y = y + 0.3 * np.random.default_rng(1).standard_normal(len(y))
    estimator = model(SubquadMLPRegressor).fit(X[:400], y[:400])
    assert estimator._state_["input_metric"] is not None
    mean, std = estimator.predict(X[400:], return_std=True)
    # 200 rows: 0.9 to four standard errors of a share, 0.021, and of a noise level from 40 rows, 0.04.
    assert np.mean(np.abs(y[400:] - mean) < 1.645 * std) == pytest.approx(0.9, abs=4 * np.hypot(0.021, 0.04))


@pytest.mark.parametrize(
    ("early_stopping", "batch_size"), [("validation", "auto"), ("validation", 100), (False, "auto")]
)
def test_every_fit_is_made_twice(early_stopping, batch_size, capsys):
    X, y = one_direction(SubquadMLPRegressor, n=250)
    options = {"early_stopping": early_stopping, "batch_size": batch_size, "verbose": 1, "max_iter": 3}
    model(SubquadMLPRegressor, **options).fit(X, y)
    printed = capsys.readouterr().out
    n_parts = 4 if early_stopping else 1
    assert printed.count("Fitting again, with the learned metric of the features.") == n_parts
    assert printed.count("Finding the number of steps: 225 rows to fit, 25 held out.") == (
        n_parts if early_stopping else 0
    )


def test_targets_that_nothing_explains_give_no_metric():
    X, y = np.random.default_rng(0).standard_normal((60, 3)), np.zeros(60)
    assert model(SubquadMLPRegressor).fit(X, y)._state_["input_metric"] is None


def test_a_fit_that_goes_on_keeps_its_metric():
    X, y = one_direction(SubquadMLPRegressor, n=250)
    estimator = model(SubquadMLPRegressor, warm_start=True).fit(X[:200], y[:200])
    metric = estimator._state_["input_metric"]
    for go_on in (estimator.fit, estimator.partial_fit):
        go_on(X[200:], y[200:])
        assert np.array_equal(estimator._state_["input_metric"], metric)
