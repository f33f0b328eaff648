"""Features that were constant in training have no say in predictions, and are learned where later parts vary them."""

import itertools

import numpy as np
import pytest
from cases import EVERY_LOSS
from small_fits import precision_of

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._network.network import Architecture, Network

NARROW = {"hidden_layer_sizes": (32, 32), "max_iter": 4, "n_folds": 1, "random_state": 0}
CONSTANTS = {"year": 2023.0, "zero": 0.0, "small": 1e-300, "large": -1e12, "tenth": 0.1}
# What a feature was plus this.
CHANGES = (1.0, -2023.0, 1e6, 1e-3)


def rows(n=120, dtype=np.float64):
    """Features of which the second and the last are to be constant, and targets of the others."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 5))
    return X.astype(dtype), X[:, 0] * X[:, 2] + X[:, 3]


def targets(estimator_class, loss, signal):
    if loss == "poisson":
        return np.round(np.exp(signal))
    return signal if estimator_class is SubquadMLPRegressor else np.digitize(signal, [-0.5, 0.5])


def outputs(model, X):
    """All that a model says of rows."""
    if isinstance(model, SubquadMLPClassifier):
        return [model.predict_proba(X), model.decision_function(X)]
    if model.out_activation_ == "identity":
        return list(model.predict(X, return_std=True))
    return [model.predict(X)]


def assert_constants_have_no_say(model, X, constant=(1, 4)):
    expected = outputs(model, X)
    for change in CHANGES:
        changed = X.copy()
        changed[:, list(constant)] += change
        for found, before in zip(outputs(model, changed), expected, strict=True):
            np.testing.assert_array_equal(found, before)


OPTIONS = [
    {"init": init, "standardize": standardize, "skip_connections": skip, "sparsifier": sparsifier}
    for init in ("gaussian", "axis_aligned")
    for standardize, skip, sparsifier in itertools.product((True, False), (True, False), ("shifted_relu", "topk"))
]
OPTIONS += [
    {"batch_size": 30},
    {"batch_size": 30, "init": "gaussian"},
    {"early_stopping": "loo", "init": "gaussian"},
    {"early_stopping": False, "init": "gaussian"},
    {"init_scale": 1.0, "init": "gaussian", "hidden_layer_sizes": (33, 33, 33)},
    {"warm_start": True, "init": "gaussian"},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_constant_features_have_no_say(options, dtype):
    X, y = rows(dtype=dtype)
    X[:, [1, 4]] = 2023.0, -0.1
    model = SubquadMLPRegressor(**NARROW | {"precision": precision_of(dtype)} | options).fit(X, y)
    if options.get("warm_start"):
        model.fit(X, y)
    assert_constants_have_no_say(model, X)
    assert not any(weights[row].any() for weights in model.coefs_ for row in input_rows(model, weights, (1, 4)))


def input_rows(model, weights, features):
    """Where features are in the weights of a layer, if it sees them."""
    n_hidden = len(weights) - model.n_features_in_
    return [n_hidden + feature for feature in features] if n_hidden in (0, *model.hidden_layer_sizes) else []


@EVERY_LOSS
def test_constant_features_have_no_say_for_any_loss(estimator_class, loss):
    X, signal = rows()
    X[:, [1, 4]] = 2023.0, -0.1
    model = estimator_class(loss=loss, init="gaussian", **NARROW).fit(X, targets(estimator_class, loss, signal))
    assert_constants_have_no_say(model, X)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("rounded", [False, True])
def test_any_number_may_be_the_constant_also_but_for_rounding(name, rounded, standardize):
    X, y = rows()
    X[:, [1, 4]] = CONSTANTS[name]
    if rounded:
        X[::3, 1] = np.nextafter(CONSTANTS[name], np.inf)
    model = SubquadMLPRegressor(init="gaussian", standardize=standardize, **NARROW).fit(X, y)
    assert_constants_have_no_say(model, X)


@pytest.mark.parametrize("standardize", [True, False])
def test_without_varying_features_the_model_is_constant(standardize):
    X, y = rows()
    X[:] = 3.0
    for model, y_of in (
        (SubquadMLPRegressor(init="gaussian", standardize=standardize, **NARROW), y),
        (SubquadMLPClassifier(standardize=standardize, **NARROW), y > 0.5),
    ):
        with pytest.warns(UserWarning, match="No step lowers"):
            model.fit(X, y_of)
        assert_constants_have_no_say(model, X, range(5))
    assert model.predict(X).tolist() == [False] * len(X)


def test_a_feature_that_varies_in_few_of_many_rows_is_no_constant():
    """Weights are drawn for it although it is zero in all rows that shifts are calibrated on."""
    X, y = rows(6000)
    X[:, 1] = 0
    X[17, 1] = 1
    options = {"standardize": False, "init": "gaussian", "hidden_layer_sizes": (16,), "max_iter": 1}
    model = SubquadMLPRegressor(early_stopping=False, random_state=0, **options).fit(X, y)
    assert np.abs(model.coefs_[0][1]).min() > 0


# ---- parts ------------------------------------------------------------------------------------------------------

PARTS = {
    "constant in the first part": [slice(0, 100), slice(100, 200), slice(200, 300)] * 4,
    "a first part of one row": [slice(0, 1), slice(100, 200), slice(200, 300)] * 4,
}


@pytest.mark.parametrize("init", ["gaussian", "axis_aligned"])
@pytest.mark.parametrize("parts", PARTS)
def test_later_parts_teach_what_a_feature_means(parts, init):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 3))
    X[:100, 1] = 1.0
    y = X[:, 0] + np.sin(2 * X[:, 1]) * (1 + X[:, 2] > 0)
    model = SubquadMLPRegressor(hidden_layer_sizes=(64, 64), init=init, n_folds=1, random_state=0)
    for part in PARTS[parts]:
        model.partial_fit(X[part], y[part])
    assert model.score(X[300:], y[300:]) > 0.85


def test_parts_after_a_fit_teach_what_a_feature_means():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((600, 3))
    X[:150, 1] = 7.0
    y = np.sin(2 * X[:, 0]) * X[:, 2] + X[:, 1]
    model = SubquadMLPRegressor(hidden_layer_sizes=(64, 64), n_folds=1, random_state=0)
    model.fit(X[:150], y[:150])
    assert model.score(X[300:], y[300:]) < 0
    for _ in range(6):
        for part in (slice(150, 225), slice(225, 300)):
            model.partial_fit(X[part], y[part])
    assert model.score(X[300:], y[300:]) > 0.8


# ---- pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("standardize", [True, False])
def test_constant_columns_are_exactly_zero(standardize, dtype):
    X = rows(dtype=dtype)[0]
    X[:, 1], X[:, 4] = 2023.0, 1e9
    if dtype == np.float64:
        X[::2, 4] = np.nextafter(1e9, 0)
    scaling = InputScaling.fit(X, np.ones(len(X)), standardize)
    assert scaling.constant.tolist() == [False, True, False, False, True]
    x = scaling.transform(X)
    assert not x[:, [1, 4]].any()
    # One that changes is seen alone, in its own unit.
    changed = X.copy()
    changed[:, 1] += 1
    moved = scaling.transform(changed)
    np.testing.assert_array_equal(np.delete(moved, 1, axis=1), np.delete(x, 1, axis=1))
    np.testing.assert_allclose(moved[:, 1], 1 / np.sqrt(5), rtol=1e-6)


@pytest.mark.parametrize("init", ["gaussian", "axis_aligned"])
@pytest.mark.parametrize("init_scale", [0.1, 1.0])
def test_weights_that_are_drawn_later_change_nothing_of_rows_without_the_feature(init, init_scale):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal((30, 3)), np.full(30, 0.5)])
    x[:, 1] = 0
    architecture = Architecture((33, 17), (0.3, 0.3), init=init, init_scale=init_scale)
    network = Network.initialise(architecture, x, np.ones(30), 1, 0)
    before, start = network.forward(x).output, [layer.input_weights for layer in network.layers]
    assert network.unseen().tolist() == [False, True, False, False]
    new = x.copy()
    new[:, 1] = rng.standard_normal(30)
    network.draw_unseen(np.array([True, True, True, False]), new, np.ones(30), 1)
    np.testing.assert_array_equal(network.forward(x).output, before)
    assert not network.unseen().any()
    for layer, weights in zip(network.layers, start, strict=True):
        np.testing.assert_array_equal(np.delete(layer.input_weights, 1, axis=1), np.delete(weights, 1, axis=1))
        assert not weights[:, 1].any()
    if architecture.mirrored:
        last = network.layers[-1].input_weights[:16, 1]
        np.testing.assert_array_equal(last[::2], last[1::2])
