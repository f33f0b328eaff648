"""A thousand small fits and predictions in one process, a part of them failing: does its memory grow?

    python benchmarks/robustness.py [--smoke]

Prints the resident memory after every tenth of the fits, and ends with an error where it has grown by more than a limit
since the fits that warm up.
"""

import argparse
import gc
import itertools
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

# Allocators keep what threads and BLAS once asked for. A leak of the 64 x 64 weights of every fit would be 32 MB.
MAX_GROWTH = 16e6
OPTIONS = {"hidden_layer_sizes": (64, 64), "max_iter": 2, "n_jobs": 2}
WAYS = [
    {"early_stopping": "loo"},
    {"early_stopping": "validation", "sparsifier": "topk"},
    {"early_stopping": False, "preconditioner": "none", "alpha": 0.1},
    {"batch_size": 20, "preconditioner": "sketch"},
]


def resident_bytes():
    """Memory of this process that is in RAM, as Linux counts it."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def fit_once(number, estimator_class, way):
    """Fit, predict, and let another fit fail after its parameters and data have been looked at."""
    rng = np.random.default_rng(number)
    X = rng.standard_normal((60, 4)).astype(rng.choice([np.float32, np.float64]))
    y = X[:, 0] + rng.standard_normal(60)
    if estimator_class is SubquadMLPClassifier:
        y = y > 0
    model = estimator_class(**OPTIONS, **way, random_state=number).fit(X, y)
    if not np.isfinite(model.predict(X)).all():
        raise RuntimeError(f"fit {number} predicts numbers that are not finite")
    try:
        model.fit(X, y, sample_weight=-np.ones(60))
    except ValueError:
        return
    raise RuntimeError(f"fit {number} accepts negative weights")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="forty fits, to see that this runs")
    n_fits = 40 if parser.parse_args().smoke else 1000
    warnings.simplefilter("ignore", ConvergenceWarning)
    cases = list(itertools.product((SubquadMLPRegressor, SubquadMLPClassifier), WAYS))
    n_warm = n_fits // 10
    for number in range(n_warm + n_fits):
        if number == n_warm:
            gc.collect()
            start = resident_bytes()
        fit_once(number, *cases[number % len(cases)])
        if number >= n_warm and (number - n_warm + 1) % (n_fits // 10) == 0:
            gc.collect()
            growth = resident_bytes() - start
            print(f"{number - n_warm + 1:5d} fits: {growth / 1e6:+.1f} MB on {start / 1e6:.0f} MB", flush=True)
    if growth > MAX_GROWTH:
        raise SystemExit(f"memory grew by {growth / 1e6:.1f} MB in {n_fits} fits")


if __name__ == "__main__":
    main()
