"""Compiled kernels: patterns of sparse rows, their products with matrices packed in panels, their sketches, LAPACK.

All of them release the GIL and can work on a part of the result, so that threads can share the work.
"""

from sklearn_subquad._kernels._gram import add_hadamard, mirror
from sklearn_subquad._kernels._lapack import potrf, potri, potrs, trtri
from sklearn_subquad._kernels._pattern import (
    CHUNK_ROWS,
    LANES,
    Pattern,
    concatenate,
    gather,
    row_dots,
    scale_rows,
    scatter_columns,
    scatter_rows,
    select,
)
from sklearn_subquad._kernels._sketching import (
    add_sampled_products,
    count_sketch,
    count_sketch_dense,
    scatter_signed,
    walsh_hadamard,
)
from sklearn_subquad._kernels._tiles import (
    SIMD_VARIABLE,
    backward,
    forward,
    forward_packed,
    simd_level,
    simd_levels,
    use_simd_level,
)

__all__ = [
    "CHUNK_ROWS",
    "LANES",
    "SIMD_VARIABLE",
    "Pattern",
    "add_hadamard",
    "add_sampled_products",
    "backward",
    "concatenate",
    "count_sketch",
    "count_sketch_dense",
    "forward",
    "forward_packed",
    "gather",
    "mirror",
    "potrf",
    "potri",
    "potrs",
    "row_dots",
    "scale_rows",
    "scatter_columns",
    "scatter_rows",
    "scatter_signed",
    "select",
    "simd_level",
    "simd_levels",
    "trtri",
    "use_simd_level",
    "walsh_hadamard",
]
