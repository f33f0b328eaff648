"""The only place that touches scikit-learn's private API."""

from collections.abc import Callable
from typing import TypeVar

from sklearn.base import _fit_context
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "Interval",
    "Options",
    "StrOptions",
    "check_matplotlib_support",
    "check_sample_weight",
    "fit_context",
]

_Method = TypeVar("_Method", bound=Callable)


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """scikit-learn's decorator of `fit`, which validates parameters; type checkers see the method through it."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


def check_sample_weight(sample_weight, X):
    """Weights as float64 of shape (n_samples,), ones for None.

    Raises
    ------
    ValueError
        For a wrong length, negative or non-finite weights, or weights that are all zero.
    """
    weights = _check_sample_weight(sample_weight, X, dtype="float64", copy=False)
    if (weights < 0).any():
        raise ValueError("Negative values in sample_weight: every weight must be zero or positive.")
    if not (weights > 0).any():
        raise ValueError("All values of sample_weight are zero: at least one row must count.")
    return weights
