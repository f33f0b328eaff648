"""What the choices behind the defaults are worth: each changed alone, on splits of real sets.

    python benchmarks/choices.py measure      # an hour on two cores; adds what results/choices.json does not have
    python benchmarks/choices.py report       # writes results/choices.md
    python benchmarks/choices.py measure --smoke

A choice is a parameter of the estimators, or a constant of a module, which is changed while a fit runs. Every fit has
one core; its seconds are those of the processor.
"""

import argparse
import contextlib
import json
import pathlib
import time
import unittest.mock
import warnings
from typing import NamedTuple

import joblib
import numpy as np
from evaluation import COMPARISONS, evaluate
from provenance import commit, machine
from sklearn.exceptions import ConvergenceWarning
from uci_sets import DATA, SMALL, load_splits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results" / "choices.json"
TABLE = HERE / "results" / "choices.md"
REGRESSION = ("boston", "concrete", "energy", "yacht")
# Both tasks, how many splits of every set are fitted, and the estimator.
TASKS = {"regression": (REGRESSION, 4, SubquadMLPRegressor), "classification": (SMALL, 1, SubquadMLPClassifier)}
DEFAULT = "the defaults"


class Choice(NamedTuple):
    parameters: dict
    # Values by module and name, such as {"_network.HIDDEN_NORM": 1.0}.
    constants: dict
    tasks: tuple = tuple(TASKS)


def parameters(tasks=tuple(TASKS), **values):
    return Choice(values, {}, tasks)


def constants(values, tasks=tuple(TASKS), **others):
    return Choice(others, values, tasks)


REGRESSION_ONLY, CLASSIFICATION_ONLY = ("regression",), ("classification",)
HEAD = """\
# What the choices behind the defaults are worth

`python benchmarks/choices.py measure`, then `report`; [what they mean](../../doc/defaults.md). Every choice is
changed alone, with `random_state=0`.

- Regression: test RMSE in units of the targets' standard deviation, means over {regression_splits} splits, and the
  geometric mean over the four sets of its ratio to that of the defaults.
- Classification: mean test error over {sets} sets of at most 1,100 rows, on {splits} of the four splits of each, and
  the difference from that of the defaults.
- Standard errors take the splits of all sets as independent draws of the difference from the defaults. They leave out
  what another draw of the initial weights would change.
- Relative seconds: geometric means of the ratios to the defaults' processor seconds.
"""
ONE_PART = {"_search._MAX_PARTS": 1, "_search._MAX_PARTS_OF_INDICATORS": 1}
EIGHT_PARTS = {"_search._MAX_PARTS": 8, "_search._MAX_PARTS_OF_INDICATORS": 8}
GROUPS = {
    "Widths and depth (the default: two layers of 1,024)": {
        "(256, 256)": parameters(hidden_layer_sizes=(256, 256)),
        "(2048, 2048)": parameters(hidden_layer_sizes=(2048, 2048)),
        "one layer of 1,024": parameters(hidden_layer_sizes=(1024,)),
        "three layers of 1,024": parameters(hidden_layer_sizes=(1024,) * 3),
        "no skip connections": parameters(skip_connections=False),
    },
    "How loud hidden layers are (the default: a norm of 0.25)": {
        "norm 0.1": constants({"_network.HIDDEN_NORM": 0.1}),
        "norm 0.5": constants({"_network.HIDDEN_NORM": 0.5}),
        "norm 1": constants({"_network.HIDDEN_NORM": 1.0}),
        "three layers, norm 1": constants({"_network.HIDDEN_NORM": 1.0}, hidden_layer_sizes=(1024,) * 3),
    },
    "init_scale": {
        "0.05": parameters(init_scale=0.05),
        "0.3": parameters(init_scale=0.3),
        "1": parameters(init_scale=1.0),
    },
    "Initial weights and the metric of the features (the default: one feature, no metric)": {
        "Gaussian weights": parameters(init="gaussian"),
        "a learned metric": parameters(feature_metric="learned"),
        "Gaussian weights and a learned metric": parameters(init="gaussian", feature_metric="learned"),
        "a learned metric, power 1/2 of the moments instead of 1/4": constants(
            {"_metric._POWER": 0.5}, feature_metric="learned"
        ),
    },
    "Sparsity (the default: shifted ReLU, density m^(-1/5), that is 0.25)": {
        "density 0.5": parameters(density=0.5),
        "density 0.1": parameters(density=0.1),
        "top-k": parameters(sparsifier="topk"),
    },
    "The number of steps (the default: held out until there are 100 rows, in at most five parts, of classes two)": {
        "one held-out part": constants(ONE_PART),
        "up to eight parts": constants(EIGHT_PARTS),
        "leave-one-out": parameters(early_stopping="loo"),
        "none held out": parameters(early_stopping=False),
    },
    "Batches (the default: all of these rows at once for targets, batches of 128 for classes)": {
        "batches of 128": parameters(REGRESSION_ONLY, batch_size=128),
        "batches of 256": parameters(CLASSIFICATION_ONLY, batch_size=256),
        "all rows at once": parameters(CLASSIFICATION_ONLY, batch_size=4096),
        "damping of batches as of all rows": constants(
            {"_damping._STEADY_START_FACTOR": 3.0, "_damping._STEADY_START_FLOOR": 0.3}, CLASSIFICATION_ONLY
        ),
    },
    "Damping and penalty": {
        "damping starts at 0.1": parameters(damping=0.1),
        "damping starts at 1": parameters(damping=1.0),
        "damping falls to 0.3 of itself instead of half": constants({"_damping._GOOD_FACTOR": 0.3}),
        "alpha=0.001": parameters(alpha=1e-3),
    },
    "Features and loss": {
        "constant input 0.2 instead of 0.5": constants({"_scaling.BIAS_FEATURE": 0.2, "_predictor.BIAS_FEATURE": 0.2}),
        "constant input 1": constants({"_scaling.BIAS_FEATURE": 1.0, "_predictor.BIAS_FEATURE": 1.0}),
        "deviations not capped": constants({"_scaling._MAX_DEVIATION": np.inf}),
        'loss="log_loss"': parameters(CLASSIFICATION_ONLY, loss="log_loss"),
    },
}
CHOICES = {DEFAULT: parameters()} | {name: choice for group in GROUPS.values() for name, choice in group.items()}


