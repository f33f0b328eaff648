"""What the choices behind the defaults are worth: each changed alone, on splits of real sets.

    python benchmarks/accuracy/choices.py measure      # 20 minutes on two cores; adds to results/choices.json
    python benchmarks/accuracy/choices.py measure --larger --choices three    # a minute or two a choice
    python benchmarks/accuracy/choices.py report       # results/choices.md
    python benchmarks/accuracy/choices.py --smoke

A choice is a parameter of the estimators, or a constant of a module, which is changed while a fit runs. Every fit has
one core; its seconds are those of the processor.
"""

import contextlib
import pathlib
import sys
import time
import unittest.mock
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.evaluation import accuracy, calibration, evaluate, one_core_each, rmse, standard_error
from common.program import command_line, network_options
from common.provenance import commit, machine
from common.results import RESULTS, load, save, table
from common.sets import LARGER, LARGER_REGRESSION, SMALL, has_data, load_splits


class Task(NamedTuple):
    sets: tuple[str, ...]
    n_splits: int
    estimator: type


REGRESSION = ("boston", "concrete", "energy", "yacht")
SMALL_TASKS = {
    "regression": Task(REGRESSION, 4, SubquadMLPRegressor),
    "classification": Task(SMALL, 1, SubquadMLPClassifier),
}
LARGER_TASKS = {
    "larger regression": Task(LARGER_REGRESSION, 2, SubquadMLPRegressor),
    "larger classification": Task(LARGER, 1, SubquadMLPClassifier),
}
TASKS = SMALL_TASKS | LARGER_TASKS
DEFAULT = "the defaults"


class Choice(NamedTuple):
    parameters: dict
    # Values by module and name, such as {"_fit.scaling.BIAS_FEATURE": 1.0}.
    constants: dict
    tasks: tuple = tuple(TASKS)


def parameters(tasks=tuple(TASKS), **values):
    return Choice(values, {}, tasks)


def constants(values, tasks=tuple(TASKS), **others):
    return Choice(others, values, tasks)


REGRESSION_ONLY, CLASSIFICATION_ONLY = (tuple(name for name in TASKS if kind in name) for kind in SMALL_TASKS)
HEAD = """\
# What the choices behind the defaults are worth

`python benchmarks/accuracy/choices.py measure`, then `report`; [what they mean](../../doc/defaults.md). Every choice is
changed alone, with `random_state=0`.

- Regression: test RMSE in units of the targets' standard deviation, means over {regression_splits} splits, and the
  geometric mean over the four sets of its ratio to that of the defaults.
- Classification: mean test error over {sets} sets of at most 1,100 rows, on {splits} of the four splits of each, its
  difference from that of the defaults, and the mean log loss.
- Larger sets: {larger_regression} ({larger_splits} splits each); {larger} of at most 5,000 rows to classify, one split.
- Standard errors take the splits of all sets as independent draws of the difference from the defaults. They leave out
  what another draw of the initial weights would change.
- Relative seconds: geometric means of the ratios to the defaults' processor seconds.
"""
LOUD_LABELS = "loud ones in every fourth network for classes"
CONSTANT_INPUT = ("_fit.scaling.BIAS_FEATURE", "_predictor.BIAS_FEATURE")
DAMPING = "_solver.damping_schedule."
CAPPED, LARGEST = "_fit.encoding._capped", "_fit.scaling._MAX_RAMP_DEVIATION"


def every_row(weights, n_bins):
    """Weights of values as they are."""
    return weights


