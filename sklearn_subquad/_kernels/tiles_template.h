/* The kernels for one real type at one SIMD level; tiles.c includes this for float and double. */

#if defined(__GNUC__)
typedef real NAME(vector)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#define VECTOR_LANES (VECTOR_BYTES / (int)sizeof(real))
#else
typedef real NAME(vector);
#define VECTOR_LANES 1
#endif

/* Accumulators held in registers at a time; a panel takes one or more such groups. */
#define GROUP 8
#define GROUP_LANES (GROUP * VECTOR_LANES)

/* Inputs per block, so that a block of a panel stays in the first level of cache; a multiple of
 * SUBQUAD_LANES, because the backward product cuts its blocks out of whole panels. */
#define BLOCK_INPUTS (128 * 4 / (int)sizeof(real))

/* The entries of sparse rows sorted by (chunk of rows, block of inputs, row), so that the product
 * reads them in one stream. `start` has one more item than there are such triples. */
typedef struct {
    int64_t n_rows, n_in, n_blocks;
    int64_t *start;
    uint16_t *local; /* index within the block */
    real *values;
} NAME(blocked_rows);

static void NAME(release)(NAME(blocked_rows) *blocked) {
    free(blocked->start);
    free(blocked->local);
    free(blocked->values);
}

static int NAME(block_rows)(const subquad_rows *rows, const real *values, int64_t n_in,
                            NAME(blocked_rows) *blocked) {
    const int64_t n_entries = rows->indptr[rows->n_rows];
    /* With no inputs at all there is still one block, an empty one: the output is then zero. */
    const int64_t n_blocks = n_in > 0 ? (n_in + BLOCK_INPUTS - 1) / BLOCK_INPUTS : 1;
    int64_t *cursor = malloc(sizeof(int64_t) * CHUNK_ROWS);
    blocked->n_rows = rows->n_rows;
    blocked->n_in = n_in;
    blocked->n_blocks = n_blocks;
    blocked->start = malloc(sizeof(int64_t) * (size_t)(rows->n_rows * n_blocks + 1));
    blocked->local = malloc(sizeof(uint16_t) * (size_t)(n_entries + 1));
    blocked->values = malloc(sizeof(real) * (size_t)(n_entries + 1));
    if (!cursor || !blocked->start || !blocked->local || !blocked->values) {
        free(cursor);
        NAME(release)(blocked);
        return SUBQUAD_NO_MEMORY;
    }
    int64_t written = 0, *start = blocked->start;
    for (int64_t chunk = 0; chunk < rows->n_rows; chunk += CHUNK_ROWS) {
        const int64_t end = chunk + CHUNK_ROWS < rows->n_rows ? chunk + CHUNK_ROWS : rows->n_rows;
        for (int64_t i = chunk; i < end; i++)
            cursor[i - chunk] = rows->indptr[i];
        for (int64_t block = 0; block < n_blocks; block++) {
            const int64_t first = block * BLOCK_INPUTS, limit = first + BLOCK_INPUTS;
            for (int64_t i = chunk; i < end; i++) {
                int64_t p = cursor[i - chunk];
                *start++ = written;
                for (; p < rows->indptr[i + 1] && rows->indices[p] < limit; p++) {
                    blocked->local[written] = (uint16_t)(rows->indices[p] - first);
                    blocked->values[written++] = values[p];
                }
                cursor[i - chunk] = p;
            }
        }
    }
    *start = written;
    free(cursor);
    return SUBQUAD_DONE;
}

/* sums[i][lane] (+)= sum of value_ij * tile[j][lane] over one block of inputs, for one chunk of
 * rows; `start` is that of the chunk's first row in this block. */
static void NAME(multiply_block)(const NAME(blocked_rows) *blocked, const int64_t *start,
                                 int64_t n_rows, const real *tile, real *sums, int accumulate) {
    for (int64_t i = 0; i < n_rows; i++, sums += SUBQUAD_LANES) {
        if (accumulate && start[i] == start[i + 1])
            continue;
        for (int group = 0; group < SUBQUAD_LANES; group += GROUP_LANES) {
            NAME(vector) sum[GROUP];
            NAME(vector) *target = (NAME(vector) *)(sums + group);
            for (int a = 0; a < GROUP; a++)
                sum[a] = accumulate ? target[a] : (NAME(vector)){0};
            for (int64_t p = start[i]; p < start[i + 1]; p++) {
                const NAME(vector) *source = (const NAME(vector) *)(
                    tile + (int64_t)blocked->local[p] * SUBQUAD_LANES + group);
                const real value = blocked->values[p];
                for (int a = 0; a < GROUP; a++)
                    sum[a] += value * source[a];
            }
            for (int a = 0; a < GROUP; a++)
                target[a] = sum[a];
        }
    }
}

