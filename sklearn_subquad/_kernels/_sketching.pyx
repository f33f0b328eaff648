# cython: allow_none_for_extension_args=False
"""Boundary to the kernels of the sketches: checks every buffer, then releases the GIL."""

import numpy as np

from libc.stdint cimport int64_t, uint16_t
from libc.string cimport memset

from sklearn_subquad._kernels._pattern cimport Pattern
from sklearn_subquad._kernels._tiles cimport SUBQUAD_LANES, level

cdef extern from "tiles.h" nogil:
    enum:
        SUBQUAD_CHUNK_ROWS

cdef extern from "fetch.h" nogil:
    void subquad_fetch(const void *first, const void *end)

# Runs of entries between the one that is read and the one that is fetched into the cache.
cdef enum:
    RUNS_AHEAD = 8

ctypedef fused real:
    float
    double


cdef check_tile(str name, tile, dtypes):
    """Raise ValueError, with the argument's name, unless this is a tile that the kernels can change."""
    if not (
        isinstance(tile, np.ndarray)
        and tile.dtype in dtypes
        and tile.ndim == 2
        and tile.shape[1] == SUBQUAD_LANES
        and tile.flags.carray
    ):
        types = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(f"{name} must be a C-contiguous, writeable array of shape (size, {SUBQUAD_LANES}) of {types}.")


cdef check_samples(str name, samples, Py_ssize_t n_samples, dtype):
    """Raise ValueError, with the argument's name, unless this is one such number per sample."""
    if not (
        isinstance(samples, np.ndarray)
        and samples.dtype == dtype
        and samples.shape == (n_samples,)
        and samples.flags.c_contiguous
        and samples.flags.aligned
    ):
        raise ValueError(f"{name} must be a contiguous array of shape ({n_samples},) of {np.dtype(dtype).name}.")


cdef check_coordinates(str name, coordinates, str tile_name, Py_ssize_t n_rows):
    """Raise ValueError, with the argument's name, unless these are rows of the transform in a tile of n_rows."""
    # One bit is a whole transform, two are one without its last level, whose first part has the higher bit.
    cdef Py_ssize_t tail = n_rows & -n_rows, head = n_rows - tail
    if n_rows == 0 or head & (head - 1):
        raise ValueError(f"the rows of {tile_name} must be a power of two or the sum of two of them, got {n_rows}.")
    size = 2 * head if head else n_rows
    if len(coordinates) and not 0 <= coordinates.min() <= coordinates.max() < size:
        raise ValueError(f"{name} must lie in [0, {size}).")


def walsh_hadamard(tile):
    """Replace every column of a tile by its unnormalised Walsh-Hadamard transform.

    Parameters
    ----------
    tile : ndarray of shape (size, LANES), float32 or float64
        C-contiguous and writeable; size is a power of two. Changed in place.

    Raises
    ------
    ValueError
    """
    check_tile("tile", tile, (np.float32, np.float64))
    size = len(tile)
    if size == 0 or size & (size - 1):
        raise ValueError(f"the number of rows of tile must be a power of two, got {size}.")
    if tile.dtype == np.float32:
        transform[float](tile)
    else:
        transform[double](tile)


cdef transform(real[:, ::1] tile):
    with nogil:
        if real is float:
            level.hadamard_f32(&tile[0, 0], tile.shape[0])
        else:
            level.hadamard_f64(&tile[0, 0], tile.shape[0])


def add_sampled_products(u, u_sampled, g, g_sampled, signs, total):
    """``total[k] += signs[k] * u[u_sampled[k]] * g[g_sampled[k]]`` for rows of two transforms.

    Parameters
    ----------
    u, g : ndarray of shape (size, LANES), float32 or float64
        Transforms: size is a power of two, or head + tail, two different ones. A tile of head + tail rows stands
        for the transform of 2 * head rows, of which those from head + tail on were zero. It has the transform of
        the first head rows, then that of the next tail; the level of butterflies between them is left to this
        function.
    u_sampled, g_sampled : ndarray of shape (n_samples,), int64
        In [0, size) or [0, 2 * head).
    signs : ndarray of shape (n_samples,)
    total : ndarray of shape (n_samples, LANES)
        Changed in place. All tiles are of one type, C-contiguous and writeable, and the signs are of this type.

    Raises
    ------
    ValueError
    """
    check_tile("total", total, (np.float32, np.float64))
    check_tile("u", u, (total.dtype,))
    check_tile("g", g, (total.dtype,))
    check_samples("u_sampled", u_sampled, len(total), np.int64)
    check_samples("g_sampled", g_sampled, len(total), np.int64)
    check_samples("signs", signs, len(total), total.dtype)
    check_coordinates("u_sampled", u_sampled, "u", len(u))
    check_coordinates("g_sampled", g_sampled, "g", len(g))
    if len(total) == 0:
        return
    if total.dtype == np.float32:
        add_products[float](u, u_sampled, g, g_sampled, signs, total)
    else:
        add_products[double](u, u_sampled, g, g_sampled, signs, total)


