"""Missing values, dates and objects that scikit-learn's validation takes for numbers or complains of unclearly."""

import contextlib
import math
import re

import numpy as np
from scipy.sparse import issparse

from sklearn_subquad._utils.frames import TIMES, Table

# How messages begin that do not say what they are about: of shapes, and of what is no number.
_SHAPE = re.compile("Expected 2D array|Expected a 2-dimensional|Found array with")
_NO_NUMBER = re.compile(r"could not convert|setting an array|float\(\) argument|Cannot cast|Complex data")


def check_targets(y, name, remedy):
    """Raise ValueError for targets that are missing, complex or no array of one column or several.

    Missing are None, nan among objects, pandas.NA and NaT.

    Parameters
    ----------
    y : object
        As the caller passed it. None itself is left to other checks, as most that is wrong with sparse matrices.
    name, remedy : str
        For the message.
    """
    if y is None:
        return
    try:
        values = y if issparse(y) else np.asarray(y)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be one column of values, or several of one length and kind: {error}") from error
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is complex; take its real part, or its absolute value.")
    if issparse(y):
        return
    if values.ndim not in (1, 2) or not values.size or values.dtype.kind == "V":
        of = f"an array of shape {values.shape} and type {values.dtype}" if values.ndim else repr(y)
        raise ValueError(f"{name} must be an array of one column of values, or of several; got {of}.")
    if values.dtype.kind in "mM":
        missing = np.isnat(values).any()
    else:
        missing = values.dtype.kind == "O" and any(map(is_missing, values.flat))
    if missing:
        raise ValueError(f"{name} holds missing {remedy}")
    _refuse_times(y, name)


