"""Several networks, each fitted without one fold of the rows."""

import pickle
from unittest import mock

import joblib
import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from small_fits import BOTH, classification_data, data_for, precision_of, regression_data

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit import plan as plan_module
from sklearn_subquad._fit.committee import weights_of_networks
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.held_out import folds
from sklearn_subquad._fit.train import Trainer
from sklearn_subquad._predictor import Predictor

SMALL = {"hidden_layer_sizes": (32, 32), "max_iter": 3, "early_stopping": "validation", "random_state": 0}
LOSSES = pytest.mark.parametrize(
    ("estimator_class", "loss", "k"),
    [
        (SubquadMLPRegressor, "squared_error", None),
        (SubquadMLPRegressor, "squared_error", 2),
        (SubquadMLPRegressor, "poisson", None),
        (SubquadMLPClassifier, "squared_error", 2),
        (SubquadMLPClassifier, "squared_error", 3),
        (SubquadMLPClassifier, "log_loss", 2),
        (SubquadMLPClassifier, "log_loss", 3),
    ],
)


def problem(estimator_class, loss, k, n=80):
    if estimator_class is SubquadMLPClassifier:
        return classification_data(n, n_classes=k)
    X, y = regression_data(n, n_outputs=k)
    return X, np.round(np.exp(y)) if loss == "poisson" else y


def training_set(X, Y, sample_weight=None):
    return TrainingSet.of_distinct_rows(X, Y, np.ones(len(X)) if sample_weight is None else sample_weight, None)[0]


# ---- folds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_folds", [2, 3, 8, 50])
def test_folds_are_of_equal_size_and_hold_their_share_of_every_class(n_folds):
    rng = np.random.default_rng(0)
    codes = rng.choice(4, 203, p=[0.6, 0.3, 0.08, 0.02])
    for Y in (codes[:, None].astype(float), np.eye(4, dtype=bool)[codes], codes[:, None] == 0):
        numbers = folds(training_set(rng.standard_normal((203, 2)), Y), n_folds, 0)
        assert np.ptp(np.bincount(numbers, minlength=n_folds)) <= 1
        if Y.dtype == bool:
            for label in Y.T:
                # What lies between two classes may add one more at either end.
                assert np.ptp(np.bincount(numbers[label], minlength=n_folds)) <= 2


def test_folds_of_several_labels_share_out_their_combinations():
    rng = np.random.default_rng(0)
    Y = rng.random((120, 9)) < 0.5
    Y[:60] = Y[0]
    numbers = folds(training_set(rng.standard_normal((120, 2)), Y), 5, 0)
    assert (np.bincount(numbers[:60]) >= 11).all()


def test_the_seed_decides_on_the_folds():
    data = training_set(np.arange(60.0)[:, None], np.arange(60.0)[:, None])
    np.testing.assert_array_equal(folds(data, 4, 1), folds(data, 4, 1))
    assert (folds(data, 4, 1) != folds(data, 4, 2)).any()


# ---- what a committee predicts ----------------------------------------------------------------------------------


@LOSSES
def test_predictions_are_the_mean_of_the_networks(estimator_class, loss, k):
    X, y = problem(estimator_class, loss, k)
    model = estimator_class(loss=loss, n_folds=3, **SMALL).fit(X, y)
    members = model.estimators_
    assert len(members) == 3
    if is_classifier(model) and loss == "squared_error":
        decisions = np.average(
            [member.decision_function(X) for member in members], axis=0, weights=model._state_["weights"]
        )
        np.testing.assert_allclose(model.decision_function(X), decisions, rtol=1e-9, atol=1e-12)
        chosen = decisions > 0 if k == 2 else decisions.argmax(axis=1)
        np.testing.assert_array_equal(model.predict(X), chosen)
        np.testing.assert_array_equal(model.predict_proba(X).argmax(axis=1), chosen)
    elif is_classifier(model):
        p = np.average([member.predict_proba(X) for member in members], axis=0, weights=model._state_["weights"])
        np.testing.assert_allclose(model.predict_proba(X), p, rtol=1e-9)
        np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p, rtol=1e-9)
        np.testing.assert_array_equal(model.predict(X), p.argmax(axis=1))
        decisions = model.decision_function(X)
        chosen = decisions > 0 if k == 2 else decisions.argmax(axis=1)
        np.testing.assert_array_equal(chosen, p.argmax(axis=1))
    else:
        # Of counts, the mean is that of their logarithms.
        link = np.log if loss == "poisson" else np.asarray
        mean = np.average([link(member.predict(X)) for member in members], axis=0, weights=model._state_["weights"])
        np.testing.assert_allclose(link(model.predict(X)), mean, rtol=1e-9)


