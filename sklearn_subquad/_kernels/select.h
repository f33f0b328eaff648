/* Which of up to 64 neighbouring numbers exceed a threshold, as the bits of one word. */
#ifndef SUBQUAD_SELECT_H
#define SUBQUAD_SELECT_H

#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static inline uint64_t subquad_active_f32(const float *z, int64_t n, float threshold) {
    uint64_t active = 0;
    int64_t j = 0;
#if defined(__SSE2__)
    const __m128 bound = _mm_set1_ps(threshold);
    for (; j + 4 <= n; j += 4)
        active |= (uint64_t)_mm_movemask_ps(_mm_cmpgt_ps(_mm_loadu_ps(z + j), bound)) << j;
#endif
    for (; j < n; j++)
        active |= (uint64_t)(z[j] > threshold) << j;
    return active;
}

static inline uint64_t subquad_active_f64(const double *z, int64_t n, double threshold) {
    uint64_t active = 0;
    int64_t j = 0;
#if defined(__SSE2__)
    const __m128d bound = _mm_set1_pd(threshold);
    for (; j + 2 <= n; j += 2)
        active |= (uint64_t)_mm_movemask_pd(_mm_cmpgt_pd(_mm_loadu_pd(z + j), bound)) << j;
#endif
    for (; j < n; j++)
        active |= (uint64_t)(z[j] > threshold) << j;
    return active;
}

/* Number of bits that are set. */
static inline int subquad_count(uint64_t bits) {
    bits -= (bits >> 1) & 0x5555555555555555u;
    bits = (bits & 0x3333333333333333u) + ((bits >> 2) & 0x3333333333333333u);
    return (int)((((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u) >> 56);
}

/* Position of the lowest bit that is set; there must be one. */
static inline int subquad_lowest(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    return subquad_count((bits & (0 - bits)) - 1);
#endif
}

#endif
