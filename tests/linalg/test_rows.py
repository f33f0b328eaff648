from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.sparse_rows import SparseRows, block_size
from sklearn_subquad._linalg.threads import worker_threads

DTYPES = [np.float32, np.float64]
# One in each of the ranges that decide the columns per block, and the extremes.
DENSITIES = [0.0, 0.01, 0.04, 0.3, 1.0]
# Rows, columns, density: ragged panels and blocks, several blocks at every density, more than the 512 rows of a
# chunk, and nothing at all.
CASES = [
    (1, 1, 1.0),
    (3, 64, 0.3),
    (5, 65, 0.0),
    (5, 65, 0.3),
    (130, 1, 0.3),
    (70, 1100, 0.01),
    (70, 1100, 0.04),
    (70, 1100, 0.3),
    (70, 1100, 1.0),
    (1030, 140, 0.01),
    (1030, 140, 0.3),
    (0, 5, 1.0),
    (4, 0, 1.0),
]


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


@pytest.fixture(params=CASES, ids=str)
def csr(request, dtype, sparse_rows):
    """CSR rows of every case in both precisions."""
    return sparse_rows(np.random.default_rng(0), *request.param, dtype)


@pytest.fixture
def some_rows(sparse_rows):
    """Rows of several chunks and blocks."""
    return SparseRows.from_csr(sparse_rows(np.random.default_rng(0), 700, 300, 0.3, np.float32))


def assert_strictly_sorted(csr):
    """The indices rise within every row."""
    rises = np.diff(csr.indices) > 0
    rises[[start - 1 for start in csr.indptr[1:-1] if 0 < start < csr.nnz]] = True
    assert rises.all()


def test_csr_rows_survive_the_round_trip(csr):
    rows = SparseRows.from_csr(csr)
    again = rows.to_csr()
    assert rows.shape == again.shape == csr.shape
    assert rows.dtype == again.dtype == csr.dtype
    assert rows.nnz == again.nnz == csr.nnz
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(again, name), getattr(csr, name))


def test_density_is_the_share_of_entries(csr):
    n, m = csr.shape
    assert SparseRows.from_csr(csr).density == (csr.nnz / (n * m) if n * m else 0)


def test_explicit_zeros_are_entries():
    csr = csr_array((np.array([0.0, 2.0]), np.array([1, 3]), np.array([0, 2])), shape=(1, 4))
    np.testing.assert_array_equal(SparseRows.from_csr(csr).to_csr().indices, [1, 3])


def test_64_bit_indices_are_accepted(sparse_rows):
    csr = sparse_rows(np.random.default_rng(0), 4, 30, 0.3, np.float32)
    expected = csr.toarray()
    csr.indices, csr.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    np.testing.assert_array_equal(SparseRows.from_csr(csr).to_csr().toarray(), expected)


@pytest.mark.parametrize("indices", [[3, 1], [1, 1], [1, 4], [-1, 2]], ids=str)
def test_unsorted_repeated_and_foreign_indices_are_refused(indices):
    # Not a csr_array, which would refuse some of them itself.
    rows = SimpleNamespace(
        nnz=2,
        shape=(1, 4),
        dtype=np.dtype(np.float64),
        indptr=np.array([0, 2]),
        indices=np.array(indices),
        data=np.ones(2),
    )
    with pytest.raises(ValueError, match="malformed sparse rows"):
        SparseRows.from_csr(rows)


def test_more_entries_than_32_bits_can_count_are_refused():
    with pytest.raises(ValueError, match="2147483648 entries"):
        SparseRows.from_csr(SimpleNamespace(nnz=2**31))


def test_transposed_rows_are_those_of_the_dense_transpose(csr):
    transposed = SparseRows.from_csr(csr).transposed()
    assert transposed.shape == csr.shape[::-1]
    assert transposed.dtype == csr.dtype
    assert transposed.nnz == csr.nnz
    np.testing.assert_array_equal(transposed.to_csr().toarray(), csr.toarray().T)


