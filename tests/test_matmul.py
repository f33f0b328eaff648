import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad import _matmul
from sklearn_subquad._matmul import (
    MATMUL_ROUTES,
    PackedMatrix,
    dense_product,
    masked,
    packed_times_rows,
    row_gram,
    rows_times_rows,
    strassen,
    transpose_rows,
    with_values,
)
from sklearn_subquad._parallel import worker_threads

DTYPES = [np.float32, np.float64]
# n_out, n_in: single numbers, ragged panels, and more than the 256 outputs that BLAS adds at a time.
SHAPES = [(1, 1), (1, 65), (63, 130), (64, 64), (65, 1), (130, 63), (600, 70)]


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def double(array):
    return (array.toarray() if hasattr(array, "toarray") else array).astype(np.float64)


def assert_equals_product(actual, A, B, plus=None):
    """``actual == plus + A @ B`` within the rounding of sums in any order, in actual's precision."""
    A, B = double(A), double(B)
    plus = np.zeros((len(A), B.shape[1])) if plus is None else plus.astype(np.float64)
    assert actual.shape == plus.shape
    bound = (A.shape[1] + 2) * np.finfo(actual.dtype).eps * (np.abs(plus) + np.abs(A) @ np.abs(B))
    assert (np.abs(actual - (plus + A @ B)) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dense_matrix_survives_packing(shape, dtype):
    W = normal(np.random.default_rng(0), shape, dtype)
    packed = PackedMatrix.from_dense(W)
    assert packed.shape == shape
    assert packed.to_dense().dtype == packed.dtype == dtype
    np.testing.assert_array_equal(packed.to_dense(), W)
    np.testing.assert_array_equal(PackedMatrix.from_dense(np.asfortranarray(W)).tiles, packed.tiles)


def test_packed_layout_is_panel_input_lane_with_zeros_beyond_the_outputs():
    W = normal(np.random.default_rng(0), (70, 5), np.float32)
    tiles = PackedMatrix.from_dense(W).tiles
    assert tiles.shape == (2, 5, 64)
    assert tiles.flags.c_contiguous
    assert tiles[1, 3, 4] == W[68, 3]
    assert (tiles[1, :, 6:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.2, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sparse_rows_and_columns_pack_like_dense(shape, density, dtype, sparse_rows):
    rows = sparse_rows(np.random.default_rng(0), *shape, density, dtype)
    expected = PackedMatrix.from_dense(rows.toarray())
    for packed in (
        PackedMatrix.from_sparse_rows(rows),
        PackedMatrix.from_sparse_columns(transpose_rows(rows)),
    ):
        assert packed.shape == shape
        assert packed.dtype == dtype
        np.testing.assert_array_equal(packed.tiles, expected.tiles)


def test_packing_copies():
    W = np.ones((3, 2))
    packed = PackedMatrix.from_dense(W)
    packed.tiles += 1
    assert (W == 1).all()


def test_transposed_rows_are_sorted(sparse_rows):
    rows = sparse_rows(np.random.default_rng(0), 9, 13, 0.4, np.float32)
    transposed = transpose_rows(rows)
    np.testing.assert_array_equal(transposed.toarray(), rows.toarray().T)
    assert transposed.format == "csr"
    assert transposed.has_sorted_indices


def test_with_values_shares_the_pattern(sparse_rows):
    rows = sparse_rows(np.random.default_rng(0), 9, 13, 0.4, np.float32)
    doubled = with_values(rows, 2 * rows.data)
    np.testing.assert_array_equal(doubled.toarray(), 2 * rows.toarray())
    assert np.shares_memory(doubled.indices, rows.indices)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.1, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_equal_the_dense_products(shape, density, dtype, sparse_rows):
    rng = np.random.default_rng(0)
    n_out, n_in = shape
    W = normal(rng, shape, dtype)
    packed = PackedMatrix.from_dense(W)
    inputs, outputs = (sparse_rows(rng, 11, n, density, dtype) for n in (n_in, n_out))
    for actual, rows, matrix in (
        (packed.forward(inputs), inputs, W.T),
        (packed.backward(outputs), outputs, W),
    ):
        assert actual.dtype == dtype
        assert_equals_product(actual, rows, matrix)


def test_no_rows_give_an_empty_product():
    packed = PackedMatrix.from_dense(np.ones((5, 3), np.float32))
    assert packed.forward(csr_array((0, 3), dtype=np.float32)).shape == (0, 5)
    assert packed.backward(csr_array((0, 5), dtype=np.float32)).shape == (0, 3)


def test_64_bit_index_arrays_are_accepted(sparse_rows):
    rows = sparse_rows(np.random.default_rng(0), 4, 30, 0.3, np.float32)
    W = normal(np.random.default_rng(1), (20, 30), np.float32)
    expected = PackedMatrix.from_dense(W).forward(rows)
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    np.testing.assert_array_equal(PackedMatrix.from_dense(W).forward(rows), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.1, 1])
@pytest.mark.parametrize("rank", [1, 40])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("route", MATMUL_ROUTES)
def test_every_route_adds_the_product_of_the_factors(route, shape, rank, density, dtype, sparse_rows):
    rng = np.random.default_rng(0)
    W = normal(rng, shape, dtype)
    U, G = (sparse_rows(rng, rank, n, density, dtype) for n in shape)
    packed = PackedMatrix.from_dense(W)
    packed.add_product(U, G, route)
    assert packed.dtype == dtype
    assert_equals_product(packed.to_dense(), U.T, G, plus=W)
    # What lies beyond n_out must stay zero: backward products would read it.
    np.testing.assert_array_equal(packed.tiles, PackedMatrix.from_dense(packed.to_dense()).tiles)


@pytest.mark.parametrize("route", MATMUL_ROUTES)
def test_small_integers_are_added_exactly_by_every_route(route, sparse_rows):
    rng = np.random.default_rng(0)
    U, G = (sparse_rows(rng, 50, n, 0.5, np.float32) for n in (600, 70))
    U, G = (with_values(rows, np.round(3 * rows.data)) for rows in (U, G))
    packed = PackedMatrix.zeros(600, 70, np.float32)
    packed.add_product(U, G, route)
    np.testing.assert_array_equal(packed.to_dense(), U.toarray().T @ G.toarray())


def test_strassen_route_recurses_on_large_factors(monkeypatch, sparse_rows):
    calls = []

    def counted(A, B, cutoff=16):
        calls.append(A.shape)
        return strassen(A, B, cutoff)

    monkeypatch.setattr(_matmul, "strassen", counted)
    rng = np.random.default_rng(0)
    U, G = (with_values(rows, np.round(rows.data)) for rows in (sparse_rows(rng, 50, 70, 1, np.float32),) * 2)
    packed = PackedMatrix.zeros(70, 70, np.float32)
    packed.add_product(U, G, "strassen")
    np.testing.assert_array_equal(packed.to_dense(), U.toarray().T @ G.toarray())
    assert len(calls) > 7


@pytest.mark.parametrize("route", MATMUL_ROUTES)
def test_adding_a_product_of_rank_zero_changes_nothing(route):
    packed = PackedMatrix.from_dense(np.ones((5, 3), np.float32))
    packed.add_product(csr_array((0, 5), dtype=np.float32), csr_array((0, 3), dtype=np.float32), route)
    assert (packed.to_dense() == 1).all()


def test_unknown_route_is_refused(sparse_rows):
    rows = sparse_rows(np.random.default_rng(0), 3, 4, 0.5, np.float32)
    with pytest.raises(ValueError, match=r"route must be one of .*'scatter'.*'abacus'"):
        PackedMatrix.zeros(4, 4, np.float32).add_product(rows, rows, "abacus")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70, 65), (130, 5, 64)], ids=str)
