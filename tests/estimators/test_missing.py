"""Missing dates, dates among features, and messages that name what is wrong."""

import datetime
import inspect

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._utils.missing import named_errors

SETTINGS = {"hidden_layer_sizes": (32, 32), "max_iter": 2, "random_state": 0}
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
X = np.random.default_rng(0).standard_normal((40, 3))
DATES = np.datetime64("2024-01-01", "ns") + np.where(np.arange(40) % 2, 0, 86_400_000_000_000).astype("m8[ns]")
TIMES = {
    "dates": DATES,
    "days": DATES.astype("M8[D]"),
    "durations": DATES - DATES[0],
    "series": pd.Series(DATES),
    "with a zone": pd.Series(DATES).dt.tz_localize("UTC"),
    "objects": pd.Series(DATES).astype(object),
    "list": list(DATES),
    "frame": pd.DataFrame({"when": DATES}),
    "polars": pl.Series(DATES),
}
LABELS = np.arange(40) % 2


def with_a_gap(times):
    """The same with the fourth one missing."""
    if isinstance(times, pl.Series):
        return times.clone().scatter(3, None)
    times = times.copy()
    if isinstance(times, (pd.Series, pd.DataFrame)):
        times.iloc[3] = pd.NaT
    else:
        times[3] = np.datetime64("NaT") if isinstance(times, list) else "NaT"
    return times


def calls_with_targets(estimator_class, y, features=X):
    """What the targets are called, and every call that takes them, as a function of nothing."""
    model = estimator_class(**SETTINGS)
    classes = {"classes": [0, 1]} if estimator_class is SubquadMLPClassifier else {}
    yield "y", lambda: model.fit(features, y)
    yield "y", lambda: model.partial_fit(features, y, **classes)
    yield "y_val", lambda: model.fit(X, LABELS, X_val=features, y_val=y)
    yield "y", lambda: model.fit(X, LABELS).score(features, y)


def calls_with_features(estimator_class, features):
    """The same of features."""
    y = LABELS[: max(2, len(features))]
    fitted = estimator_class(**SETTINGS).fit(X, LABELS)
    yield "X", lambda: estimator_class(**SETTINGS).fit(features, y)
    yield "X", lambda: estimator_class(**SETTINGS).fit(X, LABELS).partial_fit(features, y)
    yield "X_val", lambda: estimator_class(**SETTINGS).fit(X, LABELS, X_val=features, y_val=y)
    yield "X", lambda: fitted.score(features, y)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        if hasattr(fitted, method):
            yield "X", lambda method=method: getattr(fitted, method)(features)


@BOTH
@pytest.mark.parametrize("kind", TIMES)
def test_missing_times_are_missing_targets(estimator_class, kind):
    for name, call in calls_with_targets(estimator_class, with_a_gap(TIMES[kind])):
        with pytest.raises(ValueError, match=rf"^{name} holds missing (targets|labels): drop these rows"):
            call()


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("kind", [kind for kind in TIMES if kind != "objects"])
def test_times_are_numbers_in_their_own_unit(kind):
    numbers = np.asarray(DATES if kind == "with a zone" else TIMES[kind]).astype(np.int64).ravel()
    timed, numbered = (SubquadMLPRegressor(**SETTINGS).fit(X, y) for y in (TIMES[kind], numbers))
    assert timed.predict(X).ravel().tolist() == numbered.predict(X).tolist()
    assert timed.score(X, TIMES[kind]) == pytest.approx(timed.score(X, numbers))


@pytest.mark.parametrize("kind", ["dates", "days"])
def test_dates_are_classes(kind):
    model = SubquadMLPClassifier(**SETTINGS).fit(X, TIMES[kind])
    assert set(model.predict(X)) <= set(TIMES[kind])


def frame(**columns):
    """A frame of pandas with a column of numbers and others."""
    return pd.DataFrame({"number": X[:, 0], **columns})


def cell(value):
    """Features one of which is something else."""
    table = X.astype(object)
    table[3, 1] = value
    return table


