"""Gradients of the outputs by the network's inputs."""

from sklearn_subquad._linalg.packed import times_dense


def input_gradients(jacobian):
    """For every probe the gradients (n x (n_features + 1)) of its combination of outputs by x, times the row scale."""
    network = jacobian.network
    weights, of_outputs = [layer.input_weights for layer in network.layers], network.output_weights[1]
    for U, C in zip(jacobian.probe_cotangents, jacobian.probe_outputs, strict=True):
        parts = [times_dense(u, W) for u, W in zip(U, weights, strict=True) if W is not None]
        yield sum(parts) if of_outputs is None else sum(parts) + C @ of_outputs.T
