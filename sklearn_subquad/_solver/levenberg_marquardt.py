"""Levenberg-Marquardt steps of a network on batches of rows, in the dual.

A batch is linearised, a damped system is solved for a step, the step is tried on the same rows, and the damping
adapts. Who chooses the batches, scores the iterates and stops is a solver.
"""

from dataclasses import dataclass

import numpy as np

from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.jacobian_blocks import JacobianBlocks
from sklearn_subquad._curvature.preconditioners import make_preconditioner
from sklearn_subquad._linalg.pcg import pcg
from sklearn_subquad._network.network import ActivationBlocks
from sklearn_subquad._solver import damping_schedule
from sklearn_subquad._solver.criteria import LeaveOneOutError
from sklearn_subquad._utils.random_streams import Stream, generator

# A step is given up after so many attempts, but not while the damping is below `ENOUGH_DAMPING`.
_MIN_ATTEMPTS = 10
# Rows from which the first damping is found, at most. In batches there is a least number, too: few leave it to chance.
_MAX_DAMPING_ROWS = 4096
# Where batches are smaller, the first damping is found on so many rows, or all.
MIN_DAMPING_ROWS = 512
# Rows on which a step is tried, where a batch has more and is not all rows.
_TRIAL_ROWS = 64


@dataclass(frozen=True)
class Batch:
    """Rows to fit.

    Attributes
    ----------
    x : ndarray or SparseFeatures of shape (n, n_features + 1), or None
        Network inputs; None where only targets are looked at.
    Y : ndarray of shape (n, k)
        Targets as the loss takes them.
    sample_weight : ndarray of shape (n,), float64, positive
    """

    x: np.ndarray
    Y: np.ndarray
    sample_weight: np.ndarray

    def __len__(self):
        return len(self.Y)

    def __getitem__(self, rows):
        return Batch(self.x[rows], self.Y[rows], self.sample_weight[rows])


@dataclass
class Point:
    """A linearisation point: activations of a batch, and the loss there (summed over the rows)."""

    activations: object
    loss: float


@dataclass
class Solution:
    """A solution c of ``(J J^T + ridge) c = r``.

    Attributes
    ----------
    c : ndarray of shape (n, k)
    ridge : float
        The damping times the mean diagonal of J J^T.
    model_residual : ndarray of shape (n, k)
        Residual of the linear model after the step ``J^T c``.
    cotangents : list of SparseRows or None
        `Jacobian.scaled_cotangents` of c, where they are known.
    """

    c: np.ndarray
    ridge: float
    model_residual: np.ndarray
    cotangents: list | None = None


@dataclass
class AcceptedStep:
    """A step that lowered the loss, how to go back, and the point of the rows on which it was tried."""

    solution: Solution
    undo: object
    point: Point


class _DampedSystem:
    """The operator ``J J^T + ridge I``; of a solution that is a sum of directions it adds up the cotangents as well."""

    def __init__(self, jacobian, ridge):
        self._jacobian, self._ridge = jacobian, ridge
        self._of_direction = self.cotangents = None

    def __call__(self, C):
        self._of_direction = self._jacobian.scaled_cotangents(C)
        return self._jacobian.gram_matvec(C, self._of_direction) + C.dtype.type(self._ridge) * C

    def advance(self, length):
        """The solution has moved by so many times the last direction."""
        if self._of_direction is None:
            return
        moved = [u.scaled(length) for u in self._of_direction]
        if self.cotangents is not None:
            for mine, u in zip(self.cotangents, moved, strict=True):
                mine.values += u.values
        else:
            self.cotangents = moved