cdef add_products(const real[:, ::1] u, const int64_t[::1] u_sampled, const real[:, ::1] g,
                  const int64_t[::1] g_sampled, const real[::1] signs, real[:, ::1] total):
    with nogil:
        if real is float:
            level.sampled_f32(&u[0, 0], u.shape[0], &u_sampled[0], &g[0, 0], g.shape[0], &g_sampled[0],
                              &signs[0], total.shape[0], &total[0, 0])
        else:
            level.sampled_f64(&u[0, 0], u.shape[0], &u_sampled[0], &g[0, 0], g.shape[0], &g_sampled[0],
                              &signs[0], total.shape[0], &total[0, 0])


cdef check_buckets(const int64_t[::1] buckets, Py_ssize_t n_signs, Py_ssize_t n_columns, Py_ssize_t n_buckets):
    cdef Py_ssize_t j
    cdef int64_t lowest = 0, highest = -1
    if buckets.shape[0] != n_columns or n_signs != n_columns:
        raise ValueError(f"buckets and signs must have one item per column ({n_columns}).")
    with nogil:
        for j in range(n_columns):
            lowest = min(lowest, buckets[j])
            highest = max(highest, buckets[j])
    if lowest < 0 or highest >= n_buckets:
        raise ValueError(f"buckets must lie in [0, {n_buckets}), the columns of out.")


cdef int64_t[:, ::1] runs_of_panel(Pattern pattern, Py_ssize_t first_row):
    """Places q (see tiles.h) of the rows of one panel in every block of columns (n_blocks x rows of the panel)."""
    cdef Py_ssize_t n_rows = pattern.c.n_rows, chunk = first_row - first_row % SUBQUAD_CHUNK_ROWS
    cdef Py_ssize_t last = min(chunk + SUBQUAD_CHUNK_ROWS, n_rows), low = first_row - chunk
    cdef Py_ssize_t n_blocks = (pattern.c.n_columns + pattern.c.block - 1) // pattern.c.block
    cdef Py_ssize_t height = min(SUBQUAD_LANES, n_rows - first_row), b, q, n_found = 0
    if first_row % SUBQUAD_LANES or not 0 <= first_row < n_rows:
        raise ValueError(f"first_row must be a multiple of {SUBQUAD_LANES} in [0, {n_rows}), got {first_row}.")
    # Every place is written down, and the next one over it unless its row is in the panel: no branch to predict.
    cdef int64_t[::1] places = np.empty(n_blocks * height + 1, dtype=np.int64)
    with nogil:
        for b in range(n_blocks):
            for q in range(b * n_rows + chunk, b * n_rows + last):
                places[n_found] = q
                n_found += low <= pattern.row[q] < low + SUBQUAD_LANES
    return np.asarray(places)[:n_found].reshape(n_blocks, height)


cdef void fetch_run(Pattern pattern, const real *values, int64_t[:, ::1] runs, Py_ssize_t k) noexcept nogil:
    """Fetch the entries of run k, where there is one, into the cache: no hardware prefetcher foresees them."""
    cdef int64_t q, first, end
    if k < runs.shape[0] * runs.shape[1]:
        q = (&runs[0, 0])[k]
        first, end = pattern.c.start[q], pattern.c.start[q + 1]
        subquad_fetch(pattern.c.local + first, pattern.c.local + end)
        subquad_fetch(values + first, values + end)


