from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad._linalg.columnwise import ColumnwiseSum, sparse_term
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.sparse_rows import SparseRows, block_size
from sklearn_subquad._linalg.threads import worker_threads


@dataclass(frozen=True)
class Case:
    """A sum of so many products (n x m) of inner dimension d or r; `density` is that of sparse factors."""

    n: int
    d: int
    r: int
    m: int
    n_dense: int
    n_sparse: int
    density: float
    dtype: str

    def __str__(self):
        terms = f"{self.n_dense}dense-{self.n_sparse}sparse"
        return f"{self.n}x{self.m}-d{self.d}-r{self.r}-{terms}-{self.density}-{self.dtype}"

    @property
    def shape(self):
        return self.n, self.m

    @property
    def eps(self):
        return np.finfo(self.dtype).eps


# The number of dense and sparse products, and the density.
TERMS = [(0, 0, 0.0), (1, 0, 0.0), (0, 1, 0.3), (1, 1, 0.01), (1, 2, 0.04)]
CASES = [
    Case(*sizes, *terms, dtype)
    # Ragged panels, one to several groups of columns, more than the 512 rows of a chunk, and no rows.
    for sizes in [
        (1, 1, 1, 1),
        (5, 3, 2, 63),
        (5, 3, 2, 64),
        (7, 2, 130, 65),
        (3, 4, 5, 1300),
        (600, 5, 70, 300),
        (0, 3, 2, 70),
    ]
    for terms in TERMS
    for dtype in ("float32", "float64")
]

# Densities that a caller may expect: each makes blocks of another size.
EXPECTED_DENSITIES = [0.01, 0.04, 0.3]


def dense(rows):
    return rows.to_csr().toarray()


def stored(rows):
    """Where the entries are, zeros among them included."""
    return dense(rows.with_values(np.ones_like(rows.values))) == 1


def normal(rng, shape):
    return rng.standard_normal(shape)


def small_integers(rng, shape):
    """Integers so small that no sum of their products is rounded, in either precision."""
    return rng.integers(-2, 3, shape)


def draw(case, numbers=normal):
    """The `ColumnwiseSum` of a case, what it is in double precision, and the size of its terms."""
    rng = np.random.default_rng(0)
    total, size = np.zeros(case.shape), np.zeros(case.shape)
    factors, terms = None, []

    def count(A, B):
        A, B = A.astype(np.float64), B.astype(np.float64)
        nonlocal total, size
        total, size = total + A @ B, size + abs(A) @ abs(B)

    if case.n_dense:
        factors = tuple(numbers(rng, shape).astype(case.dtype) for shape in ((case.n, case.d), (case.d, case.m)))
        count(*factors)
    for _ in range(case.n_sparse):
        P = numbers(rng, (case.n, case.r)).astype(case.dtype)
        U = ((rng.random((case.r, case.m)) < case.density) * numbers(rng, (case.r, case.m))).astype(case.dtype)
        terms.append(sparse_term(PackedMatrix.from_dense(P), SparseRows.from_csr(csr_array(U))))
        count(P, U)
    return ColumnwiseSum(case.shape, case.dtype, factors, terms), total, size


def rounding(case, size):
    """A bound of the rounding errors of the sum, in any order."""
    n_terms = case.n_dense * case.d + case.n_sparse * case.r
    return (n_terms + 2) * case.eps * size


