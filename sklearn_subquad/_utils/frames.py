"""Tables whose columns are of different kinds: frames of pandas, polars and pyarrow, and arrays of objects.

None of these packages is imported: they are known by what they offer.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

# How names of dtypes begin of dates, durations and periods, of categories, and of numbers and truth values.
TIMES = re.compile("(date|time|timestamp|duration|period)", re.IGNORECASE)
_CATEGORIES = re.compile("category|categorical|enum|dictionary", re.IGNORECASE)
_NUMBERS = re.compile(r"(u?int\d*|(half)?float\d*|double|bool|boolean|decimal\w*|null|sparse)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Columns by number.

    Attributes
    ----------
    X : object
        The frame, or an array of two dimensions.
    names : list
        Of a frame those of its columns, else their numbers.
    dtypes : list
        Of every column.
    """

    X: Any
    names: list
    dtypes: list

    @classmethod
    def of(cls, X):
        """That table, or None for anything else, such as arrays of one dimension and sparse matrices."""
        if isinstance(X, np.ndarray):
            return cls(X, list(range(X.shape[1])), [X.dtype] * X.shape[1]) if X.ndim == 2 else None
        if hasattr(X, "column_names") and hasattr(X, "schema"):
            return cls(X, list(X.column_names), list(X.schema.types))
        if hasattr(X, "columns") and hasattr(X, "dtypes") and (hasattr(X, "iloc") or hasattr(X, "to_series")):
            return cls(X, list(X.columns), list(X.dtypes))
        return None

    @property
    def is_frame(self):
        return not isinstance(self.X, np.ndarray)

    @property
    def is_of_numbers(self):
        """True where all dtypes are of numbers, or of dates, which are numbers as well."""
        if not self.is_frame:
            return self.X.dtype.kind != "O"
        return all(self.holds_numbers(number) or self.holds_times(number) for number in range(len(self.names)))

    def require_different_names(self, name):
        """ValueError where two columns have one name."""
        twice = [each for each, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"{name} has several columns of the name {twice[0]!r}: rename them.")

    def holds_categories(self, number):
        """Whether the dtype of a column is one of categories."""
        return bool(_CATEGORIES.match(str(self.dtypes[number])))

    def holds_numbers(self, number):
        """Whether the dtype of a column is one of numbers or truth values."""
        return bool(_NUMBERS.match(str(self.dtypes[number])))

    def holds_times(self, number):
        """Whether the dtype of a column is one of dates, durations or periods."""
        return bool(TIMES.match(str(self.dtypes[number])))

    def values(self, number):
        """A column as an array of one dimension: of numbers, or of objects, gaps among which are as they come."""
        if not self.is_frame:
            return self.X[:, number]
        if hasattr(self.X, "iloc"):
            return np.asarray(self.X.iloc[:, number])
        if hasattr(self.X, "to_series"):
            return np.asarray(self.X.to_series(number))
        column = self.X.column(number)
        if self.holds_categories(number):
            # As an array, a gap would be one of the categories.
            values = np.empty(len(column), dtype=object)
            values[:] = column.to_pylist()
            return values
        return np.asarray(column)


def distinct(values):
    """Different values of a column, as a list of Python's objects, and of every row the index of its own."""
    if values.ndim > 1:
        raise ValueError("its cells hold several values each")
    if values.dtype.kind in "biuf":
        found, index = np.unique(values, return_inverse=True)
        return found.tolist(), index
    known: dict[Any, int] = {}
    index = [known.setdefault(value, len(known)) for value in values.tolist()]
    return list(known), np.array(index, dtype=int)
