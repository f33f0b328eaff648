"""Fits of both estimators: validation, the plan, fitted attributes, warnings."""

import copy
import dataclasses
import functools
import math
import time
import warnings

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_consistent_length, check_random_state

from sklearn_subquad._compat import CallbackSupportMixin, callback_context, check_sample_weight
from sklearn_subquad._curvature.losses import loss_with_baseline, make_loss
from sklearn_subquad._fit.calibration import HeldOutRows, fitted_coefficients
from sklearn_subquad._fit.callbacks import CallbackProgress
from sklearn_subquad._fit.committee import FinishedNetwork, OutOfFold, fit_committee, weights_of_networks
from sklearn_subquad._fit.data import GivenRows, TrainingSet, rows_of
from sklearn_subquad._fit.laplace import LinearisedLaplace
from sklearn_subquad._fit.memory import require_memory
from sklearn_subquad._fit.plan import FitPlan, resolve_architecture
from sklearn_subquad._fit.plan_table import plan_table
from sklearn_subquad._fit.scoring import Score
from sklearn_subquad._fit.snapshots import Snapshots
from sklearn_subquad._fit.train import Trainer
from sklearn_subquad._fit.warm_start import WarmStart
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._predictor import OUT_ACTIVATIONS, Predictor, outputs_of
from sklearn_subquad._solver.stopping import StopReason
from sklearn_subquad._utils.missing import named_errors


