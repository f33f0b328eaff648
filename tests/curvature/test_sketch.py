import functools
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad._curvature.sketch import SKETCHES, JacobianSketch
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._linalg.threads import worker_threads

DTYPES = [np.float32, np.float64]
N_SEEDS = 400

over_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=SKETCHES)
def kind(request):
    return request.param


class Draw:
    """Normal factors of some rows, no two of which are orthogonal."""

    def __init__(self, n_rows, dtype=np.float64):
        self.n_rows, self.dtype, self.rng = n_rows, np.dtype(dtype), np.random.default_rng(0)

    def dense(self, n_columns):
        return (self.rng.standard_normal((self.n_rows, n_columns)) + 0.5).astype(self.dtype)

    def sparse(self, n_columns, density=0.5):
        active = self.rng.random((self.n_rows, n_columns)) < density
        return SparseRows.from_csr(csr_array(self.dense(n_columns) * active))

    def ones(self):
        return np.ones((self.n_rows, 1), self.dtype)


# One layer (u, h, x) of every form that a Jacobian has; widths are powers of two, just above one, and far above one.
LAYERS = {
    "hidden layer": lambda draw: (draw.sparse(16), draw.sparse(8), None),
    "first layer": lambda draw: (draw.sparse(33), None, draw.dense(3)),
    "skip connection": lambda draw: (draw.sparse(200), draw.sparse(64), draw.dense(5)),
    "output layer": lambda draw: (draw.ones(), draw.sparse(70), draw.dense(5)),
    "dense layer": lambda draw: (draw.dense(11), None, draw.dense(7)),
    "single numbers": lambda draw: (draw.dense(1), None, draw.dense(1)),
}


def network(draw):
    """Three layers and an output layer, for two probes."""
    h, k, x = draw.sparse(16), draw.sparse(20), draw.dense(5)
    return [[(draw.sparse(16), None, x), (draw.sparse(20), h, x), (draw.ones(), k, None)] for _ in range(2)]


def first_coordinates(draw):
    """Two layers whose factors have nothing but a first coordinate, which no sign is ever taken of."""
    u, x = np.zeros((2, draw.n_rows, 4), draw.dtype)
    u[:, 0], x[:, 0] = 1, draw.dense(1)[:, 0]
    return [[(u, None, x), (u, None, x)]]


FACTORS = {
    **{name: lambda draw, layer=layer: [[layer(draw)]] for name, layer in LAYERS.items()},
    "constant rows": lambda draw: [[(np.ones((draw.n_rows, 16)), None, np.ones((draw.n_rows, 16)))]],
    "same layer three times": lambda draw: [3 * [LAYERS["skip connection"](draw)]],
    "same probe three times": lambda draw: 3 * [[LAYERS["skip connection"](draw)]],
    "first coordinates": first_coordinates,
    "network": network,
}

over_layers = pytest.mark.parametrize("layer", LAYERS)
over_factors = pytest.mark.parametrize("form", FACTORS)


def features(kind, factors, sketch_size=32, seed=0):
    u, _, _ = factors[0][0]
    return JacobianSketch(kind, sketch_size, seed).features(factors, u.shape[0], u.dtype)


def dense(part):
    return part.to_csr().toarray() if isinstance(part, SparseRows) else part


def gram(factors):
    """The oracle: the mean over probes of the sum over layers of (u u^T) * (g g^T), g = [h, x]."""
    total = 0.0
    for layers in factors:
        for layer in layers:
            u, *g = (dense(part).astype(np.float64) for part in layer if part is not None)
            total = total + (u @ u.T) * sum(part @ part.T for part in g)
    return total / len(factors)


# One map --------------------------------------------------------------------------------------------------------------


def other_values(part, rng):
    """Other numbers in the same form."""
    if isinstance(part, SparseRows):
        return part.with_values(other_values(part.values, rng))
    return None if part is None else rng.standard_normal(part.shape).astype(part.dtype)


def mixed(a, first, b, second):
    """``a * first + b * second`` for parts of the same form."""
    if isinstance(first, SparseRows):
        return first.with_values(mixed(a, first.values, b, second.values))
    return None if first is None else first.dtype.type(a) * first + first.dtype.type(b) * second


def one_norms(*parts):
    return sum(np.abs(dense(part)).sum(axis=1, dtype=np.float64) for part in parts if part is not None)


