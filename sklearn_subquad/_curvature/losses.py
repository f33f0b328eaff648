"""Losses, as functions of targets and outputs alone.

A loss is a sum over rows of ``w_i l(y_i, f_i)``. It offers what a Gauss-Newton step in the dual needs: its value,
a factor S of the curvature by the outputs, and the working residual r, with ``S r`` the negative gradient. The step
that solves ``(S^T J J^T S + ridge I) c = r`` then changes the parameters by ``J^T S c``.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

from sklearn_subquad._utils.slices import batches

# Rows whose values are computed, in double precision, at a time.
_CHUNK_ROWS = 4096
# Raw predictions beyond are as good as this one, and their differences do not overflow.
_MAX_RAW = 1e300


class IdentityFactor:
    """The curvature factor I."""

    is_identity = True
    row_scale = None

    def apply(self, C):
        """C itself."""
        return C

    def apply_transposed(self, C):
        """C itself."""
        return C


class DiagonalFactor:
    """The curvature factor that multiplies every output of every row by a number.

    Parameters
    ----------
    scale : ndarray of shape (n, 1) or (n, k)

    Attributes
    ----------
    row_scale : ndarray of shape (n, 1) or None
        The numbers, where there is one per row.
    """

    is_identity = False

    def __init__(self, scale):
        self._scale = scale
        self.row_scale = scale if scale.shape[1] == 1 else None

    def astype(self, dtype):
        """The factor in that precision."""
        return DiagonalFactor(self._scale.astype(dtype, copy=False))

    def apply(self, C):
        """``S C`` for C (n x k)."""
        return self._scale * C

    def apply_transposed(self, C):
        """``S^T C`` for C (n x k)."""
        return self._scale * C

    def output_scales(self):
        """Norms of the columns of S, for every row (n x k)."""
        return self._scale


class SoftmaxFactor:
    """The curvature factor of the log loss of class probabilities.

    Parameters
    ----------
    p : ndarray of shape (n, k)
        Positive; rows sum to one, to rounding.

    Attributes
    ----------
    probabilities : ndarray of shape (n, k)

    Notes
    -----
    With ``s = sqrt(p)`` by element, of norm one, ``S = diag(s) - p s^T`` and

        S S^T = diag(p) - 2 p p^T + p (s^T s) p^T = diag(p) - p p^T.

    ``S^T`` maps constants to zero, because adding one to all outputs of a row changes no probability; the null space
    of S is spanned by s.
    """

    is_identity = False
    row_scale = None

    def __init__(self, p):
        self.probabilities, self._root = p, np.sqrt(p)

    def astype(self, dtype):
        """The factor in that precision."""
        return SoftmaxFactor(self.probabilities.astype(dtype, copy=False))

    def apply(self, C):
        """``S C`` for C (n x k)."""
        scaled = self._root * C
        return scaled - self.probabilities * scaled.sum(axis=1, keepdims=True)

    def apply_transposed(self, C):
        """``S^T C`` for C (n x k)."""
        return self._root * (C - np.einsum("ij,ij->i", self.probabilities, C)[:, None])

    def output_scales(self):
        """Norms of the columns of S, for every row (n x k)."""
        squares = np.einsum("ij,ij->i", self.probabilities, self.probabilities)[:, None]
        return self._root * np.sqrt(np.maximum(1 - 2 * self.probabilities + squares, 0))


class Loss(ABC):
    """A loss of targets Y and network outputs F, both (n x k).

    The raw prediction, which the inverse link maps to the mean of y, is ``baseline + F``.

    Parameters
    ----------
    baseline : ndarray of shape (k,)

    Attributes
    ----------
    baseline : ndarray of shape (k,), float64
        Raw prediction of the best constant model, where it comes from `fit`.
    has_constant_curvature : bool
        True if the factor is the same at all outputs.
    has_labels : bool
        True if targets are labels, so that rows may have another one: see `value_of_other_labels`.

    Notes
    -----
    The smallest curvature that a factor holds is the rounding of the outputs' dtype. It has no effect on predictions
    that are right. For one that is wrong and sure, the working residual would otherwise grow without bound, and drown
    all other rows in an inner solve whose tolerance is relative.
    """

    has_constant_curvature = False
    has_labels = False

    def __init__(self, baseline):
        self.baseline = np.asarray(baseline, dtype=np.float64)

    @classmethod
    @abstractmethod
    def fit(cls, Y, sample_weight):
        """The loss with the baseline for targets (n x k) of positive weights (n,)."""

    def value(self, Y, F, sample_weight):
        """``sum_i w_i l(y_i, f_i)`` in double precision; infinity where outputs are not finite."""
        return self._total(self._row_values, Y, F, sample_weight)

    def _total(self, row_values, Y, F, sample_weight):
        """Weighted sum of a function of targets and raw predictions; infinity where outputs are not finite."""
        if not np.isfinite(F).all():
            return np.inf
        total = 0.0
        with np.errstate(over="ignore"):
            for rows in batches(len(Y), _CHUNK_ROWS):
                values = row_values(Y[rows].astype(np.float64), self._raw(F[rows]))
                total += float(sample_weight[rows] @ values)
        return total

    def reported(self, mean_value):
        """A mean of `value` over weights, in the unit that users read: here a deviance per output."""
        return 2 * mean_value / len(self.baseline)

    def rounding_floor(self, Y, sample_weight):
        """The smallest `value` that rounding of outputs in Y's dtype lets through: 0 where the baseline is perfect."""
        of_baseline = self.value(Y, np.zeros_like(Y), sample_weight)
        return of_baseline * (4 * np.finfo(Y.dtype).eps) ** 2

    @abstractmethod
    def residual(self, Y, F):
        """Working residual r (n x k) in F's dtype.

        The r of smallest norm for which ``factor(F).apply(r)`` is the negative gradient by the outputs, per row of
        weight one.
        """

    @abstractmethod
    def factor(self, F):
        """Factor S of the curvature ``S S^T`` by the outputs, per row of weight one, in F's dtype."""

    @abstractmethod
    def predict(self, F):
        """Predicted mean of y (n x k) in F's dtype."""

    @abstractmethod
    def _row_values(self, Y, raw):
        """``l(y_i, f_i)`` (n,) for raw predictions, all in double precision."""

    def _raw(self, F):
        return np.clip(self.baseline + F, -_MAX_RAW, _MAX_RAW)


