"""Scores of held-out rows that say when to stop: any of scikit-learn's scorers, or a callable."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, get_scorer, make_scorer, mean_absolute_error
from sklearn.model_selection import GridSearchCV

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])


def data_for(estimator_class, n=160, n_classes=2):
    if estimator_class is SubquadMLPClassifier:
        options = {"n_features": 6, "n_informative": 5, "n_redundant": 0, "flip_y": 0.1, "random_state": 0}
        X, y = make_classification(n, n_classes=n_classes, **options)
        return X, np.array(["no", "yes", "perhaps"])[y]
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    return X, 30 + 10 * (np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]) + rng.standard_normal(n)


def small(estimator_class, **parameters):
    defaults = {"hidden_layer_sizes": (64, 64), "max_iter": 6, "n_folds": 1, "random_state": 0}
    return estimator_class(**defaults | {"n_jobs": 1} | parameters)


class Recording:
    """A scorer that remembers what it was given and what it said."""

    def __init__(self, score):
        self._score = score
        self.calls, self.scores = [], []

    def __call__(self, estimator, X, y, **weights):
        self.calls.append((X, y, weights))
        self.scores.append(self._score(estimator, X, y, **weights))
        return self.scores[-1]


@pytest.mark.parametrize(
    ("estimator_class", "scoring", "parameters"),
    [
        (SubquadMLPRegressor, "r2", {}),
        (SubquadMLPRegressor, "neg_mean_absolute_error", {}),
        (SubquadMLPRegressor, "neg_mean_poisson_deviance", {"loss": "poisson"}),
        (SubquadMLPRegressor, "neg_median_absolute_error", {"batch_size": 40}),
        (SubquadMLPRegressor, "neg_max_error", {"sparsifier": "topk", "max_rank": 10**6}),
        (SubquadMLPClassifier, "accuracy", {}),
        (SubquadMLPClassifier, "roc_auc", {"loss": "log_loss"}),
        (SubquadMLPClassifier, "neg_log_loss", {}),
        (SubquadMLPClassifier, "balanced_accuracy", {"batch_size": 40}),
        (SubquadMLPClassifier, None, {"class_weight": "balanced"}),
    ],
)
def test_scores_are_those_of_the_estimator_that_would_be_returned(estimator_class, scoring, parameters):
    """With a validation set, an estimator that is fitted so many passes and not stopped predicts what was scored."""
    X, y = data_for(estimator_class, 240)
    if parameters.get("loss") == "poisson":
        y = np.abs(y)
    whole_path, rows = {"tol": 0.0, "n_iter_no_change": 6}, {"X_val": X[160:], "y_val": y[160:]}
    parameters = whole_path | parameters | {"precision": "double"}
    model = small(estimator_class, scoring=scoring, **parameters).fit(X[:160], y[:160], **rows)
    scorer = model.score if scoring is None else lambda X, y: get_scorer(scoring)(model, X, y)
    assert model.validation_scores_[model.best_iter_] == pytest.approx(scorer(X[160:], y[160:]), rel=1e-9)
    assert model.best_iter_ == np.argmax(model.validation_scores_)
    assert len(model.validation_scores_) == model.n_iter_ + 1


@BOTH
def test_the_first_score_is_that_of_the_constant_model(estimator_class):
    X, y = data_for(estimator_class, 240)
    y_val = y[160:]
    model = small(estimator_class, scoring=None).fit(X[:160], y[:160], X_val=X[160:], y_val=y_val)
    if estimator_class is SubquadMLPRegressor:
        expected = 1 - np.mean((y_val - y[:160].mean()) ** 2) / y_val.var()
    else:
        classes, counts = np.unique(y[:160], return_counts=True)
        expected = np.mean(y_val == classes[np.argmax(counts)])
    assert model.validation_scores_[0] == pytest.approx(expected, rel=1e-9)


@BOTH
def test_the_number_of_steps_is_the_best_by_the_score(estimator_class):
    """A score that wants two steps gets two, whatever the loss says."""
    X, y = data_for(estimator_class)
    wanted = [0.0, 0.1, 0.5, 0.2, 0.1, 0.0, 0.0, 0.0]

    def scoring(estimator, X, y):
        scoring.calls += 1
        return wanted[(scoring.calls - 1) % 6]

    scoring.calls = 0
    options = {"validation_fraction": 0.7, "n_iter_no_change": 3, "precision": "double"}
    model = small(estimator_class, scoring=scoring, **options).fit(X, y)
    assert scoring.calls == 6
    assert (model.best_iter_, model.n_iter_) == (2, 5)
    assert model.validation_scores_ == pytest.approx(wanted[:6])
    by_loss = small(estimator_class, early_stopping="validation", max_iter=2, **options).fit(X, y)
    assert by_loss.best_iter_ == 2
    outputs = "predict" if estimator_class is SubquadMLPRegressor else "decision_function"
    np.testing.assert_allclose(getattr(model, outputs)(X), getattr(by_loss, outputs)(X), rtol=1e-8, atol=1e-8)


def test_negative_scores_that_rise_are_improvements():
    X, y = data_for(SubquadMLPRegressor)
    scores = iter([-100.0, -90.0, -80.0, -70.0, -60.0, -50.0, -40.0])
    options = {"validation_fraction": 0.7, "n_iter_no_change": 1, "tol": 0.05}
    model = small(SubquadMLPRegressor, scoring=lambda estimator, X, y: next(scores), **options).fit(X, y)
    assert model.best_iter_ == 6


@BOTH
def test_a_score_that_is_not_a_number_is_no_improvement(estimator_class):
    X, y = data_for(estimator_class)
    with pytest.warns(ConvergenceWarning, match="constant"):
        model = small(estimator_class, scoring=lambda estimator, X, y: np.nan, validation_fraction=0.7).fit(X, y)
    assert model.best_iter_ == 0


@BOTH
def test_a_score_that_is_undefined_for_the_constant_does_not_make_it_the_result(estimator_class):
    X, y = data_for(estimator_class)

    def scoring(estimator, X, y):
        return np.nan if len(np.unique(estimator.predict(X))) == 1 else estimator.score(X, y)

    model = small(estimator_class, scoring=scoring, n_iter_no_change=1).fit(X, y)
    assert model.validation_scores_[0] == -np.inf
    assert model.best_iter_ > 0


@pytest.mark.parametrize("batch_size", ["auto", 40])
@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr", "says nan"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_a_score_that_lacks_a_class_says_which(scoring, batch_size):
    """A class of one row is fitted, and not held out."""
    X, y = data_for(SubquadMLPClassifier)
    y = y.astype(object)
    y[7] = "never"

    def says_nan(estimator, X, y):
        return np.nan if np.ptp(estimator.decision_function(X), axis=0).any() else 0.0

    model = small(SubquadMLPClassifier, scoring=says_nan if scoring == "says nan" else scoring, batch_size=batch_size)
    lacks = r"which has no row of class \['never'\].*Pass X_val and y_val"
    with pytest.raises(ValueError, match="undefined on the held-out part of early_stopping, " + lacks):
        model.fit(X, y)
    assert not model.__sklearn_is_fitted__()
    with pytest.raises(ValueError, match="undefined on the validation set, " + lacks):
        model.fit(X, y, X_val=X[8:50], y_val=y[8:50])


def test_a_score_of_rare_classes_is_defined():
    X, y = data_for(SubquadMLPClassifier)
    y = y.astype(object)
    y[:3] = "seldom"
    assert len(small(SubquadMLPClassifier, scoring="neg_log_loss").fit(X, y).validation_scores_) > 1


@BOTH
@pytest.mark.parametrize(
    ("score", "takes_weights"),
    [
        (lambda estimator, X, y: estimator.score(X, y), False),
        (lambda estimator, X, y, sample_weight=None: estimator.score(X, y, sample_weight), True),
        (lambda estimator, X, y, **weights: estimator.score(X, y, **weights), True),
        (make_scorer(lambda y, predicted: float(np.mean(y == predicted))), False),
        (None, True),
    ],
    ids=["no weights", "weights", "any keywords", "of a metric without", "the estimator's own"],
)
def test_a_score_without_weights_is_called_without_them(estimator_class, score, takes_weights):
    X, y = data_for(estimator_class)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        small(estimator_class, scoring=score, max_iter=2).fit(X, y, sample_weight=np.linspace(1, 2, len(y)))
    told = [str(warning.message) for warning in caught if "takes no sample_weight" in str(warning.message)]
    assert len(told) == (0 if takes_weights else 1)


def test_copies_of_rows_reach_the_score_as_they_were_given():
    """Equal rows are one row of the fit; scores see what the caller passed."""
    X, y = data_for(SubquadMLPRegressor, 60)
    X, y = np.repeat(X, 2, axis=0), np.repeat(y, 2)
    scoring = Recording(lambda estimator, X, y: estimator.score(X, y))
    small(SubquadMLPRegressor, scoring=scoring, max_iter=1, early_stopping="validation").fit(X, y)
    held_out, targets, _ = scoring.calls[0]
    assert len(targets) == 12
    assert np.array_equal(held_out[::2], held_out[1::2])
    assert np.array_equal(targets[::2], targets[1::2])


def test_deviations_are_those_of_the_loss():
    """A score says when to stop, but not how large the noise is."""
    X, y = data_for(SubquadMLPRegressor)
    options = {"max_iter": 3, "n_iter_no_change": 3, "tol": 0.0}
    one = small(SubquadMLPRegressor, **options).fit(X, y)
    scored = small(SubquadMLPRegressor, scoring="r2", **options).fit(X, y)
    assert one.best_iter_ == scored.best_iter_
    for expected, found in zip(one.predict(X, return_std=True), scored.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@BOTH
def test_frames_keep_their_names_and_labels(estimator_class):
    X, y = data_for(estimator_class)
    frame = pd.DataFrame(X, columns=[f"feature {i}" for i in range(X.shape[1])])
    scoring = Recording(lambda estimator, X, y: estimator.score(X, y))
    model = small(estimator_class, scoring=scoring, validation_fraction=0.7).fit(frame, pd.Series(y))
    for held_out, targets, weights in scoring.calls:
        assert list(held_out.columns) == list(frame.columns)
        assert np.array_equal(targets, y[held_out.index])
        assert weights == {}
    assert model.validation_scores_ == scoring.scores


@BOTH
def test_weights_reach_the_score_where_fit_has_them(estimator_class):
    X, y = data_for(estimator_class, 240)
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    scoring = Recording(lambda estimator, X, y, sample_weight: estimator.score(X, y, sample_weight))
    rows = {"X_val": X[160:], "y_val": y[160:], "sample_weight_val": weights[160:]}
    model = small(estimator_class, scoring=scoring).fit(X[:160], y[:160], sample_weight=weights[:160], **rows)
    for held_out, targets, given in scoring.calls:
        # Rows of no weight are left out of everything.
        counted = weights[160:] > 0
        assert np.array_equal(held_out, X[160:][counted])
        assert np.array_equal(targets, y[160:][counted])
        assert np.array_equal(given["sample_weight"], weights[160:][counted])
    assert model.validation_scores_ == scoring.scores


@BOTH
def test_a_single_number_weighs_all_rows(estimator_class):
    X, y = data_for(estimator_class, 240)
    scoring = Recording(lambda estimator, X, y, sample_weight: estimator.score(X, y, sample_weight))
    rows = {"X_val": X[160:], "y_val": y[160:], "sample_weight_val": 2.0}
    small(estimator_class, scoring=scoring).fit(X[:160], y[:160], sample_weight=3.0, **rows)
    assert all(np.array_equal(given["sample_weight"], np.full(80, 2.0)) for _, _, given in scoring.calls)


def test_sparse_features_and_several_labels():
    X, Y = make_multilabel_classification(200, n_features=8, n_classes=3, random_state=0)
    model = small(SubquadMLPClassifier, scoring="f1_macro").fit(csr_array(X), Y)
    dense = small(SubquadMLPClassifier, scoring="f1_macro").fit(X, Y)
    assert model.validation_scores_ == dense.validation_scores_
    assert 0 < max(model.validation_scores_) <= 1


def test_several_targets():
    X, y = data_for(SubquadMLPRegressor)
    model = small(SubquadMLPRegressor, scoring="r2").fit(X, np.column_stack([y, -y, X[:, 0]]))
    assert max(model.validation_scores_) > 0.5


def test_three_classes_by_a_score_of_probabilities():
    X, y = data_for(SubquadMLPClassifier, 300, n_classes=3)
    model = small(SubquadMLPClassifier, scoring="roc_auc_ovr").fit(X, y)
    assert max(model.validation_scores_) > 0.8


@pytest.mark.parametrize("early_stopping", ["loo", False])
def test_a_score_needs_held_out_rows(early_stopping):
    X, y = data_for(SubquadMLPRegressor)
    with pytest.raises(ValueError, match="scoring='r2' says on held-out rows when to stop, but early_stopping="):
        small(SubquadMLPRegressor, scoring="r2", early_stopping=early_stopping).fit(X, y)


@pytest.mark.parametrize("n", [4, 30])
def test_few_rows_are_held_out_where_a_score_asks(n):
    X, y = data_for(SubquadMLPRegressor)
    scoring = make_scorer(mean_absolute_error, greater_is_better=False)
    model = small(SubquadMLPRegressor, scoring=scoring).fit(X[:n], y[:n])
    assert len(model.validation_scores_) > 1


def test_an_unknown_name_is_refused_before_anything_is_forgotten():
    X, y = data_for(SubquadMLPRegressor)
    model = small(SubquadMLPRegressor).fit(X, y)
    before = model.predict(X)
    with pytest.raises(
        ValueError, match=r"The 'scoring' parameter .* must be 'loss' or a name among those of .*Got 'r3' instead"
    ):
        model.set_params(scoring="r3").fit(X, y)
    assert np.array_equal(model.predict(X), before)


def test_what_is_no_number_is_refused():
    X, y = data_for(SubquadMLPRegressor)
    with pytest.raises(ValueError, match="scoring must return a number"):
        small(SubquadMLPRegressor, scoring=lambda estimator, X, y: {"r2": 1.0}).fit(X, y)


@BOTH
def test_a_score_that_fails_leaves_the_estimator_unfitted(estimator_class):
    X, y = data_for(estimator_class)

    def scoring(estimator, X, y):
        raise RuntimeError("no score today")

    model = small(estimator_class, scoring=scoring)
    with pytest.raises(RuntimeError, match="no score today"):
        model.fit(X, y)
    assert not model.__sklearn_is_fitted__()


def test_scores_change_nothing():
    """What is scored are the network's own pending factors: they are not folded in."""
    X, y = data_for(SubquadMLPRegressor)
    rows = {"X_val": X[100:], "y_val": y[100:]}
    options = {"max_rank": 10**6, "tol": 0.0, "n_iter_no_change": 6}
    silent = small(SubquadMLPRegressor, **options).fit(X[:100], y[:100], **rows)
    scored = small(SubquadMLPRegressor, scoring="neg_mean_squared_error", **options).fit(X[:100], y[:100], **rows)
    assert silent.best_iter_ == scored.best_iter_
    assert silent.rank_curve_ == scored.rank_curve_
    assert np.array_equal(silent.predict(X), scored.predict(X))


def test_in_a_search_with_routed_metadata_and_through_pickle():
    X, y = data_for(SubquadMLPClassifier)
    search = GridSearchCV(small(SubquadMLPClassifier, max_iter=2), {"scoring": ["loss", "balanced_accuracy"]}, cv=2)
    with config_context(enable_metadata_routing=True):
        search.fit(X, y)
        model = small(SubquadMLPClassifier, scoring=make_scorer(accuracy_score)).fit(
            X, y, sample_weight=np.ones(len(y))
        )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    assert clone(model).scoring is not None
