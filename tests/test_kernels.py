import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES, SIMD_VARIABLE, _tiles, simd_level, use_simd_level


def available_levels():
    initial, levels = simd_level(), []
    for name in ("baseline", "x86_64_v3"):
        try:
            use_simd_level(name)
        except ValueError:
            continue
        levels.append(name)
    use_simd_level(initial)
    return levels


@pytest.fixture(params=available_levels())
def level(request):
    initial = simd_level()
    use_simd_level(request.param)
    yield request.param
    use_simd_level(initial)


# Rows, inputs and outputs: ragged panels, more than one block of inputs (128 in float32, 64 in float64),
# more than one chunk of 512 rows, and nothing at all.
SHAPES = [
    (1, 1, 1),
    (3, 63, 64),
    (5, 64, 63),
    (7, 65, 65),
    (9, 200, 200),
    (5, 300, 129),
    (3, 129, 1),
    (1030, 140, 65),
    (0, 5, 7),
    (4, 0, 9),
    (4, 9, 0),
]
DTYPES = [np.float32, np.float64]


def ceil_lanes(size):
    return -(-size // LANES) * LANES


def pack(W):
    """Tiles of W, padded by zero outputs to whole panels."""
    padded = np.zeros((ceil_lanes(W.shape[0]), W.shape[1]), dtype=W.dtype)
    padded[: W.shape[0]] = W
    return np.ascontiguousarray(padded.reshape(len(padded) // LANES, LANES, W.shape[1]).transpose(0, 2, 1))


def unpack(tiles):
    return tiles.transpose(0, 2, 1).reshape(len(tiles) * LANES, tiles.shape[1])


class Forward:
    """rows @ W.T"""

    run = staticmethod(_kernels.forward)

    @staticmethod
    def n_columns(n_in, n_out):
        return n_in

    @staticmethod
    def empty_out(n_rows, n_in, n_out, dtype):
        return np.full((n_rows, ceil_lanes(n_out)), np.nan, dtype)

    @staticmethod
    def oracle(rows, W, out):
        expected = np.zeros(out.shape)
        expected[:, : W.shape[0]] = rows @ W.T
        return expected


class Backward:
    """rows @ W"""

    run = staticmethod(_kernels.backward)

    @staticmethod
    def n_columns(n_in, n_out):
        return n_out

    @staticmethod
    def empty_out(n_rows, n_in, n_out, dtype):
        return np.full((n_rows, ceil_lanes(n_in)), np.nan, dtype)

    @staticmethod
    def oracle(rows, W, out):
        expected = np.zeros(out.shape)
        expected[:, : W.shape[1]] = rows @ W
        return expected


class AddProduct:
    """out + F @ rows.T, with the factor F in W's place and `out` packed"""

    run = staticmethod(_kernels.add_product)

    @staticmethod
    def n_columns(n_in, n_out):
        return n_in

    @staticmethod
    def empty_out(n_rows, n_in, n_out, dtype):
        return pack(np.random.default_rng(9).standard_normal((n_out, n_rows)).astype(dtype))

    @staticmethod
    def oracle(rows, W, out):
        expected = unpack(out).astype(np.float64)
        expected[: W.shape[0]] += W @ rows.T
        return pack(expected)


OPERATIONS = [
    pytest.param(Forward, id="forward"),
    pytest.param(Backward, id="backward"),
    pytest.param(AddProduct, id="add_product"),
]


def problem(sparse_rows, operation, shape, density, dtype):
    n_rows, n_in, n_out = shape
    rng = np.random.default_rng(0)
    rows = sparse_rows(rng, n_rows, operation.n_columns(n_in, n_out), density, dtype)
    W = rng.standard_normal((n_out, n_in)).astype(dtype)
    return rows, W, operation.empty_out(n_rows, n_in, n_out, dtype)


def n_out_panels(operation, out):
    return len(out) if operation is AddProduct else out.shape[1] // LANES


def run(operation, rows, W, out, *ranges):
    tiles = pack(W)
    for first, last in ranges or [(0, n_out_panels(operation, out))]:
        operation.run(rows.indptr, rows.indices, rows.data, tiles, out, first, last)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.05, 0.25, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_product_equals_the_dense_one(operation, shape, density, dtype, level, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, shape, density, dtype)
    dense = rows.toarray().astype(np.float64)
    expected = operation.oracle(dense, W.astype(np.float64), out)
    # A sum of k products in any order is off by at most k * eps / 2 times the sum of their sizes; twice
    # that, because the oracle rounds as well where it has the same precision.
    sizes = operation.oracle(np.abs(dense), np.abs(W), np.abs(out))
    bound = (dense.shape[1] + 2) * np.finfo(dtype).eps * sizes
    actual = run(operation, rows, W, out)
    assert (np.abs(actual - expected) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_two_ranges_of_panels_give_the_bits_of_one(operation, dtype, level, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (9, 200, 200), 0.25, dtype)
    whole = run(operation, rows, W, out.copy())
    for cut in range(5):
        parts = run(operation, rows, W, out.copy(), (cut, 4), (0, cut))
        assert parts.tobytes() == whole.tobytes()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_panels_outside_the_range_stay_untouched(operation, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (9, 200, 200), 0.25, np.float32)
    actual = run(operation, rows, W, out.copy(), (1, 2))
    if operation is not AddProduct:
        out, actual = (array.reshape(9, 4, LANES).swapaxes(0, 1) for array in (out, actual))
    changed = [actual[panel].tobytes() != out[panel].tobytes() for panel in range(4)]
    assert changed == [False, True, False, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", [Forward, Backward])
def test_row_does_not_depend_on_the_other_rows(operation, dtype, level, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (520, 300, 200), 0.05, dtype)
    together = run(operation, rows, W, out)
    alone = run(operation, rows[509:515], W, np.empty((6, out.shape[1]), dtype))
    assert together[509:515].tobytes() == alone.tobytes()


@pytest.mark.parametrize("operation", [Forward, Backward])
def test_empty_rows_give_zeros_between_others(operation, level, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (6, 150, 150), 0.25, np.float32)
    dense = rows.toarray()
    dense[[0, 2, 3, 5]] = 0
    actual = run(operation, type(rows)(dense), W, out)
    assert (actual[[0, 2, 3, 5]] == 0).all()
    assert (actual[[1, 4], :150] != 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("operation", [Forward, Backward])
def test_non_finite_value_reaches_its_row_only(operation, value, level, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (6, 150, 150), 0.25, np.float32)
    rows.data[rows.indptr[2]] = value
    actual = run(operation, rows, W, out)[:, :150]
    assert np.isfinite(actual).all(axis=1).tolist() == [True, True, False, True, True, True]
    assert not np.isfinite(actual[2]).any()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_inputs_may_be_read_only(operation, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (9, 70, 70), 0.25, np.float64)
    expected = run(operation, rows, W, out.copy())
    inputs = [rows.indptr, rows.indices, rows.data, pack(W)]
    for array in inputs:
        array.flags.writeable = False
    operation.run(*inputs, out, 0, 2)
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_read_only_output_is_refused(operation, sparse_rows):
    rows, W, out = problem(sparse_rows, operation, (9, 70, 70), 0.25, np.float64)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        run(operation, rows, W, out)


# Two rows of W's 70 inputs (or, backward, 70 outputs), four entries: what each case replaces.
MALFORMED_ROWS = {
    "index too large": {"indices": [0, 2, 1, 128]},
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
    "too few values": {"values": [1.0, 2.0, 3.0]},
    "too many values": {"values": [1.0, 2.0, 3.0, 4.0, 5.0]},
    "too few indices": {"indices": [0, 2, 1]},
}


def small_arguments(operation, **changes):
    arguments = {
        "indptr": np.array(changes.pop("indptr", [0, 2, 4]), np.int32),
        "indices": np.array(changes.pop("indices", [0, 2, 1, 3]), np.int32),
        "values": np.array(changes.pop("values", [1.0, 2.0, 3.0, 4.0]), np.float32),
        "tiles": pack(np.ones((70, 70), np.float32)),
        "out": operation.empty_out(2, 70, 70, np.float32),
        "first": 0,
        "last": 2,
    }
    return list((arguments | changes).values())


@pytest.mark.parametrize("case", MALFORMED_ROWS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_malformed_rows_are_refused(operation, case):
    with pytest.raises(ValueError, match=r"malformed sparse rows|must have shape"):
        operation.run(*small_arguments(operation, **MALFORMED_ROWS[case]))


@pytest.mark.parametrize("bounds", [(-1, 1), (0, 3), (2, 1), (3, 3), (-2, -1), (0, 2**40)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_panels_out_of_range_are_refused(operation, bounds):
    with pytest.raises(ValueError, match="panel range"):
        operation.run(*small_arguments(operation, first=bounds[0], last=bounds[1]))


@pytest.mark.parametrize(
    ("position", "dtype"),
    [
        pytest.param(0, np.int64, id="int64 indptr"),
        pytest.param(1, np.int64, id="int64 indices"),
        pytest.param(1, np.uint32, id="unsigned indices"),
        pytest.param(2, np.int32, id="integer values"),
        pytest.param(2, np.float64, id="float64 values, float32 tiles"),
        pytest.param(3, np.float64, id="float64 tiles, float32 values"),
        pytest.param(4, np.float64, id="float64 out"),
        pytest.param(4, np.float16, id="float16 out"),
    ],
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_dtype_is_refused(operation, position, dtype):
    arguments = small_arguments(operation)
    arguments[position] = arguments[position].astype(dtype)
    with pytest.raises((ValueError, TypeError)):
        operation.run(*arguments)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_strided_output_is_refused(operation):
    arguments = small_arguments(operation)
    arguments[4] = np.repeat(arguments[4], 2, axis=-1)[..., ::2]
    with pytest.raises(ValueError, match="contiguous"):
        operation.run(*arguments)


@pytest.mark.parametrize("shape", [(3, 128), (1, 128), (2, 64), (2, 192), (2, 70), (0, 0)], ids=str)
@pytest.mark.parametrize("operation", [Forward, Backward])
def test_output_of_the_wrong_shape_is_refused(operation, shape):
    with pytest.raises(ValueError, match="out must have shape"):
        operation.run(*small_arguments(operation, out=np.zeros(shape, np.float32)))


@pytest.mark.parametrize("shape", [(3, 2, LANES), (1, 2, LANES), (2, 3, LANES), (2, 2, 63)], ids=str)
def test_added_product_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="tiles must have shape"):
        AddProduct.run(*small_arguments(AddProduct, out=np.zeros(shape, np.float32)))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_panels_of_the_wrong_width_are_refused(operation):
    with pytest.raises(ValueError, match="must have shape"):
        operation.run(*small_arguments(operation, tiles=np.ones((2, 70, 63), np.float32)))


def is_valid_csr(indptr, indices, n_values, n_columns):
    if indptr[0] != 0 or indptr[-1] != n_values or n_values != len(indices) or indptr != sorted(indptr):
        return False
    rows = [indices[a:b] for a, b in itertools.pairwise(indptr)]
    return all(row == sorted(set(row)) and set(row) <= set(range(n_columns)) for row in rows)


EXTREMES = st.sampled_from([-(2**31), -1, 127, 128, 129, 2**31 - 1])


@given(
    indptr=st.lists(st.integers(0, 4) | EXTREMES, max_size=2).map(lambda middle: [0, *middle]),
    indices=st.lists(st.integers(0, 7) | EXTREMES, max_size=4),
    end=st.sampled_from([0, 0, 0, 0, 1, -1]),
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_index_arrays_are_either_multiplied_or_refused(operation, indptr, indices, end):
    indptr = [*indptr, len(indices) + end]
    values = np.arange(1, len(indices) + 1, dtype=np.float32)
    n_rows, n_columns = len(indptr) - 1, LANES * 2
    W = np.random.default_rng(0).integers(-9, 10, (n_columns, n_columns)).astype(np.float32)
    out = operation.empty_out(n_rows, n_columns, n_columns, np.float32).round()
    arguments = [np.array(indptr, np.int32), np.array(indices, np.int32), values, pack(W), out.copy(), 0, 2]
    if not is_valid_csr(indptr, indices, len(indices), n_columns):
        with pytest.raises(ValueError, match="malformed sparse rows"):
            operation.run(*arguments)
        np.testing.assert_array_equal(arguments[4], out)
        return
    dense = np.zeros((n_rows, n_columns))
    dense[np.repeat(np.arange(n_rows), np.diff(indptr)), indices] = values
    operation.run(*arguments)
    # Small integers: both sides are exact.
    np.testing.assert_array_equal(arguments[4], operation.oracle(dense, W, out))


def test_unknown_simd_level_is_refused_and_the_old_one_kept():
    initial = simd_level()
    with pytest.raises(ValueError, match=SIMD_VARIABLE):
        use_simd_level("abacus")
    assert simd_level() == initial


def test_empty_simd_level_is_the_best_available():
    initial = simd_level()
    try:
        use_simd_level("baseline")
        use_simd_level("")
        assert simd_level() == available_levels()[-1]
    finally:
        use_simd_level(initial)


def import_with_simd_level(name):
    # The compiled module alone, from where it lies: importing the package takes seconds.
    return subprocess.run(
        [sys.executable, "-c", "import _tiles; print(_tiles.simd_level())"],
        cwd=os.path.dirname(_tiles.__file__),
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
