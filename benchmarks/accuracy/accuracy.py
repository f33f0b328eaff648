"""Accuracy of both estimators at their defaults: real regression and classification sets, standard splits.

    python benchmarks/accuracy/accuracy.py              # all tables, see --help
    python benchmarks/accuracy/accuracy.py --peers      # beside other estimators
    python benchmarks/accuracy/accuracy.py regression --sets yacht energy --splits 4
    python benchmarks/accuracy/accuracy.py calibration --peers    # of probabilities
    python benchmarks/accuracy/accuracy.py uncertainty            # likelihood and coverage of the regressor
    python benchmarks/accuracy/accuracy.py digits --param early_stopping=validation
    python benchmarks/accuracy/accuracy.py --smoke      # seconds; no data folder needed

The regression and classification sets are read from ``../shared/data`` beside the repository (or --data);
where it is missing the tables that need it are left out. Digits ships with scikit-learn. What other estimators
reached is read from results/other_estimators.json, and what is missing there is computed and added.
"""

import pathlib
import pickle
import sys
import time

import numpy as np
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.evaluation import COMPARISONS, PeerRecord, evaluate, parameter, rmse, standard_error
from common.program import command_line, network_options
from common.provenance import print_provenance
from common.sets import LARGER, REGRESSION, SMALL, has_data, load_splits

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
    "regression": {"20 splits": REGRESSION, "all": COMPARISONS["regression"].sets},
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
TABLES = ("digits", *COMPARISONS, "uncertainty")
SETS = (*COMPARISONS["regression"].sets, *COMPARISONS["classification"].sets)
SECONDS = "In parentheses the median seconds of a fit, ours on all cores and others on one."


def digits(options):
    """Test accuracy on one stratified split."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X.astype(np.float32), y, random_state=0, stratify=y)
    model = SubquadMLPClassifier(**{"random_state": 0} | options)
    percent, seconds = evaluate(model, (X, y, X_test, y_test), COMPARISONS["classification"].scores)
    print(f"digits: accuracy {percent:.2f} %, {model.best_iter_} steps kept, {seconds:.2f} s")


def regression_cell(rows):
    return f"{rows[:, 0].mean():#.4g} ± {standard_error(rows[:, 0]):#.2g}"


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


# ---- how well the regressor knows what it does not know ---------------------------------------------------

# Splits at most, and negative log-likelihoods of PBP, MC dropout and deep ensembles, means over all standard splits
# (Lakshminarayanan, Pritzel, Blundell 2017, table 1).
PUBLISHED = {
    "boston": (20, 2.57, 2.46, 2.41),
    "concrete": (20, 3.16, 3.04, 3.06),
    "energy": (20, 2.04, 1.99, 1.38),
    "yacht": (20, 1.63, 1.55, 1.18),
    "kin8nm": (3, -0.90, -0.95, -1.20),
    "power-plant": (3, 2.84, 2.80, 2.79),
}
# Half the width of the central 90 % interval, in standard deviations.
NINETY = 1.6448536269514722


def uncertainty_of(X, y, X_test, y_test, options):
    """Mean negative log-likelihood in nats, coverage, RMSE, seconds of the covariance and of the fit, bytes pickled."""
    start = time.perf_counter()
    model = SubquadMLPRegressor(**{"random_state": 0} | options).fit(X, y)
    seconds = time.perf_counter() - start
    mean, std = (part.astype(np.float64) for part in model.predict(X_test, return_std=True))
    z = (y_test - mean) / std
    nll = np.mean(0.5 * np.log(2 * np.pi * std**2) + 0.5 * z**2)
    covered = 100 * np.mean(np.abs(z) <= NINETY)
    covariance = model.phase_times_["covariance"]
    n_bytes = sum(len(pickle.dumps(network._state_["laplace"])) for network in model.estimators_)
    return nll, covered, rmse(mean, y_test), covariance, seconds, n_bytes


def print_uncertainty(name, rows, published):
    """One line of the table: means over the splits, the standard error of the first, medians of seconds."""
    nll, covered, errors, covariance, seconds, n_bytes = np.array(rows).T
    print(
        f"{name:12} {nll.mean():7.3f} ± {standard_error(nll):5.3f} {covered.mean():8.1f} % {errors.mean():8.4g}"
        + "".join(f"{value:9.2f}" for value in published)
        + f"   {np.median(covariance):7.3f} {np.median(seconds):7.2f} {n_bytes.max() / 2**20:6.2f} {len(rows):5d}",
        flush=True,
    )


def uncertainty(data, names, n_splits, options):
    """Negative log-likelihood and coverage."""
    print("published: PBP, MC dropout (MC), deep ensembles (DE)")
    print(
        f"{'set':12} {'NLL':>7}   {'':5} {'in 90 %':>10} {'RMSE':>8}{'PBP':>9}{'MC':>9}{'DE':>9}"
        f"   {'cov. s':>7} {'fit s':>7} {'MiB':>6} {'splits':>5}"
    )
    for name, (at_most, *published) in PUBLISHED.items():
        if name in names:
            splits = load_splits(data, name)[:at_most][:n_splits]
            print_uncertainty(name, [uncertainty_of(*split, options) for split in splits], published)


def main():
    parser = command_line(__doc__)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, "all"], default="all")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET", help="only these data sets")
    parser.add_argument("--splits", type=int, help="splits of a set, at most (default: all)")
    parser.add_argument("--param", type=parameter, action="append", default=[], help="name=value for the estimator")
    parser.add_argument("--peers", action="store_true", help="beside other estimators")
    parser.add_argument("--recompute-peers", action="store_true", help="do not read results/other_estimators.json")
    arguments = parser.parse_args()
    options = network_options(arguments) | dict(arguments.param)
    tables = TABLES if "all" in arguments.tables else arguments.tables
    sets, n_splits = (("yacht", "wine"), 1) if arguments.smoke else (arguments.sets, arguments.splits)
    print_provenance()
    print(f"parameters {options or 'default'}")
    if "digits" in tables:
        digits(options)
    comparisons = [table for table in tables if table in COMPARISONS]
    on_sets = [table for table in tables if table != "digits"]
    if on_sets and not has_data(arguments.data, ", ".join(on_sets)):
        return
    record = PeerRecord(arguments.data) if arguments.peers or arguments.recompute_peers else None
    for table in comparisons:
        names = [name for name in COMPARISONS[table].sets if name in sets]
        if record:
            record.complete(table, names, n_splits, arguments.recompute_peers)
        print_table(table, arguments.data, names, n_splits, options, record)
    if "uncertainty" in tables:
        uncertainty(arguments.data, sets, n_splits, options)


if __name__ == "__main__":
    main()
