"""Deviations of several networks: the mixture's, and those of its mean."""

import numpy as np
import pytest

from sklearn_subquad._fit.mixture import deviation_scale, mixture_deviation


def networks(n=400, k=2, seed=0):
    """Means and deviations of five networks, and weights."""
    rng = np.random.default_rng(seed)
    weights = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
    return rng.standard_normal((5, n, k)), rng.uniform(2, 3, (5, n, k)), weights


def test_deviations_of_a_mixture():
    means, deviations, weights = networks()
    draws = np.random.default_rng(1).choice(5, p=weights, size=200_000)
    noise = np.random.default_rng(2).standard_normal(len(draws))
    found = mixture_deviation(means, deviations, weights)
    for row, output in ((0, 0), (1, 1)):
        values = means[draws, row, output] + noise * deviations[draws, row, output]
        # The deviation of a sample deviation of n values is that over sqrt(2 n), and a little more of a mixture.
        assert found[row, output] == pytest.approx(values.std(), rel=5 / np.sqrt(2 * len(draws)))


def test_the_scale_by_its_formula():
    means, deviations, weights = networks()
    means[..., 1] *= 3
    sample_weight = np.random.default_rng(1).uniform(0, 2, means.shape[1])
    own = np.average(deviations**2, axis=0, weights=weights)
    spread = np.average((means - np.average(means, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
    share = np.average((own - spread) / (own + spread), axis=0, weights=sample_weight)
    # The second output's networks differ more than they doubt themselves.
    assert share[0] > 0.25 > share[1]
    np.testing.assert_allclose(deviation_scale(means, deviations, weights, sample_weight), [np.sqrt(share[0]), 0.5])


def test_a_few_rows_on_which_networks_are_far_apart_do_not_decide():
    means, deviations, weights = networks()
    before = deviation_scale(means, deviations, weights, np.ones(400))
    means[:, :8] *= 1e6
    after = deviation_scale(means, deviations, weights, np.ones(400))
    # A share is between -1 and 1.
    assert np.all(np.abs(after**2 - before**2) <= 2 * 8 / 400)


def test_scaled_deviations_are_those_of_the_errors_of_the_mean():
    """Networks that err independently, each as it says, beside noise that they have in common."""
    rng = np.random.default_rng(3)
    n, n_networks, noise, own = 20_000, 4, 1.0, 0.8
    truth, weights = rng.standard_normal((n, 1)), np.full(n_networks, 1 / n_networks)
    means = truth + own * rng.standard_normal((n_networks, n, 1))
    deviations = np.full((n_networks, n, 1), np.hypot(noise, own))
    errors = truth + noise * rng.standard_normal((n, 1)) - means.mean(axis=0)
    scale = deviation_scale(means, deviations, weights, np.ones(n))
    scaled = scale * mixture_deviation(means, deviations, weights)
    # A mean square of n normal values is off by sqrt(2 / n) of itself. The spread of four networks varies from row to
    # row, and a mean of ratios is not the ratio of the means.
    assert np.mean(scaled**2) == pytest.approx(np.mean(errors**2), rel=5 * np.sqrt(2 / n) + 0.05)


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_any_unit(unit):
    means, deviations, weights = networks()
    wanted = mixture_deviation(means, deviations, weights)
    np.testing.assert_allclose(mixture_deviation(unit * means, unit * deviations, weights), unit * wanted, rtol=1e-12)
    np.testing.assert_allclose(
        deviation_scale(unit * means, unit * deviations, weights, np.ones(400)),
        deviation_scale(means, deviations, weights, np.ones(400)),
    )


def test_networks_that_agree_and_are_sure():
    zeros, weights = np.zeros((3, 4, 2)), np.full(3, 1 / 3)
    assert not mixture_deviation(zeros, zeros, weights).any()
    np.testing.assert_array_equal(deviation_scale(zeros, zeros, weights, np.ones(4)), [1, 1])
