"""The same network and the same Gauss-Newton iteration with dense NumPy arrays: what the sparse code is compared with.

One output, squared error, skip connections; every product goes through BLAS with all its threads.
"""

import numpy as np
import scipy.linalg
from scipy.special import ndtri

# Outputs whose weights are updated at a time, so that no second m x m array is needed.
_BLOCK = 2048


class DenseNetwork:
    """Dense copies of a network's parameters (`sklearn_subquad._network.network.Network` with one output)."""

    @classmethod
    def initialise(cls, width, x, density, init_scale):
        """Two hidden layers with random weights, shifts and gains calibrated on x: no packed copy is ever made."""
        rng = np.random.default_rng(0)
        network = cls.__new__(cls)
        network.input_weights = [rng.standard_normal((width, x.shape[1]), np.float32) for _ in range(2)]
        network.hidden_weights = [None, rng.standard_normal((width, width), np.float32)]
        network.A = np.float32(init_scale) * rng.standard_normal((width, 1), np.float32)
        network.A_inputs = np.zeros((x.shape[1], 1), np.float32)
        network.shifts, network.gains, h = [], [], None
        for W, W_x in zip(network.hidden_weights, network.input_weights, strict=True):
            z = x @ W_x.T if W is None else h @ W.T + x @ W_x.T
            shift = np.float32(-ndtri(density) * np.sqrt(np.mean(z**2)))
            h = np.maximum(z - shift, 0)
            gain = np.float32(1 / np.sqrt(np.mean((h**2).sum(axis=1))))
            h *= gain
            network.shifts.append(shift)
            network.gains.append(gain)
        return network

    def __init__(self, network):
        self.input_weights = [layer.input_weights.copy() for layer in network.layers]
        self.hidden_weights = [
            None if layer.hidden_weights is None else layer.hidden_weights.to_dense() for layer in network.layers
        ]
        self.shifts = [np.float32(layer.shift) for layer in network.layers]
        self.gains = [np.float32(layer.gain) for layer in network.layers]
        self.A, self.A_inputs = (part.copy() for part in network.output_weights)

    def forward(self, x):
        """Hidden activations and output (n x 1)."""
        hidden = []
        for W, W_x, shift, gain in zip(self.hidden_weights, self.input_weights, self.shifts, self.gains, strict=True):
            z = x @ W_x.T
            if W is not None:
                z += hidden[-1] @ W.T
            z -= shift
            np.maximum(z, 0, out=z)
            z *= gain
            hidden.append(z)
        return hidden, hidden[-1] @ self.A + x @ self.A_inputs

    def iteration(self, x, y, hidden, output, damping):
        """One damped Gauss-Newton step from the present activations; returns the new ones."""
        n, n_layers = len(x), len(hidden)
        U = [None] * n_layers
        u = np.repeat(self.A.T, n, axis=0)
        for depth in reversed(range(n_layers)):
            U[depth] = u * (hidden[depth] > 0) * self.gains[depth]
            if depth:
                u = U[depth] @ self.hidden_weights[depth]
        x_gram = x @ x.T
        gram = (hidden[-1] @ hidden[-1].T + x_gram).astype(np.float64)
        for depth in range(n_layers):
            inner = x_gram if depth == 0 else hidden[depth - 1] @ hidden[depth - 1].T + x_gram
            gram += inner * (U[depth] @ U[depth].T)
        gram.flat[:: n + 1] += damping * np.trace(gram) / n
        c = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True), y - output)
        c = c.astype(x.dtype)
        self.A += hidden[-1].T @ c
        self.A_inputs += x.T @ c
        for depth in range(n_layers):
            u = c * U[depth]
            self.input_weights[depth] += u.T @ x
            if depth:
                for first in range(0, u.shape[1], _BLOCK):
                    outputs = slice(first, first + _BLOCK)
                    self.hidden_weights[depth][outputs] += u[:, outputs].T @ hidden[depth - 1]
        return self.forward(x)
