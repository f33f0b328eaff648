"""Seconds by phase."""

import time
from contextlib import contextmanager

PHASES = ("init", "forward", "jacobian", "solve", "update", "flush", "stopping")


class Stopwatch:
    """Adds up the seconds of named phases.

    Attributes
    ----------
    seconds : dict of str to float
    """

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name):
        """Count the time of the block."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start
