"""Validation sets that are passed to `fit`."""

import numpy as np
import pandas as pd
import pytest
from cases import EVERY_LOSS, first_split
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.train import Trainer

SETTINGS = {"hidden_layer_sizes": (64, 64), "max_iter": 8, "n_bins": None, "n_folds": 1, "random_state": 0}
N = 300
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
BATCHES = pytest.mark.parametrize("batch_size", ["auto", 60])


def data(estimator_class, n=N):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.standard_normal(n)
    return X, np.digitize(y, [-0.5, 0.5]) if estimator_class is SubquadMLPClassifier else y - y.min()


def halves(estimator_class):
    X, y = data(estimator_class)
    return X[:200], y[:200], X[200:], y[200:]


@EVERY_LOSS
@BATCHES
def test_scores_are_those_of_the_validation_set(estimator_class, loss, batch_size):
    X, y, X_val, y_val = halves(estimator_class)
    model = estimator_class(loss=loss, batch_size=batch_size, **SETTINGS).fit(X, y, X_val=X_val, y_val=y_val)
    assert 1 <= model.best_iter_ == np.argmax(model.validation_scores_)
    if loss == "log_loss":
        p = model.predict_proba(X_val)
        others = np.where(np.arange(3) == y_val[:, None], 0, p)
        # A hundred rows, and one more that has another label.
        error = (log_loss(y_val, p) - np.log(others.max(axis=1)).mean() / 100) / 1.01
    elif is_classifier(model):
        error = ((model.decision_function(X_val) - np.eye(3)[y_val]) ** 2).mean()
    elif loss == "poisson":
        mean = model.predict(X_val)
        error = 2 * (mean - y_val + np.where(y_val > 0, y_val * np.log(np.maximum(y_val, 1e-300) / mean), 0)).mean()
    else:
        error = ((model.predict(X_val) - y_val) ** 2).mean() / y.var()
    assert max(model.validation_scores_) == pytest.approx(1 - error, rel=1e-5)


@BOTH
@BATCHES
def test_a_single_network_is_fitted_once_as_with_its_held_out_rows_as_validation_set(
    estimator_class, batch_size, monkeypatch
):
    X, y = data(estimator_class)
    model = estimator_class(batch_size=batch_size, **SETTINGS)
    fitted, held_out = first_split(model, y, 0.1)
    histories, fit = [], Trainer.train

    def spy(*args, **kwargs):
        fitted = fit(*args, **kwargs)
        histories.append(fitted.history)
        return fitted

    monkeypatch.setattr(Trainer, "train", spy)
    # "auto" goes by the features of all rows.
    model.set_params(init_scale=0.1, early_stopping="validation").fit(X, y)
    by_hand = clone(model).fit(X[fitted], y[fitted], X_val=X[held_out], y_val=y[held_out])
    assert len(histories) == 2
    for history, one in zip(histories, (model, by_hand), strict=True):
        assert one.n_iter_ == history.n_iter
        np.testing.assert_array_equal(one.validation_scores_, 1 - np.array(history.error_curve))
    assert 1 <= model.best_iter_ == np.argmax(model.validation_scores_)
    for name in ("n_iter_", "best_iter_", "stop_reason_", "loss_curve_", "validation_scores_", "rank_curve_"):
        assert getattr(model, name) == getattr(by_hand, name), name
    for ours, theirs in zip(model.coefs_, by_hand.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if is_classifier(model):
        np.testing.assert_array_equal(model.predict_proba(X), by_hand.predict_proba(X))
    else:
        np.testing.assert_array_equal(model.predict(X, return_std=True), by_hand.predict(X, return_std=True))


@BOTH
@BATCHES
def test_all_rows_are_fitted_once_and_no_row_of_the_validation_set(estimator_class, batch_size, monkeypatch):
    X, y, X_val, y_val = halves(estimator_class)
    rows, fit = [], Trainer.train

    def spy(*args, **kwargs):
        model = fit(*args, **kwargs)
        rows.append(np.sort(model.batch.x[:, 0]))
        return model

    monkeypatch.setattr(Trainer, "train", spy)
    parameters = {"standardize": False, "batch_size": batch_size}
    model = estimator_class(**SETTINGS | parameters).fit(X, y, X_val=X_val, y_val=y_val)
    assert len(rows) == 1
    np.testing.assert_allclose(rows[0], np.sort(X[:, 0]) / 2)
    assert len(model.validation_scores_) == model.n_iter_ + 1


@BOTH
def test_weights_of_the_validation_set(estimator_class):
    X, y, X_val, y_val = halves(estimator_class)
    model = estimator_class(**SETTINGS)
    weights = np.random.default_rng(1).integers(0, 3, len(X_val))
    weighted = clone(model).fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=weights)
    repeated = clone(model).fit(X, y, X_val=np.repeat(X_val, weights, axis=0), y_val=np.repeat(y_val, weights))
    plain = clone(model).fit(X, y, X_val=X_val, y_val=y_val)
    # Sums in another order may differ by a digit where a fit ends.
    scores = [fit.validation_scores_[:4] for fit in (weighted, repeated, plain)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)
    assert not np.allclose(scores[0], scores[2], rtol=1e-3)


