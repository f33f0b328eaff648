from libc.stdint cimport int64_t

from sklearn_subquad._kernels._pattern cimport subquad_pattern

cdef extern from "tiles.h" nogil:
    enum:
        SUBQUAD_LANES
        SUBQUAD_DONE

    ctypedef struct subquad_part:
        int64_t first_row, last_row, first_panel, last_panel
        int64_t n_out
        int64_t row_stride, panel_stride, lane_stride
        int accumulate

    ctypedef struct subquad_level:
        const char *name
        int (*multiply_f32)(const subquad_pattern *, const float *, const float *, int64_t, int64_t, int,
                            const subquad_part *, float *) noexcept nogil
        int (*multiply_f64)(const subquad_pattern *, const double *, const double *, int64_t, int64_t, int,
                            const subquad_part *, double *) noexcept nogil
        void (*hadamard_f32)(float *, int64_t) noexcept nogil
        void (*hadamard_f64)(double *, int64_t) noexcept nogil
        void (*sampled_f32)(const float *, int64_t, const int64_t *, const float *, int64_t, const int64_t *,
                            const float *, int64_t, float *) noexcept nogil
        void (*sampled_f64)(const double *, int64_t, const int64_t *, const double *, int64_t, const int64_t *,
                            const double *, int64_t, double *) noexcept nogil

    const subquad_level *subquad_select(const char *name)
    const char *subquad_level_name(int index)


# The SIMD level of all kernels, set by `use_simd_level`.
cdef const subquad_level *level
