"""Accuracy of both estimators at their defaults: real regression and classification sets, standard splits.

    python benchmarks/accuracy.py                        # all tables
    python benchmarks/accuracy.py --peers                # beside scikit-learn's estimators, see sklearn_estimators.py
    python benchmarks/accuracy.py regression --sets yacht energy --splits 4
    python benchmarks/accuracy.py calibration --peers    # probabilities: log loss, Brier score, calibration error
    python benchmarks/accuracy.py digits --param early_stopping=validation
    python benchmarks/accuracy.py --smoke                # seconds; no data folder needed

The regression and classification sets are read from ``../shared/data`` beside the repository (or --data);
where it is missing the tables that need it are left out. Digits ships with scikit-learn. What scikit-learn's estimators
reached is read from results/sklearn_estimators.json, and what is missing there is computed and added.
"""

import argparse
import ast
import pathlib

import numpy as np
from evaluation import COMPARISONS, PeerRecord, accuracy, evaluate
from provenance import print_provenance
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from uci_sets import DATA, LARGER, REGRESSION, SMALL, load_splits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

OURS = {
    "regression": {"ours": (SubquadMLPRegressor, {})},
    "classification": {"ours": (SubquadMLPClassifier, {})},
    "calibration": {
        "ours": (SubquadMLPClassifier, {}),
        "ours, loss='log_loss'": (SubquadMLPClassifier, {"loss": "log_loss"}),
    },
}
# The sets over which scores and ranks are averaged, for classification as in the published means.
GROUPS = {
    "regression": {"all": REGRESSION},
    "classification": {"n <= 5000": (*SMALL, *LARGER), "n <= 1100": SMALL},
    "calibration": {"n <= 1100": COMPARISONS["calibration"].sets},
}
NOTES = {
    "regression": "RMSE in the target's units, mean ± standard error over the splits.",
    "classification": """\
Accuracy in percent, mean over the splits.
Published, most of 179 classifiers tuned per set (Fernández-Delgado et al. 2014):
- the 27 sets with n <= 5000: 88.07 svm_C, 88.03 svmRadialCost, 87.98 parRF (best random forest)
- the 16 of them with n <= 1100: 89.34 svm_C, 89.21 svmRadialCost, 88.75 elm_kernel, 88.31 best random forest""",
    "calibration": "Log loss / Brier score / expected calibration error, means over the splits.",
}
SETS = (*REGRESSION, *COMPARISONS["classification"].sets)
SECONDS = "In parentheses the median seconds of a fit, ours on all cores and scikit-learn's on one."


def digits(options):
    """Test accuracy on one stratified split."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X.astype(np.float32), y, random_state=0, stratify=y)
    model = SubquadMLPClassifier(**{"random_state": 0} | options)
    percent, seconds = evaluate(model, (X, y, X_test, y_test), accuracy)
    print(f"digits: accuracy {percent:.2f} %, {model.best_iter_} steps kept, {seconds:.2f} s")


def regression_cell(rows):
    rmse = rows[:, 0]
    error = rmse.std(ddof=1) / np.sqrt(len(rmse)) if len(rmse) > 1 else np.nan
    return f"{rmse.mean():#.4g} ± {error:#.2g}"


def classification_cell(rows):
    return f"{rows[:, 0].mean():.2f}"


def calibration_cell(rows):
    log_loss, brier, error = rows[:, :3].mean(axis=0)
    return f"{log_loss:.4f} / {brier:.3f} / {error:.3f}"


CELLS = {"regression": regression_cell, "classification": classification_cell, "calibration": calibration_cell}


def print_row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def evaluate_ours(table, splits, options):
    """For each of our methods the rows of all splits, and the mean number of steps kept."""
    for estimator, defaults in OURS[table].values():
        models = [estimator(**{"random_state": 0} | defaults | options) for _ in splits]
        rows = [evaluate(*fit, COMPARISONS[table].scores) for fit in zip(models, splits, strict=True)]
        yield rows, np.mean([model.best_iter_ for model in models])


def print_table(table, data, names, n_splits, options, record):
    """One line for each set as soon as it is evaluated; last the means over the sets, and the mean ranks."""
    methods = [*OURS[table], *(COMPARISONS[table].peers if record else ())]
    print(f"\n## {table.capitalize()}\n\n{NOTES[table]}\n\n{SECONDS}\n")
    print_row("set", *methods, "steps of ours")
    print_row(*["---"] * (len(methods) + 2))
    scores = {}
    for name in names:
        splits = load_splits(data, name)[:n_splits]
        rows, steps = map(list, zip(*evaluate_ours(table, splits, options), strict=True))
        rows += [record.rows(table, name, peer, len(splits)) for peer in methods[len(rows) :]]
        cells = [set_cell(table, np.array(method_rows)) for method_rows in rows]
        print_row(name, *cells, ", ".join(f"{mean:.1f}" for mean in steps))
        scores[name] = [np.mean(method_rows, axis=0)[:-1] for method_rows in rows]
    for group, members in GROUPS[table].items():
        if evaluated := [scores[name] for name in members if name in scores]:
            print_means(table, f"{len(evaluated)} sets, {group}", np.array(evaluated))


def set_cell(table, rows):
    return f"{CELLS[table](rows)} ({np.median(rows[:, -1]):.3g} s)"


def print_means(table, label, scores):
    """Rows of the mean scores (not for RMSE, whose units differ) and mean ranks; `scores` by set, method and score."""
    if table != "regression":
        print_row(f"mean, {label}", *map(CELLS[table], scores.swapaxes(0, 1)), "")
    if scores.shape[1] > 1:
        # Equal scores, but for the order of the splits in their sum, are ties.
        losses = np.round(-scores if table == "classification" else scores, 9)
        ranks = rankdata(losses, axis=1).mean(axis=0)
        print_row(f"mean rank, {label}", *(" / ".join(f"{rank:.2f}" for rank in method) for method in ranks), "")


def parameter(text):
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="digits, regression, classification, calibration (default: all)")
    parser.add_argument("--sets", nargs="+", choices=SETS, metavar="SET", help="only these data sets")
    parser.add_argument("--splits", type=int, help="splits of a set, at most (default: all)")
    parser.add_argument("--param", type=parameter, action="append", default=[], help="name=value for the estimator")
    parser.add_argument("--peers", action="store_true", help="beside scikit-learn's estimators")
    parser.add_argument("--recompute-peers", action="store_true", help="do not read results/sklearn_estimators.json")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--smoke", action="store_true", help="digits at width 64, to see that it runs")
    arguments = parser.parse_args()
    options = dict(arguments.param)
    tables = arguments.tables or ["digits", *COMPARISONS]
    if unknown := set(tables) - {"digits", *COMPARISONS}:
        parser.error(f"no such table: {', '.join(unknown)}")
    if arguments.smoke:
        tables, options = ["digits"], {"hidden_layer_sizes": (64, 64), "max_iter": 3} | options
    print_provenance()
    print(f"parameters {options or 'default'}")
    if "digits" in tables:
        digits(options)
    comparisons = [table for table in tables if table in COMPARISONS]
    if comparisons and not arguments.data.is_dir():
        print(f"Left out: {', '.join(comparisons)} (no data folder at {arguments.data}; see --data).")
        return
    record = PeerRecord(arguments.data) if arguments.peers or arguments.recompute_peers else None
    for table in comparisons:
        names = [name for name in COMPARISONS[table].sets if name in (arguments.sets or SETS)]
        if record:
            record.complete(table, names, arguments.splits, arguments.recompute_peers)
        print_table(table, arguments.data, names, arguments.splits, options, record)


if __name__ == "__main__":
    main()
