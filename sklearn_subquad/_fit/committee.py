"""The networks of a fit, each of which is fitted without some of the rows, and stopped by them."""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.held_out import held_out_parts
from sklearn_subquad._fit.laplace import N_COVARIANCES
from sklearn_subquad._fit.scaling import Ramps
from sklearn_subquad._linalg.threads import each_alone
from sklearn_subquad._solver.history import History
from sklearn_subquad._solver.stopping import StopReason
from sklearn_subquad._utils.random_streams import Stream, generator

# Of the rows of a kind, those with the largest errors that do not count where kinds are compared.
_OUTLYING_SHARE = 0.05


def fit_committee(trainer, plan, validation, finish):
    """Fit the networks of a plan.

    Every row is held out from exactly one of several networks, whose outputs for it are honest: what is to be learned
    from held-out rows is learned from all rows. A single network holds out a part of them.

    Parameters
    ----------
    trainer : Trainer
    plan : FitPlan
    validation : TrainingSet or None
        Rows that take the place of held-out ones.
    finish : callable
        ``finish(plan, model, held_out)`` is called with every `FittedModel` as soon as there is one, and the indices of
        its held-out rows or None; the `FinishedNetwork` that it returns is kept in its place, so that not all are in
        the memory at once. It may be called in other threads and processes.

    Returns
    -------
    list of FinishedNetwork
        In order. Networks are fitted side by side, unless somebody is told of their steps or gives scores. Where a
        callback asks to stop, those that come after are left out.
    """
    data, plans, starts = trainer.data, plans_of_networks(plan, trainer.data), [None] * plan.n_networks
    if trainer.start is not None:
        starts = trainer.start.networks
    parts = [None] * plan.n_networks
    if plan.early_stopping == "validation" and validation is None:
        parts = held_out_parts(data, plan.n_networks, plan.validation_fraction, plan.seed)
    networks = list(zip(plans, starts, parts, strict=True))
    if not trainer.is_watched and not plan.solver.verbose:
        # Only those who watch are shown rows as they were passed.
        rows = None if validation is None else validation.without_given()
        fit = functools.partial(_fit_one, trainer.of(data.without_given()), rows, finish)
        return each_alone(fit, networks)
    finished = []
    for number, network in enumerate(networks, 1):
        name = f"Network {number} of {len(networks)}"
        finished.append(_fit_one(trainer, validation, finish, *network, name))
        if finished[-1].history.stop_reason is StopReason.CALLBACK:
            break
    return finished


def _fit_one(trainer, validation, finish, plan, start, part, name=None):
    """Fit one network, without a part of the rows, and finish it."""
    data, fitting, held_out = trainer.data, slice(None), None
    if part is not None:
        fitting, held_out = np.delete(np.arange(len(data)), part), (data, part)
    elif validation is not None:
        held_out = (validation, slice(None))
    if plan.solver.verbose and held_out is not None:
        n_fitted, n_held_out = (len(rows.numbers[of]) for rows, of in ((data, fitting), held_out))
        print(f"{name}: {n_fitted} rows to fit, {n_held_out} held out.")
    model = trainer.from_start(start).train(plan, fitting=fitting, held_out=held_out)
    return finish(plan, model, part)


@dataclass
class FinishedNetwork:
    """What is kept of a network.

    Attributes
    ----------
    attributes : dict
        The fitted attributes.
    kind : int
        The first of the plan's kinds that it is of.
    history : History
    held_out : ndarray of int or None
        Rows of the training set that it was not fitted to.
    outputs : ndarray of shape (n_held_out, k) or None
        What it says of them, in the targets' units.
    """

    attributes: dict
    kind: int
    history: History
    held_out: np.ndarray | None
    outputs: np.ndarray | None


@dataclass
class OutOfFold:
    """What networks say of rows that they did not see.

    Attributes
    ----------
    rows : TrainingSet
    outputs : ndarray of shape (n, k), float64
        In the targets' units; not a number where no network has said anything.
    kinds : ndarray of shape (n,), int
        The kind of the network.
    """

    rows: TrainingSet
    outputs: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of_none(cls, rows):
        """Of no network so far."""
        return cls(rows, np.full(rows.Y.shape, np.nan), np.zeros(len(rows), dtype=int))

    def __len__(self):
        return len(self.rows)

    def add(self, network):
        """What a `FinishedNetwork` says of the rows that it did not see."""
        self.outputs[network.held_out], self.kinds[network.held_out] = network.outputs, network.kind

    @property
    def known(self):
        """The same of those rows that a network has said something of."""
        known = ~np.isnan(self.outputs[:, 0])
        return OutOfFold(self.rows[known], self.outputs[known], self.kinds[known])


def weights_of_networks(squares, kinds_of_rows, kinds):
    """What each of several networks counts in their mean.

    Networks of one kind count alike, since their folds differ in how hard they are. A kind counts by the inverse square
    of its mean squared error out of fold, without the largest ones, which a single outlier may decide on. Two kinds
    that are about as good are averaged, and one that fails is all but left out.

    Parameters
    ----------
    squares : ndarray of shape (n,)
        Squared errors of rows out of fold, in one unit for all.
    kinds_of_rows : ndarray of shape (n,)
        The kind of the network that did not see the row.
    kinds : sequence of length n_networks

    Returns
    -------
    ndarray of shape (n_networks,), float64, of sum one
    """
    errors = {kind: _mean_of_most(squares[kinds_of_rows == kind]) for kind in set(kinds)}
    least = min(errors.values())
    if not np.isfinite(max(errors.values())) or least <= 0:
        # Nothing can be said.
        return np.full(len(kinds), 1 / len(kinds))
    weights = np.array([(least / errors[kind]) ** 2 for kind in kinds])
    return weights / weights.sum()


def _mean_of_most(squares):
    """Mean without the largest ones."""
    counted = len(squares) - int(np.ceil(_OUTLYING_SHARE * len(squares)))
    return np.sort(squares)[: max(counted, 1)].mean() if len(squares) else np.nan


def plans_of_networks(plan, data):
    """A plan for each of several networks, with a seed of its own and, in turns, a kind.

    The first two stand for all where deviations of predictions are asked for.
    """
    if plan.n_networks == 1:
        return [plan]
    seeds = generator(plan.seed, Stream.NETWORKS).integers(np.iinfo(np.int32).max, size=plan.n_networks)
    plain = plan
    if Ramps(None) in plan.kinds[1:]:
        plain = dataclasses.replace(plan, ramps=Ramps(None)).with_init_scale(data)
    plans = []
    for number, seed in enumerate(seeds):
        ramps = plan.kinds[number % len(plan.kinds)]
        # How loud ramps are does not make weights smaller.
        like = plain if ramps == plain.ramps else plan
        covariance = plan.covariance and number < N_COVARIANCES
        plans.append(dataclasses.replace(like, ramps=ramps, seed=int(seed), covariance=covariance))
    return plans
