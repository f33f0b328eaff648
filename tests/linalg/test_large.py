"""Places beyond 2^31 numbers: a 65536 x 65536 matrix, of which the system hands out only the pages that are touched."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.sparse_rows import SparseRows

WIDTH = 65536


@pytest.fixture(scope="module")
def W():
    """Zero but for the weights of the last 64 outputs on the last input."""
    try:
        packed = PackedMatrix.zeros(WIDTH, WIDTH, np.float32)
    except MemoryError:
        pytest.skip("this system does not reserve 16 GiB of address space")
    assert packed.tiles.size == 2**32
    packed.tiles[-1, -1] = np.arange(LANES)
    return packed


@pytest.fixture(scope="module")
def last_only():
    """Two rows with one entry each, in the last column."""
    return SparseRows.from_csr(csr_array(([2, 3], ([0, 1], [WIDTH - 1, WIDTH - 1])), (2, WIDTH), dtype=np.float32))


def test_forward_reads_the_last_tile(W, last_only):
    out = np.zeros((2, LANES), np.float32)
    W.add_forward(last_only, out, WIDTH - LANES)
    np.testing.assert_array_equal(out, np.outer([2, 3], np.arange(LANES)))


def test_backward_reads_the_last_tile(W, last_only):
    out = np.zeros((2, LANES), np.float32)
    W.add_backward(last_only, out, WIDTH - LANES)
    np.testing.assert_array_equal(out[:, -1], [2 * 63, 3 * 63])
    assert not out[:, :-1].any()


def test_factors_are_added_to_the_last_panel(W, last_only):
    before = W.tiles[-1, -1].copy()
    factor = np.ones((1, 2, LANES), np.float32)
    columns = last_only.transposed()
    _kernels.forward_packed(columns.pattern, columns.values, factor, W.tiles[-1:], accumulate=True)
    np.testing.assert_array_equal(W.tiles[-1, -1], before + 5)
    W.tiles[-1, -1] = before
