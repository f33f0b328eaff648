"""When to stop, and why: stop reasons, and the scores by which the best iterate is known."""

from enum import Enum

import numpy as np

# Rows that say enough of when to stop, where they were held out.
HELD_OUT_ROWS = 100
# Of a residual, the least share that a path leaves of it, from which what it would be without its row can be told: the
# path is linear to no more than this.
_LEAST_SHARE = 1e-3
# Rows whose outputs are kept for calibration, at most about.
_KEPT_ROWS = 1024


class StopReason(Enum):
    """Why a fit ended; the values are the messages that users read."""

    MAX_ITER = "max_iter was reached"
    NO_IMPROVEMENT = "the early-stopping error has not improved for n_iter_no_change"
    LOSS_CONVERGED = "the training loss has fallen by less than tol for n_iter_no_change"
    INTERPOLATED = "the training targets are fitted to rounding"
    CALLBACK = "a callback asked to stop"
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
            self._threshold, self._waited = score - self._tol * abs(score), 0
        elif self._iter > 0:
            # A first score that is infinite is none: nothing has been waited for.
            self._waited += 1
        if score < self.best:
            self.best, self.best_iter = score, self._iter
            return True
        return False

    @property
    def exhausted(self):
        return self._waited >= self._n_iter_no_change


class KeptOutputs:
    """Outputs of rows that were left out, after 0, 1, ... steps: of all rows, or of some at equal distances.

    Parameters
    ----------
    n_rows : int

    Attributes
    ----------
    rows : slice
        The rows whose outputs are kept.
    outputs : list of ndarray of shape (at most about 1,024, k)
    """

    def __init__(self, n_rows):
        self.rows = slice(None, None, -(-n_rows // _KEPT_ROWS))
        self.outputs = []

    def add(self, output):
        """Keep those of the next step."""
        self.outputs.append(output[self.rows].copy())


class HeldOutError:
    """Mean loss on rows that the fit does not see.

    Where targets are labels, one more row counts: one whose label is not its own but the most probable of the others,
    with the mean of what that would cost at the held-out rows. A hundred rows that are all predicted right say little
    of how often sure predictions are wrong, and their log loss falls as long as predictions become surer. Of fewer than
    `HELD_OUT_ROWS` rows it is as large a share as of these, or of the whole data set where that is smaller.

    Parameters
    ----------
    batch : Batch
    loss : Loss
    n_rows : int, default=100
        Rows of the data set that these were held out from.
    kept : KeptOutputs or None
        Where outputs of the held-out rows are kept, after 0, 1, ... steps or passes.
    """

    needs_gram = False

    def __init__(self, batch, loss, n_rows=HELD_OUT_ROWS, kept=None):
        self._batch, self._loss, self._kept = batch, loss, kept
        self._doubt = 1 / max(len(batch), min(n_rows, HELD_OUT_ROWS)) if loss.has_labels else 0.0

    def of_the_constant(self):
        """Error of the constant model, whose network is zero."""
        return self.of_output(np.zeros_like(self._batch.Y))

    def after_step(self, network, output, jacobian, solution):
        """Error of the network after an accepted step."""
        return self.of_network(network)

    def of_network(self, network):
        """Error of a network, whose activations are those of a part of the rows at a time."""
        parts = (self._batch.x[rows] for rows in network.row_batches(len(self._batch)))
        return self.of_output(np.concatenate([network.forward(x).output for x in parts]))

    def of_output(self, output):
        """Error of outputs (n x k) of the held-out rows."""
        Y, sample_weight = self._batch.Y, self._batch.sample_weight
        if self._kept is not None:
            self._kept.add(output)
        value = self._loss.value(Y, output, sample_weight)
        if self._doubt:
            value += self._doubt * self._loss.value_of_other_labels(Y, output, sample_weight)
        return self._loss.reported(value / ((1 + self._doubt) * float(sample_weight.sum())))


class HeldOutScore:
    """Minus a score of the estimator on rows that the fit does not see.

    Parameters
    ----------
    error : HeldOutError
        Of the same rows. It keeps their outputs, and says how large the noise is.
    score : callable
        Takes a network, and `may_be_undefined` for a constant one; nan is no better than any other score.
    network : Network
        The one that is fitted.

    Attributes
    ----------
    losses : list of float
        What `error` says after 0, 1, ... steps.
    """

    needs_gram = False

    def __init__(self, error, score, network):
        self._error, self._score, self._network = error, score, network
        self.losses = []

    def of_the_constant(self):
        """Minus the score of the constant model, for which it may be undefined."""
        return self._of_network(self._network.constant(), may_be_undefined=True)

    def after_step(self, network, output, jacobian, solution):
        """Minus the score of the network after an accepted step."""
        return self.of_network(network)

    def of_network(self, network):
        """Minus the score of a network."""
        return self._of_network(network)

    def _of_network(self, network, **options):
        self.losses.append(self._error.of_network(network))
        score = self._score(network, **options)
        return np.inf if np.isnan(score) else -score


class LeaveOneOutError:
    """Approximate mean squared leave-one-out error along a path of Gauss-Newton steps.

    A step with Gram matrix K and shift λ multiplies residuals by ``λ (K + λ I)^-1``. With M the product of
    these matrices (and of the one that subtracts the mean), the leave-one-out residual is about r_i / M_ii. A row is
    left out whole, whatever it weighs.
    Up to `max_exact_rows` rows M is kept; beyond, its trace is estimated with random probes and all M_ii are
    taken to be equal (generalised cross-validation).

    Where M_ii is close to zero the row is fitted whatever its target is, and the quotient says nothing: such a row
    keeps the residual that it was last known to have, and one that never was known does not count. Where fewer than
    half of the rows are known, the error is unknown: infinite.

    Parameters
    ----------
    batch : Batch
    rng : numpy.random.Generator
    max_exact_rows : int, default=2048
    kept : KeptOutputs or None
        Where outputs of the rows are kept, each as if it had been left out, after 0, 1, ... steps.
    """

    needs_gram = True
    N_PROBES = 16

    def __init__(self, batch, rng, max_exact_rows=2048, kept=None):
        n = len(batch)
        self._batch, self._kept = batch, kept
        self._roots = np.sqrt(batch.sample_weight)[:, None]
        # A heavy row is fitted more closely than others: relative to a row of weight one.
        self._least_shares = _LEAST_SHARE / np.maximum(batch.sample_weight, 1)
        exact = n <= max_exact_rows
        self._probes = np.eye(n) if exact else rng.choice([-1.0, 1.0], size=(n, self.N_PROBES))
        mean = np.sqrt(batch.sample_weight / batch.sample_weight.sum())
        self._start = self._probes - np.outer(mean, mean @ self._probes)
        self._smoothed = self._start
        shares = self._shares(self._start)
        self._counted = shares >= self._least_shares
        self._left_out = self._roots * batch.Y / np.where(self._counted, shares, 1)[:, None]

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
        shares = self._shares(shift * jacobian.gram_solve(shift, self._start))
        scaled = shift * jacobian.gram_solve(shift, residual)
        return self._mean_square(scaled / np.maximum(shares, self._least_shares)[:, None])

    def _error(self, output):
        shares = self._shares(self._smoothed)
        known = self._counted & (shares >= self._least_shares)
        residual = self._roots * (self._batch.Y - output)
        self._left_out = np.where(known[:, None], residual / np.where(known, shares, 1)[:, None], self._left_out)
        if self._kept is not None:
            self._kept.add(self._batch.Y - self._left_out / self._roots)
        if 2 * np.count_nonzero(known) < np.count_nonzero(self._counted):
            return np.inf
        return self._mean_square(self._left_out)

    def _shares(self, smoothed):
        """M_ii, given M times the probes."""
        shares = np.einsum("ij,ij->i", self._probes, smoothed)
        if self._probes.shape[1] == len(shares):
            return shares
        return np.full(len(shares), shares.sum() / self._probes.size)

    def _mean_square(self, left_out):
        """Weighted mean of squares of residuals that are scaled by the roots of the weights."""
        counted = self._counted if self._counted.any() else slice(None)
        return float((left_out[counted] ** 2).mean(axis=1).sum() / self._batch.sample_weight[counted].sum())
