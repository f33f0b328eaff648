"""scikit-learn's callbacks: what they are told of a fit, and how they end it."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.calibration import HeldOutRows, fitted_coefficients
from sklearn_subquad._fit.snapshots import Snapshots
from sklearn_subquad._solver.stopping import StopReason

callback = pytest.importorskip("sklearn.callback", reason="callbacks came with scikit-learn 1.9")

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
STOPPED = StopReason.CALLBACK.value


def data_for(estimator_class, n=160):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    y = 30 + 10 * (np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]) + rng.standard_normal(n)
    return (X, np.where(y > 30, "high", "low")) if estimator_class is SubquadMLPClassifier else (X, y)


def small(estimator_class, **parameters):
    defaults = {"hidden_layer_sizes": (64, 64), "max_iter": 5, "n_folds": 1, "random_state": 0, "n_jobs": 1, "tol": 0.0}
    return estimator_class(**defaults | {"init": "axis_aligned"} | parameters)


def outputs(model, X):
    return model.decision_function(X) if isinstance(model, SubquadMLPClassifier) else model.predict(X)


class Listener:
    """Remembers what it is told, and asks to stop where a condition holds."""

    def __init__(self, stops=lambda context, fitted: False):
        self._stops = stops
        self.events, self.models, self.rows = [], [], []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.events.append(("end", context.task_name))
        self.rows.append((X, y, metadata))
        self.models.append((context.task_name, fitted_estimator))
        return self._stops(context, fitted_estimator)

    def names(self, kind):
        return [name for event, name in self.events if event == kind]


class Silent:
    """Asks for nothing."""

    def __init__(self):
        self.n_steps = 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.n_steps += context.task_name == "step"


@BOTH
@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ({"early_stopping": False}, ["fit to all rows"]),
        ({"early_stopping": "validation", "validation_fraction": 0.7}, ["fit without held-out rows"]),
        ({"early_stopping": "validation", "n_folds": 2}, 2 * ["fit without held-out rows"]),
        ({"early_stopping": False, "batch_size": 40}, ["fit to all rows"]),
    ],
)
def test_every_fit_and_step_is_told(estimator_class, parameters, fits):
    X, y = data_for(estimator_class)
    listener = Listener()
    model = small(estimator_class, **parameters).set_callbacks(listener).fit(X, y)
    assert listener.events[:2] == [("setup", "fit"), ("begin", "fit")]
    assert listener.events[-2:] == [("end", "fit"), ("teardown", "fit")]
    assert [name for name in listener.names("begin") if name not in ("fit", "step")] == fits
    assert listener.names("end").count("step") == sum(one.n_iter_ for one in model.estimators_)
    assert sorted(listener.names("begin")) == sorted(listener.names("end"))


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 40])
def test_models_are_those_of_as_many_steps(estimator_class, batch_size):
    """As if the fit had stopped there: the same as a fit of so many steps, and it stays so while the fit goes on."""
    X, y = data_for(estimator_class)
    options = {"early_stopping": False, "batch_size": batch_size}
    listener = Listener()
    small(estimator_class, **options).set_callbacks(listener).fit(X, y)
    after_steps = [model for name, model in listener.models if name == "step"]
    assert len(after_steps) == 5
    for n_steps, model in enumerate(after_steps, start=1):
        expected = small(estimator_class, **options | {"max_iter": n_steps}).fit(X, y)
        np.testing.assert_allclose(outputs(model, X), outputs(expected, X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameters", [{}, {"batch_size": 40}, {"max_rank": 10**6}])
def test_probabilities_on_the_way_are_calibrated_as_at_the_end(parameters):
    """On the held-out rows, with what the network says of them after so many steps."""
    X, y = data_for(SubquadMLPClassifier, 240)
    rows = {"X_val": X[160:], "y_val": y[160:]}
    listener = Listener()
    parameters = {"max_iter": 30, "precision": "double"} | parameters
    model = small(SubquadMLPClassifier, **parameters).set_callbacks(listener).fit(X[:160], y[:160], **rows)
    steps = [fitted for name, fitted in listener.models if name == "step"]
    (at_the_end,) = [fitted for name, fitted in listener.models if name == "fit to all rows"]
    for fitted in (steps[model.best_iter_ - 1], at_the_end):
        np.testing.assert_allclose(fitted.predict_proba(X), model.predict_proba(X), rtol=1e-9)
    # Of every other step as well, better or worse.
    assert len(steps) > model.best_iter_
    for fitted in steps:
        outputs_of_step = (1 + fitted.decision_function(X[160:])[:, None].astype(float)) / 2
        held_out = HeldOutRows(outputs_of_step, y[160:, None] == fitted.classes_[1], np.ones(80), 160)
        expected = fitted_coefficients(held_out, independent=True)
        np.testing.assert_allclose(fitted._state_["calibration"], expected, rtol=1e-3, atol=1e-6)


@BOTH
@pytest.mark.parametrize("parameters", [{}, {"batch_size": 40}, {"max_rank": 10**6}])
def test_callbacks_change_nothing(estimator_class, parameters):
    X, y = data_for(estimator_class)
    plain = small(estimator_class, **parameters).fit(X, y)
    told = small(estimator_class, **parameters).set_callbacks(Listener(), Silent()).fit(X, y)
    assert np.array_equal(outputs(plain, X), outputs(told, X))
    assert plain.rank_curve_ == told.rank_curve_
    assert plain.stop_reason_ == told.stop_reason_


def test_models_are_made_only_where_a_callback_asks(monkeypatch):
    made, attributes = [], Snapshots.attributes
    monkeypatch.setattr(Snapshots, "attributes", lambda self, *args: made.append(args) or attributes(self, *args))
    X, y = data_for(SubquadMLPRegressor)
    silent = Silent()
    small(SubquadMLPRegressor).set_callbacks(silent).fit(X, y)
    assert silent.n_steps > 0
    assert made == []


def test_rows_are_those_that_are_fitted_as_they_were_given():
    X, y = data_for(SubquadMLPClassifier)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    listener = Listener()
    options = {"early_stopping": "validation", "validation_fraction": 0.4}
    small(SubquadMLPClassifier, **options).set_callbacks(listener).fit(frame, y, sample_weight=weights)
    counted = np.flatnonzero(weights)
    for (rows, labels, metadata), (name, _) in zip(listener.rows, listener.models, strict=True):
        assert list(rows.columns) == ["a", "b", "c", "d"]
        assert np.array_equal(labels, y[rows.index])
        assert np.array_equal(metadata["sample_weight"], weights[rows.index])
        expected = len(X) if name == "fit" else len(counted)
        assert len(rows) == expected or len(rows) == expected - int(np.ceil(0.4 * expected))


def stops_after(n_steps):
    return lambda context, fitted: context.task_name == "step" and context.task_id == n_steps - 1


@BOTH
@pytest.mark.parametrize("batch_size", ["auto", 40])
def test_a_callback_stops_a_fit(estimator_class, batch_size):
    X, y = data_for(estimator_class)
    options = {"early_stopping": False, "batch_size": batch_size}
    model = small(estimator_class, **options).set_callbacks(Listener(stops_after(2))).fit(X, y)
    assert model.n_iter_ == 2
    assert model.stop_reason_ == STOPPED
    assert np.array_equal(outputs(model, X), outputs(small(estimator_class, **options, max_iter=2).fit(X, y), X))


@BOTH
def test_a_callback_that_stops_a_fit_gets_its_best_network(estimator_class):
    X, y = data_for(estimator_class)
    listener = Listener(stops_after(3))
    options = {"early_stopping": "validation", "validation_fraction": 0.5}
    model = small(estimator_class, **options).set_callbacks(listener).fit(X, y)
    assert model.stop_reason_ == STOPPED
    assert model.n_iter_ == 3
    assert model.best_iter_ == np.argmax(model.validation_scores_)
    assert len(model.validation_scores_) == 4


def test_a_task_of_one_fit_may_stop_those_that_follow():
    X, y = data_for(SubquadMLPRegressor, 300)
    listener = Listener(lambda context, fitted: context.task_name == "fit without held-out rows")
    model = small(SubquadMLPRegressor, n_folds=3).set_callbacks(listener).fit(X, y)
    assert listener.names("begin").count("fit without held-out rows") == 1
    assert model.stop_reason_ == STOPPED
    assert model.predict(X, return_std=True)[1].min() > 0


def test_a_fit_that_finds_no_step_ends_its_tasks():
    X, y = data_for(SubquadMLPRegressor)
    listener = Listener()
    small(SubquadMLPRegressor, init_scale=1e150, early_stopping=False).set_callbacks(listener).fit(X, y)
    assert sorted(listener.names("begin")) == sorted(listener.names("end"))


@BOTH
def test_a_callback_that_fails_leaves_the_estimator_as_a_failed_fit_does(estimator_class):
    X, y = data_for(estimator_class)

    def fails(context, fitted):
        raise RuntimeError("out of disk")

    listener = Listener(fails)
    model = small(estimator_class).set_callbacks(listener)
    with pytest.raises(RuntimeError, match="out of disk"):
        model.fit(X, y)
    assert not model.__sklearn_is_fitted__()
    assert listener.events[-1] == ("teardown", "fit")
    fitted = small(estimator_class, warm_start=True).fit(X, y)
    before = outputs(fitted, X)
    with pytest.raises(RuntimeError, match="out of disk"):
        fitted.set_callbacks(Listener(fails)).fit(X, y)
    assert np.array_equal(outputs(fitted, X), before)
    with pytest.raises(RuntimeError, match="out of disk"):
        fitted.partial_fit(X, y)
    assert np.array_equal(outputs(fitted, X), before)


def test_partial_fit_tells_as_well():
    X, y = data_for(SubquadMLPRegressor)
    listener = Listener()
    model = small(SubquadMLPRegressor).set_callbacks(listener)
    model.partial_fit(X[:80], y[:80]).partial_fit(X[80:], y[80:])
    assert listener.names("end").count("step") == 2
    last = [fitted for name, fitted in listener.models if name == "step"][-1]
    np.testing.assert_allclose(last.predict(X), model.predict(X), rtol=1e-9)


@BOTH
def test_scoring_monitor(estimator_class):
    """scikit-learn's own: its score of the best step is the model's."""
    X, y = data_for(estimator_class)
    scoring = "r2" if estimator_class is SubquadMLPRegressor else "neg_log_loss"
    monitor = callback.ScoringMonitor(scoring=scoring)
    rows = {"X_val": X[100:], "y_val": y[100:]}
    model = small(estimator_class, precision="double").set_callbacks(monitor).fit(X[:100], y[:100], **rows)
    data = monitor.get_logs().data
    whole = next(row for row in data if row["task_name"] == "fit")
    best = [row for row in data if row["task_name"] == "step"][model.best_iter_ - 1]
    assert best[scoring] == pytest.approx(whole[scoring], rel=1e-9)


def test_scoring_monitor_of_a_frame_warns_of_nothing(recwarn):
    X, y = data_for(SubquadMLPRegressor)
    monitor = callback.ScoringMonitor(scoring="r2")
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    small(SubquadMLPRegressor, max_iter=2).set_callbacks(monitor).fit(frame, y)
    assert [warning for warning in recwarn if "feature names" in str(warning.message)] == []


def test_progress_bar():
    pytest.importorskip("rich", reason="scikit-learn's progress bar needs rich")
    X, y = data_for(SubquadMLPRegressor)
    model = small(SubquadMLPRegressor).set_callbacks(callback.ProgressBar())
    assert model.fit(X, y).n_iter_ > 0


def test_in_a_pipeline_and_a_search():
    """Callbacks of meta-estimators reach the steps of the fits below them."""
    X, y = data_for(SubquadMLPRegressor)

    class Propagated(Listener):
        max_propagation_depth = None

    listener = Propagated()
    make_pipeline(StandardScaler(), small(SubquadMLPRegressor)).set_callbacks(listener).fit(X, y)
    assert listener.names("end").count("step") > 0
    listener = Propagated()
    search = GridSearchCV(small(SubquadMLPRegressor, max_iter=2), {"density": [0.1, 0.3]}, cv=2)
    search.set_callbacks(listener).fit(X, y)
    # By leave-one-out errors of the halves, and then of all rows without those that are held out.
    assert listener.names("begin").count("fit to all rows") == 4
    assert listener.names("begin").count("fit without held-out rows") == 1


def test_clones_keep_callbacks_and_files_can_do_without():
    X, y = data_for(SubquadMLPRegressor)
    model = small(SubquadMLPRegressor).set_callbacks(Silent()).fit(X, y)
    assert clone(model)._skl_callbacks == model._skl_callbacks
    stored = pickle.loads(pickle.dumps(model.set_callbacks()))
    assert not hasattr(stored, "_skl_callbacks")
    assert np.array_equal(stored.predict(X), model.predict(X))


def test_only_callbacks_are_taken():
    with pytest.raises(TypeError, match="FitCallback protocol"):
        SubquadMLPRegressor().set_callbacks(print)


@BOTH
def test_fits_of_parts_call_none(estimator_class):
    model = small(estimator_class).set_callbacks(Listener())
    with pytest.raises(ValueError, match="fit_parts calls no callbacks"):
        model.fit_parts([data_for(estimator_class)])
