"""Levenberg-Marquardt Gauss-Newton on all rows, in the dual.

One iteration linearises the network at its present parameters, solves for a step, tries it, and adapts the
damping; see `GaussNewtonSolver.solve` for the order.
"""

import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from sklearn_subquad import _damping
from sklearn_subquad._jacobian import Jacobian, make_probes
from sklearn_subquad._losses import SquaredError
from sklearn_subquad._pcg import pcg
from sklearn_subquad._preconditioner import make_preconditioner
from sklearn_subquad._stopping import LeaveOneOutError, Patience, StopReason

PHASES = ("init", "forward", "jacobian", "solve", "update", "flush", "stopping")
_MAX_ATTEMPTS = 10
# The least that a step leaves of the distance from the start: less would underflow after a few steps.
_MIN_SHRINK = 1e-6


@dataclass(frozen=True)
class SolverOptions:
    """What the solver is told, in the terms of the estimators' parameters."""

    damping: float | str = "auto"
    alpha: float = 0.0
    preconditioner: str = "auto"
    sketch: str = "tensor_srht"
    sketch_size: int | str = "auto"
    cg_tol: float = 1e-2
    max_cg_iter: int = 50
    max_iter: int = 20
    tol: float = 1e-3
    n_iter_no_change: int = 3
    verbose: int = 0


@dataclass
class SolverResult:
    """What a fit reports.

    Attributes
    ----------
    n_iter : int
        Steps taken.
    best_iter : int
        Steps behind the returned network.
    loss_curve, error_curve : list of float
        Mean squared residual per row and output, and the early-stopping error, after 0, 1, ... steps. After 0
        steps the loss is that of the random start, the error that of the mean.
    n_cg_iter : list of int
        Inner iterations of each step, rejected attempts included.
    n_unconverged : int
        Inner solves that did not reach their tolerance; their solutions were used all the same.
    damping : float
    stop_reason : StopReason
    phase_times : dict of str to float
        Seconds.
    """

    n_iter: int = 0
    best_iter: int = 0
    loss_curve: list = field(default_factory=list)
    error_curve: list = field(default_factory=list)
    n_cg_iter: list = field(default_factory=list)
    n_unconverged: int = 0
    damping: float = float("nan")
    stop_reason: StopReason = StopReason.MAX_ITER
    phase_times: dict = field(default_factory=dict)


@dataclass
class _Solution:
    """A solution c of the damped system, and what the linear model says of its step."""

    c: np.ndarray
    shift: float
    restored: float
    model_residual: np.ndarray
    distance: float


