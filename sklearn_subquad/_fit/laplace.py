"""Standard deviations of predictions: the linearised Laplace approximation in the space of a sketch."""

from dataclasses import dataclass

import numpy as np

from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._curvature.sketch import JacobianSketch
from sklearn_subquad._curvature.sketch_features import sketch_features
from sklearn_subquad._fit.data import CALIBRATION_ROWS
from sklearn_subquad._linalg.threads import blas_threads
from sklearn_subquad._utils.random_streams import Stream, generator
from sklearn_subquad._utils.slices import batches, spaced_rows

# Columns of the sketch at most. Twice as many change the test log-likelihood by 0.01 on most sets and take four times
# the memory (doc/decisions.md).
_MAX_SKETCH_SIZE = 512
# Of several networks, the first of either kind have a covariance, which takes as long as some steps and the memory of a
# layer. Means over all eight were no better (doc/decisions.md).
N_COVARIANCES = 2
# Rows whose Jacobian is sketched at a time.
COVARIANCE_BLOCK_ROWS = 1024
# Shifts that are tried, relative to the mean squared norm of a row's features.
_SHIFTS = 10.0 ** np.arange(-5, 4)
_SKETCH = "tensor_srht"


def covariance_sketch_size(n_rows):
    """Columns of the sketch for so many fitted rows."""
    return min(2 * n_rows, _MAX_SKETCH_SIZE)


@dataclass
class LinearisedLaplace:
    """Predictive variance of a fitted network whose outputs are taken to be linear in its weights.

    With φ a row's sketched Jacobian (s numbers, of which the mean Gram matrix over the outputs is that of the
    Jacobian's rows in expectation), Φ those of the fitted rows with weights w and λ a shift, output c of a new row has
    the variance ``noise_c * (1 + φ^T (Φ^T diag(w) Φ + λ I)^-1 φ)``: that of the noise, and that of the weights, whose
    prior variance is ``noise_c / λ``. Of the fitted rows nothing is kept but s² numbers.

    λ maximises the leave-one-out likelihood of the linear model: of ridge regression of the targets on Φ, for which
    leaving a row out has a closed form. The residuals of the network itself, in the same form, would not do: where it
    nearly interpolates the noise comes out up to a thousand times too small, and the likelihood then says nothing of λ.

    Attributes
    ----------
    whitener : ndarray of shape (s, s)
        A matrix Q with ``Q Q^T = (Φ^T diag(w) Φ + λ I)^-1``.
    noise : ndarray of shape (k,), float64
        Noise variances in units of the scaled targets.
    seed : int
        Of the sketch and its probes.

    References
    ----------
    D. J. C. MacKay, "A practical Bayesian framework for backpropagation networks", Neural Computation 4, 1992.
    A. Immer, M. Korzepa, M. Bauer, "Improving predictions of Bayesian neural nets via local linearization",
    AISTATS 2021.
    """

    whitener: np.ndarray
    noise: np.ndarray
    seed: int

    @classmethod
    def fit(cls, network, batch, left_out_error, seed):
        """From a fitted network and the rows that it was fitted to.

        Parameters
        ----------
        network : Network
        batch : Batch
            Network inputs, scaled targets and weights of the fitted rows, of mean one.
        left_out_error : float or None
            Mean squared error, over outputs, of rows that the network was not fitted to, as the choice of the number of
            steps has left it. The noise is then what explains an error of that size; without one, what explains the
            leave-one-out residuals of the linear model.
        seed : int

        Returns
        -------
        LinearisedLaplace

        Raises
        ------
        ValueError
            Where squares of gradients leave the range of doubles, which those of features of extreme scale do.
        """
        n_rows, size = len(batch), covariance_sketch_size(len(batch))
        sample = batch[spaced_rows(n_rows, CALIBRATION_ROWS)]
        parts = batches(len(sample), COVARIANCE_BLOCK_ROWS)
        # In double precision: shifts are small beside the largest eigenvalue.
        features = np.concatenate([_features(network, sample.x[rows], size, seed).astype(np.float64) for rows in parts])
        # Of many rows some stand for all.
        represented = batch.sample_weight.sum() / sample.sample_weight.sum()
        roots = np.sqrt(represented * sample.sample_weight)[:, None]
        weighted = roots * features
        with blas_threads(2 * features.size * size):
            gram, moments = weighted.T @ weighted, weighted.T @ (roots * sample.Y)
        del weighted
        if not np.isfinite(gram).all():
            raise ValueError(
                "The scale of X is so extreme that squares of gradients overflow: leave standardize=True, or scale X."
            )
        eigenvalues, vectors = np.linalg.eigh(gram)
        # Rounding may leave some below zero.
        eigenvalues = np.maximum(eigenvalues, 0)
        with blas_threads(2 * features.size * size):
            features = features @ vectors
        left_out = _LeftOutRows(features, eigenvalues, vectors.T @ moments, sample.Y, sample.sample_weight)
        # Without an active neuron or skip connections there are no gradients, and any shift leaves the noise alone.
        mean_square = np.trace(gram) / batch.sample_weight.sum() or 1.0
        shift = min(_SHIFTS * mean_square, key=lambda shift: left_out.at(shift).loss)
        noise = left_out.at(shift).noise_of(left_out_error)
        return cls((vectors / np.sqrt(eigenvalues + shift)).astype(network.dtype), noise, seed)

    def variance(self, network, x):
        """Variance of targets (n x k, float64), in units of the scaled targets.

        Parameters
        ----------
        network : Network
            The one that was fitted.
        x : ndarray of shape (n, n_features + 1)
            Network inputs.
        """
        spread = np.empty(len(x))
        for rows in batches(len(x), COVARIANCE_BLOCK_ROWS):
            features = _features(network, x[rows], len(self.whitener), self.seed)
            with blas_threads(2 * features.size * len(self.whitener)):
                whitened = features @ self.whitener
            spread[rows] = np.einsum("ij,ij->i", whitened, whitened, dtype=np.float64)
        return (1 + spread)[:, None] * self.noise

    def to_state(self):
        """As a dict of arrays and numbers."""
        return {"whitener": self.whitener, "noise": self.noise, "seed": self.seed}

    @classmethod
    def from_state(cls, state):
        """From the dict of `to_state`."""
        return cls(**state)


