"""What both estimators share: parameters, validation, fitting, fitted attributes, chunked prediction."""

import dataclasses
import math
import time
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_subquad._calibration import fitted_sharpness
from sklearn_subquad._compat import Interval, Options, StrOptions, check_sample_weight
from sklearn_subquad._fitting import (
    FittedStart,
    FittingOptions,
    TrainingSet,
    fit_network,
    held_out_rows,
    keeps_fitted_part,
)
from sklearn_subquad._initial_weights import INPUT_WEIGHTS
from sklearn_subquad._laplace import LinearisedLaplace, covariance_sketch_size
from sklearn_subquad._matmul import ROUTES, PackedMatrix
from sklearn_subquad._memory import CALIBRATION_ROWS, MAX_SQUARE_ROWS, FitSize, require_bytes
from sklearn_subquad._metric import MAX_METRIC_FEATURES
from sklearn_subquad._network import Architecture, Network
from sklearn_subquad._parallel import worker_threads
from sklearn_subquad._persistence import StampedEstimator
from sklearn_subquad._preconditioner import MAX_FACTORED_OUTPUTS, cheapest_preconditioner, resolved_sketch_size
from sklearn_subquad._scaling import BIAS_FEATURE, InputScaling, TargetScaling
from sklearn_subquad._sketch import SKETCHES
from sklearn_subquad._solver import SolverOptions
from sklearn_subquad._sparsifier import SPARSIFIERS, auto_density
from sklearn_subquad._stopping import StopReason

# init="auto", where nothing is tried.
_FIRST_INIT = "axis_aligned"
# early_stopping="auto": from this number of rows on a held-out part is large enough to choose the number of steps.
_MIN_ROWS_FOR_VALIDATION = 100
# batch_size="auto": so many rows are fitted at once; more are cut into batches of at most the second number. With
# several outputs inner solves take many iterations, and smaller batches are as accurate (doc/defaults.md).
_AUTO_BATCHES, _AUTO_BATCHES_OF_OUTPUTS = (4096, 2048), (1024, 1024)
# By the squared error, classes are learned at least as well from an eighth of the rows at a time, between these limits.
_MIN_BATCH_OF_LABELS, _MAX_BATCH_OF_LABELS = 128, 1024
# Steps of fewer rows times neurons consist of calls that take less time than it takes to wake a thread.
_MIN_STEP_FOR_THREADS = 400_000
# A step of a batch is undone in part by the next, and so would be the work of solving for it more exactly. Where the
# curvature changes, a step that is not exact may be too long besides.
_AUTO_CG_TOL = 1e-2
_AUTO_CG_TOL_IN_BATCHES = {"squared_error": 3e-1, "log_loss": 1e-1, "poisson": 1e-1}
# The damping of a part of the data that is small enough to be that of all that follow. A part may say little: one of a
# single class asks for a large one.
_SETTLED_DAMPING = 0.3
# What turns outputs of a loss into predictions, in the terms of scikit-learn's MLP.
_OUT_ACTIVATIONS = {
    "squared_error": "identity",
    "log_loss": "softmax",
    "binary_log_loss": "logistic",
    "poisson": "exp",
}


def densified(X):
    """Validated features as an array; MemoryError where there is no room for what a sparse matrix leaves out."""
    if not issparse(X):
        return X
    n_bytes = X.shape[0] * X.shape[1] * X.dtype.itemsize
    require_bytes(
        n_bytes,
        f"X is sparse, and its {X.shape[0]} rows of {X.shape[1]} features are made dense for the fit; use fewer of "
        "either, or reduce the features by sklearn.decomposition.TruncatedSVD.",
    )
    return X.toarray()


