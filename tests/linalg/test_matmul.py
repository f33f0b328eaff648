import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg import packed
from sklearn_subquad._linalg.packed import (
    ROUTES,
    PackedMatrix,
    column_groups,
    row_gram_columns,
    row_products,
    strassen,
    strassen_levels,
    symmetric,
    times_dense,
)
from sklearn_subquad._linalg.sparse_rows import SparseRows

DTYPES = [np.float32, np.float64]
# n_out, n_in: single numbers, ragged panels, and more than one group of columns on either side.
SHAPES = [(1, 1), (1, 65), (63, 130), (64, 64), (65, 1), (130, 63), (600, 70), (70, 1100)]
# One in each of the ranges that decide the columns per block, and the extremes.
DENSITIES = [0.0, 0.01, 0.04, 0.3, 1.0]


@pytest.fixture
def draw(sparse_rows):
    """Function of (rng, n_rows, n_columns, density, dtype) that draws `SparseRows` and the same numbers dense."""

    def draw(rng, n_rows, n_columns, density, dtype):
        rows = sparse_rows(rng, n_rows, n_columns, density, dtype)
        return SparseRows.from_csr(rows), rows.toarray()

    return draw


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def small_integers(rng, shape, dtype):
    """Integers so small that no sum of their products is rounded; a third of them zero."""
    return rng.integers(-1, 2, shape).astype(dtype)


def assert_equals_product(actual, A, B, plus=0):
    """``actual == plus + A @ B`` within the rounding of sums in any order, in actual's precision."""
    A, B, plus = A.astype(np.float64), B.astype(np.float64), np.float64(plus)
    assert actual.shape == (len(A), B.shape[1])
    bound = (A.shape[1] + 2) * np.finfo(actual.dtype).eps * (np.abs(plus) + np.abs(A) @ np.abs(B))
    assert (np.abs(actual - (plus + A @ B)) <= bound).all()


def assert_zero_beyond_the_outputs(packed):
    """As `PackedMatrix` promises, so that tiles can be compared and multiplied by whole panels."""
    np.testing.assert_array_equal(packed.tiles, PackedMatrix.from_dense(packed.to_dense()).tiles)


class TestColumnGroups:
    @pytest.mark.parametrize("block", [64, 128, 512])
    @pytest.mark.parametrize("n_columns", [1, 63, 64, 65, 513, 4096, 10_001])
    @pytest.mark.parametrize("n_rows", [0, 1, 1000, 100_000, 1 << 21])
    def test_cover_all_columns_in_whole_blocks(self, n_rows, n_columns, block):
        groups = column_groups(n_rows, n_columns, block)
        covered = np.concatenate([np.arange(n_columns)[group] for group in groups])
        np.testing.assert_array_equal(covered, np.arange(n_columns))
        assert all(group.start % block == 0 and group.stop <= n_columns for group in groups)
        # A single block is never cut, however many the rows.
        assert all(width == block or n_rows * width <= 1 << 20 for width in np.diff([group.start for group in groups]))

    @pytest.mark.parametrize(("n_rows", "n_columns"), [(300, 7 * 128 + 1), (200, 1024), (1, 5000), (10, 5000)])
    def test_are_enough_for_the_threads_to_share(self, n_rows, n_columns):
        assert len(column_groups(n_rows, n_columns, 128)) >= 4

    @pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 1024), (195, 1024), (390, 512)])
    def test_small_products_are_not_cut(self, n_rows, n_columns):
        assert len(column_groups(n_rows, n_columns, 64)) == 1

    def test_no_columns_make_no_group(self):
        assert column_groups(5, 0, 64) == []