OBJECT_DATES = pd.Series(DATES).astype(object)
GAPS = "NAME holds missing dates or durations .NaT."
BESIDE = (
    "NAME holds dates, durations or periods in columns 'when', .* turn them into numbers, such as days since a date"
)
NO_NUMBER = (
    "NAME must hold real numbers: .*, in columns {}. Name columns of words .* dates into numbers such as days since"
)
BAD_FEATURES = {
    "array with a gap": (np.column_stack([with_a_gap(DATES), DATES, DATES]), GAPS),
    "list with a gap": ([[a, b, b] for a, b in zip(with_a_gap(DATES), DATES, strict=True)], GAPS),
    "durations with a gap": (np.column_stack([with_a_gap(DATES - DATES[0])] * 3), GAPS),
    "frame with a gap": (pd.DataFrame({"a": DATES, "b": with_a_gap(DATES)}), f"{GAPS} in columns 'b': drop these rows"),
    "polars with a gap": (pl.DataFrame({"a": DATES, "b": with_a_gap(pl.Series(DATES))}), f"{GAPS} in columns 'b'"),
    "dates": (frame(when=DATES), BESIDE),
    "durations": (frame(when=DATES - DATES[0]), BESIDE),
    "dates with a zone": (frame(when=pd.Series(DATES).dt.tz_localize("UTC")), BESIDE),
    "periods": (frame(when=pd.Series(DATES).dt.to_period("D")), BESIDE),
    "dates of polars": (pl.DataFrame({"number": X[:, 0], "when": DATES}), BESIDE),
    "days of polars": (pl.DataFrame({"number": X[:, 0], "when": pl.Series(DATES).cast(pl.Date)}), BESIDE),
    "times of polars": (pl.DataFrame({"when": [datetime.time(1)] * 40}), NO_NUMBER.format("'when'")),
    "dates as objects": (frame(other=X[:, 1], when=OBJECT_DATES), NO_NUMBER.format("'when'")),
    "dates of Python": (frame(other=X[:, 1], when=[datetime.date(2024, 1, 1)] * 40), NO_NUMBER.format("'when'")),
    "string": (cell("a"), NO_NUMBER.format("1")),
    "object": (cell(object()), NO_NUMBER.format("1")),
    "list": (cell([1, 2]), NO_NUMBER.format("1")),
    "infinity in an array": (np.where(X.min() < X, X, np.inf), "Input X contains infinity in columns [012]: "),
    "complex": (X + 1j, "NAME must hold real numbers: Complex data not supported.$"),
    "ragged": ([[1, 2, 3]] * 39 + [[1, 2]], "NAME must hold real numbers: setting an array element"),
    "fields": (np.zeros(40, dtype=[("a", float), ("b", float)]), "NAME must hold real numbers: Cannot cast"),
    "one dimension": (X[:, 0], "NAME.*Expected 2D array"),
    "three dimensions": (X[:, None], "NAME.*Found array with dim 3"),
    "no column": (X[:, :0], r"NAME.*0 feature\(s\)"),
    "no row": (X[:0], r"NAME.*0 sample\(s\)"),
    "infinity": (cell(np.inf), "Input X contains infinity in columns 1: put in a number, or nan"),
}


@BOTH
# Only some of the tables have names.
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("kind", BAD_FEATURES)
def test_features_that_are_no_numbers_are_named(estimator_class, kind):
    features, message = BAD_FEATURES[kind]
    for name, call in calls_with_features(estimator_class, features):
        with pytest.raises((TypeError, ValueError), match=message.replace("NAME", name)):
            call()


def test_many_columns_are_not_all_listed():
    table = np.full((40, 12), "a", dtype=object)
    with pytest.raises(ValueError, match="in columns 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"):
        SubquadMLPRegressor(**SETTINGS).fit(table, LABELS)


def objects(*values):
    """A column of objects, these over and over."""
    column = np.empty(40, dtype=object)
    column[:] = [values[i % len(values)] for i in range(40)]
    return column


SHAPE = "NAME must be an array of one column of values, or of several; got"
BAD_TARGETS = {
    "scalar": (3.0, SHAPE),
    "string": ("abc", SHAPE),
    "three dimensions": (LABELS[:, None, None], SHAPE),
    "empty": ([], SHAPE),
    "fields": (np.zeros(40, dtype=[("a", float)]), SHAPE),
    "dict": ({"a": 1}, SHAPE),
    "ragged": ([[1]] * 39 + [[1, 2]], "NAME must be one column of values, or several of one length and kind"),
    "complex": (LABELS + 1j, "Complex data not supported: NAME is complex"),
    "None": (objects(None, 1), "NAME holds missing"),
    "nan among strings": (objects("a", np.nan), "NAME holds missing"),
    "nan": (np.where(LABELS, np.nan, 1.0), "Input NAME contains NaN"),
    "infinity": (np.where(LABELS, np.inf, 1.0), "Input NAME contains infinity"),
    "dates and numbers": (
        frame(when=DATES),
        "NAME (must be numeric|holds dates, durations or periods in columns 'when')",
    ),
}


@BOTH
@pytest.mark.parametrize("kind", BAD_TARGETS)
def test_targets_that_are_none_are_named(estimator_class, kind):
    y, message = BAD_TARGETS[kind]
    for name, call in calls_with_targets(estimator_class, y):
        with pytest.raises(ValueError, match=message.replace("NAME", name)):
            call()


@BOTH
def test_a_score_needs_targets(estimator_class):
    with pytest.raises(ValueError, match="y is None: pass the targets"):
        estimator_class(**SETTINGS).fit(X, LABELS).score(X, None)


@pytest.mark.parametrize(
    "y",
    [objects("a", "b"), objects("a", 1), objects([1]), OBJECT_DATES, frame(colour="red")],
    ids=lambda y: str(y)[:20],
)
def test_targets_of_a_regressor_that_are_no_numbers_are_named(y):
    for name, call in calls_with_targets(SubquadMLPRegressor, y):
        with pytest.raises(ValueError, match=rf"^{name} must be numeric .*\(dates as days since a date\)"):
            call()


