"""Fits in batches of rows: what changes against a fit of all rows at once, and what does not."""

import math
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
from cases import EVERY_LOSS, ONE_LOSS_EACH, first_split
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_poisson_deviance
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_fits import precision_of

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _base
from sklearn_subquad._solver.gauss_newton import GaussNewton
from sklearn_subquad._solver.levenberg_marquardt import LevenbergMarquardt

pytestmark = pytest.mark.usefixtures("one_blas_thread")

N, N_TEST = 600, 400


def batched(estimator_class, **parameters):
    defaults = {"hidden_layer_sizes": (64, 64), "batch_size": 100, "max_iter": 3, "n_folds": 1, "random_state": 0}
    return estimator_class(**defaults | parameters)


def data(estimator_class, n=N + N_TEST, k=None, dtype=np.float64):
    """Rows, and k columns of targets >= 0, or labels of k classes (3 for None)."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 5)).astype(dtype)
    classifying = estimator_class is SubquadMLPClassifier
    signs = np.where(np.arange(1 if classifying else k or 1) % 2, -1, 1)
    Y = np.sin(2 * X[:, [0]]) + signs * X[:, [1]] * X[:, [2]] + 0.3 * rng.standard_normal((n, len(signs)))
    if classifying:
        return X, np.argsort(np.argsort(Y[:, 0])) * (k or 3) // n
    Y = rng.poisson(np.exp(1 + np.clip(Y, -3, 3)))
    return X, Y if k else Y[:, 0]


def training(estimator_class, **kwargs):
    return data(estimator_class, n=N, **kwargs)


def outputs(estimator, X):
    return estimator.decision_function(X) if is_classifier(estimator) else estimator.predict(X)


def error(estimator, X, y, loss=None):
    """What is minimised, by scikit-learn's metrics."""
    loss = loss or estimator.loss
    if loss == "log_loss":
        return log_loss(y, estimator.predict_proba(X))
    return mean_poisson_deviance(y, estimator.predict(X)) if loss == "poisson" else -estimator.score(X, y)


# ---- sizes of batches -----------------------------------------------------------------------------------------


@EVERY_LOSS
@pytest.mark.parametrize(("batch_size", "early_stopping"), [(100, False), (250, "validation")])
def test_passes_are_counted(estimator_class, loss, batch_size, early_stopping):
    X, y = training(estimator_class)
    parameters = {"batch_size": batch_size, "loss": loss, "early_stopping": early_stopping, "max_iter": 6}
    estimator = batched(estimator_class, **parameters).fit(X, y)
    assert 1 <= estimator.best_iter_ <= estimator.n_iter_ <= 6
    # One step a batch; the loss of a pass is that before its steps.
    assert len(estimator.n_cg_iter_) == estimator.n_iter_ * math.ceil(N / batch_size)
    assert len(estimator.loss_curve_) == estimator.n_iter_
    assert estimator.loss_curve_[-1] < estimator.loss_curve_[0]
    assert estimator.density_curve_.shape == (estimator.n_iter_, 2)
    assert np.all((estimator.density_curve_ > 0.1) & (estimator.density_curve_ < 0.6))
    assert len(estimator.rank_curve_) == estimator.n_iter_
    assert not hasattr(estimator, "loo_curve_")
    if early_stopping is False:
        assert estimator.best_iter_ == estimator.n_iter_
        assert not hasattr(estimator, "validation_scores_")
    else:
        assert estimator.best_iter_ == np.argmax(estimator.validation_scores_)
    assert estimator.damping_ > 0
    assert {"init", "forward", "jacobian", "solve", "update", "flush"} <= set(estimator.phase_times_)


@ONE_LOSS_EACH
@pytest.mark.parametrize(("batch_size", "early_stopping"), [(150, False), (10_000, "auto"), (150, "validation")])
def test_a_batch_of_all_rows_is_the_usual_fit(estimator_class, loss, batch_size, early_stopping):
    X, y = data(estimator_class, n=150)
    usual = batched(estimator_class, batch_size="auto", loss=loss, early_stopping=early_stopping).fit(X, y)
    whole = clone(usual).set_params(batch_size=batch_size).fit(X, y)
    assert outputs(whole, X).tobytes() == outputs(usual, X).tobytes()
    assert whole.loss_curve_ == usual.loss_curve_
    assert len(whole.loss_curve_) == whole.n_iter_ + 1


