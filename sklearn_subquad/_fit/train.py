"""One network: scale, initialise, solve."""

import contextlib
import dataclasses
import time
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from sklearn_subquad._curvature.losses import SquaredError
from sklearn_subquad._fit.calibration import HeldOutRows
from sklearn_subquad._fit.data import calibration_rows
from sklearn_subquad._fit.scaling import InputScaling, TargetScaling
from sklearn_subquad._fit.snapshots import FitInProgress
from sklearn_subquad._fit.target_statistics import TargetStatistics, features_to_fit
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.row_span import RowSpan
from sklearn_subquad._network.network import Network
from sklearn_subquad._solver.criteria import HeldOutError, HeldOutScore, LeaveOneOutError
from sklearn_subquad._solver.gauss_newton import GaussNewton
from sklearn_subquad._solver.history import History
from sklearn_subquad._solver.levenberg_marquardt import Batch
from sklearn_subquad._solver.stopping import StopReason
from sklearn_subquad._utils.random_streams import Stream, generator


@dataclass
class FittedModel:
    """A network with the scalings around it, how it was found, and what is known of held-out rows.

    Attributes
    ----------
    batch : Batch
        The scaled rows that it was fitted to.
    held_out : HeldOutRows or None
        The network's outputs for held-out rows, where probabilities are calibrated on them.
    """

    inputs: InputScaling
    targets: TargetScaling
    network: Network
    history: History
    batch: Batch
    held_out: HeldOutRows | None


