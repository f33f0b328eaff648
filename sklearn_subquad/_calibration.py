"""From scores to probabilities: one factor, fitted on rows that the scores do not come from."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from sklearn_subquad._losses import BinaryLogLoss, MultinomialLogLoss
from sklearn_subquad._stopping import HeldOutError
from sklearn_subquad._trust_region import Batch

# Logarithms of the smallest and the largest factor: probabilities that hardly follow scores, and steps.
_LOG_RANGE = (-7.0, 9.0)


@dataclass(frozen=True)
class LeftOutRows:
    """What a model says of rows that it was not fitted to, or as if it had not been.

    Attributes
    ----------
    outputs : ndarray of shape (n, k)
        Estimates of the indicators: one column for two classes.
    indicators : ndarray of shape (n, k)
    sample_weight : ndarray of shape (n,)
    """

    outputs: np.ndarray
    indicators: np.ndarray
    sample_weight: np.ndarray


@dataclass(frozen=True)
class LeftOutPath:
    """The same along a path: outputs after 0, 1, ... steps or passes, in a list."""

    outputs: list
    indicators: np.ndarray
    sample_weight: np.ndarray

    def after(self, n_steps):
        """`LeftOutRows` after so many steps, or the last ones where the path is shorter."""
        return LeftOutRows(self.outputs[min(n_steps, len(self.outputs) - 1)], self.indicators, self.sample_weight)

    @classmethod
    def concatenate(cls, paths):
        """The rows of several paths, of which the shorter ones stay where they ended."""
        length = max(len(path.outputs) for path in paths)
        return cls(
            [np.concatenate([path.after(i).outputs for path in paths]) for i in range(length)],
            np.concatenate([path.indicators for path in paths]),
            np.concatenate([path.sample_weight for path in paths]),
        )


def scores(outputs):
    """What probabilities are functions of: outputs, for two classes mapped to -1 and 1."""
    return 2 * outputs - 1 if outputs.shape[1] == 1 else outputs


def fitted_sharpness(rows):
    """The factor on `scores` that gives the logarithms of the likeliest probabilities, to a constant per row.

    It changes no decision. One more row counts that has another label, as where log loss decides when to stop: scores
    that are right on all rows would be made sure without end.

    Parameters
    ----------
    rows : LeftOutRows

    Returns
    -------
    float

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017: temperature
    scaling, whose temperature is one over this.
    """
    values = scores(rows.outputs).astype(np.float64)
    n_outputs = values.shape[1]
    loss = (BinaryLogLoss if n_outputs == 1 else MultinomialLogLoss)(np.zeros(n_outputs))
    criterion = HeldOutError(Batch(None, rows.indicators.astype(np.float64), rows.sample_weight), loss)
    # Convex in the factor, hence with one minimum in its logarithm as well.
    found = minimize_scalar(lambda log: criterion.of_output(np.exp(log) * values), bounds=_LOG_RANGE, method="bounded")
    return float(np.exp(found.x))
