"""Gauss-Newton on all rows at once: every step is one of the whole objective."""

from dataclasses import dataclass, field

import numpy as np

from sklearn_subquad._solver.levenberg_marquardt import StepOptions, TrustRegion
from sklearn_subquad._solver.stopping import LeaveOneOutError, Patience, StopReason
from sklearn_subquad._utils.stopwatch import Stopwatch


@dataclass(frozen=True)
class SolverOptions(StepOptions):
    """What a solver is told, in the terms of the estimators' parameters.

    Besides, whether it goes on from a network that was fitted before, which is returned where no step is better, in the
    place of the constant model; and who is told of every step and may stop it.
    """

    max_iter: int = 20
    tol: float = 1e-3
    n_iter_no_change: int = 3
    verbose: int = 0
    goes_on: bool = False
    watch: object = None


@dataclass
class SolverResult:
    """What a fit reports.

    Attributes
    ----------
    n_iter : int
        Steps taken, or passes over the rows in batches.
    best_iter : int
        Steps or passes behind the returned network.
    loss_curve, error_curve : list of float
        Mean loss per row in the loss's reported unit, and the early-stopping error, after 0, 1, ... steps. After 0
        steps the loss is that of the random start, the error that of the constant model.
    density_curve : list of ndarray of shape (n_hidden_layers,)
        Mean fraction of active neurons on the fitted rows, after 0, 1, ... `n_iter` steps; in batches, of every pass
        that counts, on each batch before its step.
    rank_curve : list of int or float
        The most that was pending in one weight matrix during steps 1, ... `n_iter`, after 0 for the start; in batches,
        for every pass that counts, the mean over its steps.
    held_out_losses : list of float
        Where the error is minus a score: the mean loss on the held-out rows, after 0, 1, ... steps.
    n_cg_iter : list of int
        Inner iterations of each step, rejected attempts included.
    n_solves, n_unconverged : int
        Inner solves, and how many of them did not reach their tolerance; their solutions were used all the same.
    damping : float
    stop_reason : StopReason
    phase_times : dict of str to float
        Seconds.
    """

    n_iter: int = 0
    best_iter: int = 0
    loss_curve: list = field(default_factory=list)
    error_curve: list = field(default_factory=list)
    held_out_losses: list = field(default_factory=list)
    density_curve: list = field(default_factory=list)
    rank_curve: list = field(default_factory=list)
    n_cg_iter: list = field(default_factory=list)
    n_solves: int = 0
    n_unconverged: int = 0
    damping: float = float("nan")
    stop_reason: StopReason = StopReason.MAX_ITER
    phase_times: dict = field(default_factory=dict)

    @property
    def took_steps(self):
        """Whether the fit took any step, or a search for the number of steps whose error curve this is."""
        return self.n_iter > 0 or len(self.error_curve) > 1

    @property
    def left_out_error(self):
        """Mean loss of the returned network on rows that it was not fitted to, or None where there are none."""
        losses = self.held_out_losses or self.error_curve
        return losses[min(self.best_iter, len(losses) - 1)] if losses else None

    def describe_steps(self, trust_region, stopwatch):
        """Take over what the trust region and the stopwatch counted."""
        self.n_cg_iter = trust_region.n_cg_iter
        self.n_solves, self.n_unconverged = trust_region.n_solves, trust_region.n_unconverged
        self.damping = float("nan") if trust_region.damping == "auto" else float(trust_region.damping)
        self.phase_times = dict(stopwatch.seconds)

    def print_end(self, kept, unit):
        """Print what was kept after how many of the steps or passes, and why the fit ended."""
        if self.n_unconverged:
            print(f"{self.n_unconverged} inner solves ended before they reached cg_tol.")
        print(f"Kept the {kept} after {self.best_iter} of {self.n_iter} {unit}: {self.stop_reason.value}.")


