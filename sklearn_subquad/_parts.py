"""Fits from parts of the rows: a network or several for every part, fitted where it is loaded, and averaged."""

import contextlib
import copy
import dataclasses
import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import check_random_state

from sklearn_subquad._base import BaseSubquadMLP, ranges_of, require_counts, require_range, warn_of
from sklearn_subquad._compat import check_sample_weight, fit_context
from sklearn_subquad._curvature.losses import Loss, make_loss
from sklearn_subquad._fit.calibration import HeldOutRows
from sklearn_subquad._fit.committee import plans_of_networks
from sklearn_subquad._fit.data import TrainingSet, drawn_rows, rows_of, stacked
from sklearn_subquad._fit.held_out import held_out_parts
from sklearn_subquad._fit.memory import require_memory
from sklearn_subquad._fit.part_statistics import PartSummary, SharedStatistics
from sklearn_subquad._fit.part_weights import least_squares_weights
from sklearn_subquad._fit.parts import parts_of
from sklearn_subquad._fit.plan import FitPlan, resolve_architecture
from sklearn_subquad._fit.scaling import TargetScaling
from sklearn_subquad._fit.snapshots import Snapshots
from sklearn_subquad._fit.train import Trainer
from sklearn_subquad._linalg.threads import each_in_order, so_many_threads, worker_threads
from sklearn_subquad._predictor import OF_SOME_FITS, outputs_of_one
from sklearn_subquad._utils.dask_collections import cluster_backend, is_collection, partitions
from sklearn_subquad._utils.random_streams import Stream, generator

# Rows that no network has seen, of all parts together: these are all that leaves a worker beside the networks.
_HELD_OUT_ROWS = 4096
# Parts of up to so many rows have so many networks, up to so many in all: these are quick, cost no more than those of a
# fit in memory, and their kinds make up for what few rows do not show.
_SMALL_PART, _NETWORKS_OF_SMALL_PARTS, _MOST_NETWORKS = 5000, 3, 32


@dataclass(frozen=True)
class Shared:
    """What fits of all parts have in common.

    Attributes
    ----------
    estimator : FitsParts
        With what columns and targets are made into.
    loss : Loss or None
        None: the squared error of targets that are scaled.
    scalings : dict
        `InputScaling` and `TargetScaling` by `Ramps`.
    early_stopping : str or False
        As the plan of all rows has it.
    n_held_out : int
        Rows that a part tells of, at most.
    """

    estimator: Any
    loss: Loss | None
    scalings: dict
    early_stopping: str | bool
    n_held_out: int


@dataclass(frozen=True)
class FittedPart:
    """What comes back of a part.

    Attributes
    ----------
    networks : list of FinishedNetwork
    errors : list of float or None
        Of every network, on the rows that it did not see.
    held_out : TrainingSet
        Some of the rows that no network has seen, whose weights are those of all such rows of the part.
    weight_unit : float
        Mean weight of the rows.
    n_rows : int
    """

    networks: list
    errors: list
    held_out: TrainingSet
    weight_unit: float
    n_rows: int


def summarise_part(part, estimator, n_parts, seed):
    """Load a part and tell of it what all parts share, as a `PartSummary`; None of an empty partition."""
    loaded = part.load()
    if loaded is None:
        return None
    X, y, sample_weight = loaded
    estimator = copy.copy(estimator)
    with part.named_errors(), so_many_threads(1):
        X, targets, sample_weight = estimator._validated_part(X, y, sample_weight, reset=True)
        return PartSummary.of_rows(
            X,
            targets,
            sample_weight,
            columns=estimator._columns,
            names=estimator.__dict__.get("feature_names_in_"),
            told=estimator._told_of_targets(targets, sample_weight),
            n_parts=n_parts,
            seed=seed,
            number=part.number,
        )


