"""Sparse rows in the order of the compiled kernels."""

import numpy as np
from scipy.sparse import csr_array

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.threads import for_each

# Columns per block, from the lowest density that this size suits: a block of a panel has to stay in the first level
# of cache, and a row should have some tens of entries in a block (tried in single precision, 32 KiB of that cache).
_BLOCKS = ((0.07, 128), (0.02, 256), (0.0, 512))


def block_size(density, dtype):
    """Columns per block for rows of that density."""
    columns = next(columns for lowest, columns in _BLOCKS if density >= lowest)
    return columns * 4 // np.dtype(dtype).itemsize


# Values that one thread puts into another order at a time.
_TAKEN = 1 << 17


def _take(values, order):
    """``values[order]``, in parallel."""
    out = np.empty_like(values)

    def take(i):
        part = slice(i * _TAKEN, (i + 1) * _TAKEN)
        # `order` is a permutation; "clip" is the mode that checks nothing and buffers nothing.
        np.take(values, order[part], out=out[part], mode="clip")

    for_each(take, -(-len(out) // _TAKEN))
    return out


class SparseRows:
    """A sparse matrix (n x m) by rows: a pattern, which others may share, and the values on it.

    Attributes
    ----------
    pattern : Pattern
    values : ndarray of shape (nnz,), float32 or float64
        In the pattern's own order.
    """

    def __init__(self, pattern, values):
        self.pattern = pattern
        self.values = values
        self._turned = {}

    @classmethod
    def from_csr(cls, rows):
        """From a CSR matrix with sorted indices."""
        limit = np.iinfo(np.int32).max
        if rows.nnz > limit:
            raise ValueError(f"{rows.nnz} entries are more than a CSR matrix of 32-bit indices can hold ({limit}).")
        density = rows.nnz / max(1, rows.shape[0] * rows.shape[1])
        pattern, order = _kernels.Pattern.from_csr(
            rows.indptr.astype(np.int32, copy=False),
            rows.indices.astype(np.int32, copy=False),
            rows.shape[1],
            block_size(density, rows.dtype),
        )
        return cls(pattern, rows.data[order])

    def to_csr(self):
        """As ``scipy.sparse.csr_array`` with sorted indices."""
        indptr, indices, order = self.pattern.to_csr()
        return csr_array((self.values[order], indices, indptr), shape=self.shape)

    @property
    def shape(self):
        return self.pattern.shape

    @property
    def dtype(self):
        return self.values.dtype

    @property
    def nnz(self):
        return self.pattern.nnz

    @property
    def density(self):
        """Share of the entries among all n * m places (0 where there are none)."""
        n, m = self.shape
        return self.nnz / max(1, n * m)

    def with_values(self, values):
        """The same pattern with other values."""
        other = SparseRows(self.pattern, values)
        other._turned = self._turned
        return other

    def scaled(self, factor):
        """``factor * self``."""
        return self.with_values(self.values * self.dtype.type(factor))

    def scaled_rows(self, factors):
        """Row i times ``factors[i]``."""
        values = np.empty_like(self.values)
        _kernels.scale_rows(self.pattern, self.values, np.ascontiguousarray(factors, dtype=self.dtype), values)
        return self.with_values(values)

    def transposed(self):
        """The transpose, again as sparse rows; its pattern is made once for all who share this one."""
        block = block_size(self.density, self.dtype)
        if block not in self._turned:
            self._turned[block] = self.pattern.transposed(block, for_each)
        pattern, order = self._turned[block]
        return SparseRows(pattern, _take(self.values, order))

    def row_norms(self):
        """Squared Euclidean norms of the rows, float64."""
        return _kernels.row_dots(self.pattern, self.values, self.values)

    def row_dots(self, other):
        """Inner products of the rows with those of sparse rows on the same pattern, float64."""
        return _kernels.row_dots(self.pattern, self.values, other.values)

    def panel_tile(self, panel):
        """Rows 64 * panel to 64 * panel + 63 as one tile (m x 64), zero beyond the last row."""
        tile = np.empty((self.shape[1], LANES), dtype=self.dtype)
        _kernels.scatter_rows(self.pattern, self.values, panel * LANES, tile)
        return tile

    def column_tiles(self, first_panel, last_panel):
        """Columns 64 * first_panel to 64 * last_panel in packed form (panels x n x 64); whole blocks."""
        if first_panel * LANES % self.pattern.block:
            raise ValueError(f"panel {first_panel} does not begin a block of {self.pattern.block} columns.")
        tiles = np.empty((last_panel - first_panel, self.shape[0], LANES), dtype=self.dtype)
        _kernels.scatter_columns(self.pattern, self.values, first_panel * LANES // self.pattern.block, tiles)
        return tiles
