"""Network inputs of n rows, dense or sparse, with the operations that a network and its Jacobian need of them."""

from functools import cached_property

import numpy as np

from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.packed import PackedMatrix, row_gram_columns, row_products, times_dense
from sklearn_subquad._linalg.sparse_rows import SparseRows

# What SciPy takes for a pair of entries in one column, relative to an entry times one of a panel of 64 rows: 50 to 180
# in products of 256 to 1,000 rows with up to 4,375.
_PAIR_OPERATIONS = 60


def as_features(x):
    """The operations below for network inputs x: an ndarray or `SparseFeatures`."""
    return x if isinstance(x, SparseFeatures) else DenseFeatures(x)


class DenseFeatures:
    """Network inputs x (n x d) as an ndarray; methods as of `SparseFeatures`."""

    def __init__(self, x):
        self._x = x

    def to_array(self):
        return self._x

    def products(self, W):
        return (self._x, W.T), []

    def transposed_times(self, C):
        return self._x.T @ C

    def combiner(self):
        columns = PackedMatrix.from_dense(self._x.T)
        return lambda u: columns.forward(u.transposed())

    def trainable(self, start):
        return start

    def gram_columns(self, first, last):
        return self._x[first:] @ self._x[first:last].T

    def row_norms(self):
        return np.einsum("ij,ij->i", self._x, self._x, dtype=np.float64)

    def nonzero_columns(self):
        return self._x.any(axis=0)

    def relative_squares(self, sample_weight):
        features = self._x[:, :-1]
        largest = np.abs(features).max(initial=0.0)
        if largest == 0:
            return np.zeros(features.shape[1])
        # Divided by the largest first: squares of very large or small numbers leave the range of the type.
        relative = features / largest
        return np.einsum("ij,ij,i->j", relative, relative, sample_weight, dtype=np.float64)

    def cleared(self, columns):
        self._x[:, columns] = 0
        return self._x


