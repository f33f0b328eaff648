"""Sparse network inputs and weights that combine their rows, against the same as arrays."""

import numpy as np
import pytest
from scipy import sparse

from sklearn_subquad._linalg.columnwise import ColumnwiseSum
from sklearn_subquad._linalg.features import DenseFeatures, SparseFeatures
from sklearn_subquad._linalg.row_span import RowSpan, as_array, moving_part, products, with_moving_part
from sklearn_subquad._linalg.sparse_rows import SparseRows

# Rows, columns (the last is the constant), density of the entries.
CASES = [(1, 2, 0.5), (70, 9, 0.3), (130, 300, 0.05), (40, 700, 0.01), (90, 30, 0.0), (65, 20, 1.0)]
DTYPES = [np.float32, np.float64]


def make(case, dtype, spanned=False):
    """Network inputs, and the same as an array."""
    n, d, density = case
    rng = np.random.default_rng(0)
    stored = rng.standard_normal((n, d)) * (rng.uniform(size=(n, d)) < density)
    origin = rng.standard_normal(d) * (rng.uniform(size=d) < 0.5)
    stored[:, -1], origin[-1] = 0, 0.5
    # Empty rows and columns.
    stored[n // 2], stored[:, 0], origin[0] = 0, 0, 0
    x = SparseFeatures(sparse.csr_array(stored.astype(dtype)), origin.astype(dtype))
    return RowSpan(x).features() if spanned else x, (stored + origin).astype(dtype)


def sparse_rows(n, m, dtype):
    rng = np.random.default_rng(1)
    return SparseRows.from_csr(
        sparse.csr_array((rng.standard_normal((n, m)) * (rng.uniform(size=(n, m)) < 0.3)).astype(dtype))
    )


def weights(m, d, dtype, density=1.0):
    rng = np.random.default_rng(2)
    return (rng.standard_normal((m, d)) * (rng.uniform(size=(m, d)) < density)).astype(dtype)


def near(found, expected, precision=np.float64):
    assert found.dtype == expected.dtype
    largest = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=200 * np.finfo(precision).eps * largest)


def dense_sum(x, W):
    dense, terms = products(x, W)
    return ColumnwiseSum((len(x), len(as_array(W))), x.dtype, dense, terms).dense()


OPERATIONS = {
    "to_array": lambda x: x.to_array(),
    "row_norms": lambda x: x.row_norms(),
    "nonzero_columns": lambda x: x.nonzero_columns().astype(float),
    "columns of the Gram matrix": lambda x: x.gram_columns(0, min(64, len(x.to_array()))),
    "later columns of it": lambda x: x.gram_columns(64, 65),
    "transposed_times": lambda x: x.transposed_times(weights(x.to_array().shape[0], 3, x.to_array().dtype)),
}


@pytest.mark.parametrize("spanned", [False, True], ids=["", "spanned"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operations_are_those_of_the_array(case, operation, dtype, spanned):
    x, array = make(case, dtype, spanned)
    if operation == "later columns of it" and case[0] < 65:
        pytest.skip("no such columns")
    near(OPERATIONS[operation](x), OPERATIONS[operation](DenseFeatures(array)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shares_of_squares_are_those_of_the_array(case, dtype):
    x, array = make(case, dtype)
    weight = np.random.default_rng(3).uniform(size=len(x))
    found, expected = x.relative_squares(weight), DenseFeatures(array).relative_squares(weight)
    near(found / (found.sum() or 1.0), expected / (expected.sum() or 1.0), dtype)
    assert not SparseFeatures(0 * x.stored, 0 * x.origin).relative_squares(weight).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_variances_are_those_of_the_array(case, dtype):
    x, array = make(case, dtype)
    weight = np.random.default_rng(3).uniform(size=len(x))
    array = array.astype(np.float64)
    mean = np.average(array, axis=0, weights=weight)
    near(x.variances(weight), np.average((array - mean) ** 2, axis=0, weights=weight), dtype)


@pytest.mark.parametrize("spanned", [False, True], ids=["", "spanned"])
@pytest.mark.parametrize("rows", [slice(3, 50), slice(None, None, 2), np.array([5, 9, 30]), np.arange(70) % 3 == 1])
def test_some_rows(rows, spanned):
    x, array = make(CASES[1], np.float64, spanned)
    near(x[rows].to_array(), array[rows])
    u = sparse_rows(len(array[rows]), 30, np.float64)
    near(as_array(x[rows].combiner()(u)), u.to_csr().T @ array[rows])
    if spanned:
        near(x[rows].gram_columns(0, 2), array[rows] @ array[rows][:2].T)


@pytest.mark.parametrize("spanned", [False, True], ids=["", "spanned"])
@pytest.mark.parametrize("m", [5, 70, 700])
@pytest.mark.parametrize("start", [0.02, 1.0], ids=["sparse start", "dense start"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights_change_as_dense_ones(case, start, m, spanned):
    x, array = make(case, np.float64, spanned)
    W = weights(m, case[1], np.float64, start)
    found = x.trainable(W)
    near(dense_sum(x, found), array @ W.T)
    for n_changes in range(1, 3):
        rows = np.arange(0, len(x), n_changes)
        u = sparse_rows(len(rows), m, np.float64)
        change, expected = x[rows].combiner()(u), u.to_csr().T @ array[rows]
        near(dense_sum(x, change), array @ expected.T)
        found, W = found + change, W + expected
    near(as_array(found), W)
    near(dense_sum(x, found), array @ W.T)
    # Combinations of rows may have weights of every input that any row has.
    may_have = weights(m, case[1], np.float64, start).any(axis=0) | array.any(axis=0) if spanned else W.any(axis=0)
    np.testing.assert_array_equal(found.any(axis=0), may_have)
    assert not (W.any(axis=0) & ~may_have).any()
    # Rows that are not among those of the span.
    other = SparseFeatures(make((33, *case[1:]), np.float64)[0].stored, x.origin)
    near(dense_sum(other, found), other.to_array() @ W.T)


def test_copies_and_states_are_the_same_weights():
    x, array = make(CASES[2], np.float64, spanned=True)
    start = x.trainable(weights(20, array.shape[1], np.float64, 0.02))
    near(as_array(start.copy()), as_array(start))
    found = start + x.combiner()(sparse_rows(len(x), 20, np.float64))
    expected, copied = as_array(found), found.copy()
    near(as_array(with_moving_part(copied, 2 * moving_part(copied))), 2 * expected - as_array(start))
    moving_part(copied)[:] = 0
    near(as_array(copied), as_array(start))
    near(as_array(found), expected)
    for each in (start, found):
        again = type(each).from_state(each.to_state(), RowSpan.from_state(each.span.to_state()))
        near(as_array(again), as_array(each))


@pytest.mark.parametrize("dtype", DTYPES)
def test_cleared_columns_are_zero(dtype):
    x, array = make(CASES[1], dtype)
    near(x.cleared([1, 4]).to_array(), DenseFeatures(array).cleared([1, 4]), dtype)
    assert not array[:, [1, 4]].any()
