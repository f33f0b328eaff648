"""Cholesky factors of symmetric matrices with a ridge, in single precision where that loses nothing."""

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._linalg.threads import blas_threads

# Factors are in single precision where the ridge is above this share of a bound of the matrix's norm.
SINGLE_RIDGE = 10 * float(np.finfo(np.float32).eps)
# Of the right-hand side's norm, what a refined solution may leave.
_REFINED = 1e-8
# Corrections that are tried; each has to halve the residual, at least.
_MAX_CORRECTIONS = 6
# With more columns than this, products in double precision cost more than a factor in single precision saves.
_MAX_REFINED_COLUMNS = 32


def cholesky(matrix, ridge, dtype):
    """Cholesky factor of ``matrix + ridge * I`` in that dtype, or in double precision where rounding forbids it.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Symmetric. Of one that is in Fortran's order only the lower triangle is read.
    ridge : float
    dtype : dtype

    Returns
    -------
    ndarray of shape (n, n)
        In Fortran's order; above the diagonal is anything.

    Raises
    ------
    numpy.linalg.LinAlgError
        Where the sum is not positive definite in double precision.
    """
    for precision in dict.fromkeys((np.dtype(dtype), np.dtype(np.float64))):
        # A copy in Fortran's order. Of a matrix that is in that order already only the lower triangle counts; of any
        # other, symmetric one the transpose is as good.
        shifted = np.array(matrix if matrix.flags.f_contiguous else matrix.T, dtype=precision, order="F")
        shifted.flat[:: len(shifted) + 1] += ridge
        with blas_threads(len(shifted) ** 3 / 3):
            not_positive = _kernels.potrf(shifted)
        if not not_positive:
            return shifted
    raise np.linalg.LinAlgError(f"The minor of order {not_positive} is not positive definite.")


def cholesky_solve(factor, R):
    """Solve for R (n x k) with a factor, in its dtype."""
    solution = np.array(R, dtype=factor.dtype, order="F")
    with blas_threads(2 * R.shape[0] * R.size):
        _kernels.potrs(factor, solution)
    return solution


def lower_inverse(factor):
    """Lower triangle of the inverse of what has this Cholesky factor, which is overwritten; above it is anything."""
    with blas_threads(2 * len(factor) ** 3 / 3):
        _kernels.potri(factor)
    return factor


class ShiftedMatrix:
    """``matrix + ridge * I``, ready to be solved with.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), float64
        Symmetric, positive semi-definite.
    ridge : float
    dtype : dtype
        Of the numbers that the matrix was made of. In single precision the factor is in single precision as well, if
        the ridge is far above its rounding; solutions are then refined until their residual in double precision is
        below 1e-8 of the right-hand side. Where that fails, the factor is made again in double precision.

    Raises
    ------
    numpy.linalg.LinAlgError
        Where the sum is not positive definite in double precision.

    References
    ----------
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", chapter 12 (iterative refinement).
    """

    def __init__(self, matrix, ridge, dtype):
        self._matrix, self._ridge = matrix, ridge
        single = np.dtype(dtype) == np.float32 and ridge > SINGLE_RIDGE * float(np.trace(matrix))
        self._factor = cholesky(matrix, ridge, np.float32 if single else np.float64)

    @property
    def _is_single(self):
        return self._factor.dtype == np.float32

    def solve(self, R):
        """Solution for R (n x k), float64.

        Raises
        ------
        numpy.linalg.LinAlgError
            Where the matrix is not positive definite in double precision.
        """
        R = R.astype(np.float64, copy=False)
        if self._is_single and R.shape[1] <= _MAX_REFINED_COLUMNS:
            solution = self._refined(R)
            if solution is not None:
                return solution
        if self._is_single:
            self._factor = cholesky(self._matrix, self._ridge, np.float64)
        return cholesky_solve(self._factor, R)

    def _refined(self, R):
        """A refined solution for R, or None where rounding is in the way."""
        wanted = _REFINED * np.linalg.norm(R, axis=0)
        solution, residual, before = np.zeros_like(R), R, np.full(R.shape[1], np.inf)
        for _ in range(_MAX_CORRECTIONS):
            scale = np.abs(residual).max(axis=0)
            # In the range of single precision, whatever the scale of R is.
            scale[scale == 0] = 1
            solution += scale * cholesky_solve(self._factor, (residual / scale).astype(np.float32))
            with blas_threads(2 * R.shape[0] * R.size):
                residual = R - self._matrix @ solution - self._ridge * solution
            left = np.linalg.norm(residual, axis=0)
            if (left <= wanted).all():
                return solution
            if not (left <= np.maximum(before / 2, wanted)).all():
                return None
            before = left
        return None

    def inverse_diagonal(self):
        """Diagonal of the inverse (n,), float64, to the precision of the factor."""
        inverse = self._factor.copy(order="F")
        with blas_threads(len(inverse) ** 3 / 3):
            _kernels.trtri(inverse)
        # Above the diagonal of the factor is anything.
        return np.square(np.tril(inverse), dtype=np.float64).sum(axis=0)
