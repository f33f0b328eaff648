"""From scaled data to a fitted network: initialise, solve."""

import contextlib
import dataclasses
import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from sklearn_subquad._curvature.losses import SquaredError
from sklearn_subquad._fit.calibration import LeftOutPath
from sklearn_subquad._fit.callbacks import CallbackProgress, WatchedFit
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.iterates import Iterates
from sklearn_subquad._fit.scaling import InputScaling, TargetScaling, effective_dimension
from sklearn_subquad._fit.scoring import Score
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._memory import CALIBRATION_ROWS
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._solver.gauss_newton import GaussNewtonSolver, SolverOptions, SolverResult
from sklearn_subquad._solver.levenberg_marquardt import Batch
from sklearn_subquad._solver.minibatch import MiniBatchSolver
from sklearn_subquad._solver.stopping import (
    HeldOutError,
    HeldOutScore,
    KeptOutputs,
    LeaveOneOutError,
    StopReason,
)
from sklearn_subquad._utils.random_streams import Stream, generator

# init_scale="auto" is this over sqrt(m), 0.05 at m = 2048, where the features have few effective dimensions, and 1
# where they have many; it grows geometrically in between.
_SMALL_INIT_SCALE = 0.05 * math.sqrt(2048)
_FEW_DIMENSIONS, _MANY_DIMENSIONS = 10, 20
# Rows on which effective dimensions are counted, at most and at least where there are more, and their numbers at most.
_MAX_DIMENSION_ROWS, _MIN_DIMENSION_ROWS, _DIMENSION_NUMBERS = 1024, 64, 1 << 23


@dataclass
class FittedModel:
    """A network with the scalings around it, how it was found, and what is known of rows beside it.

    Attributes
    ----------
    batch : Batch
        The scaled rows that it was fitted to.
    left_out : LeftOutPath or None
        Outputs for rows as if it had not been fitted to them, where they were asked for and some were left out.
    """

    inputs: InputScaling
    targets: TargetScaling
    network: Network
    result: SolverResult
    batch: Batch
    left_out: LeftOutPath | None

    @property
    def left_out_rows(self):
        """`LeftOutRows` of the returned network, or None."""
        return None if self.left_out is None else self.left_out.after(self.result.best_iter)


@dataclass(frozen=True)
class FittedStart:
    """A model to go on from.

    Attributes
    ----------
    inputs : InputScaling
    targets : TargetScaling
        For other losses than the squared error, its mean is the baseline.
    state : dict
        `Network.to_state`, and what else an estimator keeps; never changed.
    """

    inputs: InputScaling
    targets: TargetScaling
    state: dict

    @property
    def batch_damping(self):
        """The least damping that a part of the data asked for, infinite where none was fitted alone."""
        return self.state["batch_damping"]

    @property
    def weight_unit(self):
        """Weight of one row; models that were stored before there was one have 1."""
        return self.state.get("weight_unit", 1.0)

    @property
    def dtype(self):
        """Of the weights."""
        return self.state["output_weights"][0].dtype

    def network(self, architecture):
        """A network on copies of the arrays that steps change in place."""
        pairs = zip(self.state["tiles"], architecture.widths[1:], strict=True)
        copies = [PackedMatrix(tiles, width).copy().tiles for tiles, width in pairs]
        return Network.from_state(architecture, self.state | {"tiles": copies})


@dataclass(frozen=True)
class FittingOptions:
    """Everything about a fit but the data.

    Attributes
    ----------
    in_batches : bool
        Whether rows are fitted in batches, however many of them are held out.
    batch_size : int
        Rows of a batch at most.
    keep_left_out : bool
        Whether outputs for rows that are left out are asked for.
    learn_metric : bool
        Whether every fit is repeated with a metric of the features that the first one has learned.
    start : FittedStart or None
        What the fit goes on from, instead of random weights. Its scalings stay.
    from_any_part : bool
        Whether rows may lack classes that others will have: then the constant model takes all for equally likely.
    iterates : Iterates
        Makes estimators of networks whose fit goes on.
    score : Score or None
        What says how good an estimator is on held-out rows; None stands for the loss.
    progress : CallbackProgress or None
        Who is told of fits and steps.
    """

    architecture: Architecture
    solver: SolverOptions
    loss: str
    in_batches: bool
    batch_size: int
    standardize: bool
    unit_variance_targets: bool
    early_stopping: str | bool
    validation_fraction: float
    keep_left_out: bool
    learn_metric: bool
    start: FittedStart | None
    from_any_part: bool
    iterates: Iterates
    score: Score | None
    progress: CallbackProgress | None
    seed: int