/* tile[o][lane] = W[first_out + o, first_in + lane] for a block of outputs. */
static void NAME(transpose_block)(const real *tiles, int64_t n_in, int64_t first_out,
                                  int64_t n_out, int64_t first_in, int64_t lanes, real *tile) {
    if (lanes < SUBQUAD_LANES)
        memset(tile, 0, sizeof(real) * BLOCK_INPUTS * SUBQUAD_LANES);
    for (int64_t o = 0; o < n_out; o += SUBQUAD_LANES) {
        const int64_t panel = (first_out + o) / SUBQUAD_LANES;
        const real *source = tiles + (panel * n_in + first_in) * SUBQUAD_LANES;
        for (int64_t q = 0; q < SUBQUAD_LANES; q++)
            for (int64_t lane = 0; lane < lanes; lane++)
                tile[(o + q) * SUBQUAD_LANES + lane] = source[lane * SUBQUAD_LANES + q];
    }
}

/* The loop that both products share: panels of outputs, chunks of rows, blocks of inputs.
 * Forward reads its tiles in place; backward transposes each block first. */
static int NAME(multiply)(const subquad_rows *rows, const real *values, const real *tiles,
                          int64_t n_panels, int64_t n_in, int transposed, real *out,
                          int64_t row_stride, int64_t panel_stride, int64_t first_panel,
                          int64_t last_panel, int accumulate, int lower) {
    const int64_t summed = transposed ? n_panels * SUBQUAD_LANES : n_in;
    NAME(blocked_rows) blocked;
    if (NAME(block_rows)(rows, values, summed, &blocked) != SUBQUAD_DONE)
        return SUBQUAD_NO_MEMORY;
    /* One allocation, so that one alignment serves both: a vector across two cache lines costs two
     * loads. */
    char *scratch = malloc(sizeof(real) * (CHUNK_ROWS + BLOCK_INPUTS) * SUBQUAD_LANES + CACHE_LINE);
    if (!scratch) {
        NAME(release)(&blocked);
        return SUBQUAD_NO_MEMORY;
    }
    real *sums = (real *)(scratch + (CACHE_LINE - (uintptr_t)scratch % CACHE_LINE));
    real *tile = sums + CHUNK_ROWS * SUBQUAD_LANES;
    for (int64_t panel = first_panel; panel < last_panel; panel++) {
        const int64_t first_in = panel * SUBQUAD_LANES;
        const int64_t lanes = n_in - first_in < SUBQUAD_LANES ? n_in - first_in : SUBQUAD_LANES;
        for (int64_t chunk = 0; chunk < rows->n_rows; chunk += CHUNK_ROWS) {
            const int64_t left = rows->n_rows - chunk;
            const int64_t n_rows = left < CHUNK_ROWS ? left : CHUNK_ROWS;
            const int64_t above = lower ? panel * SUBQUAD_LANES - chunk : 0;
            const int64_t skipped = above < 0 ? 0 : above < n_rows ? above : n_rows;
            if (skipped == n_rows)
                continue;
            const int64_t *start = blocked.start + chunk * blocked.n_blocks;
            for (int64_t block = 0; block < blocked.n_blocks; block++, start += n_rows) {
                const int64_t first = block * BLOCK_INPUTS;
                const real *source = tile;
                if (transposed) {
                    const int64_t rest = summed - first;
                    NAME(transpose_block)(tiles, n_in, first,
                                          rest < BLOCK_INPUTS ? rest : BLOCK_INPUTS, first_in,
                                          lanes, tile);
                } else {
                    source = tiles + (panel * n_in + first) * SUBQUAD_LANES;
                }
                NAME(multiply_block)(&blocked, start + skipped, n_rows - skipped, source, sums,
                                     block > 0);
            }
            real *target = out + panel * panel_stride + (chunk + skipped) * row_stride;
            for (int64_t i = 0; i < n_rows - skipped; i++, target += row_stride)
                for (int lane = 0; lane < SUBQUAD_LANES; lane++)
                    target[lane] = sums[i * SUBQUAD_LANES + lane] + (accumulate ? target[lane] : 0);
        }
    }
    free(scratch);
    NAME(release)(&blocked);
    return SUBQUAD_DONE;
}

#undef VECTOR_LANES
#undef GROUP
#undef GROUP_LANES
#undef BLOCK_INPUTS
