from libc.stdint cimport int64_t, uint16_t

cdef extern from "tiles.h" nogil:
    enum:
        SUBQUAD_LANES
        SUBQUAD_CHUNK_ROWS

    ctypedef struct subquad_pattern:
        int64_t n_rows
        int64_t n_columns
        int64_t block
        const int64_t *start
        const uint16_t *row
        const uint16_t *local


ctypedef fused real:
    float
    double


cdef class Pattern:
    cdef subquad_pattern c
    # The arrays that `c` points into, and their owners.
    cdef int64_t[::1] start
    cdef uint16_t[::1] row, local
    cdef allocate_entries(self, int64_t n_entries)
    cdef check_values(self, Py_ssize_t n_values)
    cdef check_panel(self, Py_ssize_t first_row)
    cdef check_block_range(self, Py_ssize_t first_block, Py_ssize_t n_asked)
    cdef Py_ssize_t row_of(self, Py_ssize_t q) noexcept nogil
    cdef lay_out(self, int64_t[::1] count)
    cdef count_columns(self, Py_ssize_t own_block, Py_ssize_t block, int64_t[::1] count)
    cdef place_entries(self, Py_ssize_t own_block, Pattern turned, int64_t[::1] cursor, int64_t[::1] order)


cdef void fill_tile(const subquad_pattern *pattern, const real *values, Py_ssize_t first_row, real *tile) noexcept nogil
