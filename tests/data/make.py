"""Writes the stored estimators beside this file, the rows that they know and what they say of them.

    python tests/data/make.py

tests/estimators/test_stored_estimators.py loads them, so that files of users outlive changes of the package. A file of
another format is put beside these under another name: what is there is not made again.
"""

import pathlib
import pickle
import zipfile

import numpy as np
import skops.io

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

FOLDER = pathlib.Path(__file__).resolve().parent
SETTINGS = {"hidden_layer_sizes": (8, 8), "max_iter": 4, "random_state": 0}


def fitted(X):
    """Both estimators under the names of their files, fitted on some of the rows."""
    signal = np.sin(2 * X[:, 0]) + X[:, 1]
    # The covariance of the deviations has twice as many columns as there are rows, so few rows make a small file.
    regressor = SubquadMLPRegressor(**SETTINGS).fit(X[:16], signal[:16])
    labels = np.array(["high", "low", "middle"])[np.digitize(signal, [-0.5, 0.5])]
    return {"regressor": regressor, "classifier": SubquadMLPClassifier(**SETTINGS).fit(X, labels)}


def main():
    X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    models = fitted(X)
    for name, model in models.items():
        (FOLDER / f"{name}.pickle").write_bytes(pickle.dumps(model, protocol=4))
        skops.io.dump(model, FOLDER / f"{name}.skops", compression=zipfile.ZIP_DEFLATED)
    mean, deviation = models["regressor"].predict(X, return_std=True)
    classifier = models["classifier"]
    np.savez_compressed(
        FOLDER / "expected.npz",
        X=X,
        mean=mean,
        deviation=deviation,
        labels=classifier.predict(X),
        scores=classifier.decision_function(X),
        probabilities=classifier.predict_proba(X),
    )


if __name__ == "__main__":
    main()
