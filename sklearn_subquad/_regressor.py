"""The regressor."""

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import column_or_1d, validate_data

from sklearn_subquad._base import BaseSubquadMLP
from sklearn_subquad._compat import fit_context

# From this number of rows on a held-out part is large enough to choose the number of steps.
_MIN_ROWS_FOR_VALIDATION = 200


class SubquadMLPRegressor(MultiOutputMixin, RegressorMixin, BaseSubquadMLP):
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        X, y = validate_data(
            self,
            X,
            y,
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._single_output = y.ndim == 1
        early_stopping = self.early_stopping
        if early_stopping == "auto":
            early_stopping = "validation" if len(X) >= _MIN_ROWS_FOR_VALIDATION else "loo"
        return self._fit_network(
            X,
            y.reshape(len(X), -1).astype(np.float64),
            sample_weight,
            unit_variance_targets=True,
            early_stopping=early_stopping,
        )

    def predict(self, X):
        outputs = self._outputs(X)
        return outputs[:, 0] if self._single_output else outputs
