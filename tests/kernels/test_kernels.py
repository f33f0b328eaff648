import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import (
    CHUNK_ROWS,
    LANES,
    SIMD_VARIABLE,
    Pattern,
    concatenate,
    gather,
    row_dots,
    scale_rows,
    scatter_columns,
    scatter_rows,
    select,
    simd_level,
    simd_levels,
    use_simd_level,
)

DTYPES = [np.float32, np.float64]
DENSITIES = [0, 0.1, 1]
BLOCKS = [64, 128, 256, 512]
SENTINEL = -12345.0


@pytest.fixture(params=simd_levels())
def level(request):
    initial = simd_level()
    use_simd_level(request.param)
    yield request.param
    use_simd_level(initial)


def ceil_lanes(size):
    return -(-size // LANES) * LANES


def pack(W, padding=0.0):
    """Tiles of W; `padding` are the lanes beyond its last output."""
    padded = np.full((ceil_lanes(W.shape[0]), W.shape[1]), padding, dtype=W.dtype)
    padded[: W.shape[0]] = W
    return np.ascontiguousarray(padded.reshape(len(padded) // LANES, LANES, W.shape[1]).transpose(0, 2, 1))


def unpack(tiles):
    return tiles.transpose(0, 2, 1).reshape(len(tiles) * LANES, tiles.shape[1])


def draw(shape, density, dtype, seed=0):
    """Normal values at random places, zero elsewhere."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(dtype)


def csr(dense):
    """indptr, indices and values of the nonzero elements."""
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(dense, axis=1))]).astype(np.int32)
    rows, columns = np.nonzero(dense)
    return indptr, columns.astype(np.int32), dense[rows, columns]


def sparse(dense, block):
    """Pattern of the nonzero elements, and the values in its order."""
    indptr, indices, values = csr(dense)
    pattern, order = Pattern.from_csr(indptr, indices, dense.shape[1], block)
    return pattern, values[order]


def stored_order(active, block):
    """Rows and columns of the entries in the order that tiles.h describes."""
    rows, columns = np.nonzero(active)
    count = np.zeros((len(active), active.shape[1] // block + 1), dtype=int)
    np.add.at(count, (rows, columns // block), 1)
    keys = columns // block, rows // CHUNK_ROWS, count[rows, columns // block], rows, columns
    order = np.lexsort(keys[::-1])
    return rows[order], columns[order]


# Patterns -------------------------------------------------------------------------------------------------------------

# More than one chunk of rows, more than one block of columns, a last block that is not full, and nothing at all.
PATTERN_SHAPES = [
    (1, 1),
    (3, 63),
    (5, 64),
    (7, 65),
    (130, 513),
    (512, 140),
    (513, 200),
    (1030, 300),
    (0, 5),
    (4, 0),
    (0, 0),
]
over_patterns = pytest.mark.parametrize(
    ("shape", "density", "block"),
    list(itertools.product(PATTERN_SHAPES, DENSITIES, BLOCKS)),
    ids=lambda case: str(case).replace(" ", ""),
)


@over_patterns
def test_entries_are_stored_in_the_documented_order(shape, density, block):
    dense = draw(shape, density, np.float32)
    pattern, values = sparse(dense, block)
    assert (pattern.shape, pattern.block, pattern.nnz) == (shape, block, np.count_nonzero(dense))
    np.testing.assert_array_equal(values, dense[stored_order(dense, block)])


@over_patterns
def test_csr_arrays_come_back(shape, density, block):
    indptr, indices, _ = csr(draw(shape, density, np.float32))
    pattern, order = Pattern.from_csr(indptr, indices, shape[1], block)
    indptr_back, indices_back, order_back = pattern.to_csr()
    np.testing.assert_array_equal(indptr_back, indptr)
    np.testing.assert_array_equal(indices_back, indices)
    np.testing.assert_array_equal(order[order_back], np.arange(len(indices)))


@over_patterns
def test_transposed_pattern_is_that_of_the_transposed_matrix(shape, density, block):
    # Larger, smaller: 512 for 64, 64 for 512.
    turned_block = 512 * 64 // block
    dense = draw(shape, density, np.float32)
    pattern, _ = sparse(dense, block)
    columns, rows = stored_order(dense, block)
    turned, order = pattern.transposed(turned_block)
    assert (turned.shape, turned.block, turned.nnz) == (shape[::-1], turned_block, pattern.nnz)
    np.testing.assert_array_equal((rows[order], columns[order]), stored_order(dense.T, turned_block))
    # The pattern itself has its entries where `order` says.
    indptr, indices, order_back = turned.to_csr()
    expected_indptr, expected_indices, _ = csr(dense.T)
    np.testing.assert_array_equal(indptr, expected_indptr)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(columns[order][order_back], indices)


def in_reverse(work, n):
    for i in reversed(range(n)):
        work(i)


def in_threads(work, n):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(n)))


@pytest.mark.parametrize("for_each", [in_reverse, in_threads])
def test_transposed_pattern_does_not_depend_on_who_does_the_work(for_each):
    pattern, _ = sparse(draw((700, 1000), 0.1, np.float32), 64)
    results = []
    for arguments in [(), (for_each,)]:
        turned, order = pattern.transposed(128, *arguments)
        results.append([order, *turned.to_csr()])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("cuts", [[], [128], [128, 256], [256, 384]], ids=str)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("n_rows", [0, 1, 7, 1030])
def test_concatenated_pattern_is_that_of_the_matrices_side_by_side(n_rows, density, cuts):
    dense = draw((n_rows, 400), density, np.float32)
    whole, values = sparse(dense, 128)
    parts = [sparse(part, 128) for part in np.split(dense, cuts, axis=1)]
    together = concatenate([pattern for pattern, _ in parts])
    assert (together.shape, together.block, together.nnz) == (whole.shape, whole.block, whole.nnz)
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts]), values)
    for actual, expected in zip(together.to_csr(), whole.to_csr(), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@over_patterns
def test_selected_entries_are_those_above_the_threshold(shape, density, block, dtype):
    z = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    # A share `density` lies above; one element equals the threshold and is not above.
    threshold = dtype(np.quantile(z, 1 - density) if density and z.size else 9)
    if density == 1:
        threshold = dtype(-9)
    z.ravel()[:1] = threshold
    gain = dtype(1.7)
    pattern, values = select(z, threshold, block, gain)
    rows, columns = stored_order(z > threshold, block)
    assert (pattern.shape, pattern.block, pattern.nnz) == (shape, block, len(rows))
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, gain * (z[rows, columns] - threshold))
    # The pattern is the one that those entries have as CSR rows.
    expected, _ = sparse((z > threshold).astype(dtype), block)
    for actual_array, expected_array in zip(pattern.to_csr(), expected.to_csr(), strict=True):
        np.testing.assert_array_equal(actual_array, expected_array)


@pytest.mark.parametrize("n_columns", [1, 3, 7, 70])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_not_selected_and_infinity_is(dtype, n_columns):
    z = np.full((2, n_columns), np.nan, dtype)
    z[1] = np.inf
    z[1, 0] = -np.inf
    pattern, values = select(z, 0.5, 64, 2.0)
    indptr, indices, _ = pattern.to_csr()
    assert indptr.tolist() == [0, 0, n_columns - 1]
    assert indices.tolist() == list(range(1, n_columns))
    assert (values == np.inf).all()


@pytest.mark.parametrize("threshold", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_above_nan_or_infinity(dtype, threshold):
    pattern, values = select(np.full((3, 70), np.inf, dtype), threshold, 64, 1.0)
    assert pattern.nnz == len(values) == 0


def block_ranges(n_columns, block):
    n_blocks = -(-n_columns // block)
    return [(0, n_blocks), *((b, b + 1) for b in range(n_blocks)), (n_blocks // 2, n_blocks)]


@pytest.mark.parametrize("dtype", DTYPES)
@over_patterns
def test_gathered_values_are_those_of_the_dense_matrix(shape, density, block, dtype):
    active = draw(shape, density, np.float32)
    pattern, _ = sparse(active, block)
    rows, columns = stored_order(active, block)
    z = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    scale = dtype(0.3)
    for first, last in block_ranges(shape[1], block):
        part = slice(first * block, last * block)
        if z[:, part].shape[1] == 0 != shape[1]:
            continue
        values = np.full(pattern.nnz, SENTINEL, dtype)
        gather(pattern, np.ascontiguousarray(z[:, part]), first, scale, values)
        inside = (columns // block >= first) & (columns // block < last)
        np.testing.assert_array_equal(values, np.where(inside, scale * z[rows, columns], dtype(SENTINEL)))


@pytest.mark.parametrize("dtype", DTYPES)
@over_patterns
def test_scattered_rows_are_a_panel_of_the_dense_matrix(shape, density, block, dtype):
    dense = draw(shape, density, dtype)
    pattern, values = sparse(dense, block)
    for panel, expected in enumerate(pack(dense)):
        # One row of the array more on either side, which stays as it was.
        frame = np.full((shape[1] + 2, LANES), SENTINEL, dtype)
        scatter_rows(pattern, values, panel * LANES, frame[1:-1])
        np.testing.assert_array_equal(frame[1:-1], expected)
        assert (frame[[0, -1]] == SENTINEL).all()


@pytest.mark.parametrize("dtype", DTYPES)
@over_patterns
def test_scattered_columns_are_panels_of_the_transposed_matrix(shape, density, block, dtype):
    dense = draw(shape, density, dtype)
    pattern, values = sparse(dense, block)
    expected = pack(np.ascontiguousarray(dense.T))
    for first, last in block_ranges(shape[1], block):
        part = expected[first * block // LANES : last * block // LANES]
        frame = np.full((len(part) + 2, shape[0], LANES), SENTINEL, dtype)
        scatter_columns(pattern, values, first, frame[1:-1])
        np.testing.assert_array_equal(frame[1:-1], part)
        assert (frame[[0, -1]] == SENTINEL).all()


@pytest.mark.parametrize("dtype", DTYPES)
@over_patterns
def test_every_row_is_scaled_by_its_factor(shape, density, block, dtype):
    dense = draw(shape, density, dtype)
    pattern, values = sparse(dense, block)
    rows, columns = stored_order(dense, block)
    factors = np.random.default_rng(1).standard_normal(shape[0]).astype(dtype)
    out = np.full_like(values, SENTINEL)
    scale_rows(pattern, values, factors, out)
    np.testing.assert_array_equal(out, dense[rows, columns] * factors[rows])
    # In place as well.
    scale_rows(pattern, values, factors, values)
    np.testing.assert_array_equal(values, out)


@pytest.mark.parametrize("dtype", DTYPES)
@over_patterns
def test_row_dots_with_themselves_are_sums_of_squares_in_double_precision(shape, density, block, dtype):
    dense = draw(shape, density, dtype)
    pattern, values = sparse(dense, block)
    norms = row_dots(pattern, values, values)
    assert norms.dtype == np.float64
    expected = np.square(dense, dtype=np.float64).sum(axis=1)
    np.testing.assert_allclose(norms, expected, rtol=(shape[1] + 2) * np.finfo(np.float64).eps, atol=0)


# Products -------------------------------------------------------------------------------------------------------------

# Rows, inputs and outputs.
SHAPES = [
    (1, 1, 1),
    (3, 63, 64),
    (5, 64, 63),
    (7, 65, 65),
    (9, 200, 200),
    (5, 700, 129),
    (3, 129, 1),
    (1030, 140, 65),
    (0, 5, 7),
    (4, 0, 9),
    (4, 9, 0),
]


class Forward:
    """rows @ W.T"""

    run = staticmethod(_kernels.forward)

    @staticmethod
    def right(W):
        return W.T


class Backward:
    """rows @ W"""

    run = staticmethod(_kernels.backward)

    @staticmethod
    def right(W):
        return W


over_operations = pytest.mark.parametrize(
    "operation", [pytest.param(Forward, id="forward"), pytest.param(Backward, id="backward")]
)


def factors(operation, shape, density, dtype):
    """The dense counterpart of the rows, and W, such that the product is ``dense @ operation.right(W)``."""
    n_rows, n_in, n_out = shape
    W = draw((n_out, n_in), 1, dtype, seed=1)
    return draw((n_rows, operation.right(W).shape[0]), density, dtype), W


def assert_close(actual, left, right, start, dtype):
    """``actual = start + left @ right`` but for rounding.

    A sum of k products in any order is off by at most k * eps / 2 times the sum of their sizes; twice that,
    because the oracle rounds as well where it has the same precision.
    """
    left, right, start = (array.astype(np.float64) for array in (left, right, start))
    sizes = np.abs(start) + np.abs(left) @ np.abs(right)
    bound = (left.shape[1] + 2) * np.finfo(dtype).eps * sizes
    assert (np.abs(actual - (start + left @ right)) <= bound).all()


def whole_product(operation, dense, W, block, accumulate=False):
    """The whole product in one call, onto ones where it accumulates."""
    right = operation.right(W)
    out = np.full((len(dense), right.shape[1]), 1 if accumulate else np.nan, W.dtype)
    operation.run(*sparse(dense, block), pack(W), out, accumulate=accumulate)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@over_operations
def test_product_equals_the_dense_one(operation, shape, density, block, dtype, level):
    dense, W = factors(operation, shape, density, dtype)
    right = operation.right(W)
    # What lies in the lanes beyond the last output never reaches a result.
    tiles = pack(W, padding=np.nan)
    out = np.full((len(dense), right.shape[1]), np.nan, dtype)
    operation.run(*sparse(dense, block), tiles, out)
    assert_close(out, dense, right, np.zeros(out.shape), dtype)
    start = draw(out.shape, 1, dtype, seed=2)
    out = start.copy()
    operation.run(*sparse(dense, block), tiles, out, accumulate=True)
    assert_close(out, dense, right, start, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_packed_product_equals_the_dense_one(shape, density, dtype, level):
    dense, W = factors(Forward, shape, density, dtype)
    rows, tiles = sparse(dense, 128), pack(W)
    # A panel more on either side, which stays as it was.
    frame = np.full((len(tiles) + 2, len(dense), LANES), SENTINEL, dtype)
    out = frame[1:-1]
    _kernels.forward_packed(*rows, tiles, out)
    # Padding times rows is zero.
    np.testing.assert_array_equal(out, pack(whole_product(Forward, dense, W, 128).T))
    start = draw(out.shape, 1, dtype, seed=2)
    out[:] = start
    _kernels.forward_packed(*rows, tiles, out, accumulate=True)
    assert_close(unpack(out), unpack(tiles), dense.T, unpack(start), dtype)
    assert (frame[[0, -1]] == SENTINEL).all()


@pytest.mark.parametrize("accumulate", [False, True])
def test_packed_product_by_panels_gives_the_bits_of_the_whole(accumulate, level):
    dense, W = factors(Forward, (700, 200, 300), 0.25, np.float32)
    rows, tiles = sparse(dense, 64), pack(W)
    whole = np.ones((len(tiles), len(dense), LANES), np.float32)
    parts = whole.copy()
    _kernels.forward_packed(*rows, tiles, whole, accumulate)
    for part in [slice(3, 5), slice(0, 1), slice(1, 3), slice(4, 4)]:
        _kernels.forward_packed(*rows, tiles[part], parts[part], accumulate)
    assert parts.tobytes() == whole.tobytes()


# First row, last row, first panel, last column, of a product of 1030 x 200: chunks of rows and panels, cut anywhere.
PARTS = [
    (0, 1030, 0, 200),
    (0, 1030, 1, 128),
    (0, 1030, 3, 200),
    (0, 512, 0, 200),
    (512, 1024, 1, 200),
    (1024, 1030, 0, 64),
    (1, 2, 0, 200),
    (511, 513, 0, 200),
    (37, 700, 1, 150),
    (600, 601, 2, 129),
    (700, 1029, 0, 1),
    (5, 5, 0, 200),
    (0, 1030, 2, 128),
    (1030, 1030, 3, 200),
]
# Stored by columns, and elements that lie around the part in a larger array.
LAYOUTS = [pytest.param(False, 0, id="rows"), pytest.param(True, 0, id="columns")]
LAYOUTS += [pytest.param(False, 3, id="slice of rows"), pytest.param(True, 3, id="slice of columns")]


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("by_columns", "margin"), LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@over_operations
def test_part_has_the_bits_of_the_whole_and_nothing_else_is_written(
    operation, dtype, by_columns, margin, accumulate, level
):
    dense, W = factors(operation, (1030, 200, 200), 0.25, dtype)
    whole = whole_product(operation, dense, W, 64, accumulate)
    rows, tiles = sparse(dense, 64), pack(W)
    for first_row, last_row, first_panel, last_column in PARTS:
        expected = whole[first_row:last_row, first_panel * LANES : last_column]
        height, width = last_row - first_row, last_column - first_panel * LANES
        frame = np.full((height + 2 * margin, width + 2 * margin), SENTINEL, dtype, order="F" if by_columns else "C")
        out = frame[margin : margin + height, margin : margin + width]
        out[:] = 1
        operation.run(*rows, tiles, out, first_panel, first_row, accumulate)
        # Order "C" in both, whatever the layout.
        assert out.tobytes() == expected.tobytes()
        out[:] = SENTINEL
        assert (frame == SENTINEL).all()


@pytest.mark.parametrize("dtype", DTYPES)
@over_operations
def test_row_does_not_depend_on_the_other_rows(operation, dtype, level):
    dense, W = factors(operation, (520, 300, 300), 0.05, dtype)
    together = whole_product(operation, dense, W, 64)
    shuffled = np.random.default_rng(0).permutation(len(dense))
    assert whole_product(operation, dense[shuffled], W, 64).tobytes() == together[shuffled].tobytes()
    for part in [slice(509, 515), slice(3, 4)]:
        assert whole_product(operation, dense[part], W, 64).tobytes() == together[part].tobytes()


def test_outputs_beyond_the_last_one_are_zero(level):
    dense, W = factors(Forward, (9, 70, 70), 0.25, np.float32)
    out = np.full((9, 128), np.nan, np.float32)
    _kernels.forward(*sparse(dense, 64), pack(W), out)
    assert (out[:, 70:] == 0).all()


@over_operations
def test_empty_rows_give_zeros_between_others(operation, level):
    dense, W = factors(operation, (6, 150, 150), 0.25, np.float32)
    dense[[0, 2, 3, 5]] = 0
    product = whole_product(operation, dense, W, 64)
    assert (product[[0, 2, 3, 5]] == 0).all()
    assert (product[[1, 4]] != 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@over_operations
def test_non_finite_value_reaches_its_row_only(operation, value, level):
    dense, W = factors(operation, (6, 150, 150), 0.25, np.float32)
    dense[2, 70] = value
    product = whole_product(operation, dense, W, 64)
    assert np.isfinite(product).all(axis=1).tolist() == [True, True, False, True, True, True]
    assert not np.isfinite(product[2]).any()


@over_operations
def test_what_no_entry_asks_for_is_not_multiplied(operation, level):
    dense, W = factors(operation, (6, 150, 150), 0.25, np.float32)
    dense[:, 70] = 0
    operation.right(W)[70] = np.nan
    assert np.isfinite(whole_product(operation, dense, W, 64)).all()


def test_product_with_a_transposed_pattern_is_the_transposed_product(level):
    dense = draw((300, 600), 0.1, np.float64)
    pattern, values = sparse(dense, 128)
    turned, order = pattern.transposed(64)
    right = draw((100, 300), 1, np.float64, seed=3)
    out = np.full((600, 100), np.nan)
    _kernels.forward(turned, values[order], pack(right), out)
    assert_close(out, dense.T, right.T, np.zeros(out.shape), np.float64)


def test_inputs_may_be_read_only():
    dense, W = factors(Forward, (9, 70, 70), 0.25, np.float64)
    arrays = indptr, indices, values, tiles, ones, z = [*csr(dense), pack(W), np.ones(9), dense.copy()]
    for array in arrays:
        array.flags.writeable = False
    pattern, order = Pattern.from_csr(indptr, indices, 70, 64)
    values = values[order]
    values.flags.writeable = False
    for operation in (Forward, Backward):
        out = np.empty((9, 70))
        operation.run(pattern, values, tiles, out)
        np.testing.assert_array_equal(out, whole_product(operation, dense, W, 64))
    _kernels.forward_packed(pattern, values, tiles, np.empty((2, 9, LANES)))
    select(z, 0.0, 64, 1.0)
    gather(pattern, z, 0, 1.0, np.empty_like(values))
    scatter_rows(pattern, values, 0, np.empty((70, LANES)))
    scatter_columns(pattern, values, 0, np.empty((2, 9, LANES)))
    scale_rows(pattern, values, ones, np.empty_like(values))
    row_dots(pattern, values, values)


# What the boundary refuses ------------------------------------------------------------------------------------------

# A matrix of 2 x 70 with four entries: what each case replaces of its CSR arrays.
MALFORMED_ROWS = {
    "index too large": {"indices": [0, 2, 1, 70]},
    "index far too large": {"indices": [0, 2, 1, 2**31 - 1]},
    "index negative": {"indices": [-1, 2, 1, 3]},
    "index far negative": {"indices": [0, 2, -(2**31), 3]},
    "unsorted": {"indices": [2, 0, 1, 3]},
    "duplicate": {"indices": [0, 2, 3, 3]},
    "indptr falls": {"indptr": [0, 5, 4]},
    "indptr negative": {"indptr": [0, -1, 4]},
    "indptr starts late": {"indptr": [1, 2, 4]},
    "indptr starts negative": {"indptr": [-1, 2, 4]},
    "indptr ends early": {"indptr": [0, 2, 3]},
    "indptr ends late": {"indptr": [0, 2, 5]},
    "indptr empty": {"indptr": []},
    "too few indices": {"indices": [0, 2, 1]},
    "no columns": {"n_columns": 0},
    "negative number of columns": {"n_columns": -1},
}


@pytest.mark.parametrize("case", MALFORMED_ROWS)
def test_malformed_rows_are_refused(case):
    arguments = {"indptr": [0, 2, 4], "indices": [0, 2, 1, 3], "n_columns": 70} | MALFORMED_ROWS[case]
    indptr, indices, n_columns = arguments.values()
    with pytest.raises(ValueError, match="malformed sparse rows"):
        Pattern.from_csr(np.array(indptr, np.int32), np.array(indices, np.int32), n_columns, 64)


def is_valid_csr(indptr, indices, n_columns):
    if indptr[0] != 0 or indptr[-1] != len(indices) or indptr != sorted(indptr):
        return False
    rows = [indices[a:b] for a, b in itertools.pairwise(indptr)]
    return all(row == sorted(set(row)) and set(row) <= set(range(n_columns)) for row in rows)


EXTREMES = st.sampled_from([-(2**31), -1, 127, 128, 129, 2**31 - 1])


@given(
    indptr=st.lists(st.integers(0, 4) | EXTREMES, max_size=2).map(lambda middle: [0, *middle]),
    indices=st.lists(st.integers(0, 7) | EXTREMES, max_size=4),
    end=st.sampled_from([0, 0, 0, 0, 1, -1]),
    block=st.sampled_from([64, 128]),
)
def test_any_index_arrays_are_either_stored_or_refused(indptr, indices, end, block):
    indptr = [*indptr, len(indices) + end]
    n_rows, n_columns = len(indptr) - 1, 2 * LANES
    arguments = np.array(indptr, np.int32), np.array(indices, np.int32), n_columns, block
    if not is_valid_csr(indptr, indices, n_columns):
        with pytest.raises(ValueError, match="malformed sparse rows"):
            Pattern.from_csr(*arguments)
        return
    pattern, order = Pattern.from_csr(*arguments)
    values = np.arange(1, len(indices) + 1, dtype=np.float32)
    dense = np.zeros((n_rows, n_columns), np.float32)
    dense[np.repeat(np.arange(n_rows), np.diff(indptr)), indices] = values
    out = np.full((n_rows, n_columns), np.nan, np.float32)
    _kernels.forward(pattern, values[order], pack(np.eye(n_columns, dtype=np.float32)), out)
    np.testing.assert_array_equal(out, dense)


OFFSETS = st.integers(-1, 4) | st.sampled_from([-(2**63), -(2**40), 2**40, 2**62, 2**63 - 1])


@given(
    first_row=OFFSETS,
    first_panel=OFFSETS,
    height=st.integers(0, 4),
    width=st.sampled_from([0, 1, 63, 64, 65, 66, 70, 71, 128, 129]),
)
@over_operations
def test_any_part_is_either_multiplied_or_refused(operation, first_row, first_panel, height, width):
    dense, W = factors(operation, (3, 70, 70), 0.5, np.float32)
    whole = whole_product(operation, dense, W, 64)
    if operation is Forward:
        # The last panel may be asked for as a whole.
        whole = np.pad(whole, ((0, 0), (0, 58)))
    rows, columns = slice(first_row, first_row + height), slice(first_panel * LANES, first_panel * LANES + width)
    out = np.full((height, width), SENTINEL, np.float32)
    arguments = [*sparse(dense, 64), pack(W), out, first_panel, first_row]
    if 0 <= first_row <= rows.stop <= whole.shape[0] and first_panel >= 0 and columns.stop <= whole.shape[1]:
        operation.run(*arguments)
        np.testing.assert_array_equal(out, whole[rows, columns])
    else:
        with pytest.raises((ValueError, OverflowError)):
            operation.run(*arguments)
        assert (out == SENTINEL).all()


def strided(shape, strides):
    """Writeable float32 array of any strides, which may overlap itself."""
    return as_strided(np.zeros(100_000, np.float32), shape, strides)


def product_arguments(operation, **changes):
    """Arguments of a product with a matrix of 2 x 70 and a W of 70 x 70."""
    dense, W = factors(operation, (2, 70, 70), 0.5, np.float32)
    pattern, values = sparse(dense, 64)
    arguments = {
        "pattern": pattern,
        "values": values,
        "tiles": pack(W),
        "out": np.full((2, 70), SENTINEL, np.float32),
    }
    return arguments | {name: change(arguments) for name, change in changes.items()}


def read_only(array):
    array.flags.writeable = False
    return array


# Every case replaces one argument.
MALFORMED_PRODUCTS = {
    "no rows": ("pattern", lambda a: None),
    "rows of another type": ("pattern", lambda a: "rows"),
    "too few values": ("values", lambda a: a["values"][:-1]),
    "too many values": ("values", lambda a: np.append(a["values"], np.float32(1))),
    "no values": ("values", lambda a: None),
    "values of double precision": ("values", lambda a: a["values"].astype(np.float64)),
    "integer values": ("values", lambda a: a["values"].astype(np.int32)),
    "strided values": ("values", lambda a: np.repeat(a["values"], 2)[::2]),
    "values in two dimensions": ("values", lambda a: a["values"][np.newaxis]),
    "tiles of 63 lanes": ("tiles", lambda a: np.ones((2, 70, 63), np.float32)),
    "tiles of 65 lanes": ("tiles", lambda a: np.ones((2, 70, 65), np.float32)),
    "too few inputs": ("tiles", lambda a: np.ones((2, 69, LANES), np.float32)),
    "too few panels": ("tiles", lambda a: np.ones((1, 70, LANES), np.float32)),
    "no panels": ("tiles", lambda a: np.ones((0, 70, LANES), np.float32)),
    "no inputs": ("tiles", lambda a: np.ones((2, 0, LANES), np.float32)),
    "no tiles": ("tiles", lambda a: None),
    "strided tiles": ("tiles", lambda a: np.repeat(a["tiles"], 2, axis=2)[:, :, ::2]),
    "transposed tiles": ("tiles", lambda a: np.ones((2, LANES, 70), np.float32).transpose(0, 2, 1)),
    "tiles in two dimensions": ("tiles", lambda a: a["tiles"][0]),
    "tiles of double precision": ("tiles", lambda a: a["tiles"].astype(np.float64)),
    "too many rows of out": ("out", lambda a: np.zeros((3, 70), np.float32)),
    "too many columns of out": ("out", lambda a: np.zeros((2, 129), np.float32)),
    "out of double precision": ("out", lambda a: np.zeros((2, 70))),
    "out of half precision": ("out", lambda a: np.zeros((2, 70), np.float16)),
    "no out": ("out", lambda a: None),
    "out in one dimension": ("out", lambda a: np.zeros(70, np.float32)),
    "out in three dimensions": ("out", lambda a: np.zeros((1, 2, 70), np.float32)),
    "read-only out": ("out", lambda a: read_only(np.zeros((2, 70), np.float32))),
    "every second column of out": ("out", lambda a: np.zeros((2, 140), np.float32)[:, ::2]),
    "rows of out backwards": ("out", lambda a: np.zeros((2, 70), np.float32)[::-1]),
    "columns of out backwards": ("out", lambda a: np.zeros((2, 70), np.float32)[:, ::-1]),
    "one row for all of out": ("out", lambda a: strided((2, 70), (0, 4))),
    "one column for all of out": ("out", lambda a: strided((2, 70), (4, 0))),
    "one number for all of out": ("out", lambda a: strided((2, 70), (0, 0))),
    "rows of out overlap": ("out", lambda a: strided((2, 70), (4 * 69, 4))),
    "rows and columns of out overlap": ("out", lambda a: strided((2, 70), (4, 4))),
    "out between other fields": ("out", lambda a: np.zeros((2, 70), "f4,i2")["f0"]),
    "rows of out begin between numbers": ("out", lambda a: strided((2, 70), (4 * 70 + 2, 4))),
    "columns of out begin between numbers": ("out", lambda a: strided((2, 70), (4, 10))),
}


@pytest.mark.parametrize("case", MALFORMED_PRODUCTS)
@over_operations
def test_malformed_product_is_refused(operation, case):
    name, change = MALFORMED_PRODUCTS[case]
    arguments = product_arguments(operation, **{name: change})
    with pytest.raises((ValueError, TypeError)):
        operation.run(*arguments.values())
    if name != "out":
        assert (arguments["out"] == SENTINEL).all()


@over_operations
def test_columns_of_out_beyond_those_of_W_are_refused(operation):
    width = {Forward: 129, Backward: 71}[operation]
    arguments = product_arguments(operation, out=lambda a: np.zeros((2, width), np.float32))
    with pytest.raises(ValueError, match=r"panel range|out ends at"):
        operation.run(*arguments.values())


@pytest.mark.parametrize("change", [-1, 1])
@over_operations
def test_matrix_of_another_size_is_refused(operation, change):
    n_panels, n_in = {Forward: (2, 70 + change), Backward: (2 + change, 70)}[operation]
    arguments = product_arguments(operation, tiles=lambda a: np.ones((n_panels, n_in, LANES), np.float32))
    with pytest.raises(ValueError, match=r"inputs|panels"):
        operation.run(*arguments.values())


@pytest.mark.parametrize("shape", [(3, 2, LANES), (1, 2, LANES), (2, 3, LANES), (2, 2, 63), (0, 0, 0)], ids=str)
def test_packed_out_of_the_wrong_shape_is_refused(shape):
    arguments = product_arguments(Forward, out=lambda a: np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="out must have shape"):
        _kernels.forward_packed(*arguments.values())


@pytest.mark.parametrize(
    "out",
    [
        pytest.param(read_only(np.zeros((2, 2, LANES), np.float32)), id="read-only"),
        pytest.param(np.zeros((2, 2, 2 * LANES), np.float32)[:, :, ::2], id="strided"),
        pytest.param(strided((2, 2, LANES), (0, 4 * LANES, 4)), id="overlapping"),
        pytest.param(np.zeros((2, 2, LANES)), id="double precision"),
        pytest.param(np.zeros((2, 2 * LANES), np.float32), id="two dimensions"),
        pytest.param(None, id="none"),
    ],
)
def test_malformed_packed_out_is_refused(out):
    with pytest.raises((ValueError, TypeError)):
        _kernels.forward_packed(*product_arguments(Forward, out=lambda a: out).values())


def small():
    """Pattern of 3 x 100 in blocks of 64, every place an entry, and values for it."""
    return sparse(np.ones((3, 100), np.float32), 64)


def ones(*shape):
    return np.ones(shape, np.float32)


MALFORMED_CALLS = {
    "negative rows": lambda: Pattern(-1, 3, 64),
    "negative columns": lambda: Pattern(3, -1, 64),
    **{f"block {block}": lambda block=block: Pattern(3, 3, block) for block in (0, -64, 1, 63, 100, 2**15 + 64)},
    # The number of blocks times that of rows exceeds 64 bits, so that it may even come out as zero.
    "far too many columns": lambda: Pattern(256, 2**62, 64),
    "far too many columns of CSR rows": lambda: Pattern.from_csr(
        np.zeros(257, np.int32), np.zeros(0, np.int32), 2**62, 64
    ),
    "far too many rows and columns": lambda: Pattern(2**62, 2**62, 64),
    "pattern without a size": lambda: Pattern.__new__(Pattern),
    "int64 indptr": lambda: Pattern.from_csr(np.zeros(2, np.int64), np.zeros(0, np.int32), 3, 64),
    "unsigned indices": lambda: Pattern.from_csr(np.zeros(2, np.int32), np.zeros(0, np.uint32), 3, 64),
    "strided indices": lambda: Pattern.from_csr(
        np.array([0, 2], np.int32), np.array([0, 0, 1, 1], np.int32)[::2], 3, 64
    ),
    "no indices": lambda: Pattern.from_csr(np.zeros(2, np.int32), None, 3, 64),
    "CSR rows in blocks of 100": lambda: Pattern.from_csr(np.zeros(2, np.int32), np.zeros(0, np.int32), 3, 100),
    "transposed in blocks of 100": lambda: small()[0].transposed(100),
    "transposed in blocks of 0": lambda: small()[0].transposed(0),
    "transposed in negative blocks": lambda: small()[0].transposed(-64),
    "concatenate nothing": lambda: concatenate([]),
    "concatenate None": lambda: concatenate([None]),
    "concatenate a pattern and None": lambda: concatenate([small()[0], None]),
    "concatenate a pattern and a number": lambda: concatenate([Pattern(3, 64, 64), 1]),
    "concatenate a tuple": lambda: concatenate((Pattern(3, 64, 64),)),
    "concatenate different rows": lambda: concatenate([Pattern(3, 64, 64), Pattern(4, 64, 64)]),
    "concatenate different blocks": lambda: concatenate([Pattern(3, 128, 64), Pattern(3, 128, 128)]),
    "concatenate after a block that is not full": lambda: concatenate([Pattern(3, 65, 64), Pattern(3, 64, 64)]),
    "select in blocks of 0": lambda: select(ones(3, 4), 0, 0, 1),
    "select in blocks of -64": lambda: select(ones(3, 4), 0, -64, 1),
    "select in blocks of 100": lambda: select(ones(3, 4), 0, 100, 1),
    "select from integers": lambda: select(np.ones((3, 4), int), 0, 64, 1),
    "select from columns": lambda: select(ones(3, 4).T, 0, 64, 1),
    "select from every second": lambda: select(ones(3, 4)[:, ::2], 0, 64, 1),
    "select from one dimension": lambda: select(ones(3), 0, 64, 1),
    "select from nothing": lambda: select(None, 0, 64, 1),
    "gather by nothing": lambda: gather(None, ones(3, 100), 0, 1, ones(300)),
    "gather too few rows": lambda: gather(small()[0], ones(2, 100), 0, 1, ones(300)),
    "gather too many rows": lambda: gather(small()[0], ones(4, 100), 0, 1, ones(300)),
    "gather too many columns": lambda: gather(small()[0], ones(3, 101), 0, 1, ones(300)),
    "gather half a block": lambda: gather(small()[0], ones(3, 32), 0, 1, ones(300)),
    "gather one block and a half": lambda: gather(small()[0], ones(3, 99), 0, 1, ones(300)),
    "gather no columns": lambda: gather(small()[0], ones(3, 0), 0, 1, ones(300)),
    "gather a block after the last": lambda: gather(small()[0], ones(3, 36), 2, 1, ones(300)),
    "gather a block far after the last": lambda: gather(small()[0], ones(3, 64), 2**40, 1, ones(300)),
    "gather a negative block": lambda: gather(small()[0], ones(3, 64), -1, 1, ones(300)),
    "gather into too few values": lambda: gather(small()[0], ones(3, 100), 0, 1, ones(299)),
    "gather into too many values": lambda: gather(small()[0], ones(3, 100), 0, 1, ones(301)),
    "gather into read-only values": lambda: gather(small()[0], ones(3, 100), 0, 1, read_only(ones(300))),
    "gather into strided values": lambda: gather(small()[0], ones(3, 100), 0, 1, ones(600)[::2]),
    "gather into double precision": lambda: gather(small()[0], ones(3, 100), 0, 1, np.ones(300)),
    "gather from columns": lambda: gather(small()[0], ones(100, 3).T, 0, 1, ones(300)),
    "scatter nothing by rows": lambda: scatter_rows(None, ones(300), 0, ones(100, LANES)),
    "scatter from row 1": lambda: scatter_rows(*small(), 1, ones(100, LANES)),
    "scatter from a row after the last": lambda: scatter_rows(*small(), 64, ones(100, LANES)),
    "scatter from a negative row": lambda: scatter_rows(*small(), -64, ones(100, LANES)),
    "scatter from a row far after the last": lambda: scatter_rows(*small(), 2**40, ones(100, LANES)),
    "scatter no rows": lambda: scatter_rows(Pattern(0, 100, 64), ones(0), 0, ones(100, LANES)),
    "scatter rows into a short tile": lambda: scatter_rows(*small(), 0, ones(99, LANES)),
    "scatter rows into a long tile": lambda: scatter_rows(*small(), 0, ones(101, LANES)),
    "scatter rows into 63 lanes": lambda: scatter_rows(*small(), 0, ones(100, 63)),
    "scatter rows into a read-only tile": lambda: scatter_rows(*small(), 0, read_only(ones(100, LANES))),
    "scatter rows into a strided tile": lambda: scatter_rows(*small(), 0, ones(100, 128)[:, ::2]),
    "scatter rows of too few values": lambda: scatter_rows(small()[0], ones(299), 0, ones(100, LANES)),
    "scatter rows of double precision": lambda: scatter_rows(small()[0], np.ones(300), 0, ones(100, LANES)),
    "scatter nothing by columns": lambda: scatter_columns(None, ones(300), 0, ones(2, 3, LANES)),
    "scatter too many panels": lambda: scatter_columns(*small(), 0, ones(3, 3, LANES)),
    "scatter half a block": lambda: scatter_columns(Pattern(3, 200, 128), ones(0), 0, ones(1, 3, LANES)),
    "scatter from a negative block": lambda: scatter_columns(*small(), -1, ones(1, 3, LANES)),
    "scatter from a block after the last": lambda: scatter_columns(*small(), 2, ones(1, 3, LANES)),
    "scatter from a block far after the last": lambda: scatter_columns(*small(), 2**40, ones(1, 3, LANES)),
    "scatter columns of too many rows": lambda: scatter_columns(*small(), 0, ones(2, 4, LANES)),
    "scatter columns into 63 lanes": lambda: scatter_columns(*small(), 0, ones(2, 3, 63)),
    "scatter columns into read-only tiles": lambda: scatter_columns(*small(), 0, read_only(ones(2, 3, LANES))),
    "scatter columns into strided tiles": lambda: scatter_columns(*small(), 0, ones(4, 3, LANES)[::2]),
    "scatter columns of too many values": lambda: scatter_columns(small()[0], ones(301), 0, ones(2, 3, LANES)),
    "scale nothing": lambda: scale_rows(None, ones(300), ones(3), ones(300)),
    "scale by too few factors": lambda: scale_rows(*small(), ones(2), ones(300)),
    "scale by too many factors": lambda: scale_rows(*small(), ones(4), ones(300)),
    "scale by double precision": lambda: scale_rows(*small(), np.ones(3), ones(300)),
    "scale too few values": lambda: scale_rows(small()[0], ones(299), ones(3), ones(300)),
    "scale into too few values": lambda: scale_rows(*small(), ones(3), ones(299)),
    "scale into too many values": lambda: scale_rows(*small(), ones(3), ones(301)),
    "scale into read-only values": lambda: scale_rows(*small(), ones(3), read_only(ones(300))),
    "scale into strided values": lambda: scale_rows(*small(), ones(3), ones(600)[::2]),
    "dots of nothing": lambda: row_dots(None, ones(300), ones(300)),
    "dots of too few values": lambda: row_dots(small()[0], ones(300), ones(299)),
    "dots of too many values": lambda: row_dots(small()[0], ones(301), ones(300)),
    "dots of integers": lambda: row_dots(small()[0], np.ones(300, int), np.ones(300, int)),
    "dots of strided values": lambda: row_dots(small()[0], ones(300), ones(600)[::2]),
}


@pytest.mark.parametrize("case", MALFORMED_CALLS)
def test_malformed_call_is_refused(case):
    with pytest.raises((ValueError, TypeError)):
        MALFORMED_CALLS[case]()


# SIMD levels --------------------------------------------------------------------------------------------------------


def test_every_machine_runs_the_baseline_and_starts_with_the_best_level():
    assert simd_levels()[-1] == "baseline"
    initial = simd_level()
    try:
        for name in simd_levels():
            use_simd_level(name)
            assert simd_level() == name
        use_simd_level("")
        assert simd_level() == simd_levels()[0]
    finally:
        use_simd_level(initial)


def test_unknown_simd_level_is_refused_and_the_old_one_kept():
    initial = simd_level()
    with pytest.raises(ValueError, match=SIMD_VARIABLE):
        use_simd_level("abacus")
    assert simd_level() == initial


def import_with_simd_level(name):
    # Without the present directory on the path: it may be the checkout, whose package has no compiled kernels.
    return subprocess.run(
        [sys.executable, "-P", "-c", "from sklearn_subquad import _kernels; print(_kernels.simd_level())"],
        env=os.environ | {SIMD_VARIABLE: name},
        capture_output=True,
        text=True,
    )


def test_environment_variable_forces_the_simd_level():
    process = import_with_simd_level("baseline")
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["baseline"]


def test_unknown_simd_level_in_the_environment_is_an_error_that_names_the_variable():
    process = import_with_simd_level("abacus")
    assert process.returncode != 0
    assert SIMD_VARIABLE == "SKLEARN_SUBQUAD_SIMD"
    assert "ValueError" in process.stderr
    assert "'abacus'" in process.stderr
    assert SIMD_VARIABLE in process.stderr
