"""Sketches of the rows of the Jacobian, from the factors of their tensor products.

Both maps S take a row's pair (u, g) to a vector of `sketch_size` numbers that is linear in u and in g, and
E[<S(u, g), S(u', g')>] = <u, u'> <g, g'>: the tensor u ⊗ g with its m * m numbers is never formed.

Rows are sketched panel by panel, `LANES` of them for all layers at a time: nothing is made of all rows but the
result, and threads that have different panels share nothing but the maps.
"""

import itertools

import numpy as np
import scipy.fft

from sklearn_subquad._kernels import (
    LANES,
    add_sampled_products,
    count_sketch,
    count_sketch_dense,
    scatter_signed,
    walsh_hadamard,
)
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._linalg.threads import for_each

_CACHE_LINE = 64


class TensorSRHT:
    """Signs, Walsh-Hadamard transforms of both factors, and products of sampled coordinates.

    The rows of a panel are the lanes of a tile (size x LANES), as in the other kernels: a transform along the first
    axis adds and subtracts whole vectors, and a sampled coordinate of all rows is one run of memory. Along rows, the
    first levels of the transform would shuffle numbers within vectors, and sampling would pick them one by one.

    Parameters
    ----------
    n_u, n_g : int
        Columns of the factors.
    sketch_size : int
    rng : Generator
    dtype : dtype

    References
    ----------
    T. D. Ahle et al., "Oblivious sketching of high-degree polynomial kernels", SODA 2020;
    used for the Jacobian in Song, Zhang, Zhang, arXiv 2112.07628.
    """

    # How the features of a panel are stored in the least time.
    order = "F"

    def __init__(self, n_u, n_g, sketch_size, rng, dtype):
        self._u_transform = _SignedTransform(n_u, rng, dtype)
        self._g_transform = _SignedTransform(n_g, rng, dtype)
        self._u_sampled = rng.integers(self._u_transform.size, size=sketch_size)
        self._g_sampled = rng.integers(self._g_transform.size, size=sketch_size)
        # Coordinates have mean zero over these signs: whatever is sampled, sketches that are summed are uncorrelated.
        # Without them, the first coordinates of the factors of two layers, which the transforms add to all others,
        # would leave a correlation that no sketch size makes smaller.
        self._signs = _random_signs(sketch_size, rng, dtype)

    @staticmethod
    def empty_sum(sketch_size, dtype):
        """The sum of no sketches of a panel, for `add_panel`."""
        total = _empty_tile(sketch_size, dtype)
        total.fill(0)
        return total

    def add_panel(self, total, panel, u, g):
        """Add the sketches of one panel of rows to `total`; u and g are lists of matrices side by side."""
        u_tile, g_tile = self._u_transform(panel, u), self._g_transform(panel, g)
        add_sampled_products(u_tile, self._u_sampled, g_tile, self._g_sampled, self._signs, total)

    @staticmethod
    def store(total, scale, features):
        """Write the sketches that were summed in `total`, times `scale`, to the panel's rows of the features."""
        n_rows, sketch_size = features.shape
        np.multiply(total.T[:n_rows], features.dtype.type(scale * sketch_size**-0.5), out=features)


class _SignedTransform:
    """Tiles H D a for the rows a of a panel; D are random signs, H is a Walsh-Hadamard matrix of `size` columns.

    That is the next power of two, often about twice the length of the rows: 8192 for 4096 hidden units and ten
    features. But a transform of two halves is the sum and the difference of theirs, and that of ten numbers and
    4086 zeros is one of sixteen, repeated. So tiles have 4096 + 16 rows, the transforms of the halves, and
    `add_sampled_products` does the sums and differences that it samples.
    """

    def __init__(self, n_columns, rng, dtype):
        self._head, self._tail = _two_powers(n_columns)
        self.size = 2 * self._head if self._tail else self._head
        self._signs = _random_signs(n_columns, rng, dtype)

    def __call__(self, panel, parts):
        tile = _empty_tile(self._head + self._tail, self._signs.dtype)
        for part, columns in _side_by_side(parts):
            signs = self._signs[columns]
            if isinstance(part, SparseRows):
                scatter_signed(part.pattern, part.values, panel * LANES, signs, tile[columns])
            else:
                rows = as_features(part[_rows_of(panel)]).to_array()
                tile[columns, : len(rows)] = (rows * signs).T
                tile[columns, len(rows) :] = 0
        tile[len(self._signs) :] = 0
        walsh_hadamard(tile[: self._head])
        if self._tail:
            walsh_hadamard(tile[self._head :])
        return tile


def _two_powers(size):
    """The smallest sum of a power of two and a smaller one, or 0, that is at least `size`."""
    head = 1 << size.bit_length() - 1
    tail = 1 << (size - head - 1).bit_length() if size > head else 0
    return (2 * head, 0) if tail == head else (head, tail)


