"""What processes agree on: the same to the bit, or between SIMD levels to rounding."""

import os
import subprocess
import sys

import numpy as np
import pytest

# A clock by which everything takes less time than what was before it: no result may depend on what took how long.
HASTY_CLOCK = """
import itertools
import time

ticks = itertools.accumulate(0.9**i for i in itertools.count())
time.perf_counter = lambda: next(ticks)
"""

# Fits both estimators and writes their raw outputs.
FIT = """
import sys
import numpy as np
import sklearn_subquad

width, path = int(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
X = rng.standard_normal((300, 6)).astype(np.float32)
y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]
# A rank of 1 folds every step in, which is where the routes of the factors differ.
options = {"hidden_layer_sizes": (width, width), "max_rank": 1, "max_iter": 3, "random_state": 0}
regressor = sklearn_subquad.SubquadMLPRegressor(**options).fit(X, y)
classifier = sklearn_subquad.SubquadMLPClassifier(**options).fit(X, np.argsort(np.argsort(y)) * 3 // len(y))
np.savez(path, regressor=regressor.predict(X), classifier=classifier.decision_function(X))
"""


def run(script, *arguments, **environment):
    """Run a script in a process of its own, outside the checkout."""
    subprocess.run([sys.executable, "-P", "-c", script, *arguments], check=True, env=os.environ | environment)


@pytest.mark.parametrize("width", [64, 512])
def test_two_processes_fit_the_same_to_the_bit(width, tmp_path):
    paths = [str(tmp_path / f"{i}.npz") for i in range(2)]
    for path, clock in zip(paths, ("", HASTY_CLOCK), strict=True):
        run(clock + FIT, str(width), path)
    first, second = (np.load(path) for path in paths)
    for name in ("regressor", "classifier"):
        assert np.std(first[name]) > 0
        assert first[name].tobytes() == second[name].tobytes()