class TestPackedMatrix:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_packing_is_undone_exactly(self, shape, dtype):
        W = normal(np.random.default_rng(0), shape, dtype)
        packed = PackedMatrix.from_dense(W)
        assert packed.shape == shape
        assert packed.to_dense().dtype == packed.dtype == dtype
        np.testing.assert_array_equal(packed.to_dense(), W)
        np.testing.assert_array_equal(PackedMatrix.from_dense(np.asfortranarray(W)).tiles, packed.tiles)

    def test_layout_is_panel_input_lane_with_zeros_beyond_the_outputs(self):
        W = normal(np.random.default_rng(0), (70, 5), np.float32)
        tiles = PackedMatrix.from_dense(W).tiles
        assert tiles.shape == (2, 5, LANES)
        assert tiles.flags.c_contiguous
        assert tiles[1, 3, 4] == W[68, 3]
        assert (tiles[1, :, 6:] == 0).all()

    def test_packing_copies(self):
        W = np.ones((3, 2))
        packed = PackedMatrix.from_dense(W)
        packed.tiles += 1
        assert (W == 1).all()

    def test_tiles_start_at_a_cache_line(self):
        assert all(PackedMatrix.zeros(65, n, np.float32).tiles.ctypes.data % 64 == 0 for n in range(1, 20))

    # Also more than the 512 rows of a chunk.
    @pytest.mark.parametrize("n_rows", [11, 520])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("density", DENSITIES)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_forward_and_backward_equal_the_dense_products(self, shape, density, dtype, n_rows, draw):
        rng = np.random.default_rng(0)
        W = normal(rng, shape, dtype)
        packed = PackedMatrix.from_dense(W)
        (outputs, dense_outputs), (inputs, dense_inputs) = (draw(rng, n_rows, n, density, dtype) for n in shape)
        forward, backward = packed.forward(inputs), packed.backward(outputs)
        assert forward.dtype == backward.dtype == dtype
        assert_equals_product(forward, dense_inputs, W.T)
        assert_equals_product(backward, dense_outputs, W)

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("k", [1, 3, 70])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_times_equals_the_dense_product(self, shape, k, dtype, order):
        rng = np.random.default_rng(0)
        W, B = normal(rng, shape, dtype), np.asarray(normal(rng, (shape[1], k), dtype), order=order)
        product = PackedMatrix.from_dense(W).times(B)
        assert product.dtype == dtype
        assert_equals_product(product, W, B)

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", DTYPES)
    # The first column, a multiple of 64, and how many: everything, ragged ends, a part of one panel.
    @pytest.mark.parametrize(("first", "n_columns"), [(0, 200), (64, 136), (128, 72), (64, 64), (64, 10), (192, 8)])
    def test_add_forward_and_add_backward_add_a_part_of_the_columns(self, first, n_columns, dtype, order, draw):
        rng = np.random.default_rng(0)
        part = slice(first, first + n_columns)
        for shape, method, factor in [
            ((200, 150), PackedMatrix.add_forward, lambda W: W.T),
            ((150, 200), PackedMatrix.add_backward, lambda W: W),
        ]:
            W = normal(rng, shape, dtype)
            rows, dense_rows = draw(rng, 530, 150, 0.3, dtype)
            before = np.asarray(normal(rng, (530, 200), dtype), order=order)
            out = before.copy(order="K")
            method(PackedMatrix.from_dense(W), rows, out[:, part], first)
            assert_equals_product(out[:, part], dense_rows, factor(W)[:, part], plus=before[:, part])
            np.testing.assert_array_equal(np.delete(out, part, axis=1), np.delete(before, part, axis=1))

    def test_no_rows_give_an_empty_product(self):
        packed = PackedMatrix.from_dense(np.ones((5, 3), np.float32))
        assert packed.forward(SparseRows.from_csr(csr_array((0, 3), dtype=np.float32))).shape == (0, 5)
        assert packed.backward(SparseRows.from_csr(csr_array((0, 5), dtype=np.float32))).shape == (0, 3)

    def test_no_inputs_give_a_product_of_zeros(self):
        rows = SparseRows.from_csr(csr_array((4, 0), dtype=np.float32))
        np.testing.assert_array_equal(PackedMatrix.zeros(70, 0, np.float32).forward(rows), np.zeros((4, 70)))

    def test_rows_of_another_width_are_refused(self, draw):
        packed = PackedMatrix.from_dense(np.ones((70, 30), np.float32))
        for n_columns in (29, 31, 65):
            rows, _ = draw(np.random.default_rng(0), 3, n_columns, 0.5, np.float32)
            with pytest.raises(ValueError, match="must have"):
                packed.forward(rows)
        for n_columns in (64, 129):
            rows, _ = draw(np.random.default_rng(0), 3, n_columns, 0.5, np.float32)
            with pytest.raises(ValueError, match="do not fit"):
                packed.backward(rows)


