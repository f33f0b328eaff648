import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad import _kernels
from sklearn_subquad._linalg import costs as costs_module
from sklearn_subquad._linalg import packed
from sklearn_subquad._linalg.costs import (
    FoldingCosts,
    balanced_rank,
    cheapest_route,
    folding_operations,
    query_operations,
)
from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix, strassen_levels
from sklearn_subquad._linalg.sparse_rows import SparseRows

DTYPES = [np.dtype("float32"), np.dtype("float64")]


@pytest.fixture
def factors(sparse_rows):
    """Function of (rank, n_out, n_in, density of U, density of G) that draws U and G."""

    def draw(rank, n_out, n_in, *densities, dtype=np.float32):
        rng = np.random.default_rng(0)
        return [
            SparseRows.from_csr(sparse_rows(rng, rank, n, density, dtype))
            for n, density in zip((n_out, n_in), densities, strict=True)
        ]

    return draw


@pytest.mark.parametrize("level", _kernels.simd_levels())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_sparse_route_folds_in_what_a_sparse_network_has(level, dtype, factors):
    """Targets of the density end at one half; measured, BLAS is ahead from about 0.7 on at the earliest."""
    initial = _kernels.simd_level()
    _kernels.use_simd_level(level)
    try:
        for density in (0.05, 0.5):
            assert cheapest_route(*factors(40, 200, 300, 0.3, density, dtype=dtype), 200) == "scatter"
    finally:
        _kernels.use_simd_level(initial)


@pytest.mark.parametrize("level", _kernels.simd_levels())
def test_every_level_has_costs(level):
    assert set(costs_module._FOLDING_COSTS[level].of_routes(100, 300, 400, 0.2)) == set(ROUTES)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_cost_of_the_sparse_route_grows_with_the_density_beside_that_of_blas(density):
    costs = FoldingCosts(fixed=0.25, per_density=1.5).of_routes(100, 300, 400, density)
    assert set(costs) == set(ROUTES)
    assert costs["blas"] == 1
    assert costs["scatter"] == 0.25 + 1.5 * density


def strassen_operations(p, q, r, addition):
    """Operations of `strassen`, a sum of two numbers being so many of them."""
    if strassen_levels(p, q, r) == 0:
        return p * q * r
    # Per level 5 sums of quarters of each factor and 8 of the result (test_matmul.py counts the seven products).
    sums = (5 * p * q + 5 * q * r + 8 * p * r) / 4
    return 7 * strassen_operations(p / 2, q / 2, r / 2, addition) + addition * sums


@pytest.mark.parametrize("n_out", [1024, 4096, 8192])
def test_cost_of_strassen_is_that_of_the_products_its_route_makes(n_out, factors, monkeypatch):
    made = []

    def recorded(A, B):
        made.append((*A.shape, B.shape[1]))
        return np.zeros((len(A), B.shape[1]), dtype=A.dtype)

    monkeypatch.setattr(packed, "strassen", recorded)
    # The least rank and width at which there is a level.
    U, G = factors(2048, n_out, 2048, 0.0, 0.0)
    PackedMatrix.zeros(n_out, 2048, np.float32).add_product(U, G, "strassen")
    expected = sum(strassen_operations(*shape, costs_module._SUM_OPERATIONS) for shape in made) / (2048 * 2048 * n_out)
    actual = FoldingCosts(fixed=1.0, per_density=1.0).of_routes(2048, 2048, n_out, 0.0)["strassen"]
    np.testing.assert_allclose(actual, expected, rtol=0.01)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.05, 1.0])
def test_cheapest_route_is_a_known_one(density, dtype, factors):
    assert cheapest_route(*factors(3, 50, 70, density, density, dtype=dtype), 50) in ROUTES


@pytest.mark.parametrize(
    ("costs", "density", "route"),
    [
        (FoldingCosts(0.1, 1.0), 0.3, "scatter"),
        (FoldingCosts(0.1, 1.0), 1.0, "blas"),
        (FoldingCosts(2.0, 0.0), 0.3, "blas"),
    ],
)
def test_cheapest_route_follows_the_density_of_the_right_factor(costs, density, route, factors, monkeypatch):
    monkeypatch.setitem(costs_module._FOLDING_COSTS, _kernels.simd_level(), costs)
    for density_of_U in (0.01, 1.0):
        assert cheapest_route(*factors(40, 200, 300, density_of_U, density), 200) == route


@pytest.mark.parametrize("cheap", ROUTES)
def test_cheapest_route_is_that_of_least_cost(cheap, factors, monkeypatch):
    asked = []

    def of_routes(self, rank, n_in, n_out, density):
        asked.append((rank, n_in, n_out, density))
        return {route: 0.5 if route == cheap else 0.6 for route in ROUTES}

    monkeypatch.setattr(FoldingCosts, "of_routes", of_routes)
    U, G = factors(4, 50, 70, 0.3, 0.5)
    assert cheapest_route(U, G, 50) == cheap
    assert asked == [(4, 70, 50, G.nnz / (4 * 70))]


@pytest.mark.parametrize("n_rows", [0, 1, 13])
def test_query_operations_are_two_for_every_row_and_entry(n_rows, factors):
    U, G = factors(6, 50, 70, 0.3, 0.5)
    # A row times G.T, then that times U: a multiplication and an addition for every entry that is not zero.
    operations = sum(2 for factor in (G, U) for entry in factor.to_csr().toarray().ravel() if entry != 0)
    assert query_operations(U, G, n_rows) == query_operations(G, U, n_rows) == n_rows * operations


@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_folding_operations_are_those_of_the_sparse_kernel_and_a_pass_over_the_weights(density, factors, monkeypatch):
    monkeypatch.setattr(costs_module, "_PASS_OPERATIONS", 7)
    U, G = factors(6, 50, 70, 0.3, density)
    # Every entry of G meets all 50 outputs.
    operations = sum(2 * 50 for entry in G.to_csr().toarray().ravel() if entry != 0)
    assert folding_operations(U, G) == operations + 7 * 50 * 70


@pytest.mark.parametrize("densities", [(0.3, 0.5), (1.0, 1.0), (0.05, 0.02)], ids=str)
@pytest.mark.parametrize("n_rows", [3, 40])
def test_balanced_rank_makes_an_iteration_cheapest(n_rows, densities, factors):
    U, G = factors(n_rows, 300, 200, *densities)
    folding = folding_operations(U, G) - 2 * G.nnz * 300

    def operations(n_steps):
        # A pass over the weights every so many steps; half as many are pending on average, for two queries.
        return folding / n_steps + 2 * query_operations(U, G, n_rows) * n_steps / 2

    best = balanced_rank(U, G) / n_rows
    assert all(operations(best) < operations(other * best) for other in (0.9, 0.99, 1.01, 1.1))


def test_balanced_rank_of_factors_without_entries_is_finite():
    for rank in (0, 3):
        U, G = (SparseRows.from_csr(csr_array((rank, n), dtype=np.float32)) for n in (50, 70))
        assert np.isfinite(balanced_rank(U, G))
        assert query_operations(U, G, 5) == 0