GROUPS = {
    "Networks (the default: eight of two layers of 512, four from 5,000 rows on, each without one fold)": {
        "one network": parameters(n_folds=1),
        "one network, two layers of 1,024": parameters(n_folds=1, hidden_layer_sizes=(1024, 1024)),
        "three": parameters(n_folds=3),
        "four from 1,000 rows on": constants(
            {"_fit.plan._FOLDS": ((1000, 8), (np.inf, 4))}, ("larger classification",)
        ),
        "three from 5,000 rows on": constants({"_fit.plan._FOLDS": ((5000, 8), (np.inf, 3))}, ("larger regression",)),
        "five": parameters(n_folds=5),
        "sixteen": parameters(n_folds=16),
    },
    "Ramps beside the features (the default: the cube root of the rows, eight at most, none in every second network)": {
        LOUD_LABELS: constants({"_fit.plan._MIN_LABELS_FOR_LOUD": 0}, CLASSIFICATION_ONLY),
        "none": parameters(n_bins=None),
        "in every network, 4": parameters(n_bins=4),
        "in every network, 8": parameters(n_bins=8),
        "in every network, 16": parameters(n_bins=16),
        "the cube root of any number of rows": constants({"_fit.plan._MAX_AUTO_BINS": 1000}),
    },
    "Knots (the default: no value counts for more than a bin, and ramps deviate up to 12)": {
        "quantiles of all rows": constants({CAPPED: every_row}),
        "deviations up to 6": constants({LARGEST: 6.0}),
        "quantiles of all rows, deviations up to 6": constants({CAPPED: every_row, LARGEST: 6.0}),
    },
    "Probabilities (the default: indicators, and their logarithms from floors of 0.01 and 0.1)": {
        "one factor on indicators": constants({"_fit.calibration.FLOORS": ()}, CLASSIFICATION_ONLY),
        "a floor of 0.02": constants({"_fit.calibration.FLOORS": (0.02,)}, CLASSIFICATION_ONLY),
    },
    "Widths and depth (the default: two layers of 512)": {
        "(256, 256)": parameters(hidden_layer_sizes=(256, 256)),
        "(1024, 1024)": parameters(hidden_layer_sizes=(1024, 1024)),
        "one layer of 512": parameters(hidden_layer_sizes=(512,)),
        "three layers of 512": parameters(hidden_layer_sizes=(512,) * 3),
        "no skip connections": parameters(skip_connections=False),
    },
    "How loud hidden layers are (the default: a norm of 0.25)": {
        "norm 0.1": constants({"_network.network.HIDDEN_NORM": 0.1}),
        "norm 0.5": constants({"_network.network.HIDDEN_NORM": 0.5}),
        "norm 1": constants({"_network.network.HIDDEN_NORM": 1.0}),
    },
    "init_scale": {
        "0.05": parameters(init_scale=0.05),
        "0.3": parameters(init_scale=0.3),
        "1": parameters(init_scale=1.0),
    },
    "Initial weights (the default: one feature)": {
        "Gaussian weights": parameters(init="gaussian"),
    },
    "Sparsity (the default: shifted ReLU, density m^(-1/5), that is 0.29)": {
        "density 0.5": parameters(density=0.5),
        "density 0.1": parameters(density=0.1),
        "top-k": parameters(sparsifier="topk"),
    },
    "The number of steps (the default: each network is stopped by its fold)": {
        "leave-one-out, one network": parameters(early_stopping="loo"),
        "none held out, one network": parameters(early_stopping=False),
        "three steps without progress": parameters(n_iter_no_change=3),
    },
    "Batches (the default: targets at once up to 1,000 rows, then 256 at a time; classes an eighth, 128 at least)": {
        "targets, 128 at a time": parameters(REGRESSION_ONLY, batch_size=128),
        "targets, 256 at a time": parameters(REGRESSION_ONLY, batch_size=256),
        "targets, 512 beyond 1,000 rows": constants(
            {"_fit.plan._AUTO_BATCHES_OF_TARGETS": (1000, 512)}, REGRESSION_ONLY
        ),
        "targets, 2,048 beyond 4,096 rows": constants(
            {"_fit.plan._AUTO_BATCHES_OF_TARGETS": (4096, 2048)}, REGRESSION_ONLY
        ),
        "batches of 256": parameters(CLASSIFICATION_ONLY, batch_size=256),
        "all rows at once": parameters(CLASSIFICATION_ONLY, batch_size=4096),
        "damping of batches as of all rows": constants(
            {DAMPING + "_STEADY_START_FACTOR": 3.0, DAMPING + "_STEADY_START_FLOOR": 0.3}
        ),
        "damping of batches 0.1 at least": constants({DAMPING + "_STEADY_START_FLOOR": 0.1}),
    },
    "Damping": {
        "damping starts at 0.1": parameters(damping=0.1),
        "damping starts at 1": parameters(damping=1.0),
        "damping falls to 0.3 of itself instead of half": constants({DAMPING + "_GOOD_FACTOR": 0.3}),
        "damping starts at the optimum of the first step": constants(
            {DAMPING + "_START_FACTOR": 1.0, DAMPING + "_START_FLOOR": 0.01}
        ),
    },
    "Features and loss": {
        "constant input 0.2 instead of 0.5": constants(dict.fromkeys(CONSTANT_INPUT, 0.2)),
        "constant input 1": constants(dict.fromkeys(CONSTANT_INPUT, 1.0)),
        "deviations not capped": constants({"_fit.scaling._MAX_DEVIATION": np.inf}),
        'loss="log_loss"': parameters(CLASSIFICATION_ONLY, loss="log_loss"),
        'precision="double"': parameters(precision="double"),
    },
}
CHOICES = {DEFAULT: parameters()} | {name: choice for group in GROUPS.values() for name, choice in group.items()}


