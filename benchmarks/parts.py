"""What learning a part of the rows at a time costs in accuracy: `partial_fit` beside `fit`.

    python benchmarks/parts.py            # minutes; needs the data folder, see uci_sets.py
    python benchmarks/parts.py --smoke    # seconds; no data folder needed

The rows of the first standard split, in 5 or in 20 parts, are shown six times, shuffled anew every time.
"""

import argparse
import pathlib

import numpy as np
from evaluation import accuracy, rmse
from provenance import print_provenance
from sklearn.base import is_classifier
from sklearn.datasets import load_diabetes
from uci_sets import DATA, load_splits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

SETS = {
    "kin8nm": SubquadMLPRegressor,
    "energy": SubquadMLPRegressor,
    "concrete": SubquadMLPRegressor,
    "optical": SubquadMLPClassifier,
    "statlog-image": SubquadMLPClassifier,
    "semeion": SubquadMLPClassifier,
}
PASSES, PARTS = 6, (5, 20)


def fitted_in_parts(model, X, y, n_parts, n_passes):
    options = {"classes": np.unique(y)} if is_classifier(model) else {}
    rng = np.random.default_rng(0)
    for _ in range(n_passes):
        for part in np.array_split(rng.permutation(len(X)), n_parts):
            model.partial_fit(X[part], y[part], **options)
    return model


def report(name, estimator, split, options, n_passes):
    X, y, X_test, y_test = split
    models = [estimator(random_state=0, **options).fit(X, y)]
    models += [fitted_in_parts(estimator(random_state=0, **options), X, y, n, n_passes) for n in PARTS]
    title, scores = ("accuracy, %", accuracy) if is_classifier(models[0]) else ("RMSE", rmse)
    cells = [f"{scores(model, X_test, y_test)[0]:.4g}" for model in models]
    print(f"| {name} ({title}) | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--smoke", action="store_true", help="narrow networks on diabetes, to see that it runs")
    arguments = parser.parse_args()
    print_provenance()
    if not arguments.smoke and not arguments.data.is_dir():
        print(f"Left out: everything (no data folder at {arguments.data}; see --data).")
        return
    print(f"\n| | `fit` | {' | '.join(f'{n} parts' for n in PARTS)} |\n{'|---' * (len(PARTS) + 2)}|")
    if arguments.smoke:
        X, y = load_diabetes(return_X_y=True)
        split = X[:300], y[:300], X[300:], y[300:]
        report("diabetes", SubquadMLPRegressor, split, {"hidden_layer_sizes": (64, 64)}, 1)
        return
    for name, estimator in SETS.items():
        report(name, estimator, load_splits(arguments.data, name)[0], {}, PASSES)


if __name__ == "__main__":
    main()
