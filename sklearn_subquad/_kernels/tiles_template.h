/* The kernels for one real type at one SIMD level; tiles.c includes this for float and double. */

#if defined(__GNUC__)
typedef real NAME(vector)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#define VECTOR_LANES (VECTOR_BYTES / (int)sizeof(real))
#else
typedef real NAME(vector);
#define VECTOR_LANES 1
#endif

/* A group of lanes is summed in registers. Where one vector register is so wide that a whole panel takes
 * less than ACCUMULATORS of them, entries take turns with two or more sets, which are added at the end. */
#define PANEL_VECTORS (SUBQUAD_LANES / VECTOR_LANES)
#define GROUP (PANEL_VECTORS < ACCUMULATORS ? PANEL_VECTORS : ACCUMULATORS)
#define SETS (ACCUMULATORS / GROUP)
#define GROUP_LANES (GROUP * VECTOR_LANES)

/* Add one entry to the sums of a group of lanes: its value times its column's row of the tile. */
#define ENTRY(column, value, set)                                                                    \
    {                                                                                                \
        const NAME(vector) *source =                                                                 \
            (const NAME(vector) *)(tile + (int64_t)(column)*SUBQUAD_LANES + group);                  \
        for (int a = 0; a < GROUP; a++)                                                              \
            sum[(set) % SETS][a] += (value)*source[a];                                               \
    }

/* sums[row][lane] (+)= sum of value * tile[local][lane] over the entries of one block of columns, for one
 * chunk of rows; rows outside [low, high) are left out. Meanwhile the next tile is fetched into the cache, a
 * share with every row: the rows touch its lines in an order that no hardware prefetcher foresees. */
static void NAME(multiply_block)(const subquad_pattern *pattern, const real *values, int64_t first,
                                 int64_t n_rows, int64_t low, int64_t high, const real *tile,
                                 real *sums, int accumulate, const upcoming *next) {
    const int64_t *start = pattern->start + first;
    const uint16_t *row = pattern->row + first;
    const char *fetched = next->base;
    int64_t lines = next->lines, lines_of_piece = next->lines_of_piece;
    const int64_t share = (lines + n_rows - 1) / n_rows;
    for (int64_t i = 0; i < n_rows; i++) {
        for (int64_t line = 0; line < share && lines; line++, lines--) {
            PREFETCH(fetched);
            fetched += CACHE_LINE;
            if (--lines_of_piece == 0) {
                fetched += next->gap;
                lines_of_piece = next->lines_of_piece;
            }
        }
        if (row[i] < low || row[i] >= high || (accumulate && start[i] == start[i + 1]))
            continue;
        for (int group = 0; group < SUBQUAD_LANES; group += GROUP_LANES) {
            NAME(vector) sum[SETS][GROUP];
            NAME(vector) *target = (NAME(vector) *)(sums + row[i] * SUBQUAD_LANES + group);
            for (int a = 0; a < GROUP; a++) {
                sum[0][a] = accumulate ? target[a] : (NAME(vector)){0};
                for (int set = 1; set < SETS; set++)
                    sum[set][a] = (NAME(vector)){0};
            }
            const int64_t end = start[i + 1];
            int64_t p = start[i];
            for (; p + PIECE <= end; p += PIECE) {
                const NAME(piece) piece = NAME(load_piece)(values + p);
                const columns4 columns = load_columns(pattern->local + p);
                ENTRY(COLUMN(columns, 0), SPREAD(piece, 0), 0)
                ENTRY(COLUMN(columns, 1), SPREAD(piece, 1), 1)
                ENTRY(COLUMN(columns, 2), SPREAD(piece, 2), 2)
                ENTRY(COLUMN(columns, 3), SPREAD(piece, 3), 3)
            }
            for (; p < end; p++)
                ENTRY(pattern->local[p], values[p], 0)
            for (int a = 0; a < GROUP; a++) {
                for (int set = 1; set < SETS; set++)
                    sum[0][a] += sum[set][a];
                target[a] = sum[0][a];
            }
        }
    }
}

/* turned[lane][row] = panel[row][lane] for up to SUBQUAD_LANES rows. */
static void NAME(transpose_panel)(const real *panel, int64_t n_rows, real *turned) {
    const int64_t whole = n_rows - n_rows % SQUARE(real);
    for (int64_t row = 0; row < whole; row += SQUARE(real))
        for (int64_t lane = 0; lane < SUBQUAD_LANES; lane += SQUARE(real))
            NAME(transpose_square)(panel + row * SUBQUAD_LANES + lane,
                                   turned + lane * SUBQUAD_LANES + row);
    for (int64_t row = whole; row < n_rows; row++)
        for (int64_t lane = 0; lane < SUBQUAD_LANES; lane++)
            turned[lane * SUBQUAD_LANES + row] = panel[row * SUBQUAD_LANES + lane];
}

/* tile[o][lane] = W[first_out + o, first_in + lane] for a block of outputs. */
static void NAME(transpose_block)(const real *tiles, int64_t n_in, int64_t first_out,
                                  int64_t n_out, int64_t first_in, int64_t lanes, real *tile) {
    if (lanes < SUBQUAD_LANES)
        memset(tile, 0, sizeof(real) * (size_t)(n_out * SUBQUAD_LANES));
    for (int64_t o = 0; o < n_out; o += SUBQUAD_LANES) {
        const int64_t panel = (first_out + o) / SUBQUAD_LANES;
        NAME(transpose_panel)(tiles + (panel * n_in + first_in) * SUBQUAD_LANES, lanes,
                              tile + o * SUBQUAD_LANES);
    }
}