@over_dtypes
@pytest.mark.parametrize("sketch_size", [1, 6, 7, 64])
@pytest.mark.parametrize("n_rows", [1, 64, 70])
@over_layers
def test_sketch_is_linear_in_each_factor(kind, layer, n_rows, sketch_size, dtype):
    u, h, x = LAYERS[layer](Draw(n_rows, dtype))
    rng = np.random.default_rng(1)
    v, k, y = (other_values(part, rng) for part in (u, h, x))

    def sketch(*layer):
        return features(kind, [[layer]], sketch_size)

    assert sketch(u, h, x).shape == (n_rows, sketch_size)
    assert sketch(u, h, x).dtype == dtype
    # No element of a sketch is larger than the product of the factors' 1-norms.
    tolerance = 30 * np.finfo(dtype).eps * (one_norms(u, v) * one_norms(h, k, x, y))[:, None]
    difference = sketch(mixed(2, u, -3, v), h, x) - (2 * sketch(u, h, x) - 3 * sketch(v, h, x))
    assert (np.abs(difference) <= tolerance).all()
    difference = sketch(u, mixed(2, h, -3, k), mixed(2, x, -3, y)) - (2 * sketch(u, h, x) - 3 * sketch(u, k, y))
    assert (np.abs(difference) <= tolerance).all()


def test_sparse_and_dense_factors_have_the_same_sketch(kind):
    draw = Draw(70)
    u, h, x = draw.sparse(33), draw.sparse(21), draw.dense(5)
    together = np.concatenate([dense(h), x], axis=1)
    expected = features(kind, [[(u, h, x)]])
    for layer in [(dense(u), h, x), (u, None, together), (np.asfortranarray(dense(u)), None, together)]:
        np.testing.assert_allclose(features(kind, [[layer]]), expected, rtol=1e-12, atol=1e-12)


def test_layers_add_up_and_probes_are_averaged(kind):
    # Where all layers and probes but one are zero, its own sketch remains.
    first, second = network(Draw(70))
    zero = [tuple(mixed(0, part, 0, part) for part in layer) for layer in second]
    whole = features(kind, [first, second])
    alone = features(kind, [first, zero]) + features(kind, [zero, second])
    np.testing.assert_allclose(whole, alone, rtol=1e-11, atol=1e-11)
    parts = [features(kind, [[*zero[:i], first[i], *zero[i + 1 :]], zero]) for i in range(len(first))]
    np.testing.assert_allclose(features(kind, [first, zero]), sum(parts), rtol=1e-11, atol=1e-11)
    # The first probe's maps do not depend on how many follow.
    once = features(kind, [first])
    np.testing.assert_allclose(features(kind, [first, zero]), once / np.sqrt(2), rtol=1e-11, atol=1e-11)


@over_layers
def test_rows_are_sketched_one_by_one(kind, layer):
    # Every row of many panels is the same: its sketch depends neither on its place nor on the others.
    u, h, x = (None if part is None else dense(part) for part in LAYERS[layer](Draw(1)))

    def repeated(part, n_rows):
        return None if part is None else np.repeat(part, n_rows, axis=0)

    def sketch(n_rows):
        rows = None if h is None else SparseRows.from_csr(csr_array(repeated(h, n_rows)))
        return features(kind, [[(repeated(u, n_rows), rows, repeated(x, n_rows))]])

    np.testing.assert_allclose(sketch(1100), np.repeat(sketch(1), 1100, axis=0), rtol=1e-12, atol=1e-12)


@over_factors
def test_precision_does_not_change_the_map(kind, form):
    single, double = (
        [[tuple(as_type(part, dtype) for part in layer) for layer in layers] for layers in FACTORS[form](Draw(70))]
        for dtype in DTYPES
    )
    scale = np.sqrt(np.diag(gram(double)))[:, None]
    np.testing.assert_allclose(features(kind, single) / scale, features(kind, double) / scale, atol=1e-5)


def as_type(part, dtype):
    if isinstance(part, SparseRows):
        return part.with_values(part.values.astype(dtype))
    return None if part is None else part.astype(dtype)


@pytest.mark.parametrize("seed", [3, (3, 4)], ids=str)
def test_same_seed_gives_the_same_maps(kind, seed):
    factors = network(Draw(5))
    np.testing.assert_array_equal(features(kind, factors, seed=seed), features(kind, factors, seed=seed))
    assert (features(kind, factors, seed=seed) != features(kind, factors, seed=4)).any()


def test_no_rows_have_no_features(kind):
    assert features(kind, network(Draw(0)), sketch_size=7).shape == (0, 7)


# Many maps ------------------------------------------------------------------------------------------------------------


