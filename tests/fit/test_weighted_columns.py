"""Moments and quantiles of sparse columns are those of the same columns as an array."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad._fit.init_scale import effective_dimension
from sklearn_subquad._fit.scaling import InputScaling, Ramps
from sklearn_subquad._fit.weighted_columns import columns_of

N = 60


def table(dtype):
    """Columns of all kinds."""
    rng = np.random.default_rng(0)
    sparse = rng.exponential(size=(N, 20)) * (rng.uniform(size=(N, 20)) < np.linspace(0, 1, 20))
    counts, signed = rng.poisson(0.5, (N, 3)), rng.standard_normal((N, 2)) * (rng.uniform(size=(N, 2)) < 0.4)
    far, constant = 1000 + rng.standard_normal((N, 2)), np.tile([0.0, 7.0, -0.0], (N, 1))
    constant[:, 1] += 1e-16 * np.arange(N)
    outlying, huge = counts[:, :2] * np.r_[500.0, np.ones(N - 1)][:, None] + 0.0, 1e30 * signed
    outlying[3, 1] = 99
    one_zero = np.ones((N, 1)) * np.arange(N)[:, None] + 100
    one_zero[5] = 0
    return np.concatenate([sparse, counts, signed, far, constant, outlying, huge, one_zero], axis=1).astype(dtype)


WEIGHTS = {
    "one": np.ones(N),
    "integer": np.random.default_rng(1).integers(1, 5, N).astype(float),
    "uneven": 10.0 ** np.random.default_rng(2).uniform(-6, 6, N),
}
weighted = pytest.mark.parametrize("sample_weight", WEIGHTS.values(), ids=WEIGHTS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
OPERATIONS = {
    "average": lambda columns: columns.average(np.abs(columns.values.astype(np.float64))),
    "min": lambda columns: columns.min(columns.values),
    "max": lambda columns: columns.max(columns.values),
    "quantiles": lambda columns: columns.quantiles((0.0, 0.25, 0.5, 0.75, 1.0)),
    "medians of positive values": lambda columns: columns.positive_medians(),
    "of some columns": lambda columns: columns.selected(np.array([3, 19, 22])).average(
        columns.selected(np.array([3, 19, 22])).values.astype(np.float64)
    ),
    "spread": lambda columns: columns.max(columns.values * columns.spread(np.arange(table(float).shape[1]))),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@dtypes
@weighted
def test_operations_are_those_of_the_array(operation, sample_weight, dtype):
    X = table(dtype)
    dense, sparse = (OPERATIONS[operation](columns_of(rows, sample_weight)) for rows in (X, csr_array(X)))
    np.testing.assert_allclose(sparse, dense, rtol=1e-9)


@weighted
def test_a_column_has_the_weight_of_its_values(sample_weight):
    X = table(np.float64)
    columns = columns_of(csr_array(X), sample_weight)
    for number, x in enumerate(X.T):
        values, weights = columns[number]
        for value in np.unique(x):
            np.testing.assert_allclose(weights[values == value].sum(), sample_weight[x == value].sum(), rtol=1e-9)


@dtypes
@weighted
@pytest.mark.parametrize("n_bins", [None, 4])
@pytest.mark.parametrize("standardize", [True, False])
def test_scaled_rows_are_those_of_the_array(standardize, n_bins, sample_weight, dtype):
    X = table(dtype)
    dense, sparse = (InputScaling.fit(rows, sample_weight, standardize, Ramps(n_bins)) for rows in (X, csr_array(X)))
    assert (dense.squash is None) == (sparse.squash is None) == (not standardize)
    new = table(dtype)[::-1].copy()
    # Zeros and other values where there were none in training.
    new[4], new[5], new[6] = 0, 1, -50
    for rows in (X, new):
        for precision in (np.float32, np.float64):
            expected, found = dense.transform(rows, precision), sparse.transform(csr_array(rows), precision)
            assert found.dtype == precision
            scale = np.maximum(np.abs(expected), np.abs(dense.transform(X, precision)).max(axis=0))
            error = np.abs(found.to_array() - expected) / np.where(scale > 0, scale, 1)
            assert error.max() < (1e-5 if precision == np.float32 or dtype == np.float32 else 1e-9)


@weighted
@pytest.mark.parametrize("n_features", [1, 12, 35])
@pytest.mark.parametrize("n", [1, 20, N])
def test_effective_dimensions_are_those_of_the_array(n, n_features, sample_weight):
    X, weights = table(np.float64)[:n, :n_features], sample_weight[:n]
    dense, sparse = (InputScaling.fit(rows, weights, True).transform(rows) for rows in (X, csr_array(X)))
    expected = effective_dimension(dense[:, :-1], weights)
    assert effective_dimension(sparse, weights) == pytest.approx(expected, rel=1e-6)


def test_entries_are_those_of_the_rows():
    X = csr_array(table(np.float64))
    scaling = InputScaling.fit(X, np.ones(N), True)
    scaled = scaling.transform(X)
    assert scaled.stored.nnz <= X.nnz
    # A zero far from all that was seen is an entry itself.
    assert scaling.transform(csr_array((1, X.shape[1]))).stored.nnz == 3
