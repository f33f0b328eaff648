"""The network: weights, sparsifying activations, forward passes."""