class BaseSubquadMLP(CallbackSupportMixin, Predictor):
    """Base class; the public estimators document the parameters."""

    def _beginning(self):
        """Validate parameters. Without a start, forget what was fitted.

        Returns
        -------
        architecture : Architecture
        score : Score or None
            Judges estimators on held-out rows; None: the loss does.
        start : WarmStart or None
            Model that the fit goes on from.
        """
        start = self._present() if self.warm_start else None
        architecture = resolve_architecture(self, start)
        by_loss = isinstance(self.scoring, str) and self.scoring == "loss"
        score = None if by_loss else Score(self, self.scoring)
        if start is None:
            self._forget()
        return architecture, score, start

    def _present(self):
        """The fitted model as a `WarmStart`, or None where there is none."""
        if not self.__sklearn_is_fitted__():
            return None
        starts = []
        for attributes in self._networks():
            architecture, state = attributes["_architecture_"], attributes["_state_"]
            _, inputs, targets = self._model(architecture, state)
            fixed = {name: value for name, value in architecture.items() if name != "init_scale"}
            starts.append(
                WarmStart(fixed, attributes["init_"], attributes["init_scale_"], inputs, targets.for_more_rows(), state)
            )
        weights = self._state_.get("weights", np.ones(1))
        return dataclasses.replace(starts[0], others=tuple(starts[1:]), weights=weights)

    def _validated_data(self, X, y, reset, **checks):
        """Features and targets; X says what columns are made into where `reset` is True."""
        with named_errors(X, "X"):
            X, y = self._validated_features(X, "X", y, reset=reset, multi_output=True, **checks)
        return rows_of(X), y

    def _fit_part(self, X, Y, sample_weight, *, start, **options):
        """One pass over a part of the data; what it changes is changed at its end."""
        added_up = ("n_iter_", "loss_curve_", "n_cg_iter_", "rank_curve_")
        before = [] if start is None else [dict(attributes) for attributes in self._networks()]
        coefficients = None if start is None else self._calibration
        self._fit_network(X, Y, sample_weight, start=start, partial=True, **options)
        for number, attributes in enumerate(self._networks()):
            damping = attributes["damping_"]
            found = damping if np.isfinite(damping) else np.inf
            least = found if start is None else min(found, start.networks[number].batch_damping)
            attributes["_state_"] |= {"batch_damping": least, "calibration": coefficients}
            if before:
                attributes["_state_"]["importances"] += before[number]["_state_"].get("importances", 0.0)
                attributes |= {name: before[number][name] + attributes[name] for name in added_up}
                curves = before[number]["density_curve_"], attributes["density_curve_"]
                attributes["density_curve_"] = np.concatenate(curves)
            attributes["best_iter_"] = attributes["n_iter_"]
        self._state_["calibration"] = coefficients
        self._set_those_of_the_longest()

    @property
    def _independent_labels(self):
        """True if every output is for or against one label."""
        return False

    @property
    def _loss_name(self):
        """The loss by the names of `FitPlan`."""
        return "binary_log_loss" if self._independent_labels and self.loss == "log_loss" else self.loss

    def _set_calibration(self, rows):
        """Let all networks have the same coefficients of `logits`.

        They are fitted to `HeldOutRows`; where these are None, they are the mean of those that networks have.
        """
        found = [attributes["_state_"]["calibration"] for attributes in self._networks()]
        coefficients = None
        if rows is not None:
            coefficients = fitted_coefficients(rows, self._independent_labels)
        elif all(each is not None for each in found):
            coefficients = np.mean(found, axis=0)
        for state in (self._state_, *(attributes["_state_"] for attributes in self._networks())):
            state["calibration"] = coefficients

    def _weigh(self, known, kinds, data, start):
        """Say what each of several networks counts, by what is `known` out of fold, which is kept where it is all."""
        if start is not None:
            # All networks have seen all rows.
            self._state_["weights"] = start.weights[: len(kinds)]
        elif len(known):
            squares = np.square((self._expected(known.outputs) - known.rows.Y) / ranges_of(data.Y)).sum(axis=1)
            self._state_["weights"] = weights_of_networks(squares, known.kinds, kinds)
            if len(known) == len(data):
                self._set_out_of_fold(known.outputs, data)

    def _require_loss_of_start(self, loss_name):
        if OUT_ACTIVATIONS[loss_name] != self.out_activation_:
            raise ValueError(
                f"loss={self.loss!r} is not the loss of the fit before, whose outputs mean something else, and cannot "
                "change where a fit goes on; use warm_start=False, or fit a new estimator."
            )

    def _forget(self):
        """Make the estimator unfitted, until a fit has set everything else and `_state_` last."""
        self.__dict__.pop("_state_", None)

    def _fit_network(
        self,
        X,
        Y,
        sample_weight,
        *,
        given,
        architecture,
        unit_variance_targets,
        score=None,
        covariance=False,
        calibration=False,
        validation=None,
        start=None,
        partial=False,
    ):
        """Fit on validated X, encoded targets Y (n x k) and weights; set all fitted attributes at the end.

        The rows as they were `given` are for callbacks and for a `score`, which says on held-out rows how good an
        estimator is, if not the loss does.

        A `validation` set says when to stop in the place of held-out rows. A fit goes on from a `start`, if there is
        one. A `partial` one is a single pass over rows that others will follow.

        With `covariance`, what deviations of outputs are computed from is among the attributes; with `calibration`,
        what outputs are multiplied by to be logarithms of probabilities. With `_independent_labels`, every column of Y
        is one of its own.
        """
        if start is not None:
            self._require_loss_of_start(self._loss_name)
        require_range(X)
        weight_unit = None if start is None or not partial else start.weight_unit
        data, weight_unit = TrainingSet.of_distinct_rows(X, Y, sample_weight, given, weight_unit, self._columns)
        context = callback_context(self)
        # On one thread of BLAS, as in a fit.
        with worker_threads(1):
            plan = FitPlan.resolve(
                self,
                architecture,
                data,
                check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
                loss=self._loss_name,
                unit_variance_targets=unit_variance_targets,
                covariance=covariance,
                validation=validation,
                score=score,
                start=start,
                partial=partial,
            )
        require_memory(plan, self)
        require_counts(plan, data, validation)
        if plan.solver.verbose:
            print(plan_table(plan))
        if score is not None and (given if validation is None else validation.given).sample_weight is not None:
            score.warn_without_weights()
        progress = None if context is None else CallbackProgress(self, context, given)
        snapshots = Snapshots(self, self._loss_name, calibration, self._independent_labels)
        trainer = Trainer(data, _loss(plan, data, start), snapshots, start, score, progress)
        finish = functools.partial(self._finished, data.without_given(), score is not None)
        with worker_threads(plan.n_jobs):
            networks = fit_committee(trainer, plan, validation, finish)
        warn_of([network.history for network in networks], plan)
        # Whatever fails before the last lines leaves the estimator as it is.
        fitted = copy.copy(self)
        fitted._set_fitted([network.attributes for network in networks])
        for attributes in fitted._networks():
            attributes["_state_"]["weight_unit"] = weight_unit
        out_of_fold = OutOfFold.of_none(data if plan.in_folds else data[:0])
        if plan.in_folds:
            for network in networks:
                out_of_fold.add(network)
        known = out_of_fold.known
        if plan.in_folds or len(networks) > 1:
            rows = None
            if calibration and len(known):
                rows = HeldOutRows(known.outputs, known.rows.Y, known.rows.sample_weight, len(data))
            fitted._set_calibration(rows)
        if len(networks) > 1:
            kinds = [network.kind for network in networks]
            fitted._weigh(known, kinds, data, start)
            if covariance:
                errors = [network.history.left_out_error for network in networks]
                fitted._set_deviations(kinds, errors, data, plan.n_jobs)
        self.__dict__ = fitted.__dict__
        if progress is not None:
            progress.end()

    def _finished(self, data, scored, plan, model, held_out):
        """A `FinishedNetwork`, which may come from another process; the data are all rows."""
        laplace = self._laplace(model, plan.seed) if plan.covariance else None
        outputs = coefficients = None
        if plan.in_folds:
            outputs = outputs_of(data.X[held_out], model)
        elif model.held_out is not None:
            coefficients = fitted_coefficients(model.held_out, self._independent_labels)
        attributes = self._fitted_attributes(model, plan, scored, data, laplace, coefficients)
        return FinishedNetwork(attributes, plan.kinds.index(plan.ramps), model.history, held_out, outputs)

    def _validation_set(self, X_val, y_val, sample_weight_val, dtype, encode):
        """Rows that say when to stop, or None where none are given.

        `encode` turns y_val and weights into targets (n x k) as the network has them, and weights.
        """
        if X_val is None and y_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val was passed without X_val and y_val; leave it out, or pass them.")
            return None
        if X_val is None or y_val is None:
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"{given} was passed without {missing}; a validation set needs both.")
        X_val_given = X_val
        try:
            with named_errors(X_val, "X_val"):
                X_val = self._validated_features(X_val, "X_val", dtype=[dtype])
        except (TypeError, ValueError) as error:
            if str(error).startswith("X_val"):
                raise
            raise ValueError(f"X_val, the features of the validation set: {error}") from error
        try:
            weights = check_sample_weight(sample_weight_val, X_val)
        except (TypeError, ValueError) as error:
            raise ValueError(f"sample_weight_val, of the validation set: {error}") from error
        y_val = check_array(y_val, accept_sparse="csr", ensure_2d=False, dtype=None, input_name="y_val")
        try:
            check_consistent_length(X_val, y_val)
        except ValueError as error:
            raise ValueError(f"X_val and y_val: {error}") from error
        own_weights = weights
        Y, weights = encode(y_val, weights)
        if not (weights > 0).any():
            raise ValueError("No row of the validation set has a positive weight.")
        given = GivenRows(X_val_given, y_val, None if sample_weight_val is None else own_weights)
        return TrainingSet.of_all_rows(rows_of(X_val), Y, weights, given)

    @staticmethod
    def _scored_targets(y):
        """Targets that predictions are compared with; errors of metrics do not name them."""
        if y is None:
            raise ValueError("y is None: pass the targets that predictions are compared with.")
        return check_array(y, accept_sparse=True, ensure_2d=False, dtype=None, input_name="y")

    @staticmethod
    def _laplace(model, seed):
        start = time.perf_counter()
        laplace = LinearisedLaplace.fit(model.network, model.batch, model.history.left_out_error, seed)
        model.history.phase_times["covariance"] = time.perf_counter() - start
        return laplace