def sampled_grams(kind, factors, sketch_size):
    """Φ Φ^T for many independent maps."""
    sketches = (features(kind, factors, sketch_size, seed) for seed in range(N_SEEDS))
    return np.array([phi @ phi.T for phi in sketches])


# Both sketches of a tensor of order q have a variance of at most (2 + 3^q) / sketch_size times the squared norms
# (Avron, Nguyen, Woodruff, NeurIPS 2014, for the count sketch; signs alone give 3^q). Every two layers add two
# uncorrelated products of independent sketches, each of variance 1 / sketch_size times the squared norms.
VARIANCE = 2 + 3**2


@over_factors
def test_features_are_unbiased(kind, form):
    factors = FACTORS[form](Draw(3))
    exact, sketch_size = gram(factors), 256
    standard_error = np.sqrt(VARIANCE / sketch_size / N_SEEDS * np.outer(np.diag(exact), np.diag(exact)))
    # Five of them are a twentieth of the norms: a map that is off by more fails.
    assert (np.abs(sampled_grams(kind, factors, sketch_size).mean(axis=0) - exact) <= 5 * standard_error).all()


SKETCH_SIZES = np.array([16, 64, 256])


@functools.cache
def relative_variances(kind, form):
    """Mean squared errors of the elements of Φ Φ^T, relative to the norms of their rows, for every sketch size."""
    factors = FACTORS[form](Draw(3))
    exact = gram(factors)
    norms = np.outer(np.diag(exact), np.diag(exact))
    errors = [sampled_grams(kind, factors, size) - exact for size in SKETCH_SIZES]
    return np.mean(np.square(errors) / norms, axis=(1, 2, 3))


@over_factors
def test_variance_is_bounded_whatever_the_factors(kind, form):
    # A sampled variance is off by sqrt((kurtosis - 1) / N_SEEDS), some 12 %: three times that.
    assert (relative_variances(kind, form) <= 1.4 * VARIANCE / SKETCH_SIZES).all()


# Single numbers have no error, and first coordinates one that is rare and large.
@pytest.mark.parametrize("form", sorted(set(FACTORS) - {"single numbers", "first coordinates"}))
def test_relative_error_falls_like_the_square_root_of_the_sketch_size(kind, form):
    variances = relative_variances(kind, form)
    ratios = variances[:-1] / variances[1:]
    # The ratio of two such samples is off by 17 %: four times that.
    assert ((ratios >= 4 / 1.7) & (ratios <= 4 * 1.7)).all()


def test_distortion_of_the_row_space_falls_like_the_square_root_of_the_sketch_size(kind):
    """Of all inner products at once: the norm of G^-1/2 (Φ Φ^T) G^-1/2 - I, which decides the inner iterations.

    Far above the number of rows (here 8) that norm is proportional to 1 / sqrt(sketch_size) in expectation. Its
    standard deviation is below 0.35 of its mean (checked below), that of a mean of 60 below 0.046, that of the ratio of
    two below 0.064 times the ratio: five of them are 0.32.
    """
    draw = Draw(8)
    factors = network(draw)
    values, vectors = np.linalg.eigh(gram(factors))
    whiten = vectors / np.sqrt(values)
    means = []
    for size in (1024, 4096):
        distortions = []
        for seed in range(60):
            whitened = whiten.T @ features(kind, factors, size, seed)
            distortions.append(np.linalg.norm(whitened @ whitened.T - np.eye(8), 2))
        assert np.std(distortions) < 0.35 * np.mean(distortions)
        means.append(np.mean(distortions))
    assert means[1] < 0.5
    assert abs(means[0] / means[1] / 2 - 1) < 0.32


# Speed and memory -----------------------------------------------------------------------------------------------------


@over_dtypes
@pytest.mark.parametrize("n_jobs", [1, 2, 4])
def test_threads_do_not_change_a_bit(kind, n_jobs, dtype):
    factors = network(Draw(600, dtype))
    expected = features(kind, factors)
    with worker_threads(n_jobs):
        np.testing.assert_array_equal(features(kind, factors), expected)


def test_no_dense_matrix_of_all_rows_is_made(kind):
    draw = Draw(2048, np.float32)
    u, h = (draw.sparse(4096, 0.02) for _ in "uh")
    factors = [[(u, h, None)]]
    features(kind, factors)
    tracemalloc.start()
    try:
        features(kind, factors)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two tiles of 64 rows are a sixteenth of a matrix of 2048.
    assert peak < 2048 * 4096 * 4 / 10
