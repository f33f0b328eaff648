"""What columns of a table are made into, beside a loop over cells."""

import numpy as np
import pandas as pd
import pytest

from sklearn_subquad._fit.columns import Columns, categorical_mask
from sklearn_subquad._utils.frames import Table

TABLE = pd.DataFrame(
    {
        "number": [1.5, np.nan, 3.0, 4.0],
        "two": ["b", "a", "b", "a"],
        "three": ["x", None, "z", "y"],
        "many": ["p", "q", "r", "s"],
        "whole": [1, 2, 3, 4],
        "one": ["only"] * 4,
        "none": [None] * 4,
    }
)


def fitted(frame=TABLE, categorical=None, max_indicators=3):
    columns = Columns.of_table(Table.of(frame), categorical, "X")
    return Columns(columns.levels, columns.gaps, max_indicators)


def transformed(columns, frame):
    return columns.transform(*columns.read(Table.of(frame), "X"))


def test_columns_are_in_the_order_that_is_documented():
    nan = np.nan
    columns = fitted()
    expected = np.array(
        # number, two, whole, one, none; x, y, z; gaps in number, three, none; many
        [
            [1.5, 1, 1, 0, nan, 1, 0, 0, 0, 0, 1, 0],
            [nan, 0, 2, 0, nan, 0, 0, 0, 1, 1, 1, 1],
            [3.0, 1, 3, 0, nan, 0, 0, 1, 0, 0, 1, 2],
            [4.0, 0, 4, 0, nan, 0, 1, 0, 0, 0, 1, 3],
        ]
    )
    np.testing.assert_array_equal(transformed(columns, TABLE), expected)
    assert columns.origins(1).tolist() == [0, 1, 4, 5, 6, 2, 2, 2, 0, 2, 6, 3]
    # A mean of every target.
    assert columns.origins(3).tolist() == [0, 1, 4, 5, 6, 2, 2, 2, 0, 2, 6, 3, 3, 3]
    assert columns.n_levels.tolist() == [4]
    assert columns.n_indicators == 6


def test_unknown_levels_and_gaps_that_are_new_are_neither_level_nor_gap():
    new = pd.DataFrame(
        {
            "number": [1.0],
            "two": ["c"],
            "three": ["w"],
            "many": [None],
            "whole": [np.nan],
            "one": [""],
            "none": ["word"],
        }
    )
    np.testing.assert_array_equal(transformed(fitted(), new)[0], [1] + [np.nan] * 4 + [0] * 6 + [np.nan])


def test_the_order_of_rows_and_the_type_of_a_level_do_not_matter():
    codes = pd.DataFrame({"c": [3, 1, 2, 1]})
    mask = np.array([True])
    columns = fitted(codes, mask)
    expected = transformed(columns, codes)
    for other in (codes.astype(float), codes.astype(str), codes.astype("category"), codes.astype("Int64")):
        np.testing.assert_array_equal(transformed(columns, other), expected)
        np.testing.assert_array_equal(transformed(fitted(other[::-1], mask), codes), expected)


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float32", "float64"), ("float32", "int32")])
def test_numbers_in_single_precision_stay_in_it(dtypes):
    frame = pd.DataFrame({"a": np.ones(3), "b": np.ones(3), "c": ["u", "v", "u"]})
    frame = frame.astype({"a": dtypes[0], "b": dtypes[1]})
    expected = np.float32 if dtypes[1] == "float32" else np.float64
    assert transformed(fitted(frame), frame).dtype == expected


def test_state_is_plain_and_comes_back():
    state = fitted().to_state()
    assert {type(each) for each in state["levels"]} == {np.ndarray, type(None)}
    assert all(each is None or each.dtype.kind == "U" for each in state["levels"])
    np.testing.assert_array_equal(transformed(Columns.from_state(state), TABLE), transformed(fitted(), TABLE))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, [False] * 3),
        ([], [False] * 3),
        ([1], [False, True, False]),
        (["c", "a"], [True, False, True]),
        ([True, False, False], [True, False, False]),
        (np.array([0, 2]), [True, False, True]),
    ],
)
def test_masks(asked, expected):
    X = pd.DataFrame({"a": [0], "b": [0], "c": [0]})
    assert categorical_mask(asked, X, Table.of(X)).tolist() == expected
    assert categorical_mask("from_dtype", X, Table.of(X)) is None


@pytest.mark.parametrize("asked", [[3], [-1], ["d"], [True, False], [0.5], [[0, 1]], [None], ["a", 1]])
def test_what_names_no_column_is_refused(asked):
    X = pd.DataFrame({"a": [0], "b": [0], "c": [0]})
    with pytest.raises(
        ValueError, match="categorical_features must be 'from_dtype', None, or a mask, indices or names"
    ):
        categorical_mask(asked, X, Table.of(X))


def test_names_need_a_frame():
    with pytest.raises(ValueError, match="the names are none, because X is no frame"):
        categorical_mask(["a"], np.zeros((2, 2)), Table.of(np.zeros((2, 2))))
