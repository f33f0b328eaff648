"""The plan of a fit, made once and before it begins."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from sklearn_subquad._curvature.preconditioners import (
    MAX_FACTORED_OUTPUTS,
    MAX_SQUARE_ROWS,
    cheapest_preconditioner,
    default_sketch_size,
)
from sklearn_subquad._fit.held_out import held_out_parts
from sklearn_subquad._fit.init_scale import scale_of_initial_weights, small_init_scale
from sklearn_subquad._fit.laplace import N_COVARIANCES, covariance_sketch_size
from sklearn_subquad._fit.layers import densities_of, widths_of
from sklearn_subquad._fit.memory import FitSize, SparseInputs
from sklearn_subquad._fit.scaling import InputScaling, Ramps
from sklearn_subquad._fit.target_statistics import features_to_fit
from sklearn_subquad._linalg.threads import resolve_n_jobs
from sklearn_subquad._network.network import Architecture
from sklearn_subquad._solver.options import SolverOptions

# precision="auto": from this number of rows on networks are in single precision.
_MIN_ROWS_FOR_SINGLE = 100
_DTYPES = {"single": np.dtype(np.float32), "double": np.dtype(np.float64)}
# early_stopping="auto": from this number of rows on a held-out part is large enough to choose the number of steps.
_MIN_ROWS_FOR_VALIDATION = 100
# batch_size="auto": so many rows are fitted at once; more are cut into batches of at most the second number. With
# several outputs inner solves take many iterations.
_AUTO_BATCHES, _AUTO_BATCHES_OF_OUTPUTS = (4096, 2048), (1024, 1024)
# The same by the squared error, of which batches learn as much as all rows at once, and sooner (doc/defaults.md).
_AUTO_BATCHES_OF_TARGETS = (1000, 256)
# Classes are learned at least as well from an eighth of the rows at a time, between these limits.
_MIN_BATCH_OF_LABELS, _MAX_BATCH_OF_LABELS = 128, 1024
# cg_tol="auto", of the squared error and of other losses: where the curvature changes, a step that is not exact may be
# too long besides. A step of a batch is undone in part by the next, and so would be the work of solving for it more
# exactly.
_AUTO_CG_TOL, _AUTO_CG_TOL_IN_BATCHES = (1e-1, 1e-2), (3e-1, 1e-1)
# The damping of a part of the data that is small enough to be that of all that follow. A part may say little: one of a
# single class asks for a large one.
_SETTLED_DAMPING = 0.3
# n_folds="auto": up to so many rows, so many folds. A network lacks one of them, which matters less of many rows.
# Powers of two leave no processor idle, and give both kinds of networks the same number.
_FOLDS = ((5000, 8), (math.inf, 4))
# n_bins="auto": the cube root of the number of rows, as is best for a histogram (D. Freedman, P. Diaconis, "On the
# histogram as a density estimator: L2 theory", 1981), up to a number beyond which errors do not fall. So many columns
# of ramps at least, which few features leave room for, if bins have ten rows each; no more columns than the products
# with sparse rows hide; and none where that leaves fewer bins than say more than the feature itself.
_MIN_AUTO_COLUMNS, _MAX_AUTO_COLUMNS, _MIN_AUTO_BINS, _MAX_AUTO_BINS, _ROWS_OF_A_BIN = 16, 256, 3, 8, 10
# The same for networks whose ramps are loud, up to a number of their own. By the squared error, labels are learned with
# some of these from so many rows on: where rows are few, they gain no decision.
_MAX_LOUD_BINS, _MIN_LABELS_FOR_LOUD = 16, 1000
# Steps of fewer rows times neurons consist of calls that take less time than it takes to wake a thread.
_MIN_STEP_FOR_THREADS = 100_000


@dataclass(frozen=True)
class FitPlan:
    """Every choice of a fit: no "auto" is left, and nothing that follows decides again.

    Attributes
    ----------
    loss : {"squared_error", "poisson", "log_loss", "binary_log_loss"}
    architecture : Architecture
    solver : SolverOptions
    early_stopping : {"loo", "validation"} or False
    validation_fraction : float
    n_networks : int
        Networks whose outputs are averaged.
    in_folds : bool
        True where every one of several networks holds out one fold of the rows.
    kinds : tuple of Ramps
        Those of the networks, which take turns.
    ramps : Ramps
        Those of this network.
    dtype : numpy.dtype
        Of weights, activations and all that the solver computes with them.
    standardize, unit_variance_targets : bool
    covariance : bool
        True where what deviations of predictions are computed from is found at the end.
    fixed_init_scale : bool
        False where the scale follows the features.
    n_jobs : int or None
        Threads, as joblib counts them.
    size : FitSize
        Figures that decide the bytes of the fit.
    seed : int
    """

    loss: str
    architecture: Architecture
    solver: SolverOptions
    early_stopping: str | bool
    validation_fraction: float
    n_networks: int
    in_folds: bool
    kinds: tuple[Ramps, ...]
    ramps: Ramps
    dtype: np.dtype
    standardize: bool
    unit_variance_targets: bool
    covariance: bool
    fixed_init_scale: bool
    n_jobs: int | None
    size: FitSize
    seed: int

    @classmethod
    def resolve(
        cls, parameters, architecture, data, seed, *, loss, unit_variance_targets, covariance, validation, score, start,
        partial,
    ):  # fmt: skip
        """Make every choice.

        Parameters
        ----------
        parameters : estimator
            Its parameters are read.
        architecture : Architecture
            From `resolve_architecture`.
        data : TrainingSet
        seed : int
        loss : str
            The parameter's, or "binary_log_loss" for independent labels.
        unit_variance_targets, covariance : bool
            True if targets are scaled, and if the covariance of predictions is asked for.
        validation : TrainingSet or None
        score : Score or None
        start : WarmStart or None
        partial : bool

        Raises
        ------
        ValueError
            Where parameters contradict each other or the data.
        """
        n_rows, n_outputs = data.Y.shape
        batch_size = _batch_size(parameters, n_rows, data.Y)
        # Of all rows, once: a part of them may be no larger than a batch, and is to be fitted as the whole is.
        in_batches = partial or n_rows > batch_size
        early_stopping = not partial and _early_stopping(parameters, n_rows, in_batches, validation, score, start)
        n_networks = _n_networks(parameters, data, early_stopping, validation, score, start, partial)
        n_fitted, holds_out = n_rows, early_stopping == "validation" and validation is None
        in_folds = holds_out and n_networks > 1
        if holds_out:
            n_fitted -= max(map(len, held_out_parts(data, n_networks, parameters.validation_fraction, seed)))
        # What batches really have may be half of the most that they are allowed.
        n_step_rows = math.ceil(n_fitted / math.ceil(n_fitted / batch_size))
        n_curvatures = 1 if loss == "squared_error" else n_outputs
        preconditioner = _preconditioner(parameters, architecture, n_step_rows, n_outputs, n_curvatures, early_stopping)
        forms_gram = preconditioner == "gram" or early_stopping == "loo"
        sketch_size = _sketch_size(parameters, n_step_rows)
        solver = dataclasses.replace(
            _solver_options(parameters, loss, in_batches, start, partial),
            preconditioner=preconditioner,
            sketch_size=sketch_size,
            batch_size=batch_size,
            block_rows=None if forms_gram else MAX_SQUARE_ROWS,
        )
        kinds = _kinds(parameters, data, in_folds) if start is None else (Ramps(None),)
        dtype = _network_dtype(parameters, n_rows, start, partial)
        size = FitSize(
            widths=architecture.widths,
            densities=architecture.densities,
            n_rows=n_rows,
            rows_of_a_step=n_step_rows,
            n_inputs=_n_inputs(data, kinds, start),
            sparse=SparseInputs.of(data, _most_bins(kinds), start, None if partial else n_fitted, architecture.init),
            n_outputs=n_outputs,
            itemsize=dtype.itemsize,
            topk=architecture.sparsifier == "topk",
            forms_gram=forms_gram,
            block_rows=solver.block_rows,
            n_copies=(3 if in_batches else 1) + (score is not None),
            sketch_size=sketch_size if preconditioner == "sketch" else 0,
            n_factors=n_curvatures if n_curvatures <= MAX_FACTORED_OUTPUTS else 0,
            covariance_size=covariance_sketch_size(n_fitted) if covariance else 0,
            n_validation_rows=0 if validation is None else len(validation),
        )
        return cls(
            loss=loss,
            architecture=architecture,
            solver=solver,
            early_stopping=early_stopping,
            validation_fraction=float(parameters.validation_fraction),
            n_networks=n_networks,
            in_folds=in_folds,
            kinds=kinds,
            ramps=kinds[0],
            dtype=dtype,
            standardize=parameters.standardize,
            unit_variance_targets=unit_variance_targets,
            covariance=covariance,
            fixed_init_scale=start is not None or parameters.init_scale != "auto",
            n_jobs=1 if n_step_rows * sum(architecture.widths) < _MIN_STEP_FOR_THREADS else parameters.n_jobs,
            size=size,
            seed=seed,
        ).with_init_scale(data)

    @property
    def spans_rows(self):
        """True where weights of sparse features are kept as combinations of the rows."""
        return self.size.sparse is not None and self.size.sparse.n_spanning is not None

    @property
    def n_bytes(self):
        """Bytes of all fits that run at once, side by side, and of the networks that are kept."""
        n_at_once = min(self.n_networks, resolve_n_jobs(self.n_jobs))
        kept = 0
        if self.n_networks > 1:
            kept = (self.n_networks - n_at_once) * self.size.network_bytes + N_COVARIANCES * self.size.covariance_bytes
        return n_at_once * (self.size.weight_bytes + self.size.row_bytes) + kept

    def with_init_scale(self, data):
        """The same plan with the scale of initial weights for these features and their ramps, unless it is fixed."""
        if self.fixed_init_scale:
            return self
        X = features_to_fit(data, self.seed)
        inputs = InputScaling.fit(X, data.sample_weight, self.standardize, self.ramps, data.group_sizes)
        width = self.architecture.widths[-1]
        init_scale = scale_of_initial_weights(inputs, X, data.sample_weight, width, self.seed)
        return dataclasses.replace(self, architecture=dataclasses.replace(self.architecture, init_scale=init_scale))


def resolve_architecture(parameters, start=None):
    """The architecture by the parameters; its `init_scale` is that of small features where it is to follow them.

    Parameters
    ----------
    parameters : estimator
    start : WarmStart or None

    Raises
    ------
    ValueError
        For widths or densities that are none, or that are not those of the start.
    """
    widths = widths_of(parameters.hidden_layer_sizes)
    init_scale = parameters.init_scale
    architecture = Architecture(
        widths=widths,
        densities=densities_of(parameters.density, widths),
        sparsifier=parameters.sparsifier,
        skip_connections=parameters.skip_connections,
        init=parameters.init,
        init_scale=small_init_scale(widths[-1]) if init_scale == "auto" else float(init_scale),
        max_rank=None if parameters.max_rank == "auto" else int(parameters.max_rank),
        matmul=None if parameters.matmul == "auto" else parameters.matmul,
    )
    if start is None:
        return architecture
    changed = [name for name, value in start.architecture.items() if getattr(architecture, name) != value]
    if changed:
        names = {"widths": "hidden_layer_sizes", "densities": "density"}
        raise ValueError(
            f"{', '.join(names.get(name, name) for name in changed)} cannot change between a fit and one that goes "
            "on from it; use warm_start=False, or fit a new estimator."
        )
    return dataclasses.replace(architecture, init=start.init, init_scale=start.init_scale)


def _batch_size(parameters, n_rows, Y):
    """Rows of a batch; all rows where they are one batch."""
    if parameters.batch_size != "auto":
        return min(int(parameters.batch_size), n_rows)
    if parameters.loss != "squared_error" or parameters.early_stopping == "loo":
        at_once, part = _AUTO_BATCHES if Y.shape[1] == 1 else _AUTO_BATCHES_OF_OUTPUTS
    elif Y.dtype == bool:
        # A part of the rows is to be more than one batch where all are.
        at_once = 2 * _MIN_BATCH_OF_LABELS
        part = min(max(_MIN_BATCH_OF_LABELS, math.ceil(n_rows / 8)), _MAX_BATCH_OF_LABELS)
    else:
        at_once, part = _AUTO_BATCHES_OF_TARGETS
    return n_rows if n_rows <= at_once else part


def _kinds(parameters, data, in_folds):
    """The ramps of networks that take turns."""
    if parameters.n_bins != "auto":
        return (Ramps(parameters.n_bins),)
    n_rows, n_features = len(data), max(data.n_features[1], 1)
    most = min(_MAX_AUTO_COLUMNS // n_features, n_rows // _ROWS_OF_A_BIN)
    at_least = min(_MIN_AUTO_COLUMNS // n_features, n_rows // _ROWS_OF_A_BIN)
    n_bins = min(round(n_rows ** (1 / 3)), _MAX_AUTO_BINS)
    n_bins = min(max(n_bins, at_least), _MAX_AUTO_COLUMNS // n_features)
    if n_bins < _MIN_AUTO_BINS:
        return (Ramps(None),)
    quiet = Ramps(n_bins)
    if not in_folds:
        return (quiet,)
    if data.Y.dtype == bool and parameters.loss == "squared_error" and n_rows < _MIN_LABELS_FOR_LOUD:
        return quiet, Ramps(None)
    return quiet, Ramps(None), quiet, Ramps(max(n_bins, min(most, _MAX_LOUD_BINS)), loud=True)


def _n_networks(parameters, data, early_stopping, validation, score, start, partial):
    """Networks whose outputs are averaged: one for every fold, or as many as a start has."""
    asked = None if parameters.n_folds == "auto" else int(parameters.n_folds)
    n_rows, in_folds = len(data), early_stopping == "validation" and validation is None
    if start is not None:
        n_networks = len(start.networks)
        if asked not in (None, n_networks):
            raise ValueError(
                f"n_folds={asked}, but the model that the fit goes on from has {n_networks} network(s); use as many, "
                "'auto', or warm_start=False."
            )
        if in_folds and n_networks > n_rows:
            raise ValueError(
                f"The model that the fit goes on from has {n_networks} networks, more folds (n_folds) than the "
                f"{n_rows} rows that differ; use more rows, early_stopping=False, or warm_start=False."
            )
        return n_networks
    if partial or asked == 1:
        return 1
    if asked is None:
        n_folds = next(n_folds for most, n_folds in _FOLDS if n_rows <= most)
        if score is not None:
            # Scores may be undefined of a single row, and where a fold lacks a class.
            counts = data.Y.sum(axis=0) if data.Y.dtype == bool else np.array([n_rows // 2])
            n_folds = min(n_folds, max(2, min(counts.min(), n_rows - counts.max())))
        return min(int(n_folds), n_rows) if in_folds else 1
    if asked > n_rows:
        raise ValueError(f"n_folds={asked} is more than the {n_rows} row(s) that differ; use fewer folds, or 'auto'.")
    if not in_folds:
        why = (
            "a validation set takes the place of folds" if validation is not None else f"{early_stopping=} has no folds"
        )
        raise ValueError(f"n_folds={asked}, but {why}; use n_folds=1 or 'auto'.")
    return asked


def _network_dtype(parameters, n_rows, start, partial):
    """Dtype of the start's weights, or the one that `precision` asks for."""
    if start is not None:
        return start.dtype
    precision = parameters.precision
    if precision == "auto":
        # Fits to few rows gain little time from single precision. The first of many parts may have few.
        precision = "double" if n_rows < _MIN_ROWS_FOR_SINGLE and not partial else "single"
    return _DTYPES[precision]


