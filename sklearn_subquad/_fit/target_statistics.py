"""Levels of categories as means of the targets that rows of a level have."""

from dataclasses import dataclass

import numpy as np

from sklearn_subquad._utils.random_streams import Stream, generator

# Parts of the rows, each of which gets the means of the others.
_N_PARTS = 5


@dataclass(frozen=True)
class TargetStatistics:
    """For every level of some categories, the mean of each target, shrunken towards that of all rows.

    A level of few rows says little: its mean is that of its rows and of m rows more that have the mean of all. m is the
    variance of targets within levels over that of the levels' means, both found by an analysis of variance. Weights
    count as rows, as they do not in scikit-learn's TargetEncoder, which is else the same for ``smooth=m``.

    Attributes
    ----------
    means : ndarray of shape (n_levels of all categories, n_targets), float64
    counts : ndarray of shape (n_categories,), int
        Levels of every category.

    References
    ----------
    D. Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes in classification and
    prediction problems", SIGKDD Explorations 3, 2001.
    S. R. Searle, G. Casella, C. E. McCulloch, "Variance components", 1992, section 3.6: the estimates.
    """

    means: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_rows(cls, rows):
        """Those of a `TrainingSet`, or None where it has no such categories."""
        counts = rows.n_levels
        return cls.fit(rows.X[:, -len(counts) :], rows.Y, rows.sample_weight, counts) if len(counts) else None

    @classmethod
    def fit(cls, codes, Y, sample_weight, counts):
        """Means of these rows.

        Parameters
        ----------
        codes : ndarray of shape (n, n_categories)
            Number of the level, nan where there is none.
        Y : ndarray of shape (n, n_targets)
        sample_weight : ndarray of shape (n,)
        counts : ndarray of shape (n_categories,), int
        """
        Y = Y.astype(np.float64)
        means = [_means(code, Y, sample_weight, count) for code, count in zip(codes.T, counts, strict=True)]
        return cls(np.concatenate(means), counts)

    def transform(self, codes):
        """Means of the levels that rows have (n x (n_categories * n_targets)), nan where there is none."""
        firsts = np.cumsum(self.counts) - self.counts
        known = np.isfinite(codes)
        means = self.means[(np.where(known, codes, 0) + firsts).astype(int)]
        return np.where(known[:, :, None], means, np.nan).reshape(len(codes), -1)


def features_to_fit(rows, seed):
    """Features of a `TrainingSet`, whose categories of many levels have means of targets in their place.

    A row gets the means of rows that it is not among: with its own target among them, they would tell what it is.
    """
    n_categories = len(rows.n_levels)
    if not n_categories:
        return rows.X
    parts = generator(seed, Stream.TARGET_STATISTICS).permutation(np.arange(len(rows)) % _N_PARTS)
    means = np.empty((len(rows), n_categories * rows.Y.shape[1]))
    for part in np.unique(parts):
        # A single row is all that there is.
        others = rows[parts != part] if len(rows) > 1 else rows
        means[parts == part] = TargetStatistics.of_rows(others).transform(rows.X[parts == part, -n_categories:])
    return with_means(rows.X, means, n_categories)


def with_means(X, means, n_categories):
    """Features with means in the place of the numbers of levels, which are the last."""
    return np.concatenate([X[:, :-n_categories], means], axis=1)


def _means(code, Y, sample_weight, count):
    """Shrunken means of the targets (count x n_targets) of the levels of one category."""
    mean = np.average(Y, axis=0, weights=sample_weight)
    known = np.isfinite(code)
    level, weight = code[known].astype(int), sample_weight[known]
    deviation = Y[known] - mean
    weights = np.bincount(level, weight, count)[:, None]
    sums = np.stack([np.bincount(level, weight * each, count) for each in deviation.T], axis=1)
    own = sums / np.maximum(weights, np.finfo(np.float64).tiny)
    total, n_seen = weights.sum(), np.count_nonzero(weights)
    if len(level) <= n_seen:
        # No two rows say how far the targets of a level are apart.
        return np.tile(mean, (count, 1))
    within = np.average((deviation - own[level]) ** 2, axis=0, weights=weight) * len(level) / (len(level) - n_seen)
    center = sums.sum(axis=0) / total
    between = (weights * (own - center) ** 2).sum(axis=0) - (n_seen - 1) * within
    between /= total - (weights**2).sum() / total or 1.0
    # As weights of the means of levels and of all: where levels do not differ, the first is zero.
    weights = weights * np.maximum(between, 0)
    return mean + own * weights / np.where(weights + within > 0, weights + within, 1.0)
