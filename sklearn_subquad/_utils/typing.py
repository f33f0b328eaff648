"""Types of arguments that several modules annotate."""

from numpy.typing import ArrayLike
from scipy.sparse import sparray, spmatrix

MatrixLike = ArrayLike | spmatrix | sparray