class SquaredError(Loss):
    """Half the squared error, ``1/2 |y - f|²``, of centred targets: the baseline is zero.

    Parameters
    ----------
    n_outputs : int, default=1
    """

    has_constant_curvature = True

    def __init__(self, n_outputs=1):
        super().__init__(np.zeros(n_outputs))

    @classmethod
    def fit(cls, Y, sample_weight):
        return cls(Y.shape[1])

    def residual(self, Y, F):
        return (Y - F).astype(F.dtype, copy=False)

    def factor(self, F):
        return IdentityFactor()

    def predict(self, F):
        return F

    def _row_values(self, Y, raw):
        difference = Y - raw
        return 0.5 * np.einsum("ij,ij->i", difference, difference)


class _LogLoss(Loss):
    """Base class of both log losses."""

    has_labels = True

    def reported(self, mean_value):
        return mean_value

    def value_of_other_labels(self, Y, F, sample_weight):
        """`value` if every row had the most probable label besides its own, for indicators Y.

        Where every output is a label of its own, none of them is that of the row.
        """
        return self._total(self._row_values_of_others, Y, F, sample_weight)

    @abstractmethod
    def _row_values_of_others(self, Y, raw):
        """As `_row_values`, for the most probable label that a row does not have."""


class BinaryLogLoss(_LogLoss):
    """Log loss of one probability p per output, ``-y log p - (1 - y) log(1 - p)``, for y (n x k) in [0, 1].

    Notes
    -----
    With ``p = 1 / (1 + exp(-f))`` the gradient is ``p - y``, the curvature ``diag(p (1 - p))``.
    """

    @classmethod
    def fit(cls, Y, sample_weight):
        # Not one minus the other, which would round to a class that has no rows.
        others = ~Y if Y.dtype == bool else 1 - Y.astype(np.float64)
        priors = [_weighted_mean(labels, sample_weight) for labels in (Y, others)]
        missing = np.min(priors, axis=0) <= 0
        if missing.any():
            where = "" if len(missing) == 1 else f" in column {np.flatnonzero(missing).tolist()}"
            raise ValueError(
                f"loss='log_loss' needs rows of both classes, but y holds one class only{where}, in rows of positive "
                "sample_weight. Add rows of the other, or use loss='squared_error'."
            )
        return cls(np.log(priors[0]) - np.log(priors[1]))

    def reported(self, mean_value):
        return mean_value / len(self.baseline)

    def residual(self, Y, F):
        raw = self._raw(F)
        return ((Y - expit(raw)) / self._scale(raw, F.dtype)).astype(F.dtype, copy=False)

    def factor(self, F):
        return DiagonalFactor(self._scale(self._raw(F), F.dtype).astype(F.dtype, copy=False))

    def predict(self, F):
        return expit(self._raw(F)).astype(F.dtype, copy=False)

    @staticmethod
    def _scale(raw, dtype):
        return np.sqrt(np.maximum(expit(raw) * expit(-raw), np.finfo(dtype).eps))

    def _row_values_of_others(self, Y, raw):
        return -np.where(Y == 1, log_expit(-raw), log_expit(raw)).sum(axis=1)

    def _row_values(self, Y, raw):
        return -(Y * log_expit(raw) + (1.0 - Y) * log_expit(-raw)).sum(axis=1)