def test_products_of_two_sparse_factors(shape, dtype, sparse_rows):
    n, p, q = shape
    rng = np.random.default_rng(0)
    A, B = sparse_rows(rng, n, p, 0.3, dtype), sparse_rows(rng, q, p, 0.3, dtype)
    assert_equals_product(rows_times_rows(A, B), A, B.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70, 65), (130, 5, 64)], ids=str)
def test_packed_matrix_times_sparse_rows(shape, dtype, sparse_rows):
    n, r, m = shape
    rng = np.random.default_rng(0)
    P, U = normal(rng, (n, r), dtype), sparse_rows(rng, r, m, 0.3, dtype)
    assert_equals_product(packed_times_rows(PackedMatrix.from_dense(P), U), P, U)


@pytest.mark.parametrize("dtype", DTYPES)
def test_number_of_threads_does_not_change_a_bit(dtype, sparse_rows):
    rng = np.random.default_rng(0)
    # Ten panels of outputs and nine of inputs: enough for four threads.
    W = normal(rng, (600, 540), dtype)
    inputs, outputs = sparse_rows(rng, 30, 540, 0.2, dtype), sparse_rows(rng, 30, 600, 0.2, dtype)

    def products(n_threads):
        packed = PackedMatrix.from_dense(W)
        with worker_threads(n_threads):
            forward, backward = packed.forward(inputs), packed.backward(outputs)
            packed.add_product(outputs, inputs, "scatter")
        return [array.tobytes() for array in (forward, backward, packed.tiles)]

    expected = products(1)
    assert products(2) == expected
    assert products(4) == expected


# p, q, r, the cutoff and the levels of recursion that follow from it.
STRASSEN_CASES = [
    (32, 32, 32, 17, 0),
    (32, 32, 32, 16, 1),
    (33, 35, 37, 9, 1),
    (32, 32, 32, 8, 2),
    (65, 70, 67, 9, 2),
    (50, 31, 90, 7, 2),
    (64, 64, 64, 8, 3),
    (65, 67, 71, 8, 3),
    (9, 11, 33, 1, 4),
    (1, 40, 40, 1, 0),
]


