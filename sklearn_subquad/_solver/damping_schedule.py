"""The Levenberg-Marquardt damping: where it starts and how it adapts.

Damping is relative: the ridge of the normal equations is damping times the mean diagonal of J J^T.
"""

import numpy as np

# The starting damping is this many times the optimum of the first step's leave-one-out error, and at least
# the floor: one step that is right on its own is too long as the first of many.
_START_FACTOR = 3.0
_START_FLOOR = 0.3
# For the squared error in batches: the damping does not fall there, and the average of iterates is smoother than a
# step. Other losses need the caution, because the curvature of the next batch is another.
_STEADY_START_FACTOR = 1.0
_STEADY_START_FLOOR = 0.01
# The same where a part of the data is passed once: what it asks for too much of is not corrected by a second pass.
_PARTIAL_START_FLOOR = 0.1
_START_CEILING = 100.0
# Where it adapts, it does not fall below this one; a smaller one that a user has given is left at its first rejection.
MIN_DAMPING = 1e-3
# A step that is not good with about so much damping is so short that it fails for another reason.
ENOUGH_DAMPING = 1e4

ACCEPT_RATIO = 0.1
_GOOD_RATIO = 0.75
_REJECTED_FACTOR = 4.0
_GOOD_FACTOR = 0.5


def starting_damping(error_at, steady, partial=False):
    """Damping of the first step.

    Parameters
    ----------
    error_at : callable
        Leave-one-out error of a first step, as a function of the damping. The dampings are tried upwards
        until the error has risen twice in a row.
    steady : bool
        True if the damping stays what it is, over batches of a loss with constant curvature.
    partial : bool
        True for one pass over a part of the data that others follow.
    """
    factor, floor = _START_FACTOR, _START_FLOOR
    if steady:
        factor, floor = _STEADY_START_FACTOR, _PARTIAL_START_FLOOR if partial else _STEADY_START_FLOOR
    best, optimum, risen = np.inf, 0.0, 0
    for damping in np.geomspace(floor, _START_CEILING, 16) / factor:
        error = error_at(damping)
        if error < best:
            best, optimum, risen = error, damping, 0
        else:
            risen += 1
        if risen == 2:
            break
    return max(factor * optimum, floor)


def after_rejection(damping):
    """Damping to try next after a step that was not good enough."""
    return max(_REJECTED_FACTOR * damping, MIN_DAMPING)


def after_acceptance(damping, ratio, least):
    """Damping of the next step, given the ratio of actual to predicted decrease of this one; `least` or more."""
    if ratio <= _GOOD_RATIO:
        return damping
    return max(_GOOD_FACTOR * damping, min(damping, least))