@pytest.fixture
def threads():
    """Work is shared; that their number does not matter is tested in test_parallel.py."""
    with worker_threads(2):
        yield


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_dense_is_the_sum_of_the_products(case):
    products, total, size = draw(case)
    actual = products.dense()
    assert actual.shape == case.shape
    assert actual.dtype == case.dtype
    assert (np.abs(actual - total) <= rounding(case, size)).all()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("expected_density", EXPECTED_DENSITIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_select_keeps_what_exceeds_the_threshold(case, expected_density):
    threshold, gain = 0.7, 1.7
    products, total, size = draw(case)
    rows = products.select(threshold, gain, expected_density)
    assert rows.shape == case.shape
    assert rows.dtype == case.dtype
    assert rows.pattern.block == block_size(expected_density, case.dtype)
    # The threshold, the gain, the difference and the product are rounded as well.
    error = rounding(case, size) + 4 * case.eps * (size + threshold)
    expected = gain * np.maximum(total - threshold, 0)
    assert (np.abs(dense(rows) - expected) <= 2 * gain * error).all()
    assert stored(rows)[total > threshold + error].all()
    assert not stored(rows)[total < threshold - error].any()


@pytest.mark.parametrize("expected_density", EXPECTED_DENSITIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_select_is_exact_on_small_integers(case, expected_density):
    products, total, _ = draw(case, small_integers)
    rows = products.select(1.0, 0.5, expected_density)
    # What equals the threshold is left out.
    np.testing.assert_array_equal(stored(rows), total > 1)
    np.testing.assert_array_equal(dense(rows), 0.5 * np.maximum(total - 1, 0))


@pytest.mark.parametrize(("threshold", "share"), [(-np.inf, 1), (np.inf, 0)])
def test_select_may_keep_everything_or_nothing(threshold, share):
    case = next(case for case in CASES if case.n == 600 and case.n_dense)
    products, _, _ = draw(case)
    assert products.select(threshold, 1.0, 0.3).density == share


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("pattern_density", [0.0, 0.01, 0.04, 1.0])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_pattern_evaluates_the_sum_at_the_entries(case, pattern_density, sparse_rows):
    products, total, size = draw(case)
    csr = sparse_rows(np.random.default_rng(1), *case.shape, pattern_density, case.dtype)
    pattern = SparseRows.from_csr(csr)
    before = pattern.values.copy()
    rows = products.on_pattern(pattern, -1.7)
    assert rows.pattern is pattern.pattern
    assert rows.dtype == case.dtype
    expected = np.where(csr.toarray() != 0, -1.7 * total, 0)
    assert (np.abs(dense(rows) - expected) <= 1.7 * (rounding(case, size) + 2 * case.eps * size)).all()
    np.testing.assert_array_equal(pattern.values, before)


@pytest.mark.parametrize("expected_density", EXPECTED_DENSITIES)
def test_on_the_pattern_of_a_selection_are_its_values_without_the_threshold(expected_density):
    case = next(case for case in CASES if case.n == 600 and case.n_dense and case.n_sparse)
    products, _, _ = draw(case, small_integers)
    selected = products.select(1.0, 0.5, expected_density)
    np.testing.assert_array_equal(products.on_pattern(selected, 0.5).values, selected.values + 0.5)


@pytest.mark.parametrize("n_columns", [299, 301])
def test_on_pattern_refuses_rows_of_another_width(n_columns, sparse_rows):
    case = next(case for case in CASES if case.shape == (600, 300) and case.dtype == "float32")
    products, _, _ = draw(case)
    pattern = SparseRows.from_csr(sparse_rows(np.random.default_rng(1), 600, n_columns, 0.3, np.float32))
    with pytest.raises(ValueError, match=r"z must have shape|blocks from block"):
        products.on_pattern(pattern, 1.0)


def test_terms_add_to_what_is_there_from_their_first_column_on():
    case = next(case for case in CASES if case.m == 1300)
    P, U = np.ones((case.n, 2)), np.arange(2.0 * case.m).reshape(2, case.m)
    term = sparse_term(PackedMatrix.from_dense(P), SparseRows.from_csr(csr_array(U)))
    out = np.full((case.n, 100), 3.0)
    term(out, 640)
    np.testing.assert_array_equal(out, 3 + (P @ U)[:, 640:740])


def test_the_sum_can_be_evaluated_again():
    products, _, _ = draw(CASES[-3])
    np.testing.assert_array_equal(products.dense(), products.dense())
