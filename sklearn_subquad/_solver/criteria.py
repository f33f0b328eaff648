"""Early-stopping errors, which judge the iterates of a fit."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from sklearn_subquad._utils.slices import spaced_rows

# Rows that say enough of when to stop, where they were held out.
HELD_OUT_ROWS = 100
# Of a residual, the least share that a path leaves of it, from which what it would be without its row can be told: the
# path is linear to no more than this.
_LEAST_SHARE = 1e-3
# Rows whose outputs a judgement keeps for calibration, at most.
_KEPT_ROWS = 1024


@dataclass(frozen=True)
class Judgement:
    """Judgement of a network by a criterion.

    Attributes
    ----------
    error : float
        Lower is better.
    loss : float
        Mean loss on rows that the fit does not see; the error unless there is a score.
    outputs : ndarray of shape (n, k)
        Outputs for some of these rows.
    rows : slice
        Which of them: all, or some at equal distances.
    """

    error: float
    loss: float
    outputs: np.ndarray
    rows: slice

    @classmethod
    def by_loss(cls, loss, outputs):
        """The judgement whose error is the loss, given the outputs for all rows."""
        rows = spaced_rows(len(outputs), _KEPT_ROWS)
        return cls(loss, loss, outputs[rows].copy(), rows)


class HeldOutError:
    """Mean loss on held-out rows.

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
    """

    def __init__(self, batch, loss, n_rows=HELD_OUT_ROWS):
        self._batch, self._loss = batch, loss
        self._doubt = 1 / max(len(batch), min(n_rows, HELD_OUT_ROWS)) if loss.has_labels else 0.0

    def of_the_constant(self, network):
        """`Judgement` of the constant model, a network of zeros."""
        return self._judgement(np.zeros_like(self._batch.Y))

    def of_network(self, network):
        """`Judgement` of a network, whose activations are those of a part of the rows at a time."""
        parts = (self._batch.x[rows] for rows in network.row_batches(len(self._batch)))
        return self._judgement(np.concatenate([network.forward(x).output for x in parts]))

    def _judgement(self, outputs):
        return Judgement.by_loss(self.of_outputs(outputs), outputs)

    def of_outputs(self, outputs):
        """Error of outputs (n x k) for the held-out rows."""
        Y, sample_weight = self._batch.Y, self._batch.sample_weight
        value = self._loss.value(Y, outputs, sample_weight)
        if self._doubt:
            value += self._doubt * self._loss.value_of_other_labels(Y, outputs, sample_weight)
        return self._loss.reported(value / ((1 + self._doubt) * float(sample_weight.sum())))


class HeldOutScore:
    """Minus a score of the estimator on held-out rows.

    Parameters
    ----------
    error : HeldOutError
        Of the same rows.
    score : callable
        Takes a network and its `Judgement` by the loss, and `may_be_undefined` for a constant one; nan is no better
        than any other score.
    """

    def __init__(self, error, score):
        self._error, self._score = error, score

    def of_the_constant(self, network):
        """`Judgement` of the constant model, for which the score may be undefined."""
        return self._judgement(network.constant(), may_be_undefined=True)

    def of_network(self, network):
        """`Judgement` of a network."""
        return self._judgement(network)

    def _judgement(self, network, **options):
        by_loss = self._error.of_network(network)
        score = self._score(network, by_loss, **options)
        return dataclasses.replace(by_loss, error=np.inf if np.isnan(score) else -score)


class LeaveOneOutError:
    """Approximate mean squared leave-one-out error along a path of Gauss-Newton steps.

    A step with Gram matrix K and ridge λ multiplies residuals by ``λ (K + λ I)^-1``. With M the product of
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
    """

    N_PROBES = 16

    def __init__(self, batch, rng, max_exact_rows=2048):
        n = len(batch)
        self._batch = batch
        self._roots = np.sqrt(batch.sample_weight)[:, None]
        # A heavy row is fitted more closely than others: relative to a row of weight one.
        self._least_shares = _LEAST_SHARE / np.maximum(batch.sample_weight, 1)
        self._mean = np.sqrt(batch.sample_weight / batch.sample_weight.sum())
        exact = n <= max_exact_rows
        self._probes = None if exact else rng.choice([-1.0, 1.0], size=(n, self.N_PROBES))
        # M times the probes, of which a first step alone needs none where it is exact.
        self._smoothed, self._is_lost = None, False
        shares = 1 - self._mean**2 if exact else self._shares(self._start())
        self._counted = shares >= self._least_shares
        self._left_out = self._roots * batch.Y / np.where(self._counted, shares, 1)[:, None]
        self._set_left_out(np.zeros_like(batch.Y), shares)

    def of_the_constant(self, network):
        """`Judgement` of the output zero, that of predicting the mean."""
        return self._judgement()

    def of_network(self, network):
        """`Judgement` of the network that the steps so far have led to."""
        return self._judgement()

    def follow(self, gram, ridge, outputs):
        """Go along the path by one accepted step.

        Parameters
        ----------
        gram : GramMatrix
            Of the point that the step was taken from.
        ridge : float
            Of the step.
        outputs : ndarray of shape (n, k)
            Of the network after the step.
        """
        if self._is_lost:
            return
        smoothed = self._start() if self._smoothed is None else self._smoothed
        try:
            self._smoothed = ridge * gram.shifted(ridge).solve(smoothed)
        except np.linalg.LinAlgError:
            # Without this step's factor, every later error would come out too small.
            self._is_lost = True
            return
        self._set_left_out(outputs, self._shares(self._smoothed))

    def error_after_first_step(self, jacobian, ridge, residual):
        """Error that a first step with this ridge would have in the linear model.

        The residual (n x k) is the working residual, scaled by the roots of the weights.
        """
        scales = jacobian.output_scales()
        if scales is not None:
            # The Gram matrix is without the curvature; at the start, one number stands for all of it.
            ridge = ridge / np.square(scales, dtype=np.float64).mean()
        shifted = jacobian.gram.shifted(ridge)
        if self._probes is None:
            # The diagonal of ridge * (K + ridge * I)^-1 (I - m m^T), m being the direction of the mean.
            mean = self._mean[:, None]
            solution = shifted.solve(np.concatenate([mean, residual], axis=1))
            shares = ridge * (shifted.inverse_diagonal() - self._mean * solution[:, 0])
            scaled = ridge * solution[:, 1:]
        else:
            solution = shifted.solve(np.concatenate([self._start(), residual], axis=1))
            shares = self._shares(ridge * solution[:, : self.N_PROBES])
            scaled = ridge * solution[:, self.N_PROBES :]
        return self._mean_square(scaled / np.maximum(shares, self._least_shares)[:, None])

    def _start(self):
        """The matrix that subtracts the mean, times the probes: times all unit vectors where it is exact."""
        probes = np.eye(len(self._batch)) if self._probes is None else self._probes
        return probes - np.outer(self._mean, self._mean @ probes)

    def _set_left_out(self, outputs, shares):
        """Residuals of rows that are left out, where they can be told; the others keep the last that was known."""
        self._known = self._counted & (shares >= self._least_shares)
        residual = self._roots * (self._batch.Y - outputs)
        of_known = residual / np.where(self._known, shares, 1)[:, None]
        self._left_out = np.where(self._known[:, None], of_known, self._left_out)

    def _judgement(self):
        outputs = self._batch.Y - self._left_out / self._roots
        error = self._mean_square(self._left_out)
        if self._is_lost or 2 * np.count_nonzero(self._known) < np.count_nonzero(self._counted):
            error = np.inf
        return Judgement.by_loss(error, outputs)

    def _shares(self, smoothed):
        """M_ii, given M times the probes."""
        if self._probes is None:
            return np.diag(smoothed)
        return np.full(len(smoothed), np.einsum("ij,ij->", self._probes, smoothed) / self._probes.size)

    def _mean_square(self, left_out):
        """Weighted mean of squares of residuals that are scaled by the roots of the weights."""
        counted = self._counted if self._counted.any() else slice(None)
        return float((left_out[counted] ** 2).mean(axis=1).sum() / self._batch.sample_weight[counted].sum())