@pytest.fixture
def small_cutoff(monkeypatch):
    """Strassen's route recurses down to dimensions of 16 to 31; the shapes of A in all calls so far."""
    calls = []

    def with_small_cutoff(A, B, cutoff=16):
        calls.append(A.shape)
        return strassen(A, B, cutoff)

    monkeypatch.setattr(packed, "strassen", with_small_cutoff)
    return calls


class TestAddProduct:
    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("dtype", DTYPES)
    # The rank and the densities of U and G: equal and different numbers of columns per block.
    @pytest.mark.parametrize(
        ("rank", "densities"),
        [
            (1, (1.0, 1.0)),
            (70, (0.0, 0.3)),
            (70, (0.01, 0.3)),
            (70, (0.3, 0.01)),
            (600, (0.04, 0.04)),
            (600, (1.0, 1.0)),
        ],
    )
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_adds_the_product_of_the_factors(self, shape, rank, densities, dtype, route, draw):
        rng = np.random.default_rng(0)
        W = normal(rng, shape, dtype)
        (U, dense_U), (G, dense_G) = (
            draw(rng, rank, n, density, dtype) for n, density in zip(shape, densities, strict=True)
        )
        packed = PackedMatrix.from_dense(W)
        packed.add_product(U, G, route)
        assert packed.dtype == dtype
        assert_equals_product(packed.to_dense(), dense_U.T, dense_G, plus=W)
        assert_zero_beyond_the_outputs(packed)

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_small_integers_are_added_exactly(self, dtype, route):
        rng = np.random.default_rng(0)
        U, G = small_integers(rng, (50, 600), dtype), small_integers(rng, (50, 70), dtype)
        packed = PackedMatrix.zeros(600, 70, dtype)
        for _ in range(2):
            packed.add_product(*(SparseRows.from_csr(csr_array(factor)) for factor in (U, G)), route)
        np.testing.assert_array_equal(packed.to_dense(), 2 * (U.T @ G))

    @pytest.mark.parametrize("route", ROUTES)
    def test_factors_may_be_transposes(self, route, draw):
        rng = np.random.default_rng(0)
        (U, dense_U), (G, dense_G) = (draw(rng, n, 90, 0.3, np.float64) for n in (150, 700))
        packed = PackedMatrix.zeros(150, 700, np.float64)
        packed.add_product(U.transposed(), G.transposed(), route)
        assert_equals_product(packed.to_dense(), dense_U, dense_G.T)

    def test_strassen_route_recurses_within_its_error_bound(self, small_cutoff, draw):
        rng = np.random.default_rng(0)
        (U, dense_U), (G, dense_G) = (draw(rng, 67, n, 1.0, np.float32) for n in (300, 71))
        packed = PackedMatrix.zeros(300, 71, np.float32)
        packed.add_product(U, G, "strassen")
        error = np.abs(packed.to_dense() - dense_U.astype(np.float64).T @ dense_G).max()
        assert error <= strassen_bound(dense_G.T, dense_U, levels=2)
        # A quarter of 300 outputs at a time, in whole blocks of 128: three products of 1 + 7 + 49 calls.
        assert len(small_cutoff) == 3 * 57

    def test_strassen_route_leaves_zeros_beyond_the_outputs(self, small_cutoff, draw):
        rng = np.random.default_rng(0)
        (U, _), (G, _) = (draw(rng, 67, n, 1.0, np.float32) for n in (300, 71))
        packed = PackedMatrix.zeros(300, 71, np.float32)
        packed.add_product(U, G, "strassen")
        assert small_cutoff
        assert_zero_beyond_the_outputs(packed)

    @pytest.mark.parametrize("route", ROUTES)
    def test_rank_zero_changes_nothing(self, route):
        packed = PackedMatrix.from_dense(np.ones((5, 3), np.float32))
        U, G = (SparseRows.from_csr(csr_array((0, n), dtype=np.float32)) for n in (5, 3))
        packed.add_product(U, G, route)
        assert (packed.to_dense() == 1).all()

    def test_unknown_route_is_refused(self, draw):
        rows, _ = draw(np.random.default_rng(0), 3, 4, 0.5, np.float32)
        with pytest.raises(ValueError, match=r"route must be one of .*'scatter'.*'abacus'"):
            PackedMatrix.zeros(4, 4, np.float32).add_product(rows, rows, "abacus")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70, 65), (130, 5, 64), (600, 300, 520)], ids=str)
