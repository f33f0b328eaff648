"""Parameters of both estimators: validation, and what 'auto' stands for."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from sklearn_subquad._compat import Interval, Off, ScoreName, StrOptions
from sklearn_subquad._curvature.preconditioners import cheapest_preconditioner
from sklearn_subquad._curvature.sketch import SKETCHES
from sklearn_subquad._fit.scoring import Score
from sklearn_subquad._linalg.packed import ROUTES
from sklearn_subquad._network.activations import SPARSIFIERS, auto_density
from sklearn_subquad._network.initial_weights import INPUT_WEIGHTS
from sklearn_subquad._network.network import Architecture
from sklearn_subquad._persistence import StampedEstimator
from sklearn_subquad._solver.gauss_newton import SolverOptions

# early_stopping="auto": from this number of rows on a held-out part is large enough to choose the number of steps.
_MIN_ROWS_FOR_VALIDATION = 100
# batch_size="auto": so many rows are fitted at once; more are cut into batches of at most the second number. With
# several outputs inner solves take many iterations, and smaller batches are as accurate (doc/defaults.md).
_AUTO_BATCHES, _AUTO_BATCHES_OF_OUTPUTS = (4096, 2048), (1024, 1024)
# By the squared error, classes are learned at least as well from an eighth of the rows at a time, between these limits.
_MIN_BATCH_OF_LABELS, _MAX_BATCH_OF_LABELS = 128, 1024
# A step of a batch is undone in part by the next, and so would be the work of solving for it more exactly. Where the
# curvature changes, a step that is not exact may be too long besides.
_AUTO_CG_TOL = 1e-2
_AUTO_CG_TOL_IN_BATCHES = {"squared_error": 3e-1, "log_loss": 1e-1, "poisson": 1e-1}
# The damping of a part of the data that is small enough to be that of all that follow. A part may say little: one of a
# single class asks for a large one.
_SETTLED_DAMPING = 0.3


class MLPParameters(StampedEstimator):
    """Parameters; the public estimators document them."""

    _parameter_constraints: dict[str, Any] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "sparsifier": [StrOptions(set(SPARSIFIERS))],
        "density": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), "array-like"],
        "skip_connections": ["boolean"],
        "init": [StrOptions(set(INPUT_WEIGHTS))],
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
        "early_stopping": [
            StrOptions({"auto", "loo", "validation"}),
            Off("use 'auto', or 'validation' to hold rows out"),
        ],
        "scoring": [ScoreName(), callable, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "feature_metric": [StrOptions({"learned"}), None],
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
        init: Literal["axis_aligned", "gaussian"] = "axis_aligned",
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
        scoring: str | Callable[..., float] | None = "loss",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        feature_metric: Literal["learned"] | None = None,
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
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.feature_metric = feature_metric
        self.standardize = standardize
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _architecture(self):
        widths = self._widths()
        return Architecture(
            widths=widths,
            densities=self._target_densities(widths),
            sparsifier=self.sparsifier,
            skip_connections=self.skip_connections,
            init=self.init,
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

    def _score(self):
        """What says on held-out rows when to stop, or None where it is the loss."""
        if isinstance(self.scoring, str) and self.scoring == "loss":
            return None
        return Score(self, self.scoring)

    def _resolved_early_stopping(self, n_rows, in_batches, validation, score, start):
        early_stopping = self.early_stopping
        if score is not None and early_stopping not in ("auto", "validation"):
            raise ValueError(
                f"scoring={self.scoring!r} says on held-out rows when to stop, but early_stopping={early_stopping!r} "
                "holds none out; use 'validation' or 'auto', or scoring='loss'."
            )
        if validation is not None:
            if early_stopping not in ("auto", "validation"):
                raise ValueError(
                    f"X_val and y_val say when to stop, but early_stopping={early_stopping!r} does not ask them; use "
                    "'validation' or 'auto', or leave them out."
                )
            return "validation"
        if early_stopping == "auto" and score is not None:
            early_stopping = "validation"
        if early_stopping == "auto":
            few = self.loss == "squared_error" and not in_batches and n_rows < _MIN_ROWS_FOR_VALIDATION
            early_stopping = "loo" if few and start is None else "validation" if n_rows > 1 else False
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
                "early_stopping='validation' needs at least two rows of positive sample_weight that differ; use 'loo'."
            )
        return early_stopping

    def _resolved_preconditioner(self, architecture, n_rows, n_outputs, n_curvatures, early_stopping):
        if self.preconditioner != "auto":
            return self.preconditioner
        if early_stopping == "loo":
            # It needs the Gram matrix in any case.
            return "gram"
        return cheapest_preconditioner(n_rows, architecture.widths, architecture.densities, n_outputs, n_curvatures)


def _own_type(value, number):
    """A parameter as Python's int or float, unless it is "auto": NumPy's narrow types overflow in what follows."""
    return value if isinstance(value, str) else number(value)
