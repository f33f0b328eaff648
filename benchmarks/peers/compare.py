"""This package beside scikit-learn's estimators and dense networks in PyTorch: error against seconds.

    python benchmarks/peers/compare.py measure --threads 1 --jobs 2    # adds to results/peers.json
    python benchmarks/peers/compare.py measure --parts rows
    python benchmarks/peers/compare.py report     # results/peers.md
    python benchmarks/peers/compare.py plot       # doc/images/time_to_accuracy.svg, ... (needs matplotlib)
    python benchmarks/peers/compare.py --smoke    # seconds, without PyTorch; nothing written

Parts: `width`, the seconds until the test error is first below a target; `sets`, error and seconds of fits on real
sets; `rows`, the same for growing numbers of synthetic rows. All methods have the same number of threads. With one
thread seconds are those of the processor, which matters where other work runs beside; with several they are those of
the clock on the wall. Every task has a process of its own. The sets are read from ``../shared/data`` beside the
repository (or --data). Methods in PyTorch are left out where it is not installed (it comes with the extra `bench`).
"""

import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.program import command_line
from common.provenance import commit, machine
from common.results import RESULTS, digits, load, save
from common.sets import has_data
from peers.report import draw, tables
from peers.runs import RUNNERS, TRAININGS, has_torch

PARTS = ("width", "sets", "rows")

WIDTH_SET, WIDTH_ROWS, WIDTHS = "kin8nm", 1024, (256, 1024, 4096, 8192)
# Where one run alone would take minutes.
LARGEST_WIDTH = {"ours, steps chosen": 1024, "scikit-learn MLP, Adam": 4096, "scikit-learn MLP, L-BFGS": 1024}
# Where the usual rate may be too high.
SMALLEST_WIDTH = {"PyTorch, Adam, rate 1e-4": 4096}
# The target is so many times the error of the best one of these.
REFERENCES, TARGET_FACTOR = ("kernel ridge, tuned", "gradient boosting, tuned"), 1.05
# Seconds of one run, and of the processor for a task with all its runs.
CAP, TASK_LIMIT = 60, 400
# How many of their standard splits are taken.
SETS = {"concrete": 1, "energy": 1, "statlog-image": 1, "kin8nm": 1, "optical": 1, "power-plant": 1}
FITTED_ON_SETS = (
    "ours",
    "gradient boosting",
    "gradient boosting, tuned",
    "SVM",
    "SVM, tuned",
    "kernel ridge, tuned",
    "scikit-learn MLP, Adam",
    "scikit-learn MLP, L-BFGS",
    "PyTorch, Adam",
    "PyTorch, Gauss-Newton",
)
# It is for one output, and for as many rows as have an n x n matrix that is factored within seconds.
NOT_FITTED_ON = {"PyTorch, Gauss-Newton": ("statlog-image", "optical", "kin8nm", "power-plant")}
ROWS = (1_000, 4_000, 16_000, 64_000)
# The largest numbers of rows, where memory or patience end.
FITTED_ON_ROWS = {
    "ours": 64_000,
    "gradient boosting": 64_000,
    "scikit-learn MLP, Adam": 64_000,
    "kernel ridge, tuned": 16_000,
    "PyTorch, Adam": 16_000,
}


def versions():
    """The machine in words, and the versions."""
    if not has_torch():
        return f"{machine()}, no PyTorch"
    import torch

    return f"{machine()}, PyTorch {torch.__version__}"


def run_one(task, data):
    with warnings.catch_warnings():
        # Iterations that do not suffice, and corners of grids that do not converge.
        warnings.simplefilter("ignore")
        runs = RUNNERS[task["part"]](task, data)
    return digits(runs, 5)


