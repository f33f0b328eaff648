import numpy as np

from sklearn_subquad._kernels._pattern import Pattern

SIMD_VARIABLE: str

def simd_levels() -> list[str]: ...
def use_simd_level(name: str = "") -> None: ...
def simd_level() -> str: ...
def forward(
    rows: Pattern,
    values: np.ndarray,
    tiles: np.ndarray,
    out: np.ndarray,
    first_panel: int = 0,
    first_row: int = 0,
    accumulate: bool = False,
) -> None: ...
def backward(
    rows: Pattern,
    values: np.ndarray,
    tiles: np.ndarray,
    out: np.ndarray,
    first_panel: int = 0,
    first_row: int = 0,
    accumulate: bool = False,
) -> None: ...
def forward_packed(
    rows: Pattern, values: np.ndarray, tiles: np.ndarray, out: np.ndarray, accumulate: bool = False
) -> None: ...
