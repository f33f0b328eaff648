"""Missing dates, dates among features, and messages that name what is wrong."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

SETTINGS = {"hidden_layer_sizes": (16, 16), "max_iter": 2, "random_state": 0}
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
}


def with_a_gap(times):
    """The same with the fourth one missing."""
    times = times.copy()
    if isinstance(times, pd.Series):
        times.iloc[3] = pd.NaT
    else:
        times[3] = "NaT"
    return times


@BOTH
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("kind", TIMES)
def test_missing_times_are_missing_targets(estimator_class, kind, method):
    with pytest.raises(ValueError, match=r"y holds missing (targets|labels): drop these rows"):
        getattr(estimator_class(**SETTINGS), method)(X, with_a_gap(TIMES[kind]))


@pytest.mark.parametrize("kind", ["dates", "durations", "series"])
def test_times_are_numbers_in_their_own_unit(kind):
    model = SubquadMLPRegressor(**SETTINGS).fit(X, TIMES[kind])
    numbers = np.asarray(TIMES[kind]).astype(np.int64)
    assert numbers.min() - 1e15 < model.predict(X).mean() < numbers.max() + 1e15


@pytest.mark.parametrize("kind", ["dates", "days"])
def test_dates_are_classes(kind):
    model = SubquadMLPClassifier(**SETTINGS).fit(X, TIMES[kind])
    assert set(model.predict(X)) <= set(TIMES[kind])


@BOTH
@pytest.mark.parametrize(
    ("table", "where"),
    [
        (np.column_stack([with_a_gap(DATES), DATES]), "X holds missing dates"),
        (pd.DataFrame({"a": DATES, "b": with_a_gap(DATES)}), "X holds missing dates .* in columns 'b'"),
        (pd.DataFrame({"number": X[:, 0], "when": DATES}), "X holds dates, .* in columns 'when'.*days since a date"),
        (pl.DataFrame({"number": X[:, 0], "when": DATES}), "X holds dates, .* in columns 'when'.*days since a date"),
    ],
    ids=["array", "frame", "mixed frame", "mixed polars frame"],
)
def test_times_among_features_are_named(estimator_class, table, where):
    y = np.arange(40) % 2
    with pytest.raises(ValueError, match=where):
        estimator_class(**SETTINGS).fit(table, y)
    with pytest.raises(ValueError, match=where.replace("X", "X_val")):
        estimator_class(**SETTINGS).fit(X[:, :2], y, X_val=table, y_val=y)
    with pytest.raises(ValueError, match=where):
        estimator_class(**SETTINGS).fit(X[:, :2], y).predict(table)


def test_dates_alone_are_numbers():
    frame = pd.DataFrame({"when": DATES})
    numbers = frame.astype(np.int64)
    dated, numbered = (SubquadMLPRegressor(**SETTINGS).fit(rows, X[:, 0]) for rows in (frame, numbers))
    assert np.array_equal(dated.predict(frame), numbered.predict(numbers))


def test_sparse_targets_of_a_regressor_are_refused():
    with pytest.raises(ValueError, match=r"y is sparse, but SubquadMLPRegressor .* pass y.toarray\(\)"):
        SubquadMLPRegressor(**SETTINGS).fit(X, sparse.csr_array(X[:, :1]))


@BOTH
def test_wrong_arguments_name_the_public_class(estimator_class):
    for wrong in (lambda: estimator_class(solver="adam"), lambda: estimator_class(64)):
        with pytest.raises(TypeError, match=rf"^{estimator_class.__name__}\.__init__\(\)"):
            wrong()


@BOTH
def test_early_stopping_true_is_told_what_to_say(estimator_class):
    with pytest.raises(ValueError, match="for True, use 'auto', or 'validation' to hold rows out"):
        estimator_class(early_stopping=True, **SETTINGS).fit(X, np.arange(40) % 2)
