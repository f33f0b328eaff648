"""Sums of products that are evaluated a group of columns at a time.

Pre-activations and cotangents are n x m numbers of which a fraction is kept. A `ColumnwiseSum` computes a group of
columns, keeps what is wanted of it while it is in the cache, and goes on: the n x m numbers never exist together.
"""

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.packed import column_groups
from sklearn_subquad._linalg.sparse_rows import SparseRows, block_size
from sklearn_subquad._linalg.threads import for_each


class ColumnwiseSum:
    """The sum of several products, n x m.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    dense : tuple (ndarray of shape (n, d), ndarray of shape (d, m)) or None
        Factors of a dense product, which BLAS computes.
    sparse : list of callable
        ``term(out, first)`` adds another product's columns from `first` on, a multiple of 64, to out (n x columns).
    """

    def __init__(self, shape, dtype, dense=None, sparse=()):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._dense = dense
        self._sparse = sparse

    def _evaluate(self, part, out):
        if self._dense is None:
            out[:] = 0
        else:
            A, B = self._dense
            np.matmul(A, B[:, part], out=out)
        for term in self._sparse:
            term(out, part.start)

    def _columns(self, part):
        out = np.empty((self.shape[0], part.stop - part.start), dtype=self.dtype)
        self._evaluate(part, out)
        return out

    def dense(self):
        """All n x m numbers."""
        out = np.empty(self.shape, dtype=self.dtype)
        groups = column_groups(*self.shape, LANES)
        for_each(lambda i: self._evaluate(groups[i], out[:, groups[i]]), len(groups))
        return out

    def select(self, threshold, gain, density):
        """Sparse rows of ``gain * (sum - threshold)`` where the sum exceeds the threshold.

        `density` is the expected share of such places; it decides how the entries are stored.
        """
        block = block_size(density, self.dtype)
        groups = column_groups(*self.shape, block)
        parts = [None] * len(groups)

        def evaluate(i):
            parts[i] = _kernels.select(self._columns(groups[i]), threshold, block, gain)

        for_each(evaluate, len(groups))
        patterns, values = zip(*parts, strict=True)
        return SparseRows(_kernels.concatenate(list(patterns)), np.concatenate(values))

    def on_pattern(self, rows, scale):
        """``scale * sum`` at the entries of sparse rows (n x m), as sparse rows of the same pattern."""
        block = rows.pattern.block
        groups = column_groups(*self.shape, block)
        values = np.empty(rows.nnz, dtype=self.dtype)

        def evaluate(i):
            _kernels.gather(rows.pattern, self._columns(groups[i]), groups[i].start // block, scale, values)

        for_each(evaluate, len(groups))
        return rows.with_values(values)


def sparse_term(P, U):
    """The product ``P @ U`` of a packed matrix (n x r) and sparse rows (r x m) as a term."""
    columns = U.transposed()

    def add(out, first):
        # The kernel's outputs are the rows of P, so that U's sparsity is used: it writes the transpose.
        _kernels.forward(columns.pattern, columns.values, P.tiles, out.T, 0, first, accumulate=True)

    return add
