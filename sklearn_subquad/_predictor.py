"""The fitted state of both estimators, and predictions from it."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sklearn_subquad._fit.data import CALIBRATION_ROWS, rows_of
from sklearn_subquad._fit.encoding import PiecewiseLinearEncoding
from sklearn_subquad._fit.importances import feature_shares
from sklearn_subquad._fit.laplace import LinearisedLaplace
from sklearn_subquad._fit.mixture import deviation_scale, mixture_deviation, weighted_mean
from sklearn_subquad._fit.scaling import BIAS_FEATURE, InputScaling, TargetScaling
from sklearn_subquad._fit.target_statistics import TargetStatistics
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.row_span import as_array
from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._tabular import TabularInput
from sklearn_subquad._utils.missing import named_errors
from sklearn_subquad._utils.slices import spaced_rows

# What turns outputs of a loss into predictions, in the terms of scikit-learn's MLP.
OUT_ACTIVATIONS = {
    "squared_error": "identity",
    "log_loss": "softmax",
    "binary_log_loss": "logistic",
    "poisson": "exp",
}

# Fitted rows whose deviations say how much those of several networks exceed those of their mean, at most.
_MIXTURE_ROWS = 256
# Attributes that depend on how the fit was stopped, and those of a single network only.
OF_SOME_FITS = ("loo_curve_", "validation_scores_", "oof_prediction_", "oof_decision_function_", "oof_score_")
_OF_ONE_NETWORK = ("_architecture_", "shifts_", "gains_")


class Predictor(TabularInput):
    """Fitted attributes, as plain arrays, scalars and dicts, and predictions from them."""

    # Set by `fit`.
    shifts_: NDArray[np.float64]
    gains_: NDArray[np.float64]
    densities_: NDArray[np.float64]
    init_: str
    init_scale_: float
    damping_: float
    n_iter_: int
    best_iter_: int
    n_cg_iter_: list[int]
    loss_curve_: list[float]
    density_curve_: NDArray[np.float64]
    rank_curve_: list[float]
    loo_curve_: list[float]
    validation_scores_: list[float]
    oof_score_: float
    rank_: int
    phase_times_: dict[str, float]
    stop_reason_: str
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def _model_attributes(self, network, inputs, targets, loss, *, laplace=None, calibration=None):
        """Fitted attributes that predictions read, or say what the network is, on the network's arrays."""
        architecture = network.architecture
        return {
            "_architecture_": {
                "widths": architecture.widths,
                "densities": architecture.densities,
                "sparsifier": architecture.sparsifier,
                "skip_connections": architecture.skip_connections,
                "init_scale": architecture.init_scale,
            },
            "init_": architecture.init,
            "init_scale_": architecture.init_scale,
            "shifts_": np.array([layer.shift for layer in network.layers]),
            "gains_": np.array([layer.gain for layer in network.layers]),
            "n_layers_": len(network.layers) + 2,
            "n_outputs_": network.output_weights[0].shape[1],
            "out_activation_": OUT_ACTIVATIONS[loss],
            "_state_": network.to_state()
            | {
                "input_mean": inputs.mean,
                "input_scale": inputs.scale,
                "input_tolerance": inputs.tolerance,
                "squash_median": None if inputs.squash is None else inputs.squash[0],
                "squash_limit": None if inputs.squash is None else inputs.squash[1],
                "knots": None if inputs.encoding is None else inputs.encoding.knots,
                "knot_counts": None if inputs.encoding is None else inputs.encoding.counts,
                "level_means": None if inputs.statistics is None else inputs.statistics.means,
                "level_counts": None if inputs.statistics is None else inputs.statistics.counts,
                "target_mean": targets.mean,
                "target_scale": targets.scale,
                "laplace": None if laplace is None else laplace.to_state(),
                "calibration": calibration,
                "batch_damping": np.inf,
                "weight_unit": 1.0,
            }
            # Of a stored model that the fit went on from.
            | ({} if inputs.metric is None else {"input_metric": inputs.metric}),
        }

    def _fitted_attributes(self, model, plan, scored, data, laplace, calibration=None):
        """All fitted attributes of one network; `scored` is True where a scorer told when to stop."""
        network, result = model.network, model.history
        attributes = {
            "densities_": self._measure_densities(model, data.X),
            "n_iter_": result.n_iter,
            "best_iter_": result.best_iter,
            "n_cg_iter_": list(result.n_cg_iter),
            "damping_": result.damping,
            "loss_curve_": list(result.loss_curve),
            # Also of no pass at all an array of one column per layer.
            "density_curve_": np.reshape(result.density_curve, (-1, len(network.layers))),
            "rank_curve_": list(result.rank_curve),
            "stop_reason_": result.stop_reason.value,
            "rank_": max((weights.max_rank_seen for weights in network.lazy_weights()), default=0),
            "phase_times_": result.phase_times,
        }
        if plan.early_stopping == "loo":
            attributes["loo_curve_"] = list(result.error_curve)
        elif plan.early_stopping == "validation":
            best = 0.0 if scored else 1.0
            attributes["validation_scores_"] = [best - error for error in result.error_curve]
        attributes |= self._model_attributes(
            network,
            model.inputs,
            model.targets,
            plan.loss,
            laplace=laplace,
            calibration=calibration,
        )
        # By rows, so that those of parts add up.
        shares = feature_shares(model, data, plan.n_networks, plan.seed)
        attributes["_state_"]["importances"] = data.sample_weight.sum() * shares
        return attributes

    def _set_fitted(self, networks):
        """Set the fitted attributes, given the `_fitted_attributes` of every network."""
        for name in (*OF_SOME_FITS, *_OF_ONE_NETWORK):
            self.__dict__.pop(name, None)
        if len(networks) == 1:
            # The state comes last: an estimator that has one is fitted.
            for name, value in networks[0].items():
                setattr(self, name, value)
            return
        self.densities_ = np.mean([network["densities_"] for network in networks], axis=0)
        self.phase_times_ = _sums([network["phase_times_"] for network in networks])
        self._state_ = {"networks": list(networks), "weights": np.full(len(networks), 1 / len(networks))}
        self._set_those_of_the_longest()

    def _set_deviations(self, kinds, errors, data, n_jobs):
        """Let deviations of several networks be those of their mean.

        The noise of a network that has a covariance explains the errors of all networks of its kind on rows that they
        did not see; how much the mean errs less than the mixture is by what they say of fitted rows.
        """
        squares = [
            None if error is None else error * np.mean(network["_state_"]["target_scale"] ** 2)
            for error, network in zip(errors, self._networks(), strict=True)
        ]
        for kind, square, network in zip(kinds, squares, self._networks(), strict=True):
            laplace = network["_state_"]["laplace"]
            if laplace is not None and square:
                of_kind = np.mean([each for each, other in zip(squares, kinds, strict=True) if other == kind])
                laplace["noise"] = laplace["noise"] * (of_kind / square)
        data = data[spaced_rows(len(data), _MIXTURE_ROWS)]
        with worker_threads(n_jobs):
            of_networks = [outputs_of_one(data.X, *model, True) for model in self._models()]
        means, deviations = zip(*of_networks, strict=True)
        scale = deviation_scale(means, deviations, self._state_["weights"], data.sample_weight)
        self._state_["deviation_scale"] = scale

    def _set_those_of_the_longest(self):
        """Of several networks, let attributes that describe a fit be those of the one that took most steps."""
        if len(self._networks()) == 1:
            return
        longest = max(self._networks(), key=lambda network: network["n_iter_"])
        for name in longest.keys() - {*_OF_ONE_NETWORK, "_state_", "densities_", "phase_times_"}:
            setattr(self, name, longest[name])

    @property
    def estimators_(self) -> list[Any]:
        """Fitted estimators of one network each, whose outputs are averaged; of a single network, one like this."""
        check_is_fitted(self)
        return [self._of_one(attributes) for attributes in self._networks()]

    def _networks(self):
        """Fitted attributes of every network."""
        return self._state_.get("networks", [self.__dict__])

    def _of_one(self, attributes):
        one = copy.copy(self)
        one.n_folds = 1
        for name in OF_SOME_FITS:
            one.__dict__.pop(name, None)
        for name, value in attributes.items():
            setattr(one, name, value)
        return one

    @staticmethod
    def _measure_densities(model, X):
        network = model.network
        X = X[spaced_rows(X.shape[0], CALIBRATION_ROWS)]
        active = np.zeros(len(network.layers))
        for rows in network.row_batches(X.shape[0]):
            active += network.forward(model.inputs.transform(network.accepted(X[rows]), network.dtype)).n_active
        return network.mean_densities(active, X.shape[0])

    def _models(self):
        """Every fitted network with its scalings, on the stored arrays, and its covariance of predictions or None."""
        for attributes in self._networks():
            state = attributes["_state_"]
            laplace = None if state.get("laplace") is None else LinearisedLaplace.from_state(state["laplace"])
            yield *self._model(attributes["_architecture_"], state), laplace

    @property
    def _calibration(self):
        """Coefficients of `calibration.logits`, or None; of models that were stored before, the first one alone."""
        return self._state_.get("calibration", self._state_.get("sharpness"))

    @staticmethod
    def _model(architecture, state):
        """A network and its scalings, on stored arrays."""
        network = Network.from_state(Architecture(**architecture), state)
        # Models that were stored before constant features were told apart know of none.
        tolerance = state.get("input_tolerance", np.full_like(state["input_mean"], np.nan))
        encoding = None
        if state.get("knots") is not None:
            encoding = PiecewiseLinearEncoding(state["knots"], state["knot_counts"])
        squash = None
        if state.get("squash_median") is not None:
            squash = state["squash_median"], state["squash_limit"]
        statistics = None
        if state.get("level_means") is not None:
            statistics = TargetStatistics(state["level_means"], state["level_counts"])
        moments = state["input_mean"], state["input_scale"], tolerance, state.get("input_metric")
        inputs = InputScaling(*moments, encoding, squash, statistics)
        return network, inputs, TargetScaling(state["target_mean"], state["target_scale"])

    def _outputs(self, X, return_std=False):
        """Network outputs (n x k) in the target's units, for unvalidated X; if asked, their deviations as well.

        They have X's dtype, or are in double precision where that cannot resolve the targets.
        """
        check_is_fitted(self)
        with named_errors(X, "X"):
            X = rows_of(self._validated_features(X, "X"))
        with worker_threads(self.n_jobs):
            of_networks = [outputs_of_one(X, *model, return_std) for model in self._models()]
        if len(of_networks) == 1:
            return of_networks[0] if return_std else of_networks[0][0]
        out = self._combined([mean for mean, _ in of_networks])
        if not return_std:
            return out
        deviation = mixture_deviation(*zip(*of_networks, strict=True), self._state_["weights"])
        return out, (self._state_.get("deviation_scale", 1.0) * deviation).astype(out.dtype)

    def _combined(self, outputs):
        """Outputs of all networks as those of the estimator."""
        return weighted_mean(outputs, self._state_["weights"]).astype(outputs[0].dtype)

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Array of shape (`n_features_in_`,) of sum one: how much the outputs change with each feature.

        It is zero throughout where the model is constant.

        Raises
        ------
        AttributeError
            Where no `fit` has found any: in a model that was stored by an earlier version, and in one that a callback
            or a score sees during a fit.
        """
        check_is_fitted(self)
        importances = [attributes["_state_"].get("importances") for attributes in self._networks()]
        if any(each is None for each in importances):
            raise AttributeError(
                f"This {type(self).__name__} has no feature_importances_: it was stored by an earlier version, or its "
                "fit has not ended. Fit it again."
            )
        mean = self._state_.get("weights", np.ones(1)) @ [each / (each.sum() or 1.0) for each in importances]
        return mean / (mean.sum() or 1.0)

    @property
    def coefs_(self) -> list[NDArray[np.floating]]:
        """Weights in the layout of scikit-learn's MLP, built from the packed tiles at every access.

        List of `n_layers_` - 1 arrays. With skip connections, item l has shape
        ``(m_l + d, m_{l+1})``, where m_0 = 0: first the rows for the hidden layer before, then those for the d
        (standardised) features and their ramps; the last item has `n_outputs_` columns. Without, item 0 has
        shape ``(d, m_1)`` and item l has shape ``(m_l, m_{l+1})``.

        Raises
        ------
        AttributeError
            Where there are several networks.
        """
        return [hidden_and_features for hidden_and_features, _ in self._dense_layers()]

    @property
    def intercepts_(self) -> list[NDArray[np.floating]]:
        """List of `n_layers_` - 1 arrays of shape (m_l,): the constant input's share of each pre-activation.

        The threshold `shifts_` is not part of it.
        """
        return [intercept for _, intercept in self._dense_layers()]

    def _dense_layers(self):
        check_is_fitted(self)
        if len(self._networks()) > 1:
            raise AttributeError(
                f"This {type(self).__name__} has {len(self._networks())} networks: see coefs_ and intercepts_ of each "
                "of its estimators_, or fit one with n_folds=1."
            )
        state, widths = self._state_, self._architecture_["widths"]
        metric = state.get("input_metric")
        hidden = [
            None,
            *(PackedMatrix(t, m).to_dense().T for t, m in zip(state["tiles"], widths[1:], strict=True)),
        ]
        weights = [layer.input_weights for layer in self._model(self._architecture_, state)[0].layers]
        inputs = [None if each is None else as_array(each).T for each in weights]
        hidden.append(state["output_weights"][0])
        inputs.append(state["output_weights"][1])
        layers = []
        for from_hidden, from_input in zip(hidden, inputs, strict=True):
            parts = [] if from_hidden is None else [from_hidden]
            width = (from_input if from_hidden is None else from_hidden).shape[1]
            intercept = np.zeros(width, dtype=state["output_weights"][0].dtype)
            if from_input is not None:
                parts.append(from_input[:-1] if metric is None else metric.astype(from_input.dtype) @ from_input[:-1])
                intercept = intercept.dtype.type(BIAS_FEATURE) * from_input[-1]
            layers.append((np.concatenate(parts), intercept))
        return layers

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state_")


def outputs_of(X, model):
    """Outputs of a `FittedModel` for rows (n x k) in the targets' units."""
    return outputs_of_one(X, model.network, model.inputs, model.targets, None, False)[0]


def _sums(of_networks):
    """Seconds of every phase, of all networks together."""
    phases = {phase for seconds in of_networks for phase in seconds}
    return {phase: sum(seconds.get(phase, 0.0) for seconds in of_networks) for phase in sorted(phases)}


def outputs_of_one(X, network, inputs, targets, laplace, return_std):
    """Outputs of one network (n x k) in the targets' units, and their deviations if asked for and known, or None."""
    out = np.empty((X.shape[0], network.output_weights[0].shape[1]), dtype=targets.resolving(X.dtype))
    return_std = return_std and laplace is not None
    std = np.empty_like(out) if return_std else None
    # What has no say in predictions has none in their deviations, whatever its unit makes of a change.
    unseen = np.flatnonzero(inputs.constant & network.unseen()[:-1]) if return_std else []
    for rows in network.row_batches(X.shape[0]):
        x = inputs.transform(network.accepted(X[rows]), network.dtype)
        out[rows] = targets.inverse_transform(network.forward(x).output.astype(out.dtype, copy=False))
        if return_std:
            std[rows] = targets.scale * np.sqrt(laplace.variance(network, as_features(x).cleared(unseen)))
    return out, std
