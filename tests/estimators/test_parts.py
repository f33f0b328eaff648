"""Fits from parts of the rows."""

import functools
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array
from sklearn.base import clone, is_classifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from small_fits import BOTH, classification_data, data_for, data_for_loss, outputs, regression_data

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _parts
from sklearn_subquad._fit import part_weights
from sklearn_subquad._fit.part_weights import least_squares_weights

SMALL = {"hidden_layer_sizes": (32, 32), "max_iter": 3, "random_state": 0}
pytestmark = pytest.mark.usefixtures("one_blas_thread")


def cut(n_parts, X, y, *sample_weight):
    """Tuples of every n-th row."""
    return [tuple(each[first::n_parts] for each in (X, y, *sample_weight)) for first in range(n_parts)]


def small(estimator_class, **parameters):
    return estimator_class(**SMALL | parameters)


def predictions(model, X):
    return model.predict_proba(X) if is_classifier(model) else model.predict(X)


def assert_same(one, other, X):
    assert predictions(one, X).tobytes() == predictions(other, X).tobytes()


class Loads:
    """A callable that other processes can load."""

    def __init__(self, part):
        self.part = part

    def __call__(self):
        return self.part


# ---- what comes out ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("n_parts", [1, 3])
def test_a_network_or_several_for_every_part(estimator_class, n_parts):
    X, y = data_for(estimator_class, n=300)
    model = small(estimator_class).fit_parts(cut(n_parts, X, y))
    # Eight networks for so few rows, or three for each part.
    assert len(model.estimators_) == {1: 8, 3: 9}[n_parts]
    assert model.score(X, y) > 0.5
    assert model.n_features_in_ == 5
    np.testing.assert_allclose(model.feature_importances_.sum(), 1)
    np.testing.assert_allclose(model._state_["weights"].sum(), 1)
    assert_same(pickle.loads(pickle.dumps(model)), model, X)


@pytest.mark.parametrize(
    ("n_parts", "n_folds", "expected"),
    [(2, "auto", 8), (4, "auto", 12), (11, "auto", 22), (20, "auto", 20), (4, 6, 8), (4, 1, 4), (1, 1, 1)],
)
def test_small_parts_have_several_networks_unless_their_number_is_given(n_parts, n_folds, expected):
    X, y = regression_data(n=240)
    model = SubquadMLPRegressor(hidden_layer_sizes=8, max_iter=1, n_folds=n_folds, random_state=0)
    assert len(model.fit_parts(cut(n_parts, X, y)).estimators_) == expected


def test_large_parts_have_one(monkeypatch):
    monkeypatch.setattr(_parts, "_SMALL_PART", 19)
    X, y = regression_data(n=240)
    model = SubquadMLPRegressor(hidden_layer_sizes=8, max_iter=1, random_state=0)
    assert len(model.fit_parts(cut(12, X, y)).estimators_) == 12


def test_parts_are_nearly_as_good_as_all_rows_at_once():
    X, y = regression_data(n=1500)
    X_new, y_new = X[1200:], y[1200:]
    X, y = X[:1200], y[:1200]
    parameters = {"hidden_layer_sizes": (64, 64), "random_state": 0}
    at_once = SubquadMLPRegressor(**parameters).fit(X, y).score(X_new, y_new)
    of_a_part = SubquadMLPRegressor(**parameters).fit(X[::4], y[::4]).score(X_new, y_new)
    in_parts = SubquadMLPRegressor(**parameters).fit_parts(cut(4, X, y)).score(X_new, y_new)
    assert of_a_part < in_parts
    assert in_parts > at_once - 0.05


@BOTH
@pytest.mark.parametrize("backend", ["threading", "loky", "sequential"])
def test_it_is_the_same_to_the_bit_wherever_parts_are_fitted(estimator_class, backend):
    X, y = data_for(estimator_class, n=240)
    parts = cut(3, X, y)
    expected = small(estimator_class, n_jobs=1).fit_parts(parts)
    with joblib.parallel_config(backend, n_jobs=1 if backend == "sequential" else 2):
        assert_same(small(estimator_class).fit_parts(map(Loads, parts)), expected, X)


