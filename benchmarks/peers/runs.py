"""What the tasks of compare.py run: trainings that are watched from outside, and whole fits.

PyTorch is imported where a method asks for it: it may be missing.
"""

import importlib.util
import itertools
import os
import time

import numpy as np
from common import other_estimators as peers
from common.evaluation import accuracy, rmse
from common.sets import REGRESSION, load_splits
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC, SVR
from suite.problems import friedman

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

# A run that took less than so many seconds is repeated, trainings with other seeds.
SHORT, SEEDS = 5, 3
TEST_ROWS = 4_096
# Gauss-Newton steps after which a test error is looked at, where a method does not stop by itself.
STEPS = (6, 8, 10, 14)


def has_torch():
    return importlib.util.find_spec("torch") is not None


def clock():
    return time.process_time() if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter()


def timed_fit(model, X, y):
    start = clock()
    model.fit(X, y)
    return clock() - start


# Trainings are generators of (seconds so far, function to predict with).


def refitted(make, budgets, X, y):
    """Fits from the start with growing numbers of iterations, each with seconds of its own."""
    for max_iter in budgets:
        model = make(max_iter)
        yield timed_fit(model, X, y), model.predict


def continued(training):
    """One training that goes on; what is done with its predictions meanwhile is not timed."""
    seconds = 0.0
    while True:
        start = clock()
        predict = next(training, None)
        seconds += clock() - start
        if predict is None:
            return
        yield seconds, predict


def epochs(model, X, y):
    while True:
        model.partial_fit(X, y)
        yield model.predict


def ours(width, seed, **parameters):
    return SubquadMLPRegressor(hidden_layer_sizes=(width, width), random_state=seed, **parameters)


def torch_training(X, y, width, seed, limit=None, **parameters):
    from peers.torch_mlp import TorchMLPRegressor

    model = TorchMLPRegressor((width, width), random_state=seed, **parameters)
    return continued(itertools.islice(model.training(X, y), limit))


def sklearn_mlp(width, seed, **parameters):
    return MLPRegressor(hidden_layer_sizes=(width, width), random_state=seed, **parameters)


# How a training starts.
TRAININGS = {
    "ours, defaults": lambda X, y, width, seed: refitted(lambda _: ours(width, seed), [None], X, y),
    "ours, steps chosen": lambda X, y, width, seed: refitted(
        lambda steps: ours(width, seed, early_stopping=False, max_iter=steps), STEPS, X, y
    ),
    "PyTorch, Adam, rate 1e-3": lambda X, y, width, seed: torch_training(X, y, width, seed, learning_rate=1e-3),
    "PyTorch, Adam, rate 1e-4": lambda X, y, width, seed: torch_training(X, y, width, seed, learning_rate=1e-4),
    "PyTorch, Gauss-Newton": lambda X, y, width, seed: torch_training(
        X, y, width, seed, limit=20, solver="gauss-newton"
    ),
    "scikit-learn MLP, Adam": lambda X, y, width, seed: continued(epochs(sklearn_mlp(width, seed), X, y)),
    "scikit-learn MLP, L-BFGS": lambda X, y, width, seed: refitted(
        lambda steps: sklearn_mlp(width, seed, solver="lbfgs", max_iter=steps), (25, 50, 100, 200, 400), X, y
    ),
}


