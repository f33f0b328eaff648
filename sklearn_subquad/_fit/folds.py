"""Which rows are held out by which fit: parts of the rows tell how many steps a fit to all of them takes."""

import numpy as np

from sklearn_subquad._fit.calibration import HeldOutPath
from sklearn_subquad._fit.held_out import held_out_part
from sklearn_subquad._linalg.threads import for_each_alone
from sklearn_subquad._solver.stopping import StopReason


def fit_network(trainer, plan, validation=None):
    """Fit a network, stopping early as the plan says.

    Parameters
    ----------
    trainer : Trainer
    plan : FitPlan
        With ``early_stopping="validation"`` the number of steps is found on a held-out part, or on several if they are
        small. If it `refits`, a last fit takes as many steps on all rows. Where a callback asks to stop before, the
        network of the last part is the result.
    validation : TrainingSet or None
        Rows that take the place of a held-out part. The network that was fitted without them is the result.

    Returns
    -------
    FittedModel
        Fits without held-out parts run side by side, unless somebody is told of their steps or gives scores.
        Its history describes the last fit, with the mean error curve of the parts, and the stop reason of the longest
        one unless the last fit took fewer steps than it was meant to. Seconds are summed over all.
    """
    if plan.early_stopping != "validation":
        return trainer.train(plan)
    histories, paths = ([None] * plan.held_out.n_parts for _ in range(2))

    def fit_part(part):
        # Of the model nothing else is needed, and it is free.
        model = _fit_part(trainer, plan, validation, part)
        histories[part], paths[part] = model.history, model.held_out
        return model

    if trainer.is_watched or plan.solver.verbose or not plan.held_out.refits:
        # One after the other, as it is told; each may be the last.
        for part in range(plan.held_out.n_parts):
            model = fit_part(part)
            if model.history.stop_reason is StopReason.CALLBACK or not plan.held_out.refits:
                return _with_seconds_of_all(model, histories[: part + 1])
        del model
    else:
        for_each_alone(fit_part, plan.held_out.n_parts)
    return _with_seconds_of_all(_fit_all_rows(trainer, plan, histories, paths), histories)


def _fit_part(trainer, plan, validation, part):
    """Fit without a held-out part, or to all rows where there is a validation set."""
    data = trainer.data
    if validation is None:
        fitting, held_out = held_out_part(data, plan.validation_fraction, plan.seed, part)
        source, n_fitted, n_held_out = data, len(fitting), len(held_out)
    else:
        # Slices copy nothing.
        fitting, held_out = slice(None), slice(None)
        source, n_fitted, n_held_out = validation, len(data), len(validation)
    if plan.solver.verbose:
        print(f"Finding the number of steps: {n_fitted} rows to fit, {n_held_out} held out.")
    return trainer.train(plan, fitting=fitting, held_out=(source, held_out))


def _with_seconds_of_all(model, histories):
    """The model, with the seconds of other fits added to its own."""
    for history in histories:
        if history is not model.history:
            for phase, seconds in history.phase_times.items():
                model.history.phase_times[phase] = model.history.phase_times.get(phase, 0.0) + seconds
    return model


def _fit_all_rows(trainer, plan, histories, paths):
    """A last fit, with the number of steps that parts have told."""
    curve = _mean_curve([history.error_curve for history in histories])
    n_steps = int(np.argmin(curve))
    if plan.solver.verbose:
        print(f"Fitting all {len(trainer.data)} rows, with that number of steps: {n_steps}.")
    path = None if paths[0] is None else HeldOutPath.concatenate(paths)
    model = trainer.train(plan.of_all_rows(n_steps), path=path)
    history = model.history
    history.error_curve = curve
    history.held_out_losses = _mean_curve([each.held_out_losses for each in histories])
    if history.n_iter == n_steps and history.stop_reason is not StopReason.CALLBACK:
        history.stop_reason = max(histories, key=lambda each: each.n_iter).stop_reason
    return model


def _mean_curve(curves):
    """Mean of error curves; one that has ended goes on with its last error."""
    length = max(len(curve) for curve in curves)
    return np.mean([curve + curve[-1:] * (length - len(curve)) for curve in curves], axis=0).tolist()
