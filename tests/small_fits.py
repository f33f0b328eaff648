"""Small data sets and fits of both estimators that take a moment, for tests of their behaviour."""

import numpy as np
import pytest
from sklearn.base import is_classifier

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
OTHER_LOSSES = pytest.mark.parametrize(
    ("estimator_class", "loss", "k"),
    [
        (SubquadMLPClassifier, "log_loss", 2),
        (SubquadMLPClassifier, "log_loss", 4),
        (SubquadMLPRegressor, "poisson", None),
        (SubquadMLPRegressor, "poisson", 3),
    ],
    ids=["log_loss-2", "log_loss-4", "poisson", "poisson-3"],
)


def precision_of(dtype):
    """What `precision` is called that makes a network of that dtype."""
    return {"float32": "single", "float64": "double"}[np.dtype(dtype).name]


def small(estimator_class, **parameters):
    """One small network on features as they are."""
    defaults = {"hidden_layer_sizes": (64, 64), "max_iter": 4, "n_bins": None, "n_folds": 1, "random_state": 0}
    return estimator_class(**defaults | parameters)


def fixed_steps(estimator_class, n_steps, **parameters):
    """An estimator that takes a given number of steps and keeps them all."""
    parameters = {"early_stopping": False, "tol": 0.0} | parameters
    return small(estimator_class, max_iter=n_steps, **parameters)


def regression_data(n=80, d=5, n_outputs=None, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    Y = np.sin(2 * X[:, [0]]) + X[:, [1]] * X[:, [2 % d]] * np.arange(1, 1 + (n_outputs or 1))
    Y += 0.3 * rng.standard_normal(Y.shape)
    return X.astype(dtype), (Y if n_outputs else Y[:, 0]).astype(dtype)


def classification_data(n=80, d=5, n_classes=3, dtype=np.float64):
    X, y = regression_data(n, d)
    return X.astype(dtype), np.argsort(np.argsort(y)) * n_classes // n


def data_for(estimator_class, **kwargs):
    if estimator_class is SubquadMLPClassifier:
        return classification_data(**kwargs)
    return regression_data(**kwargs)


def data_for_loss(loss, k, n=80, dtype=np.float64):
    """Rows, and labels of k classes that overlap, or k columns of counts."""
    rng = np.random.default_rng(1)
    if loss == "poisson":
        X, Y = regression_data(n, n_outputs=k, dtype=dtype)
        return X, rng.poisson(np.exp(np.clip(Y, -2, 3)))
    X, y = classification_data(n, n_classes=k, dtype=dtype)
    return X, np.where(rng.random(n) < 0.1, rng.integers(k, size=n), y)


def outputs(estimator, X):
    """What the network computes, before it is turned into labels."""
    return estimator.decision_function(X) if is_classifier(estimator) else estimator.predict(X)


def raw_outputs(estimator, X):
    """Logarithms of what is predicted, to a constant for classes."""
    return estimator.decision_function(X) if is_classifier(estimator) else np.log(estimator.predict(X))


def flat_weights(state):
    arrays = [*state["tiles"], *state["input_weights"], *state["output_weights"]]
    return np.concatenate([array.ravel() for array in arrays if array is not None])