class GaussNewtonSolver:
    """Fits a network to targets by damped Gauss-Newton steps.

    The objective is ``1/2 sum_i w_i |y_i - f_i|² + 1/2 a |θ - θ_0|²``, with a = alpha times the mean diagonal
    of J J^T at the start. Every accepted step lowers it.

    Parameters
    ----------
    network : Network
        Changed in place.
    x : ndarray of shape (n, n_features + 1)
        Network inputs.
    Y : ndarray of shape (n, k)
        Scaled targets.
    sample_weight : ndarray of shape (n,), positive
    options : SolverOptions
    criterion : HeldOutError, LeaveOneOutError or None
        Early-stopping error. With one, the fit stops once it has not improved for a while and the network
        returns to the best iterate. Without, it stops once the loss does not fall any more.
    seed : int or sequence of int
        Of the probes and sketches.
    """

    def __init__(self, network, x, Y, sample_weight, options, criterion, seed):
        self._network, self._x, self._Y = network, x, Y
        self._sample_weight = sample_weight
        self._row_scale = np.sqrt(sample_weight)
        self._options, self._criterion = options, criterion
        self._loss = SquaredError()
        rng = np.random.default_rng(seed)
        self._probes = make_probes(Y.shape[1], rng)
        # Holds rows x rows numbers: made only where the first damping needs it and the criterion is not one itself.
        self._first_step_error = criterion
        if options.damping == "auto" and not isinstance(criterion, LeaveOneOutError):
            self._first_step_error = LeaveOneOutError(sample_weight, rng)
        self._preconditioner = make_preconditioner(
            options.preconditioner, sketch=options.sketch, sketch_size=options.sketch_size, seed=seed
        )
        self._seconds = dict.fromkeys(PHASES, 0.0)

    def solve(self):
        """Take steps until a stop reason is found; returns a `SolverResult`."""
        self._setup()
        reason = self._stop_reason()
        while reason is None:
            self._linearise()
            if not self._take_step():
                reason = StopReason.NO_DESCENT
                break
            self._record()
            reason = self._stop_reason()
        self._finalise(reason)
        return self._result

    @contextmanager
    def _phase(self, name):
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def _setup(self):
        """Forward pass and scores before the first step."""
        self._result = SolverResult()
        self._undo_log = []
        self._distance = 0.0
        self._penalty = None
        self._damping = self._options.damping
        with self._phase("forward"):
            self._activations = self._network.forward(self._x)
        self._data_loss = self._loss.value(self._Y, self._activations.output, self._sample_weight)
        # The smallest loss that rounding of the outputs lets through.
        scale = self._loss.value(self._Y, np.zeros_like(self._Y), self._sample_weight)
        self._loss_floor = scale * (4 * np.finfo(self._x.dtype).eps) ** 2
        self._loss_patience = Patience(self._options.tol, self._options.n_iter_no_change)
        self._error_patience = Patience(self._options.tol, self._options.n_iter_no_change)
        self._loss_patience.update(self._data_loss)
        self._result.loss_curve.append(self._mean_loss())
        if self._criterion is not None:
            # Of the mean, not of the random start: it is what becomes of the network if no step is better.
            error = self._criterion.of_the_mean(self._Y)
            self._error_patience.update(error)
            self._result.error_curve.append(error)
        if self._options.verbose:
            self._print_header()

    def _mean_loss(self):
        return 2 * self._data_loss / (float(self._sample_weight.sum()) * self._Y.shape[1])

    def _residual(self):
        return self._loss.residual(self._Y, self._activations.output)

    def _linearise(self):
        """Jacobian at the present point, and the damping of the first step."""
        with self._phase("jacobian"):
            self._jacobian = Jacobian(self._network, self._activations, self._row_scale, self._probes)
            self._mean_diagonal = self._jacobian.mean_diagonal()
            if self._penalty is None:
                self._penalty = self._options.alpha * self._mean_diagonal
            if self._options.preconditioner in ("auto", "gram"):
                self._jacobian.gram()
        with self._phase("solve"):
            if self._damping == "auto":
                self._damping = _damping.starting_damping(self._error_after_first_step)
        with self._phase("jacobian"):
            self._pull = self._jacobian.along_total_change() if self._penalty > 0 else None

    def _error_after_first_step(self, damping):
        try:
            return self._first_step_error.error_after_first_step(
                self._jacobian, damping * self._mean_diagonal, self._residual()
            )
        except np.linalg.LinAlgError:
            return np.inf

    def _inner_solve(self):
        """Solve ``(J J^T + shift) c = r + (a / shift) J δ`` for the present damping, δ the total change.

        The step is then ``J^T c - (a / shift) δ``. Returns a `_Solution`, or None where the system could not
        be factored or the solution is not finite.
        """
        shift = self._damping * self._mean_diagonal + self._penalty
        restored = 0.0
        if self._penalty > 0:
            restored = 1.0 - max(self._damping * self._mean_diagonal / shift, _MIN_SHRINK)
        residual = self._jacobian.row_scale * self._residual()
        rhs = residual
        if self._pull is not None:
            rhs = residual + residual.dtype.type(restored) * self._pull
        try:
            self._preconditioner.factor(self._jacobian, shift)
            if self._preconditioner.exact:
                c, remainder = self._preconditioner.apply(rhs), np.zeros_like(rhs)
                self._result.n_cg_iter[-1] += 1
            else:
                inner = pcg(
                    lambda C: self._jacobian.J(self._jacobian.Jt(C)) + C.dtype.type(shift) * C,
                    rhs,
                    self._preconditioner.apply,
                    tol=self._options.cg_tol,
                    max_iter=self._options.max_cg_iter,
                )
                c, remainder = inner.solution, inner.residual
                self._result.n_cg_iter[-1] += inner.n_iter
                self._result.n_unconverged += not inner.converged
        except np.linalg.LinAlgError:
            return None
        if not np.all(np.isfinite(c)):
            return None
        # J J^T c = rhs - remainder - shift * c, so nothing below needs another product with J.
        model_residual = shift * c.astype(np.float64) + remainder
        image = rhs - remainder - shift * c.astype(np.float64)
        distance = float(np.vdot(c, image))
        if self._pull is not None:
            distance += (1 - restored) ** 2 * self._distance
            distance += 2 * (1 - restored) * float(np.vdot(c, self._pull.astype(np.float64)))
        return _Solution(c, shift, restored, model_residual, distance)

    def _take_step(self):
        """Raise the damping until a step lowers the objective by enough; False where none does."""
        before = self._data_loss + 0.5 * self._penalty * self._distance
        self._result.n_cg_iter.append(0)
        for _ in range(_MAX_ATTEMPTS):
            with self._phase("solve"):
                solution = self._inner_solve()
            if solution is not None:
                with self._phase("update"):
                    step = self._jacobian.Jt(solution.c)
                    step.shrink = 1.0 - solution.restored
                    undo = self._network.apply(step)
                with self._phase("forward"):
                    activations = self._network.forward(self._x)
                data_loss = self._loss.value(self._Y, activations.output, self._sample_weight)
                after = data_loss + 0.5 * self._penalty * solution.distance
                predicted = before - 0.5 * (
                    float(np.vdot(solution.model_residual, solution.model_residual)) + self._penalty * solution.distance
                )
                actual = before - after
                if np.isfinite(after) and predicted > 0 and actual > 0 and actual >= _damping.ACCEPT_RATIO * predicted:
                    self._accept(solution, undo, activations, data_loss)
                    self._damping = _damping.after_acceptance(self._damping, actual / predicted)
                    return True
                self._network.revert(undo)
            self._damping = _damping.after_rejection(self._damping)
        self._result.n_cg_iter.pop()
        return False

    def _accept(self, solution, undo, activations, data_loss):
        self._solution = solution
        self._distance = solution.distance
        self._activations, self._data_loss = activations, data_loss
        self._undo_log.append(undo)
        with self._phase("flush"):
            for weights in self._network.lazy_weights():
                weights.flush_if_full()

    def _record(self):
        """Scores of the new iterate; forgets how to go back where it is the best so far."""
        result = self._result
        result.n_iter += 1
        result.loss_curve.append(self._mean_loss())
        self._loss_patience.update(self._data_loss)
        if self._criterion is None:
            result.best_iter = result.n_iter
            self._undo_log.clear()
        else:
            with self._phase("stopping"):
                error = self._criterion.update(
                    self._network, self._residual(), self._jacobian, self._solution.shift, self._solution.restored
                )
            result.error_curve.append(error)
            if self._error_patience.update(error):
                result.best_iter = result.n_iter
                self._undo_log.clear()
        if self._options.verbose:
            self._print_iteration()

    def _stop_reason(self):
        """The reason to stop now, or None."""
        if self._data_loss <= self._loss_floor or self._loss_floor == 0:
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

        Where no step is better than the mean, the network becomes zero.
        """
        with self._phase("update"):
            while self._undo_log:
                self._network.revert(self._undo_log.pop())
            if self._result.best_iter == 0:
                self._network.clear_output()
        with self._phase("flush"):
            for weights in self._network.lazy_weights():
                weights.flush()
        result = self._result
        result.damping = float("nan") if self._damping == "auto" else float(self._damping)
        result.stop_reason = reason
        result.phase_times = dict(self._seconds)
        if self._options.verbose:
            if result.n_unconverged:
                print(f"{result.n_unconverged} inner solves ended at max_cg_iter, before they reached cg_tol.")
            print(f"Kept the network after {result.best_iter} of {result.n_iter} steps: {reason.value}.")

    def _print_header(self):
        print(f"{'step':>4} {'loss':>11} {'stop error':>11} {'damping':>9} {'CG':>4} {'rank':>6} {'density':>7}")
        self._print_iteration()

    def _print_iteration(self):
        result = self._result
        error = f"{result.error_curve[-1]:11.4e}" if result.error_curve else f"{'-':>11}"
        damping = f"{'auto':>9}" if self._damping == "auto" else f"{self._damping:9.2e}"
        rank = max((weights.rank for weights in self._network.lazy_weights()), default=0)
        density = np.mean([h.nnz / np.prod(h.shape) for h in self._activations.hidden])
        n_cg_iter = result.n_cg_iter[-1] if result.n_cg_iter else 0
        print(
            f"{result.n_iter:4d} {result.loss_curve[-1]:11.4e} {error} {damping} {n_cg_iter:4d} "
            f"{rank:6d} {density:7.3f}"
        )
