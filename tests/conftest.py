import pathlib
import sys

import numpy as np
import pytest
from hypothesis import settings
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

# `python -m pytest` puts the checkout on the path, whose package has no compiled kernels: the installed one counts.
_CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry).resolve() != _CHECKOUT]

# The same examples in every run, however slow the machine is.
settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("deterministic")


@pytest.fixture(scope="module")
def one_blas_thread():
    """Matrices of small fits gain nothing from threads, and lose much where the processors are busy."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def sparse_rows():
    """Function of (rng, n_rows, n_columns, density, dtype) that draws normal values at random places."""

    def draw(rng, n_rows, n_columns, density, dtype):
        active = rng.random((n_rows, n_columns)) < density
        rows = csr_array((active * rng.standard_normal((n_rows, n_columns))).astype(dtype))
        rows.indptr, rows.indices = rows.indptr.astype(np.int32), rows.indices.astype(np.int32)
        return rows

    return draw
