"""Validation of X: arrays of numbers as scikit-learn's estimators take them, and tables of all kinds of columns."""

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, check_X_y
from sklearn.utils.validation import validate_data

from sklearn_subquad._fit.columns import Columns, categorical_mask
from sklearn_subquad._memory import densified
from sklearn_subquad._parameters import MLPParameters
from sklearn_subquad._utils.frames import Table
from sklearn_subquad._utils.missing import has_gaps


class TabularInput(MLPParameters):
    """What columns of X are made into is found by `fit`, and done to every X that follows."""

    @property
    def _columns(self):
        """What is made of columns of X; None where they are numbers without gaps."""
        # Models that were stored before there was anything else have none.
        return Columns.from_state(self.__dict__.get("_columns_"))

    def _validated_features(self, X, name, *y, reset=False, dtype=(np.float64, np.float32), **checks):
        """Columns of numbers, a gap among which is nan, for X as the caller passed it; also targets, if passed.

        Parameters
        ----------
        X, y : object
        name : str
            Of X, for messages.
        reset : bool
            True where X says what columns are made into.
        dtype : sequence of dtype
            The first one takes the place of any others.
        **checks : dict
            As for `check_X_y`.
        """
        columns = None if reset else self._columns
        table, mask = self._to_read(X, name, columns, reset)
        checks |= {"accept_sparse": "csr", "dtype": list(dtype), "estimator": self}
        checks["ensure_all_finite"] = True if issparse(X) else "allow-nan"
        if table is None:
            validated = validate_data(self, X, *y, reset=reset, **checks)
            X, *y = validated if y else (validated,)
            gaps = None
            if (reset or columns is not None) and not issparse(X) and has_gaps(X):
                gaps = np.isnan(X)
            if reset and gaps is not None:
                columns = Columns.of_numbers(gaps)
        else:
            validate_data(self, X, *y, reset=reset, skip_check_array=True)
            if reset:
                columns = Columns.of_table(table, mask, name)
            X, gaps = (columns or Columns.of_numbers(np.zeros((1, len(table.names)), dtype=bool))).read(table, name)
            X, *y = check_X_y(X, *y, **checks) if y else (check_array(X, input_name="X", **checks),)
        if reset:
            columns = None if columns is None or columns.are_plain else columns
            self._columns_ = None if columns is None else columns.to_state()
        if columns is not None:
            X = densified(X)
            X = columns.transform(X, np.zeros(X.shape, dtype=bool) if gaps is None else gaps)
        return (X, *y) if y else X

    def _to_read(self, X, name, columns, reset):
        """X as a `Table` whose columns have to be read one by one, and the mask of those that are categories.

        Both are None for what scikit-learn makes an array of numbers of by itself.
        """
        if columns is None and not reset and isinstance(X, np.ndarray) and X.dtype != object:
            return None, None
        table, mask = Table.of(X), None
        if table is not None and table.is_frame:
            table.require_different_names(name)
        if columns is not None:
            mask = np.array([levels is not None for levels in columns.levels])
        elif reset:
            mask = categorical_mask(self.categorical_features, X, table)
        if mask is not None and mask.any():
            if issparse(X):
                raise ValueError(f"{name} is sparse, but has categories: pass a frame, or {name}.toarray().")
            return table or Table.of(np.asarray(X, dtype=object)), mask
        if table is None or table.is_of_numbers:
            return None, None
        return table, mask
