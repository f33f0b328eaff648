"""Scores of fits on the splits of the sets.

Those of other estimators are kept in results/other_estimators.json: they do not depend on this package, and
take an hour. Each is fitted on one core; its seconds are those of the processor, so that it does not matter what else
the machine did.
"""

import ast
import sys
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import joblib
import numpy as np
from common.other_estimators import CLASSIFIERS, PROBABILISTIC_CLASSIFIERS, REGRESSORS
from common.results import load, save
from common.sets import APART, LARGER, OTHER_REGRESSION, REGRESSION, SMALL, load_splits
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning

RECORD = "other_estimators.json"


def parameter(text):
    """A parameter of an estimator and its value, of a command line's name=value."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def rmse(predicted, y):
    """In the target's units."""
    return float(np.sqrt(np.mean((predicted - y) ** 2)))


def accuracy(predicted, y):
    """In percent."""
    return 100 * float(np.mean(predicted == y))


def standard_error(values):
    """Of their mean."""
    return values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan


def calibration(model, X, y):
    """Log loss, Brier score (summed over the classes) and expected calibration error of the predicted probabilities."""
    probabilities = model.predict_proba(X).astype(np.float64)
    indicators = y[:, None] == model.classes_
    log_loss = -np.log(np.maximum(probabilities[indicators], 1e-15)).mean()
    brier = ((probabilities - indicators) ** 2).sum(axis=1).mean()
    hits = indicators[np.arange(len(y)), probabilities.argmax(axis=1)]
    return log_loss, brier, expected_calibration_error(probabilities.max(axis=1), hits)


def expected_calibration_error(confidence, hits, n_bins=15):
    """Mean distance, over bins of equal width weighted by their rows, of the confidence from the share of hits."""
    bins = np.minimum((n_bins * confidence).astype(int), n_bins - 1)
    return np.abs(np.bincount(bins, weights=hits - confidence)).sum() / len(hits)


def of_predictions(score):
    # CatBoost's classes are a column.
    return lambda model, X, y: (score(np.ravel(model.predict(X)), y),)


class Comparison(NamedTuple):
    sets: tuple[str, ...]
    peers: dict[str, Callable]
    # Of a model and test rows, a tuple.
    scores: Callable


COMPARISONS = {
    "regression": Comparison((*REGRESSION, *OTHER_REGRESSION), REGRESSORS, of_predictions(rmse)),
    "classification": Comparison((*SMALL, *LARGER, *APART), CLASSIFIERS, of_predictions(accuracy)),
    "calibration": Comparison((*SMALL, "image-segmentation"), PROBABILISTIC_CLASSIFIERS, calibration),
}


def evaluate(model, split, scores, clock=time.perf_counter):
    """Scores of a model that is fitted here and, last, the seconds of the fit, to five digits as they are recorded."""
    X, y, X_test, y_test = split
    start = clock()
    model.fit(X, y)
    seconds = clock() - start
    return [float(f"{value:.5g}") for value in (*scores(model, X_test, y_test), seconds)]


def one_core_each(function, tasks, n_jobs=-1):
    """What a function returns for the arguments of each task, in order, computed in as many processes at a time."""
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(n_jobs, return_as="generator", pre_dispatch="n_jobs")
        yield from parallel(joblib.delayed(function)(*task) for task in tasks)


def evaluate_peer(data, table, name, peer, number):
    X, y, X_test, y_test = load_splits(data, name)[number]
    split = X.astype(np.float64), y, X_test.astype(np.float64), y_test
    with warnings.catch_warnings():
        # Epochs that do not suffice, corners of the grid, and classes of fewer rows than folds.
        for category in (ConvergenceWarning, LinAlgWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        return evaluate(COMPARISONS[table].peers[peer](), split, COMPARISONS[table].scores, clock=time.process_time)


class PeerRecord:
    """Rows of `evaluate` for other estimators, one for each split of a set, read from and kept in a file."""

    def __init__(self, data):
        self.data = data
        self._rows = load(RECORD)

    def rows(self, table, name, peer, n_splits):
        recorded = self._rows[f"{table}/{name}/{peer}"]
        return [recorded[str(number)] for number in range(n_splits)]

    def complete(self, table, names, n_splits, recompute=False):
        """Evaluate what is missing, or all, for up to `n_splits` splits of each set, one fit to a core at a time."""
        tasks = [
            (f"{table}/{name}/{peer}", table, name, peer, number)
            for name in names
            for peer in COMPARISONS[table].peers
            for number in range(len(load_splits(self.data, name)[:n_splits]))
        ]
        if not recompute:
            tasks = [task for task in tasks if str(task[-1]) not in self._rows.get(task[0], {})]
        rows = one_core_each(evaluate_peer, [(self.data, *what) for _, *what in tasks])
        for (key, *_, number), row in zip(tasks, rows, strict=True):
            self._rows.setdefault(key, {})[str(number)] = row
            save(RECORD, dict(sorted(self._rows.items())), depth=1)
            print(key, number, row, file=sys.stderr, flush=True)