class MultinomialLogLoss(_LogLoss):
    """Log loss of class probabilities p, ``-sum_j y_j log p_j``, for y (n x k) whose rows sum to one.

    Notes
    -----
    With ``p = softmax(f)`` the gradient is ``p - y``, the curvature ``diag(p) - p p^T``; see `SoftmaxFactor`. As
    ``y - p`` sums to zero, ``r = (y - p) / sqrt(p)`` has ``S r = y - p - p sum(y - p) = y - p`` and is orthogonal to
    sqrt(p), which spans the null space of S. Both hold for p bounded away from zero in S and under the root, too.
    """

    @classmethod
    def fit(cls, Y, sample_weight):
        prior = _weighted_mean(Y, sample_weight)
        if not prior.all():
            raise ValueError(
                "loss='log_loss' needs rows of every class, but y has none of class number "
                f"{np.flatnonzero(prior == 0).tolist()} in rows of positive sample_weight. Add rows of it, remove the "
                "class, or use loss='squared_error'."
            )
        return cls(np.log(prior) - np.log(prior).mean())

    def residual(self, Y, F):
        p = softmax(self._raw(F), axis=1)
        return ((Y - p) / np.sqrt(self._bounded(p, F.dtype))).astype(F.dtype, copy=False)

    def factor(self, F):
        p = softmax(self._raw(F), axis=1)
        return SoftmaxFactor(self._bounded(p, F.dtype).astype(F.dtype, copy=False))

    def predict(self, F):
        return softmax(self._raw(F), axis=1).astype(F.dtype, copy=False)

    @staticmethod
    def _bounded(p, dtype):
        return np.maximum(p, np.finfo(dtype).eps)

    def _row_values_of_others(self, Y, raw):
        return -np.where(Y == 1, -np.inf, log_softmax(raw, axis=1)).max(axis=1)

    def _row_values(self, Y, raw):
        return -np.einsum("ij,ij->i", Y, log_softmax(raw, axis=1))


class PoissonDeviance(Loss):
    """Half the Poisson deviance with log link, ``mu - y f + y log y - y`` summed over outputs, for y >= 0.

    Notes
    -----
    With ``mu = exp(f)`` the gradient is ``mu - y``, the curvature ``diag(mu)``.
    """

    @classmethod
    def fit(cls, Y, sample_weight):
        if Y.min() < 0:
            raise ValueError(f"loss='poisson' needs y >= 0, but the smallest value of y is {Y.min():.3g}.")
        mean = _weighted_mean(Y, sample_weight)
        if not mean.all():
            raise ValueError(
                "loss='poisson' needs a positive mean of y, but y is zero in all rows of positive sample_weight, in "
                f"column {np.flatnonzero(mean == 0).tolist()}. Remove that column of y, or use loss='squared_error'."
            )
        return cls(np.log(mean))

    def residual(self, Y, F):
        mean = self._mean(F)
        return ((Y - mean) / self._scale(mean, F.dtype)).astype(F.dtype, copy=False)

    def factor(self, F):
        return DiagonalFactor(self._scale(self._mean(F), F.dtype).astype(F.dtype, copy=False))

    def predict(self, F):
        return self._mean(F).astype(F.dtype, copy=False)

    def _mean(self, F):
        """exp of the raw prediction, so far below the largest number of F's dtype that rounding cannot reach it."""
        limits = np.finfo(F.dtype)
        return np.exp(np.minimum(self._raw(F), np.log(limits.max) + np.log(limits.eps)))

    def _scale(self, mean, dtype):
        # Counts have a unit, probabilities have none: the bound is relative to the mean of y.
        return np.sqrt(np.maximum(mean, np.finfo(dtype).eps * np.exp(self.baseline)))

    def _row_values(self, Y, raw):
        # y (exp(d) - 1 - d) for mu = y exp(d): without cancellation close to a perfect fit.
        positive = Y > 0
        log_ratio = np.minimum(raw - np.log(np.where(positive, Y, 1.0)), np.log(np.finfo(np.float64).max))
        values = np.where(positive, Y * (np.expm1(log_ratio) - log_ratio), np.exp(log_ratio))
        return values.sum(axis=1)


def make_loss(name, Y, sample_weight):
    """The loss called `name`, with its baseline for the targets.

    Parameters
    ----------
    name : {"squared_error", "log_loss", "binary_log_loss", "poisson"}
        "log_loss" is `BinaryLogLoss` for one column of Y and `MultinomialLogLoss` for more.
    Y : ndarray of shape (n, k)
    sample_weight : ndarray of shape (n,), float64, positive

    Returns
    -------
    Loss
    """
    return _loss_class(name, Y.shape[1]).fit(Y, sample_weight)


def loss_with_baseline(name, baseline):
    """The loss called `name`, with a baseline (k,) that does not come from the targets."""
    return _loss_class(name, len(baseline))(baseline)


def _loss_class(name, n_outputs):
    return {
        "squared_error": SquaredError,
        "log_loss": BinaryLogLoss if n_outputs == 1 else MultinomialLogLoss,
        "binary_log_loss": BinaryLogLoss,
        "poisson": PoissonDeviance,
    }[name]


def _weighted_mean(Y, sample_weight):
    # Unlike np.average, without a product of Y's shape in double precision.
    return np.einsum("i,ij->j", sample_weight, Y) / sample_weight.sum()
