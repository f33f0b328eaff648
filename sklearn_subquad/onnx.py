"""Fitted estimators as ONNX models, which predict without this package."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from sklearn_subquad._base import BaseSubquadMLP
from sklearn_subquad._fit.calibration import FLOORS
from sklearn_subquad._fit.scaling import MAX_SINGLE
from sklearn_subquad._network.activations import n_active
from sklearn_subquad._persistence import VERSION
from sklearn_subquad._regressor import log_limits

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["to_onnx"]

# The opset, and the IR that came with it: for numbers of 2022, because newer ones would not run everywhere; for
# categories of 2023, the first that compares strings.
_OF_NUMBERS, _OF_STRINGS = (17, 8), (19, 9)
_STRING = np.dtype(object)
# Squares of numbers within are in the range of doubles.
_LARGE = 1e150


def to_onnx(model: Any, *, dtype: DTypeLike = "float64") -> "ModelProto":
    """Make an ONNX model of a fitted estimator.

    It holds all that `predict` and `predict_proba` do, in standard operators (opset 17; 19 where there are
    categories): scaling and ramps of the features, levels and means of categories, every network, their weights in the
    mean, units of the targets, calibrated probabilities and labels. The output of a regressor is ``predictions``, of
    the shape of what `predict` returns; those of a classifier are ``label`` and ``probabilities``, as of `predict` and
    `predict_proba`. They equal those of the estimator for X of that dtype, to rounding. Standard deviations are not
    exported, and X is not checked.

    The input is ``X`` of shape (n, n_features) for any n, where a gap is nan. Models that were fitted to sparse rows
    take dense ones.

    A model that was fitted to categories has an input of shape (n, 1) for every column of X instead. Its name is that
    of the column, or ``x0``, ``x1``, ... where columns have no names. Columns of numbers, also if they were text, and
    of truth values are of the dtype. Categories are strings: the level as text, where whole numbers and truth values
    are whole numbers ("3", not "3.0"; "1", not "True"), and the empty string for a gap.

    Parameters
    ----------
    model : SubquadMLPRegressor or SubquadMLPClassifier
        Fitted.
    dtype : {"float32", "float64"} or what NumPy knows as these, default="float64"
        Type of inputs that are numbers, and hence of the results. Features are scaled in double precision either way;
        the networks compute in the `precision` of the fit.

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
        For another dtype, and for a column beside categories that cannot be an input because it has no name, or that
        of an output.
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
    graph, dtype = _Graph(), np.dtype(dtype)
    features, levels = _features(graph, model, dtype)
    outputs = _outputs(graph, features, levels, dtype, model)
    (_add_classes if is_classifier(model) else _add_predictions)(graph, outputs, model)
    return graph.to_model(type(model).__name__)


