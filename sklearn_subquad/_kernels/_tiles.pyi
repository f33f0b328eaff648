import numpy as np

LANES: int
SIMD_VARIABLE: str

def use_simd_level(name: str = "") -> None: ...
def simd_level() -> str: ...
def forward(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    tiles: np.ndarray,
    out: np.ndarray,
    first: int,
    last: int,
    lower: bool = False,
) -> None: ...
def add_product(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    factor: np.ndarray,
    tiles: np.ndarray,
    first: int,
    last: int,
) -> None: ...
def backward(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    tiles: np.ndarray,
    out: np.ndarray,
    first: int,
    last: int,
) -> None: ...
def scatter_rows(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, tiles: np.ndarray) -> None: ...
def scatter_columns(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, tiles: np.ndarray) -> None: ...
def gather(indptr: np.ndarray, indices: np.ndarray, dense: np.ndarray, scale: float, out: np.ndarray) -> None: ...
