"""What parts of the rows share, beside the same of all rows at once."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from sklearn_subquad import SubquadMLPRegressor
from sklearn_subquad._fit import part_statistics
from sklearn_subquad._fit.columns import Columns
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.part_statistics import Moments, Sample, SharedStatistics
from sklearn_subquad._fit.parts import parts_of
from sklearn_subquad._fit.scaling import InputScaling, Ramps
from sklearn_subquad._fit.target_statistics import features_to_fit
from sklearn_subquad._parts import summarise_part

rng = np.random.default_rng(0)
N = 300


def dense(**changes):
    X = rng.standard_normal((N, 4)) * [1, 10, 1e-3, 5] + [0, 3, 0, -2]
    for column, values in changes.items():
        X[:, int(column[1:])] = values
    return X


def with_gaps():
    X = dense()
    X[rng.random(X.shape) < 0.2] = np.nan
    X[:100, 1] = np.nan
    return X


CASES = {
    "numbers": dense(),
    "single precision": dense().astype(np.float32),
    "gaps": with_gaps(),
    "a constant and a rare indicator": dense(c1=7.25, c2=np.arange(N) == 17),
    "far from zero": dense(c0=1e9 + rng.random(N)),
    "large": dense() * 1e200,
    "an outlier": dense(c3=np.where(np.arange(N) == 250, 1e6, rng.standard_normal(N))),
    "sparse": csr_array(dense() * (rng.random((N, 4)) < 0.3)),
}
TABLE = pd.DataFrame({
    "number": rng.standard_normal(N),
    "two": rng.choice(["a", "b"], N),
    "few": pd.Categorical(rng.choice(["x", "y", "z", None], N)),
    "many": rng.integers(0, 40, N).astype(str) + np.array(["th"] * N, dtype=object),
    "late": np.where(np.arange(N) < 100, np.nan, rng.standard_normal(N)),
})  # fmt: skip


def rows_of(X, rows):
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def shared(X, y, sample_weight, n_parts, estimator=None):
    """`SharedStatistics` of so many parts one after the other, and the estimator's `Columns`."""
    estimator = SubquadMLPRegressor() if estimator is None else estimator
    cut = np.array_split(np.arange(len(y)), n_parts)
    parts = parts_of([(rows_of(X, rows), y[rows], sample_weight[rows]) for rows in cut])
    return SharedStatistics.merged(parts, [summarise_part(part, estimator, n_parts, 0) for part in parts])


def in_memory(X, y, sample_weight):
    """The rows as a fit in memory has them."""
    estimator = SubquadMLPRegressor()
    X = estimator._validated_features(X, "X", reset=True)
    return TrainingSet.of_distinct_rows(X, y[:, None], sample_weight, None, None, estimator._columns)[0]


def assert_same_scaling(found, expected, rtol):
    for name in ("mean", "scale", "tolerance"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol, atol=1e-12, err_msg=name)
    assert (found.squash is None) == (expected.squash is None)
    if expected.squash is not None:
        np.testing.assert_allclose(found.squash, expected.squash, rtol=rtol)
    assert (found.encoding is None) == (expected.encoding is None)
    if expected.encoding is not None:
        np.testing.assert_array_equal(found.encoding.knots, expected.encoding.knots)


@pytest.mark.parametrize("name", [*CASES, "table"])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_few_rows_in_parts_are_scaled_as_all_at_once(name, n_parts):
    X = CASES.get(name, TABLE)
    y, sample_weight = rng.standard_normal(N), rng.integers(1, 4, N).astype(float)
    statistics, rows = shared(X, y, sample_weight, n_parts), in_memory(X, y, sample_weight)
    sample = statistics.training_set(statistics.targets[:, None], statistics.sample_weight)
    assert statistics.n_rows == N
    np.testing.assert_array_equal(*(each.X.toarray() if name == "sparse" else each.X for each in (sample, rows)))
    for ramps in (Ramps(None), Ramps(4), Ramps(4, loud=True)):
        X = features_to_fit(rows, 0)
        expected = InputScaling.fit(X, rows.sample_weight, True, ramps, rows.group_sizes)
        rtol = 1e-6 if name == "far from zero" else 1e-10
        assert_same_scaling(statistics.input_scaling(sample, True, ramps, seed=0), expected, rtol)


