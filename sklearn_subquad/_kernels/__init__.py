"""Compiled kernels: patterns of sparse rows, and their products with matrices packed in panels of `LANES` outputs.

All of them release the GIL and can work on a part of the result, so that threads can share the work.
"""

from sklearn_subquad._kernels._pattern import (
    CHUNK_ROWS,
    LANES,
    Pattern,
    concatenate,
    gather,
    row_norms,
    scale_rows,
    scatter_columns,
    scatter_rows,
    select,
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
    "backward",
    "concatenate",
    "forward",
    "forward_packed",
    "gather",
    "row_norms",
    "scale_rows",
    "scatter_columns",
    "scatter_rows",
    "select",
    "simd_level",
    "simd_levels",
    "use_simd_level",
]
