"""The regression problem of the timed fits. Imports NumPy alone: scaling.py measures the memory of what comes after."""

import numpy as np


def friedman(n_rows):
    """Friedman's first function of 16 uniform features."""
    X = np.random.default_rng(0).random((n_rows, 16)).astype(np.float32)
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
    return X, y


def network_inputs(X, y):
    """Uniform features as network inputs, the constant last, and a standardised target (n x 1)."""
    n_rows, n_features = X.shape
    x = np.column_stack([(X - 0.5) * np.sqrt(12 / n_features), np.full(n_rows, 0.5)]).astype(np.float32)
    return x, ((y - y.mean()) / y.std()).astype(np.float32)[:, None]
