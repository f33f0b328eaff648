"""Sketches of the rows of the Jacobian, from the factors of their tensor products.

Both maps S take a row's pair (u, g) to a vector of `sketch_size` numbers that is linear in u and in g, and
E[<S(u, g), S(u', g')>] = <u, u'> <g, g'>: the tensor u ⊗ g with its m * m numbers is never formed.
"""

import numpy as np
import scipy.fft
from scipy.sparse import csr_array

# Dense intermediate rows are made in chunks of at most this many numbers.
_CHUNK_NUMBERS = 1 << 23


class TensorSRHT:
    """Signs, Walsh-Hadamard transforms of both factors, and products of sampled coordinates.

    References
    ----------
    T. D. Ahle et al., "Oblivious sketching of high-degree polynomial kernels", SODA 2020;
    used for the Jacobian in Song, Zhang, Zhang, arXiv 2112.07628.
    """

    def __init__(self, n_u, n_g, sketch_size, rng):
        self._scale = sketch_size**-0.5
        self._factors = []
        for size in (n_u, n_g):
            padded = 1 << max(0, size - 1).bit_length()
            signs = rng.choice([-1.0, 1.0], size=size)
            self._factors.append((signs, padded, rng.integers(padded, size=sketch_size)))

    def __call__(self, u, g):
        """Sketches (n x sketch_size) of the row-wise tensor products of u (n x n_u) and g (n x n_g)."""
        product = self._scale
        for rows, (signs, padded, sampled) in zip((u, g), self._factors, strict=True):
            work = np.zeros((rows.shape[0], padded), dtype=rows.dtype)
            work[:, : rows.shape[1]] = rows * signs.astype(rows.dtype)
            product = product * walsh_hadamard(work)[:, sampled]
        return product.astype(u.dtype, copy=False)


class TensorSketch:
    """Count sketches of both factors, combined by circular convolution through FFT.

    References
    ----------
    R. Pagh, "Compressed matrix multiplication", ITCS 2012; N. Pham and R. Pagh, "Fast and scalable
    polynomial kernels via explicit feature maps", KDD 2013.
    """

    def __init__(self, n_u, n_g, sketch_size, rng):
        self._sketch_size = sketch_size
        self._count_sketches = []
        for size in (n_u, n_g):
            buckets, signs = rng.integers(sketch_size, size=size), rng.choice([-1.0, 1.0], size=size)
            self._count_sketches.append(csr_array((signs, buckets, np.arange(size + 1)), shape=(size, sketch_size)))

    def __call__(self, u, g):
        """Sketches (n x sketch_size) of the row-wise tensor products of u (n x n_u) and g (n x n_g)."""
        product = 1.0
        for rows, count_sketch in zip((u, g), self._count_sketches, strict=True):
            product = product * scipy.fft.rfft(rows @ count_sketch.astype(rows.dtype), axis=1)
        return scipy.fft.irfft(product, n=self._sketch_size, axis=1).astype(u.dtype, copy=False)


SKETCHES = {"tensor_srht": TensorSRHT, "tensor_sketch": TensorSketch}


def walsh_hadamard(rows):
    """Unnormalised Walsh-Hadamard transform of every row, in place; the length is a power of two."""
    n, size = rows.shape
    half = 1
    while half < size:
        pairs = rows.reshape(n, size // (2 * half), 2, half)
        even, odd = pairs[:, :, 0], pairs[:, :, 1]
        total = even + odd
        np.subtract(even, odd, out=odd)
        even[:] = total
        half *= 2
    return rows


class JacobianSketch:
    """Row features Φ (n x sketch_size) with E[Φ Φ^T] = the shared Gram matrix of a `Jacobian`.

    Every layer and every probe has its own independent sketch into the same columns; their sum is unbiased
    because independent sketches are uncorrelated.

    Parameters
    ----------
    kind : {"tensor_srht", "tensor_sketch"}
    sketch_size : int
    seed : int or sequence of int
        Jacobians of the same shape get the same maps.
    """

    def __init__(self, kind, sketch_size, seed):
        self._kind = SKETCHES[kind]
        self._sketch_size = sketch_size
        self._seed = seed

    def features(self, jacobian):
        """Φ for the rows of the Jacobian, scaled by its row scale."""
        rng = np.random.default_rng(self._seed)
        n_probes = jacobian.probes.shape[1]
        features = np.zeros((jacobian.n_rows, self._sketch_size), dtype=jacobian.dtype)
        inputs = [(None if h is None else h.to_csr(), x) for h, x in jacobian.layer_inputs()]
        ones = np.ones((jacobian.n_rows, 1), dtype=jacobian.dtype)
        for probe in range(n_probes):
            U = [*(u.to_csr() for u in jacobian.probe_cotangents()[probe]), ones]
            for u, (h, x) in zip(U, inputs, strict=True):
                n_g = sum(part.shape[1] for part in (h, x) if part is not None)
                sketch = self._kind(u.shape[1], n_g, self._sketch_size, rng)
                step = max(1, _CHUNK_NUMBERS // (u.shape[1] + n_g))
                for first in range(0, jacobian.n_rows, step):
                    part = slice(first, first + step)
                    dense_u = u[part] if u is ones else u[part].toarray()
                    dense_g = _concatenated(h, x, part)
                    features[part] += sketch(dense_u, dense_g)
        return features * (jacobian.row_scale / np.sqrt(n_probes).astype(jacobian.dtype))


def _concatenated(h, x, part):
    if h is None:
        return x[part]
    dense = h[part].toarray()
    return dense if x is None else np.concatenate([dense, x[part]], axis=1)
