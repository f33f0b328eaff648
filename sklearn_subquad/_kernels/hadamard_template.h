/* The kernels of hadamard.h for one real type at one SIMD level; tiles.c includes this after
 * tiles_template.h, whose vectors these are. */

#define VECTOR_LANES ((int64_t)(sizeof(NAME(vector)) / sizeof(real)))
/* Numbers that are transformed by several passes while they stay in the first level of cache. */
#define RESIDENT (16384 / (int64_t)sizeof(real))

/* v[i] and v[i + half] become their sum and their difference. */
#define BUTTERFLY(i, half)                                                                           \
    do {                                                                                             \
        const NAME(vector) difference = v[i] - v[(i) + (half)];                                      \
        v[i] += v[(i) + (half)];                                                                     \
        v[(i) + (half)] = difference;                                                                \
    } while (0)

/* One, two or three levels in one pass over `size` numbers, the first of them between numbers that are
 * `stride` apart. Three are as many as the registers of every level hold. */
#define DEFINE_PASS(radix, butterflies)                                                              \
    static void NAME(pass##radix)(real *x, int64_t size, int64_t stride) {                           \
        for (int64_t first = 0; first < size; first += radix * stride)                               \
            for (int64_t k = first; k < first + stride; k += VECTOR_LANES) {                         \
                NAME(vector) v[radix];                                                               \
                for (int i = 0; i < radix; i++)                                                      \
                    v[i] = *(NAME(vector) *)(x + k + i * stride);                                    \
                butterflies;                                                                         \
                for (int i = 0; i < radix; i++)                                                      \
                    *(NAME(vector) *)(x + k + i * stride) = v[i];                                    \
            }                                                                                        \
    }
#define LEVEL2 BUTTERFLY(0, 1)
#define LEVELS4 BUTTERFLY(0, 1); BUTTERFLY(2, 1); BUTTERFLY(0, 2); BUTTERFLY(1, 2)
#define LEVELS8                                                                                      \
    BUTTERFLY(0, 1); BUTTERFLY(2, 1); BUTTERFLY(4, 1); BUTTERFLY(6, 1);                              \
    BUTTERFLY(0, 2); BUTTERFLY(1, 2); BUTTERFLY(4, 2); BUTTERFLY(5, 2);                              \
    BUTTERFLY(0, 4); BUTTERFLY(1, 4); BUTTERFLY(2, 4); BUTTERFLY(3, 4)
DEFINE_PASS(2, LEVEL2)
DEFINE_PASS(4, LEVELS4)
DEFINE_PASS(8, LEVELS8)

/* Depth first: eighths are done while they are in the cache that holds them, and one pass joins them. */
static void NAME(hadamard)(real *tile, int64_t size) {
    const int64_t numbers = size * SUBQUAD_LANES, eighth = size / 8;
    if (numbers > RESIDENT && eighth > 0) {
        for (int i = 0; i < 8; i++)
            NAME(hadamard)(tile + i * eighth * SUBQUAD_LANES, eighth);
        NAME(pass8)(tile, numbers, eighth * SUBQUAD_LANES);
        return;
    }
    /* The levels that make no three come first. */
    int64_t left = size;
    while (left >= 8)
        left /= 8;
    if (left == 2)
        NAME(pass2)(tile, numbers, SUBQUAD_LANES);
    if (left == 4)
        NAME(pass4)(tile, numbers, SUBQUAD_LANES);
    for (int64_t stride = left * SUBQUAD_LANES; stride < numbers; stride *= 8)
        NAME(pass8)(tile, numbers, stride);
}

/* One vector of row i of a transform whose last level is left to do where tail > 0, see hadamard.h. */
static inline NAME(vector) NAME(coordinate)(const real *tile, int64_t head, int64_t tail, int64_t i) {
    const NAME(vector) own = *(const NAME(vector) *)(tile + (i & (head - 1)) * SUBQUAD_LANES);
    if (!tail)
        return own;
    const NAME(vector) other = *(const NAME(vector) *)(tile + (head + (i & (tail - 1))) * SUBQUAD_LANES);
    return i < head ? own + other : own - other;
}

static void NAME(sampled)(const real *u, int64_t u_rows, const int64_t *u_sampled, const real *g,
                          int64_t g_rows, const int64_t *g_sampled, const real *signs, int64_t n_samples,
                          real *total) {
    const int64_t u_tail = u_rows & (u_rows - 1) ? u_rows & -u_rows : 0;
    const int64_t g_tail = g_rows & (g_rows - 1) ? g_rows & -g_rows : 0;
    for (int64_t k = 0; k < n_samples; k++)
        for (int64_t lane = 0; lane < SUBQUAD_LANES; lane += VECTOR_LANES)
            *(NAME(vector) *)(total + k * SUBQUAD_LANES + lane) +=
                NAME(coordinate)(u + lane, u_rows - u_tail, u_tail, u_sampled[k]) * signs[k] *
                NAME(coordinate)(g + lane, g_rows - g_tail, g_tail, g_sampled[k]);
}

#undef VECTOR_LANES
#undef RESIDENT
#undef BUTTERFLY
#undef DEFINE_PASS
#undef LEVEL2
#undef LEVELS4
#undef LEVELS8