def fit_part(part, shared, plans):
    """Load a part and fit a network by each of the plans, as a `FittedPart`."""
    X, y, sample_weight = part.load()
    estimator = shared.estimator
    with part.named_errors(), so_many_threads(1):
        X, targets, sample_weight = estimator._validated_part(X, y, sample_weight, reset=False)
        Y, sample_weight = estimator._encoded(targets, sample_weight)
        del targets, y
        data, weight_unit = TrainingSet.of_distinct_rows(X, Y, sample_weight, None, None, estimator._columns)
        if len(data) < 2 and shared.early_stopping == "validation":
            raise ValueError("There is one row, of those that differ, to fit and to hold out: join it to another part.")
        plans = _plans_of_part(estimator, data, shared, plans)
        require_counts(plans[0], data, None)
        # One after the other, of which these alone are kept here.
        require_memory(dataclasses.replace(plans[0], n_networks=len(plans), n_jobs=1), estimator)
        fitting, held_out = slice(None), None
        if shared.early_stopping == "validation":
            held_out = held_out_parts(data, 1, plans[0].validation_fraction, plans[0].seed)[0]
            fitting = np.delete(np.arange(len(data)), held_out)
        # Without held-out rows, networks are calibrated one by one, on outputs for rows as if they were left out.
        calibrates = shared.early_stopping == "loo" and is_classifier(estimator)
        snapshots = Snapshots(estimator, plans[0].loss, calibrates, estimator._independent_labels)
        trainer = Trainer(data, shared.loss, snapshots, scalings=shared.scalings)
        networks = []
        for plan in plans:
            model = trainer.train(plan, fitting, None if held_out is None else (data, held_out))
            networks.append(estimator._finished(data, False, plan, model, None))
        errors = [network.history.left_out_error for network in networks]
        for network in networks:
            # They hold outputs for all rows that were held out.
            network.history.judgement = network.history.best_judgement = None
        told = _some_of(data[:0] if held_out is None else data[held_out], shared.n_held_out, plans[0].seed, weight_unit)
        return FittedPart(networks, errors, told, weight_unit, len(data))


def _some_of(rows, n_at_most, seed, weight_unit):
    """So many rows at most, which together weigh what all do, in the unit of the caller."""
    some = rows[drawn_rows(len(rows), n_at_most, generator(seed, Stream.ROWS_OF_PARTS))]
    factor = weight_unit * rows.sample_weight.sum() / (some.sample_weight.sum() or 1.0)
    return TrainingSet.of_all_rows(some.X, some.Y, factor * some.sample_weight, None)


def _plans_of_part(estimator, data, shared, plans):
    """Plans of networks for all rows as those of networks for the rows of a part."""
    parameters = copy.copy(estimator)
    parameters.n_folds, parameters.early_stopping = 1, shared.early_stopping
    parameters.init_scale = plans[0].architecture.init_scale
    own = FitPlan.resolve(
        parameters,
        plans[0].architecture,
        data,
        plans[0].seed,
        loss=plans[0].loss,
        unit_variance_targets=plans[0].unit_variance_targets,
        covariance=plans[0].covariance,
        validation=None,
        score=None,
        start=None,
        partial=False,
    )
    solver = own.solver
    if solver.in_batches and len(data) <= _SMALL_PART:
        # A few held-out rows say little of a single pass: two in a row without progress end a fit.
        n_steps = 2 * math.ceil(len(data) / solver.batch_size)
        solver = dataclasses.replace(solver, n_iter_no_change=max(solver.n_iter_no_change, n_steps))
    size = dataclasses.replace(own.size, n_inputs=plans[0].size.n_inputs, itemsize=plans[0].dtype.itemsize)
    of_all = ("architecture", "n_networks", "kinds", "ramps", "dtype", "covariance", "seed")
    return [
        dataclasses.replace(own, solver=solver, size=size, **{name: getattr(plan, name) for name in of_all})
        for plan in plans
    ]