def test_deviations_are_those_of_the_mixture_but_for_a_scale():
    X, y = regression_data()
    Y = np.column_stack([y, 1e3 * X[:, 0] ** 2])
    for targets in (y, Y):
        model = SubquadMLPRegressor(n_folds=3, **SMALL).fit(X, targets)
        mean, std = model.predict(X, return_std=True)
        weights, scale = model._state_["weights"], model._state_["deviation_scale"]
        # The first two have deviations of their own, which stand for all.
        stds = [member.predict(X, return_std=True)[1] for member in model.estimators_[:2]]
        with pytest.raises(ValueError, match=r"the first two have it; call fit, or ask the estimator of them all"):
            model.estimators_[2].predict(X, return_std=True)
        means = [member.predict(X) for member in model.estimators_]
        variance = np.average(np.square(stds), axis=0, weights=weights[:2])
        variance += np.average(np.square(means), axis=0, weights=weights) - mean**2
        np.testing.assert_allclose(std, scale * np.sqrt(variance), rtol=1e-6)
        assert scale.shape == (targets.ndim,)
        assert (scale < 1).all()


def test_noise_is_what_explains_the_errors_of_all_networks_of_the_kind():
    """As one network finds it from its own error, and those of all folds then say how large the error is."""
    X, y = regression_data()
    model = SubquadMLPRegressor(n_folds=4, n_bins=None, **SMALL).fit(X, y)
    errors = [1 - np.max(member.validation_scores_) for member in model.estimators_]
    errors = np.array(errors) * [member._state_["target_scale"][0] ** 2 for member in model.estimators_]
    noises = []
    with mock.patch.object(Predictor, "_set_deviations"):
        alone = SubquadMLPRegressor(n_folds=4, n_bins=None, **SMALL).fit(X, y)
    for number in range(2):
        noises.append(model.estimators_[number]._state_["laplace"]["noise"])
        own = alone.estimators_[number]._state_["laplace"]["noise"]
        np.testing.assert_allclose(noises[-1], own * errors.mean() / errors[number], rtol=1e-6)
        assert noises[-1] != pytest.approx(own, rel=1e-3)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_have_the_dtype_of_the_rows(estimator_class, dtype):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=2, **SMALL).fit(X.astype(dtype), y)
    predicted = model.predict_proba(X.astype(dtype)) if is_classifier(model) else model.predict(X.astype(dtype))
    assert predicted.dtype == dtype


def test_a_kind_of_network_counts_by_the_inverse_square_of_its_error():
    squares, of_rows = np.repeat([1.0, 3.0, 4.0], [20, 20, 40]), np.repeat([True, True, False], [20, 20, 40])
    # The largest twentieth of each kind does not count: means of 18 / 38 and 20 / 38 parts, and 4.
    mean = (20 * 1.0 + 18 * 3.0) / 38
    weights = weights_of_networks(squares, of_rows, [True, False, True, False])
    np.testing.assert_allclose(weights[1] / weights[0], (mean / 4) ** 2)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(weights[:2], weights[2:])
    squares[0] = squares[-1] = 1e9
    assert weights_of_networks(squares, of_rows, [True, False])[1] == pytest.approx(weights[1] * 2, rel=0.1)
    np.testing.assert_allclose(weights_of_networks(squares, of_rows, [True] * 3), 1 / 3)
    for nothing in (np.zeros(80), np.full(80, np.nan)):
        np.testing.assert_allclose(weights_of_networks(nothing, of_rows, [True, False]), 1 / 2)


@pytest.mark.parametrize("n_folds", [4, 8])
def test_an_outlying_target_does_not_decide_on_the_kind(n_folds):
    X, y = regression_data(160)
    y[3] = 1000
    model = SubquadMLPRegressor(n_folds=n_folds, **SMALL).fit(X, y)
    assert model._state_["weights"].min() > 0.1 / n_folds


