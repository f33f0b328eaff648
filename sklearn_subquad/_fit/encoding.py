"""Piecewise-linear encoding of features: ramps between quantiles, beside the features themselves."""

from dataclasses import dataclass

import numpy as np

from sklearn_subquad._fit.weighted_columns import columns_of, quantiles


@dataclass
class PiecewiseLinearEncoding:
    """The map from x to x and, for every feature, ramps ``clip((x - k_t) / (k_{t+1} - k_t), 0, 1)`` between its knots.

    A ramp rises where rows are dense and is flat elsewhere, so that what a neuron makes of one is local: thresholds and
    steps, which a smooth function of the feature reaches only with large weights, are near at hand. Beyond the outer
    knots all ramps are constant; the feature itself goes on.

    Attributes
    ----------
    knots : ndarray of shape (n_knots,), float64
        Those of all features, ascending for each.
    counts : ndarray of shape (n_features,), int
        Knots of every feature: none, or at least three.

    References
    ----------
    Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep learning", NeurIPS
    2022, section 3.2.
    """

    knots: np.ndarray
    counts: np.ndarray

    @classmethod
    def fit(cls, X, sample_weight, constant, n_bins):
        """Knots at weighted quantiles of these rows; a feature of fewer different values has one at each.

        No value counts for more than a bin.

        Parameters
        ----------
        X : ndarray or scipy.sparse.csr_array of shape (n, n_features)
        sample_weight : ndarray of shape (n,), positive
        constant : ndarray of shape (n_features,), bool
            Features that do not vary but for rounding. Like those of two values, of which a ramp says no more than the
            feature itself, they have no knots.
        n_bins : int
            Ramps of a feature at most.
        """
        columns = columns_of(X, sample_weight)
        knots = [
            np.empty(0) if is_constant else _knots(*columns[feature], n_bins)
            for feature, is_constant in enumerate(constant)
        ]
        return cls(np.concatenate(knots), np.array([len(each) for each in knots]))

    @property
    def n_ramps(self):
        """Ramps of every feature."""
        return np.maximum(self.counts - 1, 0)

    @property
    def n_columns(self):
        """Of encoded rows."""
        return len(self.counts) + int(self.n_ramps.sum())

    @property
    def feature_of_ramp(self):
        """The feature of every ramp."""
        return np.repeat(np.arange(len(self.counts)), self.n_ramps)

    @property
    def first_knots(self):
        """Index of the knot at which every ramp begins: all but the last one of each feature."""
        return np.delete(np.arange(len(self.knots)), np.cumsum(self.counts)[self.counts > 0] - 1)

    def of_feature(self, feature):
        """The encoding of that feature alone."""
        last = self.counts[: feature + 1].sum()
        count = self.counts[feature]
        return PiecewiseLinearEncoding(self.knots[last - count : last], np.array([count]))

    def ramps(self, X):
        """All ramps of these rows (n x n_ramps.sum()), feature by feature, in X's dtype."""
        knots, first = self.knots.astype(X.dtype), self.first_knots
        ramps = X[:, self.feature_of_ramp]
        # Neighbouring knots may be so close that a quotient leaves the range, and knots in double precision may be the
        # same number in single: then the ramp is a step.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            ramps -= knots[first]
            ramps /= knots[first + 1] - knots[first]
        ramps[np.isnan(ramps)] = 1
        return np.clip(ramps, 0, 1, out=ramps)

    def transform(self, X):
        """Encoded rows (n x n_columns), features first, in X's dtype."""
        return np.concatenate([X, self.ramps(X)], axis=1)


def _knots(x, sample_weight, n_bins):
    """Different values of x at n_bins + 1 levels of its distribution, or all where there are no more; none for two.

    Of a value that many rows share, as zero is of amounts, what exceeds one bin is not counted: it would leave few
    knots to all others.
    """
    values, index = np.unique(x, return_inverse=True)
    if len(values) > n_bins + 1:
        weights = _capped(np.bincount(index, weights=sample_weight), n_bins)
        values = np.unique(quantiles(values, weights, np.linspace(0, 1, n_bins + 1)))
    return values.astype(np.float64) if len(values) > 2 else np.empty(0)


def _capped(weights, n_bins):
    """The smaller one of each weight and the n_bins-th part of the sum of what is returned."""
    ascending = np.sort(weights)
    # With the k largest ones capped, every one is as much as a bin of the others, which are summed without the largest.
    descending, rest = ascending[::-1][:n_bins], np.cumsum(ascending)[::-1][:n_bins]
    caps = rest / np.arange(n_bins, 0, -1)
    return np.minimum(weights, caps[np.argmax(descending <= caps)])