class Trainer:
    """Fits networks to parts of one data set.

    Parameters
    ----------
    data : TrainingSet
    loss : Loss or None
        None: the squared error of targets that are scaled.
    snapshots : Snapshots
    start : WarmStart or None
        Model that fits go on from, instead of random weights. Its scalings stay.
    score : Score or None
        Judges estimators on held-out rows; None: the loss does.
    progress : CallbackProgress or None
        Who is told of fits and steps.
    scalings : dict or None
        Where the data are a part of the rows: the `InputScaling` of all, and their `TargetScaling`, by `Ramps`.
    """

    def __init__(self, data, loss, snapshots, start=None, score=None, progress=None, scalings=None):
        self.data, self._loss, self._snapshots = data, loss, snapshots
        self.start, self._score, self._progress, self._shared = start, score, progress, scalings

    def of(self, data):
        """The same for another data set."""
        return Trainer(data, self._loss, self._snapshots, self.start, self._score, self._progress, self._shared)

    def from_start(self, start):
        """The same for fits that go on from another model, or from none."""
        return Trainer(self.data, self._loss, self._snapshots, start, self._score, self._progress, self._shared)

    @property
    def is_watched(self):
        """True where callbacks or scores, which are the user's code, follow the steps of a fit."""
        return self._progress is not None or self._score is not None

    def train(self, plan, fitting=slice(None), held_out=None):
        """Fit a network.

        Parameters
        ----------
        plan : FitPlan
        fitting : slice or ndarray of int
            Rows to fit.
        held_out : tuple of TrainingSet and slice or ndarray of int, or None
            Rows that say when to stop, as indices of a set.

        Returns
        -------
        FittedModel
        """
        began = time.perf_counter()
        data, rows = self.data, self.data[fitting]
        X = features_to_fit(rows, plan.seed)
        inputs, targets = self._scalings(rows, X, plan)
        batch = self._scaled(rows, inputs, targets, plan, None if self._follows(plan) else X)
        if plan.spans_rows:
            batch = dataclasses.replace(batch, x=RowSpan(batch.x).features())
        # Of the rows as they come, there is no copy while the solver works.
        del rows, X
        source, indices = (data, fitting) if held_out is None else held_out
        network = _initial_network(batch, plan, self.start)
        unfinished = FitInProgress(self._snapshots, network, inputs, targets, source, indices, len(data))
        loss = SquaredError(data.Y.shape[1]) if self._loss is None else self._loss
        criterion = None
        if held_out is not None:
            criterion = HeldOutError(self._scaled(source[indices], inputs, targets, plan), loss, len(data))
            if self._score is not None:
                name = "the held-out part of early_stopping" if source is data else "the validation set"
                criterion = HeldOutScore(criterion, unfinished.scoring(self._score, name))
        elif plan.early_stopping == "loo":
            criterion = LeaveOneOutError(batch, generator(plan.seed, Stream.LEAVE_ONE_OUT_PROBES))
        seconds = time.perf_counter() - began
        with contextlib.ExitStack() as stack:
            listener = self._listener(plan, fitting, unfinished, stack)
            history = GaussNewton(network, batch, loss, plan.solver, criterion, plan.seed, listener).solve()
            if listener is not None:
                listener.restored(history)
        if listener is not None and listener.stopped:
            history.stop_reason = StopReason.CALLBACK
        history.phase_times["init"] = seconds
        held_out_rows = unfinished.held_out_rows(history.best_judgement)
        return FittedModel(inputs, targets, network, history, batch, held_out_rows)

    def _listener(self, plan, fitting, unfinished, stack):
        """Who is told of the steps of this fit, from now on until the stack is left; None for nobody."""
        if self._progress is None:
            return None
        data = self.data
        name = "fit to all rows" if len(data.numbers[fitting]) == len(data) else "fit without held-out rows"
        fit = self._progress.fit(name, plan.solver.max_iter, lambda: data.as_given(fitting), unfinished.attributes)
        return stack.enter_context(fit)

    def _follows(self, plan):
        """True for a part of the data that follows another one, of which scalings know nothing."""
        return self.start is not None and plan.solver.partial

    def _scalings(self, rows, X, plan):
        """Scaling of inputs and of targets for these rows, with X from `features_to_fit`."""
        if self.start is not None:
            return self.start.inputs, self.start.targets
        if self._shared is not None:
            inputs, targets = self._shared[plan.ramps]
            return dataclasses.replace(inputs, statistics=TargetStatistics.of_rows(rows)), targets
        inputs = InputScaling.fit(X, rows.sample_weight, plan.standardize, plan.ramps, rows.group_sizes)
        inputs.statistics = TargetStatistics.of_rows(rows)
        if self._loss is None:
            targets = TargetScaling.fit(rows.Y, rows.sample_weight, plan.unit_variance_targets)
            return inputs, targets.for_more_rows() if plan.solver.partial else targets
        # The loss adds its baseline, and so do predictions.
        return inputs, TargetScaling(self._loss.baseline, np.ones_like(self._loss.baseline))

    def _scaled(self, rows, inputs, targets, plan, X=None):
        """Rows as network and loss take them: only the squared error's targets are scaled.

        With X, from `features_to_fit`, they are those that the scaling was fitted to.
        """
        Y = targets.transform(rows.Y, plan.dtype) if self._loss is None else rows.Y.astype(plan.dtype)
        encoded, X = X is not None, rows.X if X is None else X
        # A validation set may be dense.
        X = csr_array(X) if plan.spans_rows else X
        return Batch(inputs.transform(X, plan.dtype, encoded), Y, rows.sample_weight)


def _initial_network(batch, plan, start):
    if start is not None and not plan.solver.partial:
        return start.network(plan.architecture)
    rows = calibration_rows(batch, plan.seed)
    # What varies in other rows alone varies.
    varies = as_features(batch.x).nonzero_columns()
    if start is None:
        n_outputs = batch.Y.shape[1]
        return Network.initialise(plan.architecture, rows.x, rows.sample_weight, n_outputs, plan.seed, varies)
    network = start.network(plan.architecture)
    # Earlier parts may have been as small as a single row, in which nothing varies.
    varies &= np.append(start.inputs.constant, False)
    network.draw_unseen(varies, rows.x, rows.sample_weight, [plan.seed, Stream.UNSEEN_FEATURES])
    return network
