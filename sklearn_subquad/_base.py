"""What fits of both estimators share: validation, what is decided before a fit, memory, warnings."""

import dataclasses
import math
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import validate_data

from sklearn_subquad._compat import CallbackSupportMixin, callback_context, check_sample_weight
from sklearn_subquad._curvature.preconditioners import MAX_FACTORED_OUTPUTS, resolved_sketch_size
from sklearn_subquad._fit.calibration import fitted_sharpness
from sklearn_subquad._fit.callbacks import CallbackProgress
from sklearn_subquad._fit.data import GivenRows, TrainingSet
from sklearn_subquad._fit.folds import fit_network, held_out_part, keeps_fitted_part
from sklearn_subquad._fit.iterates import Iterates
from sklearn_subquad._fit.laplace import LinearisedLaplace, covariance_sketch_size
from sklearn_subquad._fit.train import (
    FittedStart,
    FittingOptions,
)
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._memory import MAX_SQUARE_ROWS, FitSize, densified, require_bytes
from sklearn_subquad._predictor import OUT_ACTIVATIONS, Predictor
from sklearn_subquad._solver.stopping import StopReason
from sklearn_subquad._utils.missing import named_errors

# Steps of fewer rows times neurons consist of calls that take less time than it takes to wake a thread.
_MIN_STEP_FOR_THREADS = 400_000


