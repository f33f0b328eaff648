"""How much every feature matters to a fitted network: its share of the average gradient outer product."""

import dataclasses

import numpy as np

from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._fit.data import drawn_rows
from sklearn_subquad._linalg.features import SparseFeatures, as_features
from sklearn_subquad._linalg.row_span import times
from sklearn_subquad._memory import densified
from sklearn_subquad._utils.random_streams import Stream, generator

# Rows on which gradients are averaged, of all networks together, and by each at least. A fit to few rows takes
# milliseconds a network: more of them would be a hundredth of it.
_ROWS, _LEAST_ROWS = 256, 32
# Fewer rows where a gradient is long: so many numbers, which are little beside the weights, of some rows at least.
_NUMBERS, _LEAST_LONG_ROWS = 1 << 18, 4
# Gram matrices of more columns take more than a loop.
_MAX_GRAM_COLUMNS = 2048


def feature_shares(model, data, n_networks, seed):
    """Shares of the features in how much the outputs of a network change with them.

    With g the gradient of an output by the scaled columns of feature j (itself and its ramps; levels of a category, and
    where there are gaps) and C_j the covariance of these columns over the rows, the feature counts ``mean(g^T C_j g)``,
    summed over the outputs: the mean variance of the linearised network as the feature alone takes its values. That is
    the trace of a block of the average gradient outer product times C_j. Columns are linear pieces of a feature, over
    all its values: a step is seen by rows that are not on it, and of an indicator the distance between its two values
    counts.

    Parameters
    ----------
    model : FittedModel
    data : TrainingSet
        Rows, of which some are drawn.
    n_networks : int
        Networks that share the work.
    seed : int

    Returns
    -------
    ndarray of shape (n_features,), float64
        Of sum one; zeros where the network is constant or nothing varies.

    References
    ----------
    A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin, "Mechanism for feature learning in neural networks and
    backpropagation-free machine learning models", Science 383, 2024.
    """
    rng = generator(seed, Stream.IMPORTANCES)
    n_rows = max(min(_ROWS // n_networks, len(data) // 4), _LEAST_ROWS)
    n_rows = max(min(n_rows, _NUMBERS // len(model.inputs.mean)), _LEAST_LONG_ROWS)
    rows = data[drawn_rows(len(data), n_rows, rng)]
    inputs = model.inputs
    x = inputs.transform(rows.X, model.network.dtype)
    gradients = _gradients(model, x, rng)
    roots = np.sqrt(rows.sample_weight)[:, None]
    if isinstance(x, SparseFeatures) and inputs.encoding is None:
        # Of rare entries, few rows say little.
        spread = model.batch.x.variances(model.batch.sample_weight)[:-1]
        changes = np.square(roots * _in_range(gradients)).sum(axis=(0, 1)) * _in_range(spread)
        return changes / (changes.sum() or 1.0)
    z = as_features(x).to_array()[:, :-1]
    if inputs.metric is not None:
        gradients = gradients @ inputs.metric.T
        z = dataclasses.replace(inputs, metric=None).transform(densified(rows.X))[:, :-1]
    z = z - np.average(z.astype(np.float64), axis=0, weights=rows.sample_weight)
    changes = _linear_changes(roots * _in_range(gradients), roots * _in_range(z), _columns_of_x(data.origins, inputs))
    return changes / (changes.sum() or 1.0)


def _in_range(values):
    """The same to a factor, which shares do not depend on: squares of gradients may leave the range of doubles."""
    return values / (np.abs(values).max() or 1.0)


def _gradients(model, x, rng):
    """Gradients by the network inputs x of combinations of outputs (n_probes x n x d), float64."""
    network, varies = model.network, model.targets.scale > 0
    # What is said of constant targets does not come from the network.
    probes = make_probes(len(varies), rng) * varies[:, None]
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), probes, IdentityFactor())
    of_outputs = network.output_weights[1]
    gradients = np.zeros((probes.shape[1], len(x), x.shape[1] - 1))
    for U, C, total in zip(jacobian.probe_cotangents, jacobian.probe_outputs, gradients, strict=True):
        for u, layer in zip(U, network.layers, strict=True):
            if layer.input_weights is not None:
                total += times(u, layer.input_weights)[:, :-1]
        if of_outputs is not None:
            total += C @ of_outputs[:-1].T
    return gradients


def _columns_of_x(origins, inputs):
    """For every network input the column of X that it is made of, given that of every feature."""
    return origins if inputs.encoding is None else np.append(origins, origins[inputs.encoding.feature_of_ramp])


def _linear_changes(gradients, z, origins):
    """Of every column of X the sum over rows of ``g^T C g`` for all that is made of it, to a common factor."""
    gradients = gradients.reshape(-1, z.shape[1])
    if np.array_equal(origins, np.arange(len(origins))):
        return np.square(gradients).sum(axis=0) * np.square(z).sum(axis=0)
    if len(origins) > _MAX_GRAM_COLUMNS:
        order = np.argsort(origins, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(origins[order])) + 1)
        return np.array([np.square(gradients[:, part] @ z[:, part].T).sum() for part in parts])
    products = (gradients.T @ gradients) * (z.T @ z)
    changes = np.bincount(origins, weights=np.where(origins[:, None] == origins, products, 0.0).sum(axis=1))
    # Rounding may leave less than zero.
    return np.maximum(changes, 0)
