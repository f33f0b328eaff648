"""From scaled data to a fitted network: initialise, choose when to stop, solve."""

import dataclasses
import math
import time
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import train_test_split

from sklearn_subquad._network import Architecture, Network
from sklearn_subquad._scaling import InputScaling, TargetScaling
from sklearn_subquad._solver import GaussNewtonSolver, SolverOptions, SolverResult
from sklearn_subquad._stopping import HeldOutError, LeaveOneOutError


@dataclass
class FittedModel:
    """A network with the scalings around it, and how it was found."""

    inputs: InputScaling
    targets: TargetScaling
    network: Network
    result: SolverResult


@dataclass(frozen=True)
class TrainingSet:
    """Rows of positive weight.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
    Y : ndarray of shape (n, k), float64
    sample_weight : ndarray of shape (n,), float64
    """

    X: np.ndarray
    Y: np.ndarray
    sample_weight: np.ndarray

    def __getitem__(self, rows):
        return TrainingSet(self.X[rows], self.Y[rows], self.sample_weight[rows])


@dataclass(frozen=True)
class FittingOptions:
    """Everything about a fit but the data."""

    architecture: Architecture
    solver: SolverOptions
    standardize: bool
    unit_variance_targets: bool
    early_stopping: str | bool
    validation_fraction: float
    seed: int


def fit_network(data, options, stratify=None):
    """Fit a network, stopping early as `options` say.

    Parameters
    ----------
    data : TrainingSet
    options : FittingOptions
        With ``early_stopping="validation"`` the number of steps is found on a held-out part, and a second
        fit takes as many on all rows.
    stratify : ndarray of shape (n,) or None
        Class labels that the held-out part should keep in proportion where it can.

    Returns
    -------
    FittedModel
        Its result describes the final fit, with the error curve of the search, and its stop reason unless the
        final fit took fewer steps than it was meant to. Seconds are summed over both.
    """
    if options.early_stopping != "validation":
        return _fit(data, options, held_out=None)
    fitting, held_out = _split(len(data.X), options, stratify)
    if options.solver.verbose:
        print(f"Finding the number of steps: {len(fitting)} rows to fit, {len(held_out)} held out.")
    search = _fit(data[fitting], options, held_out=data[held_out]).result
    solver = dataclasses.replace(options.solver, max_iter=search.best_iter, tol=0.0)
    if options.solver.verbose:
        print(f"Fitting all {len(data.X)} rows with that number of steps: {search.best_iter}.")
    final = _fit(data, dataclasses.replace(options, solver=solver, early_stopping=False), held_out=None)
    final.result.error_curve = search.error_curve
    final.result.n_unconverged += search.n_unconverged
    if final.result.n_iter == search.best_iter:
        final.result.stop_reason = search.stop_reason
    for phase, seconds in search.phase_times.items():
        final.result.phase_times[phase] += seconds
    return final


def _split(n, options, stratify):
    n_held_out = min(n - 1, max(1, math.ceil(options.validation_fraction * n)))
    if stratify is not None:
        counts = np.unique(stratify, return_counts=True)[1]
        if counts.min() < 2 or len(counts) > min(n_held_out, n - n_held_out):
            stratify = None
    return train_test_split(np.arange(n), test_size=n_held_out, random_state=options.seed, stratify=stratify)


def _fit(data, options, held_out):
    start = time.perf_counter()
    inputs = InputScaling.fit(data.X, data.sample_weight, options.standardize)
    targets = TargetScaling.fit(data.Y, data.sample_weight, options.unit_variance_targets)
    x, Y = inputs.transform(data.X), targets.transform(data.Y).astype(data.X.dtype)
    network = Network.initialise(options.architecture, x, data.sample_weight, Y.shape[1], options.seed)
    criterion = None
    if held_out is not None:
        criterion = HeldOutError(inputs.transform(held_out.X), targets.transform(held_out.Y), held_out.sample_weight)
    elif options.early_stopping == "loo":
        # The seeds of probes and weights differ, so that the one are not drawn from the bits of the other.
        criterion = LeaveOneOutError(data.sample_weight, np.random.default_rng([options.seed, 1]))
    solver = GaussNewtonSolver(network, x, Y, data.sample_weight, options.solver, criterion, seed=[options.seed, 2])
    initialised = time.perf_counter() - start
    result = solver.solve()
    result.phase_times["init"] = initialised
    return FittedModel(inputs, targets, network, result)
