"""Operation counts of the ways to fold factors into a weight matrix."""

from dataclasses import dataclass

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._linalg.packed import strassen_columns, strassen_levels

# One pass over a weight (read, add, write) takes as long as about so many operations of the sparse kernel.
_PASS_OPERATIONS = 30
# Strassen's sums wait for memory: an element takes as long as about so many multiplications-and-additions of BLAS
# (benchmarks/speed/targets.py strassen: a level loses 14 % at width 8192, rank 2048 and 4096, instead of gaining 12 %).
_SUM_OPERATIONS = 150


@dataclass(frozen=True)
class FoldingCosts:
    """Times relative to that of the same product through dense BLAS.

    Attributes
    ----------
    fixed, per_density : float
        The sparse kernel takes ``fixed + per_density * density``.
    """

    fixed: float
    per_density: float

    def of_routes(self, rank, n_in, n_out, density):
        """Relative cost of every route for factors of that rank, the right one of that density."""
        strassen = 1.0
        p, q, r = n_in, rank, min(n_out, strassen_columns(n_out))
        for _ in range(strassen_levels(p, q, r)):
            # Seven products instead of eight; 5 + 5 sums of quarters of the factors and 8 of the result.
            sums = (5 * p * q + 5 * q * r + 8 * p * r) / 4
            strassen *= 7 / 8 + _SUM_OPERATIONS * sums / (p * q * r)
            p, q, r = p / 2, q / 2, r / 2
        return {"scatter": self.fixed + self.per_density * density, "blas": 1.0, "strassen": strassen}


# By SIMD level, where BLAS has vectors of the same length (benchmarks/speed/targets.py folding, in both dtypes, which
# differ less than runs do). Not timed in every process: near break-even two processes would choose differently, and
# their results would not be the same to the bit.
_FOLDING_COSTS = {
    "baseline": FoldingCosts(fixed=0.03, per_density=0.9),
    "x86_64_v3": FoldingCosts(fixed=0.05, per_density=1.1),
    "x86_64_v4": FoldingCosts(fixed=0.05, per_density=1.4),
}


def cheapest_route(U, G, n_out):
    """The route by which ``U.T @ G`` is folded in fastest, always the same for the same shapes and density."""
    costs = _FOLDING_COSTS[_kernels.simd_level()].of_routes(U.shape[0], G.shape[1], n_out, G.density)
    return min(costs, key=costs.get)


def query_operations(U, G, n_rows):
    """Operations of ``(rows @ G.T) @ U`` for so many rows, or of the same with U and G exchanged."""
    return 2 * n_rows * (U.nnz + G.nnz)


def folding_operations(U, G):
    """Operations of folding ``U.T @ G`` in through the sparse kernel, the pass over the weights included."""
    return 2 * G.nnz * U.shape[1] + _PASS_OPERATIONS * U.shape[1] * G.shape[1]


def balanced_rank(U, G):
    """The pending rank at which passes over the weights cost as much as the queries that they save.

    With s_u and s_g entries a row in the factors, a pending step of n rows adds 2 n² (s_u + s_g) operations to
    every query, and an iteration makes two. If a pass over the m_out x m_in weights (P operations a weight) is made
    every q steps, an iteration costs P m_out m_in / q + 2 n² (s_u + s_g) q, least at
    n q = sqrt(P m_out m_in / (2 (s_u + s_g))).
    `LazyWeights.flush` makes a pass for every pending pair, so that this is the most that waiting could save.
    """
    per_row = (U.nnz + G.nnz) / max(1, U.shape[0])
    return np.sqrt(_PASS_OPERATIONS * U.shape[1] * G.shape[1] / (2 * max(1.0, per_row)))
