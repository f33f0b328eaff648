"""When to stop, and why: stop reasons, and the scores by which the best iterate is known."""

from enum import Enum

import numpy as np

# Rows that say enough of when to stop, where they were held out.
HELD_OUT_ROWS = 100


class StopReason(Enum):
    """Why a fit ended; the values are the messages that users read."""

    MAX_ITER = "max_iter was reached"
    NO_IMPROVEMENT = "the early-stopping error has not improved for n_iter_no_change"
    LOSS_CONVERGED = "the training loss has fallen by less than tol for n_iter_no_change"
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
    """Mean loss on rows that the fit does not see.

    Where targets are labels, one more row counts: one whose label is not its own but the most probable of the others,
    with the mean of what that would cost at the held-out rows. A hundred rows that are all predicted right say little
    of how often sure predictions are wrong, and their log loss falls as long as predictions become surer. Of fewer than
    `HELD_OUT_ROWS` rows it is as large a share as of these.

    Parameters
    ----------
    batch : Batch
    loss : Loss
    """

    needs_gram = False

    def __init__(self, batch, loss):
        self._batch, self._loss = batch, loss
        self._doubt = 1 / max(len(batch), HELD_OUT_ROWS) if loss.has_labels else 0.0

    def of_the_constant(self):
        """Error of the constant model, whose network is zero."""
        return self._error(self._value(self._batch, np.zeros_like(self._batch.Y)))

    def after_step(self, network, output, jacobian, solution):
        """Error of the network after an accepted step."""
        return self.of_network(network)

    def of_network(self, network):
        """Error of a network, whose activations are those of a part of the rows at a time."""
        parts = (self._batch[rows] for rows in network.row_batches(len(self._batch)))
        return self._error(sum(self._value(part, network.forward(part.x).output) for part in parts))

    def _value(self, rows, output):
        value = self._loss.value(rows.Y, output, rows.sample_weight)
        if self._doubt:
            value += self._doubt * self._loss.value_of_other_labels(rows.Y, output, rows.sample_weight)
        return value

    def _error(self, value):
        return self._loss.reported(value / ((1 + self._doubt) * float(self._batch.sample_weight.sum())))


class LeaveOneOutError:
    """Approximate mean squared leave-one-out error along a path of Gauss-Newton steps.

    A step with Gram matrix K and shift λ multiplies residuals by ``λ (K + λ I)^-1``. With M the product of
    these matrices (and of the one that subtracts the mean), the leave-one-out residual is about r_i / M_ii.
    Up to `max_exact_rows` rows M is kept; beyond, its trace is estimated with random probes and all M_ii are
    taken to be equal (generalised cross-validation). A row of weight w counts as w copies, of which one is
    left out.

    Parameters
    ----------
    batch : Batch
    rng : numpy.random.Generator
    max_exact_rows : int, default=2048
    """

    needs_gram = True
    N_PROBES = 16

    def __init__(self, batch, rng, max_exact_rows=2048):
        n = len(batch)
        self._batch = batch
        exact = n <= max_exact_rows
        self._probes = np.eye(n) if exact else rng.choice([-1.0, 1.0], size=(n, self.N_PROBES))
        mean = np.sqrt(batch.sample_weight / batch.sample_weight.sum())
        self._start = self._probes - np.outer(mean, mean @ self._probes)
        self._smoothed = self._start

    def of_the_constant(self):
        """Error of the output zero, that of predicting the mean."""
        return self._error(np.zeros_like(self._batch.Y))

    def after_step(self, network, output, jacobian, solution):
        """Error after an accepted step.

        Parameters
        ----------
        network : Network
        output : ndarray of shape (n, k)
            Outputs of the network after the step.
        jacobian : Jacobian
            Of the point that the step was taken from.
        solution : Solution
            Its shift, and the share of the distance from the start that the step's penalty takes back.

        Returns
        -------
        float
            Infinity from the first step on whose Gram matrix could not be factored.
        """
        if self._smoothed is None:
            return np.inf
        target = (1 - solution.restored) * self._smoothed + solution.restored * self._start
        try:
            self._smoothed = solution.shift * jacobian.gram_solve(solution.shift, target)
        except np.linalg.LinAlgError:
            # Without this step's factor, every later error would come out too small.
            self._smoothed = None
            return np.inf
        return self._error(output)

    def error_after_first_step(self, jacobian, shift, residual):
        """Error that a first step with this shift would have in the linear model.

        The residual (n x k) is the working residual, scaled by the roots of the weights.
        """
        scales = jacobian.output_scales()
        if scales is not None:
            # The Gram matrix is without the curvature; at the start, one number stands for all of it.
            shift = shift / np.square(scales, dtype=np.float64).mean()
        smoothed = shift * jacobian.gram_solve(shift, self._start)
        scaled = shift * jacobian.gram_solve(shift, residual)
        return self._scaled_error(scaled, smoothed)

    def _error(self, output):
        residual = np.sqrt(self._batch.sample_weight)[:, None] * (self._batch.Y - output)
        return self._scaled_error(residual, self._smoothed)

    def _scaled_error(self, scaled_residual, smoothed):
        share = np.einsum("ij,ij->i", self._probes, smoothed)
        if self._probes.shape[1] != len(share):
            share = np.full(len(share), share.sum() / self._probes.size)
        kept = 1 - (1 - share) / np.maximum(self._batch.sample_weight, 1)
        left_out = scaled_residual / np.maximum(kept, 1e-3)[:, None]
        return float((left_out**2).mean(axis=1).sum() / self._batch.sample_weight.sum())
