"""Products of sparse rows with packed matrices, and fast rectangular products of sparse or dense factors.

Sparse rows are ``scipy.sparse.csr_array`` with sorted int32 indices. The paper's "fast rectangular matrix
multiplication" (arXiv 2112.07628) is here one packed format, and three routes to add a product of factors to it.
"""

import math

import numpy as np
from scipy.sparse import csr_array

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES
from sklearn_subquad._parallel import blas_threads, for_panels

# Outputs that the BLAS route adds at a time: wide enough for GEMM, far below a full n_out x n_in temporary.
_BLAS_COLUMNS = 256
_STRASSEN_COLUMNS = 2048
_CACHE_LINE = 64
# Rows of a block of a dense product.
_DENSE_ROWS = 64
# Strassen recurses while the smallest of the three dimensions is at least twice this.
_STRASSEN_CUTOFF = 1024
# Below this density of the right factor the sparse kernel adds a product in less time than dense BLAS does
# (measured: the kernel runs at 0.4 to 0.5 of BLAS' flop rate on an AVX2 machine).
_SCATTER_DENSITY = 0.4

MATMUL_ROUTES = ("auto", "scatter", "blas", "strassen")


def with_values(pattern, values):
    """Sparse rows with the pattern of `pattern` and other values; the index arrays are shared."""
    return csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)


def masked(pattern, dense, scale):
    """``scale * dense`` on the entries of sparse rows `pattern`, zero elsewhere."""
    indptr, indices, data = _kernel_arguments(pattern)
    values = np.empty_like(data)
    _kernels.gather(indptr, indices, dense, scale, values)
    return with_values(pattern, values)


def transpose_rows(rows):
    """The transpose of sparse rows, again as sorted sparse rows."""
    return rows.tocsc().T


def _kernel_arguments(rows):
    """CSR buffers as the kernels take them (scipy may have chosen int64 indices)."""
    if rows.nnz > np.iinfo(np.int32).max:
        raise ValueError(
            f"{rows.nnz} active entries in one layer are more than the kernels can index ({np.iinfo(np.int32).max}); "
            "use fewer rows, narrower layers or a smaller density."
        )
    return (
        rows.indptr.astype(np.int32, copy=False),
        rows.indices.astype(np.int32, copy=False),
        rows.data,
    )


