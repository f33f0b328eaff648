"""Every function of the compiled modules with arguments that do not fit: refused, or nothing beyond them is touched."""

import functools
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES, Pattern

# 70 rows are two panels, 100 columns are two blocks of which the second is not full.
N_ROWS, N_COLUMNS, BLOCK = 70, 100, 64
SENTINEL = -12345.0
# Numbers on either side of every output.
MARGIN = 64
REFUSALS = (ValueError, TypeError, OverflowError, BufferError)


def csr_arrays(density=1.0):
    active = np.random.default_rng(0).random((N_ROWS, N_COLUMNS)) < density
    indptr = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int32)
    return indptr, np.nonzero(active)[1].astype(np.int32)


@functools.cache
def pattern():
    return Pattern.from_csr(*csr_arrays(0.4), N_COLUMNS, BLOCK)[0]


def guarded(*shape, dtype=np.float32):
    """An output between margins of the same memory, all of it the sentinel."""
    size = int(np.prod(shape))
    return np.full(size + 2 * MARGIN, SENTINEL, dtype)[MARGIN : MARGIN + size].reshape(shape)


def margins_are_untouched(out):
    memory = out.base
    while memory.base is not None:
        memory = memory.base
    return (memory[:MARGIN] == SENTINEL).all() and (memory[-MARGIN:] == SENTINEL).all()


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def product(out):
    return {"rows": pattern(), "values": ones(pattern().nnz), "tiles": ones(2, N_COLUMNS, LANES), "out": out}


PLACES = {"first_panel": 0, "first_row": 0, "accumulate": False}
# A call of each that is right, by the names of its arguments.
CALLS = {
    "Pattern": lambda: {"n_rows": N_ROWS, "n_columns": N_COLUMNS, "block": BLOCK},
    "Pattern.from_csr": lambda: dict(
        zip(("indptr", "indices"), csr_arrays(), strict=True), n_columns=N_COLUMNS, block=BLOCK
    ),
    "Pattern.transposed": lambda: {"block": BLOCK},
    "concatenate": lambda: {"patterns": [Pattern(N_ROWS, BLOCK, BLOCK), pattern()]},
    "select": lambda: {"z": ones(N_ROWS, N_COLUMNS), "threshold": 0.5, "block": BLOCK, "gain": 2.0},
    "gather": lambda: {
        "pattern": pattern(),
        "z": ones(N_ROWS, N_COLUMNS - BLOCK),
        "first_block": 1,
        "scale": 2.0,
        "values": guarded(pattern().nnz),
    },
    "scatter_rows": lambda: {
        "pattern": pattern(),
        "values": ones(pattern().nnz),
        "first_row": LANES,
        "tile": guarded(N_COLUMNS, LANES),
    },
    "scatter_columns": lambda: {
        "pattern": pattern(),
        "values": ones(pattern().nnz),
        "first_block": 1,
        "tiles": guarded(1, N_ROWS, LANES),
    },
    "scale_rows": lambda: {
        "pattern": pattern(),
        "values": ones(pattern().nnz),
        "factors": ones(N_ROWS),
        "out": guarded(pattern().nnz),
    },
    "row_dots": lambda: {"pattern": pattern(), "left": ones(pattern().nnz), "right": ones(pattern().nnz)},
    "forward": lambda: product(guarded(N_ROWS, 2 * LANES)) | PLACES,
    "backward": lambda: product(guarded(N_ROWS, N_COLUMNS)) | {"tiles": ones(2, N_COLUMNS, LANES)} | PLACES,
    "forward_packed": lambda: product(guarded(2, N_ROWS, LANES)) | {"accumulate": False},
    "walsh_hadamard": lambda: {"tile": guarded(16, LANES)},
    "add_sampled_products": lambda: {
        "u": ones(24, LANES),
        "u_sampled": np.arange(32),
        "g": ones(8, LANES),
        "g_sampled": np.arange(32) % 8,
        "signs": ones(32),
        "total": guarded(32, LANES),
    },
    "scatter_signed": lambda: {
        "pattern": pattern(),
        "values": ones(pattern().nnz),
        "first_row": LANES,
        "signs": ones(N_COLUMNS),
        "tile": guarded(N_COLUMNS, LANES),
    },
    "count_sketch": lambda: {
        "pattern": pattern(),
        "values": ones(pattern().nnz),
        "first_row": LANES,
        "buckets": np.arange(N_COLUMNS) % 7,
        "signs": ones(N_COLUMNS),
        "out": guarded(LANES, 7),
    },
    "count_sketch_dense": lambda: {
        "rows": ones(LANES, N_COLUMNS),
        "buckets": np.arange(N_COLUMNS) % 7,
        "signs": ones(N_COLUMNS),
        "out": guarded(LANES, 7),
    },
    "add_hadamard": lambda: {
        "total": guarded(N_ROWS - LANES, min(LANES, N_ROWS - LANES)),
        "first": LANES,
        "left": None,
        "left_rows": [(pattern(), ones(pattern().nnz))],
        "right": ones(N_ROWS - LANES, min(LANES, N_ROWS - LANES)),
        "right_rows": [],
    },
    "mirror": lambda: {"columns": ones(N_ROWS, LANES), "first": 0, "out": guarded(N_ROWS, N_ROWS)},
    "potrf": lambda: {"a": np.eye(5, order="F")},
    "potrs": lambda: {"a": np.eye(5, order="F"), "b": np.ones((5, 2), order="F")},
    "potri": lambda: {"a": np.eye(5, order="F")},
    "trtri": lambda: {"a": np.eye(5, order="F")},
    "use_simd_level": lambda: {"name": _kernels.simd_level()},
}
WITHOUT_ARGUMENTS = {"simd_level", "simd_levels", "Pattern.to_csr"}
# What the kernels write to.
OUTPUTS = {"values": {"gather"}, "tile": None, "tiles": {"scatter_columns"}, "out": None, "total": None}