def test_a_kind_that_fails_is_all_but_left_out():
    X = np.random.default_rng(0).uniform(-3, 3, (200, 1))
    model = SubquadMLPRegressor(hidden_layer_sizes=(256, 256), random_state=0).fit(X, np.sin(6 * X[:, 0]))
    new = np.linspace(-2.9, 2.9, 100)[:, None]
    errors = [
        np.sqrt(np.mean((each.predict(new) - np.sin(6 * new[:, 0])) ** 2)) for each in (model, *model.estimators_)
    ]
    assert errors[0] < 0.2
    assert max(errors) > 0.3


@pytest.mark.parametrize("scoring", ["loss", "neg_log_loss"])
def test_with_a_score_every_fold_has_every_class(scoring):
    X, _ = regression_data(150)
    y = (X[:, 0] > 0).astype(int)
    y[np.argsort(X[:, 1])[-3:]] = 2
    model = SubquadMLPClassifier(scoring=scoring, **SMALL).fit(X, y)
    assert len(model.estimators_) == (8 if scoring == "loss" else 3)


# ---- rows that were held out ------------------------------------------------------------------------------------


@LOSSES
def test_every_row_has_the_output_of_the_network_that_did_not_see_it(estimator_class, loss, k, monkeypatch):
    X, y = problem(estimator_class, loss, k)
    weights = np.random.default_rng(2).uniform(0.5, 2, len(X))
    parts, train = [], Trainer.train

    def recording(self, plan, fitting, held_out):
        parts.append((fitting, held_out[1]))
        return train(self, plan, fitting, held_out)

    monkeypatch.setattr(Trainer, "train", recording)
    model = estimator_class(loss=loss, n_folds=4, n_jobs=1, **SMALL).fit(X, y, sample_weight=weights)
    found = model.oof_decision_function_ if is_classifier(model) else model.oof_prediction_
    for (fitting, held_out), member in zip(parts, model.estimators_, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate([fitting, held_out])), np.arange(len(X)))
        predict = member.predict_proba if is_classifier(model) else member.predict
        np.testing.assert_allclose(found[held_out], predict(X[held_out]), rtol=1e-9)
    np.testing.assert_array_equal(np.sort(np.concatenate([held_out for _, held_out in parts])), np.arange(len(X)))
    if is_classifier(model):
        assert model.oof_score_ == pytest.approx(accuracy_score(y, found.argmax(axis=1), sample_weight=weights))
    else:
        assert model.oof_score_ == pytest.approx(r2_score(y, found, sample_weight=weights))


def test_copies_share_a_network_and_rows_without_weight_have_no_output():
    X, y = regression_data(40)
    X, y = np.concatenate([X, X, X[:5] + 1]), np.concatenate([y, y, y[:5]])
    model = SubquadMLPRegressor(n_folds=3, **SMALL).fit(X, y, sample_weight=np.repeat([1.0, 0.0], [80, 5]))
    found = model.oof_prediction_
    np.testing.assert_array_equal(found[:40], found[40:80])
    assert np.isfinite(found[:80]).all()
    assert np.isnan(found[80:]).all()


def test_a_single_network_has_no_such_outputs():
    X, y = regression_data()
    model = SubquadMLPRegressor(n_folds=2, **SMALL).fit(X, y)
    assert hasattr(model, "oof_score_")
    model.set_params(n_folds=1).fit(X, y)
    assert not hasattr(model, "oof_score_")
    assert not hasattr(model, "oof_prediction_")


# ---- how it is fitted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "options", "n_networks"),
    [
        (99, {}, 1),
        (100, {}, 8),
        (1000, {}, 8),
        (5000, {}, 8),
        (5001, {}, 4),
        (99, {"n_folds": 4}, 4),
        (200, {"early_stopping": False}, 1),
        (200, {"n_folds": np.int8(2)}, 2),
        (60, {"loss": "poisson"}, 8),
        (5, {"loss": "poisson"}, 5),
    ],
)
def test_auto_goes_by_the_rows(n, options, n_networks):
    X = np.random.default_rng(0).standard_normal((n, 2)).astype(np.float32)
    model = SubquadMLPRegressor(**{"hidden_layer_sizes": (2,), "max_iter": 1, "random_state": 0} | options)
    assert len(model.fit(X, np.exp(X[:, 0])).estimators_) == n_networks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": False}, "n_folds=3, but early_stopping=False has no folds"),
        ({"early_stopping": "loo"}, "n_folds=3, but early_stopping='loo' has no folds"),
        ({"n_folds": 81}, r"n_folds=81 is more than the 80 row\(s\) that differ"),
    ],
)
def test_folds_that_cannot_be_are_refused_by_name(options, message):
    X, y = regression_data()
    with pytest.raises(ValueError, match=message):
        SubquadMLPRegressor(**SMALL | {"n_folds": 3} | options).fit(X, y)