def fit(task, choice, data, set_name, number, options):
    """Test RMSE in units of the targets' deviation, or errors in percent, and processor seconds of the fit."""
    split = load_splits(data, set_name)[number]
    estimator = TASKS[task][2](**{"random_state": 0} | CHOICES[choice].parameters | options)
    with contextlib.ExitStack() as stack:
        for name, value in CHOICES[choice].constants.items():
            stack.enter_context(unittest.mock.patch(f"sklearn_subquad.{name}", value))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ConvergenceWarning)
        score, seconds = evaluate(estimator, split, COMPARISONS[task].scores, clock=time.process_time)
    error = score / split[1].std() if task == "regression" else 100 - score
    return [float(f"{error:.5g}"), seconds]


def measure(data, options, n_jobs, names, path):
    stored = json.loads(path.read_text()) if path is not None and path.exists() else {"heads": [], "results": {}}
    heads, results = stored["heads"], stored["results"]
    todo = [
        (task, choice, set_name, number)
        for choice in names
        for task in CHOICES[choice].tasks
        for set_name in TASKS[task][0]
        for number in range(TASKS[task][1])
        if str(number) not in results.get(f"{task}/{choice}/{set_name}", {})
    ]
    if not todo:
        return
    head = {"commit": commit(), "machine": machine()}
    if head not in heads:
        heads.append(head)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        rows = joblib.Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="2 * n_jobs")(
            joblib.delayed(fit)(task, choice, data, set_name, number, options)
            for task, choice, set_name, number in todo
        )
        for (task, choice, set_name, number), row in zip(todo, rows, strict=True):
            key = f"{task}/{choice}/{set_name}"
            results.setdefault(key, {})[str(number)] = row
            print(key, number, *row, flush=True)
            if path is not None:
                save(stored, path)


