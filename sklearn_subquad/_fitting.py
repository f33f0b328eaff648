"""From scaled data to a fitted network: initialise, choose when to stop, solve."""

import dataclasses
import math
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from sklearn_subquad._calibration import LeftOutPath
from sklearn_subquad._losses import SquaredError, loss_with_baseline, make_loss
from sklearn_subquad._matmul import PackedMatrix
from sklearn_subquad._memory import CALIBRATION_ROWS
from sklearn_subquad._metric import gradient_moments, learned_metric
from sklearn_subquad._minibatch import MiniBatchSolver
from sklearn_subquad._network import Architecture, Network
from sklearn_subquad._scaling import InputScaling, TargetScaling, effective_dimension
from sklearn_subquad._solver import GaussNewtonSolver, SolverOptions, SolverResult
from sklearn_subquad._stopping import HELD_OUT_ROWS, HeldOutError, KeptOutputs, LeaveOneOutError, Rival, StopReason
from sklearn_subquad._trust_region import Batch

# Parts are held out until they have `HELD_OUT_ROWS` rows together, or there were so many parts. Of the squared error of
# indicators, which has no heavy tails, more than two did not help (doc/defaults.md).
_MAX_PARTS, _MAX_PARTS_OF_INDICATORS = 5, 2
# A fit in batches to the rest of so many held-out rows is not repeated with all rows: they would add little.
_ENOUGH_WITHOUT = 1000
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
class TrainingSet:
    """Rows of positive weight.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
    Y : ndarray of shape (n, k), float64 or bool
        Targets, or indicators of classes.
    sample_weight : ndarray of shape (n,), float64
    """

    X: np.ndarray
    Y: np.ndarray
    sample_weight: np.ndarray

    def __getitem__(self, rows):
        return TrainingSet(self.X[rows], self.Y[rows], self.sample_weight[rows])


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
    def dtype(self):
        """Of the weights."""
        return self.state["output_weights"][0].dtype

    def network(self, architecture):
        """A network on copies of the arrays that steps change in place."""
        copies = []
        for tiles, width in zip(self.state["tiles"], architecture.widths[1:], strict=True):
            copies.append(PackedMatrix.zeros(width, tiles.shape[1], tiles.dtype).tiles)
            copies[-1][...] = tiles
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
    inits : tuple of str
        Kinds of initial weights that are tried, where the number of steps is searched for; else the architecture says.
    learn_metric : bool
        Whether a metric of the features is tried, where the number of steps is searched for.
    start : FittedStart or None
        What the fit goes on from, instead of random weights. Its scalings stay.
    from_any_part : bool
        Whether rows may lack classes that others will have: then the constant model takes all for equally likely.
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
    inits: tuple
    learn_metric: bool
    start: FittedStart | None
    from_any_part: bool
    seed: int


def fit_network(data, options, stratify=None, validation=None):
    """Fit a network, stopping early as `options` say.

    Parameters
    ----------
    data : TrainingSet
    options : FittingOptions
        With ``early_stopping="validation"`` the number of steps is found on a held-out part, or on several if they are
        small, and a last fit takes as many steps on all rows, unless `keeps_fitted_part`.
        Of several kinds of initial weights, the first part decides. The number is found for features as they are and
        with a metric that is learned from them, if that is asked for, and what has the lower error counts. Where one
        part decides, a fit that is clearly behind another is given up.
    stratify : ndarray of shape (n,) or None
        Class labels that the held-out part should keep in proportion where it can.
    validation : TrainingSet or None
        Rows that take the place of a held-out part. What was fitted without them is the result.

    Returns
    -------
    FittedModel
        Its result describes the final fit, with the mean error curve of the searches, and the stop reason of the
        longest one unless the final fit took fewer steps than it was meant to. Seconds are summed over all.
    """
    loss = _loss(data, options)
    if options.early_stopping != "validation":
        return _fit(data, _resolved(data, options), loss)
    searches = []
    for init in options.inits:
        rival = min(searches, key=_Search.error, default=None)
        searches.append(_Search(data, _with_init(options, init), loss, stratify, validation))
        searches[-1].fit_part(rival)
    best = min(searches, key=_Search.error)
    # Not its own, because init_scale="auto" depends on the metric.
    options = _with_init(options, best.options.architecture.init)
    for search in searches:
        if search is not best:
            # Two models wait at most.
            search.model = None
    best.fit_parts()
    metric = learned_metric(np.mean(best.moments, axis=0)) if best.moments else None
    if metric is not None:
        searches.append(_Search(data, options, loss, stratify, validation, metric, best.moments))
        # Of several parts, one alone is too small to tell.
        searches[-1].fit_parts(best if len(best.results) == 1 else None)
        best = min(best, searches[-1], key=_Search.error)
    final = _fit_all_rows(data, loss, best) if best.model is None else best.model
    for result in [result for search in searches for result in search.results if result is not final.result]:
        for phase, seconds in result.phase_times.items():
            final.result.phase_times[phase] = final.result.phase_times.get(phase, 0.0) + seconds
    return final


