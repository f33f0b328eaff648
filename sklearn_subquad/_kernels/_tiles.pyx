"""Boundary to the tile kernels: checks every buffer, then releases the GIL."""

import os

from libc.stdint cimport int32_t, int64_t

ctypedef fused real:
    float
    double

cdef extern from "tiles.h" nogil:
    enum:
        SUBQUAD_LANES
        SUBQUAD_DONE

    ctypedef struct subquad_rows:
        int64_t n_rows
        const int32_t *indptr
        const int32_t *indices

    ctypedef struct subquad_level:
        const char *name
        int (*multiply_f32)(const subquad_rows *, const float *, const float *, int64_t, int64_t, int,
                            float *, int64_t, int64_t, int64_t, int64_t, int, int) noexcept nogil
        int (*multiply_f64)(const subquad_rows *, const double *, const double *, int64_t, int64_t, int,
                            double *, int64_t, int64_t, int64_t, int64_t, int, int) noexcept nogil

    const subquad_level *subquad_select(const char *name)


LANES = SUBQUAD_LANES
SIMD_VARIABLE = "SKLEARN_SUBQUAD_SIMD"

cdef const subquad_level *level = NULL


def use_simd_level(name=""):
    """Choose the SIMD level of all kernels by name; empty for the best that this CPU runs."""
    global level
    encoded = name.encode()
    cdef const subquad_level *chosen = subquad_select(encoded)
    if chosen == NULL:
        raise ValueError(
            f"SIMD level {name!r} is not available on this machine; leave {SIMD_VARIABLE} unset, "
            "or set it to 'baseline' or (x86-64 processors with AVX2) 'x86_64_v3'."
        )
    level = chosen


def simd_level():
    """Name of the SIMD level in use."""
    return level.name.decode()


use_simd_level(os.environ.get(SIMD_VARIABLE, ""))


cdef check_rows(const int32_t[::1] indptr, const int32_t[::1] indices, Py_ssize_t n_values,
                Py_ssize_t n_columns):
    """Raise ValueError unless the CSR pattern is one that the kernels can trust."""
    cdef Py_ssize_t i, p, n_rows = indptr.shape[0] - 1
    cdef int32_t previous
    cdef bint good = n_rows >= 0 and indices.shape[0] == n_values
    if good:
        with nogil:
            good = indptr[0] == 0 and indptr[n_rows] == n_values
            for i in range(n_rows):
                good = good and indptr[i] <= indptr[i + 1] <= n_values
            if good:
                for i in range(n_rows):
                    previous = -1
                    for p in range(indptr[i], indptr[i + 1]):
                        good = good and indices[p] > previous
                        previous = indices[p]
                    good = good and previous < n_columns
    if not good:
        raise ValueError(
            "malformed sparse rows: indptr must rise from 0 to the number of values, and the indices of "
            f"each row must increase strictly and lie in [0, {n_columns})."
        )


cdef multiply(const int32_t[::1] indptr, const int32_t[::1] indices, const real[::1] values,
              const real[:, :, ::1] tiles, bint transposed, real *out, Py_ssize_t row_stride,
              Py_ssize_t panel_stride, Py_ssize_t n_out_panels, Py_ssize_t first, Py_ssize_t last,
              bint accumulate, bint lower):
    cdef subquad_rows rows
    cdef Py_ssize_t n_panels = tiles.shape[0], n_in = tiles.shape[1]
    cdef int status
    # An empty buffer has no first element to point at, and the kernels read none.
    cdef const real *first_value = &values[0] if values.shape[0] else NULL
    cdef const real *first_tile = &tiles[0, 0, 0] if n_panels and n_in else NULL
    if not 0 <= first <= last <= n_out_panels:
        raise ValueError(f"panel range [{first}, {last}) lies outside [0, {n_out_panels}).")
    check_rows(indptr, indices, values.shape[0], n_panels * SUBQUAD_LANES if transposed else n_in)
    rows.n_rows = indptr.shape[0] - 1
    if first == last or rows.n_rows == 0:
        return
    rows.indptr = &indptr[0]
    rows.indices = &indices[0] if indices.shape[0] else NULL
    with nogil:
        if real is float:
            status = level.multiply_f32(&rows, first_value, first_tile, n_panels, n_in, transposed, out,
                                        row_stride, panel_stride, first, last, accumulate, lower)
        else:
            status = level.multiply_f64(&rows, first_value, first_tile, n_panels, n_in, transposed, out,
                                        row_stride, panel_stride, first, last, accumulate, lower)
    if status != SUBQUAD_DONE:
        raise MemoryError(f"no memory to sort {values.shape[0]} sparse entries into blocks.")


cdef check_shape(name, tuple got, tuple wanted):
    if got != wanted:
        raise ValueError(f"{name} must have shape {wanted}, got {got}.")


