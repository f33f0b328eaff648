/* Products of sparse rows with a dense matrix that is packed in panels.
 *
 * A matrix W (n_out x n_in) is stored as panels of SUBQUAD_LANES outputs:
 *
 *     tiles[panel][in][lane] = W[panel * SUBQUAD_LANES + lane, in]
 *
 * with zeros where the last panel exceeds n_out.
 */
#ifndef SUBQUAD_TILES_H
#define SUBQUAD_TILES_H

#include "hadamard.h"

#include <stdint.h>

#define SUBQUAD_LANES 64

/* Rows whose sums of one panel stay in the second level of cache. */
#define SUBQUAD_CHUNK_ROWS 512

enum { SUBQUAD_DONE, SUBQUAD_NO_MEMORY };

/* Where the entries of sparse rows are. They are stored block of columns by block of columns; within a
 * block chunk by chunk of SUBQUAD_CHUNK_ROWS rows; within a chunk row by row, in the order of their
 * number of entries (a loop whose length hardly changes from one row to the next is predicted well):
 *
 *     q = block_index * n_rows + chunk_index * SUBQUAD_CHUNK_ROWS + position
 *     start[q] to start[q + 1]     the entries of row chunk_index * SUBQUAD_CHUNK_ROWS + row[q]
 *     local[p]                     column of entry p, counted from the first of its block
 */
typedef struct {
    int64_t n_rows, n_columns;
    int64_t block; /* columns per block, a multiple of SUBQUAD_LANES */
    const int64_t *start;
    const uint16_t *row;
    const uint16_t *local;
} subquad_pattern;

/* The part of a product that one call computes, and where it goes: row i, output o is at
 *
 *     (i - first_row) * row_stride + (panel - first_panel) * panel_stride + lane * lane_stride
 *
 * so that the result can be a row-major matrix, its transpose, or another packed matrix. Outputs from
 * n_out on are not written. */
typedef struct {
    int64_t first_row, last_row, first_panel, last_panel;
    int64_t n_out;
    int64_t row_stride, panel_stride, lane_stride;
    int accumulate;
} subquad_part;

/* The product for one real type:
 *
 *     transposed = 0:  out[i, o] (+)= sum_j values_ij W[o, j]   a panel is 64 outputs of W
 *     transposed = 1:  out[i, j] (+)= sum_o values_io W[o, j]   a panel is 64 inputs of W
 *
 * Every element is summed in an order that depends neither on the part nor on the other rows: threads
 * can share the work and the result is the same to the bit. Returns SUBQUAD_DONE or SUBQUAD_NO_MEMORY. */
typedef int (*subquad_multiply_f32)(const subquad_pattern *rows, const float *values,
                                    const float *tiles, int64_t n_panels, int64_t n_in,
                                    int transposed, const subquad_part *part, float *out);
typedef int (*subquad_multiply_f64)(const subquad_pattern *rows, const double *values,
                                    const double *tiles, int64_t n_panels, int64_t n_in,
                                    int transposed, const subquad_part *part, double *out);

typedef struct {
    const char *name;
    subquad_multiply_f32 multiply_f32;
    subquad_multiply_f64 multiply_f64;
    subquad_hadamard_f32 hadamard_f32;
    subquad_hadamard_f64 hadamard_f64;
    subquad_sampled_f32 sampled_f32;
    subquad_sampled_f64 sampled_f64;
} subquad_level;

/* The level called `name`, or the best one that this CPU runs where `name` is NULL or empty.
 * NULL where that level was not built or this CPU cannot run it. */
const subquad_level *subquad_select(const char *name);

/* The names of the levels that this CPU runs, best first; NULL from `index` = their number on. */
const char *subquad_level_name(int index);

#endif