def fit(data, options, task, choice, set_name, number):
    """Test RMSE in units of the targets' deviation, or errors in percent and log loss; processor seconds of the fit."""
    split = load_splits(data, set_name)[number]
    estimator = TASKS[task].estimator(**{"random_state": 0} | CHOICES[choice].parameters | options)
    with contextlib.ExitStack() as stack:
        for name, value in CHOICES[choice].constants.items():
            stack.enter_context(unittest.mock.patch(f"sklearn_subquad.{name}", value))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ConvergenceWarning)
        *scores, seconds = evaluate(estimator, split, errors_of, clock=time.process_time)
    if task in REGRESSION_ONLY:
        scores[0] /= split[1].std()
    return [*(float(f"{score:.5g}") for score in scores), seconds]


def errors_of(model, X, y):
    """RMSE; or errors in percent, and the log loss."""
    if isinstance(model, SubquadMLPRegressor):
        return (rmse(model.predict(X), y),)
    return 100 - accuracy(model.predict(X), y), calibration(model, X, y)[0]


def smoke(data, options):
    """Every choice on one split of one set, so that no name of a parameter or constant is stale."""
    for task, set_name in (("regression", "yacht"), ("classification", "wine")):
        for choice in (name for name in CHOICES if task in CHOICES[name].tasks):
            print(f"{task}/{choice}/{set_name}", *fit(data, options, task, choice, set_name, 0), flush=True)


def measure(data, n_jobs, tasks, names):
    stored = {"heads": [], "results": {}} | load("choices.json")
    heads, results = stored["heads"], stored["results"]
    todo = [
        (task, choice, set_name, number)
        for choice in names
        for task in CHOICES[choice].tasks
        if task in tasks
        for set_name in TASKS[task].sets
        for number in range(TASKS[task].n_splits)
        if str(number) not in results.get(f"{task}/{choice}/{set_name}", {})
    ]
    if not todo:
        return
    head = {"commit": commit(), "machine": machine()}
    if head not in heads:
        heads.append(head)
    rows = one_core_each(fit, [(data, {}, *what) for what in todo], n_jobs)
    for (task, choice, set_name, number), row in zip(todo, rows, strict=True):
        key = f"{task}/{choice}/{set_name}"
        results.setdefault(key, {})[str(number)] = row
        print(key, number, *row, flush=True)
        save("choices.json", stored | {"results": dict(sorted(results.items()))}, depth=2)


