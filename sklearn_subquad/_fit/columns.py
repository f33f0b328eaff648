"""From a table with categories and gaps to columns of numbers."""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy.sparse import issparse

from sklearn_subquad._utils.frames import distinct
from sklearn_subquad._utils.missing import is_missing, not_numbers

# Categories of up to so many levels have a column for every level; more are told by means of the targets.
MAX_INDICATORS = 16


@dataclass(frozen=True)
class Columns:
    """What is made of every column of X.

    The columns of numbers are, in this order: numbers as they are, and categories of up to two levels as one number;
    for every level of other categories whether a row has it; for every column with gaps in the rows that this was
    fitted to whether a row has one; and the number of the level for categories of many levels, which
    `TargetStatistics` turns into means.

    A gap is nan, in the first and in the last of these, and so is a level that the fitted rows do not have.

    Attributes
    ----------
    levels : tuple
        For every column of X the levels, as an array of strings in their order, or None for numbers.
    gaps : ndarray of shape (n_columns,), bool
        Which columns had gaps.
    max_indicators : int
        The most levels that have a column each.
    """

    levels: tuple
    gaps: np.ndarray
    max_indicators: int

    @classmethod
    def of_numbers(cls, gaps):
        """Of columns of numbers, given where there are gaps (n x n_columns)."""
        return cls((None,) * gaps.shape[1], gaps.any(axis=0), MAX_INDICATORS)

    @classmethod
    def of_table(cls, table, categorical, name):
        """Of a `Table`.

        Parameters
        ----------
        table : Table
        categorical : ndarray of shape (n_columns,), bool, or None
            Which columns hold categories. None: those whose dtype says so, and those that hold words.
        name : str
            Of the table, for messages.
        """
        found = _of_columns(table, name, lambda number: _levels_and_gaps(table, number, categorical))
        levels, gaps = zip(*found, strict=True)
        return cls(levels, np.array(gaps, dtype=bool), MAX_INDICATORS)

    @classmethod
    def from_state(cls, state):
        """That of which `to_state` made plain arrays and numbers; None for None."""
        return None if state is None else cls(tuple(state["levels"]), state["gaps"], state["max_indicators"])

    def to_state(self):
        return {"levels": list(self.levels), "gaps": self.gaps, "max_indicators": self.max_indicators}

    @property
    def are_plain(self):
        """True for numbers without gaps."""
        return not self.gaps.any() and all(levels is None for levels in self.levels)

    def of_kind(self):
        """Indices of columns that are one number, that have a column for every level, and that have a mean."""
        counts = np.array([0 if levels is None else len(levels) for levels in self.levels], dtype=int)
        many, several = counts > max(self.max_indicators, 2), counts > 2
        return np.flatnonzero(~several), np.flatnonzero(several & ~many), np.flatnonzero(many)

    @property
    def n_levels(self):
        """Levels of every category that is told by means."""
        return np.array([len(self.levels[number]) for number in self.of_kind()[2]], dtype=int)

    @property
    def n_indicators(self):
        """Columns that say whether something is so."""
        return sum(len(self.levels[number]) for number in self.of_kind()[1]) + int(self.gaps.sum())

    def group_sizes(self, n_targets):
        """For every feature of the network, how many columns its category has; one for all but columns of levels."""
        single, several, many = self.of_kind()
        counts = [len(self.levels[number]) for number in several]
        rest = int(self.gaps.sum()) + len(many) * n_targets
        return np.concatenate([np.ones(len(single)), np.repeat(counts, counts), np.ones(rest)])

    def origins(self, n_targets):
        """For every feature of the network the index of the column of X that it is made of."""
        single, several, many = self.of_kind()
        of_levels = np.repeat(several, [len(self.levels[number]) for number in several])
        return np.concatenate([single, of_levels, np.flatnonzero(self.gaps), np.repeat(many, n_targets)])

    def read(self, table, name):
        """Numbers of a `Table` (n x n_columns), with numbers of levels for categories, and where it has gaps.

        Both gaps and unknown levels are nan.
        """
        single = {str(table.dtypes[number]) for number, levels in enumerate(self.levels) if levels is None}
        columns = _of_columns(table, name, lambda number: _read(table, number, self.levels[number]))
        values, gaps = (np.stack(each, axis=1) for each in zip(*columns, strict=True))
        return values.astype(np.float32 if single == {"float32"} else np.float64, copy=False), gaps

    def transform(self, values, gaps):
        """The columns of numbers, in the dtype of `values`, given both as from `read`."""
        single, several, many = self.of_kind()
        parts = [values[:, single]]
        parts += [values[:, [number]] == np.arange(len(self.levels[number])) for number in several]
        parts += [gaps[:, self.gaps], values[:, many]]
        return np.concatenate([part.astype(values.dtype, copy=False) for part in parts], axis=1)

    def values_and_gaps(self, X):
        """What `transform` made these columns of numbers from."""
        single, several, many = self.of_kind()
        values, gaps = np.empty((len(X), len(self.levels)), dtype=X.dtype), np.zeros((len(X), len(self.levels)), bool)
        values[:, single], values[:, many] = X[:, : len(single)], X[:, X.shape[1] - len(many) :]
        first = len(single)
        for number in several:
            has_level = X[:, first : first + len(self.levels[number])] > 0
            values[:, number] = np.where(has_level.any(axis=1), has_level.argmax(axis=1), np.nan)
            first += has_level.shape[1]
        gaps[:, self.gaps] = X[:, first : first + int(self.gaps.sum())] > 0
        return values, gaps