def _features(network, x, size, seed):
    """Sketched Jacobian of network inputs x (n x size); a row's does not depend on the others."""
    n_outputs = network.output_weights[0].shape[1]
    probes = make_probes(n_outputs, generator(seed, Stream.COVARIANCE_PROBES))
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), probes, IdentityFactor())
    return sketch_features(jacobian, JacobianSketch(_SKETCH, size, [seed, Stream.COVARIANCE_SKETCH]))


@dataclass
class _LeftOutRows:
    """Ridge regression, leaving out every row in turn.

    Attributes
    ----------
    features : ndarray of shape (n, s)
        Of the rows, in the basis of the eigenvectors of ``Φ^T diag(w) Φ``.
    eigenvalues : ndarray of shape (s,)
    moments : ndarray of shape (s, k)
        ``Φ^T diag(w) Y`` of all fitted rows, in that basis.
    Y : ndarray of shape (n, k)
    sample_weight : ndarray of shape (n,)
    """

    features: np.ndarray
    eigenvalues: np.ndarray
    moments: np.ndarray
    Y: np.ndarray
    sample_weight: np.ndarray

    def __post_init__(self):
        self._squares = self.features**2

    def at(self, shift):
        """`_LeftOut` of these rows for a shift.

        With ``q = φ^T (Φ^T diag(w) Φ + λ I)^-1 φ``, leaving out a row of weight w multiplies its residual and q by
        ``1 / (1 - w q)``.
        """
        inverse = 1 / (self.eigenvalues + shift)
        norms = self._squares.sum(axis=1)
        # With the row's own share w φ φ^T alone in the matrix, q would be as large as this, and so little would remain.
        # Where weights are orders of magnitude apart, rounding exceeds that, and leaves less than zero.
        alone = shift + self.sample_weight * norms
        spread = np.minimum(self._squares @ inverse, norms / alone)
        remaining = np.maximum(1 - self.sample_weight * spread, shift / alone)[:, None]
        residual = (self.Y - self.features @ (inverse[:, None] * self.moments)) / remaining
        return _LeftOut(residual, spread[:, None] / remaining, self.sample_weight)


@dataclass
class _LeftOut:
    """Residuals (n x k) and ``φ^T (...)^-1 φ`` (n x 1) of rows that are left out, with their weights (n,)."""

    residual: np.ndarray
    spread: np.ndarray
    sample_weight: np.ndarray

    def _mean(self, values):
        return np.average(values, axis=0, weights=self.sample_weight)

    @property
    def noise(self):
        """The likeliest noise variance of every output (k,)."""
        return self._mean(self.residual**2 / (1 + self.spread))

    @property
    def loss(self):
        """Twice the mean negative log-likelihood at the likeliest noise, but for a constant."""
        noise = np.maximum(self.noise, np.finfo(np.float64).tiny)
        return float(np.log(noise).mean() + self._mean(np.log1p(self.spread))[0])

    def noise_of(self, left_out_error):
        """The noise (k,) that explains a mean squared error, shared out among the outputs as these rows say."""
        if left_out_error is None:
            return self.noise
        squares = self._mean(self.residual**2)
        if not squares.any():
            # Constant targets, of which there is no error either.
            return squares
        return left_out_error * squares / squares.mean() / (1 + self._mean(self.spread))
