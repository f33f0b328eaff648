"""Columns of a table with weights of its rows, dense or sparse: what scaling and encoding look at."""

from functools import cached_property

import numpy as np
from scipy.sparse import issparse

from sklearn_subquad._utils.missing import has_gaps
from sklearn_subquad._utils.slices import batches

# Columns of a dense table whose moments are taken at a time, in double precision whatever it is in.
_CHUNK_COLUMNS = 16


def weighted_quantiles(x, sample_weight, levels):
    """Of the values of x (n,), for every level the least that at least such a share of the weight does not exceed."""
    values, of_row = np.unique(x, return_inverse=True)
    return quantiles(values, np.bincount(of_row, weights=sample_weight), levels)


def quantiles(values, weights, levels):
    """The same of different values, ascending, with the weight of each."""
    weight_up_to = np.cumsum(weights)
    # Rounding of the sums is not to move a level to the next value.
    return values[np.searchsorted(weight_up_to, np.asarray(levels) * weight_up_to[-1] * (1 - 1e-9))]


def columns_of(X, sample_weight):
    """`DenseColumns` or, of a sparse X (n x d) and of one with gaps, `SparseColumns`, with weights of the rows (n,)."""
    if issparse(X):
        return SparseColumns.of(X, sample_weight)
    return (SparseColumns.of_known if has_gaps(X) else DenseColumns)(X, sample_weight)


class DenseColumns:
    """Columns of an ndarray.

    Attributes
    ----------
    values : ndarray of shape (n, d)
    sample_weight : ndarray of shape (n,)
    """

    def __init__(self, values, sample_weight):
        self.values, self.sample_weight = values, sample_weight

    def parts(self):
        """The same columns, a few at a time."""
        parts = batches(self.values.shape[1], _CHUNK_COLUMNS)
        return (DenseColumns(self.values[:, part], self.sample_weight) for part in parts)

    def __getitem__(self, column):
        """Values (n,) of a column and their weights."""
        return self.values[:, column], self.sample_weight

    def with_values(self, values):
        """Columns of other values with the same weights."""
        return DenseColumns(values, self.sample_weight)

    def selected(self, columns):
        """Some of the columns."""
        return self.with_values(self.values[:, columns])

    def spread(self, numbers):
        """A number for every column (d,), beside the values of that column."""
        return numbers

    def average(self, values):
        """Weighted means by columns of numbers beside the values."""
        return np.average(values, axis=0, weights=self.sample_weight)

    def min(self, values):
        return values.min(axis=0)

    def max(self, values):
        return values.max(axis=0)

    def quantiles(self, levels):
        """`weighted_quantiles` of every column, as one array (d,) for each level."""
        return np.transpose([weighted_quantiles(x, self.sample_weight, levels) for x in self.values.T])

    def positive_medians(self):
        """Weighted medians by columns of what is above zero; zero for columns without."""
        positive = (x > 0 for x in self.values.T)
        return np.array([
            weighted_quantiles(x[chosen], self.sample_weight[chosen], 0.5) if chosen.any() else 0.0
            for x, chosen in zip(self.values.T, positive, strict=True)
        ])  # fmt: skip


class SparseColumns:
    """Columns of a sparse matrix, one after the other: their entries, and a zero for all that have none.

    Of an array with gaps, those that are no gaps.

    Methods are those of `DenseColumns`.

    Attributes
    ----------
    values : ndarray of shape (n_entries,)
    sample_weight : ndarray of shape (n_entries,)
        Of a zero that stands for several rows, the sum of theirs.
    column : ndarray of shape (n_entries,), int
        Ascending; every column has entries.
    """

    def __init__(self, values, sample_weight, column):
        self.values, self.sample_weight, self._column = values, sample_weight, column

    @classmethod
    def of(cls, X, sample_weight):
        X = X.tocsc()
        n, d = X.shape
        counts = np.diff(X.indptr)
        column, weights = np.repeat(np.arange(d), counts), sample_weight[X.indices]
        zeros = np.flatnonzero(counts < n)
        left = sample_weight.sum() - np.bincount(column, weights=weights, minlength=d)[zeros]
        order = np.argsort(np.concatenate([column, zeros]), kind="stable")
        # Rounding may leave less than nothing.
        left = np.maximum(left, 0.0)
        entries = (X.data, np.zeros(len(zeros), dtype=X.dtype)), (weights, left), (column, zeros)
        return cls(*(np.concatenate(each)[order] for each in entries))

    @classmethod
    def of_known(cls, X, sample_weight):
        """What is not nan in an array (n x d); a column of nothing else is a zero."""
        known = ~np.isnan(X)
        nothing = ~known.any(axis=0)
        X = np.where(nothing, 0, X)
        known[0, nothing] = True
        column, row = np.nonzero(known.T)
        return cls(X[row, column], sample_weight[row], column)

    @cached_property
    def _starts(self):
        return np.flatnonzero(np.diff(self._column, prepend=-1))

    def parts(self):
        return [self]

    def __getitem__(self, column):
        entries = slice(*np.searchsorted(self._column, (column, column + 1)))
        return self.values[entries], self.sample_weight[entries]

    def with_values(self, values):
        return SparseColumns(values, self.sample_weight, self._column)

    def selected(self, columns):
        entries = np.isin(self._column, columns)
        number = np.searchsorted(columns, self._column[entries])
        return SparseColumns(self.values[entries], self.sample_weight[entries], number)

    def spread(self, numbers):
        return numbers[self._column]

    def average(self, values):
        return self._sum(self.sample_weight * values) / self._sum(self.sample_weight)

    def _sum(self, values):
        return np.add.reduceat(values, self._starts)

    def min(self, values):
        return np.minimum.reduceat(values, self._starts)

    def max(self, values):
        return np.maximum.reduceat(values, self._starts)

    def quantiles(self, levels):
        order = np.lexsort((self.values, self._column))
        up_to = np.cumsum(self.sample_weight[order])
        total = self._sum(self.sample_weight)
        up_to -= self.spread(np.cumsum(total) - total)
        below = (self._sum((up_to < self.spread(level * total * (1 - 1e-9))).astype(int)) for level in levels)
        return [self.values[order[self._starts + count]] for count in below]

    def positive_medians(self):
        positive = SparseColumns(self.values, self.sample_weight * (self.values > 0), self._column)
        return positive.quantiles((0.5,))[0]
