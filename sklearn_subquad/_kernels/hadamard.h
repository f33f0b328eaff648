/* Walsh-Hadamard transforms of tiles, and products of sampled coordinates of two of them.
 *
 * A tile (size x SUBQUAD_LANES) holds one row of a matrix in each of its lanes. What is transformed are its
 * columns, so that every butterfly adds and subtracts whole vectors: no level shuffles within one.
 */
#ifndef SUBQUAD_HADAMARD_H
#define SUBQUAD_HADAMARD_H

#include <stdint.h>

/* tile[i] = sum_j (-1)^(number of bits of i & j) tile[j], in place; `size` is a power of two. All levels add
 * in the same order and give the same result to the bit. */
typedef void (*subquad_hadamard_f32)(float *tile, int64_t size);
typedef void (*subquad_hadamard_f64)(double *tile, int64_t size);

/* total[k] += signs[k] * u[u_sampled[k]] * g[g_sampled[k]], lane by lane, for samples of two transforms.
 *
 * The transforms u and g have a power of two of rows, as many as the tile; or the tile has head + tail rows,
 * head > tail both powers of two, and the transform has 2 * head rows, of which those from head + tail on were
 * zero. The tile then has the transform of the first `head` rows, and that of the next `tail`, which repeats
 * itself with this period. The last level, between the two, is done here, for the samples alone. */
typedef void (*subquad_sampled_f32)(const float *u, int64_t u_rows, const int64_t *u_sampled, const float *g,
                                    int64_t g_rows, const int64_t *g_sampled, const float *signs,
                                    int64_t n_samples, float *total);
typedef void (*subquad_sampled_f64)(const double *u, int64_t u_rows, const int64_t *u_sampled,
                                    const double *g, int64_t g_rows, const int64_t *g_sampled,
                                    const double *signs, int64_t n_samples, double *total);

#endif
