"""Fits that go on from another one: `partial_fit`, and `fit` with `warm_start`."""

import pickle
import warnings

import numpy as np
import pytest
from cases import EVERY_LOSS
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.neural_network import MLPClassifier

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.train import Trainer
from sklearn_subquad._network.network import Network

SETTINGS = {"hidden_layer_sizes": (64, 64), "n_folds": 1, "random_state": 0}
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])


def data(estimator_class, n=600, kind="three", dtype=np.float64):
    """Rows and one target, two classes or labels, or three of them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4)).astype(dtype)
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.2 * rng.standard_normal(n)
    if estimator_class is SubquadMLPRegressor:
        return X, y - y.min() if kind == "three" else np.column_stack([y, -y])
    return X, np.digitize(y, [-0.5, 0.5] if kind == "three" else [0])


def passes(model, X, y, n_parts=4, n_passes=3):
    for _ in range(n_passes):
        for rows in np.array_split(np.arange(len(X)), n_parts):
            model.partial_fit(X[rows], y[rows], **({"classes": np.unique(y)} if is_classifier(model) else {}))
    return model


def outputs(model, X):
    return model.decision_function(X) if is_classifier(model) else model.predict(X)


# ---- partial_fit ------------------------------------------------------------------------------------------------


@EVERY_LOSS
def test_parts_teach_nearly_as_much_as_all_rows_in_batches(estimator_class, loss):
    X, y = data(estimator_class, n=1000)
    model = estimator_class(loss=loss, batch_size=150, max_iter=4, early_stopping=False, **SETTINGS)
    whole = clone(model).fit(X[:600], y[:600])
    parts = passes(clone(model), X[:600], y[:600], n_passes=4)
    constant = 1 / 3 if estimator_class is SubquadMLPClassifier else 0.0
    scores = [fit.score(X[600:], y[600:]) - constant for fit in (whole, parts)]
    assert scores[1] > 0.9 * scores[0] > 0.25
    # And more than the first part alone.
    first = clone(model).partial_fit(X[:150], y[:150], **({"classes": np.unique(y)} if is_classifier(model) else {}))
    assert scores[1] > first.score(X[600:], y[600:]) - constant


@EVERY_LOSS
def test_a_first_call_is_a_pass_of_a_fit(estimator_class, loss):
    X, y = data(estimator_class, n=90)
    # By itself, the damping of a part that others follow is no less than 0.1, where a fit's may be.
    parameters = {"batch_size": 30, "max_iter": 1, "damping": 0.5, "early_stopping": False, "precision": "single"}
    model = estimator_class(loss=loss, **parameters, **SETTINGS)
    fitted, part = clone(model).fit(X, y), passes(clone(model), X, y, n_parts=1, n_passes=1)
    if loss == "log_loss":
        # Which takes classes for as likely as they are, where a part takes them for equally likely.
        p = [fit.predict_proba(X).mean(axis=0) for fit in (fitted, part)]
        np.testing.assert_allclose(p[1], p[0], atol=0.15)
    else:
        assert outputs(part, X).tobytes() == outputs(fitted, X).tobytes()
        assert part.loss_curve_ == fitted.loss_curve_
    assert part.n_iter_ == 1


@EVERY_LOSS
def test_later_calls_take_one_step_a_batch_from_the_present_weights(estimator_class, loss, monkeypatch):
    X, y = data(estimator_class)
    model = passes(estimator_class(loss=loss, batch_size=70, damping=1.0, **SETTINGS), X, y, n_parts=6, n_passes=1)
    [(_, inputs, *_)] = model._models()
    before = outputs(model, X)
    applied, apply = [], Network.apply
    monkeypatch.setattr(Network, "apply", lambda self, step: applied.append(self) or apply(self, step))
    model.partial_fit(X[:140], y[:140])
    # A step that is too long is reverted and tried again.
    assert len(applied) >= 2
    assert model.n_cg_iter_[-2:] == model.n_cg_iter_[12:]
    np.testing.assert_array_equal(model._state_["input_mean"], inputs.mean)
    change = np.abs(outputs(model, X) - before).max()
    assert 0 < change < np.ptp(before)


def test_weights_before_are_not_touched():
    X, y = data(SubquadMLPRegressor)
    model = SubquadMLPRegressor(**SETTINGS).fit(X[:300], y[:300])
    kept = pickle.loads(pickle.dumps(model))
    shallow = model._state_
    expected = model.predict(X)
    model.partial_fit(X[300:], y[300:])
    assert not np.allclose(model.predict(X), expected)
    model._state_ = shallow
    np.testing.assert_array_equal(model.predict(X), expected)
    np.testing.assert_array_equal(kept.predict(X), expected)


@BOTH
def test_a_pickle_goes_on_as_the_original(estimator_class):
    X, y = data(estimator_class)
    model = passes(estimator_class(**SETTINGS), X, y, n_passes=1)
    other = pickle.loads(pickle.dumps(model))
    for each in (model, other):
        each.partial_fit(X[:100], y[:100])
    assert outputs(other, X).tobytes() == outputs(model, X).tobytes()


@BOTH
@pytest.mark.parametrize(("precision", "other"), [("single", "double"), ("double", "single")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("goes_on", ["fit", "partial_fit"])
def test_the_first_call_decides_on_the_precision(estimator_class, precision, other, dtype, goes_on):
    X, y = data(estimator_class, dtype=np.float32)
    X = X.astype(dtype)
    model = estimator_class(precision=precision, warm_start=True, n_bins=None, **SETTINGS)
    passes(model, X, y, n_passes=1)
    weights = {"single": np.float32, "double": np.float64}[precision]
    assert {array.dtype for array in model.coefs_} == {np.dtype(weights)}
    stored = pickle.loads(pickle.dumps(model))
    expected = outputs(getattr(stored, goes_on)(X[:100], y[:100]), X)
    model.set_params(precision=other)
    # Single precision holds all of these rows.
    rows = X[:100].astype(np.float64 if dtype == np.float32 else np.float32)
    found = outputs(getattr(model, goes_on)(rows, y[:100]), X)
    for each in (stored, model):
        assert {array.dtype for array in each.coefs_ + each.intercepts_} == {np.dtype(weights)}
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@BOTH
def test_attributes_add_up(estimator_class):
    X, y = data(estimator_class)
    model = estimator_class(max_iter=3, early_stopping=False, **SETTINGS).fit(X, y)
    n_iter, loss_curve = model.n_iter_, list(model.loss_curve_)
    passes(model, X, y, n_parts=2, n_passes=2)
    assert model.n_iter_ == model.best_iter_ == n_iter + 4
    assert model.loss_curve_[: len(loss_curve)] == loss_curve
    assert len(model.loss_curve_) == len(model.rank_curve_) == len(model.density_curve_) == len(loss_curve) + 4
    assert model.loss_curve_[-1] < loss_curve[0]


def test_curves_of_held_out_rows_are_gone():
    X, y = data(SubquadMLPRegressor)
    model = SubquadMLPRegressor(max_iter=3, **SETTINGS).fit(X, y)
    assert hasattr(model, "validation_scores_")
    model.partial_fit(X, y)
    assert not hasattr(model, "validation_scores_")
    with pytest.raises(ValueError, match="return_std=True needs what `fit` finds at its end"):
        model.predict(X, return_std=True)


def test_a_calibration_stays():
    X, y = data(SubquadMLPClassifier)
    model = SubquadMLPClassifier(max_iter=3, **SETTINGS).fit(X, y)
    coefficients = model._state_["calibration"]
    assert coefficients.sum() > 0
    np.testing.assert_array_equal(model.partial_fit(X, y)._state_["calibration"], coefficients)
    fresh = passes(SubquadMLPClassifier(**SETTINGS), X, y, n_passes=1)
    assert fresh._state_["calibration"] is None
    np.testing.assert_allclose(fresh.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_classes_that_come_later(loss):
    X, y = data(SubquadMLPClassifier)
    order = np.argsort(y, kind="stable")
    model = SubquadMLPClassifier(loss=loss, **SETTINGS)
    # The first part has one class only.
    rows = order[: np.sum(y == 0)]
    model.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(X).shape == (600, 3)
    passes(model, X, y)
    assert model.score(X, y) > 0.7


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_several_labels(loss, make):
    X, y = data(SubquadMLPClassifier)
    labels = np.eye(3, dtype=int)[y]
    model = SubquadMLPClassifier(loss=loss, **SETTINGS)
    for _ in range(3):
        for rows in np.array_split(np.arange(600), 4):
            model.partial_fit(make(X[rows]), make(labels[rows]))
    assert (model.predict(X) == labels).mean() > 0.8


@pytest.mark.parametrize("kind", ["two", "three"])
def test_other_targets_than_one(kind):
    X, y = data(SubquadMLPRegressor, kind=kind)
    model = passes(SubquadMLPRegressor(**SETTINGS), X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.8
    X, y = data(SubquadMLPClassifier, kind=kind)
    assert passes(SubquadMLPClassifier(**SETTINGS), X, y).score(X, y) > 0.75


@BOTH
def test_one_row_and_equal_rows(estimator_class):
    X, y = data(estimator_class)
    model = passes(estimator_class(**SETTINGS), X, y, n_passes=1)
    expected = model.score(X, y)
    for rows in ([3], [5, 5, 5], [7]):
        model.partial_fit(X[rows], y[rows])
    assert np.isfinite(outputs(model, X)).all()
    assert model.score(X, y) > expected - 0.2


def test_targets_that_equal_the_mean_change_little():
    X, y = data(SubquadMLPRegressor)
    model = passes(SubquadMLPRegressor(**SETTINGS), X, y, n_passes=2)
    expected = model.score(X, y)
    model.partial_fit(X[:20], np.full(20, model._state_["target_mean"][0]))
    # The weights are not cleared because the constant model would be perfect for these rows.
    assert model.score(X, y) > expected - 0.5


@BOTH
def test_a_call_that_fails_changes_nothing(estimator_class, monkeypatch):
    X, y = data(estimator_class)
    model = passes(estimator_class(**SETTINGS), X, y, n_passes=1)
    expected = pickle.dumps(model)

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Network, "apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(X[:100], y[:100])
    for rows, targets in ((X[:, :3], y), (X[:10], y[:9]), (np.full((5, 4), np.inf), y[:5])):
        with pytest.raises(ValueError, match=r"features|inconsistent|infinity"):
            model.partial_fit(rows, targets)
    assert pickle.dumps(model) == expected


@pytest.mark.parametrize(
    ("before", "call", "message"),
    [
        (False, {}, "classes must be passed in the first call"),
        (False, {"classes": [0]}, "classes must hold at least two"),
        (False, {"classes": [0, 1]}, r"y holds \[2\], but the known classes are \[0, 1\]"),
        (True, {"classes": [0, 1, 2, 3]}, r"classes are \[0, 1, 2, 3\], but those of the calls before are \[0, 1, 2\]"),
    ],
)
def test_classes_that_do_not_fit_are_named(before, call, message):
    X, y = data(SubquadMLPClassifier)
    model = SubquadMLPClassifier(**SETTINGS)
    if before:
        model.fit(X, y)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X, y, **call)


def test_balanced_weights_need_all_rows():
    X, y = data(SubquadMLPClassifier)
    with pytest.raises(ValueError, match="class_weight='balanced' needs all rows"):
        SubquadMLPClassifier(class_weight="balanced", **SETTINGS).partial_fit(X, y, classes=[0, 1, 2])


def test_another_number_of_targets_is_named():
    X, y = data(SubquadMLPRegressor)
    model = SubquadMLPRegressor(**SETTINGS).partial_fit(X, y)
    with pytest.raises(ValueError, match="y has 2 columns, but the model has 1 targets"):
        model.partial_fit(X, np.column_stack([y, y]))


@BOTH
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (64, 32)}, "hidden_layer_sizes, density cannot change"),
        ({"density": 0.3, "sparsifier": "topk"}, "density, sparsifier cannot change"),
        ({"skip_connections": False}, "skip_connections cannot change"),
    ],
)
def test_the_shape_of_the_network_cannot_change(estimator_class, warm, parameters, message):
    X, y = data(estimator_class)
    model = estimator_class(max_iter=2, **SETTINGS).fit(X, y).set_params(**parameters)
    expected = outputs(model, X)
    with pytest.raises(ValueError, match=message):
        model.set_params(warm_start=True).fit(X, y) if warm else model.partial_fit(X, y)
    np.testing.assert_array_equal(outputs(model, X), expected)


@pytest.mark.parametrize(
    ("estimator_class", "other"), [(SubquadMLPRegressor, "poisson"), (SubquadMLPClassifier, "log_loss")]
)
@pytest.mark.parametrize("warm", [False, True])
def test_the_loss_cannot_change(estimator_class, other, warm):
    X, y = data(estimator_class)
    for first, second in (("squared_error", other), (other, "squared_error")):
        model = estimator_class(loss=first, max_iter=2, early_stopping=False, warm_start=warm, **SETTINGS).fit(X, y)
        expected = outputs(model, X)
        model.set_params(loss=second)
        with pytest.raises(ValueError, match=f"loss='{second}' is not the loss of the fit before"):
            model.fit(X, y) if warm else model.partial_fit(X, y)
        np.testing.assert_array_equal(outputs(model, X), expected)


# ---- warm_start -------------------------------------------------------------------------------------------------


@EVERY_LOSS
@pytest.mark.parametrize("batch_size", [1000, 100])
def test_a_warm_start_goes_on(estimator_class, loss, batch_size):
    X, y = data(estimator_class, n=300)
    # Short steps, so that there is something left to learn.
    model = estimator_class(loss=loss, batch_size=batch_size, damping=3.0, max_iter=2, early_stopping=False, **SETTINGS)
    cold = clone(model).fit(X, y).fit(X, y)
    warm = clone(model).set_params(warm_start=True).fit(X, y)
    np.testing.assert_array_equal(outputs(warm, X), outputs(cold, X))
    scores = [warm.score(X, y)] + [warm.fit(X, y).score(X, y) for _ in range(2)]
    assert scores[2] > scores[0]
    if batch_size == 1000:
        # The loss before the first step is that of the weights, not of a random start.
        assert warm.loss_curve_[0] < cold.loss_curve_[-1] * (1 + 1e-6)
    assert cold.loss_curve_[0] > warm.loss_curve_[0]


@BOTH
@pytest.mark.parametrize("batch_size", [1000, 100])
def test_what_no_step_improves_stays(estimator_class, batch_size):
    X, y = data(estimator_class)
    train, valid = slice(400), slice(400, None)
    parameters = {"batch_size": batch_size, "warm_start": True, "precision": "double", "max_iter": 15} | SETTINGS
    validation = {"X_val": X[valid], "y_val": y[valid]}
    model = estimator_class(**parameters).fit(X[train], y[train], **validation)
    best, expected = max(model.validation_scores_), outputs(model, X)
    # Targets that say something else: no step on them is one for the validation set.
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(X[train], rng.permutation(y[train]), **validation)
    assert model.best_iter_ == 0
    assert model.validation_scores_[0] == pytest.approx(best, rel=1e-6)
    # Steps that were taken back leave their rounding.
    np.testing.assert_allclose(outputs(model, X), expected, rtol=1e-9, atol=1e-9)


@BOTH
def test_a_warm_start_keeps_scalings_and_weights(estimator_class, monkeypatch):
    X, y = data(estimator_class)
    model = estimator_class(max_iter=3, warm_start=True, **SETTINGS).fit(X, y)
    kept = {name: model._state_[name] for name in ("input_mean", "input_scale", "target_mean")}
    fits, fit = [], Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda *args, **kwargs: fits.append(args) or fit(*args, **kwargs))
    model.fit(100 * X + 5, y)
    assert len(fits) == 1
    for name, value in kept.items():
        np.testing.assert_array_equal(model._state_[name], value)


@BOTH
def test_a_warm_start_that_fails_leaves_the_model(estimator_class):
    X, y = data(estimator_class)
    model = estimator_class(max_iter=2, warm_start=True, **SETTINGS).fit(X, y)
    expected = outputs(model, X)
    with pytest.raises(ValueError, match="features"):
        model.fit(X[:, :2], y)
    np.testing.assert_array_equal(outputs(model, X), expected)
    with pytest.raises(ValueError, match="early_stopping='loo' corrects for steps from the start"):
        model.set_params(early_stopping="loo").fit(X, y)
    np.testing.assert_array_equal(outputs(model, X), expected)
    # Without a warm start, it is forgotten.
    with pytest.raises(ValueError, match="minimum of 2"):
        model.set_params(warm_start=False, early_stopping="auto").fit(X[:1], y[:1])
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_a_warm_start_needs_the_same_classes():
    X, y = data(SubquadMLPClassifier)
    model = SubquadMLPClassifier(max_iter=2, warm_start=True, **SETTINGS).fit(X, y)
    with pytest.raises(ValueError, match=r"goes on with the classes \[0, 1, 2\], but y has"):
        model.fit(X, y > 0)


def test_parts_of_digits_beside_sklearn_mlp():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    scores = [
        passes(model, X[:1200], y[:1200], n_parts=8, n_passes=2).score(X[1200:], y[1200:])
        for model in (
            SubquadMLPClassifier(hidden_layer_sizes=(256, 256), random_state=0),
            MLPClassifier(random_state=0),
        )
    ]
    assert scores[0] > scores[1] + 0.05
