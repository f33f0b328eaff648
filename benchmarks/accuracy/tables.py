"""Log loss on tables with words and gaps: ours on the frame as it is read, beside boosting and our own in a pipeline.

    python benchmarks/accuracy/tables.py                         # five splits of each table
    python benchmarks/accuracy/tables.py --sets bank --splits 1
    python benchmarks/accuracy/tables.py --limits 2 4 8 16 64    # levels up to which a category has a column for each
    python benchmarks/accuracy/tables.py --powers 0 0.25 0.5     # of their number, by which columns are divided
    python benchmarks/accuracy/tables.py --knots                 # at quantiles of all rows, ramps deviate up to 6
    python benchmarks/accuracy/tables.py --smoke                 # seconds; without the data folder a table is made up

The tables are read with pandas from ``../shared/data/tables`` beside the repository (or --data), and nothing is done to
them for ours, CatBoost and HistGradientBoosting but what they ask for: CatBoost is told its categories, which it wants
without gaps, and scikit-learn's takes them by their dtype.
"""

import importlib.util
import pathlib
import sys
import time
import unittest.mock

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklearn_subquad import SubquadMLPClassifier
from sklearn_subquad._fit import columns, encoding, scaling

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.other_estimators import catboost
from common.program import command_line, network_options
from common.provenance import print_provenance
from common.sets import has_data

SETS = ("adult", "bank", "credit_approval")
SPLITS = 5


def made_up(n=200):
    """A table of the same kind."""
    rng = np.random.default_rng(0)
    number, word = rng.standard_normal(n), rng.choice(list("abcdefgh"), n)
    table = pd.DataFrame({"number": number, "word": word, "many": rng.integers(0, 60, n).astype(str)})
    table.loc[rng.random(n) < 0.1, ["number", "word"]] = None
    return table, pd.Series(np.where(number + (word < "d") > 0.3, "yes", "no"))


def words_of(table):
    """Names of the columns that hold no numbers."""
    return table.select_dtypes(exclude="number").columns.to_list()


def as_categories(table):
    return table.astype(dict.fromkeys(words_of(table), "category"))


def with_words_for_gaps(table):
    return table.fillna(dict.fromkeys(words_of(table), "missing")).astype(dict.fromkeys(words_of(table), str))


def encoded(table, options):
    """Ours behind imputers and indicators."""
    words = words_of(table)
    numbers = [name for name in table.columns if name not in words]
    features = make_column_transformer(
        (SimpleImputer(strategy="median", add_indicator=True), numbers),
        (
            make_pipeline(
                SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
            ),
            words,
        ),
    )
    return make_pipeline(features, SubquadMLPClassifier(random_state=0, **options))


def same(table):
    return table


def methods(table, options):
    """Every method by name: what is done to the table, an estimator, and what else its `fit` is told."""
    found = {
        "ours": (same, SubquadMLPClassifier(random_state=0, **options), {}),
        "ours in a pipeline": (same, encoded(table, options), {}),
        "HistGradientBoosting": (as_categories, HistGradientBoostingClassifier(random_state=0), {}),
    }
    if importlib.util.find_spec("catboost"):
        found["CatBoost"] = (with_words_for_gaps, catboost("Classifier"), {"cat_features": words_of(table)})
    return found


def evaluate(prepare, model, told, split):
    """Log loss on the test rows and seconds of the fit."""
    X, X_test, y, y_test = split
    # Before it is cut: scikit-learn's boosting asks for the same categories everywhere.
    prepared = prepare(pd.concat([X, X_test]))
    began = time.perf_counter()
    model.fit(prepared[: len(X)], y, **told)
    seconds = time.perf_counter() - began
    return log_loss(y_test, model.predict_proba(prepared[len(X) :]), labels=model.classes_), seconds


def splits_of(table, y, n_splits):
    return [train_test_split(table, y, test_size=0.25, stratify=y, random_state=seed) for seed in range(n_splits)]


def print_row(name, results):
    loss, seconds = np.mean(results, axis=0)
    print(f"| {name} | {loss:.4f} | {seconds:.2f} |", flush=True)


def trial(table, y, n_splits, options, label, module, name, values):
    """Ours by the values of a constant of a module."""
    default = getattr(module, name)
    for value in values:
        setattr(module, name, value)
        model = SubquadMLPClassifier(random_state=0, **options)
        results = [evaluate(same, model, {}, split) for split in splits_of(table, y, n_splits)]
        print_row(label.format(value) + " (default)" * (value == default), results)
    setattr(module, name, default)


def main():
    parser = command_line(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET", help="only these tables")
    parser.add_argument("--splits", type=int, default=SPLITS, help="splits of a table (default: %(default)s)")
    parser.add_argument("--limits", type=int, nargs="+", help="ours alone, with limits of levels")
    parser.add_argument("--powers", type=float, nargs="+", help="ours alone, with powers of the number of columns")
    parser.add_argument("--knots", action="store_true", help="ours alone, with knots and ramps as they were")
    arguments = parser.parse_args()
    options = network_options(arguments)
    print_provenance()
    if arguments.smoke:
        tables, arguments.splits = {"made up": made_up()}, 1
    elif has_data(arguments.data, "tables"):
        frames = {name: pd.read_csv(arguments.data / "tables" / f"{name}.csv") for name in arguments.sets}
        tables = {name: (frame.iloc[:, :-1], frame.iloc[:, -1]) for name, frame in frames.items()}
    else:
        return
    if not importlib.util.find_spec("catboost"):
        print("Left out: CatBoost (not installed; it comes with the bench extra).")
    for name, (table, y) in tables.items():
        print(f"\n## {name}: {len(table)} rows, {table.shape[1]} columns, {arguments.splits} split(s)\n")
        print("| method | log loss | seconds |\n|---|---|---|")
        ours = (table, y, arguments.splits, options)
        if arguments.limits or arguments.smoke:
            trial(*ours, "up to {} levels", columns, "MAX_INDICATORS", arguments.limits or [2])
        if arguments.powers or arguments.smoke:
            trial(*ours, "divided by their number to the {}", scaling, "_GROUP_EXPONENT", arguments.powers or [0.5])
        if arguments.knots or arguments.smoke:
            with unittest.mock.patch.object(scaling, "_MAX_RAMP_DEVIATION", 6.0):
                trial(
                    *ours,
                    "quantiles of all rows, deviations up to 6",
                    encoding,
                    "_capped",
                    [lambda weights, _: weights],
                )
        if not (arguments.limits or arguments.powers or arguments.knots):
            splits = splits_of(table, y, arguments.splits)
            results = [[evaluate(*method, split) for method in methods(table, options).values()] for split in splits]
            for number, method in enumerate(methods(table, options)):
                print_row(method, [result[number] for result in results])


if __name__ == "__main__":
    main()
