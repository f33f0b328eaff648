"""Compiled products of sparse rows with a matrix packed in panels of `LANES` outputs.

The products work on a range of output panels and release the GIL, so that threads can share the work.
"""

from sklearn_subquad._kernels._tiles import (
    LANES,
    SIMD_VARIABLE,
    add_product,
    backward,
    forward,
    gather,
    scatter_columns,
    scatter_rows,
    simd_level,
    use_simd_level,
)

__all__ = [
    "LANES",
    "SIMD_VARIABLE",
    "add_product",
    "backward",
    "forward",
    "gather",
    "scatter_columns",
    "scatter_rows",
    "simd_level",
    "use_simd_level",
]