class FitsParts(BaseSubquadMLP):
    """Estimator that fits to parts of the rows as well."""

    @fit_context(prefer_skip_nested_validation=True)
    def fit_parts(self, parts: Iterable[Any]) -> Self:
        """Fit to rows that come in parts, a network or several to each, and average these.

        A part is loaded by the worker that fits it, and goes no further. Parts are loaded twice: first for the scale of
        the features, quantiles, levels and classes, which all share, then to be fitted. How many are loaded at a time
        is for `n_jobs` and ``joblib.parallel_config`` to say, whose backend may be threads, processes or a cluster;
        every part is fitted on one thread, and the result is the same to the bit wherever that is, on processors of
        one kind.

        Parameters
        ----------
        parts : iterable of tuple, callable or Dask delayed object
            Each is a tuple (X, y) or (X, y, sample_weight) as `fit` takes them, or a callable without arguments or
            delayed object that returns one; for other processes, what can be pickled. All have the same columns, of one
            kind. Rows should be dealt to the parts at random.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError, TypeError
            For data and parameters that `fit` refuses, with the number of the part and the name of its callable; parts
            that are empty or differ in their columns; ``warm_start=True``, another `scoring` than "loss" and callbacks.
        RuntimeError
            For parts that cannot be loaded.
        MemoryError
            Where a worker has less memory than the fit of its part takes.

        Notes
        -----
        A fit that fails or is interrupted leaves the estimator as it was.

        There are as many networks as `fit` would have for all rows, and one for each part at least; unless `n_folds` is
        a number, three for each part of up to 5,000 rows, but no more than 32 for that. A part holds out
        `validation_fraction` of its rows, which say when to stop its networks; in batches of such a small part, after
        two passes without progress at the earliest. Up to 4,096 of those of all parts say what each network counts and
        calibrate probabilities.

        Moments, extremes, levels and class counts are exact. Quantiles are those of a sample of 8,192 rows of all
        parts, or more than half as many where the largest part is up to four times as large as the mean: the share of
        rows below one is off by less than 0.018 with a probability of 99 % (0.025 of half the sample), by the
        inequality of Dvoretzky, Kiefer and Wolfowitz.
        """
        self._require_for_parts()
        parts = parts_of(parts)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        fitted = copy.copy(self)
        # Whatever fails before the last line leaves the estimator as it is. Workers get no predictions of a fit before.
        fitted._forget()
        for name in OF_SOME_FITS:
            fitted.__dict__.pop(name, None)
        fitted.verbose = 0
        with cluster_backend(source for part in parts for source in part.sources):
            parts, statistics, moments = fitted._summarised(parts, seed, self.verbose)
            fitted._fit_to_parts(parts, statistics, moments, seed, self.verbose)
        for name, value in self.get_params(deep=False).items():
            setattr(fitted, name, value)
        self.__dict__ = fitted.__dict__
        return self

    @staticmethod
    def _takes_collections(X, y, *validation):
        """Whether rows are in Dask collections, for which there is no validation set."""
        if not (is_collection(X) or is_collection(y)):
            return False
        if any(each is not None for each in validation):
            raise ValueError("X_val and y_val are for arrays and frames; of Dask collections, leave them out.")
        return True

    def _fit_collections(self, X, y, sample_weight):
        """Fit to Dask collections, whose partitions are parts."""
        return self.fit_parts(partitions(X, y, sample_weight))

    def _require_for_parts(self):
        if self.warm_start:
            raise ValueError("warm_start=True goes on from one fit, but fit_parts begins anew; use warm_start=False.")
        if not isinstance(self.scoring, str) or self.scoring != "loss":
            raise ValueError(f"scoring={self.scoring!r} is for fit; fit_parts needs scoring='loss'.")
        if getattr(self, "_skl_callbacks", ()):
            raise ValueError("fit_parts calls no callbacks: remove them by set_callbacks(), and use verbose=1.")

    def _summarised(self, parts, seed, verbose):
        """Parts that have rows, their `SharedStatistics` and `Moments` of targets.

        Sets what columns and targets are made into.
        """
        tasks = [(part, self, len(parts), seed) for part in parts]
        summaries = self._each(summarise_part, tasks, "read", verbose)
        told = [(part, summary) for part, summary in zip(parts, summaries, strict=True) if summary is not None]
        if not told:
            raise ValueError("All partitions are empty: no row is left to fit.")
        parts, summaries = zip(*told, strict=True)
        moments = self._share_targets(parts, [summary.told for summary in summaries])
        statistics = SharedStatistics.merged(parts, summaries)
        names = summaries[0].names
        self.__dict__.pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = names
        self.n_features_in_ = len(summaries[0].columns.levels)
        self._columns_ = None if statistics.columns is None else statistics.columns.to_state()
        return parts, statistics, moments

    def _each(self, work, tasks, done, verbose):
        """What work returns for every task, the first argument of which is a part."""
        results = []
        with contextlib.closing(each_in_order(work, tasks, self.n_jobs)) as returned:
            for (part, *_), result in zip(tasks, returned, strict=True):
                results.append(result)
                if verbose:
                    print(
                        f"{part.name}: {0 if result is None else result.n_rows} rows {done}; "
                        f"{len(tasks) - len(results)} parts to come",
                        flush=True,
                    )
        return results

    def _fit_to_parts(self, parts, statistics, moments, seed, verbose):
        """Fit to all parts, given what they share, and set all fitted attributes."""
        sample = statistics.training_set(*self._encoded(statistics.targets, statistics.sample_weight))
        plan = self._plan_of_parts(sample, seed)
        n_of_part = -(-plan.n_networks // len(parts))
        if not isinstance(self.n_folds, Integral) and plan.in_folds and statistics.n_rows <= _SMALL_PART * len(parts):
            n_of_part = max(n_of_part, min(_NETWORKS_OF_SMALL_PARTS, _MOST_NETWORKS // len(parts)))
        plan = dataclasses.replace(plan, n_networks=n_of_part * len(parts))
        shared = self._shared(statistics, moments, sample, plan, len(parts))
        plans = plans_of_networks(plan, sample)
        if verbose:
            print(f"{len(plans)} networks, {n_of_part} to each of {len(parts)} parts", flush=True)
        tasks = [(part, shared, plans[i * n_of_part : (i + 1) * n_of_part]) for i, part in enumerate(parts)]
        fitted = self._each(fit_part, tasks, "fitted", verbose)
        networks = [network for part in fitted for network in part.networks]
        self._set_fitted([network.attributes for network in networks])
        n_rows = [part.n_rows for part in fitted]
        weight_unit = float(np.average([part.weight_unit for part in fitted], weights=n_rows))
        for attributes in self._networks():
            attributes["_state_"]["weight_unit"] = weight_unit
        with worker_threads(self.n_jobs):
            self._learn_from_held_out(_joined([part.held_out for part in fitted]), sum(n_rows))
        if len(networks) > 1 and plan.covariance:
            errors = [error for part in fitted for error in part.errors]
            self._set_deviations([network.kind for network in networks], errors, sample, self.n_jobs)
        warn_of([network.history for network in networks], plan)

    def _plan_of_parts(self, sample, seed):
        """Every choice that all parts share, by the sample, which is as large as makes any difference to these."""
        with so_many_threads(1):
            return FitPlan.resolve(
                self,
                resolve_architecture(self),
                sample,
                seed,
                loss=self._loss_name,
                unit_variance_targets=not is_classifier(self),
                covariance=not is_classifier(self) and self.loss == "squared_error",
                validation=None,
                score=None,
                start=None,
                partial=False,
            )

    def _shared(self, statistics, moments, sample, plan, n_parts):
        mean, deviation, _, constant_range = moments.for_scaling(rounding=0)
        loss = None
        if plan.loss == "squared_error":
            varying = np.where(np.isnan(constant_range), deviation, 0.0)
            targets = TargetScaling(mean, varying if plan.unit_variance_targets else np.ones_like(mean))
        else:
            loss = make_loss(plan.loss, mean[np.newaxis], np.ones(1))
            targets = TargetScaling(loss.baseline, np.ones_like(mean))
        with so_many_threads(1):
            scalings = {
                ramps: (statistics.input_scaling(sample, self.standardize, ramps, seed=plan.seed), targets)
                for ramps in dict.fromkeys(plan.kinds)
            }
        return Shared(self, loss, scalings, plan.early_stopping, -(-_HELD_OUT_ROWS // n_parts))

    def _learn_from_held_out(self, rows, n_rows):
        """Weights of networks and the calibration of probabilities, by rows that no network has seen."""
        if not len(rows):
            self._set_calibration(None)
            return
        outputs = np.array([outputs_of_one(rows.X, *model, False)[0] for model in self._models()], dtype=np.float64)
        squared = self.loss == "squared_error"
        if len(outputs) > 1:
            # By the squared error outputs are averaged, of other losses what they mean.
            expected = outputs if squared else np.array([self._expected(each) for each in outputs])
            unit = ranges_of(rows.Y)
            self._state_["weights"] = least_squares_weights(expected / unit, rows.Y / unit, rows.sample_weight)
        if squared and is_classifier(self):
            mean = self._combined(outputs) if len(outputs) > 1 else outputs[0]
            self._set_calibration(HeldOutRows(mean, rows.Y, rows.sample_weight, n_rows))

    def _validated_part(self, X, y, sample_weight, reset):
        """Features, targets and weights of a part, whose X says what columns are made into where `reset` is True."""
        X, targets = self._validated_targets(X, y, reset)
        require_range(X)
        return X, targets, check_sample_weight(sample_weight, X)

    @abstractmethod
    def _validated_targets(self, X, y, reset):
        """Features and targets, an array of one row or number for each row, not encoded."""

    @abstractmethod
    def _told_of_targets(self, targets, sample_weight):
        """What all parts are to know of the targets of one."""

    @abstractmethod
    def _share_targets(self, parts, told):
        """Set what targets are made into, given what is told of every part; returns `Moments` of encoded targets."""

    @abstractmethod
    def _encoded(self, targets, sample_weight):
        """Targets as networks have them (n x k), and weights of rows with those of classes."""


def _joined(sets):
    """Rows of several `TrainingSet` without any that they were given from."""
    X = rows_of(stacked([each.X for each in sets]))
    Y, sample_weight = (np.concatenate([getattr(each, name) for each in sets]) for name in ("Y", "sample_weight"))
    return TrainingSet.of_all_rows(X, Y, sample_weight, None)