@EVERY_LOSS
def test_batches_predict_about_as_well_as_all_rows_at_once(estimator_class, loss):
    X, y = data(estimator_class)
    train, test = slice(N), slice(N, None)

    def test_error(estimator):
        return error(estimator.fit(X[train], y[train]), X[test], y[test], loss)

    # Four steps are about the best number for all rows at once.
    at_once = test_error(batched(estimator_class, batch_size=N, loss=loss, early_stopping=False, max_iter=4))
    of_the_constant = test_error(DummyClassifier() if estimator_class is SubquadMLPClassifier else DummyRegressor())
    for batch_size, early_stopping in [(100, False), (250, "auto"), (N - 1, "auto")]:
        estimator = batched(
            estimator_class, batch_size=batch_size, loss=loss, early_stopping=early_stopping, max_iter=4
        )
        lost = (test_error(estimator) - at_once) / (of_the_constant - at_once)
        assert lost < 0.35, f"batch_size={batch_size}, early_stopping={early_stopping}"


@ONE_LOSS_EACH
@pytest.mark.parametrize("batch_size", [541, 550, N - 1])
def test_rows_held_out_do_not_turn_batches_into_a_fit_of_all_rows(estimator_class, loss, batch_size, monkeypatch):
    X, y = training(estimator_class)
    rows_and_steps, solve = [], GaussNewton.solve

    def spy(solver):
        result = solve(solver)
        rows_and_steps.append((len(solver._data), len(result.n_cg_iter) / len(result.loss_curve)))
        return result

    monkeypatch.setattr(GaussNewton, "solve", spy)
    parameters = {"loss": loss, "early_stopping": "validation"}
    batched(estimator_class, batch_size=batch_size, **parameters).fit(X, y)
    # The 540 rows that are left are one batch.
    assert rows_and_steps == [(540, 1)]


@EVERY_LOSS
def test_held_out_rows_stay_out(estimator_class, loss):
    X, y = training(estimator_class)
    parameters = {"loss": loss, "batch_size": 550}
    estimator = batched(estimator_class, **parameters).fit(X, y)
    # The 540 rows that are left are one batch, and nothing is fitted again.
    assert len(estimator.n_cg_iter_) == len(estimator.loss_curve_) == estimator.n_iter_
    assert len(estimator.validation_scores_) == estimator.n_iter_ + 1
    # Fewer held-out rows leave two batches.
    two = clone(estimator).set_params(validation_fraction=0.05).fit(X, y)
    assert len(two.n_cg_iter_) == 2 * two.n_iter_


