"""Fits that are stored, and how far rounding may move what they predict; imported by processes, so by itself light."""

import numpy as np

from sklearn_subquad import SubquadMLPClassifier
from sklearn_subquad._fit.encoding import PiecewiseLinearEncoding
from sklearn_subquad._fit.scaling import BIAS_FEATURE


def problem(estimator_class, n=150, dtype=np.float64, n_outputs=1):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 6)).astype(dtype)
    Y = (np.sin(2 * X[:, [0]]) + X[:, [1]] * X[:, [2]] * np.arange(1, 1 + n_outputs)).astype(dtype)
    if estimator_class is SubquadMLPClassifier:
        return X, np.array(["a", "b", "c"])[np.argsort(np.argsort(Y[:, 0])) * 3 // n]
    return X, Y if n_outputs > 1 else Y[:, 0]


def fitted(estimator_class, dtype=np.float64, n_outputs=1, **options):
    """Fitted to rows of that dtype, of which the network is as well."""
    precision = {"float32": "single", "float64": "double"}[np.dtype(dtype).name]
    defaults = {"hidden_layer_sizes": (64, 64), "max_iter": 2, "n_folds": 1, "precision": precision, "random_state": 0}
    X, y = problem(estimator_class, dtype=dtype, n_outputs=n_outputs)
    return estimator_class(**defaults | options).fit(X, y), X


def rows_of(model):
    """The rows that a model was fitted on, in its dtype."""
    return problem(type(model), dtype=model.coefs_[0].dtype)[0]


def raw_outputs(model, X):
    return model.decision_function(X) if isinstance(model, SubquadMLPClassifier) else model.predict(X)


def rounding_bound(model, X):
    """By how much outputs may differ from exact ones, to first order in the unit roundoff u of X's dtype.

    A sum of n products in any order, with or without fused operations, has an error of at most ``n u`` times the sum of
    the absolute products. An activation passes errors on at most as large as they are, times the gain, and adds two
    roundings; the layers' errors add up through the absolute weights.
    """
    unit = np.finfo(X.dtype).eps / 2
    state = model._state_
    if state.get("knots") is not None:
        X = PiecewiseLinearEncoding(state["knots"], state["knot_counts"]).transform(X)
    x = (X.astype(np.float64) - state["input_mean"]) / state["input_scale"] / np.sqrt(X.shape[1])
    # Inputs are computed in double precision, then rounded; by a metric they are multiplied in X's precision.
    input_error = 2 * unit * abs(x)
    metric = state.get("input_metric")
    if metric is not None:
        input_error = (len(metric) + 2) * unit * (abs(x) @ abs(metric))
        x = x @ metric
    x = np.column_stack([x, np.full(len(x), BIAS_FEATURE)])
    input_error = np.column_stack([input_error, np.zeros(len(x))])
    hidden, error = np.zeros((len(x), 0)), np.zeros((len(x), 0))
    tiles = [np.zeros((0, model.hidden_layer_sizes[0]))]
    tiles += [dense[:width] for dense, width in zip(model.coefs_[1:-1], model.hidden_layer_sizes, strict=False)]
    for W, V, shift, gain in zip(tiles, state["input_weights"], model.shifts_, model.gains_, strict=True):
        z = hidden @ W + x @ V.T - shift
        n_terms = len(W) + V.shape[1] + 2
        terms = abs(hidden) @ abs(W) + abs(x) @ abs(V.T) + abs(shift)
        error = n_terms * unit * terms + error @ abs(W) + input_error @ abs(V.T)
        hidden, error = gain * np.maximum(z, 0), gain * (error + 2 * unit * abs(z))
    A, B = state["output_weights"]
    terms = abs(hidden) @ abs(A) + abs(x) @ abs(B)
    error = (len(A) + len(B) + 2) * unit * terms + error @ abs(A) + input_error @ abs(B)
    # The way back to the target's units: a product and a sum.
    scale, mean = abs(state["target_scale"]), abs(state["target_mean"])
    return scale * error + 3 * unit * (scale * (terms + error) + mean)