def test_a_validation_set_takes_the_place_of_folds():
    X, y = regression_data()
    with pytest.raises(ValueError, match="n_folds=3, but a validation set takes the place of folds"):
        SubquadMLPRegressor(**SMALL, n_folds=3).fit(X, y, X_val=X, y_val=y)
    assert len(SubquadMLPRegressor(**SMALL).fit(X, y, X_val=X, y_val=y).estimators_) == 1


@pytest.mark.parametrize(
    ("n_bins", "of_networks"),
    [
        ("auto", [(5, False), (None, False), (5, False), (12, True), (5, False)]),
        (5, [(5, False)] * 5),
        (None, [(None, False)] * 5),
    ],
)
def test_networks_with_ramps_without_and_with_loud_ones_take_turns(n_bins, of_networks):
    X, y = regression_data(120)
    model = SubquadMLPRegressor(n_folds=5, n_bins=n_bins, **SMALL).fit(X, y)
    for member, (n_ramps, loud) in zip(model.estimators_, of_networks, strict=True):
        state = member._state_
        if n_ramps is None:
            assert state["knots"] is None
            continue
        assert set(state["knot_counts"] - 1) == {n_ramps}
        # The scale of the first feature's ramps over that of the feature, in their deviations.
        ramps = np.clip((X[:, [0]] - state["knots"][:n_ramps]) / np.diff(state["knots"][: n_ramps + 1]), 0, 1)
        first = X.shape[1]
        heard = ramps.std(axis=0) / state["input_scale"][first : first + n_ramps]
        expected = X[:, 0].std() / state["input_scale"][0] / (1 if loud else np.sqrt(n_ramps))
        # Outer ones, on which most rows are alike, may be heard less.
        assert np.median(heard) == pytest.approx(expected, rel=0.1)


def test_a_smooth_function_is_learned_as_well_from_one_row_more_than_are_fitted_at_once():
    rng = np.random.default_rng(0)
    X, rows = rng.standard_normal((1001, 6)), rng.standard_normal((300, 6))
    weights = np.arange(1, 7)
    errors = [
        np.abs(SubquadMLPRegressor(random_state=0).fit(X[:n], X[:n] @ weights).predict(rows) - rows @ weights).mean()
        for n in (1000, 1001)
    ]
    # Fewer networks, which lack more rows each: with ramps in all of them it is twice that.
    assert errors[1] < 6 * errors[0]


@LOSSES
def test_networks_side_by_side_equal_those_that_take_turns(estimator_class, loss, k, monkeypatch):
    monkeypatch.setattr(plan_module, "_MIN_STEP_FOR_THREADS", 0)
    X, y = problem(estimator_class, loss, k)
    models = [estimator_class(loss=loss, n_folds=3, n_jobs=n_jobs, **SMALL).fit(X, y) for n_jobs in (1, 2, 3)]
    for other in models[1:]:
        assert other.predict(X).tobytes() == models[0].predict(X).tobytes()
        assert other.oof_score_ == models[0].oof_score_


