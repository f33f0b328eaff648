"""Frames and series of polars and pandas: what scikit-learn's estimators make of them, ours do."""

import importlib.util

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
# For the type checks of parameters below, polars may be missing.
HAS_POLARS = importlib.util.find_spec("polars") is not None
if HAS_POLARS:
    import polars

needs_polars = pytest.mark.skipif(not HAS_POLARS, reason="polars is not installed")
ESTIMATORS = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
LIBRARIES = pytest.mark.parametrize("library", [pytest.param("polars", marks=needs_polars), "pandas"])


def _knows_names_of_polars():
    """Old versions of scikit-learn see no names in frames of new versions of polars."""
    return HAS_POLARS and hasattr(StandardScaler().fit(polars.DataFrame({"a": [0.0, 1.0]})), "feature_names_in_")


NAMED_LIBRARIES = pytest.mark.parametrize(
    "library",
    [
        pytest.param(
            "polars",
            marks=pytest.mark.skipif(
                not _knows_names_of_polars(), reason="polars is not installed, or this scikit-learn sees no names in it"
            ),
        ),
        "pandas",
    ],
)
SETTINGS = {"hidden_layer_sizes": 16, "max_iter": 3, "early_stopping": False, "random_state": 0}
NAMES = ["height", "weight", "age"]


def data(estimator_class, n=40):
    X = np.random.default_rng(0).standard_normal((n, 3))
    y = X[:, 0] - X[:, 1]
    return X, y if estimator_class is SubquadMLPRegressor else np.where(y > 0, "yes", "no")


def frame(library, X):
    columns = dict(zip(NAMES, X.T, strict=True))
    return polars.DataFrame(columns) if library == "polars" else pandas.DataFrame(columns)


def series(library, y):
    return polars.Series("target", y) if library == "polars" else pandas.Series(y, name="target")


def assert_same(found, expected):
    """Equal labels, or numbers to rounding: columns of frames lie in memory in another order."""
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    else:
        assert found.tolist() == expected.tolist()


def counterpart(estimator_class):
    """scikit-learn's estimator of the same kind."""
    mlp_class = MLPRegressor if estimator_class is SubquadMLPRegressor else MLPClassifier
    return mlp_class(hidden_layer_sizes=4, max_iter=2, random_state=0)


# ---- features ------------------------------------------------------------------------------------------------------


@NAMED_LIBRARIES
@ESTIMATORS
def test_frames_are_the_arrays_they_hold(estimator_class, library):
    X, y = data(estimator_class)
    expected = estimator_class(**SETTINGS).fit(X, y)
    model = estimator_class(**SETTINGS).fit(
        frame(library, X), series(library, y), sample_weight=series(library, y == y)
    )
    assert model.feature_names_in_.tolist() == NAMES
    assert_same(model.predict(frame(library, X)), expected.predict(X))
    assert model.score(frame(library, X), series(library, y)) == pytest.approx(expected.score(X, y))
    parts = estimator_class(**SETTINGS)
    classes = {"classes": ["no", "yes"]} if estimator_class is SubquadMLPClassifier else {}
    parts.partial_fit(frame(library, X), series(library, y), **classes)
    assert parts.feature_names_in_.tolist() == NAMES


@LIBRARIES
@ESTIMATORS
def test_frames_are_validation_sets_and_are_cut_into_folds(estimator_class, library):
    X, y = data(estimator_class)
    settings = SETTINGS | {"early_stopping": "validation"}
    model = estimator_class(**settings).fit(
        frame(library, X), series(library, y), X_val=frame(library, X), y_val=series(library, y)
    )
    expected = estimator_class(**settings).fit(X, y, X_val=X, y_val=y)
    assert model.validation_scores_ == pytest.approx(expected.validation_scores_)
    scores = cross_val_score(estimator_class(**SETTINGS), frame(library, X), series(library, y), cv=2)
    assert_same(scores, cross_val_score(estimator_class(**SETTINGS), X, y, cv=2))


@NAMED_LIBRARIES
@pytest.mark.parametrize("change", ["order", "names", "number"])
@ESTIMATORS
def test_other_columns_are_named_as_by_scikit_learn(estimator_class, change, library):
    X, y = data(estimator_class)
    known = frame(library, X)
    other = {
        "order": known[NAMES[::-1]],
        "names": known.rename({"age": "years"}) if library == "polars" else known.rename(columns={"age": "years"}),
        "number": known[NAMES[:2]],
    }[change]
    messages = []
    for model in (estimator_class(**SETTINGS), counterpart(estimator_class)):
        with pytest.raises(ValueError, match="feature names should match") as refused:
            model.fit(known, y).predict(other)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@NAMED_LIBRARIES
@ESTIMATORS
def test_arrays_after_frames_are_warned_of(estimator_class, library):
    X, y = data(estimator_class)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        estimator_class(**SETTINGS).fit(frame(library, X), y).predict(X)
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        estimator_class(**SETTINGS).fit(X, y).predict(frame(library, X))


