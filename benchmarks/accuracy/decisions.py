"""Accuracy behind decisions: rows held out, random starts, luck of the draw, the paper's setting.

python benchmarks/accuracy/decisions.py noise mirrored draws      # results/decisions.md
python benchmarks/accuracy/decisions.py differences               # results/differences.md
python benchmarks/accuracy/decisions.py --smoke

Every one takes minutes. Mirrored and draws need the data folder, see common/sets.py.
"""

import math
import pathlib
import sys
import unittest.mock
import warnings

import numpy as np
from scipy.stats import norm
from sklearn.base import is_classifier
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import normalize, scale

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._network import network as network_module

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.evaluation import one_core_each, rmse
from common.program import network_options, run_chosen
from common.sets import SMALL, has_data, load_splits


def noise(arguments):
    """Whether rows have to be held out: R² by cross-validation where targets have little noise, and much."""
    problems = {"diabetes": load_diabetes(return_X_y=True)}
    for deviation in (1,) if arguments.smoke else (0, 1, 5):
        data = make_friedman1(400, n_features=10, noise=deviation, random_state=0)
        problems[f"Friedman's function, 400 rows, noise of deviation {deviation}"] = data
    for name, (X, y) in problems.items():
        for early_stopping in ("auto", False):
            model = SubquadMLPRegressor(early_stopping=early_stopping, random_state=0, **network_options(arguments))
            scores = cross_val_score(model, X, y, cv=3)
            listed = ", ".join(f"{each:.3f}" for each in scores)
            print(f"{name}, early_stopping={early_stopping}: R² {listed}", flush=True)


def mirrored(arguments):
    """Random and mirrored output weights at the start, at the best step."""
    if not has_data(arguments.data, "mirrored"):
        return
    splits = load_splits(arguments.data, "energy")[: 1 if arguments.smoke else 3]
    options = network_options(arguments)
    for threshold, name in ((network_module.MIRROR_INIT_SCALE, "random"), (0.0, "mirrored")):
        with unittest.mock.patch.object(network_module, "MIRROR_INIT_SCALE", threshold):
            errors = [best_rmse(split, 123 + number, options) for number, split in enumerate(splits)]
        print(f"energy, {len(splits)} splits, best iterate, {name} start: RMSE {np.mean(errors):.3f}", flush=True)


def best_rmse(split, seed, options):
    """Lowest test RMSE on the path of 20 steps at the defaults: what a perfect stopping rule would reach."""
    X, y, X_test, y_test = split
    model = SubquadMLPRegressor(tol=0.0, n_iter_no_change=20, batch_size=len(X), random_state=seed, **options)
    model.fit(X, y, X_val=X_test, y_val=y_test)
    return np.sqrt(1 - max(model.validation_scores_)) * y.std()


def draws(arguments):
    """Three draws of the initial weights at the defaults, and the mean of their predictions."""
    if not has_data(arguments.data, "draws"):
        return
    options, smoke = network_options(arguments), arguments.smoke
    outputs = list(outputs_of_draws(arguments.data, "boston", SubquadMLPRegressor(**options), 1 if smoke else 20))
    errors = [[rmse(each, y) for each in (*o, np.mean(o, axis=0))] for y, o in outputs]
    print_draws(f"boston, {len(outputs)} splits, RMSE", errors)
    shares, names, n_splits = [], SMALL[:1] if smoke else SMALL, 1 if smoke else 2
    for name in names:
        for y, o in outputs_of_draws(arguments.data, name, SubquadMLPClassifier(**options), n_splits):
            # Classes are numbered from zero in these sets.
            shares.append([100 * np.mean(each.argmax(axis=1) == y) for each in (*o, np.mean(o, axis=0))])
    print_draws(f"{len(names)} small sets, {n_splits} splits, accuracy in percent", shares)


def outputs_of_draws(data, name, estimator, n_splits):
    """For every split the test targets, and what models of three draws predict: means, or probabilities."""
    splits = load_splits(data, name)[:n_splits]
    tasks = [(estimator, split, seed) for split in splits for seed in range(3)]
    outputs = list(one_core_each(output_of_draw, tasks, n_jobs=-1 if n_splits > 1 else 1))
    return [(split[3], outputs[3 * i : 3 * i + 3]) for i, split in enumerate(splits)]


def output_of_draw(estimator, split, seed):
    X, y, X_test, _ = split
    model = estimator.set_params(random_state=seed).fit(X, y)
    return model.predict_proba(X_test) if is_classifier(model) else model.predict(X_test)


def print_draws(title, scores):
    *single, together = np.mean(scores, axis=0)
    print(f"{title}: draws {', '.join(f'{score:.3f}' for score in single)}, their mean {together:.3f}", flush=True)


# ---- differences from the paper ---------------------------------------------------------------------------

N_ROWS, N_NEW = 400, 1000
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
]


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
        "standardize": False,
        "precision": "double",
        "max_iter": 10,
    }


def differences(arguments):
    """What the differences from the paper's own setting are worth for new rows, one after the other."""
    width, n_draws = (64, 1) if arguments.smoke else (1024, 3)
    print(f"friedman1, {N_ROWS} rows, noise 1, widths ({width}, {width}): R² on {N_NEW} new rows, draws, mean")
    parameters = the_papers(width)
    for name, changes in DIFFERENCES:
        parameters |= changes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = [score_on_new_rows(parameters, draw) for draw in range(n_draws)]
        print(f"{name}: {' '.join(f'{each:.3f}' for each in scores)}, {np.mean(scores):.2f}", flush=True)


def score_on_new_rows(parameters, draw):
    """R², with noise of variance one in the new targets as well."""
    X, y = make_friedman1(N_ROWS + N_NEW, n_features=10, noise=1.0, random_state=draw)
    if not parameters["standardize"]:
        # Of unit norm; the estimator divides features by the root of their number, for features of unit variance.
        X = normalize(scale(X)) * math.sqrt(X.shape[1])
    model = SubquadMLPRegressor(**parameters, random_state=draw).fit(X[:N_ROWS], y[:N_ROWS])
    return model.score(X[N_ROWS:], y[N_ROWS:])


if __name__ == "__main__":
    run_chosen(__doc__, (noise, mirrored, draws, differences))
