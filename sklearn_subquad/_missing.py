"""Missing values, and dates, that scikit-learn's validation takes for numbers or says little of."""

import re

import numpy as np
from scipy.sparse import issparse

# How names of dtypes of dates, durations and periods begin, in NumPy, pandas, polars and pyarrow.
_TIME = re.compile("(date|time|timestamp|duration|period)", re.IGNORECASE)


def refuse_missing(y, name, remedy):
    """Raise ValueError for targets that are None, nan among objects, pandas.NA or NaT.

    Parameters
    ----------
    y : object
        As the caller passed it. None itself, sparse matrices and what is no array are left to other checks.
    name, remedy : str
        For the message.
    """
    if y is None or issparse(y):
        return
    try:
        values = np.asarray(y)
    except ValueError:
        return
    if values.dtype.kind in "mM":
        missing = np.isnat(values).any()
    else:
        missing = values.dtype.kind == "O" and any(map(_is_missing, values.flat))
    if missing:
        raise ValueError(f"{name} holds missing {remedy}")


def _is_missing(value):
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        # pandas.NA equals nothing and differs from nothing; what else has no answer, such as an array, is no gap.
        return type(value).__name__ == "NAType"


def refuse_times(X, name="X"):
    """Raise ValueError for missing dates among features, and for dates beside columns of another kind.

    Dates alone, or durations alone, are numbers in their own unit. Only dtypes are looked at, unless they are of dates.

    Parameters
    ----------
    X : object
        Features as the caller passed them.
    name : str
        For the message.
    """
    columns, dtypes = getattr(X, "columns", None), getattr(X, "dtypes", None)
    if columns is None or dtypes is None:
        if getattr(getattr(X, "dtype", None), "kind", "") in ("m", "M") and np.isnat(X).any():
            raise ValueError(f"{name} holds missing dates or durations (NaT): drop these rows, or fill them.")
        return
    columns, dtypes = list(columns), [str(dtype) for dtype in dtypes]
    times = [column for column, dtype in zip(columns, dtypes, strict=True) if _TIME.match(dtype)]
    if not times:
        return
    listed = ", ".join(map(repr, times[:10]))
    if len(times) < len(columns) or len(set(dtypes)) > 1:
        raise ValueError(
            f"{name} holds dates, durations or periods in columns {listed}, and other columns or units beside them: "
            "turn them into numbers, such as days since a date."
        )
    missing = [column for column in times if _any_missing(X[column])]
    if missing:
        listed = ", ".join(map(repr, missing[:10]))
        raise ValueError(
            f"{name} holds missing dates or durations (NaT) in columns {listed}: drop these rows, or fill them."
        )


def _any_missing(column):
    missing = column.is_null() if hasattr(column, "is_null") else column.isna()
    return bool(np.asarray(missing).any())
