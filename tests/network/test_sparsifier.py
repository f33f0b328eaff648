import numpy as np
import pytest

from sklearn_subquad._linalg.columnwise import ColumnwiseSum
from sklearn_subquad._linalg.sparse_rows import block_size
from sklearn_subquad._network.activations import SPARSIFIERS, auto_density, calibrate_shift, shifted_relu

DTYPES = [np.float32, np.float64]


def preactivations(shape, dtype=np.float64):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def lazily(z):
    """A `ColumnwiseSum` of which z is the only term, so that its numbers are z's to the bit."""

    def add(out, first):
        out += z[:, first : first + out.shape[1]]

    return ColumnwiseSum(z.shape, z.dtype, sparse=[add])


def sparsify(name, z, shift, gain, density):
    """The rows as a CSR matrix; stored entries of value zero count."""
    return SPARSIFIERS[name](lazily(z), shift, gain, density).to_csr()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.7, 9.0])
# Ragged groups and blocks of columns, and several of each.
@pytest.mark.parametrize("shape", [(1, 1), (7, 65), (0, 5), (9, 1500)], ids=str)
def test_shifted_relu_is_the_dense_formula(shape, shift, gain, dtype):
    z = preactivations(shape, dtype)
    rows = sparsify("shifted_relu", z, shift, gain, 0.25)
    assert rows.dtype == dtype
    assert rows.shape == shape
    # One subtraction and one product in z's precision.
    np.testing.assert_array_equal(rows.toarray(), dtype(gain) * np.maximum(z - dtype(shift), 0))
    assert rows.nnz == np.count_nonzero(z > dtype(shift))


@pytest.mark.parametrize("density", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("name", SPARSIFIERS)
def test_density_decides_how_rows_are_stored(name, density):
    z = preactivations((6, 1000))
    rows = SPARSIFIERS[name](lazily(z), calibrate_shift(density, 1.0), 1.0, density)
    assert rows.pattern.block == block_size(density, z.dtype)


@pytest.mark.parametrize("expected_density", [0.01, 0.05, 0.5])
def test_shifted_relu_keeps_all_that_exceeds_the_shift_whatever_density_was_expected(expected_density):
    z = preactivations((9, 1500))
    rows = sparsify("shifted_relu", z, 0.1, 2.0, expected_density)
    np.testing.assert_array_equal(rows.toarray(), 2 * np.maximum(z - 0.1, 0))


def test_neuron_at_the_shift_is_not_active():
    rows = sparsify("shifted_relu", np.array([[0.5, 0.75, 0.25]]), 0.5, 1.0, 0.25)
    assert rows.indices.tolist() == [1]


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_preactivations_are_left_alone(name):
    z = preactivations((6, 50))
    before = z.copy()
    sparsify(name, z, 0.4, 0.5, 0.3)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize(
    ("width", "density", "n_active"),
    [
        (1, 0.01, 1),
        (1, 0.5, 1),
        (2, 0.5, 1),
        (100, 0.001, 1),
        (100, 0.25, 25),
        (65, 0.1, 6),
        (65, 0.5, 32),
        (10, 1.0, 10),
        (1500, 0.1, 150),
    ],
)
def test_topk_keeps_the_largest_of_each_row(width, density, n_active, gain, dtype):
    z = preactivations((9, width), dtype)
    shift = 0.4
    expected = np.zeros(z.shape, dtype)
    for row, target in zip(z, expected, strict=True):
        largest = sorted(range(width), key=row.__getitem__)[width - n_active :]
        target[largest] = dtype(gain) * (row[largest] - dtype(shift))
    rows = sparsify("topk", z, shift, gain, density)
    assert rows.dtype == dtype
    assert np.diff(rows.indptr).tolist() == [n_active] * 9
    np.testing.assert_array_equal(rows.toarray(), expected)


def test_topk_keeps_entries_at_and_below_the_shift():
    assert sparsify("topk", np.array([[1.0, 2.0, 3.0, 4.0]]), 3.5, 2.0, 0.5).data.tolist() == [-1.0, 1.0]
    assert sparsify("topk", np.array([[1.0, 2.0, 3.0, 4.0]]), 3.0, 2.0, 0.5).data.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_topk_counts_exactly_where_there_are_ties(dtype):
    z = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(dtype)
    z[0] = 1
    rows = sparsify("topk", z, 0.5, 1.0, 0.2)
    assert (np.diff(rows.indptr) == 6).all()
    active = np.zeros(z.shape, bool)
    active[np.repeat(np.arange(40), 6), rows.indices] = True
    smallest_active = np.where(active, z, np.inf).min(axis=1)
    assert (smallest_active >= np.where(active, -np.inf, z).max(axis=1)).all()


def test_topk_of_a_row_does_not_depend_on_the_other_rows():
    z = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(np.float32)
    some, all_rows = (sparsify("topk", part, 0.5, 1.0, 0.2).toarray() for part in (z[17:23], z))
    np.testing.assert_array_equal(all_rows[17:23], some)


@pytest.mark.parametrize("mean_square", [1.0, 7.3])
@pytest.mark.parametrize("density", [0.01, 0.05, 0.25, 0.5])
def test_calibrated_shift_leaves_the_wanted_density_of_normal_values(density, mean_square):
    z = np.sqrt(mean_square) * preactivations((100, 1000))
    active = shifted_relu(lazily(z), calibrate_shift(density, mean_square), 1.0, density).nnz
    # The count is binomial; five standard deviations.
    assert abs(active - density * z.size) <= 5 * np.sqrt(z.size * density * (1 - density))


def test_half_density_is_the_plain_relu():
    assert calibrate_shift(0.5, 3.0) == 0.0


@pytest.mark.parametrize(("width", "density"), [(1, 0.5), (32, 0.5), (1024, 0.25), (16384, 0.1436), (32768, 0.125)])
def test_automatic_density(width, density):
    assert auto_density(width) == pytest.approx(density, abs=5e-5)
