"""Tables as people have them: what is accepted, what is refused with the name of the column, and what it means."""

import decimal
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SETTINGS = {"hidden_layer_sizes": 16, "max_iter": 2, "early_stopping": False, "random_state": 0}
N = 60
rng = np.random.default_rng(0)
x = rng.standard_normal(N)
words = np.array(["red", "green", "blue"])[rng.integers(0, 3, N)]
gaps = rng.random(N) < 0.2
y = x + (words == "red") + 0.1 * rng.standard_normal(N)


def table(column, **others):
    return pd.DataFrame({"x": x, "c": column, **others})


def gappy(values, **options):
    return pd.array([None if gap else value for gap, value in zip(gaps, values, strict=True)], **options)


def arrow(kind):
    return pd.ArrowDtype(kind)


ACCEPTED = {
    "no value at all": table(np.nan),
    "no object at all": table(pd.Series([None] * N, dtype=object)),
    "one level": table("a"),
    "two levels": table(np.where(x > 0, "a", "b")),
    "words": table(words),
    "a level of every row": table([f"id{i}" for i in range(N)]),
    "a level seen once": table(["rare", *(["a", "b", "c"] * 20)[1:]]),
    "nullable integers": table(gappy([1] * N, dtype="Int64")),
    "nullable truth values": table(gappy(x > 0, dtype="boolean")),
    "truth values": table(x > 0),
    "truth values as objects": table(pd.Series(gappy(x > 0), dtype=object)),
    "decimals as text": table([f"{value:.2f}" for value in x]),
    "decimals": table([decimal.Decimal(f"{value:.2f}") for value in x]),
    "decimals with a comma": table([f"{value:.2f}".replace(".", ",") for value in x]),
    "dates as text": table(pd.date_range("2024", periods=N).astype(str)),
    "empty strings": table(np.where(gaps, "", words)),
    "text of numbers and nothing": table(np.where(gaps, " ", [f"{value:.2f}" for value in x])),
    "a category of numbers": table(pd.Categorical(rng.integers(0, 4, N))),
    "an ordered category": table(pd.Categorical(words, ["red", "green", "blue", "white"], ordered=True)),
    "a category with gaps": table(pd.Categorical(gappy(words, dtype="string"))),
    "a category of intervals": table(pd.cut(x, 4)),
    "pandas strings": table(gappy(words, dtype="string")),
    "arrow strings": table(gappy(words, dtype=arrow(pa.string()))),
    "arrow dictionary": table(gappy(words, dtype=arrow(pa.dictionary(pa.int32(), pa.string())))),
    "arrow integers": table(gappy([1] * N, dtype=arrow(pa.int64()))),
    "arrow truth values": table(gappy([True] * N, dtype=arrow(pa.bool_()))),
    "arrow decimals": table(pd.array([decimal.Decimal("1.5")] * N, dtype=arrow(pa.decimal128(5, 2)))),
    "sparse column and words": table(pd.arrays.SparseArray(np.where(gaps, 0, x)), w=words),
    "large integers": table(rng.integers(0, 2**62, N)),
    "numbers as names": pd.DataFrame({0: x, 1: words}),
    "polars enum": pl.DataFrame({"x": x, "c": pl.Series(words, dtype=pl.Enum(["red", "green", "blue", "white"]))}),
    "polars categorical": pl.DataFrame({"x": x, "c": pl.Series(words, dtype=pl.Categorical)}),
    "polars strings": pl.DataFrame({"x": x, "c": [None if gap else w for gap, w in zip(gaps, words, strict=True)]}),
    "polars integers with gaps": pl.DataFrame({"x": x, "c": [None if gap else 1 for gap in gaps]}),
    "polars truth values with gaps": pl.DataFrame({"x": x, "c": [None if gap else True for gap in gaps]}),
    "polars nothing": pl.DataFrame({"x": x, "c": [None] * N}),
    "pyarrow table": pa.table({"x": x, "c": [None if gap else w for gap, w in zip(gaps, words, strict=True)]}),
    "pyarrow dictionary": pa.table({"x": x, "c": pa.array(list(words)).dictionary_encode()}),
    "objects with pandas.NA": np.array([[1.0, pd.NA], [2.0, 3]] * (N // 2), dtype=object),
    "lists with None": [[1.0, None], [2.0, 3]] * (N // 2),
}
# What boosting takes as well, and cannot make numbers of, is a column of objects; its name stands in the message.
REFUSED = {
    "words and numbers": (
        table(np.array([1, "a", 2.5] * 20, dtype=object)),
        "the word 'a' stands beside 1, in columns 'c'",
    ),
    "numbers and n/a": (
        table(np.array(["n/a", 2.5] * 30, dtype=object)),
        "the word 'n/a' .*'c'. Name columns of words in",
    ),
    "dates": (table(pd.date_range("2024", periods=N)), "dates, durations or periods in columns 'c'.*: turn them into"),
    "durations": (
        table(pd.to_timedelta(np.arange(N), "D")),
        "dates, durations or periods in columns 'c'.*: turn them into",
    ),
    "duplicate names": (pd.DataFrame(np.c_[x, x], columns=["c", "c"]), "several columns of the name 'c': rename them"),
    "duplicate names of words": (pd.concat([table(words)] * 2, axis=1), "several columns of the name 'x': rename them"),
    "lists": (table(pd.Series([[1, 2]] * N)), "unhashable type: 'list', in columns 'c'"),
    "polars lists": (pl.DataFrame({"x": x, "c": [[1, 2]] * N}), "in columns 'c'"),
    "polars structs": (pl.DataFrame({"x": x, "c": [{"a": 1}] * N}), "hold several values each, in columns 'c'"),
    "bytes": (table([b"a", b"b"] * 30), "in columns 'c'"),
    "complex": (table(x + 1j), "in columns 'c'"),
    "infinity": (table(np.where(gaps, np.inf, x)), "infinity in columns 'c': put in a number, or nan"),
    "infinity beside words": (table(np.where(gaps, np.inf, x), w=words), "infinity in columns 'c'"),
    "words in an array": (np.column_stack([x, words]).astype(object), "in columns 1. Name columns of words in"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepted(kind):
    X = ACCEPTED[kind]
    model = SubquadMLPRegressor(**SETTINGS).fit(X, y)
    predicted = model.predict(X)
    assert np.isfinite(predicted).all()
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), predicted)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    X, message = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        SubquadMLPRegressor(**SETTINGS).fit(X, y)


@pytest.mark.parametrize("kind", ["pyarrow table", "polars strings", "arrow strings", "arrow dictionary"])
def test_what_a_frame_is_made_of_does_not_matter(kind):
    expected = SubquadMLPRegressor(**SETTINGS).fit(ACCEPTED["pandas strings"], y)
    model = SubquadMLPRegressor(**SETTINGS).fit(ACCEPTED[kind], y)
    assert model.predict(ACCEPTED[kind]).tolist() == expected.predict(ACCEPTED["pandas strings"]).tolist()


@pytest.mark.parametrize("settings", [{}, {"early_stopping": "validation", "n_folds": 2}])
def test_words_are_the_columns_that_a_hand_makes(settings):
    """One column for each of three levels whose variances have the sum one, and one for gaps."""
    column = np.where(gaps, None, words)
    model = SubquadMLPRegressor(**SETTINGS | settings, n_bins=None).fit(table(column), y)
    X = np.column_stack([x, *(column == level for level in ("blue", "green", "red")), gaps])
    again = SubquadMLPRegressor(**SETTINGS | settings, n_bins=None).fit(X, y)
    # As many features; levels are heard less.
    assert [e._state_["input_mean"].tolist() for e in model.estimators_] == [
        e._state_["input_mean"].tolist() for e in again.estimators_
    ]
    for mine, other in zip(model.estimators_, again.estimators_, strict=True):
        ratio = mine._state_["input_scale"] / other._state_["input_scale"]
        np.testing.assert_allclose(ratio, np.array([1, 3, 3, 3, 1]) ** 0.25)


def test_two_levels_are_a_column_of_zeros_and_ones():
    column = np.where(x > 0, "yes", "no")
    model = SubquadMLPRegressor(**SETTINGS).fit(table(column), y)
    expected = SubquadMLPRegressor(**SETTINGS).fit(np.column_stack([x, x > 0]), y)
    assert model.predict(table(column)).tolist() == expected.predict(np.column_stack([x, x > 0])).tolist()


@pytest.mark.parametrize("kind", ["words", "many"])
def test_levels_that_are_unknown_or_missing_at_prediction_say_nothing(kind):
    column = words if kind == "words" else np.array([f"level{i % 20}" for i in range(N)])
    model = SubquadMLPRegressor(**SETTINGS).fit(table(column), y)
    predicted = [model.predict(table(new)).tolist() for new in ("never seen", None, np.nan, "")]
    assert all(each == predicted[0] for each in predicted)
    assert np.isfinite(predicted[0]).all()
    assert model.predict(table(column)).tolist() != predicted[0]


def test_a_gap_is_the_mean_of_its_column_and_says_so_where_there_were_gaps():
    with_gaps = np.column_stack([np.where(gaps, np.nan, x), words == "red"])
    model = SubquadMLPRegressor(**SETTINGS, n_bins=4).fit(with_gaps, y)
    _, inputs, _, _ = next(model._models())
    scaled = inputs.transform(model._validated_features(with_gaps, "X"))
    ramps = np.flatnonzero(inputs.encoding.feature_of_ramp == 0) + 3
    assert not scaled[gaps][:, [0, *ramps]].any()
    assert scaled[gaps][:, 2].min() > 0 > scaled[~gaps][:, 2].max()
    for new, indicator in ((x, scaled[~gaps, 2][0]), (np.nan, scaled[gaps, 2][0])):
        row = inputs.transform(model._validated_features(np.array([[np.ravel(new)[0], 1.0]]), "X"))
        assert row[0, 2] == indicator


def test_means_and_deviations_are_those_of_the_rows_without_gaps():
    from sklearn_subquad._fit.scaling import InputScaling, Ramps

    X = rng.standard_normal((N, 2)) * [1, 5] + [3, 0]
    X[::7, 1] = 1e3
    weight, missing = rng.random(N) + 0.5, rng.random(N) < 0.3
    holes = X.copy()
    holes[missing, 1] = np.nan
    found = InputScaling.fit(holes, weight, True, Ramps(4))
    expected = InputScaling.fit(X[~missing], weight[~missing], True, Ramps(4))
    np.testing.assert_allclose(found.mean[1], expected.mean[1])
    np.testing.assert_allclose(found.scale[1], expected.scale[1])
    np.testing.assert_array_equal(found.squash[1][1], expected.squash[1][1])
    np.testing.assert_array_equal(found.encoding.of_feature(1).knots, expected.encoding.of_feature(1).knots)


@pytest.mark.parametrize("order", ["rows", "levels"])
def test_orders_do_not_matter(order):
    column = np.where(gaps, None, words)
    expected = SubquadMLPRegressor(**SETTINGS).fit(table(column), y).predict(table(column))
    if order == "rows":
        turned = rng.permutation(N)
        model = SubquadMLPRegressor(**SETTINGS, precision="double").fit(table(column).iloc[turned], y[turned])
        np.testing.assert_allclose(model.predict(table(column)), expected, rtol=1e-6)
        return
    frame = table(pd.Categorical(column, ["red", "blue", "green"]))
    assert SubquadMLPRegressor(**SETTINGS).fit(frame, y).predict(frame).tolist() == expected.tolist()


def test_other_columns_have_the_error_of_scikit_learn():
    model = SubquadMLPRegressor(**SETTINGS).fit(table(words), y)
    for other in (table(words)[["c", "x"]], table(words)[["x"]], table(words).rename(columns={"c": "d"})):
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(other)


def test_numbers_in_the_place_of_words_are_named_as_words_in_the_place_of_numbers():
    model = SubquadMLPRegressor(**SETTINGS).fit(pd.DataFrame({"x": x, "c": x}), y)
    with pytest.raises(ValueError, match=r"could not convert string to float: .*, in columns 'c'"):
        model.predict(table(words))
    with pytest.raises(ValueError, match=r"X_val must hold real numbers: .*, in columns 'c'"):
        SubquadMLPRegressor(hidden_layer_sizes=16).fit(pd.DataFrame({"x": x, "c": x}), y, X_val=table(words), y_val=y)


@pytest.mark.parametrize("features", [[1], ["c"], [False, True]])
def test_codes_are_categories_where_they_are_named(features):
    codes = (words == "red") * 2 + (words == "blue") * 7
    named = SubquadMLPRegressor(**SETTINGS, categorical_features=features).fit(table(codes), y)
    expected = SubquadMLPRegressor(**SETTINGS).fit(table(codes.astype(str) + "!"), y)
    assert named.predict(table(codes)).tolist() == expected.predict(table(codes.astype(str) + "!")).tolist()
    with pytest.raises(ValueError, match="could not convert string to float"):
        SubquadMLPRegressor(**SETTINGS, categorical_features=None).fit(table(words), y)


def test_sparse_categories_are_refused():
    from scipy import sparse

    with pytest.raises(ValueError, match="X is sparse, but has categories: pass a frame"):
        SubquadMLPRegressor(**SETTINGS, categorical_features=[0]).fit(sparse.csr_array(np.ones((4, 2))), range(4))


def test_parts_know_the_levels_of_the_first():
    frame = table(np.where(gaps, None, words), many=[f"level{i % 20}" for i in range(N)])
    first, second = frame.iloc[:30], frame.iloc[30:].assign(c="unknown")
    model = SubquadMLPRegressor(hidden_layer_sizes=16, random_state=0).partial_fit(first, y[:30])
    known = pickle.dumps(model._columns_)
    model.partial_fit(second, y[30:])
    assert pickle.dumps(model._columns_) == known
    assert np.isfinite(model.predict(frame)).all()


@pytest.mark.parametrize("weights", [None, "integers"])
def test_equal_rows_with_gaps_are_one_row(weights):
    column = np.where(gaps, None, words)
    frame = table(column, gap=np.where(gaps, np.nan, x))
    twice = pd.concat([frame, frame])
    model = SubquadMLPRegressor(**SETTINGS).fit(twice, np.tile(y, 2))
    expected = SubquadMLPRegressor(**SETTINGS).fit(frame, y, None if weights is None else np.full(N, 2))
    assert model.predict(frame).tolist() == expected.predict(frame).tolist()


def classifier_data():
    frame = table(np.where(gaps, None, words), many=[f"level{i % 20}" for i in range(N)])
    return frame, np.where(y > 0.5, "high", np.where(y > -0.5, "middle", "low"))


def test_classes_skops_folds_and_warm_start():
    X, classes = classifier_data()
    model = SubquadMLPClassifier(hidden_layer_sizes=16, max_iter=2, n_folds=3, random_state=0).fit(X, classes)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (N, 3)
    # A mean of each class for each of the many levels, in every network that of its own rows.
    means = [network._state_["level_means"] for network in model.estimators_]
    assert [each.shape for each in means] == [(20, 3)] * 3
    assert not np.array_equal(means[0], means[1])
    stored = skops.io.dumps(model)
    loaded = skops.io.loads(stored, trusted=skops.io.get_untrusted_types(data=stored))
    assert np.array_equal(loaded.predict_proba(X), probabilities)
    again = model.set_params(warm_start=True, early_stopping=False).fit(X, classes)
    assert [np.array_equal(a, e._state_["level_means"]) for a, e in zip(means, again.estimators_, strict=True)] == [
        True
    ] * 3


def test_prediction_changes_nothing():
    X, classes = classifier_data()
    model = SubquadMLPClassifier(**SETTINGS).fit(X, classes)
    before, frame = pickle.dumps(model), X.copy()
    model.predict(X.assign(c="new"))
    assert pickle.dumps(model) == before
    pd.testing.assert_frame_equal(X, frame)