class PackedMatrix:
    """A dense matrix W (n_out x n_in) in panels of 64 outputs, the format of the compiled kernels.

    Attributes
    ----------
    tiles : ndarray of shape (ceil(n_out / 64), n_in, 64)
        ``tiles[panel, j, lane] = W[64 * panel + lane, j]``, zero beyond n_out.
    n_out : int
    """

    def __init__(self, tiles, n_out):
        self.tiles = tiles
        self.n_out = n_out

    @staticmethod
    def n_panels(n_out):
        return -(-n_out // LANES)

    @classmethod
    def zeros(cls, n_out, n_in, dtype):
        shape = (cls.n_panels(n_out), n_in, LANES)
        # A vector that lies across two cache lines costs two loads: unaligned tiles took a quarter more time.
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.zeros(n_bytes + _CACHE_LINE, dtype=np.uint8)
        offset = -memory.ctypes.data % _CACHE_LINE
        return cls(memory[offset : offset + n_bytes].view(dtype).reshape(shape), n_out)

    @classmethod
    def from_dense(cls, W):
        packed = cls.zeros(*W.shape, W.dtype)
        whole = W.shape[0] // LANES
        packed.tiles[:whole] = W[: whole * LANES].reshape(whole, LANES, W.shape[1]).transpose(0, 2, 1)
        if whole < len(packed.tiles):
            packed.tiles[whole, :, : W.shape[0] - whole * LANES] = W[whole * LANES :].T
        return packed

    @classmethod
    def from_sparse_rows(cls, rows):
        """W = rows (n_out is the number of rows)."""
        packed = cls.zeros(*rows.shape, rows.dtype)
        _kernels.scatter_rows(*_kernel_arguments(rows), packed.tiles)
        return packed

    @classmethod
    def from_sparse_columns(cls, columns):
        """W = columns.T (n_out is the number of columns of the given sparse rows)."""
        packed = cls.zeros(columns.shape[1], columns.shape[0], columns.dtype)
        _kernels.scatter_columns(*_kernel_arguments(columns), packed.tiles)
        return packed

    @property
    def shape(self):
        return self.n_out, self.tiles.shape[1]

    @property
    def dtype(self):
        return self.tiles.dtype

    def to_dense(self):
        panels, n_in, lanes = self.tiles.shape
        return self.tiles.transpose(0, 2, 1).reshape(panels * lanes, n_in)[: self.n_out]

    def forward(self, rows):
        """``rows @ W.T`` for sparse rows (n x n_in): dense, n x n_out."""
        n_panels = len(self.tiles)
        out = np.empty((rows.shape[0], n_panels * LANES), dtype=self.dtype)
        arguments = _kernel_arguments(rows)
        for_panels(lambda a, b: _kernels.forward(*arguments, self.tiles, out, a, b), n_panels)
        return out[:, : self.n_out]

    def backward(self, rows):
        """``rows @ W`` for sparse rows (n x n_out): dense, n x n_in."""
        n_in = self.tiles.shape[1]
        n_panels = self.n_panels(n_in)
        out = np.empty((rows.shape[0], n_panels * LANES), dtype=self.dtype)
        arguments = _kernel_arguments(rows)
        for_panels(lambda a, b: _kernels.backward(*arguments, self.tiles, out, a, b), n_panels)
        return out[:, :n_in]

    def add_product(self, U, G, route="auto"):
        """``W += U.T @ G`` for sparse factors U (rank x n_out) and G (rank x n_in).

        Parameters
        ----------
        U, G : csr_array
        route : {"auto", "scatter", "blas", "strassen"}
            "scatter" uses the sparsity of G, "blas" multiplies dense panels, "strassen" multiplies larger
            dense panels with Strassen's algorithm over BLAS. "auto" takes "scatter" for a sparse G and
            "blas" otherwise.
        """
        if not U.shape[0]:
            return
        if route == "auto":
            route = "scatter" if G.nnz < _SCATTER_DENSITY * G.shape[0] * G.shape[1] else "blas"
        if route == "scatter":
            self._add_scattered(U, G)
        elif route == "blas":
            self._add_dense(U, G, _BLAS_COLUMNS, np.matmul)
        elif route == "strassen":
            # Never more than a quarter of W at a time, so that no temporary is of W's size.
            quarter = LANES * self.n_panels(self.n_out // 4 + 1)
            self._add_dense(U, G, min(_STRASSEN_COLUMNS, quarter), strassen)
        else:
            raise ValueError(f"route must be one of {MATMUL_ROUTES}, got {route!r}.")

    def _add_scattered(self, U, G):
        factor = PackedMatrix.from_sparse_columns(U).tiles
        arguments = _kernel_arguments(transpose_rows(G))
        for_panels(lambda a, b: _kernels.add_product(*arguments, factor, self.tiles, a, b), len(factor))

    def _add_dense(self, U, G, n_columns, product):
        U_packed = PackedMatrix.from_sparse_columns(U).tiles
        G_transposed = np.ascontiguousarray(G.toarray().T)
        step = n_columns // LANES
        for first in range(0, len(self.tiles), step):
            panels = U_packed[first : first + step]
            dense = panels.transpose(1, 0, 2).reshape(U.shape[0], -1)
            with blas_threads(2 * G_transposed.size * dense.shape[1]):
                update = product(G_transposed, dense).reshape(len(G_transposed), len(panels), LANES)
            self.tiles[first : first + step] += update.transpose(1, 0, 2)


def dense_product(A, B):
    """``A @ B`` for dense matrices, on the pool of threads.

    A is cut into blocks of rows of a fixed size, each multiplied by BLAS on one thread: the result does not
    depend on the number of threads.
    """
    out = np.empty((A.shape[0], B.shape[1]), dtype=np.result_type(A, B))
    blocks = -(-A.shape[0] // _DENSE_ROWS)

    def multiply(first, last):
        for block in range(first, last):
            rows = slice(block * _DENSE_ROWS, (block + 1) * _DENSE_ROWS)
            np.matmul(A[rows], B, out=out[rows])

    for_panels(multiply, blocks)
    return out


def rows_times_rows(A, B):
    """``A @ B.T`` for sparse rows A (n x p) and B (q x p): dense, n x q."""
    return PackedMatrix.from_sparse_rows(B).forward(A)


def row_gram(A):
    """``A @ A.T`` for sparse rows A (n x p): dense, n x n, exactly symmetric; half the work of the product."""
    packed = PackedMatrix.from_sparse_rows(A)
    n_panels = len(packed.tiles)
    out = np.empty((A.shape[0], n_panels * LANES), dtype=packed.dtype)
    arguments = _kernel_arguments(A)
    for_panels(
        lambda a, b: _kernels.forward(*arguments, packed.tiles, out, a, b, lower=True), n_panels, triangular=True
    )
    out = out[:, : A.shape[0]]
    for end in range(LANES, A.shape[0], LANES):
        out[end - LANES : end, end:] = out[end:, end - LANES : end].T
    return out


def packed_times_rows(P, U):
    """``P @ U`` for a packed P (n x r) and sparse rows U (r x m): dense, n x m."""
    return P.forward(transpose_rows(U)).T


def strassen(A, B, cutoff=_STRASSEN_CUTOFF):
    """``A @ B`` for dense matrices by Strassen's recursion, with BLAS at the leaves.

    Parameters
    ----------
    A : ndarray of shape (p, q)
    B : ndarray of shape (q, r)
    cutoff : int
        The recursion goes on while min(p, q, r) >= 2 * cutoff. Odd dimensions are padded by a zero row
        or column.

    Notes
    -----
    Seven products of half the size instead of eight. The error bound is a norm-wise one: it grows by a
    factor of about 3 a level over that of the ordinary product, and small elements lose relative accuracy.

    References
    ----------
    V. Strassen, "Gaussian elimination is not optimal", Numerische Mathematik 13 (1969);
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", chapter 23.
    """
    (p, q), r = A.shape, B.shape[1]
    if min(p, q, r) < 2 * cutoff:
        return A @ B
    if p % 2 or q % 2:
        A = np.pad(A, ((0, p % 2), (0, q % 2)))
    if q % 2 or r % 2:
        B = np.pad(B, ((0, q % 2), (0, r % 2)))
    i, j, k = (p + 1) // 2, (q + 1) // 2, (r + 1) // 2
    A11, A12, A21, A22 = A[:i, :j], A[:i, j:], A[i:, :j], A[i:, j:]
    B11, B12, B21, B22 = B[:j, :k], B[:j, k:], B[j:, :k], B[j:, k:]
    C = np.empty((2 * i, 2 * k), dtype=np.result_type(A, B))
    C11, C12, C21, C22 = C[:i, :k], C[:i, k:], C[i:, :k], C[i:, k:]

    product = strassen(A11 + A22, B11 + B22, cutoff)
    C11[:], C22[:] = product, product
    product = strassen(A21 + A22, B11, cutoff)
    C21[:] = product
    C22 -= product
    product = strassen(A11, B12 - B22, cutoff)
    C12[:] = product
    C22 += product
    product = strassen(A22, B21 - B11, cutoff)
    C11 += product
    C21 += product
    product = strassen(A11 + A12, B22, cutoff)
    C11 -= product
    C12 += product
    C22 += strassen(A21 - A11, B11 + B12, cutoff)
    C11 += strassen(A12 - A22, B21 + B22, cutoff)
    return C[:p, :r]
