"""How many steps to take: fits to parts of the rows tell."""

import dataclasses
import sys
import time

import numpy as np

from sklearn_subquad._curvature.losses import loss_with_baseline, make_loss
from sklearn_subquad._fit.calibration import LeftOutPath
from sklearn_subquad._fit.held_out import split
from sklearn_subquad._fit.metric import gradient_moments, learned_metric
from sklearn_subquad._fit.train import calibration_rows, fit_rows, resolved
from sklearn_subquad._solver.stopping import HELD_OUT_ROWS, StopReason
from sklearn_subquad._utils.random_streams import Stream, generator

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
        small, and a last fit takes as many steps on all rows, unless `keeps_fitted_part`. Where a callback asks to stop
        before, the network of the last part is the result.
    validation : TrainingSet or None
        Rows that take the place of a held-out part. What was fitted without them is the result.

    Returns
    -------
    FittedModel
        Its result describes the final fit, with the mean error curve of the parts, and the stop reason of the
        longest one unless the final fit took fewer steps than it was meant to. Seconds are summed over all.
    """
    loss, without_metric = _loss(data, options), resolved(data, options)
    if options.early_stopping != "validation":
        return _fit(data, options, without_metric, loss)[0]
    bounded = data.Y.dtype == bool and loss is None
    max_parts = 1 if validation is not None else _MAX_PARTS_OF_INDICATORS if bounded else _MAX_PARTS
    results, left_out, moments, n_held_out = [], [], [], 0
    while not results or (n_held_out < HELD_OUT_ROWS and len(results) < max_parts):
        if validation is None:
            fitting, held_out = held_out_part(data, options.validation_fraction, options.seed, len(results))
            source, n_fitted, n_of_part = data, len(fitting), len(held_out)
        else:
            # Slices copy nothing.
            fitting, held_out = slice(None), slice(None)
            source, n_fitted, n_of_part = validation, len(data), len(validation)
        n_held_out += n_of_part
        if options.solver.verbose:
            print(f"Finding the number of steps: {n_fitted} rows to fit, {n_of_part} held out.")
        model, of_part = _fit(data, options, without_metric, loss, fitting=fitting, held_out=(source, held_out))
        results.append(model.result)
        if model.result.stop_reason is StopReason.CALLBACK:
            return _with_seconds_of_all(model, results)
        left_out.append(model.left_out)
        moments.append(of_part)
    if validation is not None or keeps_fitted_part(options.in_batches, n_held_out):
        return model
    # What only the last part needs is free before the last fit.
    del model
    metric = learned_metric(np.mean(moments, axis=0)) if options.learn_metric else None
    options = without_metric if metric is None else resolved(data, options, metric)
    final = _fit_all_rows(data, options, loss, metric, results, left_out)
    return _with_seconds_of_all(final, results)


def _fit(data, options, without_metric, loss, **part):
    """Fit once, or twice where a metric is to be learned; returns the model, and the moments of its metric or None.

    The options are those of `fit_network`, and as they are `resolved` without a metric.
    """
    model = fit_rows(data, without_metric, loss, **part)
    if not options.learn_metric or model.result.stop_reason is StopReason.CALLBACK:
        return model, None
    began = time.perf_counter()
    batch = calibration_rows(model.batch, options.seed)
    moments = gradient_moments(model.network, batch.x, batch.sample_weight, options.seed)
    model.result.phase_times["metric"] = time.perf_counter() - began
    metric = learned_metric(moments)
    if metric is None:
        return model, moments
    if options.solver.verbose:
        print("Fitting again, with the learned metric of the features.")
    first, model = model.result, None
    model = fit_rows(data, resolved(data, options, metric), loss, metric=metric, **part)
    return _with_seconds_of_all(model, [first]), moments


def _with_seconds_of_all(model, results):
    """The model, with the seconds of other fits added to its own."""
    for result in results:
        if result is not model.result:
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


def _fit_all_rows(data, options, loss, metric, results, left_out):
    """A last fit, with the metric and the number of steps that parts have told."""
    curve = _mean_curve([result.error_curve for result in results])
    best_iter = int(np.argmin(curve))
    if options.solver.verbose:
        print(f"Fitting all {len(data)} rows, with that number of steps: {best_iter}.")
    # So many, whatever the training loss does.
    solver = dataclasses.replace(options.solver, max_iter=best_iter, tol=0.0, n_iter_no_change=sys.maxsize)
    options = dataclasses.replace(options, solver=solver, early_stopping=False)
    left_out = LeftOutPath.concatenate(left_out) if options.keep_left_out else None
    final = fit_rows(data, options, loss, metric=metric, left_out=left_out)
    final.result.error_curve = curve
    if options.score is not None:
        final.result.held_out_losses = _mean_curve([result.held_out_losses for result in results])
    if final.result.n_iter == best_iter and final.result.stop_reason is not StopReason.CALLBACK:
        final.result.stop_reason = max(results, key=lambda result: result.n_iter).stop_reason
    return final


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
