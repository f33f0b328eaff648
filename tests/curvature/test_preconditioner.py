"""What preconditioners solve, in which precision, and how long they are kept."""

from types import SimpleNamespace

import numpy as np
import pytest
from cases import CASES, DenseNetwork, build, curvature_factor

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _kernels
from sklearn_subquad._curvature import preconditioners
from sklearn_subquad._curvature.gram import GramMatrix
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import IdentityFactor, SoftmaxFactor
from sklearn_subquad._curvature.preconditioners import (
    ExactGram,
    GramPreconditioner,
    IdentityPreconditioner,
    SketchPreconditioner,
    cheapest_preconditioner,
    default_sketch_size,
    make_preconditioner,
)
from sklearn_subquad._curvature.sketch import JacobianSketch
from sklearn_subquad._curvature.sketch_features import probe_factors
from sklearn_subquad._linalg.pcg import pcg
from sklearn_subquad._solver.damping_schedule import after_rejection

N = 17
DTYPES = [np.float32, np.float64]
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}


def make(name, n_outputs, sketch="tensor_srht", sketch_size=2 * N):
    return make_preconditioner(name, sketch=sketch, sketch_size=sketch_size, seed=5, n_outputs=n_outputs)


class Linearised:
    """A case's Jacobian; the same dense (n k x number of parameters), and the matrices S of its curvature factor."""

    def __init__(self, case):
        network, x = build(case)
        rng = np.random.default_rng(3)
        row_scale = np.sqrt(rng.uniform(0.5, 2.0, len(x)))
        factor, self.S = curvature_factor(case.factor, len(x), case.n_outputs, case.dtype, rng)
        probes = make_probes(case.n_outputs, rng)
        self.jacobian = Jacobian(network, network.forward(x), row_scale, probes, factor)
        dense = DenseNetwork.of(network).jacobian(x)
        dense = np.einsum("i,icb,icp->ibp", row_scale, self.S, dense, optimize=True)
        self.J = dense.reshape(len(x) * case.n_outputs, -1)


def first_case(**wanted):
    """The first case of the table with these attributes."""
    return next(case for case in CASES if all(getattr(case, name) == value for name, value in wanted.items()))


def right_hand_side(n_outputs, dtype=np.float64):
    return np.random.default_rng(1).standard_normal((N, n_outputs)).astype(dtype)


@pytest.mark.parametrize(
    ("name", "n_outputs", "expected"),
    [
        ("none", 1, IdentityPreconditioner),
        ("gram", 1, ExactGram),
        ("gram", 2, GramPreconditioner),
        ("sketch", 1, SketchPreconditioner),
    ],
)
def test_names_stand_for_classes_by_outputs(name, n_outputs, expected):
    preconditioner = make(name, n_outputs)
    assert type(preconditioner) is expected
    assert preconditioner.exact == (expected is ExactGram)


@pytest.mark.parametrize(
    ("n_rows", "width", "n_outputs", "n_curvatures", "expected"),
    [
        (100, 64, 1, 1, "gram"),
        # As measured by benchmarks/speed/preconditioning.py crossover.
        (3000, 1024, 1, 1, "gram"),
        (3000, 1024, 4, 1, "gram"),
        (5000, 1024, 1, 1, "sketch"),
        (5000, 1024, 4, 1, "sketch"),
        (6000, 4096, 4, 1, "gram"),
        (2000, 16384, 1, 1, "gram"),
        # A sketch has 2,048 columns at most, and would have as many here.
        (2048, 8, 1, 1, "gram"),
        # n x n matrices are not formed unasked; until then, curvatures that are coupled keep them.
        (8192, 1024, 4, 4, "gram"),
        (8193, 1024, 4, 4, "sketch"),
        (8193, 16384, 1, 1, "sketch"),
    ],
)
def test_auto_is_the_cheaper_one(n_rows, width, n_outputs, n_curvatures, expected):
    density = width**-0.2
    chosen = cheapest_preconditioner(n_rows, (width, width), (density, density), n_outputs, n_curvatures)
    assert chosen == expected


