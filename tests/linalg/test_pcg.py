import numpy as np
import pytest

from sklearn_subquad._linalg.pcg import pcg

DTYPES = [np.float32, np.float64]


def identity(R):
    return R


def definite_matrix(n, condition, dtype=np.float64, seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return ((Q * np.geomspace(1, condition, n)) @ Q.T).astype(dtype)


def right_hand_side(n, k, dtype=np.float64):
    return np.random.default_rng(1).standard_normal((n, k)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (12, 1), (12, 5)])
def test_solution_is_that_of_a_dense_solver(n, k, dtype):
    condition = 20
    A, rhs = definite_matrix(n, condition, dtype), right_hand_side(n, k, dtype)
    tol = 50 * np.finfo(dtype).eps
    result = pcg(lambda C: A @ C, rhs, identity, tol=tol, max_iter=100)
    expected = np.linalg.solve(A.astype(np.float64), rhs)
    assert result.converged
    assert result.solution.dtype == dtype
    # Relative errors are at most the condition number times relative residuals (twice: the recursive
    # residual drifts from the true one).
    assert np.linalg.norm(result.solution - expected) <= 2 * condition * tol * np.linalg.norm(expected)


def test_operator_may_mix_the_columns():
    A, rhs = definite_matrix(12, 20), right_hand_side(4, 3)
    result = pcg(lambda C: (A @ C.ravel()).reshape(4, 3), rhs, identity, tol=1e-12, max_iter=100)
    np.testing.assert_allclose(result.solution.ravel(), np.linalg.solve(A, rhs.ravel()), rtol=1e-9)


def test_no_more_iterations_than_distinct_eigenvalues():
    # In exact arithmetic; well conditioned, rounding does not show at this tolerance.
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    A = (Q * np.repeat([1.0, 2.0, 5.0], 10)) @ Q.T
    result = pcg(lambda C: A @ C, right_hand_side(30, 1), identity, tol=1e-10, max_iter=30)
    assert result.converged
    assert result.n_iter == 3


@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-6])
def test_tolerance_is_reached_and_not_overdone(tol):
    A, rhs = definite_matrix(60, 1e4), right_hand_side(60, 2)

    def relative_residual(result):
        return np.linalg.norm(rhs - A @ result.solution) / np.linalg.norm(rhs)

    result = pcg(lambda C: A @ C, rhs, identity, tol=tol, max_iter=500)
    assert result.converged
    assert relative_residual(result) <= tol * (1 + 1e-6)
    one_less = pcg(lambda C: A @ C, rhs, identity, tol=tol, max_iter=result.n_iter - 1)
    assert not one_less.converged
    assert relative_residual(one_less) > tol * (1 - 1e-6)


@pytest.mark.parametrize("max_iter", [0, 1, 4])
def test_max_iter_ends_it_with_the_residual_of_its_solution(max_iter):
    A, rhs = definite_matrix(30, 1e4), right_hand_side(30, 2)
    result = pcg(lambda C: A @ C, rhs, identity, tol=1e-8, max_iter=max_iter)
    assert not result.converged
    assert result.n_iter == max_iter
    np.testing.assert_allclose(result.residual, rhs - A @ result.solution, rtol=1e-9, atol=1e-9)


def test_exact_preconditioner_converges_in_one_iteration():
    A, rhs = definite_matrix(40, 1e5), right_hand_side(40, 3)
    result = pcg(lambda C: A @ C, rhs, lambda R: np.linalg.solve(A, R), tol=1e-8, max_iter=50)
    assert result.converged
    assert result.n_iter == 1


def test_good_preconditioner_saves_iterations_but_does_not_move_the_solution():
    A, rhs = definite_matrix(40, 1e4), right_hand_side(40, 3)
    near = np.linalg.inv(A + 0.1 * definite_matrix(40, 10, seed=2))
    plain = pcg(lambda C: A @ C, rhs, identity, tol=1e-10, max_iter=500)
    preconditioned = pcg(lambda C: A @ C, rhs, lambda R: near @ R, tol=1e-10, max_iter=500)
    assert plain.converged
    assert preconditioned.converged
    assert preconditioned.n_iter < plain.n_iter / 2
    # Condition number times tolerance.
    np.testing.assert_allclose(preconditioned.solution, plain.solution, atol=1e-5)


