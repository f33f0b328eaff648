"""From outputs to probabilities: a rising function, fitted on rows that the outputs do not come from."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax

from sklearn_subquad._solver.criteria import HELD_OUT_ROWS
from sklearn_subquad._utils.slices import spaced_rows

# Outputs below are as good as these where logarithms are taken. Where outputs are far from the indicators, a low floor
# would let their errors make probabilities sure.
FLOORS = (0.01, 0.1)
# Of the first coefficient: probabilities that hardly follow outputs, and steps.
_RANGE = np.exp(-7.0), np.exp(9.0)
# Rows that a few numbers are fitted to, at most.
_MAX_ROWS = 8192


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
    """Scores whose sign or maximum decides: outputs, where each is for or against one label mapped to -1 and 1."""
    return 2 * outputs - 1 if independent else outputs


def logits(outputs, coefficients, independent):
    """Logarithms of probabilities to a constant per row, or log odds where every output is for or against one label.

    A combination of the scores and, for two floors, of the logarithms of outputs that are no lower. What is fitted by
    the squared error are expected indicators, hence probabilities already, and their logarithms are those of
    probabilities; but errors of the fit take outputs beyond zero and one, and near them a little is much. All parts
    rise with the output, so that none changes a decision.

    Parameters
    ----------
    outputs : ndarray of shape (n, k)
    coefficients : ndarray of shape (3,), non-negative, or float
        As from `fitted_coefficients`. Models that were stored before there were three have the first one alone.
    independent : bool
        True if every output is for or against one label, of two classes or of several labels that a row may have;
        else they are those of classes, of which a row has one.

    Returns
    -------
    ndarray of shape (n, k), float64
    """
    return np.tensordot(np.atleast_1d(coefficients), _parts(outputs, independent)[: np.size(coefficients)], 1)


def _parts(outputs, independent):
    """What is combined (3 x n x k)."""
    outputs = outputs.astype(np.float64)
    parts = [scores(outputs, independent)]
    for floor in FLOORS:
        part = _logarithm(outputs, floor)
        parts.append(part - _logarithm(1 - outputs, floor) if independent else part)
    return np.array(parts)


def _logarithm(outputs, floor):
    """That of outputs above the floor; below it goes on with a low slope, by which order is kept."""
    return np.log(np.maximum(outputs, floor)) + np.minimum(outputs - floor, 0)


def fitted_coefficients(rows, independent):
    """The coefficients of `logits` with the likeliest probabilities.

    One more row counts that has another label, as where log loss decides when to stop: outputs that are right on all
    rows would be made sure without end.

    Parameters
    ----------
    rows : HeldOutRows
    independent : bool
        As for `logits`.

    Returns
    -------
    ndarray of shape (3,), float64, non-negative

    References
    ----------
    J. Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers, 1999, on scores
    and a logistic function; M. Kull, T. Silva Filho, P. Flach, "Beta calibration", AISTATS 2017, on logarithms.
    """
    chosen = spaced_rows(len(rows.outputs), _MAX_ROWS)
    outputs, indicators = rows.outputs[chosen], rows.indicators[chosen].astype(np.float64)
    weights = rows.sample_weight[chosen] / rows.sample_weight[chosen].sum()
    doubt = 1 / max(len(rows.outputs), min(rows.n_rows, HELD_OUT_ROWS))
    targets = (indicators + doubt * _other_labels(outputs, indicators, independent)) / (1 + doubt)
    parts = _parts(outputs, independent)

    def objective(coefficients):
        z = np.tensordot(coefficients, parts, 1)
        if independent:
            losses, p = -targets * log_expit(z) - (1 - targets) * log_expit(-z), expit(z)
        else:
            losses, p = -targets * log_softmax(z, axis=1), softmax(z, axis=1)
        return weights @ losses.sum(axis=1), np.tensordot(parts, weights[:, None] * (p - targets), 2)

    # Convex; the first one is positive, so that some order is left in any case.
    bounds = [_RANGE, *[(0.0, _RANGE[1])] * len(FLOORS)]
    start = np.array([1.0, *[0.5] * len(FLOORS)])
    options = {"ftol": 1e-12, "gtol": 1e-8}
    return minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


def _other_labels(outputs, indicators, independent):
    """Indicators of the most probable labels besides those that rows have."""
    if independent:
        return 1 - indicators
    others = np.where(indicators > 0, -np.inf, outputs).argmax(axis=1)
    return others[:, None] == np.arange(outputs.shape[1])


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