class BaseSubquadMLP(CallbackSupportMixin, Predictor):
    """Base class; the public estimators document the parameters."""

    def _beginning(self):
        """What a fit begins with, once nothing is wrong with the parameters. Without a start, forget what was fitted.

        Returns
        -------
        architecture : Architecture
        score : Score or None
            What says on held-out rows how good an estimator is, if not the loss.
        start : FittedStart or None
            What the fit goes on from.
        """
        start = self._present() if self.warm_start else None
        architecture, score = self._architecture_from(start), self._score()
        if start is None:
            self._forget()
        return architecture, score, start

    def _present(self):
        """The fitted model as a `FittedStart`, or None where there is none."""
        if not self.__sklearn_is_fitted__():
            return None
        _, inputs, targets = self._model()
        return FittedStart(inputs, targets, self._state_)

    def _validated_data(self, X, y, start, **checks):
        """Features and targets, in the precision and with the features of a start where there is one."""
        with named_errors(X, "X"):
            return validate_data(
                self,
                X,
                y,
                accept_sparse="csr",
                dtype=[np.float64, np.float32] if start is None else start.dtype,
                multi_output=True,
                reset=start is None,
                **checks,
            )

    def _architecture_from(self, start):
        """The architecture, with the initial weights that a start had; ValueError where it has another shape."""
        architecture = self._architecture()
        if start is None:
            return architecture
        fitted = {name: getattr(architecture, name) for name in self._architecture_ if name != "init_scale"}
        changed = [name for name, value in fitted.items() if self._architecture_[name] != value]
        if changed:
            names = {"widths": "hidden_layer_sizes", "densities": "density"}
            raise ValueError(
                f"{', '.join(names.get(name, name) for name in changed)} cannot change between a fit and one that goes "
                "on from it; use warm_start=False, or fit a new estimator."
            )
        return dataclasses.replace(architecture, init=self.init_, init_scale=self.init_scale_)

    def _fit_part(self, X, Y, sample_weight, *, start, **options):
        """One pass over a part of the data; what it changes is changed at its end."""
        added_up = () if start is None else ("n_iter_", "loss_curve_", "n_cg_iter_", "rank_curve_")
        before = {name: getattr(self, name) for name in added_up}
        densities = [] if start is None else [self.density_curve_]
        sharpness = None if start is None else self._state_["sharpness"]
        self._fit_network(X, Y, sample_weight, start=start, partial=True, **options)
        found = self.damping_ if np.isfinite(self.damping_) else np.inf
        least = found if start is None else min(found, start.batch_damping)
        self._state_ |= {"sharpness": sharpness, "batch_damping": least}
        for name, value in before.items():
            setattr(self, name, value + getattr(self, name))
        self.density_curve_ = np.concatenate([*densities, self.density_curve_])
        self.best_iter_ = self.n_iter_

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
        independent_labels=False,
        validation=None,
        start=None,
        partial=False,
    ):
        """Fit on validated X, encoded targets Y (n x k) and weights; set all fitted attributes at the end.

        The rows as they were `given` are for callbacks and for a `score`, which says on held-out rows how good an
        estimator is, if not the loss does.

        A `validation` set says when to stop in the place of held-out rows. A fit goes on from a `start`, if there is
        one. A `partial` one is a single pass over rows that others will follow.

        With `covariance`, what deviations of outputs are computed from is among them; with `calibration`, what outputs
        are multiplied by to be logarithms of probabilities. With `independent_labels`, every column of Y is one of its
        own.
        """
        loss = "binary_log_loss" if independent_labels and self.loss == "log_loss" else self.loss
        if start is not None and OUT_ACTIVATIONS[loss] != self.out_activation_:
            raise ValueError(
                f"loss={self.loss!r} is not the loss of the fit before, whose outputs mean something else, and cannot "
                "change where a fit goes on; use warm_start=False, or fit a new estimator."
            )
        _require_range(X)
        weight_unit = None if start is None or not partial else start.weight_unit
        data, weight_unit = TrainingSet.of_distinct_rows(X, Y, sample_weight, given, weight_unit)
        n_rows = len(data)
        batch_size = self._resolved_batch_size(n_rows, Y)
        # Of all rows, once: a part of them may be no larger than a batch, and is to be fitted as the whole is.
        in_batches = partial or n_rows > batch_size
        early_stopping = False
        if not partial:
            early_stopping = self._resolved_early_stopping(n_rows, in_batches, validation, score, start)
        context = callback_context(self)
        validation_fraction = float(self.validation_fraction)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        splits = early_stopping == "validation" and validation is None
        n_held_out = len(held_out_part(data, validation_fraction, seed, 0)[1]) if splits else 0
        keeps_part = validation is not None or keeps_fitted_part(in_batches, n_held_out)
        fitted = n_rows - n_held_out if keeps_part else n_rows
        # What batches really have may be half of the most that they are allowed, for a part more than for all rows.
        rows_of_a_step = max(math.ceil(n / math.ceil(n / batch_size)) for n in {fitted, n_rows - n_held_out})
        n_curvatures = 1 if self.loss == "squared_error" else Y.shape[1]
        preconditioner = self._resolved_preconditioner(
            architecture, rows_of_a_step, Y.shape[1], n_curvatures, early_stopping
        )
        solver = self._solver_options(in_batches, preconditioner, start, partial)
        size = FitSize(
            widths=architecture.widths,
            densities=architecture.densities,
            n_rows=n_rows,
            rows_of_a_step=rows_of_a_step,
            n_inputs=X.shape[1] + 1,
            n_outputs=Y.shape[1],
            itemsize=X.dtype.itemsize,
            keep_start=architecture.keep_start,
            topk=architecture.sparsifier == "topk",
            forms_gram=preconditioner == "gram" or early_stopping == "loo",
            sketch_size=resolved_sketch_size(solver.sketch_size, rows_of_a_step) if preconditioner == "sketch" else 0,
            n_factors=n_curvatures if n_curvatures <= MAX_FACTORED_OUTPUTS else 0,
            covariance_size=covariance_sketch_size(fitted) if covariance else 0,
            n_validation_rows=0 if validation is None else len(validation.X),
        )
        self._require_memory(size)
        if score is not None and (given if validation is None else validation.given).sample_weight is not None:
            score.warn_without_weights()
        progress = None if context is None else CallbackProgress(self, context, given)
        options = FittingOptions(
            architecture=architecture,
            solver=solver,
            loss=loss,
            in_batches=in_batches,
            batch_size=batch_size,
            standardize=self.standardize,
            unit_variance_targets=unit_variance_targets,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            keep_left_out=calibration,
            # What goes on from a start keeps its metric.
            learn_metric=self.feature_metric == "learned" and start is None,
            start=start,
            from_any_part=partial,
            iterates=Iterates(self, loss, calibration, independent_labels),
            score=score,
            progress=progress,
            seed=seed,
        )
        small = rows_of_a_step * sum(architecture.widths) < _MIN_STEP_FOR_THREADS
        with worker_threads(1 if small else self.n_jobs):
            model = fit_network(data, options, validation)
            # Where the fit ends before the first step because targets are fitted, they are constant themselves.
            fitted_at_once = model.result.stop_reason is StopReason.INTERPOLATED and not model.result.took_steps
            if model.result.best_iter == 0 and not fitted_at_once and start is None:
                warnings.warn(_why_constant(model.result), ConvergenceWarning, stacklevel=4)
            elif not in_batches and 2 * model.result.n_unconverged > model.result.n_solves:
                # In batches, what a step of one leaves out is made up for by the next.
                warnings.warn(_how_inexact(model.result, options.solver), ConvergenceWarning, stacklevel=4)
            laplace = self._laplace(model, options.seed) if covariance else None
            sharpness = None
            if model.left_out is not None:
                sharpness = fitted_sharpness(model.left_out_rows, independent_labels)
            densities = self._measure_densities(model, data.X)
            self._set_fitted(model, loss, early_stopping, score is not None, densities, laplace, sharpness)
            self._state_["weight_unit"] = weight_unit
        if progress is not None:
            progress.end()

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
                X_val = validate_data(self, X_val, accept_sparse="csr", dtype=dtype, reset=False)
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
        return TrainingSet.of_all_rows(densified(X_val), Y, weights, given)

    @staticmethod
    def _scored_targets(y):
        """Targets that predictions are compared with; errors of metrics do not name them."""
        if y is None:
            raise ValueError("y is None: pass the targets that predictions are compared with.")
        return check_array(y, accept_sparse=True, ensure_2d=False, dtype=None, input_name="y")

    def _require_memory(self, size):
        advice = "use narrower layers, a smaller batch_size, fewer rows or X in single precision."
        if size.forms_gram and size.rows_of_a_step > MAX_SQUARE_ROWS:
            asked = "early_stopping='loo'" if self.early_stopping == "loo" else "preconditioner='gram'"
            advice = f"{asked} takes most of that; leave it at 'auto', or use a smaller batch_size."
        elif size.sketch_size > resolved_sketch_size("auto", size.rows_of_a_step):
            advice = f"sketch_size={size.sketch_size} is more than 'auto', which may be enough; or {advice}"
        require_bytes(
            size.weight_bytes + size.row_bytes,
            f"hidden_layer_sizes={size.widths} takes {size.weight_bytes:,} bytes of weights and, for {size.n_rows} "
            f"rows, about {size.row_bytes:,} more; {advice}",
        )

    @staticmethod
    def _laplace(model, seed):
        start = time.perf_counter()
        laplace = LinearisedLaplace.fit(model.network, model.batch, model.result.left_out_error, seed)
        model.result.phase_times["covariance"] = time.perf_counter() - start
        return laplace


