"""Several networks, each of which is fitted without one fold of the rows, and stopped by it."""

import dataclasses

import numpy as np

from sklearn_subquad._fit.folds import fit_network, fit_once
from sklearn_subquad._fit.held_out import folds
from sklearn_subquad._linalg.threads import for_each_alone
from sklearn_subquad._solver.stopping import StopReason
from sklearn_subquad._utils.random_streams import Stream, generator


def fit_committee(trainer, plan, validation, finish):
    """Fit the networks of a plan.

    Every row is held out from exactly one of several networks, whose outputs for it are honest: what is to be learned
    from held-out rows is learned from all rows, and no network is fitted only to say how many steps another one takes.

    Parameters
    ----------
    trainer : Trainer
    plan : FitPlan
    validation : TrainingSet or None
        Rows that take the place of held-out ones.
    finish : callable
        ``finish(plan, model, held_out)`` is called with every `FittedModel` as soon as there is one, and the indices of
        its held-out rows or None; what it returns is kept in its place, so that not all are in the memory at once. It
        may be called by several threads.

    Returns
    -------
    list
        Of what `finish` has returned, in order. Networks are fitted side by side, unless somebody is told of their
        steps or gives scores. Where a callback asks to stop, those that come after are left out.
    """
    if plan.n_networks == 1:
        return [finish(plan, fit_network(trainer, plan, validation), None)]
    plans, starts = plans_of_networks(plan, trainer.data), [trainer.start] * plan.n_networks
    if trainer.start is not None:
        starts = trainer.start.networks
    parts = folds(trainer.data, plan.n_networks, plan.seed) if plan.held_out.in_folds else None
    finished = [None] * plan.n_networks

    def fit(number):
        own, plan_of_it = trainer.from_start(starts[number]), plans[number]
        if parts is None:
            held_out, model = None, fit_network(own, plan_of_it, validation)
        else:
            fitting, held_out = np.flatnonzero(parts != number), np.flatnonzero(parts == number)
            if plan.solver.verbose:
                print(
                    f"Network {number + 1} of {plan.n_networks}: {len(fitting)} rows to fit, {len(held_out)} held out."
                )
            model, _ = fit_once(own, plan_of_it, fitting=fitting, held_out=(trainer.data, held_out))
        finished[number] = finish(plan_of_it, model, held_out)
        return model.history.stop_reason

    if trainer.is_watched or plan.solver.verbose:
        for number in range(plan.n_networks):
            if fit(number) is StopReason.CALLBACK:
                return finished[: number + 1]
    else:
        for_each_alone(fit, plan.n_networks)
    return finished


def weights_of_networks(losses, kinds):
    """What each of several networks counts in their mean, given its mean loss on its own fold.

    Networks of one kind count alike, since their folds differ in how hard they are; a kind counts by the inverse square
    of its mean loss. Two kinds that are about as good are averaged, and one that fails is all but left out.

    Parameters
    ----------
    losses : array-like of shape (n_networks,)
    kinds : array-like of shape (n_networks,)
        Equal for networks of one kind.

    Returns
    -------
    ndarray of shape (n_networks,), float64, of sum one
    """
    losses, kinds = np.asarray(losses, dtype=np.float64), np.asarray(kinds)
    means = np.array([losses[kinds == kind].mean() for kind in kinds])
    # Without any loss, or with one that is no number, nothing can be said.
    if not np.isfinite(means).all() or means.min() <= 0:
        return np.full(len(means), 1 / len(means))
    weights = (means.min() / means) ** 2
    return weights / weights.sum()


def plans_of_networks(plan, data):
    """A plan for each of several networks, with a seed of its own; every second one without ramps, if so planned."""
    seeds = generator(plan.seed, Stream.NETWORKS).integers(np.iinfo(np.int32).max, size=plan.n_networks)
    plain = dataclasses.replace(plan, n_bins=None).with_metric(data, None) if plan.alternates else plan
    return [dataclasses.replace(plain if number % 2 else plan, seed=int(seed)) for number, seed in enumerate(seeds)]
