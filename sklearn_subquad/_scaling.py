"""From features to network inputs, and from targets to what the network is fitted to."""

from dataclasses import dataclass

import numpy as np

# The constant input that carries every layer's bias.
BIAS_FEATURE = 0.5
# A feature is never scaled so that its largest deviation from the mean exceeds this: rare indicators
# and nearly constant features are not blown up.
_MAX_DEVIATION = 6.0


def weighted_mean(values, sample_weight):
    """Mean over rows, in double precision."""
    return np.average(values, axis=0, weights=sample_weight)


@dataclass
class InputScaling:
    """The map x -> [(x - mean) / scale / sqrt(d), bias feature].

    Attributes
    ----------
    mean, scale : ndarray of shape (n_features,), float64
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, X, sample_weight, standardize):
        n_features = X.shape[1]
        if not standardize:
            return cls(np.zeros(n_features), np.ones(n_features))
        X = X.astype(np.float64, copy=False)
        mean = weighted_mean(X, sample_weight)
        deviation = np.abs(X - mean)
        largest = deviation.max(axis=0)
        # Scaled by the largest deviation first: squares of values near the limits of the type overflow.
        safe = np.where(largest > 0, largest, 1.0)
        scale = safe * np.sqrt(weighted_mean((deviation / safe) ** 2, sample_weight))
        scale = np.maximum(scale, largest / _MAX_DEVIATION)
        constant = largest <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return cls(mean, np.where(constant, 1.0, scale))

    def transform(self, X):
        """Network inputs (n x (n_features + 1)) in X's floating dtype."""
        out = np.empty((X.shape[0], X.shape[1] + 1), dtype=X.dtype)
        out[:, :-1] = (X - self.mean) / (self.scale * np.sqrt(X.shape[1]))
        out[:, -1] = BIAS_FEATURE
        return out


@dataclass
class TargetScaling:
    """The map y -> (y - mean) / scale, per output.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_outputs,), float64
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, Y, sample_weight, unit_variance):
        mean = weighted_mean(Y, sample_weight)
        scale = np.ones_like(mean)
        if unit_variance:
            deviation = np.sqrt(weighted_mean((Y - mean) ** 2, sample_weight))
            constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
            scale = np.where(constant, 1.0, deviation)
        return cls(mean, scale)

    def transform(self, Y):
        return (Y - self.mean) / self.scale

    def inverse_transform(self, Z):
        """Outputs in the target's units, in Z's dtype."""
        return Z * self.scale.astype(Z.dtype) + self.mean.astype(Z.dtype)
