"""Activations that leave few neurons active per row: shifted ReLU and top-k.

Both map pre-activations z (n x m) to sparse rows with entries ``gain * (z - shift)``; the derivative is the gain
on the active entries and zero elsewhere.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from sklearn_subquad._linalg.sparse_rows import SparseRows


def calibrate_shift(density, mean_square):
    """Shift above which a centred normal variable of that mean square lies with probability `density`."""
    return float(-ndtri(density) * np.sqrt(mean_square))


def auto_density(width):
    """m^(-1/5), the density under which s = m^(4/5) neurons are active, at most one half.

    References
    ----------
    Song, Zhang, Zhang, arXiv 2112.07628: the shifted ReLU with b = sqrt(0.4 log m) has
    O(m^(4/5)) active neurons per row.
    """
    return min(0.5, width ** (-1 / 5))


def n_active(width, density):
    """Neurons that top-k keeps active in every row."""
    return min(width, max(1, round(density * width)))


def shifted_relu(z, shift, gain, density):
    """Sparse rows of ``gain * max(z - shift, 0)``.

    Parameters
    ----------
    z : ColumnwiseSum of shape (n, m)
    shift, gain : float
    density : float
        Fraction that the shift was calibrated for.

    Returns
    -------
    SparseRows of shape (n, m), of z's dtype
    """
    return z.select(shift, gain, density)


def topk(z, shift, gain, density):
    """Sparse rows of ``gain * (z - shift)`` on the ``max(1, round(density * m))`` largest z of each row.

    The shift makes the entry at the edge of the active set small, so that a neuron that enters or leaves it
    changes the row little; entries may be slightly negative. Which of several equal z are kept is not specified.
    All n x m numbers of z exist at once, because a row is chosen from as a whole.
    """
    n, m = z.shape
    k = n_active(m, density)
    dense = z.dense()
    chosen = np.argpartition(dense, m - k, axis=1)[:, m - k :]
    chosen.sort(axis=1)
    values = np.take_along_axis(dense, chosen, axis=1)
    values -= values.dtype.type(shift)
    values *= values.dtype.type(gain)
    indptr = np.arange(n + 1) * k
    return SparseRows.from_csr(csr_array((values.ravel(), chosen.ravel(), indptr), shape=(n, m)))


SPARSIFIERS = {"shifted_relu": shifted_relu, "topk": topk}


def dense_row_bytes(itemsize, topk):
    """Bytes per neuron of a row's pre-activations: at initialisation, and with top-k in every forward pass.

    To choose the largest takes the places of all (8 bytes), copies of the chosen ones, and 32-bit indices.
    """
    return itemsize + 16 if topk else itemsize
