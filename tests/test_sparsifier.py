import numpy as np
import pytest

from sklearn_subquad._sparsifier import SPARSIFIERS, auto_density, calibrate_shift, shifted_relu, topk

DTYPES = [np.float32, np.float64]


def preactivations(shape, dtype=np.float64):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.7, 9.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 65), (0, 5)], ids=str)
def test_shifted_relu_is_the_dense_formula(shape, shift, dtype):
    z = preactivations(shape, dtype)
    rows = shifted_relu(z, shift, 0.25)
    assert rows.dtype == dtype
    assert rows.shape == shape
    np.testing.assert_array_equal(rows.toarray(), np.maximum(z - dtype(shift), 0))
    assert rows.nnz == np.count_nonzero(z > shift)


def test_neuron_at_the_shift_is_not_active():
    rows = shifted_relu(np.array([[0.5, 0.75, 0.25]]), 0.5, 0.25)
    assert rows.indices.tolist() == [1]


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_rows_are_what_the_kernels_take(name):
    rows = SPARSIFIERS[name](preactivations((6, 50)), 0.4, 0.3)
    assert rows.indptr.dtype == rows.indices.dtype == np.int32
    assert rows.has_canonical_format
    assert rows.indptr[0] == 0
    assert rows.indptr[-1] == len(rows.data) == len(rows.indices)


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_preactivations_are_left_alone(name):
    z = preactivations((6, 50))
    before = z.copy()
    SPARSIFIERS[name](z, 0.4, 0.3)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("dtype", DTYPES)
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
    ],
)
def test_topk_keeps_the_largest_of_each_row(width, density, n_active, dtype):
    z = preactivations((9, width), dtype)
    shift = 0.4
    expected = np.zeros(z.shape, dtype)
    for row, target in zip(z, expected, strict=True):
        largest = sorted(range(width), key=row.__getitem__)[width - n_active :]
        target[largest] = row[largest] - dtype(shift)
    rows = topk(z, shift, density)
    assert rows.dtype == dtype
    assert np.diff(rows.indptr).tolist() == [n_active] * 9
    np.testing.assert_array_equal(rows.toarray(), expected)


def test_topk_keeps_entries_below_the_shift():
    assert topk(np.array([[1.0, 2.0, 3.0, 4.0]]), 3.5, 0.5).data.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("dtype", DTYPES)
def test_topk_counts_exactly_where_there_are_ties(dtype):
    z = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(dtype)
    z[0] = 1
    rows = topk(z, 0.5, 0.2)
    assert (np.diff(rows.indptr) == 6).all()
    active = np.zeros(z.shape, bool)
    active[np.repeat(np.arange(40), 6), rows.indices] = True
    smallest_active = np.where(active, z, np.inf).min(axis=1)
    assert (smallest_active >= np.where(active, -np.inf, z).max(axis=1)).all()


def test_topk_of_a_row_does_not_depend_on_the_other_rows():
    z = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(np.float32)
    np.testing.assert_array_equal(topk(z, 0.5, 0.2)[17:23].toarray(), topk(z[17:23], 0.5, 0.2).toarray())


@pytest.mark.parametrize("mean_square", [1.0, 7.3])
@pytest.mark.parametrize("density", [0.01, 0.05, 0.25, 0.5])
def test_calibrated_shift_leaves_the_wanted_density_of_normal_values(density, mean_square):
    z = np.sqrt(mean_square) * preactivations((100, 1000))
    active = shifted_relu(z, calibrate_shift(density, mean_square), density).nnz
    # The count is binomial; five standard deviations.
    assert abs(active - density * z.size) <= 5 * np.sqrt(z.size * density * (1 - density))


def test_half_density_is_the_plain_relu():
    assert calibrate_shift(0.5, 3.0) == 0.0


@pytest.mark.parametrize(("width", "density"), [(1, 0.5), (32, 0.5), (1024, 0.25), (16384, 0.1436), (32768, 0.125)])
def test_automatic_density(width, density):
    assert auto_density(width) == pytest.approx(density, abs=5e-5)