class SparseFeatures:
    """Network inputs ``x = S + 1 o^T`` (n x d): sparse rows S, and a row o that all of them share.

    Scaling moves the zeros of a column to one and the same number, which is o's; S has entries where X has some. A
    product with x is one with S and a correction of rank one. As of an ndarray, there are ``x.shape``, ``x.dtype``,
    ``len(x)``, ``x[rows]`` and ``x @ B``.

    Parameters
    ----------
    stored : scipy.sparse.csr_array of shape (n, d)
        With sorted indices.
    origin : ndarray of shape (d,)
    span : RowSpan or None
        Of rows of which these are some, where changes of weights are kept as combinations of them.
    numbers : ndarray of shape (n,), int, or None
        Which of them these are.
    """

    def __init__(self, stored, origin, span=None, numbers=None):
        self.stored, self.origin, self.span, self._numbers = stored, origin, span, numbers
        self._inner = (None, None)

    @property
    def shape(self):
        return self.stored.shape

    @property
    def dtype(self):
        return self.stored.dtype

    def __len__(self):
        return self.stored.shape[0]

    def __getitem__(self, rows):
        numbers = None if self.span is None else self._numbers[rows]
        return SparseFeatures(self.stored[rows], self.origin, self.span, numbers)

    def __matmul__(self, B):
        return self.stored @ B + self.origin @ B

    @cached_property
    def rows(self):
        """S as `SparseRows`."""
        return SparseRows.from_csr(self.stored)

    @cached_property
    def _along_origin(self):
        """``S o`` (n,), and half of the square of o on top: the inner product of two rows takes both of theirs."""
        return self.stored @ self.origin + self.origin @ self.origin / 2

    @cached_property
    def _stored_columns(self):
        return self.stored.T.tocsr()

    def inner_products(self, others):
        """``x @ others.T`` for `SparseFeatures` of the same origin: dense; those with the last others are kept."""
        if self._inner[0] is not others:
            products = self._products_of_stored(others)
            products += self._along_origin[:, None]
            products += others._along_origin
            self._inner = (others, products)
        return self._inner[1]

    def _products_of_stored(self, others):
        """``S @ others.S.T`` by SciPy, which goes through pairs of entries, or with panels of S as arrays."""
        (n, d), n_entries = self.shape, others.stored.nnz
        if _PAIR_OPERATIONS * self.stored.nnz * (n_entries / d) < -(-n // LANES) * LANES * (n_entries + d):
            return (self.stored @ others._stored_columns).toarray()
        return row_products(self.rows, others.rows).to_dense()

    def to_array(self):
        """x as an ndarray."""
        return self.stored.toarray() + self.origin

    def products(self, W):
        """``x @ W.T`` for a dense W (m x d) as parts of a `ColumnwiseSum`: factors of a dense product or None, and
        terms."""

        def add(out, first):
            part = W[first : first + out.shape[1]]
            PackedMatrix.from_dense(part).add_forward(self.rows, out)
            out += part @ self.origin

        return None, [add]

    def transposed_times(self, C):
        """``x.T @ C`` for a dense C (n x k) of few columns."""
        return self.stored.T @ C + np.outer(self.origin, C.sum(axis=0))

    def combiner(self):
        """A function from sparse rows u (n x m) to ``u.T @ x``, as a change of weights that meet x."""
        if self.span is not None:
            return lambda u: self.span.combination(self._numbers, u)

        def combine(u):
            factor = PackedMatrix(u.column_tiles(0, PackedMatrix.n_panels(u.shape[1])), u.shape[1])
            sums = times_dense(u.transposed(), np.ones((len(self), 1), dtype=self.dtype))
            change = sums * self.origin
            factor.add_forward(self.rows.transposed(), change.T)
            return change

        return combine

    def trainable(self, start):
        """Weights (m x d) that begin as the dense `start` and can be changed by what the `combiner` returns."""
        return start if self.span is None else self.span.weights(start)

    def gram_columns(self, first, last):
        """``x[first:] @ x[first:last].T``: dense; from `first`, a multiple of 64, 64 columns at most."""
        if self.span is not None:
            return self.inner_products(self.span.rows)[first:, self._numbers[first:last]]
        products = row_gram_columns(self.rows, first, last)
        products += self._along_origin[first:, None]
        products += self._along_origin[first:last]
        return products

    def row_norms(self):
        """Squared Euclidean norms of the rows, float64."""
        origin = self.origin.astype(np.float64)
        return self.rows.row_norms() + 2 * (self.stored @ origin) + origin @ origin

    def nonzero_columns(self):
        """Which columns are not zero throughout, as an array of bool."""
        nonzero = self.origin != 0
        nonzero[self.stored.indices] = True
        return nonzero

    def relative_squares(self, sample_weight):
        """Weighted sums of squares of the columns but the last, to a common factor; all zero for no other numbers."""
        origin = self.origin[:-1].astype(np.float64)
        largest = max(np.abs(self.stored.data).max(initial=0.0), np.abs(origin).max(initial=0.0)) or 1.0
        columns, weights = self.stored.indices, np.repeat(sample_weight, np.diff(self.stored.indptr))
        stored = self.stored.data.astype(np.float64) / largest
        origin /= largest
        # Of an entry, by how much its square exceeds that of a zero.
        more = stored * (stored + 2 * np.append(origin, 0.0)[columns])
        squares = np.bincount(columns, weights=weights * more, minlength=len(origin) + 1)[:-1]
        return np.maximum(squares + sample_weight.sum() * origin**2, 0.0)

    def variances(self, sample_weight):
        """Weighted variances of the columns, float64."""
        share = sample_weight / sample_weight.sum()
        columns, weights = self.stored.indices, np.repeat(share, np.diff(self.stored.indptr))
        stored = self.stored.data.astype(np.float64)
        mean, square = (np.bincount(columns, weights * each, self.shape[1]) for each in (stored, stored**2))
        return np.maximum(square - mean**2, 0.0)

    def cleared(self, columns):
        """The same with columns of zeros in the place of these; x may be overwritten."""
        keep = np.ones(self.shape[1], dtype=self.dtype)
        keep[columns] = 0
        self.stored.data *= keep[self.stored.indices]
        return SparseFeatures(self.stored, self.origin * keep)