@BOTH
def test_networks_in_processes_equal_those_in_threads(estimator_class, monkeypatch):
    """Where joblib is told so; rows beyond a megabyte are mapped, and nobody may write into them."""
    monkeypatch.setattr(plan_module, "_MIN_STEP_FOR_THREADS", 0)
    X, y = problem(estimator_class, "squared_error", 2)
    X = np.hstack([X, np.zeros((len(X), 150_000 // len(X)))])
    models = [estimator_class(n_folds=2, n_jobs=2, **SMALL) for _ in range(2)]
    models[0].fit(X, y)
    with joblib.parallel_config("loky"):
        models[1].fit(X, y)
        assert models[1].oof_score_ == models[0].oof_score_
        # It goes on from networks that came from elsewhere.
        for model in models:
            model.set_params(warm_start=True).fit(X, y)
    assert models[1].predict(X).tobytes() == models[0].predict(X).tobytes()


@BOTH
def test_a_weight_is_a_row_repeated(estimator_class):
    X, y = data_for(estimator_class)
    weights = np.random.default_rng(1).integers(1, 4, len(X))
    weighted = estimator_class(n_folds=3, **SMALL).fit(X, y, sample_weight=weights)
    repeated = estimator_class(n_folds=3, **SMALL).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    for one, other in zip(weighted.estimators_, repeated.estimators_, strict=True):
        np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=1e-6)


@BOTH
def test_verbose_names_the_networks(estimator_class, capsys):
    X, y = data_for(estimator_class)
    estimator_class(n_folds=3, verbose=1, **SMALL).fit(X, y)
    printed = capsys.readouterr().out
    assert "3 networks, each without one fold" in printed
    assert [f"Network {number} of 3:" in printed for number in (1, 2, 3)] == [True] * 3


# ---- attributes and files ---------------------------------------------------------------------------------------


@BOTH
def test_attributes_are_those_of_the_networks(estimator_class):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=3, **SMALL).fit(X, y)
    members = model.estimators_
    assert model.n_iter_ == max(member.n_iter_ for member in members)
    longest = next(member for member in members if member.n_iter_ == model.n_iter_)
    assert model.loss_curve_ == longest.loss_curve_
    assert model.stop_reason_ == longest.stop_reason_
    np.testing.assert_allclose(model.densities_, np.mean([member.densities_ for member in members], axis=0))
    for phase, seconds in model.phase_times_.items():
        assert seconds == pytest.approx(sum(member.phase_times_.get(phase, 0) for member in members))
    for name in ("coefs_", "intercepts_", "shifts_", "gains_"):
        assert not hasattr(model, name)
        assert all(hasattr(member, name) for member in members)
    with pytest.raises(AttributeError, match="has 3 networks: see coefs_ and intercepts_ of each of its estimators_"):
        model.coefs_  # noqa: B018


@BOTH
def test_files_hold_all_networks(estimator_class):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=3, **SMALL).fit(X, y)
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    assert len(loaded.estimators_) == 3


@BOTH
def test_a_fit_after_another_leaves_nothing_of_it(estimator_class):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=3, **SMALL).fit(X, y)
    one = clone(model).set_params(n_folds=1).fit(X, y)
    assert vars(model.set_params(n_folds=1).fit(X, y)).keys() == vars(one).keys()
    assert vars(model.set_params(n_folds=3).fit(X, y)).keys() == vars(clone(model).fit(X, y)).keys()


# ---- fits that go on --------------------------------------------------------------------------------------------


@BOTH
def test_parts_teach_every_network(estimator_class):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=3, **SMALL).fit(X, y)
    before = model.estimators_
    model.partial_fit(X[:40], y[:40])
    for one, other in zip(before, model.estimators_, strict=True):
        assert not np.array_equal(one.coefs_[-1], other.coefs_[-1])
        assert other.n_iter_ == other.best_iter_ == one.n_iter_ + 1
        assert other.loss_curve_[: len(one.loss_curve_)] == one.loss_curve_
    assert model.n_iter_ == max(member.n_iter_ for member in model.estimators_)
    assert np.isfinite(model.predict(X).astype(float)).all()


@BOTH
def test_a_network_of_several_goes_on_alone(estimator_class):
    X, y = data_for(estimator_class)
    one = estimator_class(n_folds=3, **SMALL).fit(X, y).estimators_[0]
    assert one.get_params()["n_folds"] == 1
    n_iter = one.n_iter_
    assert one.partial_fit(X, y).n_iter_ == n_iter + 1


@BOTH
def test_warm_starts_go_on_with_every_network(estimator_class):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=3, warm_start=True, **SMALL).fit(X, y)
    first = model.estimators_
    model.fit(X, y)
    # Where a fit goes on, its first loss is the last one of the fit before.
    for one, other in zip(first, model.estimators_, strict=True):
        assert other.loss_curve_[0] <= one.loss_curve_[0]
    with pytest.raises(ValueError, match="n_folds=2, but the model that the fit goes on from has 3 network"):
        model.set_params(n_folds=2).fit(X, y)
    model.set_params(n_folds="auto").fit(X, y)
    assert len(model.estimators_) == 3


