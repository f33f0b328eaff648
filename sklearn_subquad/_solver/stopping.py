"""When to stop, and why."""

from enum import Enum

import numpy as np


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

    It waits once more while no score is below the first: a step that is right on its own may be too long as the first
    of many, and the average of a first pass is still near the random start.

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
        """Record the score of the next iterate; returns True if it is the best so far."""
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
        return self._waited >= self._n_iter_no_change + (self.best_iter == 0)


class StepListener:
    """Is told of every iteration of a fit, and may stop it; this one does nothing."""

    def begin_step(self):
        """An iteration begins."""

    def end_step(self, history):
        """It is over, and the network is what it has come to; returns True to stop."""
        return False

    def abandon_step(self):
        """It found no step to take."""