def ranges_of(Y):
    """Of every column of targets, by which errors of all are in one unit; those of indicators are one."""
    ranges = np.ptp(Y, axis=0) if Y.dtype != bool else np.ones(Y.shape[1])
    return np.where(ranges > 0, ranges, 1.0)


def require_range(X):
    """Refuse features whose differences, of all features together, may leave the range of doubles."""
    values = X.data if issparse(X) else X
    largest = max(np.fmax.reduce(values, None, initial=0.0), -np.fmin.reduce(values, None, initial=0.0))
    limit = np.finfo(np.float64).max / (4 * math.sqrt(X.shape[1]))
    if largest > limit:
        raise ValueError(f"X holds {largest:.3g}, but numbers beyond {limit:.3g} cannot be standardised: scale X.")


def require_counts(plan, data, validation):
    """Counts are fitted in their own unit: refuse those near the end of the range of the network's numbers."""
    if plan.loss != "poisson":
        return
    limits = np.finfo(plan.dtype)
    low, high = float(limits.tiny / limits.eps**2), float(limits.max * limits.eps**2)
    for name, rows in (("y", data), ("y_val", validation)):
        largest = np.zeros(1) if rows is None else rows.Y.max(axis=0)
        wrong = largest[(largest > high) | ((largest > 0) & (largest < low))]
        if len(wrong):
            other = "Use precision='double', or scale" if plan.dtype == np.float32 else "Scale"
            raise ValueError(
                f"The largest value of {name}, or of a column of it, is {wrong[0]:.3g}, but where the network is "
                f"{plan.dtype}, loss='poisson' fits counts up to a largest value from {low:.3g} to {high:.3g}. "
                f"{other} {name}."
            )


