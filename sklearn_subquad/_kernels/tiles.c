/* Compiled once per SIMD level, with SUBQUAD_LEVEL naming it. */
#include "tiles.h"

#include <stdlib.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Bytes of one vector: GCC and clang turn their generic vector type into the level's registers.
 * Compilers without it get vectors of one element, hence plain loops. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define PREFETCH(address) ((void)(address))
#endif

#define CACHE_LINE 64
/* A group of this many independent accumulators hides the latency of a multiply-add (4 cycles, two of
 * them started a cycle). */
#define ACCUMULATORS 8

/* The tile that comes after the present one: so many cache lines, in pieces with a gap (in bytes) between. */
typedef struct {
    const char *base;
    int64_t lines, lines_of_piece, gap;
} upcoming;

/* Rows and columns of a small square change places, both of SUBQUAD_LANES to a row: 32 bytes a row. */
#define SQUARE(real) (32 / (int)sizeof(real))
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
typedef float row8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef double row4 __attribute__((vector_size(32), aligned(8), may_alias));
#define INTERLEAVE(to, from, i, j, low, high)                                                        \
    to[i] = __builtin_shufflevector(from[i], from[j], low);                                          \
    to[j] = __builtin_shufflevector(from[i], from[j], high)

/* Single elements, then pairs, then halves of neighbouring rows change places. */
static inline void transpose_square_f32(const float *source, float *target) {
    row8 a[8], b[8];
    for (int i = 0; i < 8; i++)
        a[i] = *(const row8 *)(source + i * SUBQUAD_LANES);
#define SINGLES(i) INTERLEAVE(b, a, i, i + 1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#define PAIRS(i) INTERLEAVE(a, b, i, i + 2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
#define HALVES(i) INTERLEAVE(b, a, i, i + 4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
#define LIST(...) __VA_ARGS__
    SINGLES(0); SINGLES(2); SINGLES(4); SINGLES(6);
    PAIRS(0); PAIRS(1); PAIRS(4); PAIRS(5);
    HALVES(0); HALVES(1); HALVES(2); HALVES(3);
    for (int i = 0; i < 8; i++)
        *(row8 *)(target + i * SUBQUAD_LANES) = b[i];
#undef SINGLES
#undef PAIRS
#undef HALVES
}

static inline void transpose_square_f64(const double *source, double *target) {
    row4 a[4], b[4];
    for (int i = 0; i < 4; i++)
        a[i] = *(const row4 *)(source + i * SUBQUAD_LANES);
#define SINGLES(i) INTERLEAVE(b, a, i, i + 1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#define PAIRS(i) INTERLEAVE(a, b, i, i + 2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
    SINGLES(0); SINGLES(2);
    PAIRS(0); PAIRS(1);
    for (int i = 0; i < 4; i++)
        *(row4 *)(target + i * SUBQUAD_LANES) = a[i];
#undef SINGLES
#undef PAIRS
}
#else
#define DEFINE_TRANSPOSE_SQUARE(real, suffix)                                                        \
    static inline void transpose_square_##suffix(const real *source, real *target) {                 \
        for (int i = 0; i < SQUARE(real); i++)                                                       \
            for (int j = 0; j < SQUARE(real); j++)                                                   \
                target[j * SUBQUAD_LANES + i] = source[i * SUBQUAD_LANES + j];                       \
    }
DEFINE_TRANSPOSE_SQUARE(float, f32)
DEFINE_TRANSPOSE_SQUARE(double, f64)
#endif

/* Four neighbouring entries: their values, one of which can be spread over a whole vector, and their columns. The loop
 * over entries is bound by loads, because every multiply-add reads the tile. With 64-byte vectors it takes a tenth less
 * time if the four values and the four columns are loaded together and taken apart by shuffles and shifts. */
#define PIECE 4
#if defined(__AVX512DQ__)
typedef __m512 piece_f32;
typedef __m512d piece_f64;
static inline piece_f32 load_piece_f32(const float *values) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(values));
}
static inline piece_f64 load_piece_f64(const double *values) {
    return _mm512_broadcast_f64x4(_mm256_loadu_pd(values));
}
#define SPREAD_f32(piece, k) ((vector_f32)_mm512_permute_ps(piece, 0x55 * (k)))
#define SPREAD_f64(piece, k) ((vector_f64)_mm512_permutex_pd(piece, 0x55 * (k)))
#elif defined(__AVX2__)
typedef __m256 piece_f32;
typedef __m256d piece_f64;
static inline piece_f32 load_piece_f32(const float *values) {
    return _mm256_broadcast_ps((const __m128 *)values);
}
static inline piece_f64 load_piece_f64(const double *values) { return _mm256_loadu_pd(values); }
#define SPREAD_f32(piece, k) ((vector_f32)_mm256_permute_ps(piece, 0x55 * (k)))
#define SPREAD_f64(piece, k) ((vector_f64)_mm256_permute4x64_pd(piece, 0x55 * (k)))
#else
typedef const float *piece_f32;
typedef const double *piece_f64;
static inline piece_f32 load_piece_f32(const float *values) { return values; }
static inline piece_f64 load_piece_f64(const double *values) { return values; }
#define SPREAD_f32(piece, k) (piece)[k]
#define SPREAD_f64(piece, k) (piece)[k]
#endif
#if defined(__AVX2__)
typedef uint64_t columns4;
static inline columns4 load_columns(const uint16_t *local) {
    columns4 columns;
    memcpy(&columns, local, sizeof columns);
    return columns;
}
#define COLUMN(columns, k) ((columns) >> 16 * (k)&0xffff)
#else
typedef const uint16_t *columns4;
static inline columns4 load_columns(const uint16_t *local) { return local; }
#define COLUMN(columns, k) (columns)[k]
#endif

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define QUOTE_(a) #a
#define QUOTE(a) QUOTE_(a)

#define real float
#define NAME(function) JOIN(function, f32)
#define SPREAD SPREAD_f32
#include "tiles_template.h"
#include "hadamard_template.h"
#undef real
#undef NAME
#undef SPREAD

#define real double
#define NAME(function) JOIN(function, f64)
#define SPREAD SPREAD_f64
#include "tiles_template.h"
#include "hadamard_template.h"
#undef real
#undef NAME
#undef SPREAD

const subquad_level JOIN(subquad_level, SUBQUAD_LEVEL) = {
    QUOTE(SUBQUAD_LEVEL),
    multiply_f32,
    multiply_f64,
    hadamard_f32,
    hadamard_f64,
    sampled_f32,
    sampled_f64,
};
