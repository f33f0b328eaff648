"""The classifier."""

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from sklearn_subquad._base import BaseSubquadMLP
from sklearn_subquad._compat import check_sample_weight, fit_context


class SubquadMLPClassifier(ClassifierMixin, BaseSubquadMLP):
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        counted = np.unique(codes[check_sample_weight(sample_weight, X) > 0])
        if len(counted) < 2:
            raise ValueError(
                "y must hold at least two classes in rows of positive sample_weight; only class "
                f"{self.classes_[counted[0]]!r} was found."
            )
        indicators = np.eye(len(self.classes_))[codes]
        if len(self.classes_) == 2:
            indicators = indicators[:, 1:]
        return self._fit_network(
            X,
            indicators,
            sample_weight,
            unit_variance_targets=False,
            early_stopping="loo" if self.early_stopping == "auto" else self.early_stopping,
            stratify=codes,
        )

    def decision_function(self, X):
        outputs = self._outputs(X)
        return 2 * outputs[:, 0] - 1 if len(self.classes_) == 2 else outputs

    def predict(self, X):
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[chosen]

    def predict_proba(self, X):
        outputs = self._outputs(X)
        if len(self.classes_) == 2:
            outputs = np.column_stack([1 - outputs[:, 0], outputs[:, 0]])
        return project_onto_simplex(outputs)

    def predict_log_proba(self, X):
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


def project_onto_simplex(rows):
    """Euclidean projection of every row onto the probability simplex.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008.
    """
    descending = -np.sort(-rows, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    counts = np.arange(1, rows.shape[1] + 1)
    support = np.count_nonzero(descending * counts > excess, axis=1)
    threshold = excess[np.arange(len(rows)), support - 1] / support
    projected = np.maximum(rows - threshold[:, None], 0)
    return projected / projected.sum(axis=1, keepdims=True)