@pytest.mark.parametrize(("loss", "k"), [("log_loss", 2), ("log_loss", 4), ("poisson", None), ("poisson", 3)])
def test_other_losses(loss, k):
    X, y = data_for_loss(loss, k, n=240)
    model = small(SubquadMLPClassifier if loss == "log_loss" else SubquadMLPRegressor, loss=loss)
    model.fit_parts(cut(3, X, y))
    assert np.isfinite(predictions(model, X)).all()
    assert model.score(X, y) > clone(model).set_params(max_iter=1, damping=1e6, n_folds=1).fit(X, y).score(X, y)


def test_several_targets_have_deviations():
    X, y = regression_data(n=240, n_outputs=2)
    mean, deviation = small(SubquadMLPRegressor).fit_parts(cut(3, X, y)).predict(X, return_std=True)
    assert mean.shape == deviation.shape == y.shape
    assert (deviation > 0).all()
    assert 0.5 < np.mean(np.abs(mean - y) < deviation) < 0.95


def test_classes_are_those_of_all_parts():
    X, y = classification_data(n=240, n_classes=3)
    words = np.array(["one", "two", "three"], dtype=object)[y]
    # The first part has a single class, the second lacks it.
    order = np.argsort(y == 0, kind="stable")[::-1]
    parts = [(X[rows], words[rows]) for rows in np.split(order, [40, 100])]
    model = small(SubquadMLPClassifier).fit_parts(parts)
    assert model.classes_.tolist() == ["one", "three", "two"]
    assert model.score(X, words) > 0.5


def test_classes_in_a_column_are_classes():
    X, y = classification_data(n=240, n_classes=3)
    expected = small(SubquadMLPClassifier).fit_parts(cut(3, X, y))
    with pytest.warns(DataConversionWarning):
        assert_same(small(SubquadMLPClassifier).fit_parts([*cut(3, X, y)[:2], (X[2::3], y[2::3, None])]), expected, X)


def test_labels_of_rows():
    X, y = classification_data(n=240, n_classes=3)
    Y = np.stack([y == 0, y > 0, X[:, 1] > 0], axis=1).astype(int)
    model = small(SubquadMLPClassifier, class_weight="balanced").fit_parts(cut(3, X, Y))
    assert model.predict(X).shape == Y.shape
    assert model.class_weight == "balanced"
    assert (model.predict(X) == Y).mean() > 0.8
    sparse = small(SubquadMLPClassifier, class_weight="balanced").fit_parts(cut(3, X, csr_array(Y)))
    assert_same(sparse, model, X)


def test_balanced_weights_are_those_of_all_rows():
    X, y = classification_data(n=240, n_classes=3)
    y[y == 2] = np.where(np.arange((y == 2).sum()) % 4, 1, 2)
    weights = {label: len(y) / (3 * count) for label, count in enumerate(np.bincount(y))}
    balanced = small(SubquadMLPClassifier, class_weight="balanced").fit_parts(cut(3, X, y))
    assert_same(balanced, small(SubquadMLPClassifier, class_weight=weights).fit_parts(cut(3, X, y)), X)


@BOTH
def test_only_ratios_of_weights_count_and_rows_of_weight_zero_do_not(estimator_class):
    X, y = data_for(estimator_class, n=240)
    weight = np.where(np.arange(240) % 5, 2.0, 0.0)
    counted = np.flatnonzero(weight)
    without = [tuple(each[rows[np.isin(rows, counted)]] for each in (X, y)) for (rows,) in cut_rows(3)]
    model = small(estimator_class).fit_parts(cut(3, X, y, weight))
    np.testing.assert_allclose(outputs(model, X), outputs(small(estimator_class).fit_parts(without), X), rtol=1e-4)


def cut_rows(n_parts, n=240):
    return [(np.arange(n)[first::n_parts],) for first in range(n_parts)]


