"""Products, patterns and the threshold, one thread: what the compiled kernels do."""

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._linalg.packed import PackedMatrix, row_gram_columns, symmetric
from sklearn_subquad._linalg.sparse_rows import SparseRows, block_size
from sklearn_subquad._network.activations import calibrate_shift

N_ROWS = 1024


def sparse_rows(n, m, density, dtype, seed=0, drawn_as=np.float64):
    """Rows that the threshold for this density selects from normal numbers, drawn in one precision, kept in another."""
    z = np.random.default_rng(seed).standard_normal((n, m), drawn_as).astype(dtype)
    return SparseRows(*_kernels.select(z, calibrate_shift(density, 1.0), block_size(density, dtype), 1.0))


class Products:
    params = ((512, 2048, 8192), (0.02, 0.05, 0.15, 0.25), ("float32", "float64"))
    param_names = ("width", "density", "dtype")

    def setup(self, width, density, dtype):
        self.rows = sparse_rows(N_ROWS, width, density, dtype)
        self.W = PackedMatrix.zeros(width, width, dtype)

    def time_forward(self, width, density, dtype):
        self.W.forward(self.rows)

    def time_backward(self, width, density, dtype):
        self.W.backward(self.rows)

    def time_gram(self, width, density, dtype):
        symmetric(N_ROWS, self.rows.dtype, lambda first, last: row_gram_columns(self.rows, first, last))


class Patterns:
    params = ((512, 8192), (0.05, 0.15))
    param_names = ("width", "density")

    def setup(self, width, density):
        self.z = np.random.default_rng(0).standard_normal((N_ROWS, width), np.float32)
        self.rows = sparse_rows(N_ROWS, width, density, "float32")
        self.values = np.empty_like(self.rows.values)

    def time_select(self, width, density):
        _kernels.select(self.z, calibrate_shift(density, 1.0), 128, 1.0)

    def time_gather(self, width, density):
        _kernels.gather(self.rows.pattern, self.z, 0, 1.0, self.values)

    def time_transpose(self, width, density):
        self.rows.pattern.transposed(128)
