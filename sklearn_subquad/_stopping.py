"""When to stop, and why: stop reasons, and the scores by which the best iterate is known."""

from enum import Enum

import numpy as np


class StopReason(Enum):
    """Why a fit ended; the values are the messages that users read."""

    MAX_ITER = "max_iter steps were taken"
    NO_IMPROVEMENT = "the early-stopping error has not improved for n_iter_no_change steps"
    LOSS_CONVERGED = "the training loss has fallen by less than tol for n_iter_no_change steps"
    INTERPOLATED = "the training targets are fitted to rounding"
    NO_DESCENT = "no damping gave a step that lowers the objective"


class Patience:
    """Tells when a falling score has stopped falling by more than a relative `tol`.

    Attributes
    ----------
    best, best_iter : float, int
        Lowest score so far and when it was seen.
    """

    def __init__(self, tol, n_iter_no_change):
        self._tol, self._n_iter_no_change = tol, n_iter_no_change
        self.best, self.best_iter = np.inf, 0
        self._threshold, self._waited, self._iter = np.inf, 0, -1

    def update(self, score):
        """Record the score of the next iterate; returns whether it is the best so far."""
        self._iter += 1
        if score < self._threshold:
            self._threshold, self._waited = score * (1 - self._tol), 0
        else:
            self._waited += 1
        if score < self.best:
            self.best, self.best_iter = score, self._iter
            return True
        return False

    @property
    def exhausted(self):
        return self._waited >= self._n_iter_no_change


class HeldOutError:
    """Mean squared error on rows that the fit does not see.

    Parameters
    ----------
    x, Y : ndarray of shape (n, n_features + 1), (n, k)
        Network inputs and scaled targets.
    sample_weight : ndarray of shape (n,)
    """

    def __init__(self, x, Y, sample_weight):
        self._x, self._Y, self._sample_weight = x, Y, sample_weight

    def of_the_mean(self, Y):
        """Error of the output zero, that is of predicting the mean of the targets Y (n x k) that are fitted."""
        return self._error(0.0)

    def update(self, network, residual, jacobian, shift, restored):
        """Error of the network after an accepted step."""
        return self._error(network.forward(self._x).output)

    def _error(self, output):
        rows = ((self._Y - output) ** 2).mean(axis=1)
        return float(np.average(rows, weights=self._sample_weight))


class LeaveOneOutError:
    """Approximate mean squared leave-one-out error along a path of Gauss-Newton steps.

    A step with Gram matrix K and shift λ multiplies residuals by ``λ (K + λ I)^-1``. With M the product of
    these matrices (and of the one that subtracts the mean), the leave-one-out residual is about r_i / M_ii.
    Up to `MAX_EXACT_ROWS` rows M is kept; beyond, its trace is estimated with random probes and all M_ii are
    taken to be equal (generalised cross-validation). A row of weight w counts as w copies, of which one is
    left out.

    Parameters
    ----------
    sample_weight : ndarray of shape (n,), positive
    rng : numpy.random.Generator
    """

    MAX_EXACT_ROWS = 2048
    N_PROBES = 16

    def __init__(self, sample_weight, rng):
        n = len(sample_weight)
        self._sample_weight = sample_weight
        exact = n <= self.MAX_EXACT_ROWS
        self._probes = np.eye(n) if exact else rng.choice([-1.0, 1.0], size=(n, self.N_PROBES))
        mean = np.sqrt(sample_weight / sample_weight.sum())
        self._start = self._probes - np.outer(mean, mean @ self._probes)
        self._smoothed = self._start

    def of_the_mean(self, Y):
        """Error of the output zero, that is of predicting the mean of the targets Y (n x k)."""
        return self._error(Y)

    def update(self, network, residual, jacobian, shift, restored):
        """Error after an accepted step.

        Parameters
        ----------
        network : Network
        residual : ndarray of shape (n, k)
            Targets minus outputs after the step.
        jacobian : Jacobian
            Of the point that the step was taken from.
        shift : float
        restored : float
            The share of the distance from the start that the step's penalty takes back (alpha / shift).

        Returns
        -------
        float
            Infinity from the first step on whose Gram matrix could not be factored.
        """
        if self._smoothed is None:
            return np.inf
        target = (1 - restored) * self._smoothed + restored * self._start
        try:
            self._smoothed = shift * jacobian.gram_solve(shift, target)
        except np.linalg.LinAlgError:
            # Without this step's factor, every later error would come out too small.
            self._smoothed = None
            return np.inf
        return self._error(residual)

    def error_after_first_step(self, jacobian, shift, residual):
        """Error that a first step with this shift would have in the linear model (n x k residual)."""
        smoothed = shift * jacobian.gram_solve(shift, self._start)
        scaled = shift * jacobian.gram_solve(shift, jacobian.row_scale * residual)
        return self._scaled_error(scaled, smoothed)

    def _error(self, residual):
        scaled = np.sqrt(self._sample_weight)[:, None] * residual
        return self._scaled_error(scaled, self._smoothed)

    def _scaled_error(self, scaled_residual, smoothed):
        share = np.einsum("ij,ij->i", self._probes, smoothed)
        if self._probes.shape[1] != len(share):
            share = np.full(len(share), share.sum() / self._probes.size)
        kept = 1 - (1 - share) / np.maximum(self._sample_weight, 1)
        left_out = scaled_residual / np.maximum(kept, 1e-3)[:, None]
        return float((left_out**2).mean(axis=1).sum() / self._sample_weight.sum())
