"""Products of sparse rows with packed matrices, and fast rectangular products of sparse or dense factors.

The paper's "fast rectangular matrix multiplication" (arXiv 2112.07628) is here one packed format, and three routes
to add a product of factors to it.
"""

import itertools
import math

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import CHUNK_ROWS, LANES
from sklearn_subquad._linalg.threads import for_each

_CACHE_LINE = 64
# Numbers of a group of columns that one thread works on at a time: they stay in the last level of cache.
_GROUP_NUMBERS = 1 << 20
_MAX_GROUP_COLUMNS = 1024
# Groups that a matrix is cut into at least, where its width allows: the threads then share the work evenly.
_MIN_GROUPS = 8
# Products of so few numbers are one group: they stay in the cache, and a group is a few calls from Python, for which
# the threads of other networks wait.
_ONE_GROUP_NUMBERS = 200_000
# Outputs that the BLAS route adds at a time: wide enough for GEMM, far below a full n_out x n_in temporary.
_BLAS_COLUMNS = 256
_STRASSEN_COLUMNS = 2048
# Strassen recurses while the smallest of the three dimensions is at least twice this.
_STRASSEN_CUTOFF = 1024

ROUTES = ("scatter", "blas", "strassen")


def column_groups(n_rows, n_columns, block):
    """Slices of whole blocks of columns, such that n_rows x columns numbers suit the cache.

    They depend on the shape alone, not on the number of threads.
    """
    if 0 < n_rows * n_columns <= _ONE_GROUP_NUMBERS and n_columns <= _MAX_GROUP_COLUMNS:
        return [slice(0, n_columns)]
    columns = min(_GROUP_NUMBERS // max(1, n_rows), _MAX_GROUP_COLUMNS, -(-n_columns // _MIN_GROUPS))
    columns = block * max(1, columns // block)
    return [slice(first, min(first + columns, n_columns)) for first in range(0, n_columns, columns)]


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

    def copy(self):
        """The same numbers in other memory."""
        other = PackedMatrix.zeros(*self.shape, self.dtype)
        other.tiles[...] = self.tiles
        return other

    @property
    def shape(self):
        return self.n_out, self.tiles.shape[1]

    @property
    def dtype(self):
        return self.tiles.dtype

    def to_dense(self):
        panels, n_in, lanes = self.tiles.shape
        return self.tiles.transpose(0, 2, 1).reshape(panels * lanes, n_in)[: self.n_out]

    def add_forward(self, rows, out, first=0):
        """``out += rows @ W[first : first + columns of out].T`` for sparse rows; `first` is a multiple of 64."""
        _kernels.forward(rows.pattern, rows.values, self.tiles, out, first // LANES, accumulate=True)

    def add_backward(self, rows, out, first=0):
        """``out += rows @ W[:, first : first + columns of out]`` for sparse rows; `first` is a multiple of 64."""
        _kernels.backward(rows.pattern, rows.values, self.tiles, out, first // LANES, accumulate=True)

    def forward(self, rows):
        """``rows @ W.T`` for sparse rows (n x n_in): dense, n x n_out."""
        out = np.empty((rows.shape[0], self.n_out), dtype=self.dtype)
        columns = column_groups(*out.shape, LANES)
        if len(columns) < _MIN_GROUPS:
            # A narrow matrix, which every chunk of rows can read again.
            def of_chunk(i):
                part = slice(i * CHUNK_ROWS, (i + 1) * CHUNK_ROWS)
                _kernels.forward(rows.pattern, rows.values, self.tiles, out[part], 0, part.start)

            for_each(of_chunk, -(-len(out) // CHUNK_ROWS))
        else:

            def of_columns(i):
                part = columns[i]
                _kernels.forward(rows.pattern, rows.values, self.tiles, out[:, part], part.start // LANES)

            for_each(of_columns, len(columns))
        return out

    def backward(self, rows):
        """``rows @ W`` for sparse rows (n x n_out): dense, n x n_in."""
        out = np.empty((rows.shape[0], self.tiles.shape[1]), dtype=self.dtype)
        columns = column_groups(*out.shape, LANES)

        def of_columns(i):
            part = columns[i]
            _kernels.backward(rows.pattern, rows.values, self.tiles, out[:, part], part.start // LANES)

        for_each(of_columns, len(columns))
        return out

    def times(self, B):
        """``W @ B`` for a dense B (n_in x k) of few columns: dense, n_out x k."""
        product = self.tiles.transpose(0, 2, 1) @ B
        return product.reshape(-1, B.shape[1])[: self.n_out]

    def add_product(self, U, G, route):
        """``W += U.T @ G`` for sparse factors U (rank x n_out) and G (rank x n_in).

        Parameters
        ----------
        U, G : SparseRows
        route : {"scatter", "blas", "strassen"}
            "scatter" uses the sparsity of G, "blas" multiplies dense panels, "strassen" multiplies larger
            dense panels with Strassen's algorithm over BLAS.
        """
        if not U.shape[0]:
            return
        if route == "scatter":
            self._add_scattered(U, G)
        elif route == "blas":
            self._add_dense(U, G, _BLAS_COLUMNS, np.matmul)
        elif route == "strassen":
            self._add_dense(U, G, strassen_columns(self.n_out), strassen)
        else:
            raise ValueError(f"route must be one of {ROUTES}, got {route!r}.")

    def _panel_groups(self, U, n_columns):
        """Ranges of panels of about so many outputs, whole blocks of U each."""
        block = U.pattern.block
        step = block * max(1, n_columns // block)
        bounds = [*range(0, self.n_out, step), self.n_out]
        return [(first // LANES, self.n_panels(last)) for first, last in itertools.pairwise(bounds)]

    def _add_scattered(self, U, G):
        columns = G.transposed()
        columns_of_U = min(_GROUP_NUMBERS // U.shape[0], _MAX_GROUP_COLUMNS, -(-self.n_out // _MIN_GROUPS))
        groups = self._panel_groups(U, columns_of_U)

        def add(i):
            first, last = groups[i]
            factor = U.column_tiles(first, last)
            _kernels.forward_packed(columns.pattern, columns.values, factor, self.tiles[first:last], accumulate=True)

        for_each(add, len(groups))

    def _add_dense(self, U, G, n_columns, product):
        G_transposed = np.ascontiguousarray(G.to_csr().toarray().T)
        groups = self._panel_groups(U, n_columns)

        def add(i):
            first, last = groups[i]
            factor = U.column_tiles(first, last).transpose(1, 0, 2).reshape(U.shape[0], -1)
            update = product(G_transposed, factor).reshape(len(G_transposed), last - first, LANES)
            self.tiles[first:last] += update.transpose(1, 0, 2)

        for_each(add, len(groups))
        # Strassen's sums and differences leave rounding errors where the exact result is zero.
        self.tiles[-1, :, self.n_out - LANES * (len(self.tiles) - 1) :] = 0


def row_products(A, B):
    """``A @ B.T`` for sparse rows A (n x p) and B (r x p), packed: n outputs, r inputs."""
    product = PackedMatrix.zeros(A.shape[0], B.shape[0], A.dtype)

    def of_panel(panel):
        tile = A.panel_tile(panel)[np.newaxis]
        _kernels.forward_packed(B.pattern, B.values, tile, product.tiles[panel : panel + 1])

    for_each(of_panel, len(product.tiles))
    return product


def symmetric(n, dtype, lower_columns):
    """A symmetric matrix (n x n), from the lower parts of its columns.

    Parameters
    ----------
    n : int
    dtype : dtype
    lower_columns : callable
        ``lower_columns(first, last)`` gives rows from `first` on of the columns from `first`, a multiple of 64, to
        `last`, at most 64 of them. It is called by several threads. Above the diagonal nothing is read.

    Returns
    -------
    ndarray of shape (n, n)
        Exactly symmetric.
    """
    out = np.empty((n, n), dtype=dtype)

    def of_panel(panel):
        first = panel * LANES
        _kernels.mirror(lower_columns(first, min(first + LANES, n)), first, out)

    for_each(of_panel, PackedMatrix.n_panels(n))
    return out


def row_gram_columns(A, first, last, plus=None):
    """``A[first:] @ A[first:last].T`` for sparse rows A (n x p): dense; from `first`, a multiple of 64, 64 at most.

    It is added to `plus`, where there is one, in place.
    """
    out = np.empty((A.shape[0] - first, last - first), dtype=A.dtype) if plus is None else plus
    tile = A.panel_tile(first // LANES)[np.newaxis]
    _kernels.forward(A.pattern, A.values, tile, out, 0, first, plus is not None)
    return out


def times_dense(rows, B):
    """``rows @ B`` for sparse rows (n x m) and a dense B (m x k): dense, n x k."""
    return PackedMatrix.from_dense(B.T).forward(rows)


def strassen_levels(p, q, r, cutoff=_STRASSEN_CUTOFF):
    """Levels of the recursion of `strassen` for a product p x q by q x r."""
    if min(p, q, r) < 2 * cutoff:
        return 0
    return 1 + strassen_levels((p + 1) // 2, (q + 1) // 2, (r + 1) // 2, cutoff)


def strassen_columns(n_out):
    """Outputs that the Strassen route adds at a time: never more than a quarter of W, as temporaries are."""
    return min(_STRASSEN_COLUMNS, LANES * PackedMatrix.n_panels(n_out // 4 + 1))


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
    if strassen_levels(p, q, r, cutoff) == 0:
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