def scores(results, task, choice):
    """Errors, log loss of classes and seconds by set and split; None where the choice was not measured."""
    sets, n_splits, _ = TASKS[task]
    rows = [results.get(f"{task}/{choice}/{name}", {}) for name in sets]
    if any(len(of_set) < n_splits for of_set in rows):
        return None
    return np.array([[of_set[str(number)] for number in range(n_splits)] for of_set in rows])


def regression_cells(results, task, choice):
    """RMSE of every set, the geometric mean of the ratios to the defaults with its standard error, relative seconds."""
    mine, default = scores(results, task, choice), scores(results, task, DEFAULT)
    if mine is None:
        return [""] * (len(TASKS[task].sets) + 2)
    ratio = np.log(mine[..., 0] / default[..., 0])
    means = [f"{value:.3f}" for value in mine[..., 0].mean(axis=1)]
    return [*means, f"{np.exp(ratio.mean()):.3f} ± {standard_error(ratio):.3f}", relative_seconds(mine, default)]


def classification_cells(results, task, choice):
    """Mean error, its difference from that of the defaults with the standard error, log loss, relative seconds."""
    mine, default = scores(results, task, choice), scores(results, task, DEFAULT)
    if mine is None:
        return [""] * 4
    difference = mine[..., 0] - default[..., 0]
    mean = f"{difference.mean():+.2f} ± {standard_error(difference):.2f}"
    return [
        f"{mine[..., 0].mean():.2f}",
        mean,
        f"{mine[..., 1].mean():.3f}",
        relative_seconds(mine, default),
    ]


def relative_seconds(mine, default):
    return f"{np.exp(np.log(mine[..., -1] / default[..., -1]).mean()):.2f}"


def page(stored):
    """Tables of the results: for each group of choices one of small sets and, where they were fitted, one of larger."""
    lines = [
        HEAD.format(
            regression_splits=TASKS["regression"].n_splits,
            sets=len(SMALL),
            splits=TASKS["classification"].n_splits,
            larger_regression=", ".join(LARGER_REGRESSION),
            larger_splits=TASKS["larger regression"].n_splits,
            larger=len(LARGER),
        )
    ]
    results = stored["results"]
    for group, names in ({"": [DEFAULT]} | GROUPS).items():
        title, _, note = group.partition(" (")
        if title and any(scores(results, task, name) is not None for task in TASKS for name in names):
            lines += [f"## {title}", "", *([f"{note[0].upper()}{note[1:-1]}.", ""] if note else [])]
        for tasks in (SMALL_TASKS, LARGER_TASKS):
            regression, classification = tasks
            columns = [*TASKS[regression].sets, "RMSE, relative", "seconds, relative"]
            columns += ["errors, %", "difference", "log loss", "seconds, relative"]
            rows = [
                [
                    name,
                    *regression_cells(results, regression, name),
                    *classification_cells(results, classification, name),
                ]
                for name in names
                if any(scores(results, task, name) is not None for task in tasks)
            ]
            if rows:
                lines += [*table(["" if tasks is SMALL_TASKS else "larger sets", *columns], rows), ""]
    for head in stored["heads"]:
        lines += [f"Measured at commit {head['commit']}, one core a fit. Machine: {head['machine']}.", ""]
    return "\n".join(lines)


def main():
    parser = command_line(__doc__)
    parser.add_argument("what", nargs="?", choices=["measure", "report"], default="measure")
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES), metavar="CHOICE")
    parser.add_argument("--larger", action="store_true", help="larger sets instead of small ones")
    parser.add_argument("--jobs", type=int, default=-1, help="fits at a time, on one core each")
    arguments = parser.parse_args()
    if arguments.smoke or arguments.what == "report":
        text = page(load("choices.json"))
    if arguments.what == "report":
        (RESULTS / "choices.md").write_text(text, encoding="utf-8")
    elif has_data(arguments.data, "choices"):
        if arguments.smoke:
            smoke(arguments.data, network_options(arguments))
        else:
            tasks = LARGER_TASKS if arguments.larger else SMALL_TASKS
            measure(arguments.data, arguments.jobs, tasks, arguments.choices)


if __name__ == "__main__":
    main()