@pytest.mark.parametrize(
    ("loss", "n_outputs", "at_once", "n_batches", "batch"),
    [
        ("squared_error", 1, 1000, 4, 256),
        ("squared_error", 2, 1000, 4, 256),
        ("poisson", 1, 4096, 3, 2048),
        ("poisson", 2, 1024, 2, 1024),
    ],
)
def test_auto_cuts_many_rows_by_loss_and_number_of_outputs(loss, n_outputs, at_once, n_batches, batch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((at_once + 1, 2))
    y = np.squeeze(np.abs(X[:, :1] + 0.1 * rng.standard_normal((at_once + 1, n_outputs))))
    # Without preconditioner and with a damping nothing of n x n is formed.
    parameters = {"hidden_layer_sizes": (8,), "max_iter": 1, "early_stopping": False, "random_state": 0, "loss": loss}
    model = SubquadMLPRegressor(preconditioner="none", damping=1.0, **parameters)
    assert len(clone(model).fit(X[:-1], y[:-1]).n_cg_iter_) == 1
    cut = clone(model).fit(X, y)
    assert len(cut.n_cg_iter_) == n_batches
    as_told = clone(model).set_params(batch_size=batch).fit(X, y)
    assert cut.predict(X).tobytes() == as_told.predict(X).tobytes()


@pytest.mark.parametrize(("n", "batch"), [(257, 128), (1024, 128), (1025, 129), (8192, 1024), (9000, 1024)])
def test_auto_cuts_labelled_rows_into_eighths(n, batch):
    X, y = data(SubquadMLPClassifier, n=n)
    parameters = {"hidden_layer_sizes": (8,), "max_iter": 1, "early_stopping": False, "random_state": 0}
    model = SubquadMLPClassifier(damping=1.0, **parameters)
    cut, as_told = clone(model).fit(X, y), clone(model).set_params(batch_size=batch).fit(X, y)
    assert len(cut.n_cg_iter_) == len(as_told.n_cg_iter_) == math.ceil(n / batch)
    assert outputs(cut, X).tobytes() == outputs(as_told, X).tobytes()


@pytest.mark.parametrize(("n", "early_stopping"), [(256, False), (256, "validation"), (300, "loo")])
def test_auto_leaves_few_labelled_rows_together(n, early_stopping):
    X, y = data(SubquadMLPClassifier, n=n)
    model = batched(SubquadMLPClassifier, batch_size="auto", early_stopping=early_stopping).fit(X, y)
    # The loss before the first step counts, which in batches it does not.
    assert len(model.loss_curve_) == model.n_iter_ + 1


@EVERY_LOSS
def test_validation_returns_the_best_average(estimator_class, loss):
    X, y = training(estimator_class)
    estimator = batched(estimator_class, loss=loss, damping=0.02, max_iter=20).fit(X, y)
    assert 1 <= estimator.best_iter_ == np.argmax(estimator.validation_scores_) < estimator.n_iter_
    shorter = clone(estimator).set_params(max_iter=estimator.best_iter_).fit(X, y)
    assert outputs(estimator, X).tobytes() == outputs(shorter, X).tobytes()


@pytest.mark.parametrize(
    ("estimator_class", "loss"), [(SubquadMLPRegressor, "poisson"), (SubquadMLPClassifier, "log_loss")]
)
def test_validation_scores_are_those_of_the_average_on_held_out_rows(estimator_class, loss):
    X, y = training(estimator_class)
    estimator = batched(estimator_class, loss=loss).fit(X, y)
    _, held_out = first_split(estimator, y, estimator.validation_fraction)
    expected = error(estimator, X[held_out], y[held_out])
    if loss == "log_loss":
        # One more row has another label; of 60 rows it is as large a share as of 100.
        p, labels = estimator.predict_proba(X[held_out]), y[held_out]
        p[np.arange(60), labels] = 0
        expected = (expected - np.log(p.max(axis=1)).mean() / 100) / 1.01
    assert max(estimator.validation_scores_) == pytest.approx(1 - expected)


def test_every_pass_meets_every_row_once_in_other_batches(monkeypatch):
    batches, linearise = [], LevenbergMarquardt.linearise

    def spy(self, batch, *args):
        batches.append(batch.x[:, 0])
        return linearise(self, batch, *args)

    monkeypatch.setattr(LevenbergMarquardt, "linearise", spy)
    X, y = training(SubquadMLPRegressor)
    estimator = batched(SubquadMLPRegressor, batch_size=250, max_iter=2, early_stopping=False, n_bins=None).fit(X, y)
    assert [len(batch) for batch in batches] == [200] * 6
    passes = [batches[:3], batches[3:]]
    everything = np.sort((X[:, 0] - estimator._state_["input_mean"][0]) / estimator._state_["input_scale"][0] / 5**0.5)
    for a_pass in passes:
        np.testing.assert_allclose(np.sort(np.concatenate(a_pass)), everything)
    for batch in batches[3:]:
        # A third of it was in each batch of the other pass, give or take.
        assert all(30 < len(np.intersect1d(batch, other)) < 110 for other in batches[:3])


@pytest.mark.parametrize(
    ("loss", "batch_size", "cg_tol"),
    [("squared_error", 100, 0.3), ("poisson", 100, 0.1), ("squared_error", N, 0.1), ("poisson", N, 0.01)],
)
def test_auto_solves_less_exactly_in_batches(loss, batch_size, cg_tol):
    X, Y = training(SubquadMLPRegressor, k=4)
    parameters = {"batch_size": batch_size, "loss": loss, "early_stopping": False, "max_iter": 2}
    estimator = batched(SubquadMLPRegressor, **parameters).fit(X, Y)
    as_told = clone(estimator).set_params(cg_tol=cg_tol).fit(X, Y)
    assert as_told.predict(X).tobytes() == estimator.predict(X).tobytes()
    assert clone(estimator).set_params(cg_tol=cg_tol / 10).fit(X, Y).n_cg_iter_ != estimator.n_cg_iter_


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"early_stopping": False, "tol": 0.0}, "max_iter"),
        ({"early_stopping": False, "tol": 0.99, "max_iter": 9}, "training loss has fallen by less than tol"),
        ({"early_stopping": "validation", "tol": 0.9}, "early-stopping error has not improved"),
    ],
    ids=["max_iter", "loss", "error"],
)
def test_stop_reason(parameters, reason):
    X, y = training(SubquadMLPRegressor)
    assert reason in batched(SubquadMLPRegressor, **parameters).fit(X, y).stop_reason_