def test_tables_have_the_levels_and_gaps_of_all_parts():
    X, y = classification_data(n=240, n_classes=2)
    table = pd.DataFrame(X, columns=list("abcde"))
    table["level"] = np.array(["low", "high", "none"])[(X[:, 0] > 0).astype(int) + (np.arange(240) > 200)]
    table.loc[:50, "a"] = np.nan
    parts = [(table[:80], y[:80]), (table[80:160], y[80:160]), (table[160:], y[160:])]
    model = small(SubquadMLPClassifier).fit_parts(parts)
    assert model.feature_names_in_.tolist() == [*"abcde", "level"]
    assert model._columns.levels[-1].tolist() == ["high", "low", "none"]
    assert model._columns.gaps.tolist() == [True, *[False] * 5]
    assert model.score(table, y) > 0.7


def test_sparse_parts_are_those_of_an_array():
    X, y = regression_data(n=240)
    X = csr_array(np.where(np.random.default_rng(0).random(X.shape) < 0.5, X, 0))
    model = small(SubquadMLPRegressor).fit_parts(cut(3, X, y))
    np.testing.assert_allclose(
        model.predict(X), small(SubquadMLPRegressor).fit_parts(cut(3, X, y)).predict(X), rtol=1e-2
    )


@pytest.mark.parametrize("early_stopping", [False, "loo"])
def test_without_held_out_rows_networks_count_alike(early_stopping):
    X, y = regression_data(n=240)
    model = small(SubquadMLPRegressor, early_stopping=early_stopping).fit_parts(cut(3, X, y))
    np.testing.assert_array_equal(model._state_["weights"], np.full(3, 1 / 3))


@BOTH
def test_other_fits_follow(estimator_class):
    X, y = data_for(estimator_class, n=240)
    model = small(estimator_class).fit_parts(cut(3, X, y))
    before = predictions(model, X)
    model.partial_fit(X, y)
    assert not np.array_equal(predictions(model, X), before)
    assert_same(model.fit(X, y), small(estimator_class).fit(X, y), X)


def test_no_more_than_a_few_rows_leave_a_part(monkeypatch):
    monkeypatch.setattr(_parts, "_HELD_OUT_ROWS", 30)
    returned = []
    monkeypatch.setattr(_parts, "fit_part", keeping(_parts.fit_part, returned))
    X, y = regression_data(n=600)
    small(SubquadMLPRegressor).fit_parts(cut(3, X, y))
    for part in returned:
        assert len(part.held_out) == 10
        # They stand for all that were held out.
        np.testing.assert_allclose(part.held_out.sample_weight.sum(), 20)
        assert len(pickle.dumps(part)) < len(pickle.dumps(part.networks)) + 5000


def keeping(function, seen, arguments=False):
    """The same function, which keeps what it returns, or what it is called with."""

    @functools.wraps(function)
    def kept(*given):
        result = function(*given)
        seen.append(given if arguments else result)
        return result

    return kept


def test_a_part_takes_the_memory_of_its_own_networks(monkeypatch):
    asked = []
    monkeypatch.setattr(_parts, "require_memory", lambda plan, estimator: asked.append(plan))
    X, y = regression_data(n=600)
    small(SubquadMLPRegressor).fit_parts(cut(30, X, y))
    assert {plan.n_networks for plan in asked} == {1}
    assert {plan.size.n_rows for plan in asked} == {20}


def test_progress_tells_of_parts_done_and_to_come(capsys):
    X, y = regression_data(n=240)
    model = small(SubquadMLPRegressor, verbose=1).fit_parts(cut(2, X, y))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "part 0: 120 rows read; 1 parts to come",
        "part 1: 120 rows read; 0 parts to come",
        "8 networks, 4 to each of 2 parts",
        "part 0: 120 rows fitted; 1 parts to come",
        "part 1: 120 rows fitted; 0 parts to come",
    ]
    assert model.verbose == 1


# ---- weights of networks -------------------------------------------------------------------------------------------