def resolved(data, options, metric=None):
    """The options with a number in the place of an `init_scale` of "auto"."""
    architecture = options.architecture
    if architecture.init_scale != "auto" or options.start is not None:
        return options
    inputs = InputScaling.fit(data.X, data.sample_weight, options.standardize, metric)
    n_rows, n_features = data.X.shape
    n_wanted = min(_MAX_DIMENSION_ROWS, max(_MIN_DIMENSION_ROWS, _DIMENSION_NUMBERS // n_features))
    data = data[_some_rows(n_rows, n_wanted, generator(options.seed, Stream.DIMENSION_ROWS))]
    # Without the constant.
    x = inputs.transform(data.X.astype(np.float64))[:, :-1]
    few, many = math.log(_FEW_DIMENSIONS), math.log(_MANY_DIMENSIONS)
    share = (math.log(effective_dimension(x, data.sample_weight)) - few) / (many - few)
    small = _SMALL_INIT_SCALE / math.sqrt(architecture.widths[-1])
    init_scale = small ** (1 - min(max(share, 0.0), 1.0))
    return dataclasses.replace(options, architecture=dataclasses.replace(architecture, init_scale=init_scale))


def _some_rows(n, n_wanted, rng):
    """Indices of all rows, or of so many drawn at random where there are more."""
    if n <= n_wanted:
        return slice(None)
    return np.sort(rng.choice(n, n_wanted, replace=False))


def calibration_rows(batch, seed):
    return batch[_some_rows(len(batch), CALIBRATION_ROWS, generator(seed, Stream.CALIBRATION_ROWS))]


def fit_rows(data, options, loss, fitting=slice(None), held_out=None, metric=None, left_out=None):
    """Fit to rows of the data, given by their indices, and watch the error on others, given by their data and indices.

    `left_out` is what is known of rows that were left out of other fits.
    """
    start = time.perf_counter()
    inputs, targets = _scalings(data[fitting], options, loss, metric)
    # Only what is scaled lives on: of the rows as they come, there is no copy while the solver works.
    batch = _scaled(data[fitting], inputs, targets, loss)
    source, watched = (data, fitting) if held_out is None else held_out
    kept = None
    if options.keep_left_out and options.early_stopping:
        kept = KeptOutputs(len(source.numbers[watched]))
    if held_out is not None:
        held_out = _scaled(source[watched], inputs, targets, loss)
    if loss is None:
        loss = SquaredError(data.Y.shape[1])
    network = _initial_network(batch, options)
    unfinished = _UnfinishedFit(options, inputs, targets, network, source, watched, len(data), kept, left_out)
    criterion = None
    if held_out is not None:
        criterion = HeldOutError(held_out, loss, len(data), kept)
        if options.score is not None:
            name = "the held-out part of early_stopping" if source is data else "the validation set"
            criterion = HeldOutScore(criterion, unfinished.scoring(name), network)
    elif options.early_stopping == "loo":
        criterion = LeaveOneOutError(batch, generator(options.seed, Stream.LEAVE_ONE_OUT_PROBES), kept=kept)
    initialised = time.perf_counter() - start
    with contextlib.ExitStack() as stack:
        solver = options.solver
        if options.progress is not None:
            unfinished.tell(options.progress, data, fitting)
            solver = dataclasses.replace(solver, watch=stack.enter_context(unfinished.watch))
        result = _solver(network, batch, loss, solver, criterion, options).solve()
        if solver.watch is not None:
            solver.watch.n_steps = result.best_iter
    if solver.watch is not None and solver.watch.stopped:
        result.stop_reason = StopReason.CALLBACK
    result.phase_times["init"] = initialised
    if options.score is not None and criterion is not None:
        result.held_out_losses = criterion.losses
    return FittedModel(inputs, targets, network, result, batch, unfinished.path())


def _solver(network, batch, loss, solver, criterion, options):
    if options.in_batches:
        return MiniBatchSolver(network, batch, loss, solver, options.batch_size, criterion, options.seed)
    return GaussNewtonSolver(network, batch, loss, solver, criterion, options.seed)


@dataclass
class _UnfinishedFit:
    """A fit that goes on, and the estimator that it would be if it ended.

    Attributes
    ----------
    options : FittingOptions
    inputs : InputScaling
    targets : TargetScaling
    network : Network
    source, watched : TrainingSet and slice or ndarray of int
        Rows that say when to stop, as indices of others.
    n_rows : int
        Rows of the whole data set.
    kept : KeptOutputs or None
        Outputs of the rows that say when to stop, where they are kept.
    others : LeftOutPath or None
        What is known of rows that were left out of other fits, where this one leaves out none.
    watch : WatchedFit or None
        Who is told of steps, and counts them.
    """

    options: FittingOptions
    inputs: InputScaling
    targets: TargetScaling
    network: Network
    source: TrainingSet
    watched: slice | np.ndarray
    n_rows: int
    kept: KeptOutputs | None
    others: LeftOutPath | None
    watch: WatchedFit | None = None

    def path(self):
        """`LeftOutPath` of the steps so far, or None."""
        return self.others if self.kept is None else self._path_of(self.kept.outputs)

    def _left_out(self, n_steps):
        """`LeftOutRows` after so many steps, or the last ones that are known; None if there are none."""
        path = self.others
        if self.kept is not None:
            # One step, where the whole path would be scaled back again after every one.
            path = self._path_of([self.kept.outputs[min(n_steps, len(self.kept.outputs) - 1)]])
        return None if path is None else path.after(n_steps)

    def _path_of(self, outputs):
        outputs = [self.targets.inverse_transform(output) for output in outputs]
        Y, sample_weight = self.source.Y[self.watched], self.source.sample_weight[self.watched]
        return LeftOutPath(outputs, Y[self.kept.rows], sample_weight[self.kept.rows], self.n_rows)

    def scoring(self, name):
        """A function from the network, or one with the same scaling, to its score on held-out rows of that name."""
        rows = self.source.as_given(self.watched)

        def score(network, **options):
            left_out = self._left_out(sys.maxsize)
            estimator = self.options.iterates.live(network, self.inputs, self.targets, left_out)
            return self.options.score(estimator, rows, name, **options)

        return score

    def tell(self, progress, data, fitting):
        """Begin to tell of a fit to rows of the data, given by their indices."""
        name = "fit to all rows" if len(data.numbers[fitting]) == len(data) else "fit without held-out rows"
        max_steps = self.options.solver.max_iter
        self.watch = progress.fit(name, max_steps, lambda: data.as_given(fitting), self._attributes)

    def _attributes(self):
        left_out = self._left_out(self.watch.n_steps)
        return self.options.iterates.attributes(self.network, self.inputs, self.targets, left_out)


def _initial_network(batch, options):
    if options.start is not None and not options.from_any_part:
        return options.start.network(options.architecture)
    rows = calibration_rows(batch, options.seed)
    # What varies in other rows alone varies.
    varies = batch.x.any(axis=0)
    if options.start is None:
        n_outputs = batch.Y.shape[1]
        return Network.initialise(options.architecture, rows.x, rows.sample_weight, n_outputs, options.seed, varies)
    network = options.start.network(options.architecture)
    # Earlier parts may have been as small as a single row, in which nothing varies.
    varies &= np.append(options.start.inputs.constant, False)
    network.draw_unseen(varies, rows.x, rows.sample_weight, [options.seed, Stream.UNSEEN_FEATURES])
    return network


def _scalings(data, options, loss, metric):
    """Scaling of inputs and of targets for these rows; the loss is None for the squared error."""
    if options.start is not None:
        return options.start.inputs, options.start.targets
    inputs = InputScaling.fit(data.X, data.sample_weight, options.standardize, metric)
    if loss is None:
        return inputs, TargetScaling.fit(data.Y, data.sample_weight, options.unit_variance_targets)
    # The loss adds its baseline, and so do predictions.
    return inputs, TargetScaling(loss.baseline, np.ones_like(loss.baseline))


def _scaled(data, inputs, targets, loss):
    """Rows as network and loss take them: only the squared error's targets are scaled."""
    Y = targets.transform(data.Y, data.X.dtype) if loss is None else data.Y.astype(data.X.dtype)
    return Batch(inputs.transform(data.X), Y, data.sample_weight)
