"""How well the regressor knows what it does not know: negative log-likelihood and coverage on the standard splits.

    python benchmarks/uncertainty.py                     # 20 splits of the small sets, 3 of the two large ones
    python benchmarks/uncertainty.py --sets yacht energy --splits 4
    python benchmarks/uncertainty.py --sets boston --param early_stopping=loo
    python benchmarks/uncertainty.py --smoke             # seconds; no data folder needed

Data are read from ``../shared/data`` beside the repository (or --data). Published: Lakshminarayanan, Pritzel,
Blundell 2017, table 1 (means over all standard splits).
"""

import argparse
import pathlib
import pickle
import time

import numpy as np
from accuracy import DATA, parameter
from provenance import print_provenance
from sklearn.datasets import load_diabetes

from sklearn_subquad import SubquadMLPRegressor

# Splits at most, and the published negative log-likelihoods of PBP, MC dropout and deep ensembles.
SETS = {
    "boston": (20, 2.57, 2.46, 2.41),
    "concrete": (20, 3.16, 3.04, 3.06),
    "energy": (20, 2.04, 1.99, 1.38),
    "yacht": (20, 1.63, 1.55, 1.18),
    "kin8nm": (3, -0.90, -0.95, -1.20),
    "power-plant": (3, 2.84, 2.80, 2.79),
}
# Half the width of the central 90 % interval, in standard deviations.
_NINETY = 1.6448536269514722


def scores(X, y, train, test, options):
    """Mean negative log-likelihood in nats, coverage, RMSE, seconds of the covariance and of the fit, bytes pickled."""
    start = time.perf_counter()
    model = SubquadMLPRegressor(**{"random_state": 0} | options).fit(X[train], y[train])
    seconds = time.perf_counter() - start
    mean, std = (part.astype(np.float64) for part in model.predict(X[test], return_std=True))
    z = (y[test] - mean) / std
    nll = np.mean(0.5 * np.log(2 * np.pi * std**2) + 0.5 * z**2)
    rmse = np.sqrt(np.mean((y[test] - mean) ** 2))
    covered = 100 * np.mean(np.abs(z) <= _NINETY)
    return nll, covered, rmse, model.phase_times_["covariance"], seconds, len(pickle.dumps(model._state_["laplace"]))


def report(name, rows, published):
    """One line of the table: means over the splits, the standard error of the first, medians of seconds."""
    nll, covered, rmse, covariance, seconds, n_bytes = np.array(rows).T
    error = nll.std(ddof=1) / np.sqrt(len(nll)) if len(nll) > 1 else np.nan
    print(
        f"{name:12} {nll.mean():7.3f} ± {error:5.3f} {covered.mean():8.1f} % {rmse.mean():8.4g}"
        + "".join(f"{value:9.2f}" for value in published)
        + f"   {np.median(covariance):7.3f} {np.median(seconds):7.2f} {n_bytes.max() / 2**20:6.2f} {len(rows):5d}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="only these data sets")
    parser.add_argument("--splits", type=int, default=20, help="splits of a set, at most")
    parser.add_argument("--param", type=parameter, action="append", default=[], help="name=value for the estimator")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--smoke", action="store_true", help="diabetes at width 64, to see that it runs")
    arguments = parser.parse_args()
    options = dict(arguments.param)
    print_provenance()
    print(f"parameters {options or 'default'}; published: PBP, MC dropout (MC), deep ensembles (DE)")
    print(
        f"{'set':12} {'NLL':>7}   {'':5} {'in 90 %':>10} {'RMSE':>8}{'PBP':>9}{'MC':>9}{'DE':>9}"
        f"   {'cov. s':>7} {'fit s':>7} {'MiB':>6} {'splits':>5}"
    )
    if arguments.smoke:
        X, y = load_diabetes(return_X_y=True)
        train, test = np.arange(300), np.arange(300, len(X))
        options = {"hidden_layer_sizes": (64, 64), "max_iter": 3} | options
        report("diabetes", [scores(X, y, train, test, options)], [np.nan] * 3)
        return
    if not arguments.data.is_dir():
        print(f"Left out: everything (no data folder at {arguments.data}; see --data).")
        return
    for name in arguments.sets:
        n_splits, *published = SETS[name]
        z = np.load(arguments.data / "regression" / f"{name}.npz")
        splits = list(zip(z["train_idx"], z["test_idx"], strict=True))[: min(n_splits, arguments.splits)]
        report(name, [scores(z["X"], z["y"], *split, options) for split in splits], published)


if __name__ == "__main__":
    main()