def call(name, arguments):
    owner, _, method = name.rpartition(".")
    owner = {"": _kernels, "Pattern": pattern()}[owner]
    return getattr(owner, method)(*arguments.values())


def outputs(name, arguments):
    return [
        array
        for argument, array in arguments.items()
        if argument in OUTPUTS and (OUTPUTS[argument] is None or name in OUTPUTS[argument])
    ]


def test_every_compiled_function_is_called_here():
    functions = {name for name in _kernels.__all__ if callable(getattr(_kernels, name))}
    methods = {f"Pattern.{name}" for name, member in inspect.getmembers(Pattern, callable) if not name.startswith("_")}
    assert functions | methods == set(CALLS) | WITHOUT_ARGUMENTS


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_the_others_differ_from_are_right(name):
    arguments = CALLS[name]()
    call(name, arguments)
    for out in outputs(name, arguments):
        assert (out != SENTINEL).any()
        assert margins_are_untouched(out)


NUMBERS = st.sampled_from([-(2**63), -(2**50), -65, -64, -1, 0, 1, 2, 3, 63, 64, 65, 128, 512, 2**15, 2**50, 2**63 - 1])
ELSE = st.sampled_from([None, "a", b"a", 1.5, object(), [], {}, (), np.float32(1), 2**64, -(2**64)])
DTYPES = [np.float16, np.float32, np.float64, np.longdouble, np.int32, np.int64, np.uint8, bool, complex, object, ">f4"]