static void NAME(store_run)(const real *from, int64_t n, int accumulate, real *to) {
    if (accumulate)
        for (int64_t i = 0; i < n; i++)
            to[i] += from[i];
    else
        memcpy(to, from, sizeof(real) * (size_t)n);
}

/* Write or add the sums of one panel and one chunk of rows, `target` being that of its first row. */
static void NAME(store_sums)(const real *sums, int64_t n_rows, int64_t lanes,
                             const subquad_part *part, real *turned, real *target) {
    if (part->lane_stride == 1) {
        for (int64_t i = 0; i < n_rows; i++)
            NAME(store_run)(sums + i * SUBQUAD_LANES, lanes, part->accumulate,
                            target + i * part->row_stride);
        return;
    }
    /* By columns: rows and lanes change places square by square, then whole runs are written. */
    for (int64_t first = 0; first < n_rows; first += SUBQUAD_LANES) {
        const int64_t run = n_rows - first < SUBQUAD_LANES ? n_rows - first : SUBQUAD_LANES;
        NAME(transpose_panel)(sums + first * SUBQUAD_LANES, run, turned);
        for (int64_t lane = 0; lane < lanes; lane++)
            NAME(store_run)(turned + lane * SUBQUAD_LANES, run, part->accumulate,
                            target + lane * part->lane_stride + first);
    }
}

/* The loop that both products share: panels of outputs, chunks of rows, blocks of columns.
 * Forward reads its tiles in place; backward transposes each block first. */
static int NAME(multiply)(const subquad_pattern *rows, const real *values, const real *tiles,
                          int64_t n_panels, int64_t n_in, int transposed, const subquad_part *part,
                          real *out) {
    const int64_t summed = transposed ? n_panels * SUBQUAD_LANES : n_in;
    const int64_t block = rows->block;
    /* With no columns at all there is still one block, an empty one: the output is then zero. */
    const int64_t n_blocks = summed > 0 ? (summed + block - 1) / block : 1;
    /* One allocation, so that one alignment serves both: a vector across two cache lines costs two
     * loads. */
    const int64_t scratch_rows = SUBQUAD_CHUNK_ROWS + (transposed ? block : SUBQUAD_LANES);
    char *scratch = malloc(sizeof(real) * (size_t)(scratch_rows * SUBQUAD_LANES) + CACHE_LINE);
    if (!scratch)
        return SUBQUAD_NO_MEMORY;
    real *sums = (real *)(scratch + (CACHE_LINE - (uintptr_t)scratch % CACHE_LINE));
    real *tile = sums + SUBQUAD_CHUNK_ROWS * SUBQUAD_LANES;
    for (int64_t panel = part->first_panel; panel < part->last_panel; panel++) {
        const int64_t first_lane = panel * SUBQUAD_LANES;
        const int64_t left = part->n_out - first_lane;
        const int64_t lanes = left < SUBQUAD_LANES ? left : SUBQUAD_LANES;
        real *panel_out = out + (panel - part->first_panel) * part->panel_stride;
        int64_t chunk = part->first_row - part->first_row % SUBQUAD_CHUNK_ROWS;
        for (; chunk < part->last_row; chunk += SUBQUAD_CHUNK_ROWS) {
            const int64_t rest = rows->n_rows - chunk;
            const int64_t n_rows = rest < SUBQUAD_CHUNK_ROWS ? rest : SUBQUAD_CHUNK_ROWS;
            const int64_t low = part->first_row > chunk ? part->first_row - chunk : 0;
            const int64_t high = part->last_row - chunk < n_rows ? part->last_row - chunk : n_rows;
            for (int64_t b = 0; b < n_blocks; b++) {
                const int64_t first = b * block, after = first + block;
                const int64_t size = summed - first < block ? summed - first : block;
                const int64_t next_size = summed - after < block ? summed - after : block;
                const int64_t lane_lines = SUBQUAD_LANES * (int64_t)sizeof(real) / CACHE_LINE;
                upcoming next = {NULL, next_size > 0 ? next_size * lane_lines : 0, INT64_MAX, 0};
                const real *source;
                if (transposed) {
                    NAME(transpose_block)(tiles, n_in, first, size, first_lane, lanes, tile);
                    source = tile;
                    next.base = (const char *)(tiles + (after / SUBQUAD_LANES * n_in + first_lane) * SUBQUAD_LANES);
                    next.lines_of_piece = SUBQUAD_LANES * lane_lines;
                    next.gap = (n_in - SUBQUAD_LANES) * lane_lines * CACHE_LINE;
                } else {
                    source = tiles + (panel * n_in + first) * SUBQUAD_LANES;
                    next.base = (const char *)(source + block * SUBQUAD_LANES);
                }
                NAME(multiply_block)(rows, values, b * rows->n_rows + chunk, n_rows, low, high,
                                     source, sums, b > 0, &next);
            }
            NAME(store_sums)(sums + low * SUBQUAD_LANES, high - low, lanes, part, tile,
                             panel_out + (chunk + low - part->first_row) * part->row_stride);
        }
    }
    free(scratch);
    return SUBQUAD_DONE;
}

#undef VECTOR_LANES
#undef PANEL_VECTORS
#undef GROUP
#undef SETS
#undef GROUP_LANES
#undef ENTRY
