"""Scores of estimators on held-out rows, in the place of their loss."""

import warnings

import numpy as np

from sklearn_subquad._compat import accepts_sample_weight


class Score:
    """A score of an estimator on rows that a fit does not see; higher is better.

    Parameters
    ----------
    estimator : estimator
        The one that is fitted.
    scoring : str, callable or None
        As :func:`sklearn.metrics.check_scoring` takes it.
    """

    def __init__(self, estimator, scoring):
        # Not at the top: it imports a large part of scikit-learn, which whoever only loads a model does without.
        from sklearn.metrics import check_scoring

        self._scoring, self._scorer = scoring, check_scoring(estimator, scoring)
        self._takes_weights = accepts_sample_weight(self._scorer)

    def warn_without_weights(self):
        """Warn where `fit` has weights that the score does not take."""
        if not self._takes_weights:
            warnings.warn(
                f"scoring={self._scoring!r} takes no sample_weight: held-out rows count equally in it, whatever they "
                "weigh in the fit.",
                UserWarning,
                stacklevel=5,
            )

    def __call__(self, estimator, rows, source, may_be_undefined=False):
        """The score.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        rows : GivenRows
        source : str
            Name of the rows in messages.
        may_be_undefined : bool
            True if nan is an answer where rows lack a class, as it is for a constant model.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            Where the score is no number, or is undefined because the rows lack a class.
        """
        weights = {}
        if rows.sample_weight is not None and self._takes_weights:
            weights["sample_weight"] = rows.sample_weight
        absent = _absent_classes(estimator, rows.y)
        try:
            value = self._scorer(estimator, rows.X, rows.y, **weights)
        except ValueError as error:
            if not absent:
                raise
            reason = str(error).rstrip(".")
            raise self._undefined(source, absent, f": {reason}.") from error
        try:
            value = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"scoring must return a number; it returned {value!r}.") from error
        if np.isnan(value) and absent and not may_be_undefined:
            raise self._undefined(source, absent, ".")
        return value

    def _undefined(self, source, absent, reason):
        return ValueError(
            f"scoring={self._scoring!r} is undefined on {source}, which has no row of class {absent}{reason} Pass "
            "X_val and y_val with rows of every class, leave out classes of few rows, ask for fewer n_folds, or use "
            "scoring='loss'."
        )


def _absent_classes(estimator, y):
    """Classes of a classifier that no row has; of several labels, the numbers of those that all rows or none have."""
    if not hasattr(estimator, "classes_"):
        return []
    if np.ndim(y) == 1:
        return np.setdiff1d(estimator.classes_, y).tolist()
    held = np.asarray(y.sum(axis=0)).ravel()
    return np.flatnonzero((held == 0) | (held == y.shape[0])).tolist()