@pytest.mark.parametrize(("batch_size", "n_passes"), [(100, 3), (300, 3)])
def test_patience_is_counted_in_steps_and_ends_with_a_pass(batch_size, n_passes):
    # Four steps without change are one pass of six batches, but two passes are waited for; and two passes of two.
    X, y = training(SubquadMLPRegressor)
    parameters = {"batch_size": batch_size, "early_stopping": False, "tol": 0.999, "n_iter_no_change": 4}
    assert batched(SubquadMLPRegressor, max_iter=10, **parameters).fit(X, y).n_iter_ == n_passes


@pytest.mark.parametrize(
    ("estimator_class", "loss", "early_stopping"),
    [(SubquadMLPRegressor, "squared_error", "validation"), (SubquadMLPClassifier, "log_loss", False)],
)
def test_verbose_prints_a_line_a_pass(estimator_class, loss, early_stopping, capsys):
    X, y = training(estimator_class)
    parameters = {"max_cg_iter": 200}
    estimator = batched(estimator_class, loss=loss, early_stopping=early_stopping, **parameters).fit(X, y)
    assert capsys.readouterr().out == ""
    estimator.set_params(verbose=1).fit(X, y)
    printed = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(printed) if line.split()[0] == "pass")
    # Before, the plan.
    assert printed[0].startswith("rows:")
    told = printed[first - 1] == "Network 1 of 1: 540 rows to fit, 60 held out."
    assert told == (early_stopping == "validation")
    printed = printed[first:]
    title, *passes, end = printed
    assert title.split()[0] == "pass"
    assert [line.split()[0] for line in passes] == [str(1 + i) for i in range(estimator.n_iter_)]
    # The titles stand over the right ends of their columns, but for "stop error", which are two words.
    assert {len(line) for line in passes} == {len(title)}
    assert [float(line.split()[1]) for line in passes] == pytest.approx(estimator.loss_curve_, rel=1e-3)
    if early_stopping == "validation":
        errors = [1 - score for score in estimator.validation_scores_[1:]]
        assert [float(line.split()[2]) for line in passes] == pytest.approx(errors, rel=1e-3)
    assert [int(line.split()[6]) for line in passes] == [round(rank) for rank in estimator.rank_curve_]
    densities = [float(line.split()[7]) for line in passes]
    assert densities == pytest.approx(estimator.density_curve_.mean(axis=1), abs=5e-4)
    seconds = [float(line.split()[8]) for line in passes]
    assert 0 <= seconds[0] <= seconds[-1] < 60
    assert seconds == sorted(seconds)
    assert f"{estimator.best_iter_} of {estimator.n_iter_} passes" in end
    assert estimator.stop_reason_ in end


def test_targets_that_need_no_pass_have_curves_of_none():
    X, _ = training(SubquadMLPRegressor)
    estimator = batched(SubquadMLPRegressor, early_stopping=False).fit(X, np.ones(len(X)))
    assert estimator.n_iter_ == 0
    assert estimator.density_curve_.shape == (0, 2)
    assert estimator.rank_curve_ == []


# ---- repeatability, storing, scikit-learn's tools -------------------------------------------------------------


@ONE_LOSS_EACH
def test_random_state_fixes_the_fit_to_the_bit(estimator_class, loss):
    X, y = training(estimator_class)
    first = batched(estimator_class, loss=loss, max_iter=2).fit(X, y)
    expected = outputs(first, X)
    assert outputs(clone(first).fit(X, y), X).tobytes() == expected.tobytes()
    assert outputs(pickle.loads(pickle.dumps(first)), X).tobytes() == expected.tobytes()
    other = clone(first).set_params(random_state=1).fit(X, y)
    assert not np.allclose(outputs(other, X), expected, rtol=1e-3)


