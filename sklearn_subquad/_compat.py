"""The only place that touches scikit-learn's private API."""

from collections.abc import Callable
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any, Self, TypeVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight

from sklearn_subquad._utils.missing import named_errors

__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "Off",
    "ScoreName",
    "StrOptions",
    "accepts_sample_weight",
    "callback_context",
    "check_matplotlib_support",
    "check_sample_weight",
    "fit_context",
    "safe_indexing",
]

_Method = TypeVar("_Method", bound=Callable)


class ScoreName(StrOptions):
    """Constraint: a name of one of scikit-learn's scores, or "loss".

    Unlike `StrOptions` of all names, it imports the metrics only where another name than "loss" is looked up.
    """

    def __init__(self):
        super().__init__({"loss"})

    def is_satisfied_by(self, val):
        if not isinstance(val, str):
            return False
        if val == "loss":
            return True
        from sklearn.metrics import get_scorer_names

        return val in get_scorer_names()

    def __str__(self):
        return "'loss' or a name among those of sklearn.metrics.get_scorer_names()"


class Off(Options):
    """The constraint of a parameter of which only False is a truth value."""

    def __init__(self, instead_of_true):
        super().__init__(bool, {False})
        self._instead_of_true = instead_of_true

    def __str__(self):
        return f"False (for True, {self._instead_of_true})"


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """scikit-learn's decorator of `fit`, which validates parameters; type checkers see the method through it."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


def _knows_callbacks(estimator):
    return find_spec("sklearn.callback") is not None


class CallbackSupportMixin:
    """scikit-learn's mixin of that name, imported where a callback is set.

    It imports its progress bar, and that one the package rich where there is one, which would take longer than all that
    this package imports.
    """

    @available_if(_knows_callbacks)
    def set_callbacks(self, *callbacks: Any) -> Self:
        """Set callbacks, which are told of every fit of a network and every step, and may ask to stop.

        Parameters
        ----------
        *callbacks : sklearn.callback.FitCallback
            Those that take the place of any set before; none to have none. Needs scikit-learn 1.9.

        Returns
        -------
        self : estimator

        Raises
        ------
        TypeError
            Where one does not follow the protocol.
        """
        from sklearn.callback import CallbackSupportMixin

        return CallbackSupportMixin.set_callbacks(self, *callbacks)

    def _init_callback_context(self, **options):
        from sklearn.callback import CallbackSupportMixin

        return CallbackSupportMixin._init_callback_context(self, **options)


def callback_context(estimator):
    """Root of the tree of tasks that callbacks see of a fit, or None where the estimator has no callbacks."""
    if not getattr(estimator, "_skl_callbacks", ()):
        return None
    # How many tasks there will be depends on what they find.
    return estimator._init_callback_context(max_subtasks=None)


def accepts_sample_weight(scorer):
    """Return True if a scorer, or a callable in its place, takes `sample_weight`."""
    if hasattr(scorer, "_accept_sample_weight"):
        return scorer._accept_sample_weight()
    # Before scikit-learn 1.7 a scorer that takes any keyword hands it on to a metric that may not.
    try:
        parameters = signature(getattr(scorer, "_score_func", scorer)).parameters.values()
    except ValueError:
        # Compiled functions may have none.
        return False
    return any(each.name == "sample_weight" or each.kind is Parameter.VAR_KEYWORD for each in parameters)


def check_sample_weight(sample_weight, X):
    """Weights as float64 of shape (n_samples,), ones for None; zero where X's dtype has no number for so small a one.

    Raises
    ------
    ValueError
        For a wrong length, negative or non-finite weights, weights that are no numbers or all zero, or whose sum leaves
        the range of X's dtype.
    """
    with named_errors(sample_weight, "sample_weight"):
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
    # Steps work with square roots of weights, of a mean of one.
    roots = np.sqrt(weights / weights[weights > 0].mean())
    return np.where(roots.astype(X.dtype) > 0, weights, 0.0)