def with_number(array, place, number):
    changed = array.copy()
    changed.flat[place % max(1, array.size)] = np.clip(number, np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
    return changed


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def changed_array(array):
    """Arrays that are not quite like this one."""
    changes = [
        st.sampled_from(DTYPES).map(lambda dtype: array.astype(dtype)),
        # A number more or less along an axis.
        st.integers(0, array.ndim - 1).map(lambda axis: np.delete(array, 0, axis)),
        st.integers(0, array.ndim - 1).map(lambda axis: np.concatenate([array, array.take([0], axis)], axis)),
        st.integers(0, array.ndim - 1).map(lambda axis: array.take([], axis)),
        st.integers(0, array.ndim - 1).map(lambda axis: np.repeat(array, 2, axis).swapaxes(0, axis)[::2]),
        st.just(array[..., np.newaxis]),
        st.just(array[0]),
        st.just(array.T),
        st.just(array[::-1]),
        st.just(np.asfortranarray(array)),
        st.just(as_strided(array, array.shape, (0,) * array.ndim, writeable=False)),
        st.just(read_only(array)),
    ]
    if array.dtype.kind == "i":
        changes.append(st.builds(with_number, st.just(array), st.integers(0, 2**20), NUMBERS))
        changes.append(st.integers(0, 2**20).map(lambda seed: np.random.default_rng(seed).permutation(array)))
    return st.one_of(changes)


def changed(argument):
    """Values that may come in the place of this argument."""
    if isinstance(argument, np.ndarray):
        return st.one_of(changed_array(argument), ELSE)
    if isinstance(argument, (int, float)):
        return NUMBERS | ELSE
    if isinstance(argument, list):
        return st.lists(st.sampled_from([*argument, Pattern(N_ROWS, 0, BLOCK), Pattern(3, 3, BLOCK), None]), max_size=3)
    if isinstance(argument, Pattern):
        others = [Pattern(N_ROWS, N_COLUMNS, BLOCK), Pattern(0, N_COLUMNS, BLOCK), Pattern(1000, N_COLUMNS, BLOCK)]
        return st.sampled_from([*others, Pattern(N_ROWS, 0, BLOCK), pattern().transposed(128)[0]]) | ELSE
    return ELSE | st.text(max_size=3)


# One argument or two, so that the others do not hide what is accepted of them.
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60)
@given(data=st.data())
def test_arguments_that_do_not_fit_are_refused_or_harmless(name, data):
    arguments = CALLS[name]()
    guards = outputs(name, arguments)
    chosen = data.draw(st.lists(st.sampled_from(list(arguments)), min_size=1, max_size=2, unique=True), label="changed")
    for argument in chosen:
        arguments[argument] = data.draw(changed(arguments[argument]), label=argument)
    level = _kernels.simd_level()
    try:
        call(name, arguments)
    except MemoryError:
        # A matrix of any size may be asked for.
        assert any(isinstance(value, int) and value >= 2**40 for value in arguments.values())
    except REFUSALS:
        for out in guards:
            assert (out == SENTINEL).all()
    finally:
        _kernels.use_simd_level(level)
    for out in guards:
        assert margins_are_untouched(out)


@pytest.mark.parametrize("n_rows", [65, 513, 1030])
def test_a_pattern_without_entries_is_a_matrix_of_zeros(n_rows):
    """Made by its shape alone it has its rows in order, like one that is made from empty rows."""
    empty = Pattern(n_rows, 200, BLOCK)
    same, _ = Pattern.from_csr(np.zeros(n_rows + 1, np.int32), np.zeros(0, np.int32), 200, BLOCK)
    for one, other in ((empty, same), (empty.transposed(BLOCK)[0], same.transposed(BLOCK)[0])):
        for array, expected in zip(one.to_csr(), other.to_csr(), strict=True):
            np.testing.assert_array_equal(array, expected)
    for first_row in range(0, n_rows, LANES):
        tile = guarded(200, LANES)
        _kernels.scatter_signed(empty, ones(0), first_row, ones(200), tile)
        np.testing.assert_array_equal(tile[:, : n_rows - first_row], 0)
        assert margins_are_untouched(tile)
    out = guarded(n_rows, 2 * LANES)
    _kernels.forward(empty, ones(0), ones(2, 200, LANES), out)
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize(
    "for_each",
    [
        pytest.param(lambda work, n: None, id="none"),
        pytest.param(lambda work, n: work(0), id="one of them"),
        pytest.param(lambda work, n: [work(i) for i in [*range(n), 0]], id="one twice"),
        pytest.param(lambda work, n: [work(i) for i in range(n + 1)], id="one too many"),
        pytest.param(lambda work, n: [work(i) for i in [*range(n), 2**40]], id="one far off"),
        pytest.param(lambda work, n: work(-1), id="negative"),
        pytest.param(lambda work, n: work("0"), id="text"),
    ],
)
def test_work_that_is_not_done_once_is_refused(for_each):
    with pytest.raises(ValueError, match="for_each must call its work once"):
        pattern().transposed(BLOCK, for_each)


def test_an_error_of_the_work_reaches_the_caller():
    def failing(work, n):
        raise RuntimeError("no thread")

    with pytest.raises(RuntimeError, match="no thread"):
        pattern().transposed(BLOCK, failing)


@pytest.mark.parametrize("name", [None, b"baseline", 1])
def test_a_simd_level_that_is_no_text_is_refused(name):
    with pytest.raises(TypeError, match="name"):
        _kernels.use_simd_level(name)