@ONE_LOSS_EACH
@pytest.mark.parametrize(("n_jobs", "dtype"), [(2, np.float32), (4, np.float64)])
def test_n_jobs_does_not_change_a_bit(estimator_class, loss, dtype, n_jobs):
    X, y = training(estimator_class, dtype=dtype)
    parameters = {"hidden_layer_sizes": (130, 130), "precision": precision_of(dtype), "max_iter": 1}
    serial = batched(estimator_class, loss=loss, **parameters, n_jobs=1).fit(X, y)
    threaded = clone(serial).set_params(n_jobs=n_jobs).fit(X, y)
    assert outputs(serial, X).dtype == dtype
    assert outputs(threaded, X).tobytes() == outputs(serial, X).tobytes()
    assert threaded.loss_curve_ == serial.loss_curve_


@pytest.mark.parametrize(("batch_size", "n_threads"), [(150, 4), (100, 1)])
def test_short_steps_use_one_thread(batch_size, n_threads, monkeypatch):
    X, y = training(SubquadMLPRegressor)
    asked, worker_threads = [], _base.worker_threads
    monkeypatch.setattr(_base, "worker_threads", lambda n_jobs: asked.append(n_jobs) or worker_threads(n_jobs))
    # 100,000 rows times neurons are a step to share.
    parameters = {"hidden_layer_sizes": (667,), "early_stopping": False, "max_iter": 1, "n_jobs": 4}
    batched(SubquadMLPRegressor, batch_size=batch_size, **parameters).fit(X, y)
    # The plan is made on one.
    assert asked == [1, n_threads]


@EVERY_LOSS
def test_single_and_double_precision_agree(estimator_class, loss):
    X, y = training(estimator_class, dtype=np.float32)
    parameters = {"loss": loss, "damping": 1.0, "cg_tol": 1e-5, "max_cg_iter": 200, "early_stopping": False}
    in_single = outputs(batched(estimator_class, max_iter=2, **parameters).fit(X, y), X)
    parameters["precision"] = "double"
    in_double = outputs(batched(estimator_class, max_iter=2, **parameters).fit(X.astype(np.float64), y), X)
    np.testing.assert_allclose(in_single, in_double, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("estimator_class", "other_loss"), [(SubquadMLPRegressor, "poisson"), (SubquadMLPClassifier, "log_loss")]
)
def test_grid_search_over_batch_size_and_loss_in_a_pipeline(estimator_class, other_loss):
    # So few rows that "auto" does not cut them.
    X, y = data(estimator_class, n=400)
    pipeline = make_pipeline(StandardScaler(), batched(estimator_class, hidden_layer_sizes=(32,), max_iter=2))
    name = pipeline.steps[-1][0]
    grid = {f"{name}__batch_size": ["auto", 50, 10_000], f"{name}__loss": ["squared_error", other_loss]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert np.all(search.cv_results_["mean_test_score"] > 0.1)
    scores = search.cv_results_["mean_test_score"].reshape(3, 2)
    np.testing.assert_array_equal(scores[0], scores[2])
    # Two accuracies of 400 rows may be equal by chance.
    assert np.any(scores[0] != scores[1])
    assert search.best_estimator_.predict(X).shape == y.shape


@ONE_LOSS_EACH
def test_a_second_fit_equals_a_first_one(estimator_class, loss):
    X, y = training(estimator_class)
    refitted = batched(estimator_class, early_stopping="loo", batch_size=N, max_iter=1).fit(X[:50, :2], y[:50])
    refitted.set_params(loss=loss, early_stopping="auto", batch_size=100, max_iter=3).fit(X, y)
    fresh = batched(estimator_class, loss=loss).fit(X, y)
    assert set(vars(refitted)) == set(vars(fresh))
    assert outputs(refitted, X).tobytes() == outputs(fresh, X).tobytes()


# ---- parameters of the network and the solver in batches ------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator_class", "loss"), [(SubquadMLPRegressor, "squared_error"), (SubquadMLPClassifier, "log_loss")]
)
@pytest.mark.parametrize(
    "parameters",
    [
        {"sparsifier": "topk", "density": 0.2},
        {"skip_connections": False},
        {"hidden_layer_sizes": (64,)},
        {"hidden_layer_sizes": (64, 32, 48)},
        {"preconditioner": "sketch"},
        {"preconditioner": "none"},
        {"max_rank": 0},
        {"init_scale": 1.0},
        {"batch_size": 10, "max_iter": 5},
        {"sparsifier": "topk", "hidden_layer_sizes": (64,)},
    ],
    ids=str,
)
def test_learns_with_other_parameters(estimator_class, loss, parameters):
    X, y = training(estimator_class)
    estimator = batched(estimator_class, loss=loss, early_stopping=False, damping=1.0, **parameters).fit(X, y)
    assert estimator.score(X, y) > 0.5
    assert estimator.loss_curve_[-1] < 0.95 * estimator.loss_curve_[0]


