"""Fitted estimators as ONNX models, which predict without this package."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from sklearn_subquad._base import BaseSubquadMLP
from sklearn_subquad._fit.scaling import MAX_SINGLE
from sklearn_subquad._network.activations import n_active
from sklearn_subquad._persistence import VERSION
from sklearn_subquad._regressor import log_limits

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["to_onnx"]

# Of 2022, with the IR that came with it: what is newer would not run everywhere, and adds nothing here.
_OPSET, _IR_VERSION = 17, 8
# Squares of numbers within are in the range of doubles.
_LARGE = 1e150


def to_onnx(model: Any, *, dtype: DTypeLike = "float64") -> "ModelProto":
    """Make an ONNX model of a fitted estimator.

    It holds all that `predict` and `predict_proba` do, in standard operators (opset 17): scaling and ramps of the
    features, every network, their weights in the mean, units of the targets, calibrated probabilities and labels. Its
    input is ``X`` of shape (n, n_features) for any n. The output of a regressor is ``predictions``, of the shape of
    what `predict` returns; those of a classifier are ``label`` and ``probabilities``, as of `predict` and
    `predict_proba`. They equal those of the estimator for X of that dtype, to rounding. Standard deviations are not
    exported, and X is not checked. A gap is nan in X. Models that were fitted to sparse rows take dense ones.

    Parameters
    ----------
    model : SubquadMLPRegressor or SubquadMLPClassifier
        Fitted.
    dtype : {"float32", "float64"} or what NumPy knows as these, default="float64"
        Type of the input, and hence of the results. Features are scaled in double precision either way; the networks
        compute in the `precision` of the fit.

    Returns
    -------
    onnx.ModelProto
        Store it by ``onnx.save``; one of more than 2 GiB needs ``save_as_external_data=True``.

    Raises
    ------
    ImportError
        Where the package onnx is not installed: ``pip install "sklearn_subquad[onnx]"``.
    TypeError
        For other estimators, and for classes that ONNX has no type for, such as dates.
    ValueError
        For another dtype, and for an estimator that was fitted to categories: standard operators do not read words.
    sklearn.exceptions.NotFittedError
        For an estimator that is not fitted.

    Examples
    --------
    >>> import onnx  # doctest: +SKIP
    >>> onnx.save(to_onnx(model), "model.onnx")  # doctest: +SKIP
    """
    if not isinstance(model, BaseSubquadMLP):
        raise TypeError(
            f"model must be a SubquadMLPRegressor or a SubquadMLPClassifier, got {type(model).__name__}; of a pipeline "
            "or a search, pass the fitted estimator in it."
        )
    check_is_fitted(model)
    if dtype not in ("float32", "float64", np.float32, np.float64):
        raise ValueError(f"dtype of to_onnx must be 'float32' or 'float64', got {dtype!r}.")
    graph = _Graph()
    outputs = _outputs(graph, _features(graph, model, np.dtype(dtype)), model)
    (_add_classes if is_classifier(model) else _add_predictions)(graph, outputs, model)
    return graph.to_model(type(model).__name__)


class _Graph:
    """Nodes and constants of a graph, in the order in which they are computed. A value is known by its name."""

    def __init__(self):
        self._nodes, self._constants, self._inputs, self._outputs = [], {}, [], []

    def input(self, name, dtype, shape):
        """An input of the model, of which None in the shape is the number of rows."""
        self._inputs.append((name, dtype, shape))
        return name

    def output(self, name, value, dtype, shape):
        """Let a value be an output of the model."""
        self._nodes.append(("Identity", [value], [name], {}))
        self._outputs.append((name, dtype, shape))

    def __call__(self, operator, *inputs, n_outputs=1, **attributes):
        """What an operator makes of values, and of arrays, which become constants."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        outputs = [f"value_{len(self._nodes)}_{number}" for number in range(n_outputs)]
        self._nodes.append((operator, names, outputs, attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def _constant(self, array):
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.asarray(array)
        return name

    def cast(self, value, dtype):
        return self("Cast", value, to=np.dtype(dtype))

    def to_model(self, name):
        """An `onnx.ModelProto`."""
        try:
            from onnx import helper, numpy_helper
        except ImportError as error:
            raise ImportError(
                'sklearn_subquad.onnx.to_onnx needs the package onnx: pip install "sklearn_subquad[onnx]".'
            ) from error

        def typed(value):
            return helper.np_dtype_to_tensor_dtype(value) if isinstance(value, np.dtype) else value

        def declared(name, dtype, shape):
            shape = ["n_samples" if size is None else size for size in shape]
            return helper.make_tensor_value_info(name, typed(dtype), shape)

        nodes = [
            helper.make_node(operator, inputs, outputs, **{key: typed(value) for key, value in attributes.items()})
            for operator, inputs, outputs, attributes in self._nodes
        ]
        constants = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        inputs, outputs = ([declared(*each) for each in values] for values in (self._inputs, self._outputs))
        return helper.make_model(
            helper.make_graph(nodes, name, inputs, outputs, constants),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="sklearn_subquad",
            producer_version=VERSION,
        )


def _integers(*numbers):
    """Sizes and axes, as operators take them on every platform."""
    return np.array(numbers, dtype=np.int64)


# ---- from features to outputs --------------------------------------------------------------------------------------


def _features(graph, model, dtype):
    """What `Columns.transform` makes of numbers, gaps among which are nan (n x n_features): a value, and its dtype."""
    X, columns = graph.input("X", dtype, (None, model.n_features_in_)), model._columns
    if columns is None:
        return X, dtype
    categories = [number for number, levels in enumerate(columns.levels) if levels is not None]
    if categories:
        names = getattr(model, "feature_names_in_", np.arange(model.n_features_in_))[categories]
        raise ValueError(
            f"This {type(model).__name__} was fitted to categories, which to_onnx does not export: {names.tolist()}. "
            "Fit it to numbers that stand for them, for instance from scikit-learn's OneHotEncoder."
        )
    gaps = graph("IsNaN", graph("Gather", X, np.flatnonzero(columns.gaps), axis=1))
    return graph("Concat", X, graph.cast(gaps, dtype), axis=1), dtype


def _outputs(graph, features, model):
    """Outputs (n x k, float64) of every network in the targets' units, and the dtype of predictions."""
    (X, dtype), values, dtypes = features, [], []
    for (network, inputs, targets, _), one in zip(model._models(), model.estimators_, strict=True):
        x = _network_inputs(graph, X, dtype, inputs, network.dtype)
        output = graph.cast(_network(graph, x, network.architecture, one), np.float64)
        values.append(graph("Add", graph("Mul", output, targets.scale), targets.mean))
        dtypes.append(targets.resolving(dtype))
    return values, dtypes[0]


def _network_inputs(graph, X, dtype, inputs, network_dtype):
    """What `InputScaling.transform` does, without the constant input and the metric, which are in the weights."""
    columns = X if inputs.encoding is None else graph("Concat", X, _ramps(graph, X, dtype, inputs.encoding), axis=1)
    columns = graph.cast(columns, np.float64)
    if inputs.squash is not None:
        columns = _squashed(graph, columns, *inputs.squash, len(inputs.mean))
    deviations = graph("Sub", columns, inputs.mean)
    if inputs.constant.any():
        tolerance = np.where(inputs.constant, inputs.tolerance, -1.0)
        is_rounding = graph("LessOrEqual", graph("Abs", deviations), tolerance)
        deviations = graph("Where", is_rounding, np.zeros(1), deviations)
    scaled = graph("Div", deviations, inputs.scale * np.sqrt(len(inputs.mean)))
    # A gap is the mean of its feature, and so are the ramps of one.
    gaps = graph("IsNaN", X)
    if inputs.encoding is not None:
        gaps = graph("Concat", gaps, graph("Gather", gaps, inputs.encoding.feature_of_ramp, axis=1), axis=1)
    scaled = graph("Where", gaps, np.zeros(1), scaled)
    if network_dtype == np.float64:
        return scaled
    return graph.cast(graph("Clip", scaled, np.array(-MAX_SINGLE), np.array(MAX_SINGLE)), network_dtype)


def _ramps(graph, X, dtype, encoding):
    """`PiecewiseLinearEncoding.ramps`."""
    knots, first = encoding.knots.astype(dtype), encoding.first_knots
    widths = knots[first + 1] - knots[first]
    rises = graph("Sub", graph("Gather", X, encoding.feature_of_ramp, axis=1), knots[first])
    ramps = graph("Div", rises, widths)
    if not widths.all():
        # Knots that are the same number in single precision: on the step itself, zero is divided by zero.
        ramps = graph("Where", graph("IsNaN", ramps), np.ones(1, dtype), ramps)
    return graph("Clip", ramps, np.array(0, dtype), np.array(1, dtype))


def _squashed(graph, columns, median, limit, n_columns):
    """`scaling._squash` of those features that have a limit."""
    features = np.flatnonzero(np.isfinite(limit))
    distance = graph("Sub", graph("Gather", columns, features, axis=1), median[features])
    relative = graph("Clip", graph("Div", distance, limit[features]), np.array(-_LARGE), np.array(_LARGE))
    root = graph("Sqrt", graph("Add", graph("Mul", relative, relative), np.ones(1)))
    squashed = graph("Add", graph("Mul", graph("Div", relative, root), limit[features]), median[features])
    order = np.arange(n_columns)
    order[features] = n_columns + np.arange(len(features))
    return graph("Gather", graph("Concat", columns, squashed, axis=1), order, axis=1)


def _network(graph, x, architecture, one):
    """Outputs of the network of an estimator that has one, before they are in the targets' units."""
    hidden, layers = None, architecture.layers()
    for depth, (coefs, intercept) in enumerate(zip(one.coefs_, one.intercepts_, strict=True)):
        met = [] if hidden is None else [hidden]
        if hidden is not None:
            # The gain of the layer below: its activations are only multiplied by these.
            coefs[: layers[depth - 1][0]] *= coefs.dtype.type(one.gains_[depth - 1])
        if hidden is None or architecture.skip_connections:
            met.append(x)
        met = graph("Concat", *met, axis=1) if len(met) == 2 else met[0]
        if depth == len(layers):
            return graph("Gemm", met, coefs, intercept)
        above = graph("Gemm", met, coefs, intercept - intercept.dtype.type(one.shifts_[depth]))
        hidden = graph("Relu", above)
        if architecture.sparsifier == "topk":
            chosen, where = graph("TopK", above, _integers(n_active(*layers[depth])), n_outputs=2, axis=1, sorted=0)
            hidden = graph("ScatterElements", graph("Sub", above, above), where, chosen, axis=1)


# ---- from outputs to predictions -----------------------------------------------------------------------------------


def _mean(graph, values, model):
    """Weighted mean over the networks."""
    weights = model._state_.get("weights", np.ones(1))
    return graph("Sum", *(graph("Mul", value, np.array(weight)) for value, weight in zip(values, weights, strict=True)))


def _add_predictions(graph, outputs, model):
    values, dtype = outputs
    predictions, shape = _mean(graph, values, model), (None, model.n_outputs_)
    if model.out_activation_ == "exp":
        low, high = log_limits(dtype)
        predictions = graph("Exp", graph("Clip", predictions, np.array(low), np.array(high)))
    if model._single_output:
        predictions, shape = graph("Squeeze", predictions, _integers(1)), (None,)
    graph.output("predictions", graph.cast(predictions, dtype), dtype, shape)


def _add_classes(graph, outputs, model):
    values, dtype = outputs
    classes, factor = model.classes_, model._inverse_temperature
    if factor is None:
        probabilities = _nearest_probabilities(graph, _mean(graph, values, model), model)
    else:
        probabilities = _mean(graph, [_softened(graph, value, factor, model) for value in values], model)
    # Whatever is more probable has the higher score.
    if model._multilabel:
        label_dtype, shape = np.dtype(int), (None, len(classes))
        label = graph.cast(graph("Greater", probabilities, np.array(0.5)), label_dtype)
    else:
        classes, shape = _of_known_type(classes), (None,)
        label_dtype = classes.dtype
        label = graph("Gather", classes, graph("ArgMax", probabilities, axis=1, keepdims=0))
    graph.output("label", label, label_dtype, shape)
    graph.output("probabilities", graph.cast(probabilities, dtype), dtype, (None, len(classes)))


def _of_known_type(classes):
    """Classes as ONNX has them: strings are objects."""
    if classes.dtype.kind in "OUT":
        return classes.astype(object)
    if classes.dtype.kind not in "iufb":
        raise TypeError(
            f"The classes are of type {classes.dtype}, which ONNX does not have: fit with classes that are numbers or "
            "strings, for instance with y.astype(str)."
        )
    return classes


def _is_binary(model):
    """True where the one output is for the second of two classes."""
    return not model._multilabel and len(model.classes_) == 2


def _softened(graph, value, factor, model):
    """Calibrated probabilities (n x n_classes) of one network's outputs."""
    scores = value
    if model._independent_labels and not model._uses_log_loss:
        scores = graph("Sub", graph("Mul", value, np.array(2.0)), np.array(1.0))
    logits = graph("Mul", scores, np.array(factor))
    if model._multilabel:
        return graph("Sigmoid", logits)
    if _is_binary(model):
        logits = graph("MatMul", logits, np.array([[-0.5, 0.5]]))
    return graph("Softmax", logits, axis=1)


def _nearest_probabilities(graph, outputs, model):
    """The probabilities nearest to fitted indicators: `calibration.project_onto_simplex`, or a range for each label.

    With u the sorted numbers of a row, its threshold is the largest of ``(u_1 + ... + u_j - 1) / j``.
    """
    if model._multilabel:
        return graph("Clip", outputs, np.array(0.0), np.array(1.0))
    n_classes = len(model.classes_)
    if _is_binary(model):
        outputs = graph("Add", graph("MatMul", outputs, np.array([[-1.0, 1.0]])), np.array([1.0, 0.0]))
    shifted = graph("Sub", outputs, graph("ReduceMax", outputs, axes=[1], keepdims=1))
    descending, _ = graph("TopK", shifted, _integers(n_classes), n_outputs=2, axis=1)
    excess = graph("Sub", graph("CumSum", descending, np.int64(1)), np.array(1.0))
    thresholds = graph("Div", excess, np.arange(1.0, n_classes + 1))
    projected = graph("Relu", graph("Sub", shifted, graph("ReduceMax", thresholds, axes=[1], keepdims=1)))
    return graph("Div", projected, graph("ReduceSum", projected, _integers(1), keepdims=1))
