"""Ramps between quantiles, against their definition."""

import itertools

import numpy as np
import pytest

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.encoding import PiecewiseLinearEncoding, _capped
from sklearn_subquad._fit.scaling import InputScaling, Ramps

SMALL = {"hidden_layer_sizes": (32, 32), "max_iter": 3, "random_state": 0, "early_stopping": False}


def columns(n=200, seed=0):
    """A smooth, a skewed, a rounded, a ternary, a binary, and a constant feature, and one that is mostly zero."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.standard_normal(n),
            np.exp(3 * rng.standard_normal(n)),
            np.round(rng.standard_normal(n)),
            rng.integers(3, size=n),
            rng.integers(2, size=n),
            np.full(n, 7.5),
            rng.standard_normal(n) * (rng.random(n) < 0.2),
        ]
    )


def fitted(X, n_bins=8, sample_weight=None):
    constant = X.min(axis=0) == X.max(axis=0)
    return PiecewiseLinearEncoding.fit(X, np.ones(len(X)) if sample_weight is None else sample_weight, constant, n_bins)


def knots_of(encoding):
    return np.split(encoding.knots, np.cumsum(encoding.counts)[:-1])


def oracle(encoding, X):
    """Row by row and ramp by ramp."""
    rows = []
    for x in X:
        row = list(x)
        for value, knots in zip(x, knots_of(encoding), strict=True):
            for low, high in itertools.pairwise(knots):
                row.append(min(max((value - low) / (high - low), 0.0), 1.0))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_bins", [2, 3, 8, 1000])
def test_rows_are_encoded_as_defined(n_bins, dtype):
    X = columns().astype(dtype)
    encoding, new = fitted(X, n_bins), 3 * columns(seed=1).astype(dtype)
    for rows in (X, new):
        encoded = encoding.transform(rows)
        assert encoded.dtype == dtype
        assert encoded.shape == (len(rows), encoding.n_columns)
        np.testing.assert_allclose(
            encoded, oracle(encoding, rows.astype(np.float64)), atol=20 * np.finfo(dtype).eps, rtol=1e-6
        )


def test_knots_are_values_at_equal_shares_of_the_rows():
    X = np.random.default_rng(0).permutation(np.arange(101.0))[:, None]
    # Ten bins of 101 rows: the first knot is the least value, and each of the others ends a bin.
    np.testing.assert_array_equal(fitted(X, 10).knots, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100])


@pytest.mark.parametrize("n_bins", [2, 5, 40])
def test_bins_hold_equal_shares_where_no_value_repeats(n_bins):
    x = columns()[:, :1]
    counts = np.histogram(x, fitted(x, n_bins).knots)[0]
    assert len(counts) == n_bins
    assert np.abs(counts - len(x) / n_bins).max() <= 2


def test_few_values_are_knots_themselves():
    X = columns()
    knots = knots_of(fitted(X))
    np.testing.assert_array_equal(knots[2], np.unique(X[:, 2]))
    np.testing.assert_array_equal(knots[3], [0, 1, 2])


def test_features_of_one_or_two_values_have_no_ramps():
    encoding = fitted(columns())
    assert encoding.counts[4] == encoding.counts[5] == 0
    assert (encoding.n_ramps > 0).sum() == 5


def test_a_value_of_most_rows_is_one_knot():
    knots = knots_of(fitted(columns()))[6]
    assert (np.diff(knots) > 0).all()
    assert (knots == 0).sum() == 1


def test_values_beside_one_of_most_rows_have_knots_as_without_it():
    amounts = np.random.default_rng(0).permutation(np.arange(1.0, 71.0))
    for n_zeros in (300, 3000):
        X = np.concatenate([np.zeros(n_zeros), amounts])[:, None]
        # One bin is for zero, and seven are for seventy others.
        np.testing.assert_array_equal(fitted(X, 8).knots, [0, 10, 20, 30, 40, 50, 60, 70])


@pytest.mark.parametrize("n_bins", [2, 3, 8])
@pytest.mark.parametrize("n_spikes", [0, 1, 2, 5])
def test_no_value_counts_for_more_than_a_bin(n_bins, n_spikes):
    rng = np.random.default_rng(n_spikes)
    weights = rng.uniform(0.1, 1, 60)
    weights[rng.choice(60, n_spikes, replace=False)] *= 1000
    capped, expected = _capped(weights, n_bins), weights
    # By its definition, applied until nothing changes.
    for _ in range(2000):
        expected = np.minimum(expected, expected.sum() / n_bins)
    np.testing.assert_allclose(capped, expected, rtol=1e-6)
    assert capped.max() <= capped.sum() / n_bins * (1 + 1e-12)


def test_weights_are_capped_next_to_one_that_outweighs_them_by_far():
    weights = np.append(np.ones(100), 1e18)
    np.testing.assert_allclose(_capped(weights, 5), np.append(np.ones(100), 25.0))


@pytest.mark.parametrize("n_bins", [3, 8])
def test_a_weight_is_a_row_repeated(n_bins):
    X, weights = columns(), np.random.default_rng(1).integers(1, 5, 200)
    weighted, repeated = fitted(X, n_bins, weights.astype(float)), fitted(np.repeat(X, weights, axis=0), n_bins)
    np.testing.assert_array_equal(weighted.knots, repeated.knots)
    np.testing.assert_array_equal(weighted.counts, repeated.counts)
    # Their unit and their order do not matter.
    order = np.random.default_rng(2).permutation(200)
    other = fitted(X[order], n_bins, 1e-3 * weights[order])
    np.testing.assert_array_equal(weighted.knots, other.knots)


@pytest.mark.parametrize("scale", [1e-300, 1e-38, 1.0, 1e30, 1e300])
def test_ramps_are_finite_in_every_unit(scale):
    X = columns() * scale
    encoding = fitted(X)
    with np.errstate(all="raise", under="ignore"):
        ramps = encoding.transform(X)[:, X.shape[1] :]
    assert np.isfinite(ramps).all()
    assert (ramps >= 0).all()
    assert (ramps <= 1).all()


def test_knots_that_single_precision_cannot_tell_apart_make_a_step():
    X = 1.0 + np.array([0.0, 1e-9, 2e-9, 1.0])[:, None]
    ramps = fitted(X).transform(X.astype(np.float32))[:, 1:]
    assert np.isfinite(ramps).all()
    np.testing.assert_array_equal(ramps[-1], 1)


class TestScaling:
    def test_ramps_of_a_feature_have_together_its_variance(self):
        X = np.column_stack([np.random.default_rng(0).random(2000), columns(2000)])
        scaling = InputScaling.fit(X, np.ones(len(X)), True, Ramps(8))
        variances, first = scaling.transform(X)[:, :-1].var(axis=0), X.shape[1]
        for feature, n_ramps in enumerate(scaling.encoding.n_ramps):
            if feature in (0, 4):
                assert variances[first : first + n_ramps].sum() == pytest.approx(variances[feature], rel=1e-6)
            # Where a deviation from the mean would exceed six, features and ramps count less.
            assert variances[first : first + n_ramps].sum() <= 1.001 / scaling.encoding.n_columns
            first += n_ramps

    def test_every_loud_ramp_has_the_variance_of_its_feature(self):
        X = np.random.default_rng(0).random((2000, 2)) * [1, 50]
        scaling = InputScaling.fit(X, np.ones(len(X)), True, Ramps(4, loud=True))
        np.testing.assert_allclose(scaling.transform(X)[:, :-1].var(axis=0), 1 / scaling.encoding.n_columns, rtol=1e-6)

    @pytest.mark.parametrize("unit", [1e-3, 1.0, 50.0])
    def test_without_standardisation_ramps_have_the_unit_of_their_feature(self, unit):
        X = unit * np.random.default_rng(0).random((2000, 1))
        scaling = InputScaling.fit(X, np.ones(len(X)), False, Ramps(8))
        x = scaling.transform(X)[:, :-1] * np.sqrt(scaling.encoding.n_columns)
        np.testing.assert_allclose(x[:, 0], X[:, 0], rtol=1e-14)
        assert x[:, 1:].var(axis=0).sum() == pytest.approx(X.var(), rel=1e-6)

    def test_rows_that_do_not_vary_have_no_encoding(self):
        X = columns()[:, 4:6]
        assert InputScaling.fit(X, np.ones(len(X)), True, Ramps(8)).encoding is None


@pytest.mark.parametrize(
    ("n_rows", "n_features", "expected"),
    [
        (10, 1, None),
        (27, 1, 3),
        (100, 1, 10),
        (1000, 1, 16),
        (343, 3, 7),
        (1000, 2, 8),
        (1000, 25, 8),
        (3000, 4, 8),
        (1000, 32, 8),
        (1000, 85, 3),
        (1000, 86, None),
    ],
)
def test_auto_is_the_cube_root_of_the_rows_within_the_columns(n_rows, n_features, expected):
    X = np.random.default_rng(0).standard_normal((n_rows, n_features))
    model = SubquadMLPRegressor(**SMALL).fit(X, X[:, 0])
    counts = model._state_["knot_counts"]
    assert counts is None if expected is None else set(counts - 1) == {expected}


@pytest.mark.parametrize("Estimator", [SubquadMLPRegressor, SubquadMLPClassifier])
@pytest.mark.parametrize("n_bins", [None, 2, 50])
def test_the_parameter_sets_the_number(Estimator, n_bins):
    X = np.random.default_rng(0).standard_normal((60, 3))
    model = Estimator(n_bins=n_bins, **SMALL).fit(X, X[:, 0] > 0)
    n_ramps = 0 if n_bins is None else 3 * n_bins
    assert [len(part) for part in model.coefs_] == [3 + n_ramps, 32 + 3 + n_ramps, 32 + 3 + n_ramps]
    # Attributes are of features as they are passed.
    assert model.n_features_in_ == 3


def test_steps_in_a_feature_are_learned_from_few_rows():
    rng = np.random.default_rng(0)
    X = rng.random((600, 4))
    y = (X[:, 0] > 0.3).astype(float) + (X[:, 1] > 0.8) - 2.0 * (X[:, 2] < 0.1)
    errors = {}
    for n_bins in (None, 20):
        model = SubquadMLPRegressor(hidden_layer_sizes=(256, 256), n_bins=n_bins, random_state=0).fit(X[:300], y[:300])
        errors[n_bins] = np.sqrt(np.mean((model.predict(X[300:]) - y[300:]) ** 2))
    assert errors[20] < 0.8 * errors[None]


def test_warm_starts_and_parts_keep_the_ramps_of_the_first_fit():
    X, other = columns(), 5 + columns(seed=3)
    y = X[:, 0]
    model = SubquadMLPRegressor(warm_start=True, **SMALL).fit(X, y)
    knots = model._state_["knots"]
    model.fit(other, y)
    np.testing.assert_array_equal(model._state_["knots"], knots)
    parts = SubquadMLPRegressor(**SMALL).partial_fit(X, y)
    knots = parts._state_["knots"]
    np.testing.assert_array_equal(parts.partial_fit(other, y)._state_["knots"], knots)


def test_predictions_far_beyond_the_knots_are_finite():
    X = columns()
    model = SubquadMLPRegressor(**SMALL).fit(X, X[:, 0])
    assert np.isfinite(model.predict(1e6 * X)).all()