@BOTH
def test_frames_and_sparse_rows(estimator_class):
    X, y, X_val, y_val = halves(estimator_class)
    model = estimator_class(**SETTINGS)
    expected = clone(model).fit(X, y, X_val=X_val, y_val=y_val).predict(X_val)
    names = list("abcd")
    frames = clone(model).fit(pd.DataFrame(X, columns=names), y, X_val=pd.DataFrame(X_val, columns=names), y_val=y_val)
    # A frame keeps its columns together, which changes sums by their rounding.
    np.testing.assert_allclose(frames.predict(pd.DataFrame(X_val, columns=names)), expected, rtol=1e-9)
    rows = clone(model).fit(sparse.csr_array(X), y, X_val=sparse.csc_array(X_val), y_val=y_val)
    np.testing.assert_allclose(rows.predict(X_val), expected, rtol=1e-3)
    with pytest.raises(ValueError, match="X_val, the features of the validation set: The feature names"):
        clone(model).fit(
            pd.DataFrame(X, columns=names), y, X_val=pd.DataFrame(X_val, columns=list("abce")), y_val=y_val
        )


def test_several_labels():
    X, y, X_val, y_val = halves(SubquadMLPClassifier)
    labels, labels_val = np.eye(3, dtype=int)[y], np.eye(3, dtype=int)[y_val]
    model = SubquadMLPClassifier(**SETTINGS).fit(X, labels, X_val=X_val, y_val=labels_val)
    assert (model.predict(X_val) == labels_val).mean() > 0.75
    with pytest.raises(ValueError, match=r"zeros and ones in 3 columns, .* got shape \(100, 2\)"):
        model.fit(X, labels, X_val=X_val, y_val=labels_val[:, :2])


REFUSED = {
    "no targets": ({"y_val": None}, {}, "X_val was passed without y_val"),
    "no features": ({"X_val": None}, {}, "y_val was passed without X_val"),
    "weights alone": ({"X_val": None, "y_val": None, "sample_weight_val": np.ones(100)}, {}, "sample_weight_val was"),
    "another width": ({"X_val": np.ones((100, 3))}, {}, "X_val, the features of the validation set: X has 3 features"),
    "infinity": ({"X_val": np.full((100, 4), np.inf)}, {}, "X_val, the features of the validation set: Input X"),
    "lengths": ({"y_val": np.ones(99)}, {}, r"inconsistent numbers of samples: \[100, 99\]"),
    "weights": ({"sample_weight_val": np.ones(5)}, {}, "sample_weight_val, of the validation set"),
    "no weight": ({"sample_weight_val": np.zeros(100)}, {}, "sample_weight_val, of the validation set: .*zero"),
    "loo": ({}, {"early_stopping": "loo"}, "X_val and y_val say when to stop, but early_stopping='loo'"),
    "no stopping": ({}, {"early_stopping": False}, "X_val and y_val say when to stop, but early_stopping=False"),
}


@BOTH
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_it_is_named(estimator_class, case):
    X, y, X_val, y_val = halves(estimator_class)
    passed, parameters, message = REFUSED[case]
    model = estimator_class(**SETTINGS | parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, **{"X_val": X_val, "y_val": y_val} | passed)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_classes_and_targets_that_training_rows_do_not_have():
    X, y, X_val, y_val = halves(SubquadMLPClassifier)
    with pytest.raises(ValueError, match=r"y_val holds \[7\], but the known classes are \[0, 1, 2\]"):
        SubquadMLPClassifier(**SETTINGS).fit(X, y, X_val=X_val, y_val=np.where(y_val == 2, 7, y_val))
    X, y, X_val, y_val = halves(SubquadMLPRegressor)
    with pytest.raises(ValueError, match="y_val has 2 columns, but y has 1"):
        SubquadMLPRegressor(**SETTINGS).fit(X, y, X_val=X_val, y_val=np.column_stack([y_val, y_val]))
    with pytest.raises(ValueError, match="loss='poisson' needs y_val >= 0"):
        SubquadMLPRegressor(loss="poisson", **SETTINGS).fit(X, y, X_val=X_val, y_val=-y_val)
