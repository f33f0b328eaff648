"""What all parts of the rows share, found from summaries of every part.

Moments, extremes, levels and counts of the parts are merged to those of all rows. Quantiles are those of a sample,
drawn uniformly from all rows.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sklearn_subquad._fit.columns import MAX_INDICATORS, Columns
from sklearn_subquad._fit.data import TrainingSet, stacked
from sklearn_subquad._fit.scaling import ROUNDING, InputScaling, moments_of, power_of_two, range_of_constants
from sklearn_subquad._fit.target_statistics import features_to_fit
from sklearn_subquad._fit.weighted_columns import columns_of
from sklearn_subquad._utils.random_streams import Stream

# Rows of the sample, and how many times as many the parts send in all, because parts are not of one size. Shares of
# rows below a sampled quantile are off by less than 0.018 with a probability of 99 %: by the inequality of Dvoretzky,
# Kiefer and Wolfowitz, sqrt(log(2 / 0.01) / (2 * 8192)).
SAMPLED_ROWS, _OVERSAMPLING = 8192, 2


@dataclass(frozen=True)
class Moments:
    """Moments and extremes of columns, without gaps.

    Attributes
    ----------
    weight, mean, deviation, low, high : ndarray of shape (d,), float64
        Columns of weight zero have no values: their mean is zero, and their extremes are none.
    """

    weight: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of_rows(cls, X, sample_weight):
        """Those of the columns of X (n x d), an array or a sparse matrix."""
        columns = columns_of(X, sample_weight)
        mean, deviation, _, constant = moments_of(columns)
        parts = [part.with_values(part.values.astype(np.float64, copy=False)) for part in columns.parts()]
        low, high = (np.concatenate([getattr(p, name)(p.values) for p in parts]) for name in ("min", "max"))
        weight = np.full(X.shape[1], sample_weight.sum())
        if not sparse.issparse(X):
            gaps = np.isnan(X)
            weight = weight - sample_weight @ gaps if gaps.any() else weight
            nothing = gaps.all(axis=0)
            weight[nothing], low[nothing], high[nothing] = 0, np.inf, -np.inf
        return cls(weight, mean, np.where(np.isnan(constant), deviation, 0.0), low, high)

    @classmethod
    def of_indicators(cls, weight, total):
        """Those of columns of ones in rows of such weights (d,), and of zeros in all others, given the sum."""
        share = np.where(total > 0, weight / np.where(total > 0, total, 1.0), 0.0)
        deviation = np.sqrt(share * (1 - share))
        low, high = np.where(share < 1, 0.0, 1.0), np.where(share > 0, 1.0, 0.0)
        return cls(np.broadcast_to(total, share.shape), share, deviation, low, high)

    @classmethod
    def merged(cls, moments):
        """Those of the rows of all."""
        weights, means, deviations, lows, highs = (
            np.array([getattr(each, name) for each in moments])
            for name in ("weight", "mean", "deviation", "low", "high")
        )
        low, high = lows.min(axis=0), highs.max(axis=0)
        # Squares of large numbers would leave the range of doubles.
        unit = power_of_two(np.where(high >= low, np.maximum(np.abs(low), np.abs(high)), 1.0))
        unit = np.where(unit > 0, unit, 1.0)
        total = weights.sum(axis=0)
        shares = weights / np.where(total > 0, total, 1.0)
        mean = (shares * (means / unit)).sum(axis=0)
        squares = (shares * ((deviations / unit) ** 2 + (means / unit - mean) ** 2)).sum(axis=0)
        return cls(total, mean * unit, np.sqrt(squares) * unit, low, high)

    def selected(self, columns):
        """Those of some of the columns."""
        return Moments(*(getattr(self, name)[columns] for name in self.__dataclass_fields__))

    @staticmethod
    def joined(moments):
        """Columns of one after those of the other."""
        names = Moments.__dataclass_fields__
        return Moments(*(np.concatenate([getattr(each, name) for each in moments]) for name in names))

    def for_scaling(self, rounding=ROUNDING):
        """The same as `moments_of` gives them."""
        low, high = np.where(self.weight > 0, self.low, 0.0), np.where(self.weight > 0, self.high, 0.0)
        constant_range = range_of_constants(low, high, rounding)
        constant = high - low <= constant_range
        mean = np.where(constant, low, self.mean)
        deviation = np.where(constant, 1.0, self.deviation)
        largest = np.where(constant, 1.0, np.maximum(mean - low, high - mean))
        return mean, deviation, largest, np.where(constant, constant_range, np.nan)


@dataclass(frozen=True)
class Sample:
    """Rows drawn uniformly from some rows: those with the smallest keys.

    Attributes
    ----------
    keys : ndarray of shape (n,), float64
        Random numbers between 0 and 1.
    limit : float
        All rows with smaller keys are here; one where all rows are.
    values : ndarray or csr_array of shape (n, n_columns)
    gaps : ndarray of shape (n, n_columns), bool
    targets : ndarray of shape (n,) or (n, k)
    sample_weight : ndarray of shape (n,), float64
    """

    keys: np.ndarray
    limit: float
    values: np.ndarray
    gaps: np.ndarray
    targets: np.ndarray
    sample_weight: np.ndarray

    @classmethod
    def of_rows(cls, rows, n_wanted, seed):
        """So many rows at most of (values, gaps, targets, sample_weight)."""
        keys = np.random.default_rng(seed).random(len(rows[-1]))
        return cls(keys, 1.0, *rows)._smallest(n_wanted)

    def _smallest(self, n_wanted):
        if len(self.keys) <= n_wanted:
            return self
        kept = np.sort(np.argpartition(self.keys, n_wanted)[: n_wanted + 1])
        limit = self.keys[kept].max()
        return self[kept]._below(limit)

    def _below(self, limit):
        return self[np.flatnonzero(self.keys < limit)]._with_limit(min(limit, self.limit))

    def _with_limit(self, limit):
        return Sample(self.keys, limit, self.values, self.gaps, self.targets, self.sample_weight)

    def __getitem__(self, rows):
        arrays = (each[rows] for each in (self.values, self.gaps, self.targets, self.sample_weight))
        return Sample(self.keys[rows], self.limit, *arrays)

    @classmethod
    def merged(cls, samples):
        """So many rows of all as `SAMPLED_ROWS` at most."""
        limit = min(each.limit for each in samples)
        samples = [each._below(limit) if limit < 1 else each for each in samples]
        arrays = (np.concatenate([getattr(each, name) for each in samples]) for name in ("gaps", "targets"))
        values = stacked([each.values for each in samples])
        keys, weights = (
            np.concatenate([getattr(each, name) for each in samples]) for name in ("keys", "sample_weight")
        )
        return cls(keys, limit, values, *arrays, weights)._smallest(SAMPLED_ROWS)


@dataclass(frozen=True)
class PartSummary:
    """What is told of a part, whose rows stay where they are.

    Attributes
    ----------
    n_rows : int
    n_counted : int
        Rows of positive weight.
    columns : Columns
        As if there were no other part.
    names : ndarray of str or None
        Of the columns, where they have any.
    moments : Moments
        Of columns of numbers; those of categories have weight zero.
    level_weights : list of ndarray
        For every column the weights of its levels, empty for numbers.
    gap_weights : ndarray of shape (n_columns,), float64
    told : object
        What the estimator tells of the targets.
    sample : Sample
    weight : float
        Sum of the weights.
    """

    n_rows: int
    n_counted: int
    columns: Columns
    names: np.ndarray | None
    moments: Moments
    level_weights: list
    gap_weights: np.ndarray
    told: object
    sample: Sample
    weight: float

    @classmethod
    def of_rows(cls, X, targets, sample_weight, *, columns, names, told, n_parts, seed, number):
        """That of validated rows.

        Parameters
        ----------
        X : ndarray or csr_array of shape (n, d)
            What these columns are made into.
        targets : ndarray of shape (n,) or (n, k)
        sample_weight : ndarray of shape (n,), float64
        columns : Columns or None
        names : ndarray of str or None
        told : object
            What the estimator tells of the targets.
        n_parts, seed, number : int
        """
        n_rows, counted = len(sample_weight), np.flatnonzero(sample_weight)
        if len(counted) < n_rows:
            X, targets, sample_weight = X[counted], targets[counted], sample_weight[counted]
        if columns is None:
            columns = Columns.of_numbers(np.zeros((1, X.shape[1]), dtype=bool))
            values, gaps = X, np.zeros((X.shape[0], 0), dtype=bool)
        else:
            values, gaps = columns.values_and_gaps(X)
        level_weights = [
            _level_weights(values, number, levels, sample_weight) for number, levels in enumerate(columns.levels)
        ]
        moments = Moments.of_rows(values, sample_weight)
        moments.weight[[levels is not None for levels in columns.levels]] = 0
        gap_weights = sample_weight @ gaps if gaps.shape[1] else np.zeros(len(columns.levels))
        n_wanted = -(-_OVERSAMPLING * SAMPLED_ROWS // n_parts)
        sample = Sample.of_rows((values, gaps, targets, sample_weight), n_wanted, [seed, Stream.ROWS_OF_PARTS, number])
        weight = float(sample_weight.sum())
        return cls(n_rows, len(counted), columns, names, moments, level_weights, gap_weights, told, sample, weight)


def _level_weights(values, number, levels, sample_weight):
    if levels is None:
        return np.empty(0)
    codes = values[:, number]
    known = np.isfinite(codes)
    return np.bincount(codes[known].astype(int), sample_weight[known], len(levels))


@dataclass(frozen=True)
class SharedStatistics:
    """What the rows of all parts have in common.

    Attributes
    ----------
    columns : Columns or None
        As estimators keep them: None for numbers without gaps.
    moments : Moments
        Of the columns of numbers that columns are made into, but for the last ones, means of targets.
    X : ndarray or csr_array of shape (n, d)
        Columns of numbers of the sample.
    targets : ndarray of shape (n,) or (n, k)
    sample_weight : ndarray of shape (n,), float64
    n_rows : int
        Of positive weight, of all parts.
    """

    columns: Columns | None
    moments: Moments
    X: np.ndarray
    targets: np.ndarray
    sample_weight: np.ndarray
    n_rows: int

    @classmethod
    def merged(cls, parts, summaries):
        """Those of all parts.

        Raises
        ------
        ValueError
            For parts whose columns differ.
        """
        _require_same_columns(parts, summaries)
        columns = _merged_columns(parts, summaries)
        maps = [_level_maps(columns, summary.columns) for summary in summaries]
        moments = _moments_of_columns(columns, summaries, maps)
        sample = Sample.merged(
            [_in_levels(summary.sample, map_) for summary, map_ in zip(summaries, maps, strict=True)]
        )
        X = sample.values
        if columns.are_plain:
            columns = None
        else:
            X = columns.transform(X, sample.gaps)
        n_rows = sum(summary.n_counted for summary in summaries)
        return cls(columns, moments, X, sample.targets, sample.sample_weight, n_rows)

    def training_set(self, Y, sample_weight):
        """The sample as a `TrainingSet`, given its encoded targets and weights."""
        return TrainingSet.of_distinct_rows(self.X, Y, sample_weight, None, None, self.columns)[0]

    def input_scaling(self, rows, standardize, ramps, seed):
        """`InputScaling` of all rows, given the sample as a `TrainingSet`."""
        X, sample_weight = features_to_fit(rows, seed), rows.sample_weight
        moments = moments_of(columns_of(X, sample_weight), ROUNDING)
        for of_sample, of_all in zip(moments, self.moments.for_scaling(), strict=True):
            of_sample[: len(of_all)] = of_all
        if len(self.sample_weight) < self.n_rows:
            # Two rows more: extremes, which decide on outliers and outer knots, are those of all.
            X = stacked([X, self._extremes(X)])
            sample_weight = np.append(sample_weight, np.full(2, sample_weight.sum() / self.n_rows))
        return InputScaling.fit(X, sample_weight, standardize, ramps, rows.group_sizes, moments)

    def _extremes(self, X):
        """Lowest and highest numbers of all columns (2 x d); means of targets, which are the last, have those of X."""
        means = X[:, len(self.moments.low) :]
        means = means if means.shape[1] else np.empty((1, 0))
        extremes = np.stack([
            np.append(self.moments.low, np.fmin.reduce(means, axis=0)),
            np.append(self.moments.high, np.fmax.reduce(means, axis=0)),
        ])  # fmt: skip
        return np.where(np.isfinite(extremes), extremes, np.nan).astype(X.dtype)


def _require_same_columns(parts, summaries):
    first = summaries[0]
    for part, summary in zip(parts, summaries, strict=True):
        n_columns, expected = len(summary.columns.levels), len(first.columns.levels)
        if n_columns != expected:
            raise ValueError(f"{part.name} has {n_columns} columns, but {parts[0].name} has {expected}.")
        if sparse.issparse(summary.sample.values) != sparse.issparse(first.sample.values):
            raise ValueError(f"Of {parts[0].name} and {part.name} one is sparse, the other is not: make them alike.")
        if not np.array_equal(_or_none(summary.names), _or_none(first.names)):
            raise ValueError(
                f"{part.name} has columns of the names {_or_none(summary.names)}, but {parts[0].name} "
                f"{_or_none(first.names)}: all parts need the same, in the same order."
            )


def _or_none(names):
    return [] if names is None else list(names)


def _merged_columns(parts, summaries):
    """The `Columns` of all parts: categories have the levels of all, and gaps are where any part has some."""
    levels = []
    for number in range(len(summaries[0].columns.levels)):
        found = [summary.columns.levels[number] for summary in summaries]
        # A column of nothing is of either kind.
        numbers = [i for i, each in enumerate(found) if each is None and summaries[i].moments.weight[number] > 0]
        words = [i for i, each in enumerate(found) if each is not None and len(each)]
        if numbers and words:
            names = summaries[0].names
            column = number if names is None else names[number]
            raise ValueError(
                f"Column {column!r} holds numbers in {parts[numbers[0]].name}, but categories in "
                f"{parts[words[0]].name}: name it in categorical_features, or make all parts alike."
            )
        known = [found[i] for i in words]
        nothing = not numbers and all(each is not None for each in found)
        levels.append(functools.reduce(np.union1d, known) if known else np.array([], dtype=str) if nothing else None)
    gaps = np.any([summary.columns.gaps for summary in summaries], axis=0)
    return Columns(tuple(levels), gaps, MAX_INDICATORS)


def _level_maps(shared, own):
    """For every category with levels the shared number of each level of a part."""
    pairs = enumerate(zip(shared.levels, own.levels, strict=True))
    return {
        number: np.searchsorted(levels, own_levels)
        for number, (levels, own_levels) in pairs
        if levels is not None and own_levels is not None and len(own_levels)
    }


def _in_levels(sample, maps):
    """A sample whose numbers of levels are the shared ones."""
    values = sample.values if not maps else sample.values.copy()
    for number, shared in maps.items():
        known = np.isfinite(values[:, number])
        values[known, number] = shared[values[known, number].astype(int)]
    gaps = sample.gaps if sample.gaps.shape[1] else np.zeros((len(sample.keys), sample.values.shape[1]), dtype=bool)
    return Sample(sample.keys, sample.limit, values, gaps, sample.targets, sample.sample_weight)


def _moments_of_columns(columns, summaries, maps):
    """`Moments` of what `Columns.transform` makes, but for numbers of levels at its end."""
    of_numbers = Moments.merged([summary.moments for summary in summaries])
    single, several, _ = columns.of_kind()
    total = sum(summary.weight for summary in summaries)
    weights = {}
    for number, levels in enumerate(columns.levels):
        if levels is not None:
            weights[number] = np.zeros(len(levels))
            for summary, of_part in zip(summaries, maps, strict=True):
                np.add.at(weights[number], of_part.get(number, []), summary.level_weights[number])
    moments = []
    for number in single:
        of_levels = weights.get(number)
        if of_levels is None:
            moments.append(of_numbers.selected([number]))
        else:
            second = of_levels[1:].sum(keepdims=True)
            moments.append(Moments.of_indicators(second, of_levels.sum()))
    moments += [Moments.of_indicators(weights[number], total) for number in several]
    gaps = np.sum([summary.gap_weights for summary in summaries], axis=0)[columns.gaps]
    return Moments.joined([*moments, Moments.of_indicators(gaps, total)])
