/* Products of sparse rows with a dense matrix that is packed in panels.
 *
 * A matrix W (n_out x n_in) is stored as panels of SUBQUAD_LANES outputs:
 *
 *     tiles[panel][in][lane] = W[panel * SUBQUAD_LANES + lane, in]
 *
 * with zeros where the last panel exceeds n_out. Sparse rows are CSR with
 * int32 indices, strictly increasing within a row.
 */
#ifndef SUBQUAD_TILES_H
#define SUBQUAD_TILES_H

#include <stdint.h>

#define SUBQUAD_LANES 64

enum { SUBQUAD_DONE, SUBQUAD_NO_MEMORY };

typedef struct {
    int64_t n_rows;
    const int32_t *indptr;
    const int32_t *indices;
} subquad_rows;

/* The product for one real type, on the panels first_panel to last_panel of its output:
 *
 *     transposed = 0:  out[i, o] (+)= sum_j values_ij W[o, j]   a panel is 64 outputs of W
 *     transposed = 1:  out[i, j] (+)= sum_o values_io W[o, j]   a panel is 64 inputs of W
 *
 * The place of row i, panel p in `out` is i * row_stride + p * panel_stride, so that `out` can be
 * a row-major matrix or another packed matrix. Every element is summed in an order that depends
 * neither on the range of panels nor on the other rows: threads can share the work and the result
 * is the same to the bit. With `lower`, panel p is computed for the rows from 64 p on alone: the
 * lower triangle of a symmetric result, and the whole of its diagonal blocks. Returns SUBQUAD_DONE or SUBQUAD_NO_MEMORY. */
typedef int (*subquad_multiply_f32)(const subquad_rows *rows, const float *values,
                                    const float *tiles, int64_t n_panels, int64_t n_in,
                                    int transposed, float *out, int64_t row_stride,
                                    int64_t panel_stride, int64_t first_panel,
                                    int64_t last_panel, int accumulate, int lower);
typedef int (*subquad_multiply_f64)(const subquad_rows *rows, const double *values,
                                    const double *tiles, int64_t n_panels, int64_t n_in,
                                    int transposed, double *out, int64_t row_stride,
                                    int64_t panel_stride, int64_t first_panel,
                                    int64_t last_panel, int accumulate, int lower);

typedef struct {
    const char *name;
    subquad_multiply_f32 multiply_f32;
    subquad_multiply_f64 multiply_f64;
} subquad_level;

/* The level called `name`, or the best one that this CPU runs where `name` is NULL or empty.
 * NULL where that level was not built or this CPU cannot run it. */
const subquad_level *subquad_select(const char *name);

#endif