@pytest.mark.parametrize(
    ("y", "types"),
    [(objects("a", 1), "int"), (objects(1, 2.5), "float, int"), (OBJECT_DATES, "Timestamp"), (objects([1]), "list")],
    ids=["strings and numbers", "numbers", "dates", "lists"],
)
def test_classes_that_are_objects_are_named(y, types):
    for name, call in list(calls_with_targets(SubquadMLPClassifier, y))[:3]:
        with pytest.raises(
            ValueError, match=rf"^Unknown label type: {name} holds objects of type {types}, .* {name}.astype\(str\)"
        ):
            call()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, None], "classes holds missing values"),
        ([0, np.nan], "classes holds nan or infinite numbers"),
        ("ab", "classes must be an array"),
        ([[1], [1, 2]], "classes must be one column"),
        (objects("a", 1)[:2], "classes must be numbers or strings, all of one type"),
    ],
)
def test_classes_of_all_parts_that_are_none_are_named(classes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        SubquadMLPClassifier(**SETTINGS).partial_fit(X, LABELS, classes=classes)


# NumPy compares with few classes one by one, and sorts many.
@pytest.mark.parametrize("n_classes", [2, 100])
@pytest.mark.parametrize("y", [objects("a", "b"), DATES], ids=["strings", "dates"])
def test_labels_of_another_type_are_not_among_the_classes(n_classes, y):
    model = SubquadMLPClassifier(**SETTINGS).partial_fit(X, LABELS, classes=np.arange(n_classes))
    with pytest.raises(ValueError, match=r"^y holds \[.*\], but the known classes are \[0, 1"):
        model.partial_fit(X, y)


@BOTH
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["a"] * 40, "sample_weight must hold real numbers: could not convert"),
        ({0: 1}, "sample_weight must hold real numbers: float"),
        ([[1]] * 39 + [[1, 2]], "sample_weight must hold real numbers: setting an array element"),
        (with_a_gap(DATES), "sample_weight holds missing dates"),
    ],
    ids=["strings", "dict", "ragged", "dates with a gap"],
)
def test_weights_that_are_no_numbers_are_named(estimator_class, weights, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        estimator_class(**SETTINGS).fit(X, LABELS, sample_weight=weights)
    with pytest.raises(ValueError, match=f"^sample_weight_val, of the validation set: {message}"):
        estimator_class(**SETTINGS).fit(X, LABELS, X_val=X, y_val=LABELS, sample_weight_val=weights)


def test_numbers_are_not_looked_at():
    class Numbers(np.ndarray):
        """An array whose values nobody may ask for."""

        def __getitem__(self, index):
            raise AssertionError

        def __array_ufunc__(self, *args, **kwargs):
            raise AssertionError

    with named_errors(X.view(Numbers), "X"):
        pass


def test_dates_alone_are_numbers():
    frame = pd.DataFrame({"when": DATES})
    numbers = frame.astype(np.int64)
    dated, numbered = (SubquadMLPRegressor(**SETTINGS).fit(rows, X[:, 0]) for rows in (frame, numbers))
    assert np.array_equal(dated.predict(frame), numbered.predict(numbers))


def test_sparse_targets_of_a_regressor_are_refused():
    with pytest.raises(ValueError, match=r"y is sparse, but SubquadMLPRegressor .* pass y.toarray\(\)"):
        SubquadMLPRegressor(**SETTINGS).fit(X, sparse.csr_array(X[:, :1]))
    with pytest.raises(ValueError, match=r"y_val is sparse, but SubquadMLPRegressor .* pass y_val.toarray\(\)"):
        SubquadMLPRegressor(**SETTINGS).fit(X, LABELS, X_val=X, y_val=sparse.csr_array(X[:, :1]))


@BOTH
def test_wrong_arguments_name_the_public_class(estimator_class):
    for wrong in (lambda: estimator_class(solver="adam"), lambda: estimator_class(64)):
        with pytest.raises(TypeError, match=rf"^{estimator_class.__name__}\.__init__\(\)"):
            wrong()


def test_constructors_have_the_same_parameters_and_defaults():
    regressor, classifier = (inspect.signature(each).parameters for each in (SubquadMLPRegressor, SubquadMLPClassifier))
    assert [name for name in classifier if name != "class_weight"] == list(regressor)
    assert all(regressor[name].default == classifier[name].default for name in regressor)
    model = SubquadMLPRegressor(**{name: object() for name in regressor})
    assert {name: id(value) for name, value in model.get_params(deep=False).items()} == {
        name: id(getattr(model, name)) for name in regressor
    }
    assert len({id(getattr(model, name)) for name in regressor}) == len(regressor)


@BOTH
@pytest.mark.parametrize("value", [True, 1, np.True_], ids=repr)
def test_early_stopping_true_is_told_what_to_say(estimator_class, value):
    with pytest.raises(ValueError, match="for True, use 'auto', or 'validation' to hold rows out"):
        estimator_class(early_stopping=value, **SETTINGS).fit(X, LABELS)