def estimators(classifies):
    """The methods whose whole fits are compared, by name."""
    subquad, table, boosting, mlp = (
        (SubquadMLPClassifier, peers.CLASSIFIERS, HistGradientBoostingClassifier, MLPClassifier)
        if classifies
        else (SubquadMLPRegressor, peers.REGRESSORS, HistGradientBoostingRegressor, MLPRegressor)
    )
    scaled = peers.standardized if classifies else lambda model: peers.standardized_target(peers.standardized(model))
    methods = {
        "ours": lambda: subquad(random_state=0),
        "gradient boosting": table["gradient boosting"],
        "gradient boosting, tuned": lambda: peers.grid_search(
            boosting(random_state=0), learning_rate=[0.05, 0.1], max_leaf_nodes=[15, 31], max_iter=[100, 300]
        ),
        "SVM": lambda: scaled(SVC() if classifies else SVR()),
        "SVM, tuned": table["SVM" if classifies else "SVR"],
        "kernel ridge, tuned": table["kernel ridge"],
        "scikit-learn MLP, Adam": table["MLP"],
        "scikit-learn MLP, L-BFGS": lambda: scaled(mlp(solver="lbfgs", random_state=0)),
    }
    if has_torch():
        from peers.torch_mlp import TorchMLPClassifier, TorchMLPRegressor

        torch_mlp = TorchMLPClassifier if classifies else TorchMLPRegressor
        methods["PyTorch, Adam"] = torch_mlp
        if not classifies:
            methods["PyTorch, Gauss-Newton"] = lambda: torch_mlp(solver="gauss-newton", patience=5)
    return methods


def friedman_split(n_rows):
    """Friedman's first function with noise of unit variance; test targets are the function itself."""
    X, y = friedman(n_rows + TEST_ROWS)
    noisy = y[:n_rows] + np.random.default_rng(1).standard_normal(n_rows)
    return X[:n_rows], noisy, X[n_rows:], y[n_rows:]


def width_problem(task, data):
    """Standardised training rows, test rows, and the unit of errors."""
    n_rows = task["n_rows"]
    split = friedman_split(n_rows) if task["set"] == "friedman" else load_splits(data, task["set"])[0]
    X, y, X_test, y_test = split
    X, y = X[:n_rows], y[:n_rows]
    mean, scale, unit = X.mean(axis=0), X.std(axis=0), y.std()
    X, X_test = (((rows - mean) / scale).astype(np.float32) for rows in (X, X_test))
    return X, ((y - y.mean()) / unit).astype(np.float32), X_test, (y_test - y.mean()) / unit, unit


def run_references(task, data):
    X, y, X_test, y_test, unit = width_problem(task, data)
    model = estimators(classifies=False)[task["method"]]()
    seconds = timed_fit(model, X.astype(float), y.astype(float))
    return [[seconds, unit * rmse(model.predict(X_test.astype(float)), y_test)]]


def run_width(task, data):
    """For every seed the curve of (seconds, test error) up to the target or the cap."""
    X, y, X_test, y_test, unit = width_problem(task, data)
    curves = []
    for seed in range(SEEDS):
        curve = []
        for seconds, predict in TRAININGS[task["method"]](X, y, task["width"], seed):
            curve.append([seconds, unit * rmse(predict(X_test), y_test)])
            if curve[-1][1] <= task["target"] or seconds > task["cap"]:
                break
        curves.append(curve)
        if curve[-1][0] > SHORT:
            break
    return curves


def as_taken(method, X):
    """Single precision where a method computes in it; kernels with small penalties need double precision."""
    return X.astype(np.float64 if method.startswith(("SVM", "kernel")) else np.float32)


def repeat_fit(method, make, split, error):
    X, y, X_test, y_test = split
    X, X_test = as_taken(method, X), as_taken(method, X_test)
    runs = []
    while len(runs) < SEEDS and (not runs or runs[-1][0] < SHORT):
        model = make()
        seconds = timed_fit(model, X, y)
        runs.append([seconds, error(model.predict(X_test), y_test)])
    return runs


def run_sets(task, data):
    classifies = task["set"] not in REGRESSION
    split = load_splits(data, task["set"])[task["split"]]
    error = (lambda predicted, y: 100 - accuracy(predicted, y)) if classifies else rmse
    return repeat_fit(task["method"], estimators(classifies)[task["method"]], split, error)


def run_rows(task, data):
    method = task["method"]
    return repeat_fit(method, estimators(classifies=False)[method], friedman_split(task["n_rows"]), rmse)


RUNNERS = {"references": run_references, "width": run_width, "sets": run_sets, "rows": run_rows}
