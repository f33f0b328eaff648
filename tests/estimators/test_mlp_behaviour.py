"""What scikit-learn's tests ask of its own MLP, asked of ours; `doc/mlp_behaviour.md` lists it and says what holds."""

import pathlib
import re
import warnings

import joblib
import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix
from sklearn.datasets import (
    load_breast_cancer,
    load_wine,
    make_circles,
    make_friedman1,
    make_moons,
    make_multilabel_classification,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_poisson_deviance, roc_auc_score
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")

TESTS = pathlib.Path(__file__).resolve().parents[1]
TABLE = TESTS.parent / "doc" / "mlp_behaviour.md"
ESTIMATORS = [SubquadMLPRegressor, SubquadMLPClassifier]
LOSSES = ["squared_error", "log_loss"]
# One network a fit: no other initial weights or metric beside it.
SMALL = {"hidden_layer_sizes": (64, 64), "n_folds": 1, "random_state": 0}
# A few steps show what does not depend on their number.
HELD_OUT = {"early_stopping": "validation", "max_iter": 4}
WIDER = SMALL | {"hidden_layer_sizes": (256, 256)}


def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def cancer(n=200):
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X)[:n], y[:n]


def friedman(n=300):
    return make_friedman1(n, noise=0.1, random_state=1)