@needs_polars
@ESTIMATORS
def test_polars_columns_of_other_types(estimator_class):
    X, y = data(estimator_class)
    X = np.round(4 * X)
    integers = frame("polars", X).with_columns(polars.col("age").cast(polars.Int16))
    expected = estimator_class(**SETTINGS).fit(X, y).predict(X)
    assert_same(estimator_class(**SETTINGS).fit(integers, y).predict(integers), expected)
    model = estimator_class(**SETTINGS).fit(integers, y)
    with pytest.raises(ValueError, match="could not convert string to float: 'tall', in columns 'height'"):
        model.predict(integers.with_columns(polars.lit("tall").alias("height")))


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "Float32", "boolean"])
@ESTIMATORS
def test_nullable_columns_of_pandas(estimator_class, dtype):
    X, y = data(estimator_class)
    X = X > 0
    nullable = frame("pandas", X.astype(int)).astype(dtype)
    expected = estimator_class(**SETTINGS).fit(X, y).predict(X)
    model = estimator_class(**SETTINGS).fit(nullable, y)
    assert_same(model.predict(nullable), expected)
    missing = nullable.copy()
    missing.loc[3, "age"] = pandas.NA
    # A column that had no gaps has its mean there, in all rows but that one the same.
    assert model.predict(missing)[4:].tolist() == model.predict(nullable)[4:].tolist()
    fitted = estimator_class(**SETTINGS).fit(missing, y)
    assert fitted.predict(missing).tolist() == fitted.predict(missing.astype("float64")).tolist()


# ---- targets -------------------------------------------------------------------------------------------------------


def labels_of_every_kind():
    yield "pandas-object", lambda y: pandas.Series(y, dtype=object)
    yield "pandas-string", lambda y: pandas.Series(y, dtype="string")
    yield "pandas-category", lambda y: pandas.Series(y, dtype="category")
    # In another order than the sorted one, and with a category that no row has.
    yield "pandas-ordered", lambda y: pandas.Series(pandas.Categorical(y, ["yes", "never", "no"], ordered=True))
    yield "polars-string", lambda y: polars.Series(y)
    yield "polars-categorical", lambda y: polars.Series(y, dtype=polars.Categorical)
    yield "polars-enum", lambda y: polars.Series(y, dtype=polars.Enum(["yes", "never", "no"]))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[needs_polars] if name.startswith("polars") else [])
        for name, make in labels_of_every_kind()
    ],
)
@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_labels_of_every_kind_are_strings(make, loss):
    X, y = data(SubquadMLPClassifier)
    expected = SubquadMLPClassifier(**SETTINGS, loss=loss).fit(X, y)
    model = SubquadMLPClassifier(**SETTINGS, loss=loss).fit(X, make(y))
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.predict(X).tolist() == expected.predict(X).tolist()
    assert model.score(X, make(y)) == expected.score(X, y)
    parts = SubquadMLPClassifier(**SETTINGS, loss=loss).partial_fit(X, make(y), classes=["no", "yes"])
    parts.partial_fit(X[:3], make(y[:3]))
    assert set(parts.predict(X)) <= {"no", "yes"}


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
@ESTIMATORS
def test_nullable_targets_of_pandas_are_numbers(estimator_class, dtype):
    X, _ = data(estimator_class)
    y = (X[:, 0] > 0).astype(int)
    nullable = pandas.Series(y).astype(dtype)
    assert_same(
        estimator_class(**SETTINGS).fit(X, nullable).predict(X), estimator_class(**SETTINGS).fit(X, y).predict(X)
    )
    nullable[5] = pandas.NA
    message = r"Input y contains NaN|y must be numeric for a regressor, but .*NAType|y holds missing (targets|labels)"
    with pytest.raises(ValueError, match=message):
        estimator_class(**SETTINGS).fit(X, nullable)


@pytest.mark.parametrize(
    "missing",
    [
        lambda y: pandas.Series([pandas.NA, *y[1:]], dtype="string"),
        lambda y: pandas.Series([pandas.NA, *y[1:]], dtype=object),
        lambda y: pandas.Series([None, *y[1:]], dtype="category"),
        lambda y: np.array([None, *y[1:]], dtype=object),
        lambda y: np.array([np.nan, *y[1:]], dtype=object),
        pytest.param(lambda y: polars.Series([None, *y[1:]]), marks=needs_polars),
    ],
    ids=["string", "NA", "category", "None", "nan", "polars"],
)
def test_missing_labels_are_named(missing):
    X, y = data(SubquadMLPClassifier)
    model = SubquadMLPClassifier(**SETTINGS)
    for call in (
        lambda: model.fit(X, missing(y)),
        lambda: model.fit(X, y, X_val=X, y_val=missing(y)),
        lambda: model.partial_fit(X, missing(y), classes=["no", "yes"]),
        lambda: model.partial_fit(X, y, classes=["no", "yes"]).partial_fit(X, missing(y)),
    ):
        with pytest.raises(ValueError, match=r"^y(_val)? holds missing labels: drop these rows"):
            call()


@needs_polars
def test_missing_targets_of_polars_are_named():
    X, y = data(SubquadMLPRegressor)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        SubquadMLPRegressor(**SETTINGS).fit(X, polars.Series([None, *y[1:]]))


@LIBRARIES
@ESTIMATORS
def test_a_frame_of_one_target_is_a_column_with_a_warning_as_in_scikit_learn(estimator_class, library):
    X, y = data(estimator_class)
    column = series(library, y).to_frame()
    for model in (estimator_class(**SETTINGS), counterpart(estimator_class)):
        with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
            model.fit(X, column)
        assert model.predict(X).shape == (len(X),)
    expected = estimator_class(**SETTINGS).fit(X, y)
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        model = estimator_class(**SETTINGS).fit(X, column)
    assert_same(model.predict(X), expected.predict(X))


@LIBRARIES
def test_a_frame_of_several_targets(library):
    X, _ = data(SubquadMLPRegressor)
    targets = frame(library, X @ np.diag([1.0, -2.0, 3.0]))
    model = SubquadMLPRegressor(**SETTINGS).fit(X, targets)
    assert model.predict(X).shape == (len(X), 3)
    labels = frame(library, (X > 0).astype(int))
    assert SubquadMLPClassifier(**SETTINGS).fit(X, labels).predict(X).shape == (len(X), 3)
