"""Which directions of the features matter: a metric learned from the gradients of a fitted network."""

import numpy as np

from sklearn_subquad._curvature.input_gradients import input_gradients
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._linalg.threads import blas_threads
from sklearn_subquad._utils.random_streams import Stream, generator

# Features are multiplied by this power of their gradients' second moments. With 1/2, that of a Mahalanobis distance,
# what matters less is all but lost, also where it matters (doc/defaults.md).
_POWER = 0.25


def average_gradient_outer_product(network, x, sample_weight, seed):
    """Mean over rows and outputs of the outer product of the outputs' gradients by the features.

    Parameters
    ----------
    network : Network
    x : ndarray of shape (n, d + 1)
        Network inputs.
    sample_weight : ndarray of shape (n,)
    seed : int
        Of the output combinations whose gradients are taken, where there are more than three outputs.

    Returns
    -------
    ndarray of shape (d, d), float64
        Zero where the network is constant.

    References
    ----------
    A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin, "Mechanism for feature learning in neural networks and
    backpropagation-free machine learning models", Science 383, 2024: there the average gradient outer product.
    """
    probes = make_probes(network.output_weights[0].shape[1], generator(seed, Stream.METRIC_PROBES))
    n_features = x.shape[1] - 1
    total = np.zeros((n_features, n_features))
    for rows in network.row_batches(len(x)):
        activations = network.forward(x[rows])
        jacobian = Jacobian(network, activations, np.sqrt(sample_weight[rows]), probes, IdentityFactor())
        for gradients in input_gradients(jacobian):
            gradients = gradients[:, :-1].astype(np.float64)
            with blas_threads(2 * gradients.size * n_features):
                total += gradients.T @ gradients
    return total / (sample_weight.sum() * probes.shape[1])


def learned_metric(moments):
    """The matrix that features are multiplied by, so that directions count by how much outputs depend on them.

    It is the fourth root of the second moments of gradients: where layers have learned features, the product of their
    weights with their transpose is found to be about the square root.

    Parameters
    ----------
    moments : ndarray of shape (d, d)
        From `average_gradient_outer_product`, of inputs that no metric was applied to.

    Returns
    -------
    ndarray of shape (d, d), float64, symmetric, or None
        None where the moments are zero or not finite, and say nothing. Its scale means nothing. Features without
        moments are exactly zero in it.
    """
    if not np.isfinite(moments).all():
        return None
    # Features on which nothing depends stay out: rounding would give them a small part of the others.
    seen = np.flatnonzero(np.diagonal(moments) > 0)
    if not len(seen):
        return None
    among_seen = np.ix_(seen, seen)
    eigenvalues, vectors = np.linalg.eigh(moments[among_seen])
    if not eigenvalues[-1] > 0:
        return None
    # Rounding may leave some below zero.
    powers = (np.maximum(eigenvalues, 0) / eigenvalues[-1]) ** _POWER
    metric = np.zeros_like(moments)
    metric[among_seen] = (vectors * powers) @ vectors.T
    return metric