class _Graph:
    """Nodes and constants of a graph, in the order in which they are computed. A value is known by its name."""

    def __init__(self):
        self._nodes, self._constants, self._inputs, self._outputs = [], {}, [], []

    def input(self, name, dtype, shape):
        """An input of the model, of which None in the shape is the number of rows. Inputs come before all else."""
        self._inputs.append((name, dtype, shape))
        return name

    def output(self, name, value, dtype, shape):
        """Let a value be an output of the model."""
        self._nodes.append(("Identity", [value], [name], {}))
        self._outputs.append((name, dtype, shape))

    def __call__(self, operator, *inputs, n_outputs=1, **attributes):
        """What an operator makes of values, and of arrays, which become constants."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        outputs = [self._unused(f"value_{len(self._nodes)}_{number}") for number in range(n_outputs)]
        self._nodes.append((operator, names, outputs, attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def _constant(self, array):
        name = self._unused(f"constant_{len(self._constants)}")
        self._constants[name] = np.asarray(array)
        return name

    def _unused(self, name):
        """That name, or a longer one where it is that of an input."""
        while any(name == each for each, *_ in self._inputs):
            name += "_"
        return name

    def cast(self, value, dtype):
        return self("Cast", value, to=np.dtype(dtype))

    def concat(self, *values):
        """Columns side by side."""
        return values[0] if len(values) == 1 else self("Concat", *values, axis=1)

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
        has_strings = any(dtype == _STRING for _, dtype, _ in self._inputs)
        opset, ir_version = _OF_STRINGS if has_strings else _OF_NUMBERS
        return helper.make_model(
            helper.make_graph(nodes, name, inputs, outputs, constants),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="sklearn_subquad",
            producer_version=VERSION,
        )


def _integers(*numbers):
    """Sizes and axes, as operators take them on every platform."""
    return np.array(numbers, dtype=np.int64)


# ---- from features to outputs --------------------------------------------------------------------------------------


def _features(graph, model, dtype):
    """What `Columns.transform` makes of X: numbers (n x n_features), gaps among which are nan, and levels.

    The numbers are a list of one value, or of none where there are no numbers. Levels are those of every category that
    is told by means, as from `_level`.
    """
    columns = model._columns
    if columns is not None and any(levels is not None for levels in columns.levels):
        return _features_of_columns(graph, _input_names(model), columns, dtype)
    X = graph.input("X", dtype, (None, model.n_features_in_))
    if columns is None:
        return [X], []
    gaps = graph("IsNaN", graph("Gather", X, np.flatnonzero(columns.gaps), axis=1))
    return [graph.concat(X, graph.cast(gaps, dtype))], []


def _input_names(model):
    """Names of the columns of X, or an error for one that cannot be that of an input."""
    names = getattr(model, "feature_names_in_", [f"x{number}" for number in range(model.n_features_in_)])
    for name in ("", *_output_names(model)):
        if name in names:
            raise ValueError(
                f"This {type(model).__name__} was fitted to categories, hence columns are inputs of the ONNX model, "
                f"but {name!r} cannot be one because it is {'the name of an output' if name else 'no name'}: rename "
                "the column and fit again."
            )
    return names


def _features_of_columns(graph, names, columns, dtype):
    """The same from an input for every column."""
    inputs = [
        graph.input(name, dtype if levels is None else _STRING, (None, 1))
        for name, levels in zip(names, columns.levels, strict=True)
    ]
    # Whether a row of a category has a gap (first) or a level (n x (1 + n_levels)).
    found = {
        number: graph("Equal", inputs[number], np.array([["", *levels]], dtype=object))
        for number, levels in enumerate(columns.levels)
        if levels is not None
    }
    single, several, many = columns.of_kind()
    counts = [0 if levels is None else len(levels) for levels in columns.levels]
    numbers = [
        _of_level(graph, np.arange(counts[number], dtype=dtype)[:, np.newaxis], _level(graph, found[number]))
        if number in found
        else inputs[number]
        for number in single
    ]
    flags = [graph("Gather", found[number], np.arange(1, 1 + counts[number]), axis=1) for number in several]
    flags += [
        graph("Gather", found[number], _integers(0), axis=1) if number in found else graph("IsNaN", inputs[number])
        for number in np.flatnonzero(columns.gaps)
    ]
    if flags:
        numbers.append(graph.cast(graph.concat(*flags), dtype))
    return [graph.concat(*numbers)] if numbers else [], [_level(graph, found[number]) for number in many]


def _level(graph, found):
    """The number of the level that a row has (n), from one on; zero for gaps and for unknown levels.

    Of equal numbers, as in a row without any level, the operator takes the first.
    """
    return graph("ArgMax", graph.cast(found, np.uint8), axis=1, keepdims=0)


def _of_level(graph, numbers, level):
    """Rows (n x k) of the numbers (n_levels x k) that levels have, nan for gaps and unknown ones."""
    return graph("Gather", np.pad(numbers, ((1, 0), (0, 0)), constant_values=np.nan), level)


def _outputs(graph, features, levels, dtype, model):
    """Outputs (n x k, float64) of every network in the targets' units, and the dtype of predictions."""
    values, dtypes = [], []
    for (network, inputs, targets, _), one in zip(model._models(), model.estimators_, strict=True):
        X, of_features = features, dtype
        if inputs.statistics is not None:
            # Means are in double precision, and so is what stands beside them.
            X, of_features = [graph.cast(each, np.float64) for each in X], np.dtype(np.float64)
            means = np.split(inputs.statistics.means, np.cumsum(inputs.statistics.counts)[:-1])
            X += [_of_level(graph, *each) for each in zip(means, levels, strict=True)]
        x = _network_inputs(graph, graph.concat(*X), of_features, inputs, network.dtype)
        output = graph.cast(_network(graph, x, network.architecture, one), np.float64)
        values.append(graph("Add", graph("Mul", output, targets.scale), targets.mean))
        dtypes.append(targets.resolving(dtype))
    return values, dtypes[0]


