"""From scores to probabilities: one factor, fitted on rows that the scores do not come from."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from sklearn_subquad._curvature.losses import BinaryLogLoss, MultinomialLogLoss
from sklearn_subquad._solver.criteria import HeldOutError
from sklearn_subquad._solver.levenberg_marquardt import Batch

# Logarithms of the smallest and the largest factor: probabilities that hardly follow scores, and steps.
_LOG_RANGE = (-7.0, 9.0)


@dataclass(frozen=True)
class HeldOutRows:
    """Outputs of a model for rows that it was not fitted to, or as if it had not been.

    Attributes
    ----------
    outputs : ndarray of shape (n, k)
        Estimates of the indicators: one column for two classes, or for every label.
    indicators : ndarray of shape (n, k)
    sample_weight : ndarray of shape (n,)
    n_rows : int
        Rows of the whole data set.
    """

    outputs: np.ndarray
    indicators: np.ndarray
    sample_weight: np.ndarray
    n_rows: int


def scores(outputs, independent):
    """Scores behind probabilities: outputs, where each is for or against one label mapped to -1 and 1."""
    return 2 * outputs - 1 if independent else outputs


def fitted_inverse_temperature(rows, independent):
    """The factor on `scores` that gives the logarithms of the likeliest probabilities, to a constant per row.

    It changes no decision. One more row counts that has another label, as where log loss decides when to stop: scores
    that are right on all rows would be made sure without end.

    Parameters
    ----------
    rows : HeldOutRows
    independent : bool
        True if every output is for or against one label, of two classes or of several labels that a row may have;
        else they are those of classes, of which a row has one.

    Returns
    -------
    float

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017: temperature
    scaling.
    """
    values = scores(rows.outputs, independent).astype(np.float64)
    loss = (BinaryLogLoss if independent else MultinomialLogLoss)(np.zeros(values.shape[1]))
    batch = Batch(None, rows.indicators.astype(np.float64), rows.sample_weight)
    criterion = HeldOutError(batch, loss, rows.n_rows)
    # Convex in the factor, hence with one minimum in its logarithm as well.
    found = minimize_scalar(lambda log: criterion.of_outputs(np.exp(log) * values), bounds=_LOG_RANGE, method="bounded")
    return float(np.exp(found.x))


def project_onto_simplex(rows):
    """Euclidean projection of every row onto the probability simplex.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008.
    """
    # The projection does not see a constant added to a row; without large numbers nothing is lost to rounding.
    shifted = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
    descending = -np.sort(-shifted, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    counts = np.arange(1, rows.shape[1] + 1)
    support = np.count_nonzero(descending * counts > excess, axis=1)
    threshold = excess[np.arange(len(rows)), support - 1] / support
    projected = np.maximum(shifted - threshold[:, None], 0)
    return (projected / projected.sum(axis=1, keepdims=True)).astype(rows.dtype)