def test_weights_are_those_of_least_squares_drawn_towards_equal_ones():
    rng = np.random.default_rng(0)
    Y, sample_weight = rng.standard_normal((60, 2)), rng.random(60) + 0.5
    found = Y + rng.standard_normal((4, 60, 2)) * np.array([1.0, 2.0, 0.5, 1.0])[:, None, None]
    roots = np.sqrt(sample_weight / sample_weight.mean())[:, None]
    errors = ((found - Y) * roots).reshape(4, -1)
    strength = part_weights._SHRINKAGE * 4 / errors.shape[1] * (errors**2).sum()

    def loss(w):
        return ((w @ errors) ** 2).sum() + strength * ((w - 0.25) ** 2).sum()

    sum_is_one = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(loss, np.full(4, 0.25), bounds=[(0, None)] * 4, constraints=sum_is_one, tol=1e-12).x
    expected = 0.9 * best + 0.1 * 0.25
    np.testing.assert_allclose(least_squares_weights(found, Y, sample_weight), expected, atol=1e-4)


def test_equal_networks_count_alike():
    Y = np.zeros((10, 1))
    for found in (np.zeros((3, 10, 1)), np.ones((3, 10, 1))):
        np.testing.assert_allclose(least_squares_weights(found, Y, np.ones(10)), np.full(3, 1 / 3))


@pytest.mark.parametrize("k", [2, 3])
def test_probabilities_of_the_mean_are_the_likeliest_for_rows_that_no_network_has_seen(k, monkeypatch):
    seen = []
    original = _parts.FitsParts._learn_from_held_out
    monkeypatch.setattr(_parts.FitsParts, "_learn_from_held_out", keeping(original, seen, arguments=True))
    X, y = classification_data(n=400, n_classes=k)
    model = small(SubquadMLPClassifier).fit_parts(cut(4, X, y))
    rows = seen[0][1]
    labels = rows.Y[:, 0].astype(int) if k == 2 else rows.Y.argmax(axis=1)

    def log_loss(factor):
        changed = pickle.loads(pickle.dumps(model))
        for state in (changed._state_, *(each["_state_"] for each in changed._networks())):
            state["calibration"] = factor * model._state_["calibration"]
        probabilities = changed.predict_proba(rows.X)[np.arange(len(labels)), labels]
        return -np.average(np.log(probabilities), weights=rows.sample_weight)

    # One row more in a hundred, of another label, counts besides.
    assert log_loss(1) < min(log_loss(0.3), log_loss(3))


@pytest.mark.parametrize("parameters", [{}, {"early_stopping": "loo"}])
@pytest.mark.parametrize("n_parts", [1, 2])
@pytest.mark.parametrize("k", [2, 3])
def test_few_rows_are_calibrated_as_if_they_were_left_out(k, n_parts, parameters):
    X, y = classification_data(n=80, n_classes=k)
    model = small(SubquadMLPClassifier, **parameters).fit_parts(cut(n_parts, X, y))
    assert np.isfinite(model.predict_log_proba(X)).all()
    np.testing.assert_array_equal(model.classes_[model.predict_proba(X).argmax(axis=1)], model.predict(X))


# ---- errors --------------------------------------------------------------------------------------------------------


def cannot_be_read():
    raise OSError("no such file")


def changed(change):
    """Three parts, of which the last one is changed."""
    X, y = regression_data(n=150)
    parts = cut(3, X, y)
    return [*parts[:2], change(*parts[2])]


def with_nan(y):
    return np.append(y[1:], np.nan)


