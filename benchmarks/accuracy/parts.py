"""Fits from parts of the rows: what to average, a cluster of two processes, workers that are killed.

python benchmarks/accuracy/parts.py turns                                    # results/parts.md
python benchmarks/accuracy/parts.py average --sets kin8nm magic --parts 2 8
python benchmarks/accuracy/parts.py average --sets friedman-1000000 --parts 32 --methods found turns
python benchmarks/accuracy/parts.py cluster --rows 1000000 --workers 2
python benchmarks/accuracy/parts.py faults --runs 10
python benchmarks/accuracy/parts.py adult
python benchmarks/accuracy/parts.py --smoke

With the options every step takes less than ten minutes on two cores. Sets but Friedman's need the data folder, see
common/sets.py; cluster and faults need dask[distributed].
"""

import contextlib
import copy
import importlib.util
import os
import pathlib
import signal
import sys
import tempfile
import time
import warnings

import joblib
import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.evaluation import accuracy, rmse
from common.files import friedman, load_part, write_parts
from common.program import command_line, network_options
from common.provenance import print_provenance
from common.results import table
from common.sets import REGRESSION, has_data, load_splits

# ---- a part at a time, by partial_fit -----------------------------------------------------------------------

SETS_IN_TURNS = {
    "kin8nm": SubquadMLPRegressor,
    "energy": SubquadMLPRegressor,
    "concrete": SubquadMLPRegressor,
    "optical": SubquadMLPClassifier,
    "statlog-image": SubquadMLPClassifier,
    "semeion": SubquadMLPClassifier,
}
PASSES, PARTS_IN_TURNS = 6, (5, 20)
# Dask's workers give memory back as soon as 64 KiB are free, and get it again page by page: fits take longer by half.
ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": 2**27, "MALLOC_MMAP_THRESHOLD_": 2**27}


def turns(arguments):
    """`partial_fit` to 5 or 20 parts of the rows, shown six times and shuffled anew every time, beside `fit`."""
    if not has_data(arguments.data, "turns"):
        return
    rows = []
    for name in ("energy",) if arguments.smoke else SETS_IN_TURNS:
        X, y, X_test, y_test = load_splits(arguments.data, name)[0]
        models = [SETS_IN_TURNS[name](random_state=0, **network_options(arguments)) for _ in (1, *PARTS_IN_TURNS)]
        models[0].fit(X, y)
        for model, n_parts in zip(models[1:], PARTS_IN_TURNS, strict=True):
            rng = np.random.default_rng(0)
            for _ in range(PASSES):
                for part in np.array_split(rng.permutation(len(X)), n_parts):
                    pass_over(model, (X[part], y[part]), np.unique(y))
        title, score = score_of(is_classifier(models[0]))
        rows.append([f"{name} ({title})", *(f"{score(model.predict(X_test), y_test):.4g}" for model in models)])
    print("", *table(["", "`fit`", *(f"{n} parts" for n in PARTS_IN_TURNS)], rows), sep="\n", flush=True)


def pass_over(model, part, classes):
    return model.partial_fit(*part, **({"classes": classes} if is_classifier(model) else {}))


def score_of(classifies):
    return ("accuracy, %", accuracy) if classifies else ("RMSE", rmse)


# ---- what to average ----------------------------------------------------------------------------------------

SETS = ("kin8nm", "power-plant", "magic", "adult", "friedman-100000", "friedman-1000000")
N_PARTS = (2, 8, 32, 128)
# Passes over all parts of what goes through one network in turn, and rounds of weights that are averaged.
N_ROUNDS = 4
# Rows that fit into memory, in this comparison.
IN_MEMORY = 100_000
TEST_ROWS = 10_000


