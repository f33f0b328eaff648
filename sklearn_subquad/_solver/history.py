"""Report of a fit, as it goes on and at its end."""

import time
from dataclasses import dataclass, field

import numpy as np

from sklearn_subquad._solver.criteria import Judgement
from sklearn_subquad._solver.stopping import StopReason


@dataclass
class History:
    """Figures of a fit. An iteration is a step on all rows, or a pass over batches.

    Attributes
    ----------
    n_iter : int
    best_iter : int
        Iterations behind the returned network.
    loss_curve, error_curve : list of float
        Mean loss per row in the loss's reported unit, and the early-stopping error, after 0, 1, ... iterations. After
        none the loss is that of the random start, the error that of the constant model. In batches the loss is the mean
        over the batches of a pass of the loss before each one's step, and there is none before the first pass.
    judgement, best_judgement : Judgement or None
        Of the last iterate and of the returned network, where there is an early-stopping error.
    density_curve : list of ndarray of shape (n_hidden_layers,)
        Mean fraction of active neurons on the fitted rows, after 0, 1, ... steps; in batches, of every pass, on each
        batch before its step.
    rank_curve : list of int or float
        The most that was pending in one weight matrix during every step, after 0 for the start; in batches, the mean
        over the steps of every pass.
    n_cg_iter : list of int
        Inner iterations of each step, rejected attempts included.
    n_solves, n_unconverged : int
        Inner solves, and how many of them did not reach their tolerance; their solutions were used all the same.
    damping : float
    stop_reason : StopReason or None
    phase_times : dict of str to float
        Seconds.
    """

    n_iter: int = 0
    best_iter: int = 0
    loss_curve: list = field(default_factory=list)
    error_curve: list = field(default_factory=list)
    judgement: Judgement | None = None
    best_judgement: Judgement | None = None
    density_curve: list = field(default_factory=list)
    rank_curve: list = field(default_factory=list)
    n_cg_iter: list = field(default_factory=list)
    n_solves: int = 0
    n_unconverged: int = 0
    damping: float = float("nan")
    stop_reason: StopReason | None = None
    phase_times: dict = field(default_factory=dict)

    @property
    def left_out_error(self):
        """Mean loss of the returned network on rows that it was not fitted to, or None where there are none."""
        return None if self.best_judgement is None else self.best_judgement.loss

    def add_iterate(self, iterate):
        """Take over the figures of an `Iterate`."""
        for curve, value in (
            (self.loss_curve, iterate.loss),
            (self.density_curve, iterate.densities),
            (self.rank_curve, iterate.rank),
        ):
            if value is not None:
                curve.append(value)

    def add_judgement(self, judgement, improved):
        """Take over a criterion's `Judgement`, and whether it is the best so far, as the first one is in any case."""
        self.error_curve.append(judgement.error)
        self.judgement = judgement
        if improved or self.best_judgement is None:
            self.best_judgement = judgement


class ProgressTable:
    """Prints a line per iteration.

    Parameters
    ----------
    unit, units, kept : str
        Names of one iteration, of several, and of the result.
    """

    def __init__(self, unit, units, kept):
        self._unit, self._units, self._kept, self._began = unit, units, kept, time.perf_counter()

    def print_header(self):
        print(
            f"{self._unit:>4} {'loss':>11} {'stop error':>11} {'damping':>9} {'CG':>5} {'steps':>6} {'rank':>6} "
            f"{'density':>7} {'seconds':>8}"
        )

    def print_line(self, history, damping, counts):
        """Print the last figures of a history; `counts` are the inner iterations of the steps of this iteration."""
        error = f"{history.error_curve[-1]:11.4e}" if history.error_curve else f"{'-':>11}"
        damping = f"{'auto':>9}" if damping is None else f"{damping:9.2e}"
        print(
            f"{history.n_iter:4d} {history.loss_curve[-1]:11.4e} {error} {damping} "
            f"{np.mean(counts) if counts else 0:5.1f} {len(counts):6d} {history.rank_curve[-1]:6.0f} "
            f"{np.mean(history.density_curve[-1]):7.3f} {time.perf_counter() - self._began:8.2f}",
            flush=True,
        )

    def print_end(self, history):
        """Print what was kept after how many iterations, and why the fit ended."""
        if history.n_unconverged:
            print(f"{history.n_unconverged} inner solves ended before they reached cg_tol.")
        print(
            f"Kept the {self._kept} after {history.best_iter} of {history.n_iter} {self._units}: "
            f"{history.stop_reason.value}."
        )