@EVERY_LOSS
def test_the_result_does_not_depend_on_when_weights_are_flushed(estimator_class, loss):
    X, y = training(estimator_class)
    parameters = {"loss": loss, "cg_tol": 1e-8, "max_cg_iter": 500, "max_iter": 2, "damping": 1.0}
    usual, at_once = (batched(estimator_class, max_rank=rank, **parameters).fit(X, y) for rank in ("auto", 0))
    np.testing.assert_allclose(outputs(at_once, X), outputs(usual, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_forty_targets(loss):
    X, Y = training(SubquadMLPRegressor, k=40)
    estimator = batched(SubquadMLPRegressor, loss=loss, max_iter=4).fit(X, Y)
    assert estimator.predict(X).shape == (N, 40)
    assert estimator.score(X, Y) > 0.3


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_thirty_classes(loss):
    rng = np.random.default_rng(0)
    y = np.arange(N) % 30
    X = 3 * rng.standard_normal((30, 8))[y] + 0.3 * rng.standard_normal((N, 8))
    estimator = batched(SubquadMLPClassifier, loss=loss, max_iter=6).fit(X, y)
    assert estimator.predict_proba(X).shape == (N, 30)
    assert estimator.score(X, y) > 0.95


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
@pytest.mark.parametrize("early_stopping", [False, "validation"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n_rare", [1, 2])
def test_a_class_that_most_batches_lack(loss, early_stopping, n_classes, n_rare):
    X, y = data(SubquadMLPClassifier, n=N, k=n_classes - 1)
    y[:n_rare], X[:n_rare] = n_classes - 1, X[:n_rare] + 3
    estimator = batched(SubquadMLPClassifier, loss=loss, early_stopping=early_stopping).fit(X, y)
    np.testing.assert_array_equal(estimator.classes_, np.arange(n_classes))
    probabilities = estimator.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert estimator.score(X[n_rare:], y[n_rare:]) > 0.6
    if early_stopping is False:
        assert probabilities[:n_rare, -1].min() > 2 * probabilities[n_rare:, -1].mean()


# ---- sample weights -------------------------------------------------------------------------------------------


@ONE_LOSS_EACH
@pytest.mark.parametrize("early_stopping", [False, "validation"])
def test_zero_weights_remove_rows(estimator_class, loss, early_stopping):
    X, y = training(estimator_class)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 2.0], size=N)
    kept = weights > 0
    X[~kept] *= 1000
    parameters = {"loss": loss, "early_stopping": early_stopping, "max_iter": 2}
    weighted = batched(estimator_class, **parameters).fit(X, y, sample_weight=weights)
    removed = batched(estimator_class, **parameters).fit(X[kept], y[kept], sample_weight=weights[kept])
    assert outputs(weighted, X[kept]).tobytes() == outputs(removed, X[kept]).tobytes()


@EVERY_LOSS
def test_heavier_rows_are_fitted_better(estimator_class, loss):
    X, y = training(estimator_class)
    heavy = np.arange(N) < 100
    parameters = {"loss": loss, "early_stopping": False, "damping": 1.0}
    plain = batched(estimator_class, **parameters).fit(X, y)
    weighted = batched(estimator_class, **parameters).fit(X, y, sample_weight=np.where(heavy, 100.0, 1.0))
    better = [error(fit, X[~heavy], y[~heavy]) - error(fit, X[heavy], y[heavy]) for fit in (weighted, plain)]
    assert better[0] > better[1] + 0.1


# ---- data at the edge -----------------------------------------------------------------------------------------


EDGES = {
    "huge targets": ({"standardize": False, "damping": 1e-12}, lambda X, y: (1000 * X, y * 1e20)),
    "large steps": ({"damping": 1e-12}, lambda X, y: (X, y)),
    "features beyond the type": ({"standardize": False}, lambda X, y: (X * X.dtype.type(1e30), y)),
    "equal rows": ({"damping": 1e-12}, lambda X, y: (np.repeat(X[:10], N // 10, axis=0), y)),
    "equal rows and targets": ({"damping": 1e-12}, lambda X, y: (X[np.arange(N) % 10], y[np.arange(N) % 10])),
    "constant features": ({}, lambda X, y: (np.ones_like(X), y)),
}


@EVERY_LOSS
@pytest.mark.parametrize(
    ("early_stopping", "dtype", "precision"),
    [(False, np.float32, "single"), ("auto", np.float64, "double"), (False, np.float64, "single")],
)
@pytest.mark.parametrize("edge", EDGES)
def test_unusual_data_give_a_finite_model(estimator_class, loss, early_stopping, dtype, precision, edge):
    parameters, change = EDGES[edge]
    parameters = parameters | {"precision": precision}
    X, y = training(estimator_class, dtype=dtype)
    X, changed = change(X, y)
    y = changed if estimator_class is SubquadMLPRegressor or edge == "equal rows and targets" else y
    estimator = batched(estimator_class, loss=loss, early_stopping=early_stopping, **parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X, y)
    expected = {ConvergenceWarning, RuntimeWarning} if edge == "features beyond the type" else {ConvergenceWarning}
    assert {warning.category for warning in caught} <= expected
    predictions = outputs(estimator, X)
    assert np.isfinite(predictions).all()
    assert np.isfinite(estimator.loss_curve_).all()
    # Who gets a constant is told so; by such a damping, some steps are no more exact than rounding lets them be.
    told = any("the model predicts the mean" in str(warning.message) for warning in caught)
    assert told == (estimator.best_iter_ == 0)
    assert edge == "constant features" or told == np.all(predictions == predictions[0])


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("value", [3.0, 1e-9, 1e9])
@pytest.mark.parametrize("early_stopping", [False, "auto"])
def test_a_constant_target_is_learnt(loss, value, early_stopping):
    X, _ = training(SubquadMLPRegressor)
    y = np.full(N, value)
    estimator = batched(SubquadMLPRegressor, loss=loss, early_stopping=early_stopping, max_iter=8).fit(X, y)
    if loss == "poisson":
        np.testing.assert_allclose(estimator.predict(X), y, rtol=0.2)
    else:
        np.testing.assert_allclose(estimator.predict(X), y, rtol=1e-12, atol=0.2)


@EVERY_LOSS
@pytest.mark.parametrize("early_stopping", [False, "auto"])
@pytest.mark.parametrize(("n", "batch_size"), [(2, 1), (3, 1), (3, 2), (7, 2)])
def test_batches_of_one_or_two_rows(estimator_class, loss, early_stopping, n, batch_size):
    X, _ = training(estimator_class)
    y = np.arange(n) % 2
    estimator = batched(estimator_class, loss=loss, batch_size=batch_size, early_stopping=early_stopping, max_iter=10)
    estimator.fit(X[:n], y)
    assert np.isfinite(outputs(estimator, X)).all()
    assert len(estimator.loss_curve_) <= estimator.n_iter_ + 1
    if early_stopping is False and n <= 3:
        # Damping given: three noisy rows may ask for so much of it that ten passes do not go far.
        assert estimator.set_params(damping=1.0).fit(X[:n], y).score(X[:n], y) > 0.9


# ---- memory and interruption ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator_class", "loss"), [(SubquadMLPRegressor, "squared_error"), (SubquadMLPClassifier, "log_loss")]
)
def test_nothing_grows_with_the_square_of_the_rows(estimator_class, loss):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 5), dtype=np.float32)
    y = (X[:, 0] > 0).astype(int)
    estimator = batched(estimator_class, loss=loss, batch_size=500, max_iter=1)
    tracemalloc.start()
    try:
        estimator.fit(X, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A matrix of n x n has 1,600 MB, one of a batch 1 MB; X and its scaled copy 1 MB.
    assert peak < 60e6
    assert estimator.score(X, y) > 0.5


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_batches_on_real_data(loss):
    X, y = load_breast_cancer(return_X_y=True)
    model = batched(SubquadMLPClassifier, loss=loss, max_iter=10).fit(X[:400], y[:400])
    assert model.score(X[400:], y[400:]) > 0.95
    if loss == "log_loss":
        assert log_loss(y[400:], model.predict_proba(X[400:])) < 0.2