@pytest.mark.parametrize(("limit", "size"), [(4096, 2 * N), (30, 30), (N, N), (9, 9)])
def test_a_sketch_has_twice_as_many_columns_as_rows_up_to_a_limit(limit, size, monkeypatch):
    monkeypatch.setattr(preconditioners, "_MAX_AUTO_SKETCH_SIZE", limit)
    assert default_sketch_size(N) == size


SOLVER_CASES = [case for case in CASES if case.n_layers < 3 and case.dtype == "float64" and case.skip]
PRECONDITIONERS = [
    ("none", "tensor_srht", 2 * N),
    ("gram", "tensor_srht", 2 * N),
    ("sketch", "tensor_srht", 2 * N),
    ("sketch", "tensor_srht", 7),
    ("sketch", "tensor_sketch", 2 * N),
    ("sketch", "tensor_sketch", 7),
]


@pytest.mark.parametrize(("name", "sketch", "size"), PRECONDITIONERS)
@pytest.mark.parametrize("case", SOLVER_CASES, ids=str)
def test_inner_solve_equals_a_dense_solve(case, name, sketch, size):
    linearised = Linearised(case)
    jacobian, J = linearised.jacobian, linearised.J
    ridge, rhs = 0.3 * jacobian.mean_diagonal(), right_hand_side(case.n_outputs)
    preconditioner = make(name, case.n_outputs, sketch, size)
    preconditioner.prepare(jacobian, same_rows=False)
    preconditioner.factor(ridge)
    inner = pcg(lambda C: jacobian.gram_matvec(C) + ridge * C, rhs, preconditioner.apply, tol=1e-10, max_iter=500)
    wanted = np.linalg.solve(J @ J.T + ridge * np.eye(rhs.size), rhs.ravel()).reshape(rhs.shape)
    assert inner.converged
    # The error is at most cond * tol relative to the solution; cond <= 1 + |J J^T| / ridge < 1e3 here.
    np.testing.assert_allclose(inner.solution, wanted, atol=1e-7 * np.abs(wanted).max())
    if preconditioner.exact:
        np.testing.assert_allclose(preconditioner.apply(rhs), wanted, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("factor", ["identity", "diagonal", "softmax"])
def test_a_better_preconditioner_needs_fewer_iterations(factor):
    jacobian = Linearised(first_case(n_layers=2, n_outputs=3, dtype="float64", factor=factor)).jacobian
    ridge, rhs, needed = 1e-2 * jacobian.mean_diagonal(), right_hand_side(3), {}
    for name, size in [("none", 2 * N), ("sketch", 4000), ("gram", 2 * N)]:
        preconditioner = make(name, 3, sketch_size=size)
        preconditioner.prepare(jacobian, same_rows=False)
        preconditioner.factor(ridge)
        needed[name] = pcg(
            lambda C: jacobian.gram_matvec(C) + ridge * C, rhs, preconditioner.apply, tol=1e-6, max_iter=500
        ).n_iter
    assert needed["gram"] < needed["none"]
    # The sketched one leaves out how the softmax mixes outputs.
    if factor != "softmax":
        assert needed["gram"] <= needed["sketch"] < needed["none"]


@pytest.mark.parametrize("kind", ["tensor_srht", "tensor_sketch"])
@pytest.mark.parametrize("case", [case for case in SOLVER_CASES if case.sparsifier == "topk"], ids=str)
def test_the_sketched_gram_matrix_is_that_of_the_jacobian_on_average(case, kind):
    jacobian = Linearised(case).jacobian
    factors, products = probe_factors(jacobian), []
    for seed in range(100):
        features = JacobianSketch(kind, 64, seed).features(factors, N, np.float64)
        products.append(features @ features.T)
    mean, error = np.mean(products, axis=0), np.std(products, axis=0) / np.sqrt(len(products))
    # 289 entries: 5 standard errors leave a false alarm below one in a thousand.
    assert (np.abs(mean - jacobian.gram.matrix()) <= 5 * error + 1e-12).all()
    assert error.max() < 0.1 * np.abs(jacobian.gram.matrix()).max(), "too wide to tell a bias"


class TestSolution:
    """`apply` against dense solves with the matrix that the preconditioner stands for."""

    @pytest.mark.parametrize("ridge_over_diagonal", [1e-2, 1.0])
    @pytest.mark.parametrize("case", CASES[::5], ids=str)
    def test_gram(self, case, ridge_over_diagonal):
        linearised = Linearised(case)
        jacobian = linearised.jacobian
        preconditioner = make("gram", case.n_outputs)
        preconditioner.prepare(jacobian, same_rows=False)
        ridge = ridge_over_diagonal * jacobian.mean_diagonal()
        preconditioner.factor(ridge)
        # The factor is part of the Gram matrix of one output, and of no other.
        S = linearised.S if case.n_outputs > 1 else None
        check_solution(preconditioner, jacobian.gram.matrix(), ridge, case.n_outputs, case.dtype, S)

    @pytest.mark.parametrize("ridge", [1e-3, 0.5, 30.0])
    @pytest.mark.parametrize("n_outputs", [2, 3, 7])
    @pytest.mark.parametrize("factor", ["diagonal", "softmax"])
    def test_gram_with_the_curvature(self, factor, n_outputs, ridge):
        curvature, S = curvature_factor(factor, N, n_outputs, "float64", np.random.default_rng(2))
        preconditioner = make("gram", n_outputs)
        preconditioner.prepare(Counting(definite(), curvature=curvature, n_outputs=n_outputs), same_rows=False)
        preconditioner.factor(ridge)
        check_solution(preconditioner, definite(), ridge, n_outputs, "float64", S)

    @pytest.mark.parametrize("ridge", [1e-3, 0.5, 30.0])
    def test_gram_with_the_softmax_inverts_a_matrix_per_class(self, ridge):
        curvature, _ = curvature_factor("softmax", N, 3, "float64", np.random.default_rng(2))
        of_classes = preconditioners._SoftmaxGram(definite(), curvature, ridge)._apply_inner
        for column in np.eye(N):
            wanted = [
                np.linalg.solve(np.linalg.inv(np.diag(p)) + definite() / ridge, column)
                for p in curvature.probabilities.T
            ]
            np.testing.assert_allclose(of_classes(np.tile(column[:, None], 3)), np.transpose(wanted), atol=1e-12)

    @pytest.mark.parametrize("p", [1e-16, 1e-8])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_gram_with_probabilities_next_to_zero_and_one(self, dtype, p):
        p = max(p, float(np.finfo(dtype).eps))
        probabilities = np.full((N, 3), p, dtype)
        probabilities[np.arange(N), np.arange(N) % 3] = 1 - 2 * p
        curvature = SoftmaxFactor(probabilities)
        wide = probabilities.astype(np.float64)
        S = np.stack([np.diag(np.sqrt(row)) - np.outer(row, np.sqrt(row)) for row in wide])
        preconditioner = make("gram", 3)
        preconditioner.prepare(Counting(definite(), dtype, curvature), same_rows=False)
        for ridge in (1e-6, 1.0):
            preconditioner.factor(ridge)
            check_solution(preconditioner, definite(), ridge, 3, dtype, S)

    @pytest.mark.parametrize("ridge", [1e-2, 0.5, 30.0])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("factor", ["diagonal", "softmax"])
    @pytest.mark.parametrize("single", [False, True])
    def test_gram_of_many_outputs_iterates_with_every_curvature(self, single, factor, dtype, ridge, monkeypatch):
        monkeypatch.setattr(preconditioners, "SINGLE_RIDGE", 0.0 if single else np.inf)
        monkeypatch.setattr(preconditioners, "MAX_FACTORED_OUTPUTS", 4)
        curvature, S = curvature_factor(factor, N, 5, dtype, np.random.default_rng(2))
        preconditioner = make("gram", 5)
        preconditioner.prepare(Counting(definite(), dtype, curvature, n_outputs=5), same_rows=False)
        preconditioner.factor(ridge)
        assert preconditioner.varies
        inner = np.einsum("iab,ij,jac->ibjc", S, definite(), S, dtype=np.float64).reshape(5 * N, 5 * N)
        rhs = right_hand_side(5, dtype)
        left = rhs.ravel() - (inner + ridge * np.eye(rhs.size)) @ preconditioner.apply(rhs).ravel()
        assert np.linalg.norm(left) <= 1.001 * preconditioners._GRAM_TOL * np.linalg.norm(rhs)
        used = "float32" if single else dtype
        monkeypatch.setattr(preconditioners, "_GRAM_TOL", np.finfo(used).eps)
        check_solution(preconditioner, definite(), ridge, 5, used, S)

    def test_gram_of_many_outputs_is_in_double_precision_near_rounding(self):
        rng = np.random.default_rng(2)
        curvature, _ = curvature_factor("softmax", N, 40, "float64", rng)
        preconditioner = make("gram", 40)
        preconditioner.prepare(Counting(definite(), "float64", curvature, n_outputs=40), same_rows=False)
        for ridge, dtype in ((1.0, "float32"), (1e-9, "float64")):
            preconditioner.factor(ridge)
            assert preconditioner._solver._gram.dtype == dtype

    @pytest.mark.parametrize("factor", ["identity", "diagonal", "softmax"])
    def test_gram_of_few_outputs_is_a_linear_map(self, factor):
        curvature, _ = curvature_factor(factor, N, 5, "float64", np.random.default_rng(2))
        preconditioner = make("gram", 5)
        preconditioner.prepare(Counting(definite(), curvature=curvature, n_outputs=5), same_rows=False)
        assert not preconditioner.varies

    # With fewer columns than rows, and more.
    @pytest.mark.parametrize("size", [5, 60])
    @pytest.mark.parametrize("factor", ["diagonal", "softmax"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_sketch_of_many_outputs_has_their_mean_curvature(self, dtype, factor, size, monkeypatch, factored):
        monkeypatch.setattr(preconditioners, "MAX_FACTORED_OUTPUTS", 2)
        jacobian = Linearised(first_case(n_layers=2, n_outputs=3, dtype=dtype, factor=factor)).jacobian
        preconditioner = make("sketch", 3, sketch_size=size)
        preconditioner.prepare(jacobian, same_rows=False)
        ridge = 0.1 * jacobian.mean_diagonal()
        preconditioner.factor(ridge)
        assert factored == [dtype]
        features = JacobianSketch("tensor_srht", size, 5).features(probe_factors(jacobian), N, np.dtype(dtype))
        features = features.astype(np.float64)
        mean = np.square(jacobian.output_scales(), dtype=np.float64).mean()
        check_solution(preconditioner, mean * features @ features.T, ridge, 3, dtype)

    # Fewer columns than rows, as many, and more.
    @pytest.mark.parametrize("size", [1, 5, N - 1, N, N + 1, 60])
    @pytest.mark.parametrize("kind", ["tensor_srht", "tensor_sketch"])
    @pytest.mark.parametrize("factor", ["identity", "diagonal", "softmax"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_sketch(self, dtype, factor, kind, size):
        jacobian = Linearised(first_case(n_layers=2, n_outputs=3, dtype=dtype, factor=factor)).jacobian
        preconditioner = make("sketch", 3, kind, size)
        preconditioner.prepare(jacobian, same_rows=False)
        features = JacobianSketch(kind, size, 5).features(probe_factors(jacobian), N, np.dtype(dtype))
        features = features.astype(np.float64)
        for ridge in (0.1, 5.0):
            preconditioner.factor(ridge * jacobian.mean_diagonal())
            ridge_of_matrix = ridge * jacobian.mean_diagonal()
            S = diagonals(jacobian.output_scales())
            check_solution(preconditioner, features @ features.T, ridge_of_matrix, 3, dtype, S)

    def test_none(self):
        preconditioner, rhs = make("none", 3), right_hand_side(3)
        preconditioner.prepare(None, same_rows=False)
        preconditioner.factor(1.0)
        preconditioner.observe(100, True)
        assert preconditioner.apply(rhs) is rhs

    @pytest.mark.parametrize("name", ["gram", "sketch"])
    @pytest.mark.parametrize("n_outputs", [1, 3])
    def test_the_right_hand_side_and_the_gram_matrix_are_left_alone(self, n_outputs, name):
        jacobian = Linearised(first_case(n_outputs=n_outputs)).jacobian
        gram = jacobian.gram.matrix().copy()
        preconditioner, rhs = make(name, n_outputs), right_hand_side(n_outputs, jacobian.dtype)
        before = rhs.copy()
        preconditioner.prepare(jacobian, same_rows=False)
        preconditioner.factor(0.5)
        first = preconditioner.apply(rhs)
        np.testing.assert_array_equal(preconditioner.apply(rhs), first)
        np.testing.assert_array_equal(rhs, before)
        np.testing.assert_array_equal(jacobian.gram.matrix(), gram)


def check_solution(preconditioner, matrix, ridge, n_outputs, dtype, S=None):
    """`apply` solves ``(S^T (matrix ⊗ I) S + ridge I) c = r``, S being matrices (n x k x k) or None for I."""
    rhs = right_hand_side(n_outputs, dtype)
    solution = preconditioner.apply(rhs)
    assert solution.dtype == dtype
    assert solution.shape == rhs.shape
    S = np.tile(np.eye(n_outputs), (N, 1, 1)) if S is None else S.astype(np.float64)
    inner = np.einsum("iab,ij,jac->ibjc", S, matrix, S).reshape(rhs.size, rhs.size)
    wanted = np.linalg.solve(inner + ridge * np.eye(rhs.size), rhs.ravel().astype(np.float64)).reshape(rhs.shape)
    condition = 1 + np.linalg.norm(inner, 2) / ridge
    bound = condition * 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(solution, wanted, rtol=0, atol=bound * np.abs(wanted).max())


def diagonals(scales):
    """Matrices (n x k x k) with the scales (n x k) on their diagonals."""
    return None if scales is None else scales[:, :, None] * np.eye(scales.shape[1])


class Counting:
    """Stands for a Jacobian with a given Gram matrix, and counts how often it is asked for it."""

    n_rows = N

    def __init__(self, gram, dtype=np.float64, curvature=None, n_outputs=3):
        self._gram, self.dtype, self.n_outputs = gram, np.dtype(dtype), n_outputs
        self.curvature = IdentityFactor() if curvature is None else curvature
        self.n_asked = 0

    @property
    def gram(self):
        return SimpleNamespace(matrix=self._matrix)

    def _matrix(self):
        self.n_asked += 1
        return self._gram

    def output_scales(self):
        return None if self.curvature.is_identity else self.curvature.output_scales()


def definite(seed=0, smallest=1.0):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))[0]
    return (Q * np.linspace(smallest, 3.0, N)) @ Q.T


@pytest.fixture
def factored(monkeypatch):
    """The dtypes of all matrices that were factored, successfully or not."""
    dtypes, potrf = [], _kernels.potrf

    def recording(matrix):
        dtypes.append(matrix.dtype)
        return potrf(matrix)

    monkeypatch.setattr(_kernels, "potrf", recording)
    return dtypes


class TestPrecision:
    @pytest.mark.parametrize(("factor", "n_factored"), [("identity", 1), ("diagonal", 3)])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_that_of_the_jacobian_is_enough_for_well_conditioned_matrices(self, dtype, factor, n_factored, factored):
        curvature, S = curvature_factor(factor, N, 3, dtype, np.random.default_rng(2))
        preconditioner = make("gram", 3)
        preconditioner.prepare(Counting(definite(), dtype, curvature), same_rows=False)
        preconditioner.factor(0.1)
        # One for all outputs, or one for each.
        assert factored == [dtype] * n_factored
        check_solution(preconditioner, definite(), 0.1, 3, dtype, S)

    def test_double_where_rounding_makes_a_matrix_singular(self, factored):
        # In single precision 1 + 1e-9 is 1, and the second pivot of the matrix of ones is zero.
        preconditioner = make("gram", 3)
        preconditioner.prepare(Counting(np.ones((N, N)), np.float32), same_rows=False)
        preconditioner.factor(1e-9)
        assert factored == [np.float32, np.float64]
        rhs = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)
        solution = preconditioner.apply(rhs)
        assert solution.dtype == np.float32
        # By Sherman and Morrison.
        wanted = (rhs - rhs.astype(np.float64).sum(axis=0) / (N + 1e-9)) / 1e-9
        np.testing.assert_allclose(solution, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", ["gram", "sketch"])
    def test_matrices_that_are_not_definite_are_refused_until_the_ridge_is_high_enough(self, name, dtype, factored):
        preconditioner = make(name, 3, sketch_size=N)
        indefinite = definite(smallest=-1.0)
        if name == "gram":
            preconditioner.prepare(Counting(indefinite, dtype), same_rows=False)
        else:
            case = first_case(n_outputs=3, dtype=np.dtype(dtype).name, factor="identity")
            preconditioner.prepare(Linearised(case).jacobian, same_rows=False)
            preconditioner._gram = indefinite.astype(dtype)
        n_tries = 2 if dtype == np.float32 else 1
        # The same ridge again is no better, and neither is one close by.
        for ridge in (0.5, 0.5, 0.6):
            factored.clear()
            with pytest.raises(np.linalg.LinAlgError):
                preconditioner.factor(ridge)
            assert len(factored) == n_tries
        preconditioner.factor(1.5)
        check_solution(preconditioner, indefinite, 1.5, 3, dtype)
        # Close to one that worked, so that its factor serves.
        preconditioner.factor(0.7)
        check_solution(preconditioner, indefinite, 1.5, 3, dtype)
        with pytest.raises(np.linalg.LinAlgError):
            preconditioner.factor(0.3)
        preconditioner.factor(1.2)
        check_solution(preconditioner, indefinite, 1.2, 3, dtype)

    def test_exact_gram_is_refused_when_it_is_applied(self):
        jacobian = Linearised(first_case(n_outputs=1, dtype="float64")).jacobian
        preconditioner = make("gram", 1)
        preconditioner.prepare(jacobian, same_rows=True)
        preconditioner.factor(-1e6)
        with pytest.raises(np.linalg.LinAlgError):
            preconditioner.apply(right_hand_side(1))
        preconditioner.factor(0.5)
        check_solution(preconditioner, jacobian.gram.matrix(), 0.5, 1, "float64")


class TestReuse:
    """Of one for an earlier linearisation, or for another ridge."""

    # Kept as long as the last count is at most one and a half of the first, and two.
    @pytest.mark.parametrize(
        ("counts", "kept"),
        [
            ([], False),
            ([4], True),
            ([0], True),
            ([4, 8], True),
            ([4, 9], False),
            ([4, 9, 8], True),
            ([10, 17], True),
            ([10, 18], False),
            ([10, 18, 3], True),
            ([0, 2], True),
            ([0, 3], False),
            ([50, 50, 50], True),
        ],
    )
    def test_kept_while_counts_stay_low_on_the_same_rows(self, counts, kept):
        preconditioner, first, second = make("gram", 3), Counting(definite(1)), Counting(definite(2))
        preconditioner.prepare(first, same_rows=False)
        assert first.n_asked == 1
        preconditioner.factor(0.5)
        for count in counts:
            preconditioner.observe(count, True)
        preconditioner.prepare(second, same_rows=True)
        assert second.n_asked == (not kept)
        preconditioner.factor(0.5)
        check_solution(preconditioner, definite(1 if kept else 2), 0.5, 3, "float64")

    # The last solve tells: one that failed before it may have had a lower ridge.
    @pytest.mark.parametrize(
        ("solves", "kept"),
        [
            ([(50, False)], False),
            ([(40, True), (50, False)], False),
            ([(4, True), (0, False)], False),
            ([(50, False), (30, True)], True),
        ],
    )
    def test_a_solve_that_does_not_converge_wears_one_out(self, solves, kept):
        preconditioner, jacobian = make("gram", 3), Counting(definite())
        preconditioner.prepare(jacobian, same_rows=False)
        for n_iter, converged in solves:
            preconditioner.observe(n_iter, converged)
        preconditioner.prepare(jacobian, same_rows=True)
        assert jacobian.n_asked == (1 if kept else 2)

    @pytest.mark.parametrize("name", ["gram", "sketch"])
    @pytest.mark.parametrize("factor", ["diagonal", "softmax"])
    def test_a_curvature_that_changes_takes_a_new_one_every_time(self, factor, name):
        preconditioner = make(name, 3, sketch_size=N)
        for seed in (0, 1):
            curvature, S = curvature_factor(factor, N, 3, "float64", np.random.default_rng(seed))
            if name == "gram":
                jacobian = Counting(definite(seed), curvature=curvature)
            else:
                at = Linearised(first_case(n_layers=2, n_outputs=3, dtype="float64", factor="identity")).jacobian
                jacobian = Jacobian(at.network, at.activations, at.row_scale[:, 0], at.probes, curvature)
            preconditioner.prepare(jacobian, same_rows=True)
            preconditioner.factor(0.5)
            preconditioner.observe(4, True)
            if name == "gram":
                check_solution(preconditioner, definite(seed), 0.5, 3, "float64", S)
            else:
                features = JacobianSketch("tensor_srht", N, 5).features(probe_factors(jacobian), N, np.float64)
                S = diagonals(jacobian.output_scales())
                check_solution(preconditioner, features @ features.T, 0.5, 3, "float64", S)

    def test_other_rows_always_get_their_own(self):
        preconditioner, second = make("gram", 3), Counting(definite(2))
        preconditioner.prepare(Counting(definite(1)), same_rows=False)
        preconditioner.factor(0.5)
        preconditioner.observe(4, True)
        preconditioner.prepare(second, same_rows=False)
        preconditioner.factor(0.5)
        check_solution(preconditioner, definite(2), 0.5, 3, "float64")

    def test_a_new_one_is_measured_by_its_own_first_count(self):
        preconditioner, jacobian = make("gram", 3), Counting(definite())
        asked = []
        # Worn out after the second, and never again: 30 is what the third starts with.
        for counts in ([4], [9], [30], [46], [47], [1]):
            preconditioner.prepare(jacobian, same_rows=True)
            asked.append(jacobian.n_asked)
            preconditioner.factor(0.5)
            for count in counts:
                preconditioner.observe(count, True)
        assert asked == [1, 1, 2, 2, 2, 2]
        preconditioner.observe(48, True)
        preconditioner.prepare(jacobian, same_rows=True)
        assert jacobian.n_asked == 3

    @pytest.mark.parametrize(
        ("ridge", "kept"), [(1.0, True), (4.0, True), (4.1, False), (0.25, True), (0.24, False), (1e3, False)]
    )
    @pytest.mark.parametrize("name", ["gram", "woodbury", "sketch"])
    def test_a_factor_serves_nearby_ridges(self, name, ridge, kept, factored):
        if name == "gram":
            preconditioner, jacobian, matrix = make("gram", 3), Counting(definite()), definite()
        else:
            size = 5 if name == "woodbury" else 40
            preconditioner = make("sketch", 3, sketch_size=size)
            jacobian = Linearised(first_case(n_outputs=3, dtype="float64")).jacobian
            features = JacobianSketch("tensor_srht", size, 5).features(probe_factors(jacobian), N, np.float64)
            matrix = features @ features.T
        preconditioner.prepare(jacobian, same_rows=False)
        preconditioner.factor(1.0)
        preconditioner.factor(ridge)
        assert len(factored) == (1 if kept else 2)
        # With the same ridge in all of Woodbury's identity.
        check_solution(preconditioner, matrix, 1.0 if kept else ridge, 3, "float64")

    @pytest.mark.parametrize("damping", [0.3, 0.7, 1e-3])
    def test_a_factor_serves_the_attempt_after_a_rejected_one(self, damping, factored):
        preconditioner, mean_diagonal = make("gram", 3), np.pi
        preconditioner.prepare(Counting(definite()), same_rows=False)
        for tried in (damping, after_rejection(damping)):
            preconditioner.factor(tried * mean_diagonal)
        assert len(factored) == 1

    def test_ridges_that_drift_are_measured_from_the_factor(self, factored):
        preconditioner = make("gram", 3)
        preconditioner.prepare(Counting(definite()), same_rows=False)
        for ridge in (1.0, 3.0, 9.0, 27.0, 81.0):
            preconditioner.factor(ridge)
        assert len(factored) == 3
        check_solution(preconditioner, definite(), 81.0, 3, "float64")

    def test_a_factor_ends_with_its_matrix(self, factored):
        preconditioner = make("gram", 3)
        for seed in (1, 2):
            preconditioner.prepare(Counting(definite(seed)), same_rows=False)
            preconditioner.factor(1.0)
        assert len(factored) == 2

    def test_exact_gram_is_always_that_of_the_last_linearisation(self):
        preconditioner = make("gram", 1)
        for factor in (2.0, 5.0):
            gram = GramMatrix([], [np.ones((N, 1))], None)
            gram._matrix = factor * np.eye(N)
            jacobian = SimpleNamespace(gram=gram)
            preconditioner.prepare(jacobian, same_rows=True)
            preconditioner.factor(1.0)
            np.testing.assert_allclose(preconditioner.apply(np.ones((N, 1))), 1 / (factor + 1), rtol=1e-12)


class TestManyOutputs:
    """Fits at the defaults but for narrow layers: inner solves reach their tolerance, in few iterations."""

    OPTIONS = {"hidden_layer_sizes": (64, 64), "n_bins": None, "random_state": 0}

    @pytest.fixture
    def solves(self, monkeypatch):
        """Results of the inner solves with the network."""
        results = []

        def recording(*args, **options):
            results.append(pcg(*args, **options))
            return results[-1]

        monkeypatch.setattr("sklearn_subquad._solver.levenberg_marquardt.pcg", recording)
        return results

    @pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
    def test_hundred_classes_of_three_rows(self, loss, solves):
        rng, y = np.random.default_rng(0), np.arange(300) % 100
        X = rng.standard_normal((100, 10))[y] + 0.5 * rng.standard_normal((300, 10))
        SubquadMLPClassifier(loss=loss, **self.OPTIONS).fit(X, y)
        check_inner_solves(solves)

    @pytest.mark.filterwarnings("ignore:No step lowers:sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("share_of_noise", [0.3, 1.0])
    def test_two_hundred_noisy_targets(self, share_of_noise, solves):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((400, 10))
        signal = np.sin(X @ rng.standard_normal((10, 200)) / 2)
        Y = (1 - share_of_noise) * signal + share_of_noise * rng.standard_normal((400, 200))
        SubquadMLPRegressor(**self.OPTIONS).fit(X, Y)
        check_inner_solves(solves)


def check_inner_solves(solves):
    assert solves
    counts = [each.n_iter for each in solves]
    assert all(each.converged for each in solves)
    # Up to nine where the layers are narrower than the outputs are many, and more in batches, whose damping is low.
    assert np.mean(counts) <= 14