def is_missing(value):
    """Whether an object is None, nan, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        # pandas.NA equals nothing and differs from nothing; what else has no answer, such as an array, is no gap.
        return type(value).__name__ == "NAType"


def numeric_targets(y, name):
    """Targets of a regressor, or ValueError where they are missing or no numbers.

    Parameters
    ----------
    y : object
        As the caller passed it.
    name : str
        For the message.

    Returns
    -------
    object
        `y`; of a pandas Series of dates with a time zone the dates in UTC, which NumPy has a type for.
    """
    if issparse(y):
        raise ValueError(f"{name} is sparse, but SubquadMLPRegressor takes targets as an array: pass {name}.toarray().")
    check_targets(y, name, "targets: drop these rows.")
    dtype = getattr(y, "dtype", None)
    if hasattr(dtype, "tz"):
        return y.to_numpy(dtype=f"datetime64[{dtype.unit}]")
    error = _no_numbers(np.asarray(y)) if y is not None else None
    if error is not None:
        raise ValueError(
            f"{name} must be numeric for a regressor, but {str(error).rstrip('.')}. Encode it as numbers (dates as "
            "days since a date), or use SubquadMLPClassifier."
        ) from error
    return y


@contextlib.contextmanager
def named_errors(data, name):
    """While numbers are validated: refuse what is missing among dates, and say what errors are about.

    Dates alone, or durations alone, are numbers in their own unit. Only dtypes are looked at, unless they are of dates
    or something is wrong.

    Parameters
    ----------
    data : object
        Features or weights as the caller passed them.
    name : str
        For messages.

    Raises
    ------
    ValueError
        For missing dates, dates beside columns of another kind, and what scikit-learn refuses.
    TypeError
        For objects that are no numbers, as by other estimators.
    """
    try:
        _refuse_times(data, name)
        yield
    except (TypeError, ValueError) as error:
        message = str(error)
        if _SHAPE.match(message):
            raise ValueError(f"{name}: {message}") from error
        if issparse(data) and message.startswith("Input X contains NaN"):
            raise ValueError(
                f"{name} is sparse and holds NaN, but gaps are for arrays and frames: put in numbers, or pass "
                f"{name}.toarray()."
            ) from error
        if message.startswith("Input X contains infinity"):
            raise infinite(_infinite_columns(data)) from error
        if not _NO_NUMBER.match(message):
            raise
        columns = [column for column, values in _object_columns(data) if _no_numbers(values) is not None]
        raise not_numbers(name, columns, error) from error


def not_numbers(name, columns, reason):
    """The error for columns that should hold numbers, or nothing but words, and do not.

    Parameters
    ----------
    name : str
        Of the table.
    columns : list
        Names of columns, none where it is not known which.
    reason : Exception or str

    Returns
    -------
    TypeError or ValueError
        The first for one.
    """
    # What follows the first line is the data.
    reason, kind = str(reason).split("\n")[0].rstrip("."), TypeError if isinstance(reason, TypeError) else ValueError
    told = f"{name} must hold real numbers: {reason}"
    if columns:
        told += (
            f", in {_listed(columns)}. Name columns of words in categorical_features, or turn them into numbers; dates "
            "into numbers such as days since a date"
        )
    return kind(f"{told}.")


def infinite(columns):
    """The error for infinity in these columns of X."""
    return ValueError(
        f"Input X contains infinity in {_listed(columns)}: put in a number, or nan where it stands for a gap."
    )


def has_gaps(X):
    """Whether an array of numbers, none of which is infinite, holds nan."""
    # A sum of squares is not a number for one reason only, and takes a tenth of the time that it takes to look at each.
    square = 0.0 if issparse(X) else np.vdot(X, X)
    return bool(square != square)


def _infinite_columns(data):
    if issparse(data):
        entries = data.tocoo()
        return np.unique(entries.col[np.isinf(entries.data)]).tolist()
    table = Table.of(data) or Table.of(np.asarray(data))
    columns = ((name, table.values(number)) for number, name in enumerate(table.names))
    return [name for name, values in columns if any(isinstance(x, float) and math.isinf(x) for x in values.tolist())]


def _refuse_times(data, name):
    """Raise ValueError for missing dates, and for dates beside columns of another kind."""
    if isinstance(data, (list, tuple)) and len(data) and np.asarray(data[0]).dtype.kind in "mM":
        data = np.asarray(data)
    names, dtypes = getattr(data, "columns", None), getattr(data, "dtypes", None)
    if names is None or dtypes is None:
        if getattr(getattr(data, "dtype", None), "kind", "") in ("m", "M") and _any_missing(data):
            raise ValueError(f"{name} holds missing dates or durations (NaT): drop these rows, or fill them.")
        return
    names, dtypes = list(names), [str(dtype) for dtype in dtypes]
    times = [column for column, dtype in zip(names, dtypes, strict=True) if TIMES.match(dtype)]
    if times and (len(times) < len(names) or len(set(dtypes)) > 1):
        raise ValueError(
            f"{name} holds dates, durations or periods in {_listed(times)}, and other columns or units beside them: "
            "turn them into numbers, such as days since a date."
        )
    missing = [column for column in times if _any_missing(data[column])]
    if missing:
        raise ValueError(
            f"{name} holds missing dates or durations (NaT) in {_listed(missing)}: drop these rows, or fill them."
        )


def _any_missing(times):
    for method in ("is_null", "isna"):
        if hasattr(times, method):
            return bool(np.asarray(getattr(times, method)()).any())
    return bool(np.isnat(times).any())


def _no_numbers(values):
    """The error of converting objects or strings to numbers, or None."""
    if values.dtype.kind in "OSU":
        try:
            values.astype(np.float64)
        except (TypeError, ValueError) as error:
            return error
    return None


def _object_columns(data):
    """Names, or numbers, and objects of the columns of a table of objects; nothing of what is none."""
    try:
        values = np.asarray(data)
    except (TypeError, ValueError):
        return
    if values.ndim == 2 and values.dtype.kind in "OSU":
        yield from zip(getattr(data, "columns", range(values.shape[1])), values.T, strict=True)


def _listed(columns):
    more = f" and {len(columns) - 10} more" if len(columns) > 10 else ""
    return f"columns {', '.join(map(repr, columns[:10]))}{more}"