def test_columns_of_all_parts_are_those_of_all_rows():
    estimator = SubquadMLPRegressor()
    estimator._validated_features(TABLE, "X", reset=True)
    statistics = shared(TABLE, rng.standard_normal(N), np.ones(N), 3)
    expected = estimator._columns
    np.testing.assert_array_equal(statistics.columns.gaps, expected.gaps)
    for found, levels in zip(statistics.columns.levels, expected.levels, strict=True):
        np.testing.assert_array_equal(found, levels)


def test_columns_of_numbers_lead_back_to_values_and_gaps():
    values = np.array([[1.5, 0, 2, np.nan], [np.nan, 1, np.nan, 5], [2.5, np.nan, 0, 17]])
    gaps = np.isnan(values) & [True, False, True, False]
    levels = None, np.array(["a", "b"]), np.array(["x", "y", "z"]), np.arange(20).astype(str)
    columns = Columns(levels, np.array([True, False, True, False]), 16)
    found, where = columns.values_and_gaps(columns.transform(values, gaps))
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(where, gaps)


@pytest.mark.parametrize("name", CASES)
def test_merged_moments_are_those_of_all_rows(name):
    X, sample_weight = CASES[name], rng.random(N) + 0.1
    cut = np.array_split(np.arange(N), [10, 150])
    found = Moments.merged([Moments.of_rows(X[rows], sample_weight[rows]) for rows in cut])
    values = X.toarray() if name == "sparse" else X.astype(float)
    for column, x in enumerate(values.T):
        known = ~np.isnan(x)
        unit = np.abs(x[known]).max()
        x, w = x[known] / unit, sample_weight[known]
        mean = np.average(x, weights=w)
        expected = w.sum(), mean, np.sqrt(np.average((x - mean) ** 2, weights=w)), x.min(), x.max()
        for moment, value in zip(("weight", "mean", "deviation", "low", "high"), expected, strict=True):
            scale = 1 if moment == "weight" else unit
            np.testing.assert_allclose(getattr(found, moment)[column] / scale, value, rtol=1e-6, atol=1e-14)


def test_a_sample_has_the_rows_of_the_smallest_keys(monkeypatch):
    monkeypatch.setattr(part_statistics, "SAMPLED_ROWS", 50)
    keys = [np.random.default_rng(seed).random(n) for seed, n in enumerate((400, 100, 30))]
    samples = [
        Sample.of_rows((x[:, None], x[:, None][:, :0], x, np.ones(len(x))), 40, seed) for seed, x in enumerate(keys)
    ]
    merged = Sample.merged(samples)
    # The part of most rows says how far its sample goes; all rows of smaller keys are in.
    limit = min(np.sort(keys[0])[40], np.sort(keys[1])[40], 1.0)
    everything = np.concatenate(keys)
    assert sorted(merged.keys) == sorted(everything[everything < limit])[:50]
    np.testing.assert_array_equal(merged.values[:, 0], merged.keys)
    assert len(merged.keys) > 40


def test_of_many_rows_extremes_and_moments_are_exact_and_quantiles_near(monkeypatch):
    monkeypatch.setattr(part_statistics, "SAMPLED_ROWS", 500)
    n = 20_000
    X = np.stack([rng.standard_normal(n), rng.exponential(size=n), np.arange(n) == 12_345], axis=1)
    y, ones = rng.standard_normal(n), np.ones(n)
    statistics = shared(X, y, ones, 7)
    sample = statistics.training_set(statistics.targets[:, None], statistics.sample_weight)
    assert 400 < len(sample) <= 500
    found = statistics.input_scaling(sample, True, Ramps(8), seed=0)
    np.testing.assert_allclose(found.mean[:1], X[:, :1].mean(axis=0), atol=1e-12)
    # A row in 20,000 is no constant column.
    assert not found.constant.any()
    np.testing.assert_allclose(found.scale[2], (1 - 1 / n) / 6)
    first, second = np.split(found.encoding.knots, [found.encoding.counts[0]])
    for knots, x in ((first, X[:, 0]), (second, X[:, 1])):
        assert (knots[0], knots[-1]) == (x.min(), x.max())
        shares = np.searchsorted(np.sort(x), knots) / n
        # The bound of Dvoretzky, Kiefer and Wolfowitz that fails once in a million times.
        assert np.abs(shares - np.linspace(0, 1, 9)).max() < np.sqrt(np.log(2e6) / (2 * len(sample)))
