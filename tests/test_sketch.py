import numpy as np
import pytest
import scipy.linalg

from sklearn_subquad._sketch import SKETCHES, walsh_hadamard

DTYPES = [np.float32, np.float64]
SIZES = [(1, 1), (1, 7), (5, 1), (8, 8), (5, 11), (33, 17)]
N_SEEDS = 700


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 4, 64])
def test_walsh_hadamard_multiplies_by_the_hadamard_matrix(size, dtype):
    # Small integers: the transform is exact.
    rows = np.random.default_rng(0).integers(-9, 10, (3, size)).astype(dtype)
    expected = rows @ scipy.linalg.hadamard(size)
    transformed = walsh_hadamard(rows.copy())
    assert transformed.dtype == dtype
    np.testing.assert_array_equal(transformed, expected)


def test_walsh_hadamard_works_in_place():
    rows = np.random.default_rng(0).standard_normal((3, 8))
    before = rows.copy()
    assert walsh_hadamard(rows) is rows
    np.testing.assert_allclose(walsh_hadamard(rows), 8 * before, rtol=1e-14, atol=1e-14)


@pytest.fixture(params=SKETCHES)
def kind(request):
    return SKETCHES[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sketch_size", [1, 6, 7, 64])
@pytest.mark.parametrize(("n_u", "n_g"), SIZES)
def test_sketch_is_linear_in_each_factor(kind, n_u, n_g, sketch_size, dtype):
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 4, n_u)).astype(dtype)
    g, h = rng.standard_normal((2, 4, n_g)).astype(dtype)
    sketch = kind(n_u, n_g, sketch_size, rng)
    assert sketch(u, g).shape == (4, sketch_size)
    assert sketch(u, g).dtype == dtype
    # No entry of a sketch is larger than the product of the factors' 1-norms.
    size = sum(np.abs(f).sum(axis=1) for f in (u, v)) * sum(np.abs(f).sum(axis=1) for f in (g, h))
    tolerance = 100 * np.finfo(dtype).eps * size[:, None]
    assert (np.abs(sketch(2 * u - 3 * v, g) - (2 * sketch(u, g) - 3 * sketch(v, g))) <= tolerance).all()
    assert (np.abs(sketch(u, 2 * g - 3 * h) - (2 * sketch(u, g) - 3 * sketch(u, h))) <= tolerance).all()


def test_rows_are_sketched_one_by_one(kind):
    rng = np.random.default_rng(0)
    u, g = rng.standard_normal((6, 5)), rng.standard_normal((6, 11))
    sketch = kind(5, 11, 8, rng)
    np.testing.assert_allclose(sketch(u[2:4], g[2:4]), sketch(u, g)[2:4], rtol=1e-12, atol=1e-12)


def test_same_generator_gives_the_same_map(kind):
    u, g = np.ones((2, 5)), np.ones((2, 11))
    first, second = (kind(5, 11, 8, np.random.default_rng(seed))(u, g) for seed in (3, 3))
    other = kind(5, 11, 8, np.random.default_rng(4))(u, g)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def factors(n_u, n_g):
    """Two rows u and two rows g, each pair neither parallel nor orthogonal."""
    rng = np.random.default_rng(7)
    u, g = rng.standard_normal((2, n_u)), rng.standard_normal((2, n_g))
    u[1] += 1.5 * u[0]
    g[1] += 1.5 * g[0]
    return u, g


def sampled_products(kind, u, g, sketch_size):
    """<S(u_0, g_0), S(u_1, g_1)> for many independent maps S."""
    maps = (kind(u.shape[1], g.shape[1], sketch_size, np.random.default_rng(s)) for s in range(N_SEEDS))
    return np.array([np.prod(sketch(u, g), axis=0).sum() for sketch in maps])


@pytest.mark.parametrize(("n_u", "n_g", "sketch_size"), [(1, 7, 16), (8, 8, 37), (5, 11, 16), (5, 11, 1)])
def test_products_of_sketches_are_unbiased(kind, n_u, n_g, sketch_size):
    u, g = factors(n_u, n_g)
    exact = (u[0] @ u[1]) * (g[0] @ g[1])
    products = sampled_products(kind, u, g, sketch_size)
    # Five standard errors, and the rounding of those maps that have no error at all.
    standard_error = products.std(ddof=1) / np.sqrt(N_SEEDS)
    assert abs(products.mean() - exact) <= 5 * standard_error + 1e-12 * abs(exact)
    # The sample must be good enough to tell: a map that is off by half would fail.
    if sketch_size > 1:
        assert 5 * standard_error <= 0.5 * abs(exact)


@pytest.mark.parametrize("times", [4, 64])
def test_variance_falls_like_one_over_the_sketch_size(kind, times):
    # The variance is c / sketch_size: a ratio of `times` is expected. Each sample variance is off by about
    # sqrt((kurtosis - 1) / N_SEEDS), some 12 %, the ratio by 17 %: more than four times that.
    u, g = factors(13, 11)
    variances = [sampled_products(kind, u, g, size).var(ddof=1) for size in (16, 16 * times)]
    assert times / 1.8 <= variances[0] / variances[1] <= times * 1.8


@pytest.mark.parametrize("rows", ["normal", "constant", "single"])
def test_variance_is_bounded_whatever_the_factors(kind, rows):
    # Constant rows have all their Walsh-Hadamard transform in one place, and only the signs spread it.
    u, g = factors(16, 16)
    if rows == "constant":
        u, g = np.ones((2, 2, 16))
    elif rows == "single":
        u, g = np.eye(16)[[[3, 3], [5, 5]]]
    squared_norms = np.prod((u**2).sum(axis=1)) * np.prod((g**2).sum(axis=1))
    # Both sketches of a tensor of order q have a variance of at most (2 + 3^q) / sketch_size times the squared
    # norms (Avron, Nguyen, Woodruff, NeurIPS 2014, for the count sketch; signs alone give 3^q). 30 % more for
    # the error of the sample.
    assert sampled_products(kind, u, g, 32).var(ddof=1) <= 11 / 32 * squared_norms * 1.3
