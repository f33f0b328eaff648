"""The Levenberg-Marquardt damping: where it starts and how it adapts.

Damping is relative: the ridge of the normal equations is damping times the mean diagonal of J J^T.
"""

import numpy as np

# The starting damping is the optimum of the first step's leave-one-out error, and at least the floor, below which the
# error of one step says little of many.
_START_FLOOR = 0.01
# Where the curvature changes with the outputs, it is this many times the optimum, and has a floor of its own: a step
# that is right for one curvature is too long for the next.
_CAUTIOUS_START_FACTOR = 3.0
_CAUTIOUS_START_FLOOR = 0.3
_START_CEILING = 100.0
# Where it adapts, it does not fall below this one; a smaller one that a user has given is left at its first rejection.
MIN_DAMPING = 1e-3
# A step that is not good with about so much damping is so short that it fails for another reason.
ENOUGH_DAMPING = 1e4

ACCEPT_RATIO = 0.1
_GOOD_RATIO = 0.75
_REJECTED_FACTOR = 4.0
_GOOD_FACTOR = 0.5


def starting_damping(error_at, constant_curvature):
    """Damping of the first step.

    Parameters
    ----------
    error_at : callable
        Leave-one-out error of a first step, as a function of the damping. The dampings are tried upwards
        until the error has risen twice in a row.
    constant_curvature : bool
        Of the loss.
    """
    factor, floor = (1.0, _START_FLOOR) if constant_curvature else (_CAUTIOUS_START_FACTOR, _CAUTIOUS_START_FLOOR)
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
