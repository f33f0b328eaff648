"""Probabilities from outputs: coefficients against the conditions of an optimum and known truth, and their rows."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import approx_fprime, brentq
from scipy.special import expit, softmax
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import log_loss
from small_fits import precision_of

from sklearn_subquad import SubquadMLPClassifier
from sklearn_subquad._fit import calibration as calibration_module
from sklearn_subquad._fit.calibration import HeldOutRows, logits, project_onto_simplex, scores
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.scaling import TargetScaling
from sklearn_subquad._fit.snapshots import FitInProgress, Snapshots
from sklearn_subquad._solver.criteria import Judgement

SETTINGS = {"hidden_layer_sizes": (64, 64), "max_iter": 4, "n_folds": 1, "random_state": 0}


def left_out_rows(k, n, coefficients=(3.0, 0.0, 0.0), seed=0):
    """Outputs, and labels that follow them with known probabilities; one column for two classes."""
    rng = np.random.default_rng(seed)
    outputs = rng.uniform(-0.1, 1.1, (n, k))
    p = probabilities(outputs, coefficients)
    indicators = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)[:, None] == np.arange(len(p[0]))
    return HeldOutRows(outputs, indicators[:, 1:] if k == 1 else indicators, rng.uniform(0.5, 2, n), n)


def fitted_coefficients(rows):
    """Of two classes, in one column, or of one class for each."""
    return calibration_module.fitted_coefficients(rows, independent=rows.outputs.shape[1] == 1)


def combined(f, coefficients, floors=(0.01, 0.1)):
    """The definition, output by output."""
    values = coefficients[0] * f
    for coefficient, floor in zip(coefficients[1:], floors, strict=True):
        values = values + coefficient * np.where(f < floor, np.log(floor) + f - floor, np.log(np.maximum(f, floor)))
    return values


def probabilities(outputs, coefficients):
    """Of all classes (n x k), by the definition."""
    if outputs.shape[1] == 1:
        outputs = np.hstack([1 - outputs, outputs])
    return softmax(combined(outputs, coefficients), axis=1)


def objective(rows, coefficients):
    """Mean log loss, and a share of that of a row which has the most probable other label: one row of n."""
    log_p, labels = np.log(probabilities(rows.outputs, coefficients)), rows.indicators
    if rows.outputs.shape[1] == 1:
        labels = np.hstack([~rows.indicators, rows.indicators])
    own = -log_p[labels]
    other = -np.where(labels, -np.inf, log_p).max(axis=1)
    doubt = 1 / max(len(own), min(rows.n_rows, 100))
    return np.average(own, weights=rows.sample_weight) + doubt * np.average(other, weights=rows.sample_weight)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("coefficients", [(2.0, 0.5, 0.3), (0.0, 1.0, 0.0), (7.0, 0.0, 0.0), (1.0,), 3.0])
def test_logits_are_the_combination(k, coefficients):
    outputs = np.random.default_rng(0).uniform(-1, 2, (50, k))
    found = logits(outputs.astype(np.float32), np.array(coefficients), independent=k == 1)
    assert found.dtype == np.float64
    if k == 1:
        found = np.hstack([-found, found]) / 2
        outputs = np.hstack([1 - outputs, outputs])
    expected = combined(outputs, np.append(coefficients, [0, 0])[:3])
    np.testing.assert_allclose(softmax(found, axis=1), softmax(expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("independent", [False, True])
def test_logits_keep_the_order_of_outputs(independent):
    outputs = np.linspace(-3, 3, 1001)[:, None]
    for coefficients in ([1e-3, 0, 0], [1e-3, 2, 0], [1e-3, 0, 2]):
        assert (np.diff(logits(outputs, np.array(coefficients), independent)[:, 0]) > 0).all()


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize(("n", "n_rows"), [(5, 5), (60, 60), (60, 600), (20, 80), (400, 4000)])
@pytest.mark.parametrize("truth", [(3.0, 0.0, 0.0), (0.5, 1.0, 0.5)])
def test_the_coefficients_are_the_likeliest_with_one_row_of_doubt(k, n, n_rows, truth):
    rows = dataclasses.replace(left_out_rows(k, n, truth), n_rows=n_rows)
    found = fitted_coefficients(rows)
    slopes = approx_fprime(found, lambda coefficients: objective(rows, coefficients), 1e-7)
    # The objective is convex: where no coefficient can change for the better, there is the minimum.
    bounds = np.array([np.exp(-7.0), 0, 0])
    assert (found >= bounds).all()
    assert (slopes > -1e-5).all()
    assert (slopes[found > bounds + 1e-9] < 1e-5).all()


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("truth", [(3.0, 0.0, 0.0), (0.3, 1.2, 0.0), (0.5, 0.0, 1.0)])
def test_known_probabilities_are_found(k, truth):
    n = 8192
    rows = dataclasses.replace(left_out_rows(k, n, truth), sample_weight=np.ones(n))
    expected = probabilities(rows.outputs, truth)
    found = probabilities(rows.outputs, fitted_coefficients(rows))
    # By a chi-squared variable with three degrees of freedom, the loss of fitted coefficients exceeds that of the true
    # ones by 3 / (2 n) in the mean, with a deviation of sqrt(6) / (2 n); four of these, and the row of doubt.
    excess = np.mean((expected * np.log(expected / found)).sum(axis=1))
    assert 0 <= excess < (3 + 4 * np.sqrt(6)) / (2 * n) + 1 / n


def test_a_weight_of_two_is_a_second_row():
    rows = left_out_rows(3, 30)
    weights = np.random.default_rng(1).integers(1, 4, 30)
    # Of a data set so large that both have the same doubt.
    weighted = dataclasses.replace(rows, sample_weight=weights.astype(float), n_rows=1000)
    parts = (np.repeat(part, weights, axis=0) for part in (rows.outputs, rows.indicators, np.ones(30)))
    repeated = HeldOutRows(*parts, 1000)
    np.testing.assert_allclose(fitted_coefficients(weighted), fitted_coefficients(repeated), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_outputs_that_are_all_right_are_not_made_sure_without_end(k):
    rows = left_out_rows(k, 50)
    right = (scores(rows.outputs, True) > 0) if k == 1 else rows.outputs.argmax(axis=1)[:, None] == np.arange(k)
    found = fitted_coefficients(HeldOutRows(rows.outputs, right, np.ones(50), 500))
    # One doubt in a hundred rows: where it pays to stop.
    assert 0.98 < probabilities(rows.outputs, found).max() < 1 - 1e-9


def test_outputs_that_say_nothing_give_even_odds():
    outputs = np.random.default_rng(0).uniform(0, 1, (5000, 1))
    rows = HeldOutRows(outputs, np.tile([[True], [False]], (2500, 1)), np.ones(5000), 5000)
    np.testing.assert_allclose(probabilities(outputs, fitted_coefficients(rows)), 0.5, atol=0.05)


def test_expected_indicators_are_calibrated_as_they_are():
    """Where outputs are probabilities, coefficients are those of their logarithms."""
    rng = np.random.default_rng(0)
    outputs = rng.uniform(0.02, 0.98, (8000, 1))
    rows = HeldOutRows(outputs, rng.random((8000, 1)) < outputs, np.ones(8000), 8000)
    np.testing.assert_allclose(probabilities(outputs, fitted_coefficients(rows))[:, [1]], outputs, atol=0.03)


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
    """The left-out rows that coefficients were fitted to."""
    seen = []

    def recording(rows, independent):
        seen.append(rows)
        return calibration_module.fitted_coefficients(rows, independent)

    monkeypatch.setattr("sklearn_subquad._base.fitted_coefficients", recording)
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
def test_probabilities_follow_decisions_with_these_coefficients(parameters, curve, n_classes, dtype, recorded):
    X, y = data(n_classes)
    model = SubquadMLPClassifier(**SETTINGS | parameters | {"precision": precision_of(dtype)}).fit(X.astype(dtype), y)
    outputs = model.decision_function(X.astype(dtype)).astype(float)
    outputs = (1 + outputs[:, None]) / 2 if n_classes == 2 else outputs
    expected = probabilities(outputs, fitted_coefficients(recorded[0]))
    p = model.predict_proba(X.astype(dtype))
    assert p.dtype == dtype
    np.testing.assert_allclose(p, expected, rtol=1e-3 if dtype == np.float32 else 1e-10)
    np.testing.assert_allclose(model.predict_log_proba(X.astype(dtype)), np.log(expected), rtol=1e-3, atol=1e-6)
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
