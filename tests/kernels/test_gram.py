"""Panels of Gram matrices and LAPACK without the GIL, against NumPy."""

import numpy as np
import pytest

from sklearn_subquad._kernels import Pattern, add_hadamard, mirror, potrf, potri, potrs, trtri

DTYPES = [np.float32, np.float64]


def sparse(n, m, density, dtype, seed, block=64):
    """Sparse rows as a pattern with values, and as a dense matrix."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, m)) < density, rng.standard_normal((n, m)), 0).astype(dtype)
    rows, columns = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(n + 1)).astype(np.int32)
    pattern, order = Pattern.from_csr(indptr, columns.astype(np.int32), m, block)
    return (pattern, dense[rows, columns][order]), dense


def panel(matrix, first):
    return np.ascontiguousarray(matrix[first:, first : first + 64])


# Rows, first row of the panel, columns of the sparse rows.
SHAPES = [(1, 0, 3), (63, 0, 70), (64, 0, 1), (65, 64, 130), (130, 64, 200), (700, 512, 90), (700, 0, 90)]
# Sparse rows on the left, a dense part there, sparse rows on the right, a dense part there.
PARTS = [(1, False, 1, False), (2, False, 1, True), (0, True, 1, True), (3, True, 0, True), (1, False, 0, False)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_panel_of_products_of_gram_matrices(shape, parts, dtype):
    n, first, m = shape
    rng, factors, sizes, expected = np.random.default_rng(0), [], [], []
    for side, (n_sparse, has_dense) in enumerate((parts[:2], parts[2:])):
        drawn = [sparse(n, m + 5 * i, 0.3, dtype, 10 * side + i) for i in range(n_sparse)]
        square = rng.standard_normal((n, n)).astype(dtype) if has_dense else np.zeros((n, n), dtype)
        factors.append((panel(square, first) if has_dense else None, [rows for rows, _ in drawn]))
        doubles = [dense.astype(np.float64) for _, dense in drawn]
        expected.append(panel(square + sum(A @ A.T for A in doubles), first))
        sizes.append(panel(abs(square) + sum(abs(A) @ abs(A).T for A in doubles), first))
    before = panel(rng.standard_normal((n, n)).astype(dtype), first)
    total = before.copy()
    add_hadamard(total, first, *factors[0], *factors[1])
    size = abs(before) + sizes[0] * sizes[1]
    assert (abs(total - (before + expected[0] * expected[1])) <= 2 * (m + 20) * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_parts_may_be_columns_of_wider_rows(dtype):
    rows, dense = sparse(70, 40, 0.3, dtype, 0)
    wide = np.random.default_rng(1).standard_normal((6, 64)).astype(dtype)
    total = np.zeros((6, 6), dtype)
    add_hadamard(total, 64, wide[:, :6], [], None, [rows])
    gram = dense[64:].astype(np.float64) @ dense[64:].T
    np.testing.assert_allclose(total, wide[:, :6] * gram, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtypes", [(a, b) for a in DTYPES for b in DTYPES])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_panels_make_a_symmetric_matrix(n, dtypes):
    matrix = np.random.default_rng(0).standard_normal((n, n)).astype(dtypes[0])
    out = np.full((n, n), np.nan, dtypes[1])
    for first in range(0, n, 64):
        mirror(panel(matrix, first), first, out)
    lower = np.tril(matrix)
    np.testing.assert_array_equal(out, (lower + np.tril(matrix, -1).T).astype(dtypes[1]))


def small(n=70, m=40, dtype=np.float32):
    return sparse(n, m, 0.3, dtype, 0)[0]


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


REFUSED = {
    "more columns than a panel": (zeros(70, 65), 0, None, [small()], None, [small()]),
    "more columns than rows": (zeros(6, 7), 64, None, [small()], None, [small()]),
    "no columns": (zeros(70, 0), 0, None, [small()], None, [small()]),
    "a panel that begins within one": (zeros(38, 38), 32, None, [small()], None, [small()]),
    "a negative first row": (zeros(134, 64), -64, None, [small()], None, [small()]),
    "a panel beyond the rows": (zeros(64, 64), 128, None, [small()], None, [small()]),
    "other rows": (zeros(70, 64), 0, None, [small(71)], None, [small()]),
    "too few values": (zeros(70, 64), 0, None, [(small()[0], small()[1][1:])], None, []),
    "values of the other type": (zeros(70, 64), 0, None, [], None, [small(dtype=np.float64)]),
    "dense of another shape": (zeros(70, 64), 0, zeros(70, 63), [], None, [small()]),
    "dense of another type": (zeros(70, 64), 0, None, [small()], zeros(70, 64, dtype=np.float64), []),
    "no pattern": (zeros(70, 64), 0, None, [(None, small()[1])], None, []),
    "no pairs": (zeros(70, 64), 0, None, [small()[0]], None, []),
    "nothing": (zeros(70, 64), 0, None, None, None, []),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_panels_are_refused(case):
    with pytest.raises((TypeError, ValueError)):
        add_hadamard(*REFUSED[case])
    assert not REFUSED[case][0].any()


@pytest.mark.parametrize(
    ("columns", "first", "out"),
    [
        (zeros(10, 5), 1, zeros(10, 10)),
        (zeros(5, 6), 5, zeros(10, 10)),
        (zeros(10, 5), 0, zeros(10, 11)),
        (zeros(12, 5), -2, zeros(10, 10)),
        (zeros(10, 5), 0, zeros(10, 10).T[:, ::2]),
    ],
)
def test_panels_that_do_not_fit_are_refused(columns, first, out):
    with pytest.raises(ValueError, match=r"cannot have shape|contiguous"):
        mirror(columns, first, out)


def definite(n, dtype):
    A = np.random.default_rng(0).standard_normal((n, n))
    return np.asfortranarray(A @ A.T + n * np.eye(n), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 2, 65, 200])
def test_lapack_does_what_numpy_does(n, dtype):
    matrix, tolerance = definite(n, dtype), 1e-4 if dtype == np.float32 else 1e-12
    exact = matrix.astype(np.float64)
    factor = matrix.copy(order="F")
    assert potrf(factor) == 0
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(exact), rtol=tolerance, atol=tolerance)
    # Only the lower triangle counts.
    factor[np.triu_indices(n, 1)] = np.nan
    for k in (0, 1, 3):
        rhs = np.asfortranarray(np.random.default_rng(1).standard_normal((n, k)), dtype=dtype)
        solution = rhs.copy(order="F")
        potrs(factor, solution)
        np.testing.assert_allclose(solution, np.linalg.solve(exact, rhs), rtol=tolerance, atol=tolerance)
    inverse, triangle = factor.copy(order="F"), factor.copy(order="F")
    potri(inverse)
    np.testing.assert_allclose(np.tril(inverse), np.tril(np.linalg.inv(exact)), rtol=tolerance, atol=tolerance)
    trtri(triangle)
    np.testing.assert_allclose(np.tril(triangle) @ np.linalg.cholesky(exact), np.eye(n), atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_the_first_minor_that_is_not_positive_is_told(dtype, value):
    matrix = definite(5, dtype)
    matrix[2, 2] = value
    assert potrf(matrix) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: potrf(np.ones((3, 3))),
        lambda: potrf(np.ones((3, 4), order="F")),
        lambda: potrf(np.ones((3, 3), np.int64, order="F")),
        lambda: potri(np.ones((4, 3), order="F")),
        lambda: trtri(np.ones((4, 3), order="F")),
        lambda: potrs(np.ones((3, 3), order="F"), np.ones((4, 1), order="F")),
        lambda: potrs(np.ones((3, 3), order="F"), np.ones((3, 1), np.float32, order="F")),
        lambda: potrs(np.ones((3, 3), order="F"), np.ones((3, 2))),
        lambda: potrf(None),
    ],
)
def test_malformed_matrices_are_refused(call):
    with pytest.raises((TypeError, ValueError)):
        call()


def test_inputs_may_be_read_only():
    rows, left = small(), zeros(70, 64)
    factor = np.asfortranarray(np.eye(3))
    for array in (rows[1], left, factor):
        array.flags.writeable = False
    add_hadamard(zeros(70, 64), 0, left, [rows], None, [rows])
    mirror(left, 0, zeros(70, 70))
    potrs(factor, np.ones((3, 1), order="F"))