class TensorSketch:
    """Count sketches of both factors, combined by circular convolution through FFT.

    Spectra are summed over layers, so that there is one inverse transform for all of them.

    Parameters
    ----------
    n_u, n_g : int
        Columns of the factors.
    sketch_size : int
    rng : Generator
    dtype : dtype

    References
    ----------
    R. Pagh, "Compressed matrix multiplication", ITCS 2012; N. Pham and R. Pagh, "Fast and scalable
    polynomial kernels via explicit feature maps", KDD 2013.
    """

    order = "C"

    def __init__(self, n_u, n_g, sketch_size, rng, dtype):
        self._u_spectrum = _CountSketchSpectrum(n_u, sketch_size, rng, dtype)
        self._g_spectrum = _CountSketchSpectrum(n_g, sketch_size, rng, dtype)

    @staticmethod
    def empty_sum(sketch_size, dtype):
        """The sum of no sketches of a panel, for `add_panel`."""
        return np.zeros((LANES, sketch_size // 2 + 1), dtype=np.result_type(dtype, np.complex64))

    def add_panel(self, total, panel, u, g):
        """Add the sketches of one panel of rows to `total`; u and g are lists of matrices side by side."""
        product = self._u_spectrum(panel, u)
        product *= self._g_spectrum(panel, g)
        total += product

    @staticmethod
    def store(total, scale, features):
        """Write the sketches that were summed in `total`, times `scale`, to the panel's rows of the features."""
        n_rows, sketch_size = features.shape
        sketches = scipy.fft.irfft(total[:n_rows], n=sketch_size, axis=1)
        np.multiply(sketches, features.dtype.type(scale), out=features)


class _CountSketchSpectrum:
    """Fourier transforms of the rows of a panel after every column went, with a random sign, to a random bucket."""

    def __init__(self, n_columns, sketch_size, rng, dtype):
        self._sketch_size = sketch_size
        self._signs = _random_signs(n_columns, rng, dtype)
        self._buckets = rng.integers(sketch_size, size=n_columns)

    def __call__(self, panel, parts):
        sketches = np.zeros((LANES, self._sketch_size), dtype=self._signs.dtype)
        for part, columns in _side_by_side(parts):
            buckets, signs = self._buckets[columns], self._signs[columns]
            if isinstance(part, SparseRows):
                count_sketch(part.pattern, part.values, panel * LANES, buckets, signs, sketches)
            else:
                count_sketch_dense(as_features(part[_rows_of(panel)]).to_array(), buckets, signs, sketches)
        return scipy.fft.rfft(sketches, axis=1)


SKETCHES = {"tensor_srht": TensorSRHT, "tensor_sketch": TensorSketch}


class JacobianSketch:
    """Row features Φ (n x sketch_size) with E[Φ Φ^T] = J J^T, from the factors of a Jacobian's rows.

    Every layer and every probe has its own independent sketch into the same columns; their sum is unbiased
    because independent sketches are uncorrelated.

    Parameters
    ----------
    kind : {"tensor_srht", "tensor_sketch"}
    sketch_size : int
    seed : int or sequence of int
        Factors of the same shapes get the same maps.
    """

    def __init__(self, kind, sketch_size, seed):
        self._kind = SKETCHES[kind]
        self._sketch_size = sketch_size
        self._seed = seed

    def empty_features(self, n_rows, dtype):
        """Memory for features (n_rows x sketch_size), by rows or by columns, whatever takes less time to write."""
        return np.empty((n_rows, self._sketch_size), dtype=dtype, order=self._kind.order)

    def features(self, factors, n_rows, dtype, out=None):
        """Φ with E[Φ Φ^T] = mean over probes of the sum over layers of ``(u u^T) * (g g^T)``, g = [h, x].

        The variance of an element of Φ Φ^T is at most ``11 / sketch_size`` times the squared norms of its two rows of
        the Jacobian. The same seed and numbers of columns give the same maps: blocks of rows can be sketched one after
        the other.

        Parameters
        ----------
        factors : list of list of tuple
            For every probe, for every layer, the triple (u, h, x): u (n x k) sparse rows or an ndarray, h (n x m)
            sparse rows or None, x (n x d) an ndarray, `SparseFeatures` or None, not both None. All are of type `dtype`.
        n_rows : int
        dtype : dtype
            float32 or float64.
        out : ndarray of shape (n_rows, sketch_size) or None, default=None
            Where to write Φ: rows of an array from `empty_features`.

        Returns
        -------
        ndarray of shape (n_rows, sketch_size)
        """
        if out is None:
            out = self.empty_features(n_rows, dtype)
        rng = np.random.default_rng(self._seed)
        terms = []
        for u, h, x in itertools.chain.from_iterable(factors):
            g = [part for part in (h, x) if part is not None]
            n_g = sum(part.shape[1] for part in g)
            terms.append((self._kind(u.shape[1], n_g, self._sketch_size, rng, out.dtype), [u], g))
        scale = len(factors) ** -0.5

        def sketch_panel(panel):
            total = self._kind.empty_sum(self._sketch_size, out.dtype)
            for sketch, u, g in terms:
                sketch.add_panel(total, panel, u, g)
            self._kind.store(total, scale, out[_rows_of(panel)])

        for_each(sketch_panel, -(-n_rows // LANES))
        return out


def _rows_of(panel):
    return slice(panel * LANES, (panel + 1) * LANES)


def _side_by_side(parts):
    """Pairs of a matrix and the slice of its columns among those of all."""
    first = 0
    for part in parts:
        yield part, slice(first, first + part.shape[1])
        first += part.shape[1]


def _random_signs(size, rng, dtype):
    return (2 * rng.integers(2, size=size, dtype=np.int8) - 1).astype(dtype)


def _empty_tile(size, dtype):
    """A tile (size x LANES) of whole cache lines: a transform took a third more time where vectors lay across two."""
    n_bytes = size * LANES * dtype.itemsize
    memory = np.empty(n_bytes + _CACHE_LINE, dtype=np.uint8)
    offset = -memory.ctypes.data % _CACHE_LINE
    return memory[offset : offset + n_bytes].view(dtype).reshape(size, LANES)