def test_transposing_twice_gives_the_rows_back(csr):
    np.testing.assert_array_equal(SparseRows.from_csr(csr).transposed().transposed().to_csr().toarray(), csr.toarray())


def test_csr_rows_are_sorted_after_a_transposition_as_well(csr):
    rows = SparseRows.from_csr(csr)
    assert_strictly_sorted(rows.to_csr())
    assert_strictly_sorted(rows.transposed().to_csr())


def test_more_values_than_one_thread_takes_are_transposed(sparse_rows, dtype):
    csr = sparse_rows(np.random.default_rng(0), 700, 600, 0.5, dtype)
    with worker_threads(2):
        transposed = SparseRows.from_csr(csr).transposed()
    np.testing.assert_array_equal(transposed.to_csr().toarray(), csr.toarray().T)


def test_other_values_are_on_the_same_pattern(csr):
    rows = SparseRows.from_csr(csr)
    # The number of every entry in the pattern's order shows where it is.
    numbered = rows.with_values(np.arange(1, rows.nnz + 1, dtype=csr.dtype))
    assert numbered.pattern is rows.pattern
    dense = numbered.to_csr().toarray()
    np.testing.assert_array_equal(dense != 0, csr.toarray() != 0)
    np.testing.assert_array_equal(rows.values, csr.toarray()[dense != 0][np.argsort(dense[dense != 0])])
    np.testing.assert_array_equal(numbered.transposed().to_csr().toarray(), dense.T)


@pytest.mark.parametrize("first", ["original", "other"])
def test_other_values_share_the_transposed_pattern(some_rows, first):
    other = some_rows.with_values(2 * some_rows.values)
    made = (some_rows if first == "original" else other).transposed().pattern
    assert some_rows.transposed().pattern is other.transposed().pattern is made
    # A third generation too, and the scaled ones.
    for rows in (
        other.with_values(other.values),
        some_rows.scaled(3.0),
        some_rows.scaled_rows(np.ones(700)),
    ):
        assert rows.transposed().pattern is made
    np.testing.assert_array_equal(other.transposed().values, 2 * some_rows.transposed().values)


def test_other_values_of_another_precision_are_transposed_right(some_rows):
    dense = some_rows.to_csr().toarray()
    some_rows.transposed()
    wide = some_rows.with_values(some_rows.values.astype(np.float64) / 3).transposed()
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide.to_csr().toarray(), dense.T.astype(np.float64) / 3)


def test_scaled_multiplies_every_entry_in_the_own_precision(csr):
    scaled = SparseRows.from_csr(csr).scaled(1 / 3)
    assert scaled.dtype == csr.dtype
    np.testing.assert_array_equal(scaled.to_csr().toarray(), csr.toarray() * csr.dtype.type(1 / 3))


@pytest.mark.parametrize("factor_dtype", DTYPES)
def test_scaled_rows_multiplies_every_row_by_its_factor(csr, factor_dtype):
    factors = np.random.default_rng(1).standard_normal(2 * csr.shape[0]).astype(factor_dtype)[::2]
    scaled = SparseRows.from_csr(csr).scaled_rows(factors)
    assert scaled.dtype == csr.dtype
    np.testing.assert_array_equal(scaled.to_csr().toarray(), csr.toarray() * factors.astype(csr.dtype)[:, None])


@pytest.mark.parametrize("n_factors", [699, 701])
def test_scaled_rows_refuses_another_number_of_factors(some_rows, n_factors):
    with pytest.raises(ValueError, match="one item per row"):
        some_rows.scaled_rows(np.ones(n_factors))


def test_scaling_leaves_the_rows_alone(some_rows):
    before = some_rows.values.copy()
    some_rows.scaled(2.0)
    some_rows.scaled_rows(np.full(700, 2.0))
    np.testing.assert_array_equal(some_rows.values, before)