def data_of(name, arguments):
    """X, y, X_test, y_test of a set; words are left to the estimators."""
    if name.startswith("friedman"):
        n = 2000 if arguments.smoke else int(name.split("-")[1])
        return *friedman(n, 1), *friedman(TEST_ROWS, 0)
    if name == "adult":
        X, y = adult_table(arguments)
        order = np.random.default_rng(0).permutation(len(y))
        fitting, test = np.split(order, [len(y) * 4 // 5])
        return X.iloc[fitting], y[fitting], X.iloc[test], y[test]
    return load_splits(arguments.data, name)[0]


def adult_table(arguments):
    import pandas as pd

    rows = pd.read_csv(arguments.data / "tables" / "adult.csv", nrows=1000 if arguments.smoke else None)
    words = rows.select_dtypes(exclude="number").columns.drop("income")
    return rows.drop(columns="income").astype(dict.fromkeys(words, "category")), rows["income"].to_numpy(str)


def rows_of(X, rows):
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def average(arguments):
    """Networks of parts, averaged with found and equal weights; one network in turn; rounds of averaged weights."""
    print("set, parts, method: error on test rows, seconds")
    for name in arguments.sets or (("friedman-100000",) if arguments.smoke else SETS):
        if name.startswith("friedman") or has_data(arguments.data, name):
            average_of(name, arguments)


def average_of(name, arguments):
    X, y, X_test, y_test = data_of(name, arguments)
    regresses = name in REGRESSION or name.startswith("friedman")

    def measure(n_parts, method, fit, *rows):
        """Fit, print the error on test rows and the seconds, and return the model."""
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = fit(*rows)
        seconds = time.perf_counter() - began
        title, score = score_of(not regresses)
        print(
            f"{name}, {n_parts}, {method}: {title} {score(model.predict(X_test), y_test):.4f}, {seconds:.1f} s",
            flush=True,
        )
        return model

    def new():
        own = SubquadMLPRegressor if regresses else SubquadMLPClassifier
        return own(random_state=0, **network_options(arguments))

    if "once" in arguments.methods:
        boosting = HistGradientBoostingRegressor if regresses else HistGradientBoostingClassifier
        measure("all", "boosting", boosting(max_iter=2 if arguments.smoke else 100, random_state=0).fit, X, y)
        measure("in memory", "fit", new().fit, rows_of(X, slice(IN_MEMORY)), y[:IN_MEMORY])
    for n_parts in arguments.parts or ((3,) if arguments.smoke else N_PARTS):
        order = np.random.default_rng(0).permutation(len(y))
        parts = [(rows_of(X, rows), y[rows]) for rows in np.array_split(order, n_parts)]
        for method in (method for method in METHODS if method in arguments.methods):
            model = measure(n_parts, method, METHODS[method], new(), parts, np.unique(y))
            if method == "found":
                model._state_["weights"] = np.full(len(model.estimators_), 1 / len(model.estimators_))
                measure(n_parts, "equal", lambda model=model: model)


def found(model, parts, classes):
    return model.fit_parts(parts)


def in_turn(model, parts, classes):
    """One network goes through all parts, some times."""
    for _ in range(N_ROUNDS):
        for part in parts:
            pass_over(model, part, classes)
    return model


def in_rounds(model, parts, classes):
    """A trial that is no part of the package: every part takes a pass from common weights, which are then averaged.

    B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-efficient learning of deep networks
    from decentralized data", AISTATS 2017.
    """
    pass_over(model, parts[0], classes)
    for _ in range(N_ROUNDS):
        tasks = (joblib.delayed(pass_over)(copy.deepcopy(model), part, classes) for part in parts)
        fitted = joblib.Parallel(2, prefer="threads")(tasks)
        for name in ("tiles", "input_weights", "output_weights"):
            of_models = zip(*(each._state_[name] for each in fitted), strict=True)
            model._state_[name] = [None if each[0] is None else np.mean(each, axis=0) for each in of_models]
    return model


class Mean:
    """The mean of what models predict."""

    def __init__(self, models):
        self.models = models

    def predict(self, X):
        if not is_classifier(self.models[0]):
            return np.mean([model.predict(X) for model in self.models], axis=0)
        chosen = np.mean([model.predict_proba(X) for model in self.models], axis=0).argmax(axis=1)
        return self.models[0].classes_[chosen]


def on_tour(model, parts, classes):
    """A trial as well: networks of parts go on to the next parts, a pass at each, all side by side; equal weights."""
    models = model.fit_parts(parts).estimators_
    for number in range(1, N_ROUNDS + 1):
        pairs = ((copy.deepcopy(each), parts[(i + number) % len(parts)]) for i, each in enumerate(models))
        tasks = (joblib.delayed(pass_over)(each, part, classes) for each, part in pairs)
        models = joblib.Parallel(2, prefer="threads")(tasks)
    return Mean(models)


METHODS = {"found": found, "turns": in_turn, "rounds": in_rounds, "tours": on_tour}


# ---- a cluster of two processes -----------------------------------------------------------------------------


def cluster(arguments):
    """Files of Friedman's function, fitted by one worker process and by two: seconds, error, peak memory of all."""
    if not has_dask("cluster"):
        return
    X_test, y_test = friedman(TEST_ROWS, 0)
    part_rows = 500 if arguments.smoke else arguments.part_rows
    for n_rows in arguments.rows or ((1000,) if arguments.smoke else (100_000, 300_000, 1_000_000)):
        for n_workers in arguments.workers or ((1,) if arguments.smoke else (2, 1)):
            with tempfile.TemporaryDirectory() as folder, workers(n_workers) as client:
                loaders = write_parts(pathlib.Path(folder), n_rows, part_rows)
                forget_peak()
                client.run(warm_up)
                model = SubquadMLPRegressor(random_state=0, **network_options(arguments))
                began = time.perf_counter()
                with joblib.parallel_config("dask"):
                    model.fit_parts(loaders)
                seconds = time.perf_counter() - began
                peaks = [peak(os.getpid()), *client.run(peak).values()]
            error = rmse(model.predict(X_test), y_test)
            told_peaks = ", ".join(f"{each:.0f}" for each in peaks)
            print(
                f"{n_rows} rows in {len(loaders)} parts, {n_workers} workers: {seconds:.1f} s, RMSE {error:.4f}, peak "
                f"memory of the client and of the workers {told_peaks} MiB",
                flush=True,
            )


def has_dask(what):
    known = importlib.util.find_spec("distributed") is not None
    if not known:
        print(f"Left out: {what} (dask[distributed] is not installed).")
    return known


@contextlib.contextmanager
def workers(n_workers):
    """A client of so many processes of one thread each on this machine."""
    import dask
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    environment = {f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in ALLOCATION.items()}
    with (
        dask.config.set(environment),
        LocalCluster(n_workers=n_workers, **options) as of_workers,
        Client(of_workers) as client,
    ):
        yield client


def warm_up():
    """Import what a fit needs, so that its seconds are those of the fit."""
    import sklearn_subquad

    return sklearn_subquad.__version__


def forget_peak():
    """Let the peak of this process be what it holds now, where the system can."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(pid=None):
    """Peak of a process's memory in MiB; nan where the system does not tell."""
    status = pathlib.Path(f"/proc/{os.getpid() if pid is None else pid}/status")
    if not status.exists():
        return float("nan")
    lines = status.read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


# ---- workers that are killed --------------------------------------------------------------------------------


class KillsItsWorker:
    """Loads a part, but at a given load kills the process instead."""

    def __init__(self, path, folder, fatal):
        self.path, self.folder, self.fatal = path, folder, fatal

    def __call__(self):
        number = len(list(self.folder.iterdir()))
        (self.folder / str(number)).touch()
        if number == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return load_part(self.path)


def faults(arguments):
    """Fits in which a worker is killed at a random part, as it is summarised or fitted: equal to the bit?"""
    if not has_dask("faults"):
        return
    rng, n_equal, runs = np.random.default_rng(0), 0, 1 if arguments.smoke else arguments.runs
    X_test, _ = friedman(TEST_ROWS, 0)
    with tempfile.TemporaryDirectory() as folder:
        loaders = write_parts(
            pathlib.Path(folder), 2000 if arguments.smoke else 40_000, 500 if arguments.smoke else 5000
        )
        model = SubquadMLPRegressor(random_state=0, **network_options(arguments))
        undisturbed = model.fit_parts(loaders).predict(X_test)
        for run in range(runs):
            victim, fatal = int(rng.integers(len(loaders))), int(rng.integers(2))
            with tempfile.TemporaryDirectory() as loads, workers(2) as client:
                chosen = list(loaders)
                chosen[victim] = KillsItsWorker(loaders[victim].args[0], pathlib.Path(loads), fatal)
                with joblib.parallel_config("dask"):
                    predicted = clone(model).fit_parts(chosen).predict(X_test)
                n_loads, n_workers = len(list(pathlib.Path(loads).iterdir())), len(client.ncores())
            equal = predicted.tobytes() == undisturbed.tobytes()
            n_equal += equal
            print(
                f"run {run}: killed as part {victim} was {('summarised', 'fitted')[fatal]} (loaded {n_loads} times, "
                f"{n_workers} workers at the end): {'equal to the bit' if equal else 'DIFFERS'}",
                flush=True,
            )
    print(f"{n_equal} of {runs} equal to the bit", flush=True)


# ---- adult --------------------------------------------------------------------------------------------------


def adult(arguments):
    """Accuracy on five folds of adult's rows: one fit, and eight parts."""
    if not has_data(arguments.data, "adult"):
        return
    X, y = adult_table(arguments)
    scores = []
    for fitting, test in list(KFold(5, shuffle=True, random_state=0).split(X))[: 1 if arguments.smoke else None]:
        parts = [(X.iloc[rows], y[rows]) for rows in np.array_split(fitting, 8)]
        model = SubquadMLPClassifier(random_state=0, **network_options(arguments))
        models = model.fit(X.iloc[fitting], y[fitting]), clone(model).fit_parts(parts)
        scores.append([accuracy(model.predict(X.iloc[test]), y[test]) for model in models])
        print(f"one fit {scores[-1][0]:.2f} %, 8 parts {scores[-1][1]:.2f} %", flush=True)
    print("mean: one fit {:.2f} %, 8 parts {:.2f} %".format(*np.mean(scores, axis=0)), flush=True)


MEASUREMENTS = {each.__name__: each for each in (turns, average, cluster, faults, adult)}


def main():
    parser = command_line(__doc__)
    parser.add_argument("measurements", nargs="*", choices=[*MEASUREMENTS, "all"], default="all")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="of average")
    parser.add_argument("--parts", nargs="+", type=int, help="of average")
    parser.add_argument(
        "--methods", nargs="+", choices=["once", *METHODS], default=["once", *METHODS], help="of average"
    )
    parser.add_argument("--rows", nargs="+", type=int, help="of cluster")
    parser.add_argument("--part-rows", type=int, default=25_000, help="of cluster (default: %(default)s)")
    parser.add_argument("--workers", nargs="+", type=int, help="of cluster")
    parser.add_argument("--runs", type=int, default=10, help="of faults (default: %(default)s)")
    arguments = parser.parse_args()
    print_provenance()
    for name in MEASUREMENTS if "all" in arguments.measurements else arguments.measurements:
        MEASUREMENTS[name](arguments)


if __name__ == "__main__":
    main()
