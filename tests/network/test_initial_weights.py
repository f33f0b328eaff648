"""Weights that start on single features: how they are shared out, and what they are good for."""

import numpy as np
import pytest

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._network.initial_weights import axis_aligned

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
SCALES = np.array([3.0, 0.0, 1.0, 0.2, 2.0, 0.0])


def inputs(scales=SCALES, dtype=np.float64, n=200):
    """Network inputs of features with these scales, and weights of the rows."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_normal((n, len(scales))) * scales, np.full(n, 0.5)])
    return x.astype(dtype), rng.uniform(0.5, 2, n)


def draw(x, sample_weight, width=1000, seed=0):
    return axis_aligned(np.random.SeedSequence(seed), width, x, sample_weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 7, 1000])
def test_every_neuron_meets_one_feature_and_the_constant(dtype, width):
    weights = draw(*inputs(dtype=dtype), width)
    assert weights.dtype == dtype
    assert weights.shape == (width, 7)
    assert (np.count_nonzero(weights[:, :-1], axis=1) == 1).all()
    assert weights[:, -1].all()


@pytest.mark.parametrize("width", [10, 1000])
def test_features_share_neurons_by_their_mean_square(width):
    x, sample_weight = inputs()
    mean_square = np.average(x[:, :-1] ** 2, axis=0, weights=sample_weight)
    counts = np.count_nonzero(draw(x, sample_weight, width)[:, :-1], axis=0)
    # At both ends of a feature's part of the line one neuron more or less.
    assert (np.abs(counts - width * mean_square / mean_square.sum()) < 2).all()
    assert (counts[SCALES == 0] == 0).all()


def test_neurons_of_every_feature_have_the_mean_square_of_gaussian_weights():
    x, sample_weight = inputs()
    z = x[:, :-1] @ draw(x, sample_weight, 20_000)[:, :-1].T
    met = np.nonzero(draw(x, sample_weight, 20_000)[:, :-1])[1]
    squares = np.average(z**2, axis=0, weights=sample_weight)
    expected = np.average((x[:, :-1] ** 2).sum(axis=1), weights=sample_weight)
    for feature in np.flatnonzero(SCALES):
        of_feature = squares[met == feature] / expected
        # Squares of normal numbers: five standard errors of their mean.
        assert abs(of_feature.mean() - 1) < 5 * np.sqrt(2 / len(of_feature))


def test_both_precisions_start_on_the_same_features():
    single, double = (draw(*inputs(dtype=dtype)) for dtype in (np.float32, np.float64))
    np.testing.assert_array_equal(single != 0, double != 0)
    np.testing.assert_allclose(single, double, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "scale"), [(np.float64, 1e200), (np.float64, 1e-200), (np.float32, 1e30)])
def test_numbers_whose_squares_leave_the_range_are_shared_out_as_others(dtype, scale):
    x, sample_weight = inputs()
    scaled = np.column_stack([x[:, :-1] * scale, x[:, -1]]).astype(dtype)
    np.testing.assert_allclose(draw(scaled, sample_weight), draw(x, sample_weight), rtol=1e-5)


def test_features_that_are_zero_throughout_share_neurons_alike():
    weights = draw(*inputs(scales=np.zeros(4)))
    assert (np.count_nonzero(weights[:, :-1], axis=0) == 250).all()
    assert np.isfinite(weights).all()


def along_axes(estimator_class, n=500, d=8):
    """Rows, and targets that jump along three of the axes."""
    X = np.random.default_rng(0).uniform(-1, 1, (n, d))
    signal = np.sign(X[:, 0] - 0.3) + np.sign(X[:, 1] + 0.4) + np.sign(np.abs(X[:, 2]) - 0.5)
    return X, signal if estimator_class is SubquadMLPRegressor else (signal > 0).astype(int)


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 200])
def test_targets_along_axes_are_learned_better_from_weights_along_axes(estimator_class, batch_size):
    X, y = along_axes(estimator_class)
    gains = []
    for seed in range(3):
        scores = {}
        for init in ("axis_aligned", "gaussian"):
            parameters = {"hidden_layer_sizes": (128, 128), "batch_size": batch_size, "random_state": seed}
            # Ramps would find the jumps from either.
            parameters["n_bins"] = None
            scores[init] = estimator_class(init=init, **parameters).fit(X[:300], y[:300]).score(X[300:], y[300:])
        gains.append(scores["axis_aligned"] - scores["gaussian"])
    assert np.mean(gains) > 0.015
