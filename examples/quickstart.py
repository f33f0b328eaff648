"""Fit both estimators on three data sets that ship with scikit-learn, beside scikit-learn's own MLP.

    python examples/quickstart.py

Every fit shows a line per step, or per pass in batches: the training loss, the error that decides when to stop, the
damping, the inner iterations, the rank that was pending at most, the fraction of active neurons, and seconds.
The table at the end compares iterations, seconds and test scores (R² or accuracy) at the same widths.
"""

import time
import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

WIDTHS = (1024, 1024)
# Name, loader, ours, scikit-learn's; single precision for both.
TASKS = [
    ("diabetes", load_diabetes, SubquadMLPRegressor, MLPRegressor),
    ("breast cancer", load_breast_cancer, SubquadMLPClassifier, MLPClassifier),
    ("digits", load_digits, SubquadMLPClassifier, MLPClassifier),
]


def fit_and_score(model, split):
    X_train, X_test, y_train, y_test = split
    start = time.perf_counter()
    model.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    return seconds, model.score(X_test, y_test)


def main():
    rows = []
    for name, load, ours, theirs in TASKS:
        X, y = load(return_X_y=True)
        stratify = y if theirs is MLPClassifier else None
        split = train_test_split(X.astype(np.float32), y, random_state=0, stratify=stratify)

        print(f"\n{name}: {len(X)} rows, {X.shape[1]} features. {ours.__name__}, widths {WIDTHS}")
        model = ours(hidden_layer_sizes=WIDTHS, random_state=0, verbose=1)
        seconds, score = fit_and_score(model, split)
        rows.append((name, ours.__name__, model.n_iter_, seconds, score))

        print(f"{name}: scikit-learn's {theirs.__name__}, same widths, standardised features ...", flush=True)
        peer = make_pipeline(StandardScaler(), theirs(hidden_layer_sizes=WIDTHS, random_state=0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            seconds, score = fit_and_score(peer, split)
        rows.append((name, theirs.__name__, peer[-1].n_iter_, seconds, score))

    print(f"\n{'data':14} {'estimator':22} {'iterations':>10} {'seconds':>8} {'test score':>10}")
    for name, estimator, n_iter, seconds, score in rows:
        print(f"{name:14} {estimator:22} {n_iter:10d} {seconds:8.2f} {score:10.4f}")


if __name__ == "__main__":
    main()
