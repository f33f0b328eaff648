import numpy as np

from sklearn_subquad._kernels._pattern import Pattern

def walsh_hadamard(tile: np.ndarray) -> None: ...
def add_sampled_products(
    u: np.ndarray, u_sampled: np.ndarray, g: np.ndarray, g_sampled: np.ndarray, signs: np.ndarray, total: np.ndarray
) -> None: ...
def scatter_signed(
    pattern: Pattern, values: np.ndarray, first_row: int, signs: np.ndarray, tile: np.ndarray
) -> None: ...
def count_sketch(
    pattern: Pattern,
    values: np.ndarray,
    first_row: int,
    buckets: np.ndarray,
    signs: np.ndarray,
    out: np.ndarray,
) -> None: ...
def count_sketch_dense(rows: np.ndarray, buckets: np.ndarray, signs: np.ndarray, out: np.ndarray) -> None: ...