def _most_bins(kinds):
    return max(ramps.n_bins or 0 for ramps in kinds)


def _n_inputs(data, kinds, start):
    """Network inputs at most, the constant among them."""
    if start is not None:
        return len(start.inputs.mean) + 1
    n_features, n_with_ramps = data.n_features
    # There are no more ramps than rows.
    return n_features + n_with_ramps * min(_most_bins(kinds), len(data)) + 1


def _early_stopping(parameters, n_rows, in_batches, validation, score, start):
    early_stopping = parameters.early_stopping
    if score is not None and early_stopping not in ("auto", "validation"):
        raise ValueError(
            f"scoring={parameters.scoring!r} says on held-out rows when to stop, but early_stopping="
            f"{early_stopping!r} holds none out; use 'validation' or 'auto', or scoring='loss'."
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
        few = parameters.loss == "squared_error" and not in_batches and n_rows < _MIN_ROWS_FOR_VALIDATION
        few &= parameters.n_folds in ("auto", 1)
        early_stopping = "loo" if few and start is None else "validation" if n_rows > 1 else False
    if early_stopping == "loo" and start is not None:
        raise ValueError(
            "early_stopping='loo' corrects for steps from the start, of which warm_start=True knows the last ones "
            "only; use 'validation' or False."
        )
    if early_stopping == "loo" and parameters.loss != "squared_error":
        raise ValueError(
            f"early_stopping='loo' is a formula of the squared error, but loss={parameters.loss!r}; use 'validation'."
        )
    if early_stopping == "loo" and in_batches:
        raise ValueError(
            f"early_stopping='loo' needs all {n_rows} rows in one batch, but batch_size={parameters.batch_size!r} "
            "cuts them; use 'validation', or a batch_size of at least the number of rows."
        )
    if early_stopping == "validation" and n_rows < 2:
        raise ValueError(
            "early_stopping='validation' needs at least two rows of positive sample_weight that differ; use 'loo'."
        )
    return early_stopping


def _preconditioner(parameters, architecture, n_rows, n_outputs, n_curvatures, early_stopping):
    if parameters.preconditioner != "auto":
        return parameters.preconditioner
    if early_stopping == "loo":
        # It needs the Gram matrix in any case.
        return "gram"
    return cheapest_preconditioner(n_rows, architecture.widths, architecture.densities, n_outputs, n_curvatures)


def _sketch_size(parameters, n_rows):
    return default_sketch_size(n_rows) if parameters.sketch_size == "auto" else int(parameters.sketch_size)


def _solver_options(parameters, loss, in_batches, start, partial):
    """Options of the solver that do not depend on the rows of its steps."""
    return SolverOptions(
        max_iter=1 if partial else int(parameters.max_iter),
        tol=float(parameters.tol),
        n_iter_no_change=int(parameters.n_iter_no_change),
        verbose=int(parameters.verbose),
        damping=_damping(parameters, start if partial else None),
        sketch=parameters.sketch,
        cg_tol=_cg_tol(parameters, loss, in_batches),
        max_cg_iter=int(parameters.max_cg_iter),
        in_batches=in_batches,
        partial=partial,
        warm_start=start is not None,
    )


def _cg_tol(parameters, loss, in_batches):
    if parameters.cg_tol != "auto":
        return float(parameters.cg_tol)
    squared_error, others = _AUTO_CG_TOL_IN_BATCHES if in_batches else _AUTO_CG_TOL
    return squared_error if loss == "squared_error" else others


def _damping(parameters, part_before):
    """The first damping, or None; a part of the data begins with that of the parts before, once it has settled."""
    if parameters.damping != "auto":
        return float(parameters.damping)
    if part_before is not None and part_before.batch_damping <= _SETTLED_DAMPING:
        return part_before.batch_damping
    return None
