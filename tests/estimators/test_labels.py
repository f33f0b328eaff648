"""Targets of the classifier beside one column of classes: several labels, and weights of classes."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from small_fits import precision_of

from sklearn_subquad import SubquadMLPClassifier
from sklearn_subquad._curvature.losses import BinaryLogLoss, make_loss
from sklearn_subquad._labels import encode_labels

SETTINGS = {"hidden_layer_sizes": (64, 64), "max_iter": 6, "random_state": 0}
LOSSES = pytest.mark.parametrize("loss", ["squared_error", "log_loss"])


def labelled(n=400, dtype=np.float64):
    """Rows with three labels: one that depends on one feature, one on two, and a rare one."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4)).astype(dtype)
    margins = np.column_stack([3 * X[:, 0], 4 * X[:, 1] * X[:, 2], 4 * X[:, 3] - 5])
    return X, (expit(margins) > rng.uniform(size=margins.shape)).astype(int)


def classed(n=400):
    X, Y = labelled(n)
    return X, np.array(["no", "yes"])[Y[:, 2]]


# ---- encoding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes", "codes", "indicators"),
    [
        ([3, 1, 3], [1, 3], [1, 0, 1], [[True], [False], [True]]),
        (["b", "a", "c"], ["a", "b", "c"], [1, 0, 2], np.eye(3, dtype=bool)[[1, 0, 2]]),
        ([[0, 1], [1, 1], [0, 0]], [0, 1], None, [[False, True], [True, True], [False, False]]),
    ],
)
def test_classes_and_labels_become_indicators(y, classes, codes, indicators):
    found_classes, found_codes, found_indicators = encode_labels(np.array(y))
    np.testing.assert_array_equal(found_classes, classes)
    np.testing.assert_array_equal(found_indicators, indicators)
    assert found_indicators.dtype == bool
    assert (found_codes is None) if codes is None else (found_codes.tolist() == codes)


def test_a_column_of_classes_is_one_with_a_warning():
    X, y = classed(60)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        model = SubquadMLPClassifier(**SETTINGS).fit(X, y[:, None])
    assert model.predict(X).tolist() == SubquadMLPClassifier(**SETTINGS).fit(X, y).predict(X).tolist()


# ---- several labels ---------------------------------------------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("batch_size", ["auto", 100])
def test_several_labels_are_learned_as_well_as_one_by_one(loss, batch_size):
    X, Y = labelled(800)
    model = SubquadMLPClassifier(loss=loss, batch_size=batch_size, **SETTINGS)
    train, test = slice(400), slice(400, None)
    together = clone(model).fit(X[train], Y[train])
    apart = MultiOutputClassifier(model).fit(X[train], Y[train])
    right = [(each.predict(X[test]) == Y[test]).mean(axis=0) for each in (together, apart)]
    # Three standard errors of a frequency of about 0.85 in 400 rows.
    assert np.all(right[0] > right[1] - 0.055)
    # Far better than what most rows have.
    assert right[0][1] > np.maximum(Y[test].mean(axis=0), 1 - Y[test].mean(axis=0))[1] + 0.15