def _of_columns(table, name, function):
    """What a function returns for the number of every column, or an error with the names of those that it fails for."""
    returned, errors = [], {}
    for number, column in enumerate(table.names):
        try:
            returned.append(function(number))
        except (TypeError, ValueError) as error:
            errors[column] = error
    if errors:
        reason = next(iter(errors.values()))
        raise not_numbers(name, list(errors), reason) from reason
    return returned


def _levels_and_gaps(table, number, categorical):
    """Levels of a column, None for numbers, and whether it has gaps."""
    if not (_holds_words(table, number) if categorical is None else categorical[number]):
        return None, np.isnan(_numbers(table, number)).any()
    texts, _ = _texts(table, number)
    return np.array(sorted({text for text in texts if text is not None}), dtype=str), None in texts


def _read(table, number, levels):
    """Numbers of a column, or of its levels, nan for gaps and unknown levels; and where gaps are."""
    if levels is None:
        values = _numbers(table, number)
        return values, np.isnan(values)
    texts, index = _texts(table, number)
    code = {level: float(i) for i, level in enumerate(levels.tolist())}
    codes = np.array([code.get(text, np.nan) for text in texts], dtype=np.float64)
    return codes[index], np.array([text is None for text in texts], dtype=bool)[index]


def _holds_words(table, number):
    """Whether a column holds categories, by its dtype, or by its values where that says nothing."""
    if table.holds_categories(number):
        return True
    if table.holds_numbers(number) or not table.is_frame:
        return False
    found = [value for value in distinct(table.values(number))[0] if not _is_gap(value)]
    words = [value for value in found if isinstance(value, str)]
    if words and len(words) < len(found):
        other = next(value for value in found if not isinstance(value, str))
        raise ValueError(f"the word {words[0]!r} stands beside {other!r}")
    # A column of nothing may hold words in other rows.
    return not found or (bool(words) and not all(map(_is_number, words)))


def _is_gap(value):
    """A word of nothing but spaces is one as well."""
    return is_missing(value) or (isinstance(value, str) and (not value or value.isspace()))


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def _texts(table, number):
    """Different values of a category as words, None for a gap, and of every row the index of its own."""
    found, index = distinct(table.values(number))
    return [_text(value) for value in found], index


def _text(value):
    """A level as a word: whole numbers and truth values as whole numbers, whatever their type."""
    if _is_gap(value):
        return None
    if isinstance(value, (Real, np.bool_)) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def _numbers(table, number):
    """A column as numbers, nan for gaps."""
    values = table.values(number)
    if values.dtype.kind in "biuf" and values.ndim == 1:
        return values
    return np.array([np.nan if _is_gap(value) else float(value) for value in values.tolist()], dtype=np.float64)


def categorical_mask(categorical_features, X, table):
    """Which columns `categorical_features` names, as an array of bool, or None where their dtype says so.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like of bool, int or str, or None
    table : Table

    Raises
    ------
    ValueError
        For what is no mask, and no indices or names of columns.
    """
    if isinstance(categorical_features, str):
        return None
    n_columns = X.shape[1] if issparse(X) else len(table.names) if table is not None else np.asarray(X).shape[-1]
    chosen = np.zeros(n_columns, dtype=bool)
    try:
        asked = np.asarray([] if categorical_features is None else categorical_features)
    except ValueError:
        # Sequences of different lengths within the sequence.
        asked = np.array([categorical_features], dtype=object)
    if asked.size == 0:
        return chosen
    if asked.ndim == 1 and asked.dtype == bool and len(asked) == n_columns:
        return asked
    if asked.ndim == 1 and asked.dtype.kind in "iu" and asked.min() >= 0 and asked.max() < n_columns:
        chosen[asked] = True
        return chosen
    names = table.names if table.is_frame else []
    unknown = [each for each in asked.ravel().tolist() if not isinstance(each, str) or each not in names]
    if unknown:
        raise ValueError(
            f"categorical_features must be 'from_dtype', None, or a mask, indices or names of the {n_columns} columns "
            f"of X; got {unknown[:5]}, and the names are {names[:10] if names else 'none, because X is no frame'}."
        )
    return np.array([name in asked.tolist() for name in names])
