"""The only place that touches scikit-learn's private API."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "Options",
    "StrOptions",
    "callback_context",
    "check_matplotlib_support",
    "check_sample_weight",
    "fit_context",
    "safe_indexing",
]

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:
    # Before scikit-learn 1.9 there are no callbacks.
    class CallbackSupportMixin:
        """Stands for the mixin with `set_callbacks`."""


_Method = TypeVar("_Method", bound=Callable)


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """scikit-learn's decorator of `fit`, which validates parameters; type checkers see the method through it."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


def safe_indexing(rows, places):
    """Rows (array, sparse matrix, frame or list) at integer places."""
    return _safe_indexing(rows, places)


def callback_context(estimator, max_subtasks):
    """Root of the tree of tasks that callbacks see of a fit, or None where the estimator has no callbacks."""
    if not getattr(estimator, "_skl_callbacks", ()):
        return None
    return estimator._init_callback_context(max_subtasks=max_subtasks)


def check_sample_weight(sample_weight, X):
    """Weights as float64 of shape (n_samples,), ones for None; zero where X's dtype has no number for so small a one.

    Raises
    ------
    ValueError
        For a wrong length, negative or non-finite weights, or weights that are all zero or whose sum leaves the range
        of X's dtype.
    """
    weights = _check_sample_weight(sample_weight, X, dtype="float64", copy=False)
    if (weights < 0).any():
        raise ValueError("Negative values in sample_weight: every weight must be zero or positive.")
    if not (weights > 0).any():
        raise ValueError("All values of sample_weight are zero: at least one row must count.")
    limit = np.finfo(X.dtype).max
    # In two steps: the sum itself may overflow.
    if weights.max() > limit or (weights / len(weights)).sum() > limit / len(weights):
        raise ValueError(
            f"The sum of sample_weight exceeds {limit:.3g}, the largest number of X's type {X.dtype}: scale it."
        )
    # Steps work with square roots of weights, of a mean of one or more.
    roots = np.sqrt(weights / min(1.0, weights[weights > 0].mean()))
    return np.where(roots.astype(X.dtype) > 0, weights, 0.0)
