"""What each of many networks counts in their mean, by rows that none of them has seen."""

import numpy as np
from scipy.optimize import nnls

# How strongly weights are drawn towards equal ones.
_SHRINKAGE = 1.0
# So much of the mean is that of all networks alike: each has a say, also in deviations, for which some stand for all.
_EQUAL_SHARE = 0.1


def least_squares_weights(outputs, Y, sample_weight):
    """Weights of the mean of least squared error, none of which is negative, shrunken towards equal ones.

    Parameters
    ----------
    outputs : ndarray of shape (n_networks, n, k)
    Y : ndarray of shape (n, k)
    sample_weight : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (n_networks,), float64, of sum one
    """
    n_networks = len(outputs)
    roots = np.sqrt(sample_weight / sample_weight.mean())[:, np.newaxis]
    errors = ((outputs - Y) * roots).reshape(n_networks, -1)
    # The squared error of a mean is quadratic in its weights: sum(w) = 1 is held by a row of large numbers.
    gram = errors @ errors.T
    equal = np.full(n_networks, 1 / n_networks)
    if not gram.any():
        return equal
    shrink = _SHRINKAGE * n_networks / errors.shape[1] * np.trace(gram)
    factor = np.linalg.cholesky(gram + shrink * np.eye(n_networks))
    heavy = 1e3 * np.sqrt(np.trace(gram) + shrink)
    A = np.vstack([factor.T, np.full(n_networks, heavy)])
    weights, _ = nnls(A, np.append(shrink * np.linalg.solve(factor, equal), heavy))
    return (1 - _EQUAL_SHARE) * weights / weights.sum() + _EQUAL_SHARE * equal
