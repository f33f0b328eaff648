"""The kernels of the sketches: Walsh-Hadamard transforms of tiles, samples of them, and signed scattering."""

import functools
import itertools

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse import csr_array

from sklearn_subquad._kernels import (
    LANES,
    add_sampled_products,
    count_sketch,
    count_sketch_dense,
    scatter_signed,
    simd_level,
    simd_levels,
    use_simd_level,
    walsh_hadamard,
)
from sklearn_subquad._linalg.sparse_rows import SparseRows

DTYPES = [np.float32, np.float64]
SENTINEL = -12345.0

over_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=simd_levels())
def level(request):
    initial = simd_level()
    use_simd_level(request.param)
    yield request.param
    use_simd_level(initial)


@functools.cache
def hadamard(size):
    # Single precision halves the 128 MB of the largest; its elements are 1 and -1.
    return scipy.linalg.hadamard(size, dtype=np.float32)


def integers(shape, dtype, seed=0):
    """Numbers so small that all sums of some thousands of them are exact."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


# Transform ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", range(13))
@over_dtypes
def test_transform_multiplies_by_the_hadamard_matrix(exponent, dtype, level):
    size = 2**exponent
    # One row of the array more on either side, which stays as it was.
    frame = np.full((size + 2, LANES), SENTINEL, dtype)
    frame[1:-1] = tile = integers((size, LANES), dtype)
    assert walsh_hadamard(frame[1:-1]) is None
    np.testing.assert_array_equal(frame[1:-1], hadamard(size) @ tile)
    assert (frame[[0, -1]] == SENTINEL).all()


@pytest.mark.parametrize("exponent", [13, 14, 15, 16])
@over_dtypes
def test_transform_of_the_transform_is_a_multiple(exponent, dtype, level):
    tile = integers((2**exponent, LANES), dtype)
    twice = tile.copy()
    walsh_hadamard(twice)
    # The coordinate that is the sum of all, and one that takes its signs from the highest bit.
    half = len(tile) // 2
    np.testing.assert_array_equal(twice[0], tile.sum(axis=0))
    np.testing.assert_array_equal(twice[half], tile[:half].sum(axis=0) - tile[half:].sum(axis=0))
    twice /= len(tile)
    walsh_hadamard(twice)
    np.testing.assert_array_equal(twice, tile)


@over_dtypes
def test_transform_is_accurate(dtype, level):
    tile = np.random.default_rng(0).standard_normal((1024, LANES)).astype(dtype)
    expected = hadamard(1024).astype(np.float64) @ tile.astype(np.float64)
    # Ten levels of one rounding each, of numbers that are no larger than the sum of magnitudes.
    tolerance = 10 * np.finfo(dtype).eps * np.abs(tile).sum(axis=0)
    walsh_hadamard(tile)
    assert (np.abs(tile - expected) <= tolerance).all()


@over_dtypes
def test_all_levels_transform_to_the_same_bits(dtype):
    tile = np.random.default_rng(0).standard_normal((2048, LANES)).astype(dtype)
    initial, transforms = simd_level(), []
    try:
        for name in simd_levels():
            use_simd_level(name)
            transforms.append(tile.copy())
            walsh_hadamard(transforms[-1])
    finally:
        use_simd_level(initial)
    for transform in transforms[1:]:
        np.testing.assert_array_equal(transform, transforms[0])


@pytest.mark.parametrize("offset", [4, 8, 16, 32])
def test_transform_of_a_tile_that_begins_within_a_cache_line(offset, level):
    memory = np.zeros(256 * LANES * 4 + 128, np.uint8)
    offset += -memory.ctypes.data % 64
    tile = memory[offset : offset + 256 * LANES * 4].view(np.float32).reshape(256, LANES)
    tile[:] = values = integers(tile.shape, np.float32)
    walsh_hadamard(tile)
    np.testing.assert_array_equal(tile, hadamard(256) @ values)


def test_nan_and_infinity_stay_in_their_lane(level):
    tile = integers((256, LANES), np.float32)
    expected = hadamard(256) @ tile
    tile[3, 5], tile[100, 40] = np.nan, np.inf
    walsh_hadamard(tile)
    others = np.delete(np.arange(LANES), [5, 40])
    assert np.isnan(tile[:, 5]).all()
    assert not np.isfinite(tile[:, 40]).any()
    np.testing.assert_array_equal(tile[:, others], expected[:, others])


def read_only(array):
    array.flags.writeable = False
    return array


def misaligned(shape, dtype):
    n_bytes = np.prod(shape) * np.dtype(dtype).itemsize
    return np.zeros(n_bytes + 1, np.uint8)[1:].view(dtype).reshape(shape)


MALFORMED_TILES = {
    "none": None,
    "a list": [[0.0] * LANES],
    "one dimension": np.zeros(LANES, np.float32),
    "three dimensions": np.zeros((2, 2, LANES), np.float32),
    "too few lanes": np.zeros((4, LANES - 1), np.float32),
    "too many lanes": np.zeros((4, LANES + 1), np.float32),
    "half precision": np.zeros((4, LANES), np.float16),
    "integers": np.zeros((4, LANES), np.int32),
    "complex": np.zeros((4, LANES), np.complex64),
    "another byte order": np.zeros((4, LANES), np.dtype(np.float32).newbyteorder()),
    "columns": np.zeros((LANES, 4), np.float32).T,
    "every second row": np.zeros((8, LANES), np.float32)[::2],
    "every second lane": np.zeros((4, 2 * LANES), np.float32)[:, ::2],
    "read-only": read_only(np.zeros((4, LANES), np.float32)),
    "misaligned": misaligned((4, LANES), np.float32),
}


@pytest.mark.parametrize("case", MALFORMED_TILES)
def test_malformed_tile_is_refused_by_name(case):
    with pytest.raises(ValueError, match=r"^tile must be a C-contiguous, writeable array of shape \(size, 64\)"):
        walsh_hadamard(MALFORMED_TILES[case])


@pytest.mark.parametrize("size", [0, 3, 6, 1000])
@over_dtypes
def test_tile_whose_size_is_no_power_of_two_is_refused(size, dtype):
    tile = np.ones((size, LANES), dtype)
    with pytest.raises(ValueError, match=f"rows of tile must be a power of two, got {size}"):
        walsh_hadamard(tile)
    assert (tile == 1).all()


# Samples of transforms ------------------------------------------------------------------------------------------------


def whole_transform(values):
    """The transform of the columns, with zeros to the next power of two."""
    size = 1 << (len(values) - 1).bit_length()
    return hadamard(size)[:, : len(values)] @ values


def transformed_tile(values, head):
    """The two parts that `add_sampled_products` takes for the whole transform."""
    tile = values.copy()
    walsh_hadamard(tile[:head])
    if head < len(tile):
        walsh_hadamard(tile[head:])
    return tile


# The largest power of two, and the next.
TILES = [(1, 0), (2, 0), (64, 0), (2, 1), (8, 1), (8, 4), (64, 16)]


@pytest.mark.parametrize(("u_parts", "g_parts"), list(itertools.product(TILES, repeat=2)), ids=str)
@over_dtypes
def test_products_of_sampled_coordinates_are_added(u_parts, g_parts, dtype, level):
    rng = np.random.default_rng(0)
    n_samples = 37
    transforms, tiles, samples = [], [], []
    for seed, (head, tail) in enumerate((u_parts, g_parts)):
        values = integers((head + tail, LANES), dtype, seed)
        transforms.append(whole_transform(values))
        tiles.append(transformed_tile(values, head))
        samples.append(rng.integers(len(transforms[-1]), size=n_samples))
    signs = rng.choice([-1, 1], n_samples).astype(dtype)
    frame = np.full((n_samples + 2, LANES), SENTINEL, dtype)
    frame[1:-1] = total = integers((n_samples, LANES), dtype, 2)
    add_sampled_products(tiles[0], samples[0], tiles[1], samples[1], signs, frame[1:-1])
    expected = total + signs[:, None] * transforms[0][samples[0]] * transforms[1][samples[1]]
    np.testing.assert_array_equal(frame[1:-1], expected)
    assert (frame[[0, -1]] == SENTINEL).all()


def sampling_arguments(**changes):
    arguments = {
        "u": np.ones((8, LANES), np.float32),
        "u_sampled": np.zeros(5, np.int64),
        "g": np.ones((12, LANES), np.float32),
        "g_sampled": np.zeros(5, np.int64),
        "signs": np.ones(5, np.float32),
        "total": np.zeros((5, LANES), np.float32),
    }
    return arguments | changes


def test_no_samples_are_no_error():
    no_indices, no_signs = np.zeros(0, np.int64), np.zeros(0, np.float32)
    total = np.zeros((0, LANES), np.float32)
    add_sampled_products(**sampling_arguments(u_sampled=no_indices, g_sampled=no_indices, signs=no_signs, total=total))


MALFORMED_SAMPLES = {
    **{
        f"{name} of {case}": (name, tile)
        for name in ("u", "g", "total")
        for case, tile in MALFORMED_TILES.items()
        if name != "total" or case != "every second row"
    },
    **{
        f"{name} of {case}": (name, array)
        for name in ("u_sampled", "g_sampled")
        for case, array in {
            "a list": [0] * 5,
            "another length": np.zeros(4, np.int64),
            "two dimensions": np.zeros((5, 1), np.int64),
            "32 bits": np.zeros(5, np.int32),
            "unsigned": np.zeros(5, np.uint64),
            "every second": np.zeros(10, np.int64)[::2],
            "misaligned": misaligned((5,), np.int64),
            "-1": np.array([0, 0, -1, 0, 0]),
        }.items()
    },
    "u_sampled beyond the last row": ("u_sampled", np.array([0, 0, 8, 0, 0])),
    "g_sampled beyond the last row": ("g_sampled", np.array([0, 0, 16, 0, 0])),
    "too few signs": ("signs", np.ones(4, np.float32)),
    "signs of another type": ("signs", np.ones(5)),
    "strided signs": ("signs", np.ones(10, np.float32)[::2]),
    "u of another type": ("u", np.ones((8, LANES))),
    "g of another type": ("g", np.ones((12, LANES))),
    "u of three powers of two": ("u", np.ones((7, LANES), np.float32)),
    "g of three powers of two": ("g", np.ones((11, LANES), np.float32)),
    "u without rows": ("u", np.ones((0, LANES), np.float32)),
}


@pytest.mark.parametrize("case", MALFORMED_SAMPLES)
def test_malformed_samples_are_refused_by_name(case):
    name, value = MALFORMED_SAMPLES[case]
    arguments = sampling_arguments(**{name: value})
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        add_sampled_products(**arguments)
    if name != "total":
        assert (arguments["total"] == 0).all()


# Scattering -----------------------------------------------------------------------------------------------------------

# Several chunks of rows, several blocks of columns, the last of each not full.
SHAPES = [(1, 1), (64, 64), (70, 65), (130, 513), (600, 300), (1030, 70)]
over_matrices = pytest.mark.parametrize(("shape", "density"), list(itertools.product(SHAPES, [0, 0.1, 1])), ids=str)


def draw(shape, density, dtype):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(dtype)


def sparse(dense):
    rows = SparseRows.from_csr(csr_array(dense))
    return rows.pattern, rows.values


def panels(n_rows):
    return [slice(first, min(first + LANES, n_rows)) for first in range(0, n_rows, LANES)]


@over_dtypes
@over_matrices
def test_scattered_rows_are_a_panel_of_the_matrix_with_signs(shape, density, dtype):
    dense = draw(shape, density, dtype)
    pattern, values = sparse(dense)
    signs = np.random.default_rng(1).choice([-1, 1], shape[1]).astype(dtype)
    for rows in panels(shape[0]):
        frame = np.full((shape[1] + 2, LANES), SENTINEL, dtype)
        scatter_signed(pattern, values, rows.start, signs, frame[1:-1])
        expected = np.zeros((shape[1], LANES), dtype)
        expected[:, : rows.stop - rows.start] = (dense[rows] * signs).T
        np.testing.assert_array_equal(frame[1:-1], expected)
        assert (frame[[0, -1]] == SENTINEL).all()


@pytest.mark.parametrize("n_buckets", [1, 7, 200])
@over_dtypes
@over_matrices
def test_count_sketch_adds_columns_with_signs_to_buckets(shape, density, dtype, n_buckets):
    # Small integers: sums are exact in every order.
    dense = np.rint(3 * draw(shape, density, dtype))
    pattern, values = sparse(dense)
    rng = np.random.default_rng(1)
    signs, buckets = rng.choice([-1, 1], shape[1]).astype(dtype), rng.integers(n_buckets, size=shape[1])
    count_matrix = np.zeros((shape[1], n_buckets), dtype)
    count_matrix[np.arange(shape[1]), buckets] = signs
    for rows in panels(shape[0]):
        start = integers((LANES, n_buckets), dtype)
        expected = start.copy()
        expected[: rows.stop - rows.start] += dense[rows] @ count_matrix
        out = start.copy()
        count_sketch(pattern, values, rows.start, buckets, signs, out)
        np.testing.assert_array_equal(out, expected)
        # The rows in any order of memory.
        for dense_rows in (dense[rows], np.asfortranarray(dense[rows]), read_only(dense[rows].copy())):
            out = start.copy()
            count_sketch_dense(dense_rows, buckets, signs, out)
            np.testing.assert_array_equal(out, expected)


def call(kernel, **changes):
    """Call `kernel` on a matrix of 70 x 100, with some arguments replaced."""
    pattern, values = sparse(np.ones((70, 100), np.float32))
    arguments = {
        scatter_signed: {"first_row": 0, "signs": np.ones(100, np.float32), "tile": np.ones((100, LANES), np.float32)},
        count_sketch: {
            "first_row": 0,
            "buckets": np.zeros(100, np.int64),
            "signs": np.ones(100, np.float32),
            "out": np.ones((LANES, 7), np.float32),
        },
    }
    if kernel is count_sketch_dense:
        del arguments[count_sketch]["first_row"]
        arguments = arguments[count_sketch] | {"rows": np.ones((LANES, 100), np.float32)} | changes
    else:
        arguments = {"pattern": pattern, "values": values} | arguments[kernel] | changes
    kernel(**arguments)


def sparse_cases(cases):
    return {
        "pattern": [None, "rows"],
        "values": [np.ones(6999, np.float32), np.ones(7001, np.float32), np.ones(7000), np.ones(7000, np.int32), None],
        "first_row": [-64, -1, 1, 63, 128, 2**40],
        **cases,
    }


SKETCH_CASES = {
    "buckets": [
        np.zeros(99, np.int64),
        np.zeros(100, np.int32),
        np.zeros(200, np.int64)[::2],
        np.full(100, 7),
        np.full(100, -1),
        None,
    ],
    "signs": [np.ones(99, np.float32), np.ones(100), np.ones(200, np.float32)[::2], None],
    "out": [
        np.ones((LANES - 1, 7), np.float32),
        np.ones((LANES, 0), np.float32),
        np.ones((LANES, 7)),
        np.ones((7, LANES), np.float32).T,
        read_only(np.ones((LANES, 7), np.float32)),
        None,
    ],
}
MALFORMED_CALLS = {
    scatter_signed: sparse_cases(
        {
            "signs": SKETCH_CASES["signs"],
            "tile": [
                np.ones((99, LANES), np.float32),
                np.ones((101, LANES), np.float32),
                np.ones((100, 63), np.float32),
                np.ones((100, LANES)),
                np.ones((200, LANES), np.float32)[::2],
                read_only(np.ones((100, LANES), np.float32)),
                None,
            ],
        }
    ),
    count_sketch: sparse_cases(SKETCH_CASES),
    count_sketch_dense: {
        "rows": [
            np.ones((LANES + 1, 100), np.float32),
            np.ones((LANES, 99), np.float32),
            np.ones((LANES, 100)),
            np.ones(100, np.float32),
            None,
        ],
        **SKETCH_CASES,
    },
}
MALFORMED_CALLS = [
    pytest.param(kernel, {name: value}, id=f"{kernel.__name__}-{name}-{i}")
    for kernel, cases in MALFORMED_CALLS.items()
    for name, values in cases.items()
    for i, value in enumerate(values)
]


@pytest.mark.parametrize(("kernel", "change"), MALFORMED_CALLS)
def test_malformed_call_is_refused(kernel, change):
    with pytest.raises((ValueError, TypeError)):
        call(kernel, **change)


@pytest.mark.parametrize("kernel", [scatter_signed, count_sketch, count_sketch_dense])
def test_call_that_malformed_ones_differ_from_is_accepted(kernel):
    call(kernel)