def _loss(data, options):
    """The loss with a baseline of all rows, because a held-out part may leave a class out; None if it is squared."""
    if options.loss == "squared_error":
        return None
    if options.start is not None:
        return loss_with_baseline(options.loss, options.start.targets.mean)
    if options.from_any_part and options.loss != "poisson":
        return loss_with_baseline(options.loss, np.zeros(data.Y.shape[1]))
    return make_loss(options.loss, data.Y, data.sample_weight)


def _fit_all_rows(data, loss, search):
    """A last fit, with the metric and the number of steps that were found."""
    options, curve = search.options, search.curve
    best_iter = int(np.argmin(curve))
    if options.solver.verbose:
        features = "the features as they are" if search.metric is None else "the learned metric"
        weights = f"{options.architecture.init} weights"
        print(f"Fitting all {len(data.X)} rows, {weights}, {features}, with that number of steps: {best_iter}.")
    # So many, whatever the training loss does.
    solver = dataclasses.replace(options.solver, max_iter=best_iter, tol=0.0, n_iter_no_change=sys.maxsize)
    options = dataclasses.replace(options, solver=solver, early_stopping=False)
    final = _fit(data, options, loss, metric=search.metric)
    final.result.error_curve = curve
    if options.keep_left_out:
        final.left_out = LeftOutPath.concatenate(search.left_out)
    if final.result.n_iter == best_iter:
        final.result.stop_reason = max(search.results, key=lambda result: result.n_iter).stop_reason
    return final


def _with_init(options, init):
    return dataclasses.replace(options, architecture=dataclasses.replace(options.architecture, init=init))