class LevenbergMarquardt:
    """Takes damped Gauss-Newton steps, each of which lowers the loss of its batch or is not taken.

    Where a batch is not all rows, a step is tried on some of its rows only.

    Parameters
    ----------
    network : Network
        Changed in place.
    loss : Loss
    options : SolverOptions
        In batches, damping is what keeps a step from forgetting other batches: it does not fall below its start, and
        `find_damping` comes before the first step.
    seed : int
        Of the probes and sketches.
    stopwatch : Stopwatch

    Attributes
    ----------
    damping : float or None
        That the next step starts from; None before it was found.
    jacobian : Jacobian or JacobianBlocks
        Of the last linearisation.
    n_cg_iter : list of int
        Inner iterations of every step, rejected attempts included.
    n_solves, n_unconverged : int
        Inner solves, and how many of them did not reach their tolerance; their solutions were used all the same.
    """

    def __init__(self, network, loss, options, seed, stopwatch):
        self._network, self._loss, self._options = network, loss, options
        self._in_batches = options.in_batches
        self._least_damping = damping_schedule.MIN_DAMPING
        self._stopwatch = stopwatch
        self._rng = generator(seed, Stream.STEP_PROBES)
        # In batches nothing but the preconditioner depends on them, which one serves as well as three.
        self._probes = make_probes(len(loss.baseline), self._rng, n_random=1 if options.in_batches else 3)
        self._preconditioner = make_preconditioner(
            options.preconditioner,
            sketch=options.sketch,
            sketch_size=options.sketch_size,
            seed=[seed, Stream.STEP_SKETCH],
            n_outputs=len(loss.baseline),
        )
        self._batch = None
        self._least_diagonal = 0.0
        self.damping = options.damping
        self.n_cg_iter = []
        self.n_solves = self.n_unconverged = 0

    def evaluate(self, batch):
        """Forward pass of a batch, as a `Point`."""
        with self._stopwatch.phase("forward"):
            if self._options.block_rows is not None and len(batch) > self._options.block_rows:
                activations = self._network.forward_blocks(batch.x, self._options.block_rows)
            else:
                activations = self._network.forward(batch.x)
        return Point(activations, self._loss.value(batch.Y, activations.output, batch.sample_weight))

    def linearise(self, batch, point, first_step_error=None):
        """Jacobian of a batch at its point, and the damping of the first step.

        Parameters
        ----------
        batch : Batch
        point : Point
            From `evaluate` at the network's present parameters.
        first_step_error : LeaveOneOutError or None
            Of these rows, where the caller has one; otherwise it is made where the first damping needs it.
        """
        same_rows = batch is self._batch
        self._batch, self._point = batch, point
        with self._stopwatch.phase("jacobian"):
            self.jacobian, self._residual = self._linearisation(batch, point)
            self._mean_diagonal = max(self.jacobian.mean_diagonal(), self._least_diagonal)
            if not self._loss.has_constant_curvature:
                # Where predictions are sure, curvature and with it the diagonal vanish; the damping has to hold.
                self._least_diagonal = self._mean_diagonal
            self._preconditioner.prepare(self.jacobian, same_rows)
        if self.damping is None:
            if len(batch) > _MAX_DAMPING_ROWS:
                self.find_damping(batch, len(batch))
            else:
                if first_step_error is None:
                    first_step_error = LeaveOneOutError(batch, self._rng)
                self.damping = self._starting_damping(self.jacobian, self._residual, first_step_error)

    def find_damping(self, data, batch_rows):
        """Set the first damping where none was given, and in batches the least one, from a sample of all rows.

        Parameters
        ----------
        data : Batch
            All rows.
        batch_rows : int
            Rows of the largest batch.
        """
        if self.damping is None:
            n_rows = min(len(data), _MAX_DAMPING_ROWS, max(batch_rows, MIN_DAMPING_ROWS))
            sample = data[np.sort(self._rng.choice(len(data), n_rows, replace=False))]
            jacobian, residual = self._linearisation(sample, self.evaluate(sample))
            # Exact leave-one-out errors would take the time of some steps.
            error = LeaveOneOutError(sample, self._rng, max_exact_rows=MIN_DAMPING_ROWS)
            self.damping = self._starting_damping(jacobian, residual, error)
        if self._in_batches:
            self._least_damping = self.damping

    def _linearisation(self, batch, point):
        """The scaled Jacobian of a batch at its point, and the residual in the same scale."""
        row_scale = np.sqrt(batch.sample_weight)

        def of_rows(activations, row_scale):
            factor = self._loss.factor(activations.output)
            return Jacobian(self._network, activations, row_scale, self._probes, factor)

        if isinstance(point.activations, ActivationBlocks):
            blocks = point.activations.blocks
            bounds = np.cumsum([len(block.x) for block in blocks])[:-1]
            jacobian = JacobianBlocks(
                [of_rows(*part) for part in zip(blocks, np.split(row_scale, bounds), strict=True)]
            )
        else:
            jacobian = of_rows(point.activations, row_scale)
        return jacobian, jacobian.row_scale * self._loss.residual(batch.Y, point.activations.output)

    def _starting_damping(self, jacobian, residual, first_step_error):
        with self._stopwatch.phase("jacobian"):
            mean_diagonal = jacobian.mean_diagonal()
            jacobian.gram.matrix()

        def error(damping):
            try:
                return first_step_error.error_after_first_step(jacobian, damping * mean_diagonal, residual)
            except np.linalg.LinAlgError:
                return np.inf

        with self._stopwatch.phase("solve"):
            steady = self._in_batches and self._loss.has_constant_curvature
            return damping_schedule.starting_damping(error, steady, self._options.partial)

    def step(self):
        """Raise the damping until a step of the last linearisation lowers the loss by enough.

        A damping that starts small is raised until it is large: that it is the user's is no reason to give up.

        Returns
        -------
        AcceptedStep or None
            None where no damping gives such a step; the network is then what it was, to rounding.
        """
        rows, trial, loss_before = self._trial()
        modelled_before = self._half_square(self._residual[rows])
        self.n_cg_iter.append(0)
        n_attempts = 0
        while n_attempts < _MIN_ATTEMPTS or self.damping < damping_schedule.ENOUGH_DAMPING:
            n_attempts += 1
            with self._stopwatch.phase("solve"):
                solution = self._inner_solve()
            if solution is not None:
                with self._stopwatch.phase("update"):
                    undo = self._network.apply(self.jacobian.Jt(solution.c, solution.cotangents))
                point = self.evaluate(trial)
                predicted = modelled_before - self._half_square(solution.model_residual[rows])
                actual = loss_before - point.loss
                if _is_good(actual, predicted):
                    self.damping = damping_schedule.after_acceptance(
                        self.damping, actual / predicted, self._least_damping
                    )
                    return AcceptedStep(solution, undo, point)
                self._network.revert(undo)
            self.damping = damping_schedule.after_rejection(self.damping)
            # In batches as well a smaller one, which was too small here, is not returned to.
            self._least_damping = max(self._least_damping, damping_schedule.MIN_DAMPING)
        self.n_cg_iter.pop()
        if self._in_batches:
            # The next batch may be an easier one.
            self.damping = self._least_damping
        return None

    def _trial(self):
        """The rows on which steps are tried, as a slice or indices and as a batch, and their loss before."""
        if not self._in_batches or len(self._batch) <= _TRIAL_ROWS:
            return slice(None), self._batch, self._point.loss
        rows = np.sort(self._rng.choice(len(self._batch), _TRIAL_ROWS, replace=False))
        trial = self._batch[rows]
        output = self._point.activations.output[rows]
        return rows, trial, self._loss.value(trial.Y, output, trial.sample_weight)

    def _inner_solve(self):
        """Solve ``(J J^T + ridge) c = r`` for the present damping, J being the scaled Jacobian.

        Returns a `Solution`, or None where the system could not be factored or the solution is not finite.
        """
        ridge = self.damping * self._mean_diagonal
        if ridge == 0:
            # It underflows; the damping is raised until it does not.
            return None
        rhs, system = self._residual, _DampedSystem(self.jacobian, ridge)
        try:
            self._preconditioner.factor(ridge)
            if self._preconditioner.exact:
                c, remainder = self._preconditioner.apply(rhs), np.zeros_like(rhs)
                self.n_cg_iter[-1] += 1
            else:
                inner = pcg(
                    system,
                    rhs,
                    self._preconditioner.apply,
                    tol=self._options.cg_tol,
                    max_iter=self._options.max_cg_iter,
                    flexible=self._preconditioner.varies,
                    advance=system.advance,
                )
                c, remainder = inner.solution, inner.residual
                self.n_cg_iter[-1] += inner.n_iter
                self.n_unconverged += not inner.converged
                self._preconditioner.observe(inner.n_iter, inner.converged)
        except np.linalg.LinAlgError:
            return None
        self.n_solves += 1
        if not np.all(np.isfinite(c)):
            return None
        # J J^T c = r - remainder - ridge * c, so that the model needs no other product with J.
        return Solution(c, ridge, ridge * c.astype(np.float64) + remainder, system.cotangents)

    @staticmethod
    def _half_square(residual):
        return 0.5 * float(np.einsum("ij,ij->", residual, residual, dtype=np.float64))


def _is_good(actual, predicted):
    return np.isfinite(actual) and predicted > 0 and actual > 0 and actual >= damping_schedule.ACCEPT_RATIO * predicted