@pytest.mark.parametrize("max_iter", [0, 10])
def test_zero_right_hand_side_needs_no_iteration(max_iter):
    def unexpected(R):
        raise AssertionError("nothing has to be computed")

    result = pcg(unexpected, np.zeros((5, 2)), unexpected, tol=1e-2, max_iter=max_iter)
    assert result.converged
    assert result.n_iter == 0
    assert (result.solution == 0).all()


def test_right_hand_side_is_left_alone():
    A, rhs = definite_matrix(12, 20), right_hand_side(12, 2)
    before = rhs.copy()
    pcg(lambda C: A @ C, rhs, identity, tol=1e-8, max_iter=50)
    np.testing.assert_array_equal(rhs, before)


OPERATORS = {
    "negative definite": lambda C: -C,
    "indefinite": lambda C: C * np.array([[1.0], [-3.0], [1.0], [-3.0]]),
    "zero": lambda C: 0 * C,
    "nan": lambda C: C * np.nan,
    "infinite": lambda C: np.full_like(C, np.inf),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_operator_that_is_not_definite_ends_unconverged(case):
    result = pcg(OPERATORS[case], np.ones((4, 1)), identity, tol=1e-2, max_iter=20)
    assert not result.converged
    assert result.n_iter < 20
    assert np.isfinite(result.solution).all()


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_preconditioner_that_is_not_definite_does_not_raise(value):
    A = definite_matrix(4, 10)
    result = pcg(lambda C: A @ C, np.ones((4, 1)), lambda R: value * R, tol=1e-2, max_iter=20)
    assert np.isfinite(result.solution).all()
    if result.converged:
        assert np.linalg.norm(A @ result.solution - 1) <= 1e-2 * 2 * (1 + 1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("max_iter", [0, 20])
def test_non_finite_right_hand_side_ends_unconverged(max_iter, value):
    rhs = np.ones((4, 1))
    rhs[2] = value
    result = pcg(lambda C: 2 * C, rhs, identity, tol=1e-2, max_iter=max_iter)
    assert not result.converged
    assert np.isfinite(result.solution).all()


def test_definite_until_later_keeps_what_was_found():
    A, rhs = definite_matrix(30, 1e4), right_hand_side(30, 1)
    n_calls = 0

    def failing(C):
        nonlocal n_calls
        n_calls += 1
        return A @ C if n_calls <= 3 else np.full_like(C, np.nan)

    result = pcg(failing, rhs, identity, tol=1e-10, max_iter=50)
    assert not result.converged
    assert result.n_iter == 3
    expected = pcg(lambda C: A @ C, rhs, identity, tol=1e-10, max_iter=3)
    np.testing.assert_array_equal(result.solution, expected.solution)


def test_flexible_iterations_equal_plain_ones_where_the_preconditioner_is_linear():
    A, rhs = definite_matrix(30, 1e3), right_hand_side(30, 2)
    near = np.diag(1 / np.diag(A))
    plain, flexible = (
        pcg(lambda C: A @ C, rhs, lambda R: near @ R, tol=1e-10, max_iter=500, flexible=flexible)
        for flexible in (False, True)
    )
    assert flexible.converged
    assert abs(flexible.n_iter - plain.n_iter) <= 1
    np.testing.assert_allclose(flexible.solution, plain.solution, rtol=1e-7)


def test_flexible_iterations_bear_a_preconditioner_that_changes():
    A, rhs = definite_matrix(30, 1e3), right_hand_side(30, 1)

    def rough(R):
        return pcg(lambda C: A @ C, R, identity, tol=0.1, max_iter=100).solution

    flexible = pcg(lambda C: A @ C, rhs, rough, tol=1e-8, max_iter=50, flexible=True)
    assert flexible.converged
    # Every solution to a tenth leaves about a tenth of the residual.
    assert flexible.n_iter <= 10


@pytest.mark.parametrize("flexible", [False, True])
@pytest.mark.parametrize("max_iter", [0, 1, 3, 100])
def test_who_follows_the_solution_can_add_it_up(max_iter, flexible):
    A, rhs = definite_matrix(12, 20), right_hand_side(12, 2)
    directions, solution = [], np.zeros_like(rhs)

    def operator(C):
        directions.append(C)
        return A @ C

    def advance(length):
        solution[...] += length * directions[-1]

    result = pcg(operator, rhs, identity, tol=1e-8, max_iter=max_iter, flexible=flexible, advance=advance)
    np.testing.assert_array_equal(solution, result.solution)