FRAMES = pd.DataFrame(regression_data(n=50)[0], columns=list("abcde"))
ERRORS = {
    "nothing": ([], "parts is empty"),
    "no part": (changed(lambda X, y: "a.npy"), "part 2 is str"),
    "three arrays too many": (changed(lambda X, y: (X, y, y, y)), "part 2 is tuple"),
    "no tuple": (changed(lambda X, y: Loads(X)), r"part 2 \(Loads\) is ndarray"),
    "no rows": (changed(lambda X, y: (X[:0], y[:0])), "part 2 has no rows"),
    "other columns": (changed(lambda X, y: (X[:, :4], y)), "part 2 has 4 columns, but part 0 has 5"),
    "lengths": (changed(lambda X, y: (X[1:], y)), "part 2: Found input variables with inconsistent numbers"),
    "missing targets": (changed(lambda X, y: (X, with_nan(y))), "part 2: Input y contains NaN"),
    "infinity": (changed(lambda X, y: (np.where(X > 2, np.inf, X), y)), "part 2: Input X contains infinity in columns"),
    "weights": (changed(lambda X, y: (X, y, -np.ones(50))), "part 2: Negative values in sample_weight"),
    "more targets": (changed(lambda X, y: (X, np.stack([y, y], 1))), "y of part 2 has the columns"),
    "sparse": (changed(lambda X, y: (csr_array(X), y)), "part 0 and part 2 one is sparse"),
    "names": (changed(lambda X, y: (FRAMES, y)), "part 2 has columns of the names"),
    "a row": (changed(lambda X, y: (X[:1], y[:1])), "part 2: There is one row, of those that differ"),
    "a file": (
        changed(lambda X, y: cannot_be_read),
        r"part 2 \(cannot_be_read\) cannot be loaded: OSError: no such file",
    ),
    "a name": (
        changed(lambda X, y: functools.partial(np.load, "none.npy", mmap_mode="r")),
        r"part 2 \(load\('none.npy', mmap_mode='r'\)\) cannot be loaded: FileNotFoundError",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_part_and_leave_the_estimator_as_it_was(name):
    parts, message = ERRORS[name]
    X, y = regression_data(n=90)
    model = small(SubquadMLPRegressor, n_jobs=1)
    with pytest.raises((ValueError, RuntimeError), match=message):
        model.fit_parts(parts)
    with pytest.raises(NotFittedError):
        model.predict(X)
    if name in ("missing targets", "a row"):
        model.fit(X, y)
        before, state = model.predict(X), sorted(model.__dict__)
        with pytest.raises(ValueError, match=message):
            model.fit_parts(parts)
        assert sorted(model.__dict__) == state
        np.testing.assert_array_equal(model.predict(X), before)


def test_kinds_of_columns_and_classes_agree():
    X, y = classification_data(n=60, n_classes=2)
    tables = [pd.DataFrame({"a": X[::2, 0]}), pd.DataFrame({"a": np.where(X[1::2, 0] > 0, "x", "y")})]
    model = small(SubquadMLPClassifier)
    with pytest.raises(ValueError, match="Column 'a' holds numbers in part 0, but categories in part 1"):
        model.fit_parts([(tables[0], y[::2]), (tables[1], y[1::2])])
    with pytest.raises(ValueError, match="y of part 1 holds words, but that of part 0 numbers"):
        model.fit_parts([(X, y), (X, y.astype(str))])
    with pytest.raises(ValueError, match="at least two classes"):
        model.fit_parts([(X, np.ones(60)), (X, np.ones(60))])
    with pytest.raises(ValueError, match="no row has a positive weight"):
        small(SubquadMLPClassifier, class_weight={0: 0, 1: 0}).fit_parts([(X, y), (X, y)])
    with pytest.raises(ValueError, match=r"part 1: With class_weight=.* no row has a positive weight"):
        small(SubquadMLPClassifier, class_weight={0: 0}).fit_parts([(X, y + 1), (X[y == 0], y[y == 0])])
    with pytest.raises(ValueError, match="part 1: y holds missing labels"):
        model.fit_parts([(X, y), (X, np.where(y == 1, None, "a"))])
    with pytest.raises(ValueError, match="part 1: loss='poisson' needs y >= 0"):
        small(SubquadMLPRegressor, loss="poisson").fit_parts([(X, y), (X, y - 1)])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"warm_start": True}, "warm_start"), ({"scoring": "r2"}, "scoring='r2'"), ({"n_bins": 1}, "n_bins")],
)
def test_parameters_that_parts_have_no_use_for_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        small(SubquadMLPRegressor, **parameters).fit_parts(cut(2, *regression_data()))


def test_an_interrupt_leaves_the_estimator_as_it_was():
    X, y = regression_data(n=90)
    model = small(SubquadMLPRegressor, n_jobs=1).fit(X, y)
    before, calls = model.predict(X), []

    def load():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return X, y

    with pytest.raises(KeyboardInterrupt):
        model.fit_parts([(X, y), load])
    np.testing.assert_array_equal(model.predict(X), before)