def _require_range(X):
    """Refuse features whose differences, of all features together, may leave the range of doubles."""
    largest, limit = max(X.max(), -X.min()), np.finfo(np.float64).max / (4 * math.sqrt(X.shape[1]))
    if largest > limit:
        raise ValueError(f"X holds {largest:.3g}, but numbers beyond {limit:.3g} cannot be standardised: scale X.")


def _why_constant(result):
    """A message for users whose model says the same of all rows."""
    constant = "the model predicts the mean of y (a classifier: the class frequencies)."
    if result.took_steps:
        return (
            f"No step lowers the early-stopping error below that of a constant: {constant} Either these rows do not "
            "show that X says anything about y, and more rows may; or the steps do not suit them: try another damping, "
            "a larger max_iter, or early_stopping=False."
        )
    return (
        f"No step lowers the training loss: {constant} Either X says nothing about y, or its scale is extreme: then "
        "leave standardize=True, or scale X. Or damping, alpha or init_scale is so large that steps are lost in "
        "rounding."
    )


def _how_inexact(result, solver):
    """A message for users whose steps are mostly not what they would be by `cg_tol`."""
    return (
        f"{result.n_unconverged} of {result.n_solves} inner solves did not reach cg_tol={solver.cg_tol} in "
        f"max_cg_iter={solver.max_cg_iter} iterations. Their steps were taken all the same, and may fit less than "
        "exact ones: raise max_cg_iter or cg_tol, or choose another preconditioner."
    )