class Measurements:
    """Tasks with what they gave, kept in a file; a task that stands there is not run again."""

    def __init__(self, data, threads, jobs, methods=None):
        self.data, self.threads, self.jobs, self.methods = data, threads, jobs, methods
        kept = load("peers.json")
        self.results = kept.get("results", [])
        # What was measured when, by part; a part may have been added to later.
        self.heads = kept.get("heads", {})
        self.head = {"commit": commit(), "machine": versions(), "threads": threads, "load": round(os.getloadavg()[0])}

    def runs(self, task):
        """Runs of a task, or None."""
        return next((result["runs"] for result in self.results if task.items() <= result.items()), None)

    def complete(self, tasks):
        """Run what is missing, of all methods or of those that are asked for; references always."""
        tasks = [task for task in tasks if self.runs(task) is None]
        if self.methods:
            tasks = [task for task in tasks if task["part"] == "references" or task["method"] in self.methods]
        with ThreadPoolExecutor(self.jobs) as pool:
            for result in pool.map(self._run, tasks):
                self.results.append(result)
                heads = self.heads.setdefault("width" if result["part"] == "references" else result["part"], [])
                if self.head not in heads:
                    heads.append(self.head)
                save("peers.json", {"heads": self.heads, "results": self.results}, depth=2)
                print(json.dumps(result), flush=True)

    def _run(self, task):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(self.threads))
        command = [sys.executable, __file__, "one", json.dumps(task), "--data", str(self.data)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return task | {"runs": json.loads(done.stdout)}
        ended = done.returncode == -signal.SIGXCPU
        return task | {"runs": [], "failed": f"more than {TASK_LIMIT} s" if ended else f"exit {done.returncode}"}


def interleaved(methods, values):
    """Every method for the first value, then for the next."""
    methods = [method for method in methods if has_torch() or not method.startswith("PyTorch")]
    return [(method, value) for value in values for method in methods]


def width_tasks(measurements, widths):
    """The references are run first: they say what the target is."""
    problem = {"set": WIDTH_SET, "n_rows": WIDTH_ROWS}
    references = [{"part": "references", "method": method} | problem for method in REFERENCES]
    measurements.complete(references)
    least = min(measurements.runs(task)[0][1] for task in references)
    fixed = {"part": "width", "target": float(f"{TARGET_FACTOR * least:.4g}"), "cap": CAP} | problem
    return [
        fixed | {"method": method, "width": width}
        for method, width in interleaved(TRAININGS, widths)
        if SMALLEST_WIDTH.get(method, 0) <= width <= LARGEST_WIDTH.get(method, WIDTHS[-1])
    ]


def set_tasks(sets):
    return [
        {"part": "sets", "set": name, "split": split, "method": method}
        for name in sets
        for method, split in interleaved(FITTED_ON_SETS, range(SETS[name]))
        if name not in NOT_FITTED_ON.get(method, ())
    ]


def row_tasks(sizes):
    return [
        {"part": "rows", "method": method, "n_rows": n_rows}
        for method, n_rows in interleaved(FITTED_ON_ROWS, sizes)
        if n_rows <= FITTED_ON_ROWS[method]
    ]


def measure(arguments):
    if not has_torch():
        print("Methods in PyTorch are left out: it is not installed (pip install '.[bench]').")
    measurements = Measurements(arguments.data, arguments.threads, arguments.jobs, arguments.methods)
    for part in arguments.parts:
        if part == "rows":
            measurements.complete(row_tasks(arguments.rows))
        elif has_data(arguments.data, part):
            of_width = part == "width"
            tasks = width_tasks(measurements, arguments.widths) if of_width else set_tasks(arguments.sets)
            measurements.complete(tasks)


def smoke(data):
    """Every runner but that of the sets, on a hundred synthetic rows, in this process."""
    problem = {"set": "friedman", "n_rows": 100}
    first_point = {"part": "width", "width": 64, "target": math.inf, "cap": 1} | problem
    tasks = [first_point | {"method": method} for method in TRAININGS]
    tasks += [{"part": "references", "method": "kernel ridge, tuned"} | problem]
    tasks += [{"part": "rows", "method": method, "n_rows": 100} for method in ("ours", "SVM")]
    tasks = [task for task in tasks if not task["method"].startswith("PyTorch")]
    results = [task | {"runs": run_one(task, data)} for task in tasks]
    head = {"commit": "none", "machine": versions(), "threads": "all", "load": 0}
    print(tables({"heads": {"width": [head], "rows": [head]}, "results": results}))
    tables(load("peers.json"))


def main():
    parser = command_line(__doc__)
    parser.add_argument("command", nargs="?", choices=["measure", "report", "plot", "one"], default="measure")
    parser.add_argument("task", nargs="?", help="of one: JSON")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--widths", nargs="+", type=int, choices=WIDTHS, default=WIDTHS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--rows", nargs="+", type=int, choices=ROWS, default=ROWS)
    methods = [*TRAININGS, *(method for method in FITTED_ON_SETS if method not in TRAININGS)]
    parser.add_argument("--methods", nargs="+", choices=methods, metavar="METHOD", help="only these: %(choices)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every method (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.smoke:
        smoke(arguments.data)
    elif arguments.command == "one":
        resource.setrlimit(resource.RLIMIT_CPU, (TASK_LIMIT, TASK_LIMIT + 5))
        print(json.dumps(run_one(json.loads(arguments.task), arguments.data)))
    elif arguments.command == "measure":
        measure(arguments)
    elif arguments.command == "report":
        (RESULTS / "peers.md").write_text(tables(load("peers.json")), encoding="utf-8")
    else:
        draw(load("peers.json"))


if __name__ == "__main__":
    main()
