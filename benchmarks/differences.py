"""What the differences from the paper's own setting are worth for new rows, one after the other.

python benchmarks/differences.py
python benchmarks/differences.py --smoke
"""

import argparse
import math
import warnings

import numpy as np
from provenance import print_provenance
from scipy.stats import norm
from sklearn.datasets import make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize, scale

from sklearn_subquad import SubquadMLPRegressor

N_ROWS, N_NEW = 400, 1000


def the_papers(width):
    """Parameters of the setting of arXiv 2112.07628, for rows of unit norm."""
    return {
        "hidden_layer_sizes": (width, width),
        "density": norm.sf(math.sqrt(0.4 * math.log(width))),
        "skip_connections": False,
        "init": "gaussian",
        "init_scale": 1.0,
        "damping": 1e-6,
        "early_stopping": False,
        "feature_metric": None,
        "standardize": False,
        "max_iter": 10,
    }


# Each in addition to those before.
DIFFERENCES = [
    ("the paper's setting", {}),
    (
        'damping="auto", early_stopping="validation", max_iter=20',
        {"damping": "auto", "early_stopping": "validation", "max_iter": 20},
    ),
    ("standardize=True instead of unit norm", {"standardize": True}),
    ("skip_connections=True", {"skip_connections": True}),
    ('density="auto"', {"density": "auto"}),
    ('init_scale="auto"', {"init_scale": "auto"}),
    ('init="axis_aligned": the defaults', {"init": "axis_aligned"}),
    ('feature_metric="learned"', {"feature_metric": "learned"}),
]


def score(parameters, draw):
    """R² on new rows, whose targets have noise of variance one as well."""
    X, y = make_friedman1(N_ROWS + N_NEW, n_features=10, noise=1.0, random_state=draw)
    if not parameters["standardize"]:
        # Of unit norm; the estimator divides features by the root of their number, for features of unit variance.
        X = normalize(scale(X)) * math.sqrt(X.shape[1])
    model = SubquadMLPRegressor(**parameters, random_state=draw).fit(X[:N_ROWS], y[:N_ROWS])
    return model.score(X[N_ROWS:], y[N_ROWS:])


def main(smoke):
    warnings.simplefilter("ignore", ConvergenceWarning)
    width, draws = (256, range(1)) if smoke else (1024, range(3))
    print_provenance()
    print(f"friedman1, {N_ROWS} rows, noise 1, widths ({width}, {width}): R² on {N_NEW} new rows, draws, mean")
    parameters = the_papers(width)
    for name, changes in DIFFERENCES:
        parameters |= changes
        scores = [score(parameters, draw) for draw in draws]
        print(f"{name}: {' '.join(f'{each:.3f}' for each in scores)}, {np.mean(scores):.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one narrow network each, to see that everything runs")
    main(parser.parse_args().smoke)
