"""Solutions with a symmetric matrix and a ridge, against NumPy in double precision."""

import numpy as np
import pytest

from sklearn_subquad._linalg import cholesky as module
from sklearn_subquad._linalg.cholesky import ShiftedMatrix

N = 120


def matrix_of(condition, rng, n=N):
    """A random positive definite matrix with eigenvalues from 1 to 1 / condition."""
    vectors, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return vectors * np.geomspace(1, 1 / condition, n) @ vectors.T


def residual_of(matrix, ridge, solution, R):
    return np.linalg.norm(R - matrix @ solution - ridge * solution, axis=0) / np.linalg.norm(R, axis=0)


@pytest.mark.parametrize("n_columns", [1, 3, 40])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("ridge", [1e-14, 1e-9, 1e-6, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("condition", [1e1, 1e4, 1e8, 1e12])
def test_solutions_of_single_precision_are_as_good_as_those_of_double(condition, ridge, scale, n_columns):
    rng = np.random.default_rng(0)
    matrix, R = matrix_of(condition, rng), scale * rng.standard_normal((N, n_columns))
    solution = ShiftedMatrix(matrix, ridge, np.float32).solve(R)
    shifted = matrix + ridge * np.eye(N)
    wanted = np.linalg.solve(shifted, R)
    # The residual's bound, times the condition, bounds the error; double precision has one of its own.
    bound = np.linalg.cond(shifted) * (module._REFINED + 1e-14)
    assert np.linalg.norm(solution - wanted) <= bound * np.linalg.norm(wanted)
    if n_columns <= module._MAX_REFINED_COLUMNS:
        assert (
            residual_of(matrix, ridge, solution, R) <= max(module._REFINED, N * 1e-15 * np.linalg.cond(shifted))
        ).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ridge", [1e-9, 1e-3, 1.0])
def test_diagonal_of_the_inverse(ridge, dtype):
    matrix = matrix_of(1e3, np.random.default_rng(1))
    shifted = ShiftedMatrix(matrix, ridge, dtype)
    single = shifted._is_single
    assert single == (dtype == np.float32 and ridge > 1e-4)
    inverse = np.linalg.inv(matrix + ridge * np.eye(N))
    # An error of eps relative to every entry of the factor is one of about cond * eps in the inverse.
    tolerance = 10 * np.linalg.cond(inverse) * np.finfo(np.float32 if single else np.float64).eps
    np.testing.assert_allclose(shifted.inverse_diagonal(), np.diag(inverse), rtol=tolerance)


def test_the_factor_is_in_double_precision_where_single_fails(monkeypatch):
    """Refinement that is not let converge gives way, once and for all."""
    rng = np.random.default_rng(2)
    matrix, R = matrix_of(1e5, rng), rng.standard_normal((N, 1))
    monkeypatch.setattr(module, "_MAX_CORRECTIONS", 1)
    shifted = ShiftedMatrix(matrix, 1e-3, np.float32)
    assert shifted._is_single
    solution = shifted.solve(R)
    assert not shifted._is_single
    np.testing.assert_allclose(solution, np.linalg.solve(matrix + 1e-3 * np.eye(N), R), rtol=1e-8)


def test_zero_columns_and_zero_rows():
    matrix = matrix_of(10, np.random.default_rng(3))
    R = np.zeros((N, 2))
    R[:, 1] = 1
    solution = ShiftedMatrix(matrix, 1.0, np.float32).solve(R)
    assert not solution[:, 0].any()
    np.testing.assert_allclose(solution[:, 1], np.linalg.solve(matrix + np.eye(N), R[:, 1]), rtol=1e-6)


def test_only_the_lower_triangle_is_read_of_a_matrix_in_fortrans_order():
    matrix = matrix_of(10, np.random.default_rng(4))
    lower = np.asfortranarray(np.tril(matrix) + np.triu(np.full((N, N), np.nan), 1))
    factor = module.cholesky(lower, 0.5, np.float64)
    wanted = np.linalg.inv(matrix + 0.5 * np.eye(N))
    np.testing.assert_allclose(np.tril(module.lower_inverse(factor)), np.tril(wanted), atol=1e-12)


def test_what_is_not_definite_is_refused():
    with pytest.raises(np.linalg.LinAlgError):
        ShiftedMatrix(np.diag([1.0, -1.0]), 0.5, np.float32)