def test_row_products_are_those_of_the_dense_rows(shape, density, dtype, draw):
    n, p, r = shape
    rng = np.random.default_rng(0)
    (A, dense_A), (B, dense_B) = (draw(rng, rows, p, density, dtype) for rows in (n, r))
    product = row_products(A, B)
    assert product.shape == (n, r)
    assert product.dtype == dtype
    assert_equals_product(product.to_dense(), dense_A, dense_B.T)
    assert_zero_beyond_the_outputs(product)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", [(1, 1), (63, 40), (64, 300), (65, 2), (700, 90)], ids=str)
def test_gram_matrix_of_rows_is_the_product_with_itself_and_symmetric_to_the_bit(shape, density, dtype, draw):
    A, dense_A = draw(np.random.default_rng(0), *shape, density, dtype)
    gram = symmetric(len(dense_A), dtype, lambda first, last: row_gram_columns(A, first, last))
    assert gram.dtype == dtype
    assert_equals_product(gram, dense_A, dense_A.T)
    np.testing.assert_array_equal(gram, gram.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 300, 3), (520, 70, 65), (30, 40, 600), (0, 4, 3)], ids=str)
def test_times_dense_equals_the_dense_product(shape, density, dtype, draw):
    n, m, k = shape
    rng = np.random.default_rng(0)
    rows, dense_rows = draw(rng, n, m, density, dtype)
    B = normal(rng, (m, k), dtype)
    product = times_dense(rows, B)
    assert product.dtype == dtype
    assert_equals_product(product, dense_rows, B)
    np.testing.assert_array_equal(times_dense(rows, np.asfortranarray(B)), product)


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
    # An odd half is rounded up, and may then be cut once more.
    (15, 17, 19, 4, 2),
    (9, 11, 33, 1, 4),
    (1, 40, 40, 1, 0),
]


def strassen_bound(A, B, levels):
    """The largest error of an element of ``strassen(A, B)`` in single precision.

    Higham (2002), theorem 23.2, with the inner dimension q0 at the leaves after t levels:
    max|C - Ĉ| <= 12^t (q0^2 + 5 q0) u max|A| max|B| + O(u^2); doubled here to cover the terms of second order.
    """
    leaf = -(-A.shape[1] // 2**levels)
    unit_roundoff = np.finfo(np.float32).eps / 2
    return 2 * 12**levels * (leaf**2 + 5 * leaf) * unit_roundoff * np.abs(A).max() * np.abs(B).max()


@pytest.mark.parametrize(("p", "q", "r", "cutoff", "levels"), STRASSEN_CASES)
class TestStrassen:
    def test_is_within_its_error_bound(self, p, q, r, cutoff, levels):
        rng = np.random.default_rng(0)
        A, B = normal(rng, (p, q), np.float32), normal(rng, (q, r), np.float32)
        error = np.abs(strassen(A, B, cutoff) - A.astype(np.float64) @ B).max()
        assert error <= strassen_bound(A, B, levels)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_is_exact_on_small_integers(self, p, q, r, cutoff, levels, dtype):
        rng = np.random.default_rng(0)
        A, B = rng.integers(-3, 4, (p, q)).astype(dtype), rng.integers(-3, 4, (q, r)).astype(dtype)
        product = strassen(A, B, cutoff)
        assert product.dtype == dtype
        np.testing.assert_array_equal(product, A @ B)

    def test_makes_seven_products_a_level(self, p, q, r, cutoff, levels, monkeypatch):
        n_calls = 0

        def counted(*arguments):
            nonlocal n_calls
            n_calls += 1
            return strassen(*arguments)

        monkeypatch.setattr(packed, "strassen", counted)
        counted(np.ones((p, q)), np.ones((q, r)), cutoff)
        assert n_calls == sum(7**level for level in range(levels + 1))

    def test_levels_are_known_beforehand(self, p, q, r, cutoff, levels):
        assert strassen_levels(p, q, r, cutoff) == levels


def test_strassen_leaves_its_arguments_alone():
    A = normal(np.random.default_rng(0), (17, 17), np.float64)
    before = A.copy()
    strassen(A, A, 2)
    np.testing.assert_array_equal(A, before)