@pytest.mark.parametrize(("p", "q", "r", "cutoff", "levels"), STRASSEN_CASES)
def test_strassen_is_within_its_error_bound(p, q, r, cutoff, levels):
    rng = np.random.default_rng(0)
    A, B = normal(rng, (p, q), np.float32), normal(rng, (q, r), np.float32)
    error = np.abs(strassen(A, B, cutoff) - double(A) @ double(B)).max()
    # Higham (2002), theorem 23.2, with the inner dimension q0 at the leaves after t levels:
    #     max|C - Ĉ| <= 12^t (q0^2 + 5 q0) u max|A| max|B| + O(u^2),
    # doubled here to cover the terms of second order.
    leaf = -(-q // 2**levels)
    unit_roundoff = np.finfo(np.float32).eps / 2
    bound = 12**levels * (leaf**2 + 5 * leaf) * unit_roundoff * np.abs(A).max() * np.abs(B).max()
    assert error <= 2 * bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("p", "q", "r", "cutoff", "levels"), STRASSEN_CASES)
def test_strassen_is_exact_on_small_integers(p, q, r, cutoff, levels, dtype):
    rng = np.random.default_rng(0)
    A, B = rng.integers(-3, 4, (p, q)).astype(dtype), rng.integers(-3, 4, (q, r)).astype(dtype)
    product = strassen(A, B, cutoff)
    assert product.dtype == dtype
    np.testing.assert_array_equal(product, A @ B)


@pytest.mark.parametrize(("p", "q", "r", "cutoff", "levels"), STRASSEN_CASES)
def test_strassen_makes_seven_products_a_level(p, q, r, cutoff, levels, monkeypatch):
    n_calls = 0

    def counted(*arguments):
        nonlocal n_calls
        n_calls += 1
        return strassen(*arguments)

    monkeypatch.setattr(_matmul, "strassen", counted)
    counted(np.ones((p, q)), np.ones((q, r)), cutoff)
    assert n_calls == sum(7**level for level in range(levels + 1))


def test_strassen_leaves_its_arguments_alone():
    A = normal(np.random.default_rng(0), (17, 17), np.float64)
    before = A.copy()
    strassen(A, A, 2)
    np.testing.assert_array_equal(A, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 3, 5), (65, 0, 5), (200, 7, 130), (0, 4, 3)], ids=str)
def test_dense_product_equals_the_plain_one_for_every_number_of_threads(shape, dtype):
    rng = np.random.default_rng(0)
    A, B = normal(rng, shape[:2], dtype), normal(rng, shape[1:], dtype)
    products = []
    for n_jobs in (1, 2, 4):
        with worker_threads(n_jobs):
            products.append(dense_product(A, B))
    assert_equals_product(products[0], A, B)
    assert all((product == products[0]).all() for product in products)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (63, 40), (64, 300), (65, 2), (700, 90)], ids=str)
@pytest.mark.parametrize("n_jobs", [1, 2, 4])
def test_row_gram_is_the_product_with_itself_and_symmetric(shape, dtype, n_jobs, sparse_rows):
    A = sparse_rows(np.random.default_rng(0), *shape, 0.3, dtype)
    with worker_threads(n_jobs):
        gram = row_gram(A)
    assert_equals_product(gram, A, double(A).T)
    assert (gram == gram.T).all()


def test_tiles_start_at_a_cache_line():
    assert all(PackedMatrix.zeros(65, n, np.float32).tiles.ctypes.data % 64 == 0 for n in range(1, 20))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_masked_keeps_the_entries_of_the_pattern(dtype, order, density, sparse_rows):
    rng = np.random.default_rng(0)
    pattern = sparse_rows(rng, 20, 70, density, dtype)
    dense = np.asarray(normal(rng, (20, 70), dtype), order=order)
    kept = masked(pattern, dense, 0.5)
    assert (kept.toarray() == np.where(pattern.toarray() != 0, dtype(0.5) * dense, 0)).all()
    assert kept.nnz == pattern.nnz


@pytest.mark.parametrize("shape", [(19, 70), (21, 70), (20, 69)])
def test_masked_refuses_another_shape(shape, sparse_rows):
    pattern = sparse_rows(np.random.default_rng(0), 20, 70, 1.0, np.float64)
    with pytest.raises(ValueError, match=r"dense must have shape|malformed"):
        masked(pattern, np.zeros(shape), 1.0)


@pytest.mark.parametrize("scatter", [_matmul._kernels.scatter_rows, _matmul._kernels.scatter_columns])
def test_scatter_refuses_tiles_of_another_shape_and_bad_indices(scatter):
    indptr, indices, values = np.array([0, 1], np.int32), np.array([0], np.int32), np.ones(1)
    scatter(indptr, indices, values, np.zeros((1, 1, 64)))
    for bad_indptr, bad_indices, shape in [
        (indptr, indices, (1, 1, 32)),
        (indptr, indices, (2, 2, 64)),
        (indptr, np.array([-1], np.int32), (1, 1, 64)),
        (indptr, np.array([64], np.int32), (1, 1, 64)),
        (np.array([0, 2], np.int32), indices, (1, 1, 64)),
    ]:
        with pytest.raises(ValueError, match=r"tiles must have shape|malformed"):
            scatter(bad_indptr, bad_indices, values, np.zeros(shape))
