"""Rows that a fit learns from, and the rows as the caller passed them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from sklearn_subquad._compat import safe_indexing
from sklearn_subquad._fit.columns import Columns
from sklearn_subquad._utils.missing import has_gaps
from sklearn_subquad._utils.random_streams import Stream, generator
from sklearn_subquad._utils.slices import batches

# Rows on which thresholds and gains are calibrated and densities measured, where there are more.
CALIBRATION_ROWS = 4096
# Rows that are hashed or compared at a time: copies of them in double precision are small.
_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class GivenRows:
    """Rows as scores and callbacks get them.

    Attributes
    ----------
    X : {array-like, sparse matrix} of shape (n, n_features)
        As the caller passed them, with names where they have any.
    y : ndarray of shape (n,) or (n, k)
        Targets, classes or labels, not encoded.
    sample_weight : ndarray of shape (n,) or None
        Theirs, without those of classes; None where the caller passed none.
    """

    X: Any
    y: np.ndarray
    sample_weight: Any

    def __getitem__(self, indices):
        weights = None if self.sample_weight is None else self.sample_weight[indices]
        return GivenRows(safe_indexing(self.X, indices), safe_indexing(self.y, indices), weights)


@dataclass(frozen=True)
class TrainingSet:
    """Rows of positive weight, no two of which are equal in features and targets.

    Attributes
    ----------
    X : ndarray or scipy.sparse.csr_array of shape (n, n_features)
    Y : ndarray of shape (n, k), float64 or bool
        Targets, or indicators of classes.
    sample_weight : ndarray of shape (n,), float64
    given : GivenRows or None
        Rows as the caller passed them, these and maybe others.
    groups : ndarray of the length of `given`, int
        The number of the row that each of those became a part of, -1 for none.
    numbers : ndarray of shape (n,), int
        Numbers of these rows.
    columns : Columns or None
        What X was made of, None for numbers as they came.
    """

    X: np.ndarray
    Y: np.ndarray
    sample_weight: np.ndarray
    given: GivenRows
    groups: np.ndarray
    numbers: np.ndarray
    columns: Columns | None = None

    @classmethod
    def of_distinct_rows(cls, X, Y, sample_weight, given, weight_unit=None, columns=None):
        """Training rows of what the caller passed, and the weight of one row.

        Only ratios of weights count: they are divided by `weight_unit`, or by their mean. Rows that are equal in X and
        Y become one whose weight is the sum of theirs, which leaves every loss as it is. So a row of weight 2 is the
        same as two equal rows, a row and its copy are never fitted and held out at once, and to leave a row out means
        to leave out all of it.

        Parameters
        ----------
        X, Y, sample_weight, given
            As the attributes; weights may be zero.
        weight_unit : float or None
            That of the rows before, where a fit goes on from one.
        columns : Columns or None

        Returns
        -------
        TrainingSet
        float
            The weight unit.
        """
        groups, counted = np.full(len(Y), -1), np.flatnonzero(sample_weight)
        if len(counted) < len(Y):
            X, Y, sample_weight = X[counted], Y[counted], sample_weight[counted]
        # A gap equals a gap.
        first, number = distinct_rows(np.nan_to_num(X, nan=np.finfo(X.dtype).max) if has_gaps(X) else X, Y)
        groups[counted] = number
        if len(first) < len(Y):
            X, Y, sample_weight = X[first], Y[first], np.bincount(number, weights=sample_weight)
        unit = float(sample_weight.mean()) if weight_unit is None else weight_unit
        # Steps work with roots of weights in single precision, where small ones may not vanish.
        weights = np.maximum(sample_weight / unit, float(np.finfo(np.float32).tiny) ** 2)
        return cls(X, Y, weights, given, groups, np.arange(len(Y)), columns), unit

    @classmethod
    def of_all_rows(cls, X, Y, sample_weight, given):
        """Rows of positive weight as they are, for errors that no fit sees."""
        counted = np.flatnonzero(sample_weight)
        rows = cls(X, Y, sample_weight, given, np.arange(len(Y)), np.arange(len(Y)))
        return rows if len(counted) == len(Y) else rows[counted]

    def without_given(self):
        """The same for nobody who asks for rows as they were passed."""
        return dataclasses.replace(self, given=None)

    def __len__(self):
        return len(self.Y)

    def __getitem__(self, rows):
        X, Y, sample_weight, numbers = self.X[rows], self.Y[rows], self.sample_weight[rows], self.numbers[rows]
        return TrainingSet(X, Y, sample_weight, self.given, self.groups, numbers, self.columns)

    @property
    def group_sizes(self):
        """For every feature of the network, how many share one category; None for numbers as they came."""
        return None if self.columns is None else self.columns.group_sizes(self.Y.shape[1])

    @property
    def origins(self):
        """For every feature of the network the index of the column of X as it was passed."""
        if self.columns is None:
            return np.arange(self.X.shape[1])
        return self.columns.origins(self.Y.shape[1])

    @property
    def n_levels(self):
        """Levels of each category that the last columns of X are the numbers of."""
        return np.empty(0, dtype=int) if self.columns is None else self.columns.n_levels

    @property
    def n_features(self):
        """Features of the network, and of these how many may have ramps: all but those that say whether it is so."""
        n_features = self.X.shape[1] + len(self.n_levels) * (self.Y.shape[1] - 1)
        return n_features, n_features - (0 if self.columns is None else self.columns.n_indicators)

    def of_given(self, values):
        """An array with a number, or several, for every one of these rows as one for every row as it was passed.

        Of those that are no part of these it is not a number.
        """
        out = np.full((len(self.groups), *values.shape[1:]), np.nan)
        counted = self.groups >= 0
        out[counted] = values[self.groups[counted]]
        return out

    def as_given(self, rows):
        """All that the caller passed of some of these rows, a slice or indices, as `GivenRows`."""
        return self.given[np.flatnonzero(np.isin(self.groups, self.numbers[rows]))]


def drawn_rows(n, n_wanted, rng):
    """Indices of all rows, or of so many drawn at random where there are more."""
    if n <= n_wanted:
        return slice(None)
    return np.sort(rng.choice(n, n_wanted, replace=False))


def calibration_rows(batch, seed):
    """At most `CALIBRATION_ROWS` rows of a batch."""
    return batch[drawn_rows(len(batch), CALIBRATION_ROWS, generator(seed, Stream.CALIBRATION_ROWS))]


def distinct_rows(X, Y):
    """Which rows are equal in X and Y.

    Parameters
    ----------
    X : ndarray or scipy.sparse.csr_array of shape (n, d)
    Y : ndarray of shape (n, k)

    Returns
    -------
    first : ndarray of shape (n_distinct,), int
        Index of the first row of every kind, ascending.
    number : ndarray of shape (n,), int
        Index in `first` of the row that each one equals.
    """
    keys = _row_keys(X) * np.uint64(0x9E3779B97F4A7C15) + _row_keys(Y)
    first, number = np.unique(keys, return_index=True, return_inverse=True)[1:]
    n = len(Y)
    if len(first) == n:
        return np.arange(n), np.arange(n)
    candidate = first[number]
    for rows in batches(n, _CHUNK_ROWS):
        equal = _equal_rows(X[rows], X[candidate[rows]]) & _equal_rows(Y[rows], Y[candidate[rows]])
        # Rows that differ and have one key are next to impossible; they stay as they are.
        candidate[rows] = np.where(equal, candidate[rows], np.arange(n)[rows])
    return np.unique(candidate, return_inverse=True)


def rows_of(X):
    """Validated features with the rows of a sparse matrix as a `csr_array` whose entries are sorted and single."""
    if not issparse(X):
        return X
    rows = csr_array(X)
    if not rows.has_canonical_format:
        # The caller's own arrays stay as they are.
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def stacked(parts):
    """Rows of several arrays, or of several sparse ones, as one."""
    return csr_array(vstack(parts)) if issparse(parts[0]) else np.concatenate(parts)


def _equal_rows(A, B):
    return (A != B).sum(axis=1) == 0 if issparse(A) else (A == B).all(axis=1)


def _row_keys(values):
    """A number of 64 bits for every row, the same for equal rows."""
    multipliers = np.random.default_rng(0).integers(1 << 63, size=values.shape[1], dtype=np.uint64) * 2 + 1
    if issparse(values):
        # What is not stored would add nothing.
        parts = _bits(values.data) * multipliers[values.indices]
        up_to = np.append(np.uint64(0), np.cumsum(parts, dtype=np.uint64))[values.indptr]
        return up_to[1:] - up_to[:-1]
    keys = np.empty(len(values), dtype=np.uint64)
    for rows in batches(len(values), _CHUNK_ROWS):
        keys[rows] = (_bits(values[rows]) * multipliers).sum(axis=1, dtype=np.uint64)
    return keys


def _bits(values):
    """Integers of 64 bits that are the same for equal numbers, zero for zero."""
    # Zero is added because minus zero equals zero.
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)
    # The lower half of round numbers is zero.
    bits ^= bits >> np.uint64(32)
    return bits
