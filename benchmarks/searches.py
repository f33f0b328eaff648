"""Seconds of a grid search one fit at a time, and two at a time in processes, threads and workers of Dask.

python benchmarks/searches.py
python benchmarks/searches.py --smoke

Dask is left out where dask.distributed is not installed (the extra "bench" brings it). Ways take turns, and each starts
its workers before its time is taken.
"""

import argparse
import contextlib
import importlib.util
import time
import warnings

import joblib
import numpy as np
from provenance import print_provenance
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV

from sklearn_subquad import SubquadMLPClassifier

N_JOBS = 2


@contextlib.contextmanager
def dask_workers():
    from distributed import Client, LocalCluster

    options = {"processes": True, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=N_JOBS, threads_per_worker=1, **options) as cluster, Client(cluster):
        yield


def measure(way, search, X, y):
    """Seconds of the search, and its mean scores."""
    with dask_workers() if way == "dask" else contextlib.nullcontext():
        settings = {"backend": "sequential"} if way == "one by one" else {"backend": way, "n_jobs": N_JOBS}
        with joblib.parallel_config(**settings):
            # The first task imports the package.
            joblib.Parallel()(joblib.delayed(SubquadMLPClassifier)() for _ in range(2 * N_JOBS))
            start = time.perf_counter()
            search.fit(X, y)
            return time.perf_counter() - start, search.cv_results_["mean_test_score"]


def main(smoke):
    print_provenance()
    X, y = load_breast_cancer(return_X_y=True)
    width = 64 if smoke else 512
    model = SubquadMLPClassifier(hidden_layer_sizes=(width, width), max_iter=2 if smoke else 5, random_state=0)
    grid = {"density": [0.1, 0.25] if smoke else [0.1, 0.15, 0.2, 0.25], "loss": ["squared_error"]}
    search = GridSearchCV(model, grid, cv=2, refit=False)
    ways = ["one by one", "loky", "threading"] + ["dask"] * (importlib.util.find_spec("distributed") is not None)
    seconds = {way: [] for way in ways}
    warnings.simplefilter("ignore")
    expected = None
    for _ in range(1 if smoke else 2):
        for way in ways:
            taken, scores = measure(way, search, X, y)
            seconds[way].append(taken)
            expected = scores if expected is None else expected
            # To rounding, which may move a row at the border of two classes.
            np.testing.assert_allclose(scores, expected, atol=2 / len(y))
            print(f"{way}: {taken:.1f} s", flush=True)
    print(f"Medians of {len(grid['density']) * search.cv} fits of {len(X)} rows or fewer, widths ({width}, {width})")
    for way, runs in seconds.items():
        print(f"{way}: {np.median(runs):.1f} s ({min(runs):.1f} to {max(runs):.1f})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a small search once, to see that everything runs")
    main(parser.parse_args().smoke)