def test_row_norms_are_summed_in_double_precision(csr):
    squares = csr.toarray().astype(np.float64) ** 2
    norms = SparseRows.from_csr(csr).row_norms()
    assert norms.dtype == np.float64
    assert norms.shape == (csr.shape[0],)
    expected = squares.sum(axis=1)
    assert (np.abs(norms - expected) <= (csr.shape[1] + 2) * np.finfo(np.float64).eps * expected).all()


def test_row_dots_are_summed_in_double_precision(csr):
    rows = SparseRows.from_csr(csr)
    other = rows.with_values(np.random.default_rng(1).standard_normal(rows.nnz).astype(csr.dtype))
    products = csr.toarray().astype(np.float64) * other.to_csr().toarray()
    dots = rows.row_dots(other)
    assert dots.dtype == np.float64
    assert dots.shape == (csr.shape[0],)
    bound = (csr.shape[1] + 2) * np.finfo(np.float64).eps * np.abs(products).sum(axis=1)
    assert (np.abs(dots - products.sum(axis=1)) <= bound).all()
    np.testing.assert_array_equal(other.row_dots(rows), dots)
    np.testing.assert_array_equal(rows.row_dots(rows), rows.row_norms())


def test_values_that_do_not_fit_the_pattern_are_refused(some_rows):
    short = some_rows.with_values(some_rows.values[1:])
    for use in (short.row_norms, lambda: some_rows.row_dots(short), lambda: short.row_dots(some_rows)):
        with pytest.raises(ValueError, match="one item per entry"):
            use()


def test_panel_tiles_are_panels_of_the_dense_rows(csr):
    rows, dense = SparseRows.from_csr(csr), csr.toarray()
    for panel in range(-(-csr.shape[0] // LANES)):
        expected = np.zeros((csr.shape[1], LANES), csr.dtype)
        part = dense[panel * LANES : (panel + 1) * LANES]
        expected[:, : len(part)] = part.T
        tile = rows.panel_tile(panel)
        assert tile.dtype == csr.dtype
        np.testing.assert_array_equal(tile, expected)


@pytest.mark.parametrize("panel", [-1, 11])
def test_panel_tile_refuses_a_panel_that_is_not_there(some_rows, panel):
    with pytest.raises(ValueError, match="first_row must be"):
        some_rows.panel_tile(panel)


def test_column_tiles_are_the_dense_columns_in_packed_form(csr):
    rows = SparseRows.from_csr(csr)
    n, m = csr.shape
    n_panels, panels_of_block = -(-m // LANES), rows.pattern.block // LANES
    padded = np.zeros((n, n_panels * LANES), csr.dtype)
    padded[:, :m] = csr.toarray()
    expected = padded.reshape(n, n_panels, LANES).transpose(1, 0, 2)
    starts = range(0, n_panels, panels_of_block)
    for first in starts:
        for last in [*starts[1:], n_panels]:
            if last > first:
                tiles = rows.column_tiles(first, last)
                assert tiles.dtype == csr.dtype
                np.testing.assert_array_equal(tiles, expected[first:last])


def test_column_tiles_refuses_parts_of_a_block(some_rows):
    # Blocks of 128 columns: two panels each, the last one half empty.
    assert some_rows.pattern.block == 2 * LANES
    for first, last in [(0, 1), (0, 3), (0, 6), (1, 2)]:
        with pytest.raises(ValueError, match=r"tiles must have shape|blocks from block|does not begin a block"):
            some_rows.column_tiles(first, last)


@pytest.mark.parametrize("density", DENSITIES)
def test_block_size_is_of_whole_panels_and_of_the_same_bytes_for_both_precisions(density):
    single, double = block_size(density, np.float32), block_size(density, np.dtype("float64"))
    assert single % LANES == double % LANES == 0
    assert single == 2 * double


def test_blocks_are_wider_where_entries_are_rarer(dtype):
    sizes = [block_size(density, dtype) for density in DENSITIES]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_rows_have_the_blocks_of_their_density(csr):
    rows = SparseRows.from_csr(csr)
    assert rows.pattern.block == rows.transposed().pattern.block == block_size(rows.density, csr.dtype)
