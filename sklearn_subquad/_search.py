"""How many steps to take, from which weights, on which features: fits to parts of the rows tell."""

import dataclasses
import math
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from sklearn_subquad._calibration import LeftOutPath
from sklearn_subquad._data import TrainingSet
from sklearn_subquad._fitting import FittedModel, FittingOptions, calibration_rows, fit_rows, resolved
from sklearn_subquad._held_out import split
from sklearn_subquad._losses import loss_with_baseline, make_loss
from sklearn_subquad._metric import gradient_moments, learned_metric
from sklearn_subquad._random_streams import Stream, generator
from sklearn_subquad._stopping import HELD_OUT_ROWS, Rival, StopReason

# Parts are held out until they have `HELD_OUT_ROWS` rows together, or there were so many parts. Of the squared error of
# indicators, which has no heavy tails, more than two did not help (doc/defaults.md).
_MAX_PARTS, _MAX_PARTS_OF_INDICATORS = 5, 2
# A fit in batches to the rest of so many held-out rows is not repeated with all rows: they would add little.
_ENOUGH_WITHOUT = 1000


def fit_network(data, options, validation=None):
    """Fit a network, stopping early as `options` say.

    Parameters
    ----------
    data : TrainingSet
    options : FittingOptions
        With ``early_stopping="validation"`` the number of steps is found on a held-out part, or on several if they are
        small, and a last fit takes as many steps on all rows, unless `keeps_fitted_part`.
        Of several kinds of initial weights, the first part decides. The number is found for features as they are and
        with a metric that is learned from them, if that is asked for, and what has the lower error counts. Where one
        part decides, a fit that is clearly behind another is given up, where the error is a loss. Where a callback asks
        to stop during the search, the best of the last models of every choice is returned.
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
        return fit_rows(data, resolved(data, options), loss)
    searches = []
    for init in options.inits:
        rival = min(searches, key=_Search.error, default=None)
        searches.append(_Search(data, _with_init(options, init), loss, validation))
        searches[-1].fit_part(rival)
        if searches[-1].stopped:
            return _best_so_far(searches)
    best = min(searches, key=_Search.error)
    # Not its own, because init_scale="auto" depends on the metric.
    options = _with_init(options, best.options.architecture.init)
    for search in searches:
        if search is not best:
            # Two models wait at most.
            search.model = None
    best.fit_parts()
    if best.stopped:
        return _best_so_far(searches)
    metric = learned_metric(np.mean(best.moments, axis=0)) if best.moments else None
    if metric is not None:
        searches.append(_Search(data, options, loss, validation, metric, best.moments))
        # Of several parts, one alone is too small to tell.
        searches[-1].fit_parts(best if len(best.results) == 1 else None)
        if searches[-1].stopped:
            return _best_so_far(searches)
        best = min(best, searches[-1], key=_Search.error)
    final = best.model if best.model_is_final else _fit_all_rows(data, loss, best)
    return _with_seconds_of_all(final, searches)


def _best_so_far(searches):
    """The best of the last models of searches, of which a callback has stopped the last one."""
    best = min((search for search in searches if search.model is not None), key=_Search.error).model
    best.result.stop_reason = StopReason.CALLBACK
    return _with_seconds_of_all(best, searches)


def _with_seconds_of_all(model, searches):
    """The model, with the seconds of all fits of the searches added to its own."""
    for result in [result for search in searches for result in search.results if result is not model.result]:
        for phase, seconds in result.phase_times.items():
            model.result.phase_times[phase] = model.result.phase_times.get(phase, 0.0) + seconds
    return model


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
    left_out = LeftOutPath.concatenate(search.left_out) if options.keep_left_out else None
    final = fit_rows(data, options, loss, metric=search.metric, left_out=left_out)
    final.result.error_curve = curve
    if options.score is not None:
        final.result.held_out_losses = _mean_curve([result.held_out_losses for result in search.results])
    if final.result.n_iter == best_iter and final.result.stop_reason is not StopReason.CALLBACK:
        final.result.stop_reason = max(search.results, key=lambda result: result.n_iter).stop_reason
    return final


def _with_init(options, init):
    return dataclasses.replace(options, architecture=dataclasses.replace(options.architecture, init=init))


@dataclass
class _Search:
    """Fits to parts of the rows, whose error curves say how many steps to take on all of them.

    A small held-out part says little: there are as many as make up `HELD_OUT_ROWS` rows, but not more than so many.

    Attributes
    ----------
    data, options, loss, validation
        As in `fit_network`.
    metric : ndarray of shape (d, d) or None
        That of all rows.
    moments_of_parts : list of ndarray of shape (d, d) or None
        What the parts learn a metric of their own from.
    model : FittedModel or None
        The last one, where it is kept: because no other fit follows, or because a callback may stop the search.
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
    validation: TrainingSet | None = None
    metric: np.ndarray | None = None
    moments_of_parts: list | None = None
    model: FittedModel | None = None
    results: list = field(default_factory=list)
    left_out: list = field(default_factory=list)
    moments: list = field(default_factory=list)
    n_held_out: int = 0

    def __post_init__(self):
        self.options = resolved(self.data, self.options, self.metric)

    @property
    def curve(self):
        """Their mean error after 0, 1, ... steps."""
        return _mean_curve([result.error_curve for result in self.results])

    @property
    def model_is_final(self):
        """Whether the model is good enough to be the last one."""
        return self.validation is not None or keeps_fitted_part(self.options.in_batches, self.n_held_out)

    @property
    def stopped(self):
        """Whether a callback has asked to stop."""
        return bool(self.results) and self.results[-1].stop_reason is StopReason.CALLBACK

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
            if self.given_up or self.stopped:
                break

    def fit_part(self, rival=None):
        """Fit to one more part; against what another search has found on it, where there is one."""
        data, options, part = self.data, self.options, len(self.results)
        n_fitted, source = len(data), self.validation
        if source is None:
            fitting, held_out = held_out_part(data, options.validation_fraction, options.seed, part)
            n_fitted, n_held_out, source = len(fitting), len(held_out), data
        else:
            fitting, held_out, n_held_out = slice(None), slice(None), len(source)
        if options.solver.verbose:
            features = "features as they are" if self.metric is None else "a learned metric"
            print(
                f"Finding the number of steps, {options.architecture.init} weights, {features}: "
                f"{n_fitted} rows to fit, {n_held_out} held out."
            )
        metric = None if self.moments_of_parts is None else learned_metric(self.moments_of_parts[part])
        # Differences of a score say little of how far apart two fits are.
        if rival is not None and options.score is None:
            rival = Rival(rival.results[part].error_curve)
            options = dataclasses.replace(options, solver=dataclasses.replace(options.solver, rival=rival))
        model = fit_rows(data, options, self.loss, fitting, (source, held_out), metric)
        self.results.append(model.result)
        self.left_out.append(model.left_out)
        self.n_held_out += n_held_out
        if options.learn_metric and self.metric is None and not self.given_up:
            self.moments.append(_timed_moments(model, options.seed))
        if self.model_is_final or options.progress is not None:
            self.model = model


def _timed_moments(model, seed):
    start = time.perf_counter()
    batch = calibration_rows(model.batch, seed)
    moments = gradient_moments(model.network, batch.x, batch.sample_weight, seed)
    model.result.phase_times["metric"] = time.perf_counter() - start
    return moments


def _mean_curve(curves):
    """Mean of error curves; one that has ended goes on with its last error."""
    length = max(len(curve) for curve in curves)
    return np.mean([curve + curve[-1:] * (length - len(curve)) for curve in curves], axis=0).tolist()


def held_out_part(data, fraction, seed, part):
    """Rows to fit and rows to hold out, in the part of that number."""
    labels = data.Y if data.Y.dtype == bool else None
    return split(len(data), fraction, generator(seed, Stream.HELD_OUT_ROWS, part), labels)


def keeps_fitted_part(in_batches, n_held_out):
    """Whether a model that was fitted without so many held-out rows is good enough to be the last one."""
    return in_batches and n_held_out >= _ENOUGH_WITHOUT
