"""Activations that leave few neurons active per row: shifted ReLU and top-k.

Both map pre-activations z (n x m, dense) to sparse rows with entries ``z - shift``; the derivative is one
on the active entries and zero elsewhere.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri


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


def shifted_relu(z, shift, density):
    """Sparse rows of ``max(z - shift, 0)``; `density` is what the shift was calibrated for and unused.

    Parameters
    ----------
    z : ndarray of shape (n, m)
    shift : float

    Returns
    -------
    csr_array of shape (n, m), of z's dtype
    """
    return _select(z, z > shift, shift)


def topk(z, shift, density):
    """Sparse rows of ``z - shift`` on the ``max(1, round(density * m))`` largest z of each row.

    The shift makes the entry at the edge of the active set small, so that a neuron that enters or leaves it
    changes the row little; entries may be slightly negative. Which of several equal z are kept is not specified.
    """
    m = z.shape[1]
    n_active = min(m, max(1, round(density * m)))
    active = np.zeros(z.shape, dtype=bool)
    chosen = np.argpartition(z, m - n_active, axis=1)[:, m - n_active :]
    np.put_along_axis(active, chosen, True, axis=1)
    return _select(z, active, shift)


def _select(z, active, shift):
    n, m = z.shape
    flat = np.flatnonzero(active)
    indptr = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(np.count_nonzero(active, axis=1), out=indptr[1:])
    indices = (flat % m).astype(np.int32)
    return csr_array((z[active] - z.dtype.type(shift), indices, indptr), shape=(n, m))


SPARSIFIERS = {"shifted_relu": shifted_relu, "topk": topk}
