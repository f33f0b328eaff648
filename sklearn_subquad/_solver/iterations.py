"""Iterations of the outer loop: a step on all rows, or a pass over batches of them."""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sklearn_subquad._solver.averaging import IterateAverage, Parameters
from sklearn_subquad._solver.criteria import LeaveOneOutError
from sklearn_subquad._utils.random_streams import Stream, generator


@dataclass(frozen=True)
class Iterate:
    """Figures of one iteration, as `History` keeps them; None for what there is none of.

    Attributes
    ----------
    total_loss : float or None
        Sum over the rows.
    loss : float or None
        Mean over the rows, in the loss's reported unit.
    densities : ndarray of shape (n_hidden_layers,) or None
    rank : float or None
    n_steps : int
    """

    total_loss: float | None = None
    loss: float | None = None
    densities: np.ndarray | None = None
    rank: float | None = None
    n_steps: int = 0


class FullBatch:
    """An iteration is one step on all rows; the network is the iterate.

    Parameters
    ----------
    network : Network
    data : Batch
        All rows.
    loss : Loss
    step : LevenbergMarquardt
    criterion : HeldOutError, HeldOutScore, LeaveOneOutError or None
        A leave-one-out error follows the steps.
    stopwatch : Stopwatch
    """

    unit, units, kept = "step", "steps", "network"

    def __init__(self, network, data, loss, step, criterion, stopwatch):
        self._network, self._data, self._loss, self._step = network, data, loss, step
        self._path = criterion if isinstance(criterion, LeaveOneOutError) else None
        self._stopwatch = stopwatch
        self._undo_log = []

    @staticmethod
    def patience(n_iter_no_change, criterion):
        """Iterations without improvement of the loss, and of the criterion's error, after which the fit ends."""
        return n_iter_no_change, n_iter_no_change

    def start(self, constant_is_perfect):
        """The `Iterate` before the first iteration."""
        self._point = self._step.evaluate(self._data)
        return self._iterate(n_steps=0)

    def advance(self):
        """Take a step; returns its `Iterate`."""
        self._step.linearise(self._data, self._point, self._path)
        accepted = self._step.step()
        if accepted is None:
            return Iterate()
        self._point = accepted.point
        self._undo_log.append(accepted.undo)
        with self._stopwatch.phase("flush"):
            for weights in self._network.lazy_weights():
                weights.flush_if_full()
        if self._path is not None:
            with self._stopwatch.phase("stopping"):
                self._path.follow(self._step.jacobian.gram, accepted.solution.ridge, self._point.activations.output)
        return self._iterate(n_steps=1)

    def _iterate(self, n_steps):
        mean = self._point.loss / float(self._data.sample_weight.sum())
        densities = self._network.mean_densities(self._point.activations.n_active, len(self._data))
        rank = self._network.take_peak_rank()
        return Iterate(self._point.loss, self._loss.reported(mean), densities, rank, n_steps)

    @contextmanager
    def in_network(self):
        """Within, the network is the iterate."""
        yield

    def keep(self):
        """The iterate is the best so far."""
        self._undo_log.clear()

    def restore(self):
        """Let the network be the best iterate, or its start where none was kept."""
        with self._stopwatch.phase("update"):
            while self._undo_log:
                self._network.revert(self._undo_log.pop())


class MiniBatches:
    """An iteration is a pass over all rows in shuffled batches, one damped step a batch.

    The damping is a proximal term: a step moves no further from what other batches have taught than its own rows are
    worth. The iterate is an average, which takes out most of what the last batches alone have said.

    Parameters
    ----------
    network, data, loss, step, criterion, stopwatch
        As of `FullBatch`.
    batch_size : int
        Rows of a batch at most. A pass has as few batches as that allows, of equal size but for one row.
    seed : int
        Of the order of rows.
    """

    unit, units, kept = "pass", "passes", "average"

    def __init__(self, network, data, loss, step, criterion, stopwatch, batch_size, seed):
        self._network, self._data, self._loss, self._step = network, data, loss, step
        self._keeps_best = criterion is not None
        self._stopwatch = stopwatch
        self._n_batches = math.ceil(len(data) / batch_size)
        self._rng = generator(seed, Stream.BATCH_ORDER)
        self._average, self._best = IterateAverage(), None

    def patience(self, n_iter_no_change, criterion):
        """As of `FullBatch`; `n_iter_no_change` counts steps."""
        n_passes = math.ceil(n_iter_no_change / self._n_batches)
        # The loss of a pass is that before its steps, and compares one pass with the one before only.
        return max(2, n_passes) if criterion is None else math.inf, n_passes

    def start(self, constant_is_perfect):
        """The `Iterate` before the first pass; finds the damping, where there is anything to fit."""
        if constant_is_perfect:
            return Iterate(0.0, 0.0)
        self._step.find_damping(self._data, math.ceil(len(self._data) / self._n_batches))
        return Iterate()

    def advance(self):
        """Take a step on every batch; returns the `Iterate`, which is without steps where none was found."""
        total, n_active, ranks = 0.0, np.zeros(len(self._network.layers), dtype=np.int64), []
        order = self._rng.permutation(len(self._data))
        for rows in np.array_split(order, self._n_batches):
            batch = self._data[np.sort(rows)]
            point = self._step.evaluate(batch)
            total += point.loss
            n_active += point.activations.n_active
            self._step.linearise(batch, point)
            accepted = self._step.step()
            rank = self._network.take_peak_rank()
            if accepted is None:
                continue
            ranks.append(rank)
            with self._stopwatch.phase("flush"):
                iterate = Parameters.of(self._network)
            with self._stopwatch.phase("update"):
                self._average.update(iterate)
        loss = self._loss.reported(total / float(self._data.sample_weight.sum()))
        if not ranks:
            return Iterate(total, loss)
        densities = self._network.mean_densities(n_active, len(self._data))
        return Iterate(total, loss, densities, float(np.mean(ranks)), len(ranks))

    @contextmanager
    def in_network(self):
        """Within, the network is the average."""
        iterate = Parameters.of(self._network)
        if self._average.parameters is not None:
            self._average.parameters.give_to(self._network)
        yield
        iterate.give_to(self._network)

    def keep(self):
        """The average, or a warm start before the first pass, is the best so far."""
        if not self._keeps_best:
            return
        with self._stopwatch.phase("stopping"):
            parameters = self._average.parameters or Parameters.of(self._network)
            if self._best is None:
                self._best = parameters.copy()
            else:
                self._best.move_towards(parameters, 1.0)

    def restore(self):
        """Let the network be the best average, or the last one without a criterion."""
        with self._stopwatch.phase("update"):
            parameters = self._best if self._keeps_best else self._average.parameters
            if parameters is not None:
                parameters.give_to(self._network)