class BaseSubquadMLP(StampedEstimator):
    """Base class; the public estimators document the parameters."""

    # Set by `fit`.
    shifts_: NDArray[np.float64]
    gains_: NDArray[np.float64]
    densities_: NDArray[np.float64]
    init_: str
    init_scale_: float
    damping_: float
    n_iter_: int
    best_iter_: int
    n_cg_iter_: list[int]
    loss_curve_: list[float]
    density_curve_: NDArray[np.float64]
    rank_curve_: list[float]
    loo_curve_: list[float]
    validation_scores_: list[float]
    rank_: int
    phase_times_: dict[str, float]
    stop_reason_: str
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    _parameter_constraints: dict[str, Any] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "sparsifier": [StrOptions(set(SPARSIFIERS))],
        "density": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), "array-like"],
        "skip_connections": ["boolean"],
        "init": [StrOptions({"auto", *INPUT_WEIGHTS})],
        "init_scale": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "damping": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_rank": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "matmul": [StrOptions({"auto", *ROUTES})],
        "preconditioner": [StrOptions({"auto", "gram", "sketch", "none"})],
        "sketch": [StrOptions(set(SKETCHES))],
        "sketch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "cg_tol": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "max_cg_iter": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": [StrOptions({"auto", "loo", "validation"}), Options(bool, {False})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "feature_metric": [StrOptions({"auto"}), None],
        "standardize": ["boolean"],
        "n_jobs": [
            None,
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (1024, 1024),
        loss: Literal["squared_error", "poisson", "log_loss"] = "squared_error",
        sparsifier: Literal["shifted_relu", "topk"] = "shifted_relu",
        density: Literal["auto"] | float | Sequence[float] = "auto",
        skip_connections: bool = True,
        init: Literal["auto", "axis_aligned", "gaussian"] = "auto",
        init_scale: Literal["auto"] | float = "auto",
        damping: Literal["auto"] | float = "auto",
        alpha: float = 0.0,
        max_rank: Literal["auto"] | int = "auto",
        matmul: Literal["auto", "scatter", "blas", "strassen"] = "auto",
        preconditioner: Literal["auto", "gram", "sketch", "none"] = "auto",
        sketch: Literal["tensor_srht", "tensor_sketch"] = "tensor_srht",
        sketch_size: Literal["auto"] | int = "auto",
        cg_tol: Literal["auto"] | float = "auto",
        max_cg_iter: int = 50,
        max_iter: int = 20,
        batch_size: Literal["auto"] | int = "auto",
        tol: float = 1e-3,
        early_stopping: Literal["auto", "loo", "validation", False] = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        feature_metric: Literal["auto"] | None = "auto",
        standardize: bool = True,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int | bool = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.loss = loss
        self.sparsifier = sparsifier
        self.density = density
        self.skip_connections = skip_connections
        self.init = init
        self.init_scale = init_scale
        self.damping = damping
        self.alpha = alpha
        self.max_rank = max_rank
        self.matmul = matmul
        self.preconditioner = preconditioner
        self.sketch = sketch
        self.sketch_size = sketch_size
        self.cg_tol = cg_tol
        self.max_cg_iter = max_cg_iter
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.feature_metric = feature_metric
        self.standardize = standardize
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    # ---- parameters ---------------------------------------------------------------------------------------

    def _architecture(self):
        widths = self._widths()
        return Architecture(
            widths=widths,
            densities=self._target_densities(widths),
            sparsifier=self.sparsifier,
            skip_connections=self.skip_connections,
            init=_FIRST_INIT if self.init == "auto" else self.init,
            init_scale=_own_type(self.init_scale, float),
            max_rank=_own_type(self.max_rank, int),
            matmul=self.matmul,
            keep_start=self.alpha > 0,
        )

    def _widths(self):
        try:
            widths = np.atleast_1d(np.asarray(self.hidden_layer_sizes))
        except ValueError:
            # Sequences of different lengths within the sequence.
            widths = np.empty(0)
        integral = widths.dtype.kind in "iu"
        if widths.ndim != 1 or not len(widths) or not integral or widths.min() < 1:
            raise ValueError(
                "hidden_layer_sizes must be a positive integer or a non-empty sequence of them, one per hidden "
                f"layer; got {self.hidden_layer_sizes!r}."
            )
        return tuple(int(width) for width in widths)

    def _target_densities(self, widths):
        if isinstance(self.density, str):
            return tuple(auto_density(width) for width in widths)
        try:
            densities = np.asarray(self.density)
            # Strings and complex numbers would be converted as well.
            densities = densities.astype(np.float64) if densities.dtype.kind in "iufO" else np.empty(0)
            if densities.ndim == 0:
                densities = np.full(len(widths), densities)
        except (TypeError, ValueError):
            densities = np.empty(0)
        if densities.shape != (len(widths),) or not np.all((densities > 0) & (densities <= 0.5)):
            raise ValueError(
                "density must be 'auto', a number in (0, 0.5], or one such number per hidden layer "
                f"({len(widths)} here); got {self.density!r}."
            )
        return tuple(float(density) for density in densities)

    def _solver_options(self, in_batches, preconditioner, start, partial):
        cg_tol, damping = _own_type(self.cg_tol, float), _own_type(self.damping, float)
        if damping == "auto" and partial and start is not None and start.batch_damping <= _SETTLED_DAMPING:
            damping = start.batch_damping
        if cg_tol == "auto":
            cg_tol = _AUTO_CG_TOL_IN_BATCHES[self.loss] if in_batches else _AUTO_CG_TOL
        return SolverOptions(
            damping=damping,
            alpha=float(self.alpha),
            preconditioner=preconditioner,
            sketch=self.sketch,
            sketch_size=_own_type(self.sketch_size, int),
            cg_tol=cg_tol,
            max_cg_iter=int(self.max_cg_iter),
            max_iter=1 if partial else int(self.max_iter),
            goes_on=start is not None,
            tol=float(self.tol),
            n_iter_no_change=int(self.n_iter_no_change),
            verbose=int(self.verbose),
        )

    # ---- fitting ------------------------------------------------------------------------------------------

    def _beginning(self):
        """Architecture of a fit, and the `FittedStart` that it goes on from. Without one, forget what was fitted."""
        start = self._present() if self.warm_start else None
        architecture = self._architecture_from(start)
        if start is None:
            self._forget()
        return architecture, start

    def _present(self):
        """The fitted model as a `FittedStart`, or None where there is none."""
        if not self.__sklearn_is_fitted__():
            return None
        _, inputs, targets = self._model()
        return FittedStart(inputs, targets, self._state_)

    def _validated_data(self, X, y, start, **checks):
        """Features and targets, in the precision and with the features of a start where there is one."""
        return validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32] if start is None else start.dtype,
            multi_output=True,
            reset=start is None,
            **checks,
        )

    def _architecture_from(self, start):
        """The architecture, with the initial weights that a start had; ValueError where it has another shape."""
        architecture = self._architecture()
        if start is None:
            return architecture
        fitted = {name: getattr(architecture, name) for name in self._architecture_ if name != "init_scale"}
        changed = [name for name, value in fitted.items() if self._architecture_[name] != value]
        if changed:
            names = {"widths": "hidden_layer_sizes", "densities": "density"}
            raise ValueError(
                f"{', '.join(names.get(name, name) for name in changed)} cannot change between a fit and one that goes "
                "on from it; use warm_start=False, or fit a new estimator."
            )
        return dataclasses.replace(architecture, init=self.init_, init_scale=self.init_scale_)

    def _fit_part(self, X, Y, sample_weight, *, start, **options):
        """One pass over a part of the data; what it changes is changed at its end."""
        added_up = () if start is None else ("n_iter_", "loss_curve_", "n_cg_iter_", "rank_curve_")
        before = {name: getattr(self, name) for name in added_up}
        densities = [] if start is None else [self.density_curve_]
        sharpness = None if start is None else self._state_["sharpness"]
        self._fit_network(X, Y, sample_weight, start=start, partial=True, **options)
        found = self.damping_ if np.isfinite(self.damping_) else np.inf
        least = found if start is None else min(found, start.batch_damping)
        self._state_ |= {"sharpness": sharpness, "batch_damping": least}
        for name, value in before.items():
            setattr(self, name, value + getattr(self, name))
        self.density_curve_ = np.concatenate([*densities, self.density_curve_])
        self.best_iter_ = self.n_iter_

    def _forget(self):
        """Make the estimator unfitted, until a fit has set everything else and `_state_` last."""
        self.__dict__.pop("_state_", None)

    def _fit_network(
        self,
        X,
        Y,
        sample_weight,
        *,
        architecture,
        unit_variance_targets,
        stratify=None,
        covariance=False,
        calibration=False,
        independent_labels=False,
        validation=None,
        start=None,
        partial=False,
    ):
        """Fit on validated X, encoded targets Y (n x k) and weights; set all fitted attributes at the end.

        A `validation` set says when to stop in the place of held-out rows. A fit goes on from a `start`, if there is
        one. A `partial` one is a single pass over rows that others will follow.

        With `covariance`, what deviations of outputs are computed from is among them; with `calibration`, what outputs
        are multiplied by to be logarithms of probabilities. With `independent_labels`, every column of Y is one of its
        own.
        """
        loss = "binary_log_loss" if independent_labels and self.loss == "log_loss" else self.loss
        if start is not None and _OUT_ACTIVATIONS[loss] != self.out_activation_:
            raise ValueError(
                f"loss={self.loss!r} is not the loss of the fit before, whose outputs mean something else, and cannot "
                "change where a fit goes on; use warm_start=False, or fit a new estimator."
            )
        _require_range(X)
        counted = np.flatnonzero(sample_weight)
        # Weights count as copies of rows, and the damping is relative to single rows. Weights that only compare rows,
        # such as those that sum to one, are brought to mean one: on average no row stands for less than itself.
        data = TrainingSet(X, Y, sample_weight / min(1.0, sample_weight[counted].mean()))
        if len(counted) < len(X):
            data = data[counted]
            stratify = None if stratify is None else stratify[counted]
        n_rows = len(data.X)
        batch_size = self._resolved_batch_size(n_rows, Y)
        # Of all rows, once: a part of them may be no larger than a batch, and is to be fitted as the whole is.
        in_batches = partial or n_rows > batch_size
        early_stopping = False
        if not partial:
            early_stopping = self._resolved_early_stopping(n_rows, in_batches, validation, start)
        # Held-out rows decide what is learned from, where there are not too many features to try.
        choices = early_stopping == "validation" and X.shape[1] <= MAX_METRIC_FEATURES and start is None
        learn_metric = choices and self.feature_metric == "auto"
        inits = tuple(INPUT_WEIGHTS) if choices and self.init == "auto" else (architecture.init,)
        validation_fraction = float(self.validation_fraction)
        splits = early_stopping == "validation" and validation is None
        n_held_out = held_out_rows(n_rows, validation_fraction) if splits else 0
        keeps_part = validation is not None or keeps_fitted_part(in_batches, n_held_out)
        fitted = n_rows - n_held_out if keeps_part else n_rows
        # What batches really have may be half of the most that they are allowed, for a part more than for all rows.
        rows_of_a_step = max(math.ceil(n / math.ceil(n / batch_size)) for n in {fitted, n_rows - n_held_out})
        n_factors = 1 if self.loss == "squared_error" else min(Y.shape[1], MAX_FACTORED_OUTPUTS)
        preconditioner = self._resolved_preconditioner(
            architecture, rows_of_a_step, Y.shape[1], n_factors, early_stopping
        )
        solver = self._solver_options(in_batches, preconditioner, start, partial)
        size = FitSize(
            widths=architecture.widths,
            densities=architecture.densities,
            n_rows=n_rows,
            rows_of_a_step=rows_of_a_step,
            n_inputs=X.shape[1] + 1,
            n_outputs=Y.shape[1],
            itemsize=X.dtype.itemsize,
            keep_start=architecture.keep_start,
            topk=architecture.sparsifier == "topk",
            forms_gram=preconditioner == "gram" or early_stopping == "loo",
            sketch_size=resolved_sketch_size(solver.sketch_size, rows_of_a_step) if preconditioner == "sketch" else 0,
            n_factors=n_factors,
            covariance_size=covariance_sketch_size(fitted) if covariance else 0,
            keeps_a_model=keeps_part and (learn_metric or len(inits) > 1),
            n_validation_rows=0 if validation is None else len(validation.X),
        )
        self._require_memory(size)
        options = FittingOptions(
            architecture=architecture,
            solver=solver,
            loss=loss,
            in_batches=in_batches,
            batch_size=batch_size,
            standardize=self.standardize,
            unit_variance_targets=unit_variance_targets,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            keep_left_out=calibration,
            inits=inits,
            learn_metric=learn_metric,
            start=start,
            from_any_part=partial,
            seed=check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
        )
        small = rows_of_a_step * sum(architecture.widths) < _MIN_STEP_FOR_THREADS
        with worker_threads(1 if small else self.n_jobs):
            model = fit_network(data, options, stratify, validation)
            # Where the fit ends before the first step because targets are fitted, they are constant themselves.
            fitted_at_once = model.result.stop_reason is StopReason.INTERPOLATED and not model.result.took_steps
            if model.result.best_iter == 0 and not fitted_at_once and start is None:
                warnings.warn(_why_constant(model.result), ConvergenceWarning, stacklevel=4)
            elif not in_batches and 2 * model.result.n_unconverged > model.result.n_solves:
                # In batches, what a step of one leaves out is made up for by the next.
                warnings.warn(_how_inexact(model.result, options.solver), ConvergenceWarning, stacklevel=4)
            laplace = self._laplace(model, options.seed) if covariance else None
            sharpness = None
            if model.left_out is not None:
                sharpness = fitted_sharpness(model.left_out_rows, independent_labels)
            self.out_activation_ = _OUT_ACTIVATIONS[loss]
            self._set_fitted(model, early_stopping, self._measure_densities(model, data.X), laplace, sharpness)

    def _validation_set(self, X_val, y_val, sample_weight_val, dtype, encode):
        """Rows that say when to stop, or None where none are given.

        `encode` turns y_val and weights into targets (n x k) as the network has them, and weights.
        """
        if X_val is None and y_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val was passed without X_val and y_val; leave it out, or pass them.")
            return None
        if X_val is None or y_val is None:
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"{given} was passed without {missing}; a validation set needs both.")
        try:
            X_val = validate_data(self, X_val, accept_sparse="csr", dtype=dtype, reset=False)
        except ValueError as error:
            raise ValueError(f"X_val, the features of the validation set: {error}") from error
        try:
            weights = check_sample_weight(sample_weight_val, X_val)
        except ValueError as error:
            raise ValueError(f"sample_weight_val, of the validation set: {error}") from error
        y_val = check_array(y_val, accept_sparse="csr", ensure_2d=False, dtype=None, input_name="y_val")
        check_consistent_length(X_val, y_val)
        Y, weights = encode(y_val, weights)
        if not (weights > 0).any():
            raise ValueError("No row of the validation set has a positive weight.")
        rows = TrainingSet(densified(X_val), Y, weights)
        return rows if (weights > 0).all() else rows[weights > 0]

    def _resolved_batch_size(self, n_rows, Y):
        """Rows of a batch; all rows where they are one batch."""
        if self.batch_size != "auto":
            return min(int(self.batch_size), n_rows)
        if Y.dtype == bool and self.loss == "squared_error" and self.early_stopping != "loo":
            # A part of the rows is to be more than one batch where all are.
            at_once = 2 * _MIN_BATCH_OF_LABELS
            part = min(max(_MIN_BATCH_OF_LABELS, math.ceil(n_rows / 8)), _MAX_BATCH_OF_LABELS)
        else:
            at_once, part = _AUTO_BATCHES if Y.shape[1] == 1 else _AUTO_BATCHES_OF_OUTPUTS
        return n_rows if n_rows <= at_once else part

    def _resolved_early_stopping(self, n_rows, in_batches, validation, start):
        early_stopping = self.early_stopping
        if validation is not None:
            if early_stopping not in ("auto", "validation"):
                raise ValueError(
                    f"X_val and y_val say when to stop, but early_stopping={early_stopping!r} does not ask them; use "
                    "'validation' or 'auto', or leave them out."
                )
            return "validation"
        if early_stopping == "auto":
            few = self.loss == "squared_error" and not in_batches and n_rows < _MIN_ROWS_FOR_VALIDATION
            early_stopping = "loo" if few and start is None else "validation"
        if early_stopping == "loo" and start is not None:
            raise ValueError(
                "early_stopping='loo' corrects for steps from the start, of which warm_start=True knows the last ones "
                "only; use 'validation' or False."
            )
        if early_stopping == "loo" and self.loss != "squared_error":
            raise ValueError(
                f"early_stopping='loo' is a formula of the squared error, but loss={self.loss!r}; use 'validation'."
            )
        if early_stopping == "loo" and in_batches:
            raise ValueError(
                f"early_stopping='loo' needs all {n_rows} rows in one batch, but batch_size={self.batch_size!r} cuts "
                "them; use 'validation', or a batch_size of at least the number of rows."
            )
        if early_stopping == "validation" and n_rows < 2:
            raise ValueError(
                "early_stopping='validation' needs at least two rows of positive sample_weight; use 'loo'."
            )
        return early_stopping

    def _resolved_preconditioner(self, architecture, n_rows, n_outputs, n_factors, early_stopping):
        if self.preconditioner != "auto":
            return self.preconditioner
        if early_stopping == "loo":
            # It needs the Gram matrix in any case.
            return "gram"
        return cheapest_preconditioner(n_rows, architecture.widths, architecture.densities, n_outputs, n_factors)

    def _require_memory(self, size):
        advice = "use narrower layers, a smaller batch_size, fewer rows or X in single precision."
        if size.forms_gram and size.rows_of_a_step > MAX_SQUARE_ROWS:
            asked = "early_stopping='loo'" if self.early_stopping == "loo" else "preconditioner='gram'"
            advice = f"{asked} takes most of that; leave it at 'auto', or use a smaller batch_size."
        elif size.sketch_size > resolved_sketch_size("auto", size.rows_of_a_step):
            advice = f"sketch_size={size.sketch_size} is more than 'auto', which may be enough; or {advice}"
        require_bytes(
            size.weight_bytes + size.row_bytes,
            f"hidden_layer_sizes={size.widths} takes {size.weight_bytes:,} bytes of weights and, for {size.n_rows} "
            f"rows, about {size.row_bytes:,} more; {advice}",
        )

    @staticmethod
    def _laplace(model, seed):
        start = time.perf_counter()
        laplace = LinearisedLaplace.fit(model.network, model.batch, model.result.left_out_error, seed)
        model.result.phase_times["covariance"] = time.perf_counter() - start
        return laplace

    def _set_fitted(self, model, early_stopping, densities, laplace, sharpness):
        network, result = model.network, model.result
        self._architecture_ = {
            "widths": network.architecture.widths,
            "densities": network.architecture.densities,
            "sparsifier": network.architecture.sparsifier,
            "skip_connections": network.architecture.skip_connections,
            "init_scale": network.architecture.init_scale,
        }
        self.init_ = network.architecture.init
        self.init_scale_ = network.architecture.init_scale
        self.densities_ = densities
        self.shifts_ = np.array([layer.shift for layer in network.layers])
        self.gains_ = np.array([layer.gain for layer in network.layers])
        self.n_layers_ = len(network.layers) + 2
        self.n_outputs_ = network.output_weights[0].shape[1]
        self.n_iter_ = result.n_iter
        self.best_iter_ = result.best_iter
        self.n_cg_iter_ = list(result.n_cg_iter)
        self.damping_ = result.damping
        self.loss_curve_ = list(result.loss_curve)
        # Also of no pass at all an array of one column per layer.
        self.density_curve_ = np.reshape(result.density_curve, (-1, len(network.layers)))
        self.rank_curve_ = list(result.rank_curve)
        self.stop_reason_ = result.stop_reason.value
        self.rank_ = max((weights.max_rank_seen for weights in network.lazy_weights()), default=0)
        self.phase_times_ = result.phase_times
        for name in ("loo_curve_", "validation_scores_"):
            if hasattr(self, name):
                delattr(self, name)
        if early_stopping == "loo":
            self.loo_curve_ = list(result.error_curve)
        elif early_stopping == "validation":
            self.validation_scores_ = [1.0 - error for error in result.error_curve]
        self._state_ = network.to_state() | {
            "input_mean": model.inputs.mean,
            "input_scale": model.inputs.scale,
            "input_metric": model.inputs.metric,
            "target_mean": model.targets.mean,
            "target_scale": model.targets.scale,
            "laplace": None if laplace is None else laplace.to_state(),
            "sharpness": sharpness,
            "batch_damping": np.inf,
        }

    @staticmethod
    def _measure_densities(model, X):
        network = model.network
        # Rows at equal distances: their order may mean something.
        X = X[:: -(-len(X) // CALIBRATION_ROWS)]
        active = np.zeros(len(network.layers))
        for rows in network.row_batches(len(X)):
            active += network.forward(model.inputs.transform(X[rows])).n_active
        return network.mean_densities(active, len(X))

    # ---- prediction ---------------------------------------------------------------------------------------

    def _model(self):
        """The fitted network and its scalings, on the stored arrays."""
        state = self._state_
        network = Network.from_state(Architecture(**self._architecture_), state)
        inputs = InputScaling(state["input_mean"], state["input_scale"], state["input_metric"])
        return network, inputs, TargetScaling(state["target_mean"], state["target_scale"])

    def _outputs(self, X, return_std=False):
        """Network outputs (n x k) in the target's units, for unvalidated X; if asked, their deviations as well."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        network, inputs, targets = self._model()
        out = np.empty((X.shape[0], self.n_outputs_), dtype=X.dtype)
        if return_std:
            laplace, std = LinearisedLaplace.from_state(self._state_["laplace"]), np.empty_like(out)
        with worker_threads(self.n_jobs):
            for rows in network.row_batches(X.shape[0]):
                x = inputs.transform(densified(X[rows])).astype(network.dtype, copy=False)
                out[rows] = targets.inverse_transform(network.forward(x).output)
                if return_std:
                    std[rows] = targets.scale * np.sqrt(laplace.variance(network, x))
        return (out, std) if return_std else out

    # ---- parameters of the network, as dense arrays ----------------------------------------------------------

    @property
    def coefs_(self) -> list[NDArray[np.floating]]:
        """Weights in the layout of scikit-learn's MLP, built from the packed tiles at every access.

        List of n_layers_ - 1 arrays. With skip connections, item l has shape
        ``(m_l + n_features_in_, m_{l+1})``, where m_0 = 0: first the rows for the hidden layer before, then
        those for the (standardised) features; the last item has n_outputs_ columns. Without, item 0 has
        shape ``(n_features_in_, m_1)`` and item l has shape ``(m_l, m_{l+1})``.
        """
        return [hidden_and_features for hidden_and_features, _ in self._dense_layers()]

    @property
    def intercepts_(self) -> list[NDArray[np.floating]]:
        """List of n_layers_ - 1 arrays of shape (m_l,): the constant input's share of each pre-activation.

        The threshold `shifts_` is not part of it.
        """
        return [intercept for _, intercept in self._dense_layers()]

    def _dense_layers(self):
        check_is_fitted(self)
        state, widths = self._state_, self._architecture_["widths"]
        metric = state["input_metric"]
        hidden = [
            None,
            *(PackedMatrix(t, m).to_dense().T for t, m in zip(state["tiles"], widths[1:], strict=True)),
        ]
        inputs = [None if weights is None else weights.T for weights in state["input_weights"]]
        hidden.append(state["output_weights"][0])
        inputs.append(state["output_weights"][1])
        layers = []
        for from_hidden, from_input in zip(hidden, inputs, strict=True):
            parts = [] if from_hidden is None else [from_hidden]
            width = (from_input if from_hidden is None else from_hidden).shape[1]
            intercept = np.zeros(width, dtype=state["output_weights"][0].dtype)
            if from_input is not None:
                parts.append(from_input[:-1] if metric is None else metric.astype(from_input.dtype) @ from_input[:-1])
                intercept = intercept.dtype.type(BIAS_FEATURE) * from_input[-1]
            layers.append((np.concatenate(parts), intercept))
        return layers

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state_")


def _require_range(X):
    """Refuse features whose differences, of all features together, may leave the range of doubles."""
    largest, limit = max(X.max(), -X.min()), np.finfo(np.float64).max / (4 * math.sqrt(X.shape[1]))
    if largest > limit:
        raise ValueError(f"X holds {largest:.3g}, but numbers beyond {limit:.3g} cannot be standardised: scale X.")


def _own_type(value, number):
    """A parameter as Python's int or float, unless it is "auto": NumPy's narrow types overflow in what follows."""
    return value if isinstance(value, str) else number(value)


def _why_constant(result):
    """A message for users whose model says the same of all rows."""
    constant = "the model predicts the mean of y (a classifier: the class frequencies)."
    if result.took_steps:
        return (
            f"No step lowers the early-stopping error below that of a constant: {constant} Either these rows do not "
            "show that X says anything about y, and more rows may; or the steps do not suit them: try another damping, "
            "a larger max_iter, or early_stopping=False."
        )
    return (
        f"No step lowers the training loss: {constant} Either X says nothing about y, or its scale is extreme: then "
        "leave standardize=True, or scale X. Or damping, alpha or init_scale is so large that steps are lost in "
        "rounding."
    )


def _how_inexact(result, solver):
    """A message for users whose steps are mostly not what they would be by `cg_tol`."""
    return (
        f"{result.n_unconverged} of {result.n_solves} inner solves did not reach cg_tol={solver.cg_tol} in "
        f"max_cg_iter={solver.max_cg_iter} iterations. Their steps were taken all the same, and may fit less than "
        "exact ones: raise max_cg_iter or cg_tol, or choose another preconditioner."
    )
