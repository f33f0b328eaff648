"""Means of targets by level, beside scikit-learn's encoder, and of rows that they are not among."""

import numpy as np
import pytest
from sklearn.preprocessing import TargetEncoder

from sklearn_subquad._fit.columns import Columns
from sklearn_subquad._fit.data import GivenRows, TrainingSet
from sklearn_subquad._fit.target_statistics import TargetStatistics, features_to_fit
from sklearn_subquad._utils.random_streams import Stream, generator

rng = np.random.default_rng(0)


def means_by_levels(code, y):
    """Means of rows of every level, and the variances within levels and between them, by loops."""
    groups = [y[code == level] for level in np.unique(code)]
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (len(y) - len(groups))
    between = sum(len(group) * (group.mean() - y.mean()) ** 2 for group in groups) - (len(groups) - 1) * within
    return within, between / (len(y) - sum(len(group) ** 2 for group in groups) / len(y))


def rows(code, Y, sample_weight, n_levels):
    columns = Columns((np.arange(n_levels).astype(str),), np.zeros(1, dtype=bool), max_indicators=2)
    X = np.asarray(code, dtype=float)[:, None]
    n = len(X)
    return TrainingSet(X, Y, sample_weight, GivenRows(X, Y, None), np.arange(n), np.arange(n), columns)


@pytest.mark.parametrize("n_levels", [3, 30])
def test_means_are_those_of_scikit_learn_for_that_number_of_rows(n_levels):
    code = rng.integers(0, n_levels, 200)
    Y = np.stack([rng.standard_normal(200) + np.sin(code), (rng.random(200) < 0.4) + 0.1 * code], axis=1)
    found = TargetStatistics.fit(code[:, None].astype(float), Y, np.ones(200), np.array([n_levels])).means
    for target, mean in zip(Y.T, found.T, strict=True):
        within, between = means_by_levels(code, target)
        encoder = TargetEncoder(smooth=within / between, target_type="continuous").fit(code[:, None], target)
        np.testing.assert_allclose(mean[encoder.categories_[0]], encoder.encodings_[0], rtol=1e-10)


def test_levels_that_do_not_differ_have_the_mean_of_all():
    code, y = np.repeat(np.arange(4.0), 10)[:, None], np.tile(np.arange(10.0), 4)[:, None]
    means = TargetStatistics.fit(code, y, np.ones(40), np.array([6])).means
    np.testing.assert_allclose(means, 4.5)


@pytest.mark.parametrize("n", [1, 2, 20])
def test_levels_of_one_row_each_have_the_mean_of_all(n):
    y = rng.standard_normal((n, 1))
    means = TargetStatistics.fit(np.arange(float(n))[:, None], y, np.ones(n), np.array([n])).means
    np.testing.assert_allclose(means, y.mean())


def test_levels_that_are_far_apart_have_their_own_means():
    code = np.repeat(np.arange(3.0), 10)
    y = 100 * code + rng.standard_normal(30)
    means = TargetStatistics.fit(code[:, None], y[:, None], np.ones(30), np.array([3])).means
    np.testing.assert_allclose(means[:, 0], [y[code == level].mean() for level in range(3)], rtol=1e-3, atol=0.05)


def test_a_common_factor_of_the_weights_changes_nothing_but_how_much_a_row_counts():
    code, y = rng.integers(0, 5, 100), rng.standard_normal((100, 1))
    weight = np.where(code == 0, 1e-12, 1.0)
    known = code > 0
    few = TargetStatistics.fit(code[known, None].astype(float), y[known], weight[known], np.array([5])).means
    found = TargetStatistics.fit(code[:, None].astype(float), y, weight, np.array([5])).means
    # A level that hardly weighs has the mean of all, and does not move others.
    assert found[0] == pytest.approx(np.average(y, weights=weight[:, None]), abs=1e-6)
    np.testing.assert_allclose(found[1:], few[1:], atol=0.02)


def test_transform_looks_means_up_and_leaves_gaps():
    statistics = TargetStatistics(np.arange(10.0).reshape(5, 2), np.array([2, 3]))
    found = statistics.transform(np.array([[0, 2], [1, np.nan], [np.nan, 0]]))
    np.testing.assert_array_equal(found, [[0, 1, 8, 9], [2, 3, np.nan, np.nan], [np.nan, np.nan, 4, 5]])


def test_no_row_is_told_by_its_own_target():
    n = 60
    code = rng.integers(0, 12, n)
    y = rng.standard_normal((n, 1))
    before = features_to_fit(rows(code, y, np.ones(n), 12), 0)
    for row in range(0, n, 7):
        changed = y.copy()
        changed[row] += 1000
        after = features_to_fit(rows(code, changed, np.ones(n), 12), 0)
        assert after[row] == before[row]
        assert np.mean(after != before) > 0.5


def test_rows_are_told_by_the_parts_that_they_are_not_in():
    n = 60
    code, y = rng.integers(0, 12, n), rng.standard_normal((n, 1))
    found, count = features_to_fit(rows(code, y, np.ones(n), 12), 3)[:, 0], np.array([12])
    parts = generator(3, Stream.TARGET_STATISTICS).permutation(np.arange(n) % 5)
    for row in range(n):
        others = parts != parts[row]
        means = TargetStatistics.fit(code[others, None].astype(float), y[others], np.ones(others.sum()), count).means
        assert found[row] == means[code[row], 0]