class GaussNewtonSolver:
    """Fits a network to targets by damped Gauss-Newton steps on all rows.

    Parameters
    ----------
    network : Network
        Changed in place.
    batch : Batch
        All rows.
    loss : Loss
    options : SolverOptions
    criterion : HeldOutError, LeaveOneOutError or None
        Early-stopping error. With one, the fit stops once it has not improved for a while and the network
        returns to the best iterate. Without, it stops once the loss does not fall any more.
    seed : int
        Of the probes and sketches.
    """

    def __init__(self, network, batch, loss, options, criterion, seed):
        self._network, self._batch, self._loss = network, batch, loss
        self._options, self._criterion = options, criterion
        self._total_weight = float(batch.sample_weight.sum())
        self._stopwatch = Stopwatch()
        self._trust_region = TrustRegion(
            network,
            loss,
            options,
            batch_size=len(batch),
            total_weight=self._total_weight,
            in_batches=False,
            needs_gram=criterion is not None and criterion.needs_gram,
            seed=seed,
            stopwatch=self._stopwatch,
        )

    def solve(self):
        """Take steps until a stop reason is found; returns a `SolverResult`."""
        self._setup()
        reason = self._stop_reason()
        watch = self._options.watch
        while reason is None:
            if watch is not None:
                watch.begin_step()
            first_step_error = self._criterion if isinstance(self._criterion, LeaveOneOutError) else None
            self._trust_region.linearise(self._batch, self._point, first_step_error)
            accepted = self._trust_region.step()
            if accepted is None:
                reason = StopReason.NO_DESCENT
                if watch is not None:
                    watch.abandon_step()
                break
            self._point = accepted.point
            self._undo_log.append(accepted.undo)
            with self._stopwatch.phase("flush"):
                for weights in self._network.lazy_weights():
                    weights.flush_if_full()
            self._record(accepted.solution)
            reason = self._stop_reason()
            if watch is not None and watch.end_step() and reason is None:
                reason = StopReason.CALLBACK
        self._finalise(reason)
        return self._result

    def _setup(self):
        """Forward pass and scores before the first step."""
        self._result = SolverResult()
        self._undo_log = []
        self._point = self._trust_region.evaluate(self._batch)
        self._loss_floor = self._loss.rounding_floor(self._batch.Y, self._batch.sample_weight)
        self._loss_patience = Patience(self._options.tol, self._options.n_iter_no_change)
        self._error_patience = Patience(self._options.tol, self._options.n_iter_no_change)
        self._loss_patience.update(self._point.loss)
        self._result.loss_curve.append(self._mean_loss())
        if self._criterion is not None:
            # Of the constant, not of the random start: it is what becomes of the network if no step is better.
            goes_on = self._options.goes_on
            error = self._criterion.of_network(self._network) if goes_on else self._criterion.of_the_constant()
            self._error_patience.update(error)
            self._result.error_curve.append(error)
        self._record_activity()
        if self._options.verbose:
            self._print_header()

    def _mean_loss(self):
        return self._loss.reported(self._point.loss / self._total_weight)

    def _record(self, solution):
        """Scores of the new iterate; forgets how to go back where it is the best so far."""
        result = self._result
        result.n_iter += 1
        result.loss_curve.append(self._mean_loss())
        self._loss_patience.update(self._point.loss)
        if self._criterion is None:
            result.best_iter = result.n_iter
            self._undo_log.clear()
        else:
            with self._stopwatch.phase("stopping"):
                output = self._point.activations.output
                error = self._criterion.after_step(self._network, output, self._trust_region.jacobian, solution)
            result.error_curve.append(error)
            if self._error_patience.update(error):
                result.best_iter = result.n_iter
                self._undo_log.clear()
        self._record_activity()
        if self._options.verbose:
            self._print_iteration()

    def _record_activity(self):
        """How many neurons are active at the iterate, and what was pending on the way to it."""
        n_active = self._point.activations.n_active
        self._result.density_curve.append(self._network.mean_densities(n_active, len(self._batch)))
        self._result.rank_curve.append(self._network.take_peak_rank())

    def _stop_reason(self):
        """The reason to stop now, or None."""
        constant_is_perfect = self._loss_floor == 0 and not self._options.goes_on
        if self._point.loss <= self._loss_floor or constant_is_perfect:
            return StopReason.INTERPOLATED
        if self._result.n_iter >= self._options.max_iter:
            return StopReason.MAX_ITER
        if self._criterion is not None and self._error_patience.exhausted:
            return StopReason.NO_IMPROVEMENT
        if self._loss_patience.exhausted:
            return StopReason.LOSS_CONVERGED
        return None

    def _finalise(self, reason):
        """Go back to the best iterate and fold everything pending in.

        Where no step is better than the constant model, the network becomes zero.
        """
        with self._stopwatch.phase("update"):
            while self._undo_log:
                self._network.revert(self._undo_log.pop())
            if self._result.best_iter == 0 and not self._options.goes_on:
                self._network.clear_output()
        with self._stopwatch.phase("flush"):
            for weights in self._network.lazy_weights():
                weights.flush()
        result = self._result
        result.stop_reason = reason
        result.describe_steps(self._trust_region, self._stopwatch)
        if self._options.verbose:
            result.print_end("network", "steps")

    def _print_header(self):
        print(
            f"{'step':>4} {'loss':>11} {'stop error':>11} {'damping':>9} {'CG':>4} {'rank':>6} {'density':>7} "
            f"{'seconds':>8}"
        )
        self._print_iteration()

    def _print_iteration(self):
        result, damping, counts = self._result, self._trust_region.damping, self._trust_region.n_cg_iter
        error = f"{result.error_curve[-1]:11.4e}" if result.error_curve else f"{'-':>11}"
        damping = f"{'auto':>9}" if damping == "auto" else f"{damping:9.2e}"
        print(
            f"{result.n_iter:4d} {result.loss_curve[-1]:11.4e} {error} {damping} {counts[-1] if counts else 0:4d} "
            f"{result.rank_curve[-1]:6d} {np.mean(result.density_curve[-1]):7.3f} {self._stopwatch.elapsed:8.2f}",
            flush=True,
        )