def _loss(plan, data, start):
    """The loss with a baseline of all rows, because those that are fitted may lack a class; None if it is squared."""
    if plan.loss == "squared_error":
        return None
    if start is not None:
        return loss_with_baseline(plan.loss, start.targets.mean)
    if plan.solver.partial and plan.loss != "poisson":
        return loss_with_baseline(plan.loss, np.zeros(data.Y.shape[1]))
    return make_loss(plan.loss, data.Y, data.sample_weight)


def warn_of(histories, plan):
    """Tell the user of a constant model, and of steps that are mostly inexact."""
    # Of several networks, some may be constant.
    history = max(histories, key=lambda history: history.best_iter)
    # Where the fit ends before the first step because targets are fitted, they are constant themselves.
    fitted_at_once = history.stop_reason is StopReason.INTERPOLATED and history.n_iter == 0
    message = None
    if history.best_iter == 0 and not fitted_at_once and not plan.solver.warm_start:
        message = _why_constant(history)
    elif not plan.solver.in_batches and 2 * history.n_unconverged > history.n_solves:
        # In batches, what a step of one leaves out is made up for by the next.
        message = _how_inexact(history, plan.solver)
    if message is not None:
        warnings.warn(message, ConvergenceWarning, stacklevel=5)


def _why_constant(result):
    """A message for users whose model says the same of all rows."""
    constant = "the model predicts the mean of y (a classifier: the class frequencies)."
    if result.n_iter > 0:
        return (
            f"No step lowers the early-stopping error below that of a constant: {constant} Either these rows do not "
            "show that X says anything about y, and more rows may; or the steps do not suit them: try another damping, "
            "a larger max_iter, or early_stopping=False."
        )
    return (
        f"No step lowers the training loss: {constant} Either X says nothing about y, or its scale is extreme: then "
        "leave standardize=True, or scale X. Or damping or init_scale is so large that steps are lost in "
        "rounding."
    )


def _how_inexact(result, solver):
    """A message for users whose steps are mostly not what they would be by `cg_tol`."""
    return (
        f"{result.n_unconverged} of {result.n_solves} inner solves did not reach cg_tol={solver.cg_tol} in "
        f"max_cg_iter={solver.max_cg_iter} iterations. Their steps were taken all the same, and may fit less than "
        "exact ones: raise max_cg_iter or cg_tol, or choose another preconditioner."
    )
