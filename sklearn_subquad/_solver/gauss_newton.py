"""The outer loop of Gauss-Newton, for all rows at once and for batches."""

from sklearn_subquad._solver.history import History, ProgressTable
from sklearn_subquad._solver.iterations import FullBatch, MiniBatches
from sklearn_subquad._solver.levenberg_marquardt import LevenbergMarquardt
from sklearn_subquad._solver.stopping import Patience, StepListener, StopReason
from sklearn_subquad._utils.stopwatch import Stopwatch


class GaussNewton:
    """Fits a network to targets by damped Gauss-Newton steps.

    Parameters
    ----------
    network : Network
        Changed in place.
    data : Batch
        All rows.
    loss : Loss
    options : SolverOptions
    criterion : HeldOutError, HeldOutScore, LeaveOneOutError or None
        Early-stopping error. With one, the fit stops once it has not improved for a while, and the network returns to
        the best iterate. Without, it stops once the loss does not fall any more.
    seed : int
        Of the probes, sketches and the order of rows.
    listener : StepListener
        Is told of every iteration, and may stop the fit.
    """

    def __init__(self, network, data, loss, options, criterion, seed, listener=None):
        self._network, self._data, self._loss = network, data, loss
        self._options, self._criterion = options, criterion
        self._listener = StepListener() if listener is None else listener
        self._stopwatch = Stopwatch()
        self._step = LevenbergMarquardt(network, loss, options, seed, self._stopwatch)
        arguments = (network, data, loss, self._step, criterion, self._stopwatch)
        if options.in_batches:
            self._iterations = MiniBatches(*arguments, options.batch_size or len(data), seed)
        else:
            self._iterations = FullBatch(*arguments)

    def solve(self):
        """Iterate until there is a reason to stop; returns the `History`."""
        self._set_up()
        while self._history.stop_reason is None:
            self._listener.begin_step()
            iterate = self._iterations.advance()
            if iterate.n_steps:
                self._record(iterate)
            else:
                self._give_up(iterate)
        self._finish()
        return self._history

    def _set_up(self):
        options, history = self._options, History()
        self._history = history
        self._loss_floor = self._loss.rounding_floor(self._data.Y, self._data.sample_weight)
        for_loss, for_error = self._iterations.patience(options.n_iter_no_change, self._criterion)
        self._loss_patience, self._error_patience = Patience(options.tol, for_loss), Patience(options.tol, for_error)
        self._table = ProgressTable(self._iterations.unit, self._iterations.units, self._iterations.kept)
        constant_is_perfect = self._loss_floor == 0 and not options.warm_start
        iterate = self._iterations.start(constant_is_perfect)
        self._add_iterate(iterate)
        if self._criterion is not None:
            # Of the constant, not of the random start: it is what becomes of the network if no step is better.
            of_start = self._criterion.of_network if options.warm_start else self._criterion.of_the_constant
            with self._stopwatch.phase("stopping"):
                self._add_judgement(of_start(self._network))
            if options.warm_start:
                self._iterations.keep()
        if options.verbose:
            self._table.print_header()
            if iterate.loss is not None:
                self._table.print_line(history, self._step.damping, [])
        history.stop_reason = StopReason.INTERPOLATED if constant_is_perfect else self._stop_reason(iterate)

    def _record(self, iterate):
        """Judge a new iterate, and decide whether to go on."""
        history = self._history
        history.n_iter += 1
        self._add_iterate(iterate)
        with self._iterations.in_network():
            improved = True
            if self._criterion is not None:
                with self._stopwatch.phase("stopping"):
                    improved = self._add_judgement(self._criterion.of_network(self._network))
            stopped = self._listener.end_step(history)
        if improved:
            history.best_iter = history.n_iter
            self._iterations.keep()
        if self._options.verbose:
            self._table.print_line(history, self._step.damping, self._step.n_cg_iter[-iterate.n_steps :])
        history.stop_reason = self._stop_reason(iterate)
        if history.stop_reason is None and stopped:
            history.stop_reason = StopReason.CALLBACK

    def _give_up(self, iterate):
        """There was no step to take."""
        self._add_iterate(iterate)
        fitted = iterate.total_loss is not None and iterate.total_loss <= self._loss_floor
        self._history.stop_reason = StopReason.INTERPOLATED if fitted else StopReason.NO_DESCENT
        self._listener.abandon_step()

    def _add_iterate(self, iterate):
        self._history.add_iterate(iterate)
        if iterate.total_loss is not None:
            self._loss_patience.update(iterate.total_loss)

    def _add_judgement(self, judgement):
        """Record what the criterion says; returns True if it is the best so far."""
        improved = self._error_patience.update(judgement.error)
        self._history.add_judgement(judgement, improved)
        return improved

    def _stop_reason(self, iterate):
        """The reason to stop now, or None."""
        n_iter = self._history.n_iter
        if iterate.total_loss is not None and iterate.total_loss <= self._loss_floor:
            return StopReason.INTERPOLATED
        if n_iter >= self._options.max_iter:
            return StopReason.MAX_ITER
        if self._error_patience.exhausted:
            return StopReason.NO_IMPROVEMENT
        if self._loss_patience.exhausted:
            return StopReason.LOSS_CONVERGED
        return None

    def _finish(self):
        """Go back to the best iterate and fold everything pending in.

        Where no iterate is better than the constant model, the network becomes zero.
        """
        history, step = self._history, self._step
        self._iterations.restore()
        if history.best_iter == 0 and not self._options.warm_start:
            self._network.clear_output()
        with self._stopwatch.phase("flush"):
            for weights in self._network.lazy_weights():
                weights.flush()
        history.n_cg_iter, history.n_solves, history.n_unconverged = step.n_cg_iter, step.n_solves, step.n_unconverged
        history.damping = float("nan") if step.damping is None else float(step.damping)
        history.phase_times = dict(self._stopwatch.seconds)
        if self._options.verbose:
            self._table.print_end(history)
