/* Compiled once per SIMD level, with SUBQUAD_LEVEL naming it. */
#include "tiles.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of one vector: GCC and clang turn their generic vector type into the level's registers.
 * Compilers without it get vectors of one element, hence plain loops. */
#if defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

/* Rows whose sums of one panel stay in the second level of cache. */
#define CHUNK_ROWS 512
#define CACHE_LINE 64

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define QUOTE_(a) #a
#define QUOTE(a) QUOTE_(a)

#define real float
#define NAME(function) JOIN(function, f32)
#include "tiles_template.h"
#undef real
#undef NAME

#define real double
#define NAME(function) JOIN(function, f64)
#include "tiles_template.h"
#undef real
#undef NAME

const subquad_level JOIN(subquad_level, SUBQUAD_LEVEL) = {
    QUOTE(SUBQUAD_LEVEL),
    multiply_f32,
    multiply_f64,
};
