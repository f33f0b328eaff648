"""Seconds and scores of default fits, beside another installation of the package and beside CatBoost's defaults.

python benchmarks/speed/fits.py                                         # this package alone, then CatBoost
python benchmarks/speed/fits.py --against old/bin/python --runs 5       # an interpreter that has another version
python benchmarks/speed/fits.py --sets concrete car --set n_jobs=1 early_stopping=False --dtype float32
python benchmarks/speed/fits.py --smoke

Every competitor is a process of its own that lives as long as the program; they take turns, set by set and run by
run. Quoted are medians of the runs: seconds, and quotients of two runs that followed each other. The first fit of a
process, which is not counted, loads what loads late.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import time
import warnings

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.sets import REGRESSION, load_splits

HERE = pathlib.Path(__file__).resolve()

SETS = (
    "yacht", "energy", "concrete", "boston", "pima", "car", "digits", "statlog-image", "kin8nm", "power-plant", "magic"
)  # fmt: skip


def load_set(data, name):
    """The first split: X, y, X_test, y_test."""
    if name == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        X, y = load_digits(return_X_y=True)
        X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y)
        return X, y, X_test, y_test
    return load_splits(data, name)[0]


def make_model(kind, is_regression, options):
    if kind == "catboost":
        from catboost import CatBoostClassifier, CatBoostRegressor

        model = CatBoostRegressor if is_regression else CatBoostClassifier
        return model(verbose=False, thread_count=2, random_seed=0, allow_writing_files=False)
    from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

    model = (SubquadMLPRegressor if is_regression else SubquadMLPClassifier)(random_state=0)
    # An older version may lack some.
    known = model.get_params()
    return model.set_params(**{name: value for name, value in options.items() if name in known})


def serve(kind, data, options, dtype):
    """Fit what the lines of the standard input name; answer with seconds and RMSE or percent."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        name = line.strip()
        X, y, X_test, y_test = load_set(data, name)
        X, X_test = X.astype(dtype), X_test.astype(dtype)
        is_regression = name in REGRESSION
        model = make_model(kind, is_regression, options)
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
        predicted = np.ravel(model.predict(X_test))
        # CatBoost gives labels back as it likes.
        score = (
            np.sqrt(np.mean((predicted - y_test) ** 2))
            if is_regression
            else 100 * np.mean(predicted.astype(str) == y_test.astype(str))
        )
        print(json.dumps([seconds, float(score)]), flush=True)


class Competitor:
    """A process that fits on demand."""

    def __init__(self, python, kind, arguments):
        command = [python, HERE, "--serve", kind, "--data", arguments.data.resolve(), "--dtype", arguments.dtype]
        command += ["--set", *(f"{name}={value}" for name, value in arguments.set)]
        # A folder without a package of the same name beside it.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": HERE.parent}
        self._process = subprocess.Popen([str(part) for part in command], **pipes)

    def fit(self, name):
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"A competitor ended at {name}; what it printed stands above.")
        return json.loads(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def compare(competitors, names, n_runs, warm_set):
    """Runs of all competitors in turn: an array (sets x runs x competitors x 2)."""
    for competitor in competitors.values():
        competitor.fit(warm_set)
    header = " | ".join(f"{kind}: seconds, score" for kind in competitors)
    print(f"set | {header} | seconds over those of each other", flush=True)
    for name in names:
        runs = np.array([[each.fit(name) for each in competitors.values()] for _ in range(n_runs)])
        cells = [f"{seconds:.2f}, {score:.4g}" for seconds, score in np.median(runs, axis=0)]
        ratios = np.median(runs[:, :1, 0] / runs[:, 1:, 0], axis=0)
        print(" | ".join([name, *cells, " ".join(f"{ratio:.2f}" for ratio in ratios)]), flush=True)
        yield ratios


def main():
    from common.evaluation import parameter
    from common.program import command_line
    from common.provenance import print_provenance

    parser = command_line(__doc__)
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="SET")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--against", metavar="PYTHON", help="an interpreter that has another version of the package")
    parser.add_argument("--set", nargs="*", type=parameter, default=[], metavar="NAME=VALUE", help="parameters of ours")
    parser.add_argument("--dtype", default="float64", help="of the features")
    parser.add_argument("--serve", choices=("ours", "catboost"), help="be a competitor (the program's own use)")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.data, dict(arguments.set), arguments.dtype)
        return
    print_provenance()
    names, n_runs = arguments.sets, arguments.runs
    if arguments.smoke:
        names, n_runs = ["digits"], 1
        arguments.set += [("hidden_layer_sizes", (64, 64)), ("max_iter", 2)]
    elif not arguments.data.is_dir():
        print(f"Left out: all sets but digits (no data folder at {arguments.data}; see --data).")
        names = [name for name in names if name == "digits"]
    competitors = {"ours": Competitor(sys.executable, "ours", arguments)}
    if arguments.against:
        competitors["other"] = Competitor(arguments.against, "ours", arguments)
    elif importlib.util.find_spec("catboost") and not arguments.smoke:
        competitors["catboost"] = Competitor(sys.executable, "catboost", arguments)
    elif not arguments.smoke:
        print("Left out: CatBoost (not installed; it comes with the bench extra).")
    ratios = np.array(list(compare(competitors, names, n_runs, names[0])))
    for kind, of_sets in zip(list(competitors)[1:], ratios.T, strict=True):
        print(f"geometric mean over the sets, ours over {kind}: {np.exp(np.log(of_sets).mean()):.2f}")
    for competitor in competitors.values():
        competitor.close()


if __name__ == "__main__":
    main()
