"""Parameters of both estimators."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sklearn_subquad._compat import Interval, Off, ScoreName, StrOptions
from sklearn_subquad._curvature.sketch import SKETCHES
from sklearn_subquad._linalg.packed import ROUTES
from sklearn_subquad._network.activations import SPARSIFIERS
from sklearn_subquad._network.initial_weights import INPUT_WEIGHTS
from sklearn_subquad._persistence import StampedEstimator


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
        "n_folds": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "n_bins": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left"), None],
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
        "standardize": ["boolean"],
        "precision": [StrOptions({"auto", "single", "double"})],
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
        hidden_layer_sizes: int | Sequence[int] = (512, 512),
        loss: Literal["squared_error", "poisson", "log_loss"] = "squared_error",
        sparsifier: Literal["shifted_relu", "topk"] = "shifted_relu",
        density: Literal["auto"] | float | Sequence[float] = "auto",
        skip_connections: bool = True,
        init: Literal["axis_aligned", "gaussian"] = "axis_aligned",
        init_scale: Literal["auto"] | float = "auto",
        damping: Literal["auto"] | float = "auto",
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
        n_folds: Literal["auto"] | int = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        n_bins: Literal["auto"] | int | None = "auto",
        categorical_features: Literal["from_dtype"] | ArrayLike | None = "from_dtype",
        standardize: bool = True,
        precision: Literal["auto", "single", "double"] = "auto",
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
        self.n_folds = n_folds
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.n_bins = n_bins
        self.categorical_features = categorical_features
        self.standardize = standardize
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
