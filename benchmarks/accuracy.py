"""Accuracy of both estimators at their defaults: real regression and classification sets, standard splits.

    python benchmarks/accuracy.py                        # all tables
    python benchmarks/accuracy.py regression --sets yacht energy --splits 4
    python benchmarks/accuracy.py log-loss               # probabilities, against scikit-learn's classifiers
    python benchmarks/accuracy.py digits --param early_stopping=validation
    python benchmarks/accuracy.py --smoke                # seconds; no data folder needed

The regression and classification sets are read from ``../shared/data`` beside the repository (or --data);
where it is missing the tables that need it are left out. Digits ships with scikit-learn.
"""

import argparse
import ast
import pathlib
import platform
import time
import warnings

import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from uci_sets import DATA, REGRESSION, SMALL

import sklearn_subquad
from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._kernels import simd_level

# Sets of at most 1100 rows; image-segmentation comes with a test file, of which only the rows to fit count here.
LOG_LOSS = (*SMALL, "image-segmentation")


def timed_fit(estimator, X, y):
    start = time.perf_counter()
    estimator.fit(X, y)
    return time.perf_counter() - start


def digits(options):
    """Test accuracy on one stratified split."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X.astype(np.float32), y, random_state=0, stratify=y)
    model = SubquadMLPClassifier(random_state=0, **options)
    seconds = timed_fit(model, X, y)
    print(f"{'digits':28} accuracy {model.score(X_test, y_test):.4f}   {model.n_iter_:5.1f} steps {seconds:7.2f} s")


def regression(data, names, n_splits, options):
    """RMSE in the target's units, mean and standard error over the splits."""
    for name in names:
        z = np.load(data / "regression" / f"{name}.npz")
        X, y = z["X"], z["y"]
        rows = []
        for train, test in list(zip(z["train_idx"], z["test_idx"], strict=True))[:n_splits]:
            model = SubquadMLPRegressor(random_state=0, **options)
            seconds = timed_fit(model, X[train], y[train])
            rows.append((np.sqrt(np.mean((model.predict(X[test]) - y[test]) ** 2)), model.n_iter_, seconds))
        rmse, steps, seconds = np.array(rows).T
        error = rmse.std(ddof=1) / np.sqrt(len(rmse)) if len(rmse) > 1 else np.nan
        print(
            f"{name:28} RMSE {rmse.mean():8.3f} ± {error:.3f}   {steps.mean():5.1f} steps "
            f"{np.median(seconds):7.2f} s   ({len(rmse)} splits)",
            flush=True,
        )


def classification(data, names, options):
    """Accuracy in percent, mean over the four evaluation splits; last the mean over the sets."""
    means = []
    for name in names:
        z = np.load(data / "classification" / f"{name}.npz")
        X, y = z["X"], z["y"]
        rows = []
        for test in z["test_mask"]:
            model = SubquadMLPClassifier(random_state=0, **options)
            seconds = timed_fit(model, X[~test], y[~test])
            rows.append((100 * model.score(X[test], y[test]), model.best_iter_, seconds))
        accuracy, steps, seconds = np.array(rows).T
        means.append(accuracy.mean())
        print(
            f"{name:28} accuracy {accuracy.mean():6.2f} %   {steps.mean():5.1f} steps kept {np.median(seconds):7.2f} s",
            flush=True,
        )
    print(f"{'mean over the sets':28} accuracy {np.mean(means):6.2f} %")


def log_losses(data, names, n_splits, options):
    """Test log loss of fitted probabilities, ours and scikit-learn's classifiers at their defaults; last the means."""
    peers = {
        "ours": lambda: SubquadMLPClassifier(**{"loss": "log_loss", "random_state": 0} | options),
        "logistic": LogisticRegression,
        "forest": lambda: RandomForestClassifier(300, random_state=0),
        "MLP": lambda: MLPClassifier(random_state=0),
    }
    print(f"{'test log loss':28}" + "".join(f"{name:>10}" for name in peers) + f"{'seconds':>10}")
    means = []
    for name in names:
        z = np.load(data / "classification" / f"{name}.npz")
        X, y = z["X"], z["y"]
        rows, seconds = [], []
        for test in z["test_mask"][:n_splits]:
            row = []
            for peer, make in peers.items():
                model = make()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    taken = timed_fit(model, X[~test], y[~test])
                row.append(log_loss(y[test], model.predict_proba(X[test]), labels=model.classes_))
                if peer == "ours":
                    seconds.append(taken)
            rows.append(row)
        means.append(np.mean(rows, axis=0))
        print(f"{name:28}" + "".join(f"{loss:10.4f}" for loss in means[-1]) + f"{np.median(seconds):10.2f}", flush=True)
    print(f"{'mean over the sets':28}" + "".join(f"{loss:10.4f}" for loss in np.mean(means, axis=0)))


def parameter(text):
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="digits, regression, classification, log-loss (default: all)")
    parser.add_argument("--sets", nargs="+", help="only these data sets")
    parser.add_argument("--splits", type=int, default=20, help="splits of a set, at most (default: all)")
    parser.add_argument("--param", type=parameter, action="append", default=[], help="name=value for the estimator")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--smoke", action="store_true", help="digits at width 64, to see that it runs")
    arguments = parser.parse_args()
    options = dict(arguments.param)
    tables = arguments.tables or ["digits", "regression", "classification", "log-loss"]
    if arguments.smoke:
        tables, options = ["digits"], {"hidden_layer_sizes": (64, 64), "max_iter": 3} | options
    print(
        f"sklearn_subquad {sklearn_subquad.__version__}, kernels {simd_level()}, scikit-learn {sklearn.__version__}, "
        f"numpy {np.__version__}, Python {platform.python_version()}; parameters {options or 'default'}"
    )
    if "digits" in tables:
        digits(options)
    if not arguments.data.is_dir() and {"regression", "classification", "log-loss"} & set(tables):
        print(f"Left out: all tables but digits (no data folder at {arguments.data}; see --data).")
        return
    if "regression" in tables:
        regression(arguments.data, arguments.sets or REGRESSION, arguments.splits, options)
    if "classification" in tables:
        classification(arguments.data, arguments.sets or SMALL, options)
    if "log-loss" in tables:
        log_losses(arguments.data, arguments.sets or LOG_LOSS, arguments.splits, options)


if __name__ == "__main__":
    main()
