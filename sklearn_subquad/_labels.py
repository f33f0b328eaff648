"""Targets of a classifier: classes, of which a row has one, or labels, of which it has any number."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sklearn_subquad._utils.missing import check_targets


def require_classes(y, name):
    """Raise ValueError for validated targets that are no classes: numbers of a continuum, and objects but strings."""
    objects = () if issparse(y) or y.dtype != object else y.flat
    others = {type(each).__name__ for each in objects if not isinstance(each, str)}
    if others:
        raise ValueError(
            f"Unknown label type: {name} holds objects of type {', '.join(sorted(others))}, but classes are numbers or "
            f"strings, all of one type: convert them, for instance by {name}.astype(int) or {name}.astype(str)."
        )
    check_classification_targets(y)


def sorted_classes(classes):
    """The different ones of all classes that partial_fit will ever see, or ValueError where they are none."""
    check_targets(classes, "classes", "values: leave them out.")
    try:
        classes = np.unique(classes)
    except TypeError as error:
        raise ValueError(f"classes must be numbers or strings, all of one type, but {error}.") from error
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ValueError("classes holds nan or infinite numbers: leave them out.")
    return classes


def encode_labels(y):
    """Indicators of classes or labels.

    Parameters
    ----------
    y : ndarray of shape (n,) or (n, k), or sparse matrix of shape (n, k)
        A column of classes, or for every label whether a row has it.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        The classes, sorted, or the numbers of the labels.
    codes : ndarray of shape (n,), or None
        The place of every row's class, where it has one.
    indicators : ndarray of shape (n, n_outputs), bool
        One column for two classes, else one for each class or label.

    Raises
    ------
    ValueError
        For continuous targets, and several columns that are not indicators.
    """
    require_classes(y, "y")
    kind = type_of_target(y)
    if kind == "multiclass-multioutput":
        raise ValueError(
            "y has several columns with more than two values: SubquadMLPClassifier predicts one column of classes, or "
            "a matrix of zeros and ones with a column for every label. Use sklearn.multioutput.MultiOutputClassifier."
        )
    if kind == "multilabel-indicator":
        y = y.toarray() if issparse(y) else y
        return np.arange(y.shape[1]), None, y != 0
    classes, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    return classes, codes, _indicators(codes, len(classes))


def one_column_or_labels(y):
    """Targets as an array: classes (n,), or labels (n, n_labels)."""
    require_classes(y, "y")
    y = y.toarray() if issparse(y) else y
    return y if y.ndim == 2 and y.shape[1] > 1 else column_or_1d(y, warn=True)


def _indicators(codes, n_classes):
    """Indicators of the class of every row: one column for two classes, else one for each."""
    # A byte each: of many rows and classes, they would be most of the data.
    indicators = codes[:, None] == np.arange(n_classes)
    return indicators[:, 1:] if n_classes == 2 else indicators


def encode_more_labels(y, classes, multilabel, name="y"):
    """Indicators as `encode_labels` made them, of further targets.

    Parameters
    ----------
    y : ndarray of shape (n,) or (n, n_labels), or sparse matrix of shape (n, n_labels)
    classes : ndarray of shape (n_classes,)
    multilabel : bool
        True if rows have any number of labels.
    name : str
        Name of `y` in messages.

    Returns
    -------
    ndarray of shape (n, n_outputs), bool

    Raises
    ------
    ValueError
        For classes that are not among the known ones, and matrices of another kind or width.
    """
    if multilabel:
        y = y.toarray() if issparse(y) else np.asarray(y)
        if y.ndim != 2 or y.shape[1] != len(classes) or not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"{name} must be zeros and ones in {len(classes)} columns, one for every label, as the estimator has "
                f"them; got shape {y.shape}."
            )
        return y != 0
    require_classes(y, name)
    y = column_or_1d(y, warn=True)
    try:
        unknown = np.setdiff1d(y, classes)
    except TypeError:
        # Strings among objects and numbers have no order.
        unknown = y
    if len(unknown):
        raise ValueError(f"{name} holds {unknown[:5].tolist()}, but the known classes are {classes.tolist()}.")
    return _indicators(np.searchsorted(classes, y), len(classes))


def weights_of_classes(class_weight, y, classes, indicators, multilabel):
    """Weight of every row by its class, or by all its labels.

    Parameters
    ----------
    class_weight : "balanced", dict or list of dict
        Classes that are not named weigh 1; a dict may name classes that y lacks, as parts of the rows do.
    y : ndarray of shape (n,) or (n, n_labels), or sparse matrix of shape (n, n_labels)
    classes : ndarray of shape (n_classes,)
    indicators : ndarray of shape (n, n_outputs), bool
    multilabel : bool
        True if rows have any number of labels.

    Returns
    -------
    ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        For weights that are negative or not finite, dicts that name no class of y, and dicts for another number of
        labels or of other values than 0 and 1.
    """
    if isinstance(class_weight, str):
        return compute_sample_weight(class_weight, y)
    if not multilabel:
        if isinstance(class_weight, list):
            raise ValueError(
                "class_weight is a list, which is for several labels; with one column of classes pass one dict."
            )
        held = indicators if indicators.shape[1] > 1 else np.hstack([~indicators, indicators])
        known = set(classes.tolist()).intersection(class_weight)
        if class_weight and not known:
            raise ValueError(
                f"class_weight names {list(class_weight)}, none of which is among the classes {classes.tolist()} of y. "
                "Name classes as y does: the number 1 is not the string '1'."
            )
        return held @ _weights({label: class_weight[label] for label in known}, classes)
    if not isinstance(class_weight, list) or len(class_weight) != len(classes):
        raise ValueError(
            f"class_weight must be a list of {len(classes)} dicts, one for every label; got {class_weight!r}."
        )
    unknown = sorted({str(value) for weights in class_weight for value in weights if value not in (0, 1)})
    if unknown:
        raise ValueError(f"class_weight names {', '.join(unknown)}, but a label is 0 or 1; got {class_weight!r}.")
    by_label = np.array([_weights(weights, np.arange(2)) for weights in class_weight])
    return np.where(indicators, by_label[:, 1], by_label[:, 0]).prod(axis=1)


def _weights(class_weight, classes):
    weights = np.array([class_weight.get(label, 1.0) for label in classes.tolist()], dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"class_weight must give every class a finite weight of zero or more; got {class_weight!r}.")
    return weights


def require_examples(classes, codes, sample_weight, loss):
    """Raise ValueError where rows of positive weight have too few classes to tell them apart."""
    counted = np.unique(codes[sample_weight > 0])
    if len(counted) < 2:
        raise ValueError(
            "y must hold at least two classes in rows of positive sample_weight; only class "
            f"{classes[counted].tolist()[0]!r} was found."
        )
    if loss == "log_loss" and len(counted) < len(classes):
        raise ValueError(
            "loss='log_loss' needs rows of positive sample_weight of every class in y; there is none of "
            f"{np.delete(classes, counted).tolist()}. Leave those rows out, or use loss='squared_error'."
        )


@dataclass(frozen=True)
class LabelCounts:
    """Classes or labels of rows, and how many rows have them.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The classes, sorted, or the numbers of the labels.
    multilabel : bool
        True if rows have any number of labels.
    counts, weights : ndarray of shape (n_classes,)
        Rows of each, and the sum of their weights.
    n_rows : int
    total : float
        The sum of all weights.
    """

    classes: np.ndarray
    multilabel: bool
    counts: np.ndarray
    weights: np.ndarray
    n_rows: int
    total: float

    @classmethod
    def of_rows(cls, y, sample_weight):
        """Those of classes (n,) or labels (n, n_labels), which may be sparse."""
        classes, codes, labels = encode_labels(y)
        if codes is None:
            counts, weights = labels.sum(axis=0), sample_weight @ labels
        else:
            counts, weights = np.bincount(codes), np.bincount(codes, sample_weight)
        return cls(classes, codes is None, counts, weights, len(sample_weight), float(sample_weight.sum()))

    @classmethod
    def merged(cls, names, parts):
        """Those of all parts of the rows, which have names.

        Raises
        ------
        ValueError
            For parts with classes of different types, or other labels.
        """
        first = parts[0]
        for name, part in zip(names, parts, strict=True):
            if part._kind != first._kind:
                raise ValueError(f"y of {name} holds {part._kind}, but that of {names[0]} {first._kind}.")
        if first.multilabel:
            classes, index = first.classes, [np.arange(len(first.classes))] * len(parts)
        else:
            classes = np.unique(np.concatenate([part.classes for part in parts]))
            index = [np.searchsorted(classes, part.classes) for part in parts]
        counts, weights = np.zeros(len(classes), dtype=int), np.zeros(len(classes))
        for part, at in zip(parts, index, strict=True):
            counts[at] += part.counts
            weights[at] += part.weights
        n_rows, total = sum(part.n_rows for part in parts), sum(part.total for part in parts)
        return cls(classes, first.multilabel, counts, weights, n_rows, total)

    @property
    def _kind(self):
        if self.multilabel:
            return f"{len(self.classes)} labels"
        kind = self.classes.dtype.kind
        return "numbers" if kind in "biuf" else "words" if kind in "OUST" else f"classes of type {self.classes.dtype}"

    def balanced_weights(self):
        """What class_weight="balanced" stands for, as a dict, or a list of dicts for labels."""
        if not self.multilabel:
            return dict(
                zip(self.classes.tolist(), (self.n_rows / (len(self.classes) * self.counts)).tolist(), strict=True)
            )
        both = np.stack([self.n_rows - self.counts, self.counts], axis=1)
        return [
            {value: self.n_rows / (np.count_nonzero(of_label) * count) for value, count in enumerate(of_label) if count}
            for of_label in both.tolist()
        ]
