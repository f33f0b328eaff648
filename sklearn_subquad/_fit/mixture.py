"""Deviations of the mean of several networks, each of which has deviations of its own."""

import numpy as np

# At least so much of the variance of the mixture is left: networks that differ more than each of them doubts itself do
# not know themselves.
_LEAST_SHARE = 0.25


def weighted_mean(outputs, weights):
    """Mean over the first axis; where all are equal, as of constant targets, it is what they are to the bit."""
    outputs = np.asarray(outputs)
    mean = np.average(outputs, axis=0, weights=weights)
    return np.where((outputs == outputs[0]).all(axis=0), outputs[0], mean)


def mixture_deviation(means, deviations, weights):
    """Deviation of a mixture of distributions.

    Parameters
    ----------
    means : sequence of length n_networks of ndarray of shape (n, k)
    deviations : sequence of length n_networks of ndarray of shape (n, k) or None
        Of those networks that know any, which stand for the others.
    weights : ndarray of shape (n_networks,), of sum one

    Returns
    -------
    ndarray of shape (n, k), float64
    """
    own, spread, unit = _variances(means, deviations, weights)
    return unit * np.sqrt(own + spread)


def deviation_scale(means, deviations, weights, sample_weight):
    """What deviations of the mixture are multiplied by to be those of its mean, as an ndarray of shape (k,).

    The squared error of a mean of networks is their mean squared error less their spread about the mean. Where V is
    the variance that a network claims for itself and A that spread, the mean of networks has V - A, and the mixture
    V + A. The mean over rows is that of the ratio, of which every row has a bounded share: a few on which the networks
    are far apart say nothing of all others.

    Parameters
    ----------
    means, deviations, weights
        As `mixture_deviation` takes them, for rows like those to come.
    sample_weight : ndarray of shape (n,)

    References
    ----------
    A. Krogh, J. Vedelsby, "Neural network ensembles, cross validation, and active learning", NeurIPS 1994.
    """
    own, spread, _ = _variances(means, deviations, weights)
    shares = np.divide(own - spread, own + spread, out=np.ones_like(own), where=own + spread > 0)
    return np.sqrt(np.maximum(np.average(shares, axis=0, weights=sample_weight), _LEAST_SHARE))


def _variances(means, deviations, weights):
    """Mean of the variances and spread of the means, both in squares of a unit (n x k) that makes the larger one 1."""
    known = [number for number, each in enumerate(deviations) if each is not None]
    means = np.asarray(means, dtype=np.float64)
    deviations = np.asarray([deviations[number] for number in known], dtype=np.float64)
    distances = np.abs(means - weighted_mean(means, weights))
    # Squares of very large or small numbers leave the range of the type.
    unit = np.maximum(distances.max(axis=0), deviations.max(axis=0))
    unit[unit == 0] = 1
    own = np.average((deviations / unit) ** 2, axis=0, weights=weights[known])
    spread = np.average((distances / unit) ** 2, axis=0, weights=weights)
    return own, spread, unit
