from collections.abc import Sequence

import numpy as np

from sklearn_subquad._kernels._pattern import Pattern

def add_hadamard(
    total: np.ndarray,
    first: int,
    left: np.ndarray | None,
    left_rows: Sequence[tuple[Pattern, np.ndarray]],
    right: np.ndarray | None,
    right_rows: Sequence[tuple[Pattern, np.ndarray]],
) -> None: ...
def mirror(columns: np.ndarray, first: int, out: np.ndarray) -> None: ...
