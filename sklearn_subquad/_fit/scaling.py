"""From features to network inputs, and from targets to what the network is fitted to."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, csr_array, issparse

from sklearn_subquad._fit.encoding import PiecewiseLinearEncoding
from sklearn_subquad._fit.target_statistics import TargetStatistics, with_means
from sklearn_subquad._fit.weighted_columns import DenseColumns, columns_of
from sklearn_subquad._linalg.features import SparseFeatures
from sklearn_subquad._linalg.threads import blas_threads
from sklearn_subquad._memory import densified
from sklearn_subquad._utils.missing import has_gaps
from sklearn_subquad._utils.slices import batches

# Rows that are scaled at a time: in double precision, whatever X is in.
_CHUNK_ROWS = 1024
# The constant input that carries every layer's bias.
BIAS_FEATURE = 0.5
# Features whose range is up to so many units in the last place are constant but for rounding.
ROUNDING = 10
# A mean that is off by more than this fraction of the deviation is computed again, from the deviations from it.
_MAX_MEAN_ERROR = 1e-6
# Predictions are in double precision where that of X is coarser than this fraction of the targets' scale.
_MAX_COARSENESS = 1e-4
# A feature is never scaled so that its largest deviation from the mean exceeds this: rare indicators
# and nearly constant features are not blown up.
_MAX_DEVIATION = 6.0
# The same for ramps, in which no row can be far out: they stay within zero and one.
_MAX_RAMP_DEVIATION = 12.0
# Columns of a category are divided by this power of their number: half would leave the variance of one feature to all.
_GROUP_EXPONENT = 0.25
# Scaled numbers beyond are as good as this one: sums of products of larger ones leave the range of single precision.
MAX_SINGLE = float(np.finfo(np.float32).max) ** 0.75
# Features with values beyond so many interquartile ranges from the median are squashed to a bounded range, that of so
# many on either side. A normal variable of a million values stays within four.
_OUTLYING, _SQUASHED_RANGES = 5.0, 3.0


@dataclass(frozen=True)
class Ramps:
    """What a network sees beside the features.

    Attributes
    ----------
    n_bins : int or None
        Ramps of a feature at most; None without any.
    loud : bool
        True where every ramp has the variance of its feature. A function is then local: it may turn between any two
        knots. Otherwise all ramps of a feature together have its variance, however many they are.
    """

    n_bins: int | None
    loud: bool = False


def unit_of(values):
    """A power of two of the largest magnitude: division by it is exact, and then squares and sums are in range."""
    return power_of_two(np.abs(values).max())


def power_of_two(largest):
    """The largest power of two up to these numbers."""
    return np.ldexp(1.0, np.frexp(largest)[1] - 1)


def range_of_constants(low, high, rounding=ROUNDING, unit=1.0):
    """The range up to which columns with these extremes, in that unit, are constant."""
    # By range, not by deviation from the mean: over many rows the mean's own rounding looks like a deviation. Nothing
    # can be divided by a range of numbers that are not normal.
    limits = np.finfo(np.float64)
    return np.maximum(rounding * limits.eps * np.maximum(np.abs(low), np.abs(high)), 64 * limits.tiny / unit)


def moments_of(columns, rounding=0):
    """Of every column the mean, standard deviation, largest deviation, and the range of a constant one, as float64.

    A column is constant whose range is at most so many units in the last place as `rounding` says. Its deviations are
    1. Of other columns the last one is nan.
    """
    moments = [_column_moments(part, rounding) for part in columns.parts()]
    return tuple(np.concatenate(each) for each in zip(*moments, strict=True))


def _column_moments(columns, rounding):
    values, spread = columns.values.astype(np.float64, copy=False), columns.spread
    unit = power_of_two(columns.max(np.abs(values)))
    values = values / spread(unit)
    low, high = columns.min(values), columns.max(values)
    rounding = range_of_constants(low, high, rounding, unit)
    constant = high - low <= rounding
    mean = np.where(constant, low, columns.average(values))
    error = columns.average(values - spread(mean))
    deviation = np.abs(values - spread(mean))
    # Far from zero the rounding of the mean may exceed all deviations.
    inexact = ~constant & (np.abs(error) > _MAX_MEAN_ERROR * columns.max(deviation))
    if inexact.any():
        mean = np.where(inexact, mean + error, mean)
        deviation = np.abs(values - spread(mean))
    largest = np.where(constant, 1.0, columns.max(deviation))
    relative = np.sqrt(columns.average((deviation / spread(largest)) ** 2))
    deviations = (np.where(constant, 1.0, moment * unit) for moment in (largest * relative, largest))
    return mean * unit, *deviations, np.where(constant, rounding * unit, np.nan)


def _squash_of(columns):
    """Medians of columns and the distances from them that squashed values stay within; infinite without outliers.

    Where more than half of the values are equal, the interquartile range may be zero: then twice the median distance of
    the others takes its place.
    """
    columns = columns.with_values(columns.values.astype(np.float64, copy=False))
    low, median, high = columns.quantiles((0.25, 0.5, 0.75))
    distance = columns.with_values(np.abs(columns.values - columns.spread(median)))
    width = high - low
    narrow = np.flatnonzero(width == 0)
    if len(narrow):
        width[narrow] = 2 * distance.selected(narrow).positive_medians()
    return median, np.where(distance.max(distance.values) > _OUTLYING * width, _SQUASHED_RANGES * width, np.inf)


def _squash(x, median, limit):
    """``median + d / sqrt(1 + (d / limit)^2)`` for the distances d from the median: smooth, rising, and bounded.

    References
    ----------
    D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular
    data", NeurIPS 2024.
    """
    distance = x - median
    # Beyond the range of squares it is the limit itself.
    with np.errstate(over="ignore"):
        return median + distance / np.hypot(1, distance / limit)


def _standardise(values, mean, scale, out, tolerance=None, metric=None, before=None, gaps=False):
    """Write ``(values - mean) / scale`` to `out`, a part of the rows in double precision at a time.

    `before` is done to each part first. Deviations up to the tolerance, where there is one for a column, are
    zero, and so are those of `gaps`, if there may be any. With a metric the parts are multiplied by it, in the
    precision of `out`.
    """
    n_products = 0
    if metric is not None:
        n_products, metric = 2 * out.size * len(metric), metric.astype(out.dtype)
    columns = [] if tolerance is None else np.flatnonzero(~np.isnan(tolerance))
    with blas_threads(n_products):
        for rows in batches(len(values), _CHUNK_ROWS):
            part = values[rows] if before is None else before(values[rows])
            part = part - mean
            if len(columns):
                deviations = part[:, columns]
                part[:, columns] = np.where(np.abs(deviations) <= tolerance[columns], 0.0, deviations)
            part /= scale
            if gaps:
                part[np.isnan(part)] = 0
            if out.dtype != part.dtype:
                np.clip(part, -MAX_SINGLE, MAX_SINGLE, out=part)
            out[rows] = part if metric is None else part.astype(out.dtype) @ metric


@dataclass
class InputScaling:
    """The map x -> [(encoding(x) - mean) / scale @ metric / sqrt(d), bias feature].

    Features that were constant are zero, but for new rows in which they are something else. Where a row has a gap, the
    feature and its ramps are zero, which is their mean.

    Attributes
    ----------
    mean, scale : ndarray of shape (d,), float64
        Of the features, and of their ramps where there is an encoding.
    tolerance : ndarray of shape (d,), float64
        Of features that were constant, how far from the mean counts as rounding, and is zero; nan for others.
    metric : ndarray of shape (d, d), float64, or None
        Models that were stored by earlier versions may have one. None stands for the identity.
    encoding : PiecewiseLinearEncoding or None
        None: the features as they are.
    squash : tuple (ndarray of shape (n_features,), ndarray of shape (n_features,)), float64, or None
        Medians and limits of the features; those without outliers have an infinite limit. None: no feature has any.
    statistics : TargetStatistics or None
        Means that take the place of the last columns of x, which are numbers of levels. None: there are none.
    """

    mean: np.ndarray
    scale: np.ndarray
    tolerance: np.ndarray
    metric: np.ndarray | None = None
    encoding: PiecewiseLinearEncoding | None = None
    squash: tuple | None = None
    statistics: TargetStatistics | None = None

    @classmethod
    def fit(cls, X, sample_weight, standardize, ramps=Ramps(None), group_sizes=None, moments=None):
        """Scaling of these rows and of `Ramps` beside them.

        All columns of a category, which are groups of those sizes, together have the variance of as many features as
        the root of their number: a category says more than a number, and less than a feature for each level would. That
        of a feature with gaps is the variance of the other rows. Where these rows stand for more, the `moments` may be
        those of all.
        """
        columns = columns_of(X, sample_weight / unit_of(sample_weight))
        mean, deviation, largest, tolerance = moments_of(columns, ROUNDING) if moments is None else moments
        constant, squash = ~np.isnan(tolerance), None
        if standardize:
            median, limit = (np.concatenate(each) for each in zip(*map(_squash_of, columns.parts()), strict=True))
            squash = np.where(constant, 0.0, median), np.where(constant, np.inf, limit)
            outlying = np.flatnonzero(np.isfinite(squash[1]))
            if len(outlying):
                squashed = columns.selected(outlying)
                values = squashed.values.astype(np.float64)
                values = _squash(values, *(squashed.spread(each[outlying]) for each in squash))
                mean[outlying], deviation[outlying], largest[outlying], _ = moments_of(squashed.with_values(values))
        scale = np.maximum(deviation, largest / _MAX_DEVIATION)
        if group_sizes is not None:
            scale = scale * group_sizes**_GROUP_EXPONENT
        if not standardize:
            mean, scale = np.where(constant, mean, 0.0), np.ones_like(scale)
        scaling = cls(mean, scale, tolerance, squash=squash if standardize and len(outlying) else None)
        if ramps.n_bins is not None:
            encoding = PiecewiseLinearEncoding.fit(X, sample_weight, constant, ramps.n_bins)
            scaling._add_ramps(columns, encoding, deviation, ramps.loud)
        return scaling

    def _before(self, X):
        """Rows (n x d) with ramps and squashed features, in double precision where there are any of these."""
        encoded = X if self.encoding is None else self.encoding.transform(X)
        if self.squash is not None:
            median, limit = self.squash
            encoded = encoded.astype(np.float64)
            columns = np.flatnonzero(np.isfinite(limit))
            encoded[:, columns] = _squash(X[:, columns].astype(np.float64), median[columns], limit[columns])
        return encoded

    def _before_gaps(self, X):
        """The same where ramps of a feature with a gap are missing as well."""
        encoded = self._before(X)
        if self.encoding is not None:
            encoded[:, X.shape[1] :][np.isnan(X)[:, self.encoding.feature_of_ramp]] = np.nan
        return encoded

    def _add_ramps(self, columns, encoding, deviation, loud):
        """Let the encoding come before; `deviation` is that of the features as they are."""
        means, scales = [self.mean], [self.scale]
        for feature in np.flatnonzero(encoding.counts):
            values, sample_weight = columns[feature]
            ramps = encoding.of_feature(feature).ramps(values[:, np.newaxis])
            mean, of_ramp, largest, _ = moments_of(DenseColumns(ramps, sample_weight))
            # What the feature is multiplied by to have its present scale.
            unit = self.scale[feature] / deviation[feature]
            means.append(mean)
            share = 1.0 if loud else np.sqrt(ramps.shape[1])
            scales.append(np.maximum(of_ramp, largest / _MAX_RAMP_DEVIATION) * share * unit)
        self.mean, self.scale = np.concatenate(means), np.concatenate(scales)
        self.tolerance = np.append(self.tolerance, np.full(len(self.mean) - len(self.tolerance), np.nan))
        self.encoding = encoding if len(encoding.knots) else None

    @property
    def constant(self):
        """Which features were constant, as an array of bool."""
        return ~np.isnan(self.tolerance)

    @property
    def n_ramps(self):
        """Ramps of every feature; empty without any."""
        return [] if self.encoding is None else self.encoding.n_ramps

    def transform(self, X, dtype=None, encoded=False):
        """Network inputs (n x (d + 1)) of that dtype, or of X's, computed in double precision.

        `SparseFeatures` of a sparse X, unless there is a metric. With `encoded`, means are in the place of the
        numbers of levels.
        """
        d, dtype = len(self.mean), X.dtype if dtype is None else np.dtype(dtype)
        if issparse(X) and self.metric is None:
            return self._transform_sparse(X.tocsc(), dtype)
        X = densified(X)
        if self.statistics is not None and not encoded:
            n_categories = len(self.statistics.counts)
            X = with_means(X, self.statistics.transform(X[:, -n_categories:]), n_categories)
        out, scale, gaps = np.empty((X.shape[0], d + 1), dtype=dtype), self.scale * np.sqrt(d), has_gaps(X)
        before = self._before_gaps if gaps else self._before
        _standardise(X, self.mean, scale, out[:, :-1], self.tolerance, self.metric, before, gaps)
        out[:, -1] = BIAS_FEATURE
        return out

    def _transform_sparse(self, X, dtype):
        """What zeros of a column become is its origin; what its entries become beyond that is stored."""
        d = len(self.mean)
        scale, origin = self.scale * np.sqrt(d), np.empty((1, d))
        _standardise(np.zeros((1, X.shape[1])), self.mean, scale, origin, self.tolerance, None, self._before)
        origin = origin[0]
        # Where zero is far from all that was seen in training, or constant features are another number, differences
        # from the origin would lose digits: all entries of these columns are stored.
        far = (np.abs(origin) * np.sqrt(d) > _MAX_DEVIATION) | (self.constant & (origin != 0))
        far[X.shape[1] :] = False
        origin[far] = 0
        X = _with_all_entries(X, np.flatnonzero(far))
        values, rows, columns = self._entries(X)
        stored = np.empty_like(values)
        # As one row, in which every entry has the column's moments.
        moments = self.mean[columns], scale[columns], stored[np.newaxis], self.tolerance[columns]
        # A validation set that was an array may have gaps.
        _standardise(values[np.newaxis], *moments, gaps=has_gaps(values))
        if dtype != np.float64:
            np.clip(stored, -MAX_SINGLE, MAX_SINGLE, out=stored)
            np.clip(origin, -MAX_SINGLE, MAX_SINGLE, out=origin)
        stored -= origin[columns]
        entries = csr_array((stored.astype(dtype), (rows, columns)), shape=(X.shape[0], d + 1))
        entries.eliminate_zeros()
        entries.sort_indices()
        return SparseFeatures(entries, np.append(origin, BIAS_FEATURE).astype(dtype))

    def _entries(self, X):
        """Values, rows and columns of the entries of X, a `csc_array`, and of their ramps; squashed, not yet scaled."""
        columns = np.repeat(np.arange(X.shape[1]), np.diff(X.indptr))
        values, entries = X.data.astype(np.float64), [(X.indices, columns)]
        if self.squash is not None:
            median, limit = (each[columns] for each in self.squash)
            outlying = np.isfinite(limit)
            values[outlying] = _squash(values[outlying], median[outlying], limit[outlying])
        values, n_columns = [values], X.shape[1]
        counts = [] if self.encoding is None else self.encoding.counts
        for feature in np.flatnonzero(counts):
            of_feature = slice(X.indptr[feature], X.indptr[feature + 1])
            ramps = self.encoding.of_feature(feature).ramps(X.data[of_feature, np.newaxis])
            ramps[np.isnan(X.data[of_feature])] = np.nan
            numbers = n_columns + np.arange(ramps.shape[1])
            entries.append([each.ravel() for each in np.broadcast_arrays(X.indices[of_feature, np.newaxis], numbers)])
            values.append(ramps.ravel().astype(np.float64))
            n_columns += ramps.shape[1]
        return np.concatenate(values), *(np.concatenate(each) for each in zip(*entries, strict=True))


def _with_all_entries(X, columns):
    """A `csc_array` in which the zeros of these columns are entries."""
    if not len(columns):
        return X
    n, n_features = X.shape
    counts = np.diff(X.indptr)
    others = ~np.isin(np.repeat(np.arange(n_features), counts), columns)
    dense = X[:, columns].toarray()
    column = np.concatenate([np.repeat(np.arange(n_features), counts)[others], np.repeat(columns, n)])
    row = np.concatenate([X.indices[others], np.tile(np.arange(n), len(columns))])
    return csc_array((np.concatenate([X.data[others], dense.T.ravel()]), (row, column)), shape=X.shape)


@dataclass
class TargetScaling:
    """The map y -> (y - mean) / scale, per output.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_outputs,), float64
        A scale of zero is that of a constant target, whose estimates are its mean whatever a network makes of it.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, Y, sample_weight, unit_variance):
        columns = DenseColumns(Y, sample_weight / unit_of(sample_weight))
        mean, deviation, _, constant_range = moments_of(columns)
        return cls(mean, np.where(np.isnan(constant_range), deviation, 0.0) if unit_variance else np.ones_like(mean))

    def for_more_rows(self):
        """The same where other rows follow, in which targets may vary that were constant so far."""
        return TargetScaling(self.mean, self._divisor)

    @property
    def _divisor(self):
        return np.where(self.scale > 0, self.scale, 1.0)

    def transform(self, Y, dtype=np.float64):
        """Scaled targets of that dtype, computed in double precision."""
        out = np.empty(Y.shape, dtype=dtype)
        _standardise(Y, self.mean, self._divisor, out)
        return out

    def inverse_transform(self, Z):
        """Outputs in the target's units, in Z's dtype or, where that cannot resolve them, in double precision."""
        dtype = self.resolving(Z.dtype)
        return Z * self.scale.astype(dtype) + self.mean.astype(dtype)

    def resolving(self, dtype):
        """That dtype, or double precision where its numbers near the targets are too far apart to tell them."""
        coarse = np.finfo(dtype).eps * np.abs(self.mean) > _MAX_COARSENESS * self._divisor
        return np.dtype(np.float64 if coarse.any() else dtype)
