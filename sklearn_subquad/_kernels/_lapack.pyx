# cython: allow_none_for_extension_args=False
"""SciPy's LAPACK without the GIL, which its own wrappers keep: other threads would wait for every factorisation.

Matrices are square, in Fortran's order, and of which the lower triangle counts.
"""

from libc.limits cimport INT_MAX
from scipy.linalg.cython_lapack cimport dpotrf, dpotri, dpotrs, dtrtri, spotrf, spotri, spotrs, strtri

ctypedef fused real:
    float
    double


cdef int order(Py_ssize_t n_rows, Py_ssize_t n_columns) except -1:
    if n_rows != n_columns or n_rows > INT_MAX:
        raise ValueError(f"a must be square, and of an order that LAPACK can count, got {n_rows} x {n_columns}.")
    return <int>n_rows


def potrf(real[::1, :] a):
    """Overwrite the lower triangle by its Cholesky factor; returns 0, or the order of the minor that is not positive."""
    cdef int n = order(a.shape[0], a.shape[1]), info = 0
    if n == 0:
        return 0
    with nogil:
        if real is float:
            spotrf("L", &n, &a[0, 0], &n, &info)
        else:
            dpotrf("L", &n, &a[0, 0], &n, &info)
    return info


def potrs(const real[::1, :] a, real[::1, :] b):
    """Overwrite b (n x k) by the solution of ``A X = b`` for the factor of A from `potrf`."""
    cdef int n = order(a.shape[0], a.shape[1]), info = 0, k
    if b.shape[0] != n or b.shape[1] > INT_MAX:
        raise ValueError(f"b must have {n} rows, got {b.shape[0]} x {b.shape[1]}.")
    k = <int>b.shape[1]
    if n == 0 or k == 0:
        return
    with nogil:
        if real is float:
            spotrs("L", &n, &k, <float *>&a[0, 0], &n, &b[0, 0], &n, &info)
        else:
            dpotrs("L", &n, &k, <double *>&a[0, 0], &n, &b[0, 0], &n, &info)


def potri(real[::1, :] a):
    """Overwrite the factor of `potrf` by the lower triangle of the inverse of what it is the factor of."""
    cdef int n = order(a.shape[0], a.shape[1]), info = 0
    if n == 0:
        return
    with nogil:
        if real is float:
            spotri("L", &n, &a[0, 0], &n, &info)
        else:
            dpotri("L", &n, &a[0, 0], &n, &info)


def trtri(real[::1, :] a):
    """Overwrite the lower triangle by its inverse; there is one of every factor of `potrf`."""
    cdef int n = order(a.shape[0], a.shape[1]), info = 0
    if n == 0:
        return
    with nogil:
        if real is float:
            strtri("L", "N", &n, &a[0, 0], &n, &info)
        else:
            dtrtri("L", "N", &n, &a[0, 0], &n, &info)