def _resolved(data, options, metric=None):
    """The options with a number in the place of an `init_scale` of "auto"."""
    architecture = options.architecture
    if architecture.init_scale != "auto" or options.start is not None:
        return options
    inputs = InputScaling.fit(data.X, data.sample_weight, options.standardize, metric)
    n_rows, n_features = data.X.shape
    n_wanted = min(_MAX_DIMENSION_ROWS, max(_MIN_DIMENSION_ROWS, _DIMENSION_NUMBERS // n_features))
    data = data[_some_rows(n_rows, n_wanted, [options.seed, 4])]
    # Without the constant.
    x = inputs.transform(data.X.astype(np.float64))[:, :-1]
    few, many = math.log(_FEW_DIMENSIONS), math.log(_MANY_DIMENSIONS)
    share = (math.log(effective_dimension(x, data.sample_weight)) - few) / (many - few)
    small = _SMALL_INIT_SCALE / math.sqrt(architecture.widths[-1])
    init_scale = small ** (1 - min(max(share, 0.0), 1.0))
    return dataclasses.replace(options, architecture=dataclasses.replace(architecture, init_scale=init_scale))


def _some_rows(n, n_wanted, seed):
    """Places of all rows, or of so many drawn at random where there are more."""
    if n <= n_wanted:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(n, n_wanted, replace=False))


def _calibration_rows(batch, seed):
    return batch[_some_rows(len(batch), CALIBRATION_ROWS, [seed, 3])]


@dataclass
class _Search:
    """Fits to parts of the rows, whose error curves say how many steps to take on all of them.

    A small held-out part says little: there are as many as make up `HELD_OUT_ROWS` rows, but not more than so many.

    Attributes
    ----------
    data, options, loss, stratify, validation
        As in `fit_network`.
    metric : ndarray of shape (d, d) or None
        That of all rows.
    moments_of_parts : list of ndarray of shape (d, d) or None
        What the parts learn a metric of their own from.
    model : FittedModel or None
        The one that was fitted, where it is kept.
    results : list of SolverResult
    left_out : list of LeftOutPath or None
    moments : list of ndarray of shape (d, d)
        `gradient_moments` of the fitted networks, where a metric is to be learned from them.
    n_held_out : int
        Rows that have been held out in all parts.
    """

    data: TrainingSet
    options: FittingOptions
    loss: object
    stratify: np.ndarray | None
    validation: TrainingSet | None = None
    metric: np.ndarray | None = None
    moments_of_parts: list | None = None
    model: FittedModel | None = None
    results: list = field(default_factory=list)
    left_out: list = field(default_factory=list)
    moments: list = field(default_factory=list)
    n_held_out: int = 0

    def __post_init__(self):
        self.options = _resolved(self.data, self.options, self.metric)

    @property
    def curve(self):
        """Their mean error after 0, 1, ... steps."""
        return _mean_curve([result.error_curve for result in self.results])

    @property
    def given_up(self):
        """Whether the last fit was, and with it all."""
        return bool(self.results) and self.results[-1].stop_reason is StopReason.OUTPACED

    def error(self):
        """The least mean error, infinite where the search was given up."""
        return math.inf if self.given_up else min(self.curve)

    def fit_parts(self, rival=None):
        """Fit to the parts that are missing, or until the search is given up against another with the same parts."""
        bounded = self.data.Y.dtype == bool and self.loss is None
        max_parts = _MAX_PARTS_OF_INDICATORS if bounded else _MAX_PARTS
        if self.validation is not None:
            max_parts = 1
        while not self.results or (self.n_held_out < HELD_OUT_ROWS and len(self.results) < max_parts):
            self.fit_part(rival)
            if self.given_up:
                break

    def fit_part(self, rival=None):
        """Fit to one more part; against what another search has found on it, where there is one."""
        data, options, place = self.data, self.options, len(self.results)
        n_fitted, source = len(data.X), self.validation
        if source is None:
            fitting, held_out = _split(n_fitted, options, self.stratify, options.seed + place)
            n_fitted, n_held_out, source = len(fitting), len(held_out), data
        else:
            fitting, held_out, n_held_out = slice(None), slice(None), len(source.X)
        if options.solver.verbose:
            features = "features as they are" if self.metric is None else "a learned metric"
            print(
                f"Finding the number of steps, {options.architecture.init} weights, {features}: "
                f"{n_fitted} rows to fit, {n_held_out} held out."
            )
        metric = None if self.moments_of_parts is None else learned_metric(self.moments_of_parts[place])
        if rival is not None:
            rival = Rival(rival.results[place].error_curve)
            options = dataclasses.replace(options, solver=dataclasses.replace(options.solver, rival=rival))
        model = _fit(data, options, self.loss, fitting, (source, held_out), metric)
        self.results.append(model.result)
        self.left_out.append(model.left_out)
        self.n_held_out += n_held_out
        if options.learn_metric and self.metric is None and not self.given_up:
            self.moments.append(_timed_moments(model, options.seed))
        if self.validation is not None or keeps_fitted_part(options.in_batches, self.n_held_out):
            self.model = model


def _timed_moments(model, seed):
    start = time.perf_counter()
    batch = _calibration_rows(model.batch, seed)
    moments = gradient_moments(model.network, batch.x, batch.sample_weight, [seed, 5])
    model.result.phase_times["metric"] = time.perf_counter() - start
    return moments


def _mean_curve(curves):
    """Mean of error curves; one that has ended goes on with its last error."""
    length = max(len(curve) for curve in curves)
    return np.mean([curve + curve[-1:] * (length - len(curve)) for curve in curves], axis=0).tolist()


def held_out_rows(n, validation_fraction):
    """How many of n rows are held out."""
    return min(n - 1, max(1, math.ceil(validation_fraction * n)))


def keeps_fitted_part(in_batches, n_held_out):
    """Whether a model that was fitted without so many held-out rows is good enough to be the last one."""
    return in_batches and n_held_out >= _ENOUGH_WITHOUT


def _split(n, options, stratify, seed):
    n_held_out = held_out_rows(n, options.validation_fraction)
    if stratify is not None:
        counts = np.unique(stratify, return_counts=True)[1]
        if counts.min() < 2 or len(counts) > min(n_held_out, n - n_held_out):
            stratify = None
    # Not at the top: it imports the half of scikit-learn, which whoever only loads a model does without.
    from sklearn.model_selection import train_test_split

    return train_test_split(np.arange(n), test_size=n_held_out, random_state=seed, stratify=stratify)


def _fit(data, options, loss, fitting=slice(None), held_out=None, metric=None):
    """Fit to rows of the data, given by their places, and watch the error on others, given by their data and places."""
    start = time.perf_counter()
    inputs, targets = _scalings(data[fitting], options, loss, metric)
    # Only what is scaled lives on: of the rows as they come, there is no copy while the solver works.
    batch = _scaled(data[fitting], inputs, targets, loss)
    source, watched = (data, fitting) if held_out is None else held_out
    kept = None
    if options.keep_left_out and options.early_stopping:
        kept = KeptOutputs(len(source.sample_weight[watched]))
    if held_out is not None:
        held_out = _scaled(source[watched], inputs, targets, loss)
    if loss is None:
        loss = SquaredError(data.Y.shape[1])
    network = _initial_network(batch, options)
    criterion = None
    if held_out is not None:
        criterion = HeldOutError(held_out, loss, kept)
    elif options.early_stopping == "loo":
        # The seeds of probes and weights differ, so that the one are not drawn from the bits of the other.
        criterion = LeaveOneOutError(batch, np.random.default_rng([options.seed, 1]), kept=kept)
    seed = [options.seed, 2]
    if options.in_batches:
        solver = MiniBatchSolver(network, batch, loss, options.solver, options.batch_size, criterion, seed)
    else:
        solver = GaussNewtonSolver(network, batch, loss, options.solver, criterion, seed)
    initialised = time.perf_counter() - start
    result = solver.solve()
    result.phase_times["init"] = initialised
    left_out = None
    if kept is not None:
        outputs = [targets.inverse_transform(output) for output in kept.outputs]
        left_out = LeftOutPath(outputs, source.Y[watched][kept.rows], source.sample_weight[watched][kept.rows])
    return FittedModel(inputs, targets, network, result, batch, left_out)


def _initial_network(batch, options):
    if options.start is not None:
        return options.start.network(options.architecture)
    rows = _calibration_rows(batch, options.seed)
    return Network.initialise(options.architecture, rows.x, rows.sample_weight, batch.Y.shape[1], options.seed)


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