def scatter_signed(Pattern pattern, const real[::1] values, Py_ssize_t first_row, const real[::1] signs,
                   real[:, ::1] tile):
    """``tile[j, lane] = signs[j] * matrix[first_row + lane, j]`` for one panel of sparse rows, zero elsewhere.

    Parameters
    ----------
    pattern, values : Pattern and ndarray of shape (nnz,)
        The matrix (n_rows x n_columns).
    first_row : int
        A multiple of `LANES`.
    signs : ndarray of shape (n_columns,)
    tile : ndarray of shape (n_columns, LANES)
    """
    cdef Py_ssize_t n_columns = pattern.c.n_columns, block = pattern.c.block, b, i, q
    cdef int64_t p
    cdef int64_t[:, ::1] runs = runs_of_panel(pattern, first_row)
    cdef const uint16_t *local = pattern.c.local
    cdef const real *value
    cdef const real *sign
    cdef real *target
    pattern.check_values(values.shape[0])
    if signs.shape[0] != n_columns:
        raise ValueError(f"signs must have one item per column ({n_columns}), got {signs.shape[0]}.")
    if tile.shape[0] != n_columns or tile.shape[1] != SUBQUAD_LANES:
        raise ValueError(f"tile must have shape ({n_columns}, {SUBQUAD_LANES}).")
    with nogil:
        value = &values[0] if values.shape[0] else NULL
        for b in range(runs.shape[0]):
            memset(&tile[b * block, 0], 0, min(block, n_columns - b * block) * SUBQUAD_LANES * sizeof(real))
            sign = &signs[b * block]
            for i in range(runs.shape[1]):
                fetch_run(pattern, value, runs, b * runs.shape[1] + i + RUNS_AHEAD)
                q = runs[b, i]
                target = &tile[b * block, pattern.row[q] % SUBQUAD_LANES]
                for p in range(pattern.c.start[q], pattern.c.start[q + 1]):
                    target[local[p] * SUBQUAD_LANES] = sign[local[p]] * value[p]


def count_sketch(Pattern pattern, const real[::1] values, Py_ssize_t first_row, const int64_t[::1] buckets not None,
                 const real[::1] signs, real[:, ::1] out):
    """``out[lane, buckets[j]] += signs[j] * matrix[first_row + lane, j]`` for one panel of sparse rows.

    Parameters
    ----------
    pattern, values : Pattern and ndarray of shape (nnz,)
        The matrix (n_rows x n_columns).
    first_row : int
        A multiple of `LANES`.
    buckets : ndarray of shape (n_columns,), int64
    signs : ndarray of shape (n_columns,)
    out : ndarray of shape (LANES, n_buckets)
    """
    cdef Py_ssize_t block = pattern.c.block, b, i, q
    cdef int64_t p
    cdef int64_t[:, ::1] runs = runs_of_panel(pattern, first_row)
    cdef const uint16_t *local = pattern.c.local
    cdef const int64_t *bucket
    cdef const real *value
    cdef const real *sign
    cdef real *target
    pattern.check_values(values.shape[0])
    if out.shape[0] != SUBQUAD_LANES:
        raise ValueError(f"out must have {SUBQUAD_LANES} rows, got {out.shape[0]}.")
    check_buckets(buckets, signs.shape[0], pattern.c.n_columns, out.shape[1])
    with nogil:
        value = &values[0] if values.shape[0] else NULL
        for b in range(runs.shape[0]):
            bucket, sign = &buckets[b * block], &signs[b * block]
            for i in range(runs.shape[1]):
                fetch_run(pattern, value, runs, b * runs.shape[1] + i + RUNS_AHEAD)
                q = runs[b, i]
                target = &out[pattern.row[q] % SUBQUAD_LANES, 0]
                for p in range(pattern.c.start[q], pattern.c.start[q + 1]):
                    target[bucket[local[p]]] += sign[local[p]] * value[p]


def count_sketch_dense(const real[:, :] rows, const int64_t[::1] buckets not None, const real[::1] signs,
                       real[:, ::1] out):
    """``out[i, buckets[j]] += signs[j] * rows[i, j]`` for up to as many rows as out has."""
    cdef Py_ssize_t i, j
    if rows.shape[0] > out.shape[0]:
        raise ValueError(f"out must have a row for each of {rows.shape[0]} rows, got {out.shape[0]}.")
    check_buckets(buckets, signs.shape[0], rows.shape[1], out.shape[1])
    with nogil:
        for i in range(rows.shape[0]):
            for j in range(rows.shape[1]):
                out[i, buckets[j]] += signs[j] * rows[i, j]