def forward(const int32_t[::1] indptr, const int32_t[::1] indices, const real[::1] values,
            const real[:, :, ::1] tiles, real[:, ::1] out, Py_ssize_t first, Py_ssize_t last,
            bint lower=False):
    """out = rows @ W.T for W packed in tiles, on the panels of out from first to last.

    With `lower`, panel p is written from row 64 p on alone.
    """
    cdef Py_ssize_t n_panels = tiles.shape[0]
    check_shape("tiles", (tiles.shape[2],), (SUBQUAD_LANES,))
    check_shape("out", (out.shape[0], out.shape[1]), (indptr.shape[0] - 1, n_panels * SUBQUAD_LANES))
    multiply(indptr, indices, values, tiles, False, &out[0, 0] if out.size else NULL, out.shape[1],
             SUBQUAD_LANES, n_panels, first, last, False, lower)


def backward(const int32_t[::1] indptr, const int32_t[::1] indices, const real[::1] values,
             const real[:, :, ::1] tiles, real[:, ::1] out, Py_ssize_t first, Py_ssize_t last):
    """out = rows @ W for W packed in tiles, on the panels of out (64 inputs of W each) from first to last."""
    cdef Py_ssize_t n_panels = (tiles.shape[1] + SUBQUAD_LANES - 1) // SUBQUAD_LANES
    check_shape("tiles", (tiles.shape[2],), (SUBQUAD_LANES,))
    check_shape("out", (out.shape[0], out.shape[1]), (indptr.shape[0] - 1, n_panels * SUBQUAD_LANES))
    multiply(indptr, indices, values, tiles, True, &out[0, 0] if out.size else NULL, out.shape[1],
             SUBQUAD_LANES, n_panels, first, last, False, False)


def add_product(const int32_t[::1] indptr, const int32_t[::1] indices, const real[::1] values,
                const real[:, :, ::1] factor, real[:, :, ::1] tiles, Py_ssize_t first, Py_ssize_t last):
    """W += F @ rows.T, with W packed in tiles and F in factor, on the panels of W from first to last."""
    cdef Py_ssize_t n_panels = factor.shape[0], n_in = indptr.shape[0] - 1
    check_shape("factor", (factor.shape[2],), (SUBQUAD_LANES,))
    check_shape("tiles", (tiles.shape[0], tiles.shape[1], tiles.shape[2]), (n_panels, n_in, SUBQUAD_LANES))
    multiply(indptr, indices, values, factor, False, &tiles[0, 0, 0] if tiles.size else NULL,
             SUBQUAD_LANES, n_in * SUBQUAD_LANES, n_panels, first, last, True, False)


def scatter_rows(const int32_t[::1] indptr, const int32_t[::1] indices, const real[::1] values,
                 real[:, :, ::1] tiles):
    """Write sparse rows into the packed form of the matrix whose outputs they are: W[i, indices[p]] = values[p]."""
    cdef Py_ssize_t i, p, n_rows = indptr.shape[0] - 1
    check_shape("tiles", (tiles.shape[0], tiles.shape[2]),
                ((n_rows + SUBQUAD_LANES - 1) // SUBQUAD_LANES, SUBQUAD_LANES))
    check_rows(indptr, indices, values.shape[0], tiles.shape[1])
    with nogil:
        for i in range(n_rows):
            for p in range(indptr[i], indptr[i + 1]):
                tiles[i // SUBQUAD_LANES, indices[p], i % SUBQUAD_LANES] = values[p]


def scatter_columns(const int32_t[::1] indptr, const int32_t[::1] indices, const real[::1] values,
                    real[:, :, ::1] tiles):
    """Write sparse rows into the packed form of their transpose: W[indices[p], i] = values[p]."""
    cdef Py_ssize_t i, p, n_rows = indptr.shape[0] - 1
    check_shape("tiles", (tiles.shape[1], tiles.shape[2]), (n_rows, SUBQUAD_LANES))
    check_rows(indptr, indices, values.shape[0], tiles.shape[0] * SUBQUAD_LANES)
    with nogil:
        for i in range(n_rows):
            for p in range(indptr[i], indptr[i + 1]):
                tiles[indices[p] // SUBQUAD_LANES, i, indices[p] % SUBQUAD_LANES] = values[p]


def gather(const int32_t[::1] indptr, const int32_t[::1] indices, const real[:, :] dense, real scale,
           real[::1] out):
    """out[p] = scale * dense[i, indices[p]] for the entries p of every sparse row i."""
    cdef Py_ssize_t i, p, n_rows = indptr.shape[0] - 1
    check_shape("dense", (dense.shape[0],), (n_rows,))
    check_rows(indptr, indices, out.shape[0], dense.shape[1])
    with nogil:
        for i in range(n_rows):
            for p in range(indptr[i], indptr[i + 1]):
                out[p] = scale * dense[i, indices[p]]
