# cython: allow_none_for_extension_args=False
"""Panels of Gram matrices: a call computes all that is multiplied and summed, while it is in the cache."""

import numpy as np

from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from sklearn_subquad._kernels._pattern cimport Pattern, fill_tile, subquad_pattern
from sklearn_subquad._kernels._tiles cimport SUBQUAD_DONE, SUBQUAD_LANES, level, subquad_part

ctypedef fused real:
    float
    double

ctypedef fused wider:
    float
    double

cdef enum:
    CACHE_LINE = 64

# Sparse rows A of either type.
cdef struct sparse_rows:
    const subquad_pattern *pattern
    const void *values


cdef class SparseFactors:
    """Sparse rows of which Gram matrices are summed, checked once."""

    cdef sparse_rows *all
    cdef Py_ssize_t n, most_columns
    cdef object owners

    def __cinit__(self, owners, Py_ssize_t n_rows, Py_ssize_t first, bint single):
        cdef Pattern pattern
        cdef const float[::1] floats
        cdef const double[::1] doubles
        cdef Py_ssize_t i
        self.owners, self.n, self.most_columns = owners, len(owners), 0
        self.all = <sparse_rows *>malloc(max(self.n, 1) * sizeof(sparse_rows))
        if self.all == NULL:
            raise MemoryError("no memory for a list of sparse rows.")
        for i, (pattern, values) in enumerate(owners):
            if pattern.c.n_rows != n_rows:
                raise ValueError(f"sparse rows must be {n_rows}, got {pattern.c.n_rows}.")
            pattern.check_panel(first)
            self.all[i].pattern, self.all[i].values = &pattern.c, NULL
            self.most_columns = max(self.most_columns, pattern.c.n_columns)
            if single:
                floats = values
                pattern.check_values(floats.shape[0])
                if floats.shape[0]:
                    self.all[i].values = &floats[0]
            else:
                doubles = values
                pattern.check_values(doubles.shape[0])
                if doubles.shape[0]:
                    self.all[i].values = &doubles[0]

    def __dealloc__(self):
        free(self.all)


cdef int add_grams(SparseFactors factors, const real[:, :] dense, Py_ssize_t first, Py_ssize_t height, Py_ssize_t width,
                   real *tile, real *out) noexcept nogil:
    """``out = dense + sum of A[first:] A[first : first + width].T``; returns SUBQUAD_DONE, or what the kernel says."""
    cdef subquad_part part
    cdef Py_ssize_t i, j
    cdef int status = SUBQUAD_DONE
    part.first_row, part.last_row, part.first_panel, part.last_panel = first, first + height, 0, 1
    part.n_out = part.row_stride = width
    part.lane_stride, part.panel_stride = 1, SUBQUAD_LANES
    if dense is not None:
        for i in range(height):
            for j in range(width):
                out[i * width + j] = dense[i, j]
    elif not factors.n:
        memset(out, 0, height * width * sizeof(real))
    for i in range(factors.n):
        part.accumulate = i > 0 or dense is not None
        fill_tile(factors.all[i].pattern, <const real *>factors.all[i].values, first, tile)
        if real is float:
            status = level.multiply_f32(factors.all[i].pattern, <const float *>factors.all[i].values, tile, 1,
                                        factors.all[i].pattern.n_columns, False, &part, out)
        else:
            status = level.multiply_f64(factors.all[i].pattern, <const double *>factors.all[i].values, tile, 1,
                                        factors.all[i].pattern.n_columns, False, &part, out)
        if status != SUBQUAD_DONE:
            break
    return status


cdef check_panel_shape(Py_ssize_t height, Py_ssize_t width, str name, dense):
    if not 0 < width <= min(height, SUBQUAD_LANES):
        raise ValueError(f"a panel has 1 to {SUBQUAD_LANES} columns, and no fewer rows, got {height} x {width}.")
    if dense is not None and (dense.shape[0] != height or dense.shape[1] != width):
        raise ValueError(f"{name} must have shape ({height}, {width}), as total.")


def add_hadamard(real[:, ::1] total, Py_ssize_t first, const real[:, :] left or None, left_rows,
                 const real[:, :] right or None, right_rows):
    """``total += (left + sum of A A^T) * (right + sum of B B^T)`` by element, for sparse rows A and B.

    Parameters
    ----------
    total : ndarray of shape (n - first, w)
        A panel of columns: rows from `first` on of the columns from there on, w <= 64; `first` is a multiple of 64.
    left, right : ndarray of total's shape, or None
        Of the same rows and columns; None is zero.
    left_rows, right_rows : sequence of tuple (Pattern, values)
        Of n rows each.
    """
    cdef Py_ssize_t height = total.shape[0], width = total.shape[1], i, j
    check_panel_shape(height, width, "left", left)
    check_panel_shape(height, width, "right", right)
    if first < 0:
        raise ValueError(f"first must not be negative, got {first}.")
    cdef SparseFactors of_left = SparseFactors(left_rows, first + height, first, real is float)
    cdef SparseFactors of_right = SparseFactors(right_rows, first + height, first, real is float)
    cdef Py_ssize_t n_tile = max(of_left.most_columns, of_right.most_columns, 1) * SUBQUAD_LANES
    cdef Py_ssize_t n_panel = height * width
    dtype = np.float32 if real is float else np.float64
    cdef real[::1] memory = np.empty(n_tile + 2 * n_panel + SUBQUAD_LANES, dtype=dtype)
    # From a line of the cache on: a vector that lies across two of them costs two loads.
    cdef real *tile = <real *>((<uintptr_t>&memory[0] + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE)
    cdef real *a = tile + n_tile
    cdef real *b = a + n_panel
    cdef int status
    cdef real *sums = &total[0, 0]
    with nogil:
        status = add_grams(of_left, left, first, height, width, tile, a)
        if status == SUBQUAD_DONE:
            status = add_grams(of_right, right, first, height, width, tile, b)
        if status == SUBQUAD_DONE:
            for i in range(n_panel):
                sums[i] += a[i] * b[i]
    if status != SUBQUAD_DONE:
        raise MemoryError("no memory for the partial sums of one chunk of rows.")


def mirror(const real[:, :] columns, Py_ssize_t first, wider[:, ::1] out):
    """Write a panel of columns of a symmetric matrix (n x n) to both triangles; above its diagonal nothing is read.

    Parameters
    ----------
    columns : ndarray of shape (n - first, w)
        Rows from `first` on of the columns from there on.
    first : int
    out : ndarray of shape (n, n)
    """
    cdef Py_ssize_t height = columns.shape[0], width = columns.shape[1], n = out.shape[0], i, j
    if out.shape[1] != n or not 0 <= first <= n or height != n - first or width > height:
        raise ValueError(
            f"columns from {first} on of {n} x {out.shape[1]} cannot have shape ({height}, {width})."
        )
    with nogil:
        for i in range(height):
            for j in range(min(width, i + 1)):
                out[first + i, first + j] = columns[i, j]
                out[first + j, first + i] = columns[i, j]