def _network_inputs(graph, X, dtype, inputs, network_dtype):
    """What `InputScaling.transform` does, without the constant input and the metric, which are in the weights."""
    columns = X if inputs.encoding is None else graph.concat(X, _ramps(graph, X, dtype, inputs.encoding))
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
        gaps = graph.concat(gaps, graph("Gather", gaps, inputs.encoding.feature_of_ramp, axis=1))
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
    return graph("Gather", graph.concat(columns, squashed), order, axis=1)


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
        met = graph.concat(*met)
        if depth == len(layers):
            return graph("Gemm", met, coefs, intercept)
        above = graph("Gemm", met, coefs, intercept - intercept.dtype.type(one.shifts_[depth]))
        hidden = graph("Relu", above)
        if architecture.sparsifier == "topk":
            chosen, where = graph("TopK", above, _integers(n_active(*layers[depth])), n_outputs=2, axis=1, sorted=0)
            hidden = graph("ScatterElements", graph("Sub", above, above), where, chosen, axis=1)


# ---- from outputs to predictions -----------------------------------------------------------------------------------


def _output_names(model):
    return ("label", "probabilities") if is_classifier(model) else ("predictions",)


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
    (name,) = _output_names(model)
    graph.output(name, graph.cast(predictions, dtype), dtype, shape)


def _add_classes(graph, outputs, model):
    values, dtype = outputs
    classes = model.classes_
    if model._uses_log_loss:
        probabilities = _mean(graph, [_softened(graph, value, model) for value in values], model)
    elif model._calibration is None:
        probabilities = _nearest_probabilities(graph, _mean(graph, values, model), model)
    else:
        probabilities = _softened(graph, _logits(graph, _mean(graph, values, model), model), model)
    # Whatever is more probable has the higher score.
    if model._multilabel:
        label_dtype, shape = np.dtype(int), (None, len(classes))
        label = graph.cast(graph("Greater", probabilities, np.array(0.5)), label_dtype)
    else:
        classes, shape = _of_known_type(classes), (None,)
        label_dtype = classes.dtype
        label = graph("Gather", classes, graph("ArgMax", probabilities, axis=1, keepdims=0))
    of_label, of_probabilities = _output_names(model)
    graph.output(of_label, label, label_dtype, shape)
    graph.output(of_probabilities, graph.cast(probabilities, dtype), dtype, (None, len(classes)))


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


def _logits(graph, outputs, model):
    """`calibration.logits`."""
    parts = _parts(graph, outputs)
    if model._independent_labels:
        others = _parts(graph, graph("Sub", np.array(1.0), outputs))
        parts = [graph("Sub", part, other) for part, other in zip(parts, others, strict=True)]
    # Stored models may have fewer coefficients.
    pairs = zip(parts, np.atleast_1d(model._calibration), strict=False)
    terms = [graph("Mul", part, np.array(number)) for part, number in pairs]
    return graph("Sum", *terms)


def _parts(graph, outputs):
    """What outputs, or what is left of them to one, contribute to what is combined."""
    return [outputs, *(_logarithm(graph, outputs, floor) for floor in FLOORS)]


def _logarithm(graph, outputs, floor):
    """The logarithm of `calibration.logits`."""
    floor = np.array(floor)
    below = graph("Sub", graph("Min", outputs, floor), floor)
    return graph("Add", graph("Log", graph("Max", outputs, floor)), below)


def _softened(graph, logits, model):
    """Probabilities (n x n_classes) of logits."""
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
    shifted = graph("Sub", outputs, _largest(graph, outputs))
    descending, _ = graph("TopK", shifted, _integers(n_classes), n_outputs=2, axis=1)
    excess = graph("Sub", graph("CumSum", descending, np.int64(1)), np.array(1.0))
    thresholds = graph("Div", excess, np.arange(1.0, n_classes + 1))
    projected = graph("Relu", graph("Sub", shifted, _largest(graph, thresholds)))
    return graph("Div", projected, graph("ReduceSum", projected, _integers(1), keepdims=1))


def _largest(graph, values):
    """The largest number of every row (n x 1). ReduceMax is another operator from opset 18 on."""
    return graph("TopK", values, _integers(1), n_outputs=2, axis=1)[0]
