"""Probabilities from scores: the factor against brute force and known truth, and where its rows come from."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import log_loss
from small_fits import precision_of

from sklearn_subquad import SubquadMLPClassifier
from sklearn_subquad._fit import calibration as calibration_module
from sklearn_subquad._fit.calibration import HeldOutRows, project_onto_simplex, scores
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.scaling import TargetScaling
from sklearn_subquad._fit.snapshots import FitInProgress, Snapshots
from sklearn_subquad._solver.criteria import Judgement

SETTINGS = {"hidden_layer_sizes": (64, 64), "max_iter": 4, "n_folds": 1, "random_state": 0}
# The interval in which the factor is searched is closed to about this, relatively.
SEARCH_TOLERANCE = 1e-4


def left_out_rows(k, n, sharpness=3.0, seed=0):
    """Scores, and labels that follow them with known probabilities; one column for two classes."""
    rng = np.random.default_rng(seed)
    outputs = rng.uniform(0, 1, (n, k))
    if k == 1:
        indicators = rng.random((n, 1)) < expit(sharpness * (2 * outputs - 1))
    else:
        p = softmax(sharpness * outputs, axis=1)
        indicators = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)[:, None] == np.arange(k)
    return HeldOutRows(outputs, indicators, rng.uniform(0.5, 2, n), n)


def fitted_inverse_temperature(rows):
    """Of two classes, in one column, or of one class for each."""
    return calibration_module.fitted_inverse_temperature(rows, independent=rows.outputs.shape[1] == 1)


def objective(rows, sharpness):
    """Mean log loss, and a share of that of a row which has the most probable other label: one row of n."""
    if rows.outputs.shape[1] == 1:
        z = sharpness * (2 * rows.outputs - 1)
        log_p = np.hstack([log_expit(-z), log_expit(z)])
        labels = np.hstack([~rows.indicators, rows.indicators])
    else:
        log_p, labels = log_softmax(sharpness * rows.outputs, axis=1), rows.indicators
    own = -log_p[labels]
    other = -np.where(labels, -np.inf, log_p).max(axis=1)
    doubt = 1 / max(len(own), min(rows.n_rows, 100))
    return np.average(own, weights=rows.sample_weight) + doubt * np.average(other, weights=rows.sample_weight)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize(("n", "n_rows"), [(5, 5), (60, 60), (60, 600), (20, 80), (400, 4000)])
def test_the_factor_is_the_likeliest_with_one_row_of_doubt(k, n, n_rows):
    rows = dataclasses.replace(left_out_rows(k, n), n_rows=n_rows)
    found = fitted_inverse_temperature(rows)
    grid = np.exp(np.linspace(-6.5, 8.5, 3001))
    best = min(objective(rows, sharpness) for sharpness in grid)
    assert objective(rows, found) <= best * (1 + 1e-9)


@pytest.mark.parametrize("k", [1, 4])
def test_known_probabilities_are_found(k):
    n, truth = 40_000, 3.0
    rows = left_out_rows(k, n, truth)
    rows = dataclasses.replace(rows, sample_weight=np.ones(n))
    # The variance of the likeliest factor is one over n times the mean variance of the scores under the model.
    if k == 1:
        p = expit(truth * (2 * rows.outputs - 1))
        information = (p * (1 - p) * (2 * rows.outputs - 1) ** 2).sum()
    else:
        p = softmax(truth * rows.outputs, axis=1)
        information = ((p * rows.outputs**2).sum(axis=1) - (p * rows.outputs).sum(axis=1) ** 2).sum()
    # Four standard deviations, and what one row of doubt and the search change.
    assert fitted_inverse_temperature(rows) == pytest.approx(
        truth, abs=4 / np.sqrt(information) + 5 / information + 1e-3
    )


def test_a_weight_of_two_is_a_second_row():
    rows = left_out_rows(3, 30)
    weights = np.random.default_rng(1).integers(1, 4, 30)
    # Of a data set so large that both have the same doubt.
    weighted = dataclasses.replace(rows, sample_weight=weights.astype(float), n_rows=1000)
    parts = (np.repeat(part, weights, axis=0) for part in (rows.outputs, rows.indicators, np.ones(30)))
    repeated = HeldOutRows(*parts, 1000)
    assert fitted_inverse_temperature(weighted) == pytest.approx(
        fitted_inverse_temperature(repeated), rel=SEARCH_TOLERANCE
    )


@pytest.mark.parametrize("k", [1, 3])
def test_scores_that_are_all_right_are_not_made_sure_without_end(k):
    rows = left_out_rows(k, 50)
    right = (scores(rows.outputs, True) > 0) if k == 1 else rows.outputs.argmax(axis=1)[:, None] == np.arange(k)
    sharpness = fitted_inverse_temperature(HeldOutRows(rows.outputs, right, np.ones(50), 500))
    # With margins of up to one and one doubt in a hundred rows, log odds of some ln(100) are where it pays to stop.
    assert 5 < sharpness < 200


def test_scores_that_say_nothing_give_even_odds():
    rows = HeldOutRows(
        np.random.default_rng(0).uniform(0, 1, (5000, 1)), np.tile([[True], [False]], (2500, 1)), np.ones(5000), 5000
    )
    assert fitted_inverse_temperature(rows) < 0.2


def test_of_many_rows_some_at_equal_distances_are_kept():
    Y = np.arange(5000.0)[:, None]
    held_out = TrainingSet.of_all_rows(Y, Y, np.ones(5000), None)
    snapshots, targets = Snapshots(None, "squared_error", True, False), TargetScaling(np.ones(1), np.full(1, 2.0))
    unfinished = FitInProgress(snapshots, None, None, targets, held_out, slice(None), 9000)
    judgement = Judgement.by_loss(0.0, Y)
    assert len(judgement.outputs) == 1000
    assert not np.shares_memory(judgement.outputs, Y)
    rows = unfinished.held_out_rows(judgement)
    np.testing.assert_array_equal(rows.outputs, 1 + 2 * Y[::5])
    np.testing.assert_array_equal(rows.indicators, Y[::5])
    assert len(rows.sample_weight) == 1000
    assert rows.n_rows == 9000


def test_nothing_is_calibrated_without_rows_left_out_or_without_need():
    Y = np.arange(10.0)[:, None]
    held_out = TrainingSet.of_all_rows(Y, Y, np.ones(10), None)
    for calibrates, judgement in ((True, None), (False, Judgement.by_loss(0.0, Y))):
        snapshots = Snapshots(None, "squared_error", calibrates, False)
        unfinished = FitInProgress(snapshots, None, None, None, held_out, slice(None), 10)
        assert unfinished.held_out_rows(judgement) is None


def data(n_classes, n=300):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    y = np.floor(n_classes * expit(X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.standard_normal(n))).astype(int)
    return X, y


@pytest.fixture
def recorded(monkeypatch):
    """The left-out rows that factors were fitted to."""
    seen = []

    def recording(rows, independent):
        seen.append(rows)
        return calibration_module.fitted_inverse_temperature(rows, independent)

    monkeypatch.setattr("sklearn_subquad._base.fitted_inverse_temperature", recording)
    return seen


STOPPING = pytest.mark.parametrize(
    ("parameters", "curve"),
    [
        ({"early_stopping": "loo"}, "loo_curve_"),
        ({"early_stopping": "validation"}, "validation_scores_"),
        ({"early_stopping": "validation", "batch_size": 100}, "validation_scores_"),
    ],
    ids=["loo", "validation", "batches"],
)


@STOPPING
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_rows_are_those_of_the_early_stopping_error(parameters, curve, n_classes, weighted, recorded):
    X, y = data(n_classes, n=150 if "batch_size" not in parameters else 300)
    weights = np.random.default_rng(1).uniform(1, 3, len(X)) if weighted else None
    model = SubquadMLPClassifier(**SETTINGS | parameters, validation_fraction=0.67).fit(X, y, sample_weight=weights)
    (rows,) = recorded
    squares = ((rows.indicators - rows.outputs) ** 2).mean(axis=1)
    error = getattr(model, curve)[model.best_iter_]
    error = 1 - error if curve == "validation_scores_" else error
    expected = np.average(squares, weights=rows.sample_weight)
    assert error == pytest.approx(expected, rel=1e-6)


@STOPPING
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_follow_decisions_with_that_factor(parameters, curve, n_classes, dtype, recorded):
    X, y = data(n_classes)
    model = SubquadMLPClassifier(**SETTINGS | parameters | {"precision": precision_of(dtype)}).fit(X.astype(dtype), y)
    sharpness = fitted_inverse_temperature(recorded[0])
    decisions = model.decision_function(X.astype(dtype)).astype(float)
    if n_classes == 2:
        expected = np.column_stack([expit(-sharpness * decisions), expit(sharpness * decisions)])
    else:
        expected = softmax(sharpness * decisions, axis=1)
    p = model.predict_proba(X.astype(dtype))
    assert p.dtype == dtype
    np.testing.assert_allclose(p, expected, rtol=1e-4 if dtype == np.float32 else 1e-10)
    np.testing.assert_allclose(model.predict_log_proba(X.astype(dtype)), np.log(expected), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(model.classes_[p.argmax(axis=1)], model.predict(X.astype(dtype)))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_without_rows_left_out_probabilities_are_the_nearest_to_the_indicators(n_classes):
    X, y = data(n_classes)
    model = SubquadMLPClassifier(**SETTINGS, early_stopping=False).fit(X, y)
    outputs = model.decision_function(X)
    if n_classes == 2:
        outputs = np.column_stack([1 - outputs, 1 + outputs]) / 2
    np.testing.assert_allclose(model.predict_proba(X), project_onto_simplex(outputs), atol=1e-12)


@pytest.mark.parametrize("load", [load_breast_cancer, load_digits])
@pytest.mark.parametrize("early_stopping", ["loo", "validation"])
def test_real_probabilities_beat_the_projection(load, early_stopping):
    X, y = load(return_X_y=True)
    train = np.random.default_rng(0).random(len(X)) < 0.5
    model = SubquadMLPClassifier(hidden_layer_sizes=(128, 128), early_stopping=early_stopping, random_state=0)
    model.fit(X[train], y[train])
    outputs = model.decision_function(X[~train])
    if outputs.ndim == 1:
        outputs = np.column_stack([1 - outputs, 1 + outputs]) / 2
    assert log_loss(y[~train], model.predict_proba(X[~train])) < log_loss(y[~train], project_onto_simplex(outputs))


def nearest_probabilities(row):
    """The projection's threshold found by bisection."""
    threshold = brentq(lambda t: np.maximum(row - t, 0).sum() - 1, row.min() - 1, row.max(), xtol=1e-14)
    return np.maximum(row - threshold, 0)


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_projection_onto_the_simplex(k, scale):
    rows = scale * np.random.default_rng(0).standard_normal((20, k))
    expected = np.array([nearest_probabilities(row) for row in rows])
    np.testing.assert_allclose(project_onto_simplex(rows), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([1.0, 0.0, 0.0], [1, 0, 0]),
        ([5.0, 0.0, 0.0], [1, 0, 0]),
        ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
        ([-7.0, -7.0], [0.5, 0.5]),
        ([0.8, 0.6, -0.4], [0.6, 0.4, 0]),
        ([1e8, 0.0], [1, 0]),
        ([1e20, 0.0], [1, 0]),
        ([-1e20, -1e20], [0.5, 0.5]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_onto_the_simplex_by_hand(row, expected, dtype):
    projected = project_onto_simplex(np.array([row], dtype=dtype))
    np.testing.assert_allclose(projected, [expected], atol=10 * np.finfo(dtype).eps)