def contradictions(estimator_class):
    """Rows that are there four times with another target each time: their loss falls to a limit and no further."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 1, 2], 15)
    return np.repeat(rng.standard_normal((15, 3)), 4, axis=0), y + 0.1 * rng.standard_normal(60).cumsum() * (
        estimator_class is SubquadMLPRegressor
    )


def task(estimator_class):
    return wine() if estimator_class is SubquadMLPClassifier else friedman()


# ---- the table -------------------------------------------------------------------------------------------------


def test_every_test_that_the_table_names_exists():
    named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", TABLE.read_text(encoding="utf-8"))
    assert len(named) > 30
    for module, test in named:
        (path,) = TESTS.rglob(f"{module}.py")
        source = path.read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.MULTILINE), f"{module}.py has no {test}"


def test_every_line_of_the_table_has_a_verdict_and_a_test_or_a_reason():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TABLE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    for _, behaviour, verdict, test in rows:
        assert behaviour
        kind = re.match(r"(holds differently|holds|does not apply)(: .+)?$", verdict)
        assert kind, verdict
        # Who reads that something is another way wants to know which.
        assert kind[1] == "holds" or kind[2], verdict
        assert "::" in test or kind[1] == "does not apply", behaviour


def test_every_test_here_is_in_the_table():
    tests = re.findall(r"^def (test_\w+)\(", pathlib.Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    table = TABLE.read_text(encoding="utf-8")
    assert [test for test in tests if "table" not in test and f"::{test}`" not in table] == []


# ---- learning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("load", [wine, cancer])
def test_classes_are_learned_and_keep_their_type(load, loss):
    X, y = load()
    for labels in (y, y.astype(np.float32), np.array(["red", "white", "rosé"])[y]):
        model = SubquadMLPClassifier(**SMALL, loss=loss).fit(X[::2], labels[::2])
        predicted = model.predict(X[1::2])
        assert predicted.dtype == labels.dtype
        assert predicted.shape == labels[1::2].shape
        assert model.score(X[1::2], labels[1::2]) > 0.9
        assert model.score(X[::2], labels[::2]) > 0.95


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("make", "options"), [(make_moons, {}), (make_circles, {"factor": 0.5})])
def test_classes_that_no_line_parts_are_learned(make, options, loss):
    X, y = make(400, noise=0.08, random_state=3, **options)
    model = SubquadMLPClassifier(**SMALL, loss=loss).fit(X[:300], y[:300])
    assert model.score(X[300:], y[300:]) > 0.95


@pytest.mark.parametrize("loss", LOSSES)
def test_the_exclusive_or_of_four_rows_is_fitted(loss):
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), [False, True, True, False]
    # Four rows are too few to judge a step by rows that were left out.
    model = SubquadMLPClassifier(**SMALL, loss=loss, early_stopping=False).fit(X, y)
    assert model.predict(X).tolist() == y


def test_a_curved_target_is_fitted_better_than_a_line_can():
    X, y = friedman(400)
    model = SubquadMLPRegressor(**SMALL).fit(X[:300], y[:300])
    line = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))])[:300], y[:300], rcond=None)[0]
    residual = y[300:] - np.column_stack([X, np.ones(len(X))])[300:] @ line
    assert 1 - model.score(X[300:], y[300:]) < 0.3 * np.mean(residual**2) / np.var(y[300:])


def test_noise_is_fitted_where_nothing_stops_it():
    X, y = friedman(100)
    y = np.random.default_rng(0).standard_normal(len(y))
    model = SubquadMLPRegressor(**WIDER, early_stopping=False, max_iter=60)
    assert model.fit(X, y).score(X, y) > 0.98


def test_five_targets_are_learned_at_once():
    X, y = friedman(300)
    Y = np.column_stack([y, X[:, 0] - X[:, 1], np.sin(4 * X[:, 2]), X[:, 3] ** 2, -3 * X[:, 4]])
    model = SubquadMLPRegressor(**SMALL).fit(X, Y)
    assert model.predict(X).shape == Y.shape
    assert model.score(X, Y) > 0.95


def tags(n=150):
    return make_multilabel_classification(n, n_features=12, n_classes=4, random_state=2)


@pytest.mark.parametrize("loss", LOSSES)
def test_several_labels_are_learned_by_fit_and_by_parts(loss):
    X, Y = tags()
    model = SubquadMLPClassifier(**WIDER, loss=loss, early_stopping=False)
    assert model.fit(X, Y).score(X, Y) > 0.97
    for _ in range(3):
        model.partial_fit(X, Y)
    assert model.score(X, Y) > 0.97
    # The damping of parts keeps them from learning single rows by heart; what the features say they learn.
    clear = np.column_stack([X @ np.eye(X.shape[1])[:3].T > 2, X[:, 3] > X[:, 4]]).astype(int)
    parts = SubquadMLPClassifier(**WIDER, loss=loss)
    for _ in range(15):
        parts.partial_fit(X, clear, classes=[0, 1, 2, 3])
    assert parts.score(X, clear) > 0.7
    assert (parts.predict(X) == clear).mean() > 0.9


@pytest.mark.parametrize("loss", LOSSES)
def test_several_labels_go_with_held_out_rows(loss):
    X, Y = tags()
    model = SubquadMLPClassifier(**SMALL, loss=loss, early_stopping="validation").fit(X, Y)
    assert model.predict(X).shape == Y.shape
    assert len(model.validation_scores_) > 1


# ---- probabilities ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", ["auto", False])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("load", [wine, cancer])
def test_probabilities_rank_as_their_logarithms(load, loss, early_stopping):
    X, y = load()
    model = SubquadMLPClassifier(**SMALL, loss=loss, early_stopping=early_stopping).fit(X, y)
    proba, log_proba = model.predict_proba(X), model.predict_log_proba(X)
    assert proba.shape == log_proba.shape == (len(y), len(np.unique(y)))
    np.testing.assert_array_equal(proba.argmax(axis=1), log_proba.argmax(axis=1))
    np.testing.assert_allclose(np.exp(log_proba), proba, rtol=1e-12)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    assert roc_auc_score(y, proba[:, 1] if proba.shape[1] == 2 else proba, multi_class="ovr") > 0.99


@pytest.mark.parametrize("loss", LOSSES)
def test_probabilities_of_several_labels_do_not_sum_to_one(loss):
    X, Y = tags()
    model = SubquadMLPClassifier(**WIDER, loss=loss, early_stopping=False)
    proba = model.fit(X, Y).predict_proba(X)
    assert proba.shape == Y.shape
    np.testing.assert_array_equal(proba > 0.5, model.predict(X))
    assert np.mean((proba > 0.5) == Y) > 0.97
    assert np.abs(proba.sum(axis=1) - 1).max() > 0.5
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), proba, rtol=1e-12)


# ---- parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("load", [wine, cancer])
def test_repeated_parts_come_to_the_predictions_of_a_fit(load, loss):
    X, y = load()
    whole = SubquadMLPClassifier(**SMALL, loss=loss, early_stopping=False).fit(X, y)
    parts = SubquadMLPClassifier(**SMALL, loss=loss)
    for _ in range(20):
        parts.partial_fit(X, y, classes=np.unique(y))
    np.testing.assert_array_equal(parts.predict(X), whole.predict(X))
    assert parts.score(X, y) > 0.95


def test_repeated_parts_of_targets_come_to_the_predictions_of_a_fit():
    X, y = friedman(200)
    whole = SubquadMLPRegressor(**SMALL, early_stopping=False, max_iter=30).fit(X, y)
    parts = SubquadMLPRegressor(**SMALL)
    for _ in range(60):
        parts.partial_fit(X, y)
    assert parts.score(X, y) > 0.95
    assert np.corrcoef(parts.predict(X), whole.predict(X))[0, 1] > 0.97


def test_a_class_may_come_in_a_later_part():
    X = np.array([[1.0], [2.0], [3.0], [4.0]])
    model = SubquadMLPClassifier(**SMALL).partial_fit(X[:3], list("abc"), classes=list("abcd"))
    assert "d" not in model.predict(X)
    for _ in range(3):
        model.partial_fit(X[3:], ["d"])
    assert model.predict(X[3:]) == ["d"]


def test_parts_refuse_other_classes():
    model = SubquadMLPClassifier(**SMALL).partial_fit([[3, 2]], [0], classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes are \[1, 2\], but those of the calls before are \[0, 1\]"):
        model.partial_fit([[3, 2]], [1], classes=[1, 2])
    with pytest.raises(ValueError, match=r"y holds \[2\]"):
        model.partial_fit([[3, 2]], [2])


@pytest.mark.parametrize(
    ("classes", "message"), [(None, "first call"), ([2], "at least two"), ([2, 3], r"y holds \[0, 1\]")]
)
def test_parts_need_all_classes_of_their_rows(classes, message):
    with pytest.raises(ValueError, match=message):
        SubquadMLPClassifier(**SMALL).partial_fit([[3, 2], [1, 6]], [1, 0], classes=classes)


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_a_loaded_estimator_learns_on(estimator_class, tmp_path):
    X, y = task(estimator_class)
    joblib.dump(estimator_class(**SMALL).fit(X, y), tmp_path / "model.joblib")
    model = joblib.load(tmp_path / "model.joblib")
    X, y = X[::15], y[::15]
    other = (y + 1) % 3 if estimator_class is SubquadMLPClassifier else 20 - y
    assert model.score(X, other) < 0.5
    for _ in range(30):
        model.partial_fit(X, other)
    assert model.score(X, other) > 0.95


@pytest.mark.parametrize("early_stopping", ["validation", "auto", False])
@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_parts_may_follow_a_fit_that_held_rows_out(estimator_class, early_stopping):
    X, y = task(estimator_class)
    # In more steps, or with ramps, few rows are fitted so well that there is nothing left to do.
    model = estimator_class(**SMALL, early_stopping=early_stopping, n_bins=None, max_iter=5).fit(X, y)
    n_iter, score = model.n_iter_, model.score(X, y)
    model.partial_fit(X, y)
    assert model.n_iter_ == n_iter + 1
    assert model.score(X, y) > score - 0.02


# ---- when a fit ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_a_large_tolerance_ends_the_fit(estimator_class):
    X, y = contradictions(estimator_class)
    loose = estimator_class(**SMALL, tol=0.5, max_iter=200, early_stopping=False).fit(X, y)
    strict = estimator_class(**SMALL, tol=1e-3, max_iter=200, early_stopping=False).fit(X, y)
    assert loose.n_iter_ < strict.n_iter_ < 200
    assert "less than tol" in loose.stop_reason_


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_the_fit_ends_after_as_many_steps_without_change_as_asked_for(estimator_class):
    X, y = contradictions(estimator_class)
    tol, n_iter = 0.1, []
    for patience in (1, 2, 4, 8):
        model = estimator_class(**SMALL, tol=tol, n_iter_no_change=patience, max_iter=200, early_stopping=False)
        curve = np.array(model.fit(X, y).loss_curve_)
        # A step counts where it improves on the best loss before it by more than the tolerance.
        best, since = curve[0], 0
        for loss in curve[1:]:
            since = 0 if loss < (1 - tol) * best else since + 1
            best = min(best, loss) if since == 0 else best
        assert since == patience
        n_iter.append(model.n_iter_)
    assert n_iter == sorted(n_iter)
    assert n_iter[0] < n_iter[-1] < 200


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_with_endless_patience_all_iterations_are_made(estimator_class):
    X, y = task(estimator_class)
    # In single precision rounding may end it before.
    parameters = {"tol": 0.999, "n_iter_no_change": 10**6, "max_iter": 15, "early_stopping": False}
    model = estimator_class(**SMALL, **parameters, precision="double").fit(X, y)
    assert model.n_iter_ == 15
    assert model.stop_reason_ == "max_iter was reached"


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_the_last_iteration_is_a_stop_reason_and_no_warning(estimator_class):
    X, y = task(estimator_class)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = estimator_class(**SMALL, max_iter=2, early_stopping=False).fit(X, y)
    assert model.n_iter_ == 2
    assert model.stop_reason_ == "max_iter was reached"


def test_inner_iterations_are_limited_by_themselves():
    X, y = wine()
    with pytest.warns(ConvergenceWarning, match="max_cg_iter=2"):
        model = SubquadMLPClassifier(
            **SMALL, loss="log_loss", early_stopping=False, preconditioner="none", max_cg_iter=2, max_iter=4
        ).fit(X, y)
    # One more for each try of a step that was taken back, with another damping.
    assert max(model.n_cg_iter_) <= 2 * 4
    assert model.n_iter_ == 4


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_held_out_rows_end_the_fit_and_their_best_score_counts(estimator_class):
    X, y = task(estimator_class)
    model = estimator_class(**SMALL, early_stopping="validation", tol=0.02, max_iter=200).fit(X, y)
    assert model.n_iter_ < 200
    assert isinstance(model.validation_scores_, list)
    errors = 1 - np.array(model.validation_scores_)
    assert np.argmin(errors) == model.best_iter_
    assert 0 < len(errors) - 1 < 200
    assert not hasattr(model.set_params(early_stopping=False, max_iter=2).fit(X, y), "validation_scores_")


def test_held_out_rows_have_scores_with_any_labels():
    X, y = wine()
    names = np.array(["class_a", "class_b", "class_c"], dtype=object)[y]
    models = [SubquadMLPClassifier(**SMALL, **HELD_OUT).fit(X, labels) for labels in (y, names)]
    assert np.isfinite(models[1].validation_scores_).all()
    assert models[1].validation_scores_ == models[0].validation_scores_


@pytest.mark.parametrize("n", [4, 120])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_of_one_row_may_be_held_out_or_not(loss, n):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, 2)), np.repeat(["many", "one"], [n - 1, 1])
    model = SubquadMLPClassifier(**SMALL, loss=loss, early_stopping="validation").fit(X, y)
    assert model.classes_.tolist() == ["many", "one"]
    proba = model.predict_proba(X)
    assert np.isfinite(proba).all()
    assert proba[:, 0].mean() > 0.5


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_are_fitted_although_some_are_held_out(n):
    X, y = friedman(3)
    model = SubquadMLPRegressor(**SMALL, early_stopping="validation")
    if n == 1:
        with pytest.raises(ValueError, match="minimum of 2 is required"):
            model.fit(X[:n], y[:n])
    else:
        assert np.isfinite(model.fit(X[:n], y[:n]).predict(X)).all()


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_names_of_features_outlive_held_out_rows(estimator_class):
    pandas = pytest.importorskip("pandas")
    X, y = task(estimator_class)
    frame = pandas.DataFrame(X, columns=[f"feature {i}" for i in range(X.shape[1])])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = estimator_class(**SMALL, early_stopping="validation").fit(frame, pandas.Series(y, name="target"))
        model.predict(frame)
    assert model.feature_names_in_.tolist() == frame.columns.tolist()


# ---- going on --------------------------------------------------------------------------------------------------


def test_a_warm_start_takes_other_rows_of_the_same_classes_only():
    X, y = wine()
    model = SubquadMLPClassifier(**SMALL, warm_start=True).fit(X, y)
    model.fit(X, np.arange(len(y)) % 3)
    for n_classes in (2, 4, 5):
        with pytest.raises(ValueError, match=r"goes on with the classes \[0, 1, 2\], but y has"):
            model.fit(X, np.arange(len(y)) % n_classes)
    with pytest.raises(ValueError, match=r"y has \[0, 1, 3\]"):
        model.fit(X, np.where(y == 2, 3, y))


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_every_warm_start_makes_all_its_iterations(estimator_class):
    X, y = task(estimator_class)
    model = estimator_class(**SMALL, warm_start=True, early_stopping=False, tol=0.0, n_iter_no_change=10**6)
    for max_iter in (3, 3, 6):
        before = model.loss_curve_[-1] if hasattr(model, "loss_curve_") else np.inf
        assert model.set_params(max_iter=max_iter).fit(X, y).n_iter_ == max_iter
        # It goes on where the fit before ended, and does not begin again.
        assert model.loss_curve_[0] <= before * (1 + 1e-6)


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_held_out_scores_of_a_warm_start_are_its_own(estimator_class):
    X, y = task(estimator_class)
    model = estimator_class(**SMALL, warm_start=True, early_stopping="validation", max_iter=2, tol=0.0)
    first = model.fit(X, y).validation_scores_
    second = model.set_params(max_iter=6).fit(X, y).validation_scores_
    assert len(first) == 3
    assert 3 < len(second) <= 7
    # After no step, the network of the fit before.
    assert second[1] >= first[-1] - 0.05


# ---- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_classes_do_not_depend_on_the_precision(loss):
    X, y = cancer(569)
    doubles, singles = (
        SubquadMLPClassifier(**SMALL, loss=loss, precision=precision).fit(X[:400].astype(dtype), y[:400])
        for dtype, precision in (("f8", "double"), ("f4", "single"))
    )
    assert np.mean(doubles.predict(X[400:]) == singles.predict(X[400:].astype("f4"))) > 0.98
    difference = doubles.predict_proba(X[400:]) - singles.predict_proba(X[400:].astype("f4"))
    assert np.abs(difference).mean() < 0.02


def test_predictions_do_not_depend_on_the_precision():
    X, y = friedman(300)
    doubles, singles = (
        SubquadMLPRegressor(**SMALL, early_stopping=False, max_iter=4, precision=precision).fit(
            X[:200].astype(dtype), y[:200]
        )
        for dtype, precision in (("f8", "double"), ("f4", "single"))
    )
    np.testing.assert_allclose(singles.predict(X[200:].astype("f4")), doubles.predict(X[200:]), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_weights_have_the_precision_asked_for_and_predictions_that_of_the_features(estimator_class, precision, dtype):
    X, y = task(estimator_class)
    model = estimator_class(**SMALL, precision=precision).fit(X.astype(dtype), y)
    weights = {"single": np.float32, "double": np.float64}[precision]
    assert {array.dtype for array in model.coefs_ + model.intercepts_} == {np.dtype(weights)}
    out = (
        model.predict(X.astype(dtype))
        if estimator_class is SubquadMLPRegressor
        else model.predict_proba(X.astype(dtype))
    )
    assert out.dtype == dtype


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning")
def test_numbers_at_the_end_of_the_range_are_named(estimator_class):
    X, y = task(estimator_class)
    with pytest.raises(ValueError, match="cannot be standardised: scale X"):
        estimator_class(**SMALL).fit(X / np.abs(X).max() * np.finfo(np.float64).max, y)


@pytest.mark.parametrize("damping", [1e-12, 1e-3, 1e3])
def test_no_damping_makes_a_fit_diverge(damping):
    X, y = friedman(200)
    model = SubquadMLPRegressor(**SMALL, damping=damping, early_stopping="validation", init_scale=10.0).fit(
        1e4 * X, 1e6 * y
    )
    assert np.isfinite(model.validation_scores_).all()
    assert np.isfinite(model.predict(1e4 * X)).all()
    assert model.score(1e4 * X, 1e6 * y) > -0.01


@pytest.mark.parametrize("container", [csr_matrix, csr_array])
@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_sparse_features_are_the_dense_ones(estimator_class, container):
    X, y = task(estimator_class)
    X = np.where(np.abs(X) > 0.5, X, 0.0)
    dense = estimator_class(precision="double", **SMALL).fit(X, y)
    sparse = estimator_class(precision="double", **SMALL).fit(container(X), y)
    np.testing.assert_allclose(sparse.predict(container(X)), dense.predict(X), rtol=1e-6)
    np.testing.assert_allclose(sparse.predict(X), dense.predict(container(X)), rtol=1e-6)


def test_the_order_of_rows_does_not_matter_where_all_are_fitted_at_once():
    X, y = friedman(150)
    order = np.random.default_rng(0).permutation(len(X))
    parameters = SMALL | {"early_stopping": False, "max_iter": 4, "batch_size": len(X)}
    one = SubquadMLPRegressor(**parameters).fit(X, y)
    other = SubquadMLPRegressor(**parameters).fit(X[order], y[order])
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-6)
    # In batches it says what they are made of.
    parameters["batch_size"] = 40
    one = SubquadMLPRegressor(**parameters).fit(X, y)
    other = SubquadMLPRegressor(**parameters).fit(X[order], y[order])
    assert not np.allclose(one.predict(X), other.predict(X), rtol=1e-6)


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_unit_weights_change_nothing_that_is_held_out(estimator_class):
    X, y = task(estimator_class)
    models = [
        estimator_class(**SMALL, **HELD_OUT).fit(X, y, sample_weight=weights) for weights in (None, np.ones(len(y)))
    ]
    np.testing.assert_array_equal(models[1].predict(X), models[0].predict(X))
    assert models[1].validation_scores_ == models[0].validation_scores_


def test_the_poisson_loss_is_that_of_a_linear_model_where_the_logarithm_is_linear():
    rng = np.random.default_rng(0)
    X = np.linspace(0, 1, 400)[:, None]
    mean = np.exp(3 * X[:, 0] + 1)
    y = rng.poisson(mean)
    linear = PoissonRegressor(alpha=0, tol=1e-7).fit(X, y)
    # No hidden layer can be left out; one of a single neuron adds little to the features, which reach the output.
    options = {"hidden_layer_sizes": 1, "early_stopping": False, "n_bins": None, "max_iter": 50, "random_state": 0}
    model = SubquadMLPRegressor(loss="poisson", **options).fit(X, y)
    assert (model.predict(X) > 0).all()
    np.testing.assert_allclose(model.predict(X), linear.predict(X), rtol=0.1)
    assert mean_poisson_deviance(y, model.predict(X)) < 1.01 * mean_poisson_deviance(y, linear.predict(X))
    # Fitted by the squared error, the same network bends only once.
    squared = SubquadMLPRegressor(**options).fit(X, y)
    assert not np.allclose(squared.predict(X), linear.predict(X), rtol=0.1)


# ---- what they print --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_fits_and_parts_print_when_asked_to(estimator_class, verbose, capsys):
    X, y = task(estimator_class)
    model = estimator_class(**SMALL, verbose=verbose, max_iter=3).fit(X, y)
    fit = capsys.readouterr().out
    model.partial_fit(X, y)
    part = capsys.readouterr().out
    assert bool(fit) == bool(part) == verbose
