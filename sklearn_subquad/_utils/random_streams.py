"""Random numbers of a fit: one seed, and a stream of its own for everything that is drawn."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purposes that random numbers are drawn for.

    Initial weights have streams of their own besides: those that ``SeedSequence(seed)`` spawns, one per matrix, which
    differ from all of these.
    """

    # Stored models draw these two again when they predict deviations: their numbers stay.
    COVARIANCE_SKETCH = 0
    COVARIANCE_PROBES = 1
    STEP_PROBES = 2
    CALIBRATION_ROWS = 3
    DIMENSION_ROWS = 4
    # 5 is free: with other numbers fits would be others.
    LEAVE_ONE_OUT_PROBES = 6
    BATCH_ORDER = 7
    STEP_SKETCH = 8
    HELD_OUT_ROWS = 9
    UNSEEN_FEATURES = 10
    NETWORKS = 11
    FOLDS = 12
    IMPORTANCES = 13
    TARGET_STATISTICS = 14
    ROWS_OF_PARTS = 15


def generator(seed, stream):
    """The generator of a stream."""
    return np.random.default_rng([seed, stream])