@LOSSES
@pytest.mark.parametrize("early_stopping", ["auto", "validation", False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_of_several_labels_agree(loss, early_stopping, dtype):
    X, Y = labelled(dtype=dtype)
    parameters = {"loss": loss, "early_stopping": early_stopping, "precision": precision_of(dtype)} | SETTINGS
    model = SubquadMLPClassifier(**parameters).fit(X, Y)
    decision, probabilities = model.decision_function(X), model.predict_proba(X)
    assert decision.shape == probabilities.shape == Y.shape
    assert decision.dtype == probabilities.dtype == dtype
    predicted = model.predict(X)
    assert set(np.unique(predicted)) <= {0, 1}
    np.testing.assert_array_equal(predicted, decision > 0)
    np.testing.assert_array_equal(probabilities > 0.5, decision > 0)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.n_outputs_ == 3
    assert model.out_activation_ == ("logistic" if loss == "log_loss" else "identity")
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(model.predict_log_proba(X), np.log(probabilities), rtol=1e-4, atol=1e-5)
    assert model.score(X, Y) == (predicted == Y).all(axis=1).mean()


@LOSSES
def test_probabilities_of_several_labels_are_better_than_frequencies(loss):
    X, Y = labelled(1200)
    model = SubquadMLPClassifier(loss=loss, **SETTINGS).fit(X[:400], Y[:400])
    p = model.predict_proba(X[400:])
    for label in range(3):
        of_frequency = log_loss(Y[400:, label], np.full(800, Y[:400, label].mean()))
        assert log_loss(Y[400:, label], p[:, label]) < 0.8 * of_frequency


@LOSSES
@pytest.mark.parametrize(
    "make", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array], ids=lambda make: make.__name__
)
def test_sparse_labels_are_the_same(loss, make):
    X, Y = labelled(150)
    dense, found = (SubquadMLPClassifier(loss=loss, **SETTINGS).fit(X, labels) for labels in (Y, make(Y)))
    assert found.predict_proba(X).tobytes() == dense.predict_proba(X).tobytes()


def test_a_label_that_no_row_has():
    X, Y = labelled(150)
    Y[:, 2] = 0
    assert not SubquadMLPClassifier(**SETTINGS).fit(X, Y).predict(X)[:, 2].any()
    with pytest.raises(ValueError, match=r"loss='log_loss' needs rows of both classes, .* in column \[2\]"):
        SubquadMLPClassifier(loss="log_loss", **SETTINGS).fit(X, Y)


def test_cross_validation_of_several_labels():
    X, Y = labelled(240)
    assert cross_val_score(SubquadMLPClassifier(**SETTINGS), X, Y, cv=3, error_score="raise").min() > 0.3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_of_labels_is_the_sum_of_theirs(dtype):
    rng = np.random.default_rng(0)
    Y, F, weights = rng.integers(0, 2, (9, 3)), rng.standard_normal((9, 3)).astype(dtype), rng.uniform(1, 2, 9)
    Y[0], Y[1] = 0, 1
    loss = make_loss("binary_log_loss", Y.astype(bool), weights)
    assert isinstance(loss, BinaryLogLoss)
    raw = loss.baseline + F.astype(np.float64)
    expected = -(weights @ (Y * log_expit(raw) + (1 - Y) * log_expit(-raw))).sum()
    assert loss.value(Y.astype(dtype), F, weights) == pytest.approx(expected, rel=1e-12)
    assert loss.reported(6.0) == 2.0
    parts = [make_loss("log_loss", Y[:, [j]].astype(bool), weights) for j in range(3)]
    np.testing.assert_allclose(loss.baseline, [part.baseline[0] for part in parts], rtol=1e-14)
    np.testing.assert_array_equal(
        loss.residual(Y.astype(dtype), F),
        np.hstack([part.residual(Y[:, [j]].astype(dtype), F[:, [j]]) for j, part in enumerate(parts)]),
    )
    C = rng.standard_normal((9, 3)).astype(dtype)
    np.testing.assert_array_equal(
        loss.factor(F).apply(C),
        np.hstack([part.factor(F[:, [j]]).apply(C[:, [j]]) for j, part in enumerate(parts)]),
    )
    others = loss.value_of_other_labels(Y.astype(dtype), F, weights)
    assert others == pytest.approx(loss.value(1 - Y.astype(dtype), F, weights), rel=1e-12)


# ---- weights of classes -----------------------------------------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("weights", [{"yes": 3.0}, {"no": 0.5, "yes": 2.0}, "balanced"])
@pytest.mark.parametrize("sample_weight", [None, "random"])
def test_weights_of_classes_are_weights_of_rows(loss, weights, sample_weight):
    X, y = classed(120)
    rows = np.random.default_rng(1).uniform(1, 2, 120) if sample_weight else np.ones(120)
    if weights == "balanced":
        share = (y == "yes").mean()
        by_class = {"yes": 0.5 / share, "no": 0.5 / (1 - share)}
    else:
        by_class = {"yes": 1.0, "no": 1.0} | weights
    model = SubquadMLPClassifier(loss=loss, **SETTINGS)
    by_row = clone(model).fit(X, y, sample_weight=rows * np.array([by_class[label] for label in y]))
    found = clone(model).set_params(class_weight=weights).fit(X, y, sample_weight=rows if sample_weight else None)
    np.testing.assert_allclose(found.predict_proba(X), by_row.predict_proba(X), rtol=1e-6, atol=1e-8)


@LOSSES
def test_balanced_weights_find_more_of_a_rare_class(loss):
    X, y = classed(800)
    model = SubquadMLPClassifier(loss=loss, **SETTINGS)
    plain, balanced = (clone(model).set_params(class_weight=w).fit(X[:400], y[:400]) for w in (None, "balanced"))
    found = [(each.predict(X[400:]) == "yes").mean() for each in (plain, balanced)]
    assert found[1] > 1.3 * found[0] > 0


def test_weights_of_several_labels_multiply():
    X, Y = labelled(120)
    weights = [{0: 1.0, 1: 2.0}, {1: 3.0}, {0: 0.5}]
    by_row = (1 + Y[:, 0]) * (1 + 2 * Y[:, 1]) * np.where(Y[:, 2] == 0, 0.5, 1.0)
    expected = SubquadMLPClassifier(**SETTINGS).fit(X, Y, sample_weight=by_row)
    found = SubquadMLPClassifier(class_weight=weights, **SETTINGS).fit(X, Y)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_of_classes_that_are_none_are_named(weight):
    X, y = classed(60)
    model = SubquadMLPClassifier(class_weight={"yes": weight}, **SETTINGS)
    with pytest.raises(ValueError, match="class_weight must give every class a finite weight of zero or more"):
        model.fit(X, y)
    assert not hasattr(model, "classes_")


def test_a_class_without_weight_is_not_counted():
    X, y = classed(60)
    with pytest.raises(ValueError, match=r"two classes .* only class 'no'"):
        SubquadMLPClassifier(class_weight={"yes": 0.0}, **SETTINGS).fit(X, y)


@pytest.mark.parametrize(
    ("class_weight", "several", "message"),
    [
        (
            {"maybe": 2.0},
            False,
            r"names \['maybe'\], none of which is among the classes \['no', 'yes'\] of y",
        ),
        ([{"yes": 2.0}], False, "class_weight is a list, which is for several labels"),
        ({1: 2.0}, True, "class_weight must be a list of 3 dicts, one for every label"),
        ([{1: 2.0}], True, "class_weight must be a list of 3 dicts, one for every label"),
        ([{1: 2.0}, {2: 1.0}, {}], True, "class_weight names 2, but a label is 0 or 1"),
    ],
)
def test_weights_of_other_classes_are_named(class_weight, several, message):
    X, y = labelled(60) if several else classed(60)
    with pytest.raises(ValueError, match=message):
        SubquadMLPClassifier(class_weight=class_weight, **SETTINGS).fit(X, y)
