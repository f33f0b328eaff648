"""Gauss-Newton on batches of rows: every step is one of its batch, held back by the damping."""

import math

import numpy as np

from sklearn_subquad._solver.averaging import IterateAverage, Parameters
from sklearn_subquad._solver.gauss_newton import SolverResult
from sklearn_subquad._solver.levenberg_marquardt import TrustRegion
from sklearn_subquad._solver.stopping import Patience, StopReason
from sklearn_subquad._utils.random_streams import Stream, generator
from sklearn_subquad._utils.stopwatch import Stopwatch


class MiniBatchSolver:
    """Fits a network by passes over the rows in shuffled batches, one damped step a batch.

    The damping is a proximal term: a step moves no further from what other batches have taught than its own rows are
    worth. The result is an average of iterates, which takes out most of what the last batches alone have said.

    Parameters
    ----------
    network : Network
        Changed in place.
    data : Batch
        All rows.
    loss : Loss
    options : SolverOptions
        `max_iter` and `n_iter_no_change` count passes and steps.
    batch_size : int
        Rows of a batch at most. A pass has as few batches as that allows, of equal size but for one row; one batch
        where there are no more rows.
    criterion : HeldOutError or None
        Early-stopping error, of the average after every pass. With one, the fit stops at the end of the pass in which
        it has not improved for `n_iter_no_change` steps, and the network returns to the best average. Without, it
        stops where the training loss has not improved for as many steps and two passes, and the last average is
        returned.
    seed : int
        Of the order of rows, probes and sketches.
    """

    def __init__(self, network, data, loss, options, batch_size, criterion, seed):
        self._network, self._data, self._loss = network, data, loss
        self._options, self._criterion = options, criterion
        self._n_batches = math.ceil(len(data) / batch_size)
        # What a batch really has may be half of the most that it is allowed.
        rows_of_a_batch = math.ceil(len(data) / self._n_batches)
        self._stopwatch = Stopwatch()
        self._rng = generator(seed, Stream.BATCH_ORDER)
        self._trust_region = TrustRegion(
            network,
            loss,
            options,
            batch_size=rows_of_a_batch,
            total_weight=float(data.sample_weight.sum()),
            in_batches=True,
            seed=seed,
            stopwatch=self._stopwatch,
        )

    def solve(self):
        """Pass over the rows until a stop reason is found; returns a `SolverResult`.

        The loss curve holds, for every pass, the mean over its batches of the loss before each one's step; also for a
        last pass that finds no step to take, which does not count otherwise.
        """
        result, options = SolverResult(), self._options
        average, best = IterateAverage(), None
        passes_without_change = math.ceil(options.n_iter_no_change / self._n_batches)
        if self._criterion is None:
            # The loss of a pass is that before its steps, and compares one pass with the one before only.
            passes_without_change = max(2, passes_without_change)
        patience = Patience(options.tol, passes_without_change)
        if self._criterion is not None:
            goes_on = options.goes_on
            error = self._criterion.of_network(self._network) if goes_on else self._criterion.of_the_constant()
            if goes_on:
                best = self._keep(Parameters.of(self._network), None)
            patience.update(error)
            result.error_curve.append(error)
        if options.verbose:
            print(
                f"{'pass':>4} {'loss':>11} {'stop error':>11} {'damping':>9} {'CG':>5} {'steps':>6} {'rank':>6} "
                f"{'density':>7} {'seconds':>8}"
            )
        loss_floor = self._loss.rounding_floor(self._data.Y, self._data.sample_weight)
        if loss_floor == 0 and not options.goes_on:
            # The constant model is perfect.
            result.loss_curve.append(0.0)
            result.stop_reason = StopReason.INTERPOLATED
            self._finalise(result, None)
            return result
        self._trust_region.find_damping(self._data)
        while True:
            if result.n_iter >= options.max_iter:
                result.stop_reason = StopReason.MAX_ITER
                break
            if options.watch is not None:
                options.watch.begin_step()
            total, n_active, ranks = self._one_pass(average)
            n_steps = len(ranks)
            loss = self._loss.reported(total / float(self._data.sample_weight.sum()))
            result.loss_curve.append(loss)
            if n_steps == 0:
                result.stop_reason = StopReason.INTERPOLATED if total <= loss_floor else StopReason.NO_DESCENT
                if options.watch is not None:
                    options.watch.abandon_step()
                break
            result.n_iter += 1
            result.density_curve.append(self._network.mean_densities(n_active, len(self._data)))
            result.rank_curve.append(float(np.mean(ranks)))
            error, stopped = self._look_at(average, result)
            error = loss if error is None else error
            if patience.update(error) or self._criterion is None:
                result.best_iter = result.n_iter
                if self._criterion is not None:
                    best = self._keep(average.parameters, best)
            if options.verbose:
                self._print_pass(result, n_steps)
            if stopped:
                result.stop_reason = StopReason.CALLBACK
                break
            # The average of a first pass may still be worse than the constant model.
            if patience.exhausted and result.n_iter > 1:
                improving = self._criterion is not None
                result.stop_reason = StopReason.NO_IMPROVEMENT if improving else StopReason.LOSS_CONVERGED
                break
        self._finalise(result, average.parameters if self._criterion is None else best)
        return result

    def _one_pass(self, average):
        """Steps on all batches.

        Returns
        -------
        total : float
            Loss of all rows, and `n_active` their active neurons, each batch's before its step.
        n_active : ndarray of shape (n_hidden_layers,)
        ranks : list of int
            The most that was pending in one weight matrix during every step that was taken.
        """
        total, n_active, ranks = 0.0, np.zeros(len(self._network.layers), dtype=np.int64), []
        order = self._rng.permutation(len(self._data))
        for rows in np.array_split(order, self._n_batches):
            batch = self._data[np.sort(rows)]
            point = self._trust_region.evaluate(batch)
            total += point.loss
            n_active += point.activations.n_active
            self._trust_region.linearise(batch, point)
            accepted = self._trust_region.step()
            rank = self._network.take_peak_rank()
            if accepted is None:
                continue
            ranks.append(rank)
            with self._stopwatch.phase("flush"):
                iterate = Parameters.of(self._network)
            with self._stopwatch.phase("update"):
                average.update(iterate)
        return total, n_active, ranks

    def _look_at(self, average, result):
        """The early-stopping error of the average, None without a criterion, and whether a callback asked to stop."""
        error, stopped, watch = None, False, self._options.watch
        if self._criterion is None and watch is None:
            return error, stopped
        with self._stopwatch.phase("stopping"):
            iterate = Parameters.of(self._network)
            average.parameters.give_to(self._network)
            if self._criterion is not None:
                error = self._criterion.of_network(self._network)
                result.error_curve.append(error)
            if watch is not None:
                stopped = watch.end_step()
            iterate.give_to(self._network)
        return error, stopped

    def _keep(self, parameters, memory):
        """A copy of the parameters, in the memory of an earlier one if there is any."""
        with self._stopwatch.phase("stopping"):
            if memory is None:
                return parameters.copy()
            memory.move_towards(parameters, 1.0)
            return memory

    def _finalise(self, result, parameters):
        with self._stopwatch.phase("update"):
            if parameters is not None:
                parameters.give_to(self._network)
            elif not self._options.goes_on:
                self._network.clear_output()
        result.describe_steps(self._trust_region, self._stopwatch)
        if self._options.verbose:
            result.print_end("average", "passes")

    def _print_pass(self, result, n_steps):
        error = f"{result.error_curve[-1]:11.4e}" if result.error_curve else f"{'-':>11}"
        counts = np.mean(self._trust_region.n_cg_iter[-n_steps:])
        print(
            f"{result.n_iter:4d} {result.loss_curve[-1]:11.4e} {error} {self._trust_region.damping:9.2e} "
            f"{counts:5.1f} {n_steps:6d} {result.rank_curve[-1]:6.0f} {np.mean(result.density_curve[-1]):7.3f} "
            f"{self._stopwatch.elapsed:8.2f}",
            flush=True,
        )
