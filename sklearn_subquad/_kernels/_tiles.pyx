# cython: allow_none_for_extension_args=False
"""Boundary to the product kernels: checks every buffer, then releases the GIL."""

import os

from libc.stdint cimport int64_t

from sklearn_subquad._kernels._pattern cimport Pattern

ctypedef fused real:
    float
    double

SIMD_VARIABLE = "SKLEARN_SUBQUAD_SIMD"


def simd_levels():
    """Names of the SIMD levels that this machine can run, best first."""
    names = []
    while subquad_level_name(len(names)) != NULL:
        names.append(subquad_level_name(len(names)).decode())
    return names


def use_simd_level(str name=""):
    """Choose the SIMD level of all kernels by name; empty for the best that this CPU runs."""
    global level
    encoded = name.encode()
    cdef const subquad_level *chosen = subquad_select(encoded)
    if chosen == NULL:
        raise ValueError(
            f"SIMD level {name!r} is not available on this machine; leave {SIMD_VARIABLE} unset, "
            f"or set it to one of {simd_levels()}."
        )
    level = chosen


def simd_level():
    """Name of the SIMD level in use."""
    return level.name.decode()


use_simd_level(os.environ.get(SIMD_VARIABLE, ""))


cdef multiply(Pattern rows, const real[::1] values, const real[:, :, ::1] tiles, bint transposed, real *out,
              subquad_part *part):
    """Check what all products share, and run the kernel; strides and shape of `out` are the caller's matter."""
    cdef Py_ssize_t n_panels = tiles.shape[0], n_in = tiles.shape[1]
    cdef int64_t n_out_panels = (n_in + SUBQUAD_LANES - 1) // SUBQUAD_LANES if transposed else n_panels
    cdef int64_t summed = rows.c.n_columns
    cdef int status
    if tiles.shape[2] != SUBQUAD_LANES:
        raise ValueError(f"tiles must have {SUBQUAD_LANES} lanes, got {tiles.shape[2]}.")
    # The rows may end before the last panel of W does: what comes then is zero and not asked for.
    if transposed and not (n_panels - 1) * SUBQUAD_LANES < summed <= n_panels * SUBQUAD_LANES and (summed or n_panels):
        raise ValueError(f"{n_panels} panels do not fit to rows of {summed} columns.")
    if not transposed and summed != n_in:
        raise ValueError(f"tiles must have {summed} inputs, got {n_in}.")
    rows.check_values(values.shape[0])
    if not 0 <= part.first_panel <= part.last_panel <= n_out_panels:
        raise ValueError(
            f"panel range [{part.first_panel}, {part.last_panel}) lies outside [0, {n_out_panels})."
        )
    if not 0 <= part.first_row <= part.last_row <= rows.c.n_rows:
        raise ValueError(f"row range [{part.first_row}, {part.last_row}) lies outside [0, {rows.c.n_rows}).")
    if part.first_panel == part.last_panel or part.first_row == part.last_row:
        return
    # An empty buffer has no first element to point at, and the kernels read none.
    cdef const real *first_value = &values[0] if values.shape[0] else NULL
    cdef const real *first_tile = &tiles[0, 0, 0] if n_panels and n_in else NULL
    with nogil:
        if real is float:
            status = level.multiply_f32(&rows.c, first_value, first_tile, n_panels, n_in, transposed, part, out)
        else:
            status = level.multiply_f64(&rows.c, first_value, first_tile, n_panels, n_in, transposed, part, out)
    if status != SUBQUAD_DONE:
        raise MemoryError("no memory for the partial sums of one chunk of rows.")


cdef into_matrix(Pattern rows, const real[::1] values, const real[:, :, ::1] tiles, bint transposed,
                 real[:, :] out, first_panel, first_row, bint accumulate):
    cdef subquad_part part
    cdef Py_ssize_t height = out.shape[0], width = out.shape[1]
    part.first_row, part.last_row = first_row, first_row + height
    part.first_panel, part.last_panel = first_panel, first_panel + (width + SUBQUAD_LANES - 1) // SUBQUAD_LANES
    part.n_out = first_panel * SUBQUAD_LANES + width
    if transposed and part.n_out > tiles.shape[1]:
        raise ValueError(f"out ends at column {part.n_out} of {tiles.shape[1]}.")
    part.row_stride = out.strides[0] // <Py_ssize_t>sizeof(real)
    part.lane_stride = out.strides[1] // <Py_ssize_t>sizeof(real)
    part.panel_stride = SUBQUAD_LANES * part.lane_stride
    if out.strides[0] % sizeof(real) or out.strides[1] % sizeof(real) or not (
        (part.lane_stride == 1 and (part.row_stride >= width or height <= 1))
        or (part.row_stride == 1 and (part.lane_stride >= height or width <= 1))
    ) and height and width:
        raise ValueError("out must be stored by rows or by columns.")
    part.accumulate = accumulate
    multiply(rows, values, tiles, transposed, &out[0, 0] if height and width else NULL, &part)


def forward(Pattern rows, const real[::1] values, const real[:, :, ::1] tiles, real[:, :] out,
            Py_ssize_t first_panel=0, Py_ssize_t first_row=0, bint accumulate=False):
    """out (+)= rows @ W.T for W packed in tiles; out is the part that begins at this row and this panel."""
    into_matrix(rows, values, tiles, False, out, first_panel, first_row, accumulate)


def backward(Pattern rows, const real[::1] values, const real[:, :, ::1] tiles, real[:, :] out,
             Py_ssize_t first_panel=0, Py_ssize_t first_row=0, bint accumulate=False):
    """out (+)= rows @ W for W packed in tiles; a panel of out is 64 inputs of W."""
    into_matrix(rows, values, tiles, True, out, first_panel, first_row, accumulate)


def forward_packed(Pattern rows, const real[::1] values, const real[:, :, ::1] tiles, real[:, :, ::1] out,
                   bint accumulate=False):
    """out (+)= W @ rows.T for W and out packed: ``out[panel, i, lane]`` belongs to row i of `rows`."""
    cdef subquad_part part
    cdef Py_ssize_t n_panels = tiles.shape[0]
    part.first_row, part.last_row = 0, rows.c.n_rows
    part.first_panel, part.last_panel, part.n_out = 0, n_panels, n_panels * SUBQUAD_LANES
    if out.shape[0] != n_panels or out.shape[1] != rows.c.n_rows or out.shape[2] != SUBQUAD_LANES:
        raise ValueError(f"out must have shape ({n_panels}, {rows.c.n_rows}, {SUBQUAD_LANES}).")
    part.row_stride, part.lane_stride = SUBQUAD_LANES, 1
    part.panel_stride = rows.c.n_rows * SUBQUAD_LANES
    part.accumulate = accumulate
    multiply(rows, values, tiles, False, &out[0, 0, 0] if out.size else NULL, &part)