@pytest.mark.parametrize("n_networks", [1, 2])
def test_a_callback_that_stops_a_network_leaves_out_those_that_follow(n_networks):
    X, y = classification_data()
    told = []

    class Stops:
        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, **rest):
            told.append(context.task_name)

        def on_fit_task_end(self, estimator, context, **rest):
            return context.task_name == "step" and told.count("fit without held-out rows") == n_networks

        def teardown(self, estimator, context):
            pass

    model = SubquadMLPClassifier(n_folds=4, **SMALL).set_callbacks(Stops()).fit(X, y)
    assert len(model.estimators_) == n_networks
    assert model.estimators_[-1].n_iter_ == 1
    assert not hasattr(model, "oof_score_")
    # They are calibrated by what they have held out.
    assert model._state_["calibration"] is not None


def test_where_a_fit_goes_on_no_row_is_unseen():
    X, y = regression_data()
    model = SubquadMLPRegressor(n_folds=3, warm_start=True, **SMALL).fit(X, y)
    weights = model._state_["weights"]
    assert hasattr(model, "oof_score_")
    model.set_params(random_state=7).fit(X, y)
    assert not hasattr(model, "oof_score_")
    assert not hasattr(model, "oof_prediction_")
    np.testing.assert_array_equal(model._state_["weights"], weights)


@pytest.mark.parametrize(("estimator_class", "n"), [(SubquadMLPRegressor, 2), (SubquadMLPClassifier, 2)])
def test_a_fit_that_goes_on_needs_a_row_for_every_fold(estimator_class, n):
    X, y = data_for(estimator_class)
    y = y > np.median(y)
    model = estimator_class(n_folds=3, warm_start=True, **SMALL).fit(X, y)
    before, rows = model.predict(X), [int(np.flatnonzero(y)[0]), int(np.flatnonzero(~y)[0])]
    with pytest.raises(ValueError, match=r"has 3 networks, more folds \(n_folds\) than the 2 rows"):
        model.fit(X[rows], y[rows])
    np.testing.assert_array_equal(model.predict(X), before)


def test_probabilities_stay_calibrated_where_a_validation_set_follows_or_a_callback_stops():
    X, y = classification_data(150)
    model = SubquadMLPClassifier(n_folds=3, warm_start=True, **SMALL).fit(X, y)
    model.fit(X, y, X_val=X[:40], y_val=y[:40])
    assert len(model.estimators_) == 3
    assert model._state_["calibration"] is not None
    assert (model.predict_proba(X) > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-25, 0, 25])
def test_deviations_are_in_range_in_every_unit(dtype, exponent):
    X, y = regression_data(dtype=dtype)
    unit = 10.0**exponent
    model = SubquadMLPRegressor(n_folds=3, precision=precision_of(dtype), **SMALL)
    _, std = model.fit(X, y * unit).predict(X, return_std=True)
    _, wanted = model.fit(X, y).predict(X, return_std=True)
    np.testing.assert_allclose(std / unit, wanted, rtol=0.05)


def test_with_a_score_folds_of_targets_have_two_rows():
    X, y = regression_data(8)
    model = SubquadMLPRegressor(scoring="r2", **SMALL).fit(X, y)
    assert len(model.estimators_) == 4
    assert np.isfinite([member.validation_scores_ for member in model.estimators_ if member.best_iter_]).all()


@BOTH
@pytest.mark.parametrize("warm_start", [False, True])
def test_what_fails_at_the_end_leaves_the_estimator_as_it_was(estimator_class, warm_start, monkeypatch):
    X, y = data_for(estimator_class)
    model = estimator_class(n_folds=3, warm_start=warm_start, **SMALL)
    if warm_start:
        model.fit(X, y)
    before = vars(model).copy()
    failing = "_weigh" if warm_start else "_set_out_of_fold"
    monkeypatch.setattr(estimator_class, failing, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, y)
    assert hasattr(model, "estimators_") == warm_start
    if warm_start:
        # The classes are those of before, in an array of their own.
        changed = [name for name, value in before.items() if vars(model).get(name) is not value]
        assert vars(model).keys() == before.keys()
        assert set(changed) <= {"classes_"}
    monkeypatch.undo()
    assert len(model.fit(X, y).estimators_) == 3