def save(stored, path):
    lines = (f"  {json.dumps(key)}: {json.dumps(rows)}" for key, rows in sorted(stored["results"].items()))
    partial = path.with_suffix(".partial")
    partial.write_text(f'{{"heads": {json.dumps(stored["heads"])},\n"results": {{\n' + ",\n".join(lines) + "\n}}\n")
    partial.replace(path)


def scores(results, task, choice):
    """Errors and seconds by set, splits and these two; None where the choice was not measured."""
    sets, n_splits, _ = TASKS[task]
    rows = [results.get(f"{task}/{choice}/{name}", {}) for name in sets]
    if any(len(of_set) < n_splits for of_set in rows):
        return None
    return np.array([[of_set[str(number)] for number in range(n_splits)] for of_set in rows])


def regression_cells(results, choice):
    """RMSE by set, the geometric mean of the ratios to the defaults with its standard error, and relative seconds."""
    mine, default = scores(results, "regression", choice), scores(results, "regression", DEFAULT)
    if mine is None:
        return [""] * (len(REGRESSION) + 2)
    ratio = np.log(mine[..., 0] / default[..., 0])
    means = [f"{value:.3f}" for value in mine[..., 0].mean(axis=1)]
    return [*means, f"{np.exp(ratio.mean()):.3f} ± {standard_error(ratio):.3f}", relative_seconds(mine, default)]


def classification_cells(results, choice):
    """Mean error, its difference from that of the defaults with the standard error, and relative seconds."""
    mine, default = scores(results, "classification", choice), scores(results, "classification", DEFAULT)
    if mine is None:
        return [""] * 3
    difference = mine[..., 0] - default[..., 0]
    mean = f"{difference.mean():+.2f} ± {standard_error(difference):.2f}"
    return [f"{mine[..., 0].mean():.2f}", mean, relative_seconds(mine, default)]


def standard_error(differences):
    """Of their mean."""
    return differences.std(ddof=1) / np.sqrt(differences.size)


def relative_seconds(mine, default):
    return f"{np.exp(np.log(mine[..., 1] / default[..., 1]).mean()):.2f}"


def report():
    stored = json.loads(RESULTS.read_text())
    results = stored["results"]
    columns = [*REGRESSION, "RMSE, relative", "seconds, relative", "errors, %", "difference", "seconds, relative"]
    head = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines = [HEAD.format(regression_splits=TASKS["regression"][1], sets=len(SMALL), splits=TASKS["classification"][1])]
    lines += [*head, row_of(results, DEFAULT)]
    for group, choices in GROUPS.items():
        title, _, note = group.partition(" (")
        lines += ["", f"## {title}", "", *([f"{note[0].upper()}{note[1:-1]}.", ""] if note else []), *head]
        lines += [row_of(results, name) for name in choices]
    lines.append("")
    for head in stored["heads"]:
        lines += [f"Measured at commit {head['commit']}, one core a fit. Machine: {head['machine']}.", ""]
    TABLE.write_text("\n".join(lines), encoding="utf-8")


def row_of(results, name):
    return f"| {name} | " + " | ".join(regression_cells(results, name) + classification_cells(results, name)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "report"])
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="CHOICE")
    parser.add_argument("--jobs", type=int, default=-1, help="fits at a time, on one core each")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--smoke", action="store_true", help="narrow networks, nothing stored")
    arguments = parser.parse_args()
    if arguments.what == "report":
        report()
    elif not arguments.data.is_dir():
        print(f"Left out: everything (no data folder at {arguments.data}; see --data).")
    elif arguments.smoke:
        options = {"hidden_layer_sizes": (64, 64), "max_iter": 2}
        measure(arguments.data, options, arguments.jobs, [DEFAULT], None)
    else:
        measure(arguments.data, {}, arguments.jobs, arguments.choices, RESULTS)


if __name__ == "__main__":
    main()
