"""The scaled Jacobian as an operator, against a dense Jacobian by the chain rule and central differences."""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, Case, DenseNetwork, as_dense, as_vector, build, curvature_factor, fitting_problem, parameters

from sklearn_subquad import _kernels
from sklearn_subquad._curvature import gram as gram_module
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.jacobian_blocks import JacobianBlocks
from sklearn_subquad._curvature.losses import DiagonalFactor, IdentityFactor, SoftmaxFactor
from sklearn_subquad._curvature.sketch import JacobianSketch
from sklearn_subquad._curvature.sketch_features import probe_factors, sketch_features
from sklearn_subquad._linalg.threads import worker_threads

TOLERANCE = {"float32": 2e-4, "float64": 1e-10}
REGIMES = ("grams", "weights")


class Linearised:
    """A case's network at its rows, with random row scales, and what makes its Jacobian."""

    def __init__(self, case):
        self.case = case
        self.network, self.x = build(case)
        self.activations = self.network.forward(self.x)
        rng = np.random.default_rng(3)
        self.row_scale = np.sqrt(rng.uniform(0.5, 2.0, len(self.x)))
        self.probes = make_probes(case.n_outputs, rng)
        self.factor, self.S = curvature_factor(case.factor, len(self.x), case.n_outputs, case.dtype, rng)

    def jacobian(self):
        return Jacobian(self.network, self.activations, self.row_scale, self.probes, self.factor)

    def dense(self):
        """``diag(row_scale) S^T J`` (n x k x number of parameters), in double precision."""
        return np.einsum("icb,icp->ibp", self.S, self.dense_without_factor(), optimize=True)

    def dense_without_factor(self):
        """``diag(row_scale) J`` (n x k x number of parameters), in double precision."""
        return self.row_scale[:, None, None] * DenseNetwork.of(self.network).jacobian(self.x)

    def seen_by_probes(self):
        """The rows (n x p x number of parameters) whose inner products preconditioners need.

        Those of the probes' outputs; the factor, a number per row, is part of them where there is one output.
        """
        dense = self.dense() if self.case.n_outputs == 1 else self.dense_without_factor()
        return np.einsum("icp,cv->ivp", dense, self.probes)

    def output_scales(self):
        """Norms of the columns of S (n x k), where they are not part of what the probes see."""
        if self.case.n_outputs == 1:
            return np.ones((len(self.x), 1))
        return np.linalg.norm(self.S, axis=1)

    def draw(self, seed):
        """Random numbers (n x k)."""
        shape = len(self.x), self.case.n_outputs
        return np.random.default_rng(seed).standard_normal(shape).astype(self.case.dtype)


def assert_close(actual, desired, case):
    assert np.shape(actual) == np.shape(desired)
    scale = np.abs(desired).max() or 1.0
    np.testing.assert_allclose(actual / scale, desired / scale, atol=TOLERANCE[case.dtype], rtol=0)


def force(regime, monkeypatch):
    monkeypatch.setattr(gram_module, "_LAYER_GRAM_BYTES", 1 << 30 if regime == "grams" else 0)


@pytest.fixture(scope="module", params=CASES, ids=str)
def at(request):
    """Every case, linearised, with its dense Jacobian as `oracle`."""
    linearised = Linearised(request.param)
    linearised.oracle = linearised.dense()
    return linearised


class TestOperator:
    def test_Jt_equals_the_dense_transpose(self, at):
        C = at.draw(5)
        step = at.jacobian().Jt(C)
        assert_close(as_vector(step, at.network), np.einsum("icp,ic->p", at.oracle, C), at.case)
        assert step.factors[0] == []
        # On the patterns of the activations: where an entry is zero by chance it is still stored.
        for pairs, h, previous in zip(step.factors[1:], at.activations.hidden[1:], at.activations.hidden, strict=False):
            [(u, g)] = pairs
            assert u.pattern is h.pattern
            assert u.dtype == at.case.dtype
            assert g is previous

    @pytest.mark.parametrize("regime", REGIMES)
    def test_cotangents_that_are_known_are_used(self, at, regime, monkeypatch):
        force(regime, monkeypatch)
        jacobian, C = at.jacobian(), at.draw(5)
        U = jacobian.scaled_cotangents(C)
        image, step = jacobian.gram_matvec(C), as_vector(jacobian.Jt(C), at.network)
        monkeypatch.setattr(Jacobian, "scaled_cotangents", None)
        np.testing.assert_array_equal(jacobian.gram_matvec(C, U), image)
        np.testing.assert_array_equal(as_vector(jacobian.Jt(C, U), at.network), step)

    def test_J_equals_the_dense_product(self, at):
        jacobian = at.jacobian()
        # Not a combination of the Jacobian's own rows: the dense parts are arbitrary.
        rng = np.random.default_rng(6)
        step = jacobian.Jt(at.draw(7))
        step = replace(
            step,
            input_changes=[None if part is None else random_like(part, rng) for part in step.input_changes],
            output_changes=tuple(None if part is None else random_like(part, rng) for part in step.output_changes),
        )
        tangent = jacobian.J(step)
        assert tangent.dtype == at.case.dtype
        assert_close(tangent, np.einsum("icp,p->ic", at.oracle, as_vector(step, at.network)), at.case)

    @pytest.mark.parametrize("regime", REGIMES)
    def test_gram_matvec_equals_the_dense_product_in_both_regimes(self, at, regime, monkeypatch):
        force(regime, monkeypatch)
        jacobian, C = at.jacobian(), at.draw(8)
        assert jacobian._layer_grams.pay == (regime == "grams")
        image = jacobian.gram_matvec(C)
        assert image.dtype == at.case.dtype
        J = at.oracle.reshape(C.size, -1)
        assert_close(image.ravel(), J @ (J.T @ C.ravel().astype(np.float64)), at.case)
        assert_close(image, jacobian.J(jacobian.Jt(C)).astype(np.float64), at.case)

    def test_J_and_Jt_are_adjoint(self, at):
        jacobian, A, B = at.jacobian(), at.draw(9), at.draw(10)
        step = jacobian.Jt(A)
        left = np.vdot(jacobian.J(step).astype(np.float64), B)
        right = as_vector(step, at.network) @ as_vector(jacobian.Jt(B), at.network)
        size = np.linalg.norm(as_vector(step, at.network)) * np.linalg.norm(as_vector(jacobian.Jt(B), at.network))
        assert abs(left - right) <= TOLERANCE[at.case.dtype] * size

    def test_gram_is_the_mean_over_probes(self, at):
        jacobian, seen = at.jacobian(), at.seen_by_probes()
        wanted = np.einsum("ivp,jvp->ij", seen, seen) / at.probes.shape[1]
        assert jacobian.gram.matrix().dtype == np.float64
        assert_close(jacobian.gram.matrix(), wanted, at.case)
        assert jacobian.gram.matrix() is jacobian.gram.matrix()

    def test_output_scales_are_the_norms_of_the_columns_of_the_factor(self, at):
        scales = at.jacobian().output_scales()
        if at.case.factor == "identity" or at.case.n_outputs == 1:
            assert scales is None
        else:
            assert_close(scales, at.output_scales(), at.case)

    def test_mean_diagonal_is_that_of_the_probes_times_the_mean_square_scale(self, at):
        of_rows = (at.seen_by_probes() ** 2).sum(axis=(1, 2)) / at.probes.shape[1]
        wanted = (of_rows * (at.output_scales() ** 2).mean(axis=1)).sum() / (at.row_scale**2).sum()
        assert at.jacobian().mean_diagonal() == pytest.approx(wanted, rel=TOLERANCE[at.case.dtype])

    def test_probe_factors_are_those_of_the_dense_rows(self, at):
        factors, seen = probe_factors(at.jacobian()), at.seen_by_probes()
        assert len(factors) == at.probes.shape[1]
        n = len(at.x)
        for probe, of_layers in enumerate(factors):
            blocks = []
            for u, h, x in of_layers[:-1]:
                parts = [as_dense(h)] if h is not None else []
                parts += [x] if x is not None else []
                blocks += [np.einsum("ij,ik->ijk", as_dense(u), part).reshape(n, -1) for part in parts]
            u, h, x = of_layers[-1]
            blocks += [
                np.einsum("ij,ik->ijk", part, u).reshape(n, -1) for part in (as_dense(h), *([] if x is None else [x]))
            ]
            assert_close(np.concatenate(blocks, axis=1), seen[:, probe], at.case)

    def test_forward_equals_the_dense_forward(self, at):
        out, pairs, _ = DenseNetwork.of(at.network).forward(at.x)
        assert_close(at.activations.output, out, at.case)
        for rows, (h, _) in zip(at.activations.hidden, pairs[1:], strict=True):
            assert_close(as_dense(rows), h, at.case)

    def test_nothing_of_it_changes_the_network(self, at, monkeypatch):
        before, ranks = parameters(at.network), [weights.rank for weights in at.network.lazy_weights()]
        for regime in REGIMES:
            force(regime, monkeypatch)
            jacobian = at.jacobian()
            jacobian.J(jacobian.Jt(jacobian.gram_matvec(at.draw(1))))
            jacobian.gram.matrix()
        np.testing.assert_array_equal(parameters(at.network), before)
        assert [weights.rank for weights in at.network.lazy_weights()] == ranks


class TestBlocks:
    """The Jacobian of blocks of rows is that of all rows."""

    @pytest.fixture
    def blocks(self, at):
        """Uneven blocks of the case's rows, one of a single row."""
        jacobians = []
        for rows in (slice(0, 9), slice(9, 10), slice(10, None)):
            factor = at.factor
            if isinstance(factor, DiagonalFactor):
                factor = DiagonalFactor(factor.output_scales()[rows])
            elif isinstance(factor, SoftmaxFactor):
                factor = SoftmaxFactor(factor.probabilities[rows])
            activations = at.network.forward(at.x[rows])
            jacobians.append(Jacobian(at.network, activations, at.row_scale[rows], at.probes, factor))
        return JacobianBlocks(jacobians)

    def test_Jt_equals_the_dense_transpose(self, at, blocks):
        C = at.draw(5)
        step = blocks.Jt(C)
        assert [len(pairs) for pairs in step.factors] == [0, *[3] * (at.case.n_layers - 1)]
        assert_close(as_vector(step, at.network), np.einsum("icp,ic->p", at.oracle, C), at.case)

    def test_gram_matvec_equals_the_dense_product(self, at, blocks):
        C = at.draw(8)
        image = blocks.gram_matvec(C)
        assert image.dtype == at.case.dtype
        J = at.oracle.reshape(C.size, -1)
        assert_close(image.ravel(), J @ (J.T @ C.ravel().astype(np.float64)), at.case)

    def test_what_a_step_asks_for_is_that_of_all_rows(self, at, blocks):
        jacobian = at.jacobian()
        assert (blocks.n_rows, blocks.n_outputs, blocks.dtype) == (len(at.x), at.case.n_outputs, at.case.dtype)
        np.testing.assert_array_equal(blocks.row_scale, jacobian.row_scale)
        assert blocks.mean_diagonal() == pytest.approx(jacobian.mean_diagonal(), rel=TOLERANCE[at.case.dtype])
        scales, expected = blocks.output_scales(), jacobian.output_scales()
        assert (scales is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(scales, expected)

    @pytest.mark.parametrize("kind", ["tensor_srht", "tensor_sketch"])
    def test_features_are_the_same_maps_of_the_rows(self, at, blocks, kind):
        sketch = JacobianSketch(kind, 12, 0)
        # Blocks of other sizes are summed in another order.
        assert_close(
            sketch_features(blocks, sketch), sketch_features(at.jacobian(), sketch).astype(np.float64), at.case
        )


def random_like(part, rng):
    return rng.standard_normal(part.shape).astype(part.dtype)


def some_case(n_layers=2, n_outputs=3, dtype="float64", factor="softmax", pending=True):
    return Case(n_layers, n_outputs, True, "shifted_relu", 0.25, dtype, pending, factor)


@pytest.mark.parametrize("n_outputs", [1, 3, 5])
@pytest.mark.parametrize("regime", REGIMES)
def test_gram_matvec_as_a_matrix_is_that_of_the_dense_jacobian_and_symmetric(regime, n_outputs, monkeypatch):
    force(regime, monkeypatch)
    at = Linearised(some_case(n_outputs=n_outputs, factor="softmax" if n_outputs > 1 else "diagonal"))
    jacobian, size = at.jacobian(), len(at.x) * n_outputs
    columns = [jacobian.gram_matvec(unit.reshape(-1, n_outputs)).ravel() for unit in np.eye(size)]
    A = np.column_stack(columns)
    J = at.dense().reshape(size, -1)
    np.testing.assert_allclose(A, J @ J.T, atol=1e-10 * np.abs(J @ J.T).max())
    np.testing.assert_allclose(A, A.T, atol=1e-12 * np.abs(A).max())
    if n_outputs == 1:
        np.testing.assert_allclose(A, jacobian.gram.matrix(), atol=1e-12 * np.abs(A).max())


@pytest.mark.parametrize("n_jobs", [2, 4])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("n_outputs", [1, 5])
def test_products_do_not_depend_on_the_number_of_threads(n_outputs, regime, n_jobs, monkeypatch):
    force(regime, monkeypatch)
    at = Linearised(some_case(n_outputs=n_outputs, dtype="float32", factor="diagonal"))

    def products():
        jacobian = at.jacobian()
        return jacobian.gram_matvec(at.draw(1)).tobytes(), jacobian.gram.matrix().tobytes(), jacobian.mean_diagonal()

    # Also the reference with BLAS on one thread: its sums depend on their number.
    with worker_threads(1):
        serial = products()
    with worker_threads(n_jobs):
        assert products() == serial


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.dtype == "float64" and case.factor == "identity"], ids=str
)
def test_dense_jacobian_matches_central_differences(case):
    # Away from kinks the network is a polynomial along a line: the central difference's error is O(eps²).
    network, x = build(case)
    dense = DenseNetwork.of(network)
    rng = np.random.default_rng(8)
    direction = rng.standard_normal(sum(part.size for part in dense.parts()))
    step = 1e-6
    ahead, behind = (dense.moved(sign * step * direction) for sign in (1, -1))
    for moved in (ahead, behind):
        patterns = [(s != 0) for s in moved.forward(x)[2]]
        wanted = [(s != 0) for s in dense.forward(x)[2]]
        assert all((p == w).all() for p, w in zip(patterns, wanted, strict=True)), "a kink lies in between"
    difference = (ahead.forward(x)[0] - behind.forward(x)[0]) / (2 * step)
    tangent = np.einsum("icp,p->ic", dense.jacobian(x), direction)
    np.testing.assert_allclose(difference, tangent, rtol=1e-6, atol=1e-6 * np.abs(tangent).max())


@pytest.mark.parametrize(
    ("n_outputs", "n_random", "passes"), [(1, 3, 1), (2, 3, 2), (3, 1, 3), (5, 3, 3 + 4), (5, 1, 1 + 4)]
)
@pytest.mark.parametrize("regime", REGIMES)
def test_outputs_that_are_probes_take_one_backward_pass_in_all(regime, n_outputs, n_random, passes, monkeypatch):
    force(regime, monkeypatch)
    at = Linearised(some_case(n_outputs=n_outputs, factor="diagonal"))
    at.probes = make_probes(n_outputs, np.random.default_rng(0), n_random)
    calls, C, cotangents = [], at.draw(0), Jacobian.cotangents

    def counting(self, C):
        calls.append(1)
        return cotangents(self, C)

    monkeypatch.setattr(Jacobian, "cotangents", counting)
    jacobian = at.jacobian()
    jacobian.mean_diagonal()
    jacobian.gram.matrix()
    probe_factors(jacobian)
    for _ in range(2):
        jacobian.Jt(C)
        jacobian.gram_matvec(C)
    # One a probe, and where the probes are not the outputs one more for each Jt.
    assert len(calls) == passes


def test_gram_matrices_of_the_layers_are_computed_once(monkeypatch):
    at = Linearised(some_case(n_layers=3))
    calls, row_gram_columns = [], gram_module.row_gram_columns

    def counting(rows, *where):
        calls.append(rows)
        return row_gram_columns(rows, *where)

    # All rows are in one panel.
    monkeypatch.setattr(gram_module, "row_gram_columns", counting)
    jacobian = at.jacobian()
    for _ in range(3):
        jacobian.gram_matvec(at.draw(0))
    jacobian.gram.matrix()
    hidden = at.activations.hidden
    assert [sum(rows is h for rows in calls) for h in hidden] == [1, 1, 1]


@pytest.mark.parametrize(
    ("n", "widths", "pay"),
    [(10, (64, 64), True), (300, (512, 512), True), (300, (20, 20), False), (400, (20, 20, 20), False)],
)
def test_gram_matrices_serve_few_rows_of_wide_layers(n, widths, pay):
    network, batch, _ = fitting_problem(n=n, widths=widths)
    jacobian = Jacobian(network, network.forward(batch.x), np.ones(n), np.eye(1), IdentityFactor())
    assert jacobian._layer_grams.pay == pay


def test_gram_matrices_have_to_fit(monkeypatch):
    network, batch, _ = fitting_problem(n=10, widths=(64, 64))
    jacobian = Jacobian(network, network.forward(batch.x), np.ones(10), np.eye(1), IdentityFactor())
    for spare, pay in ((0, True), (-1, False)):
        monkeypatch.setattr(gram_module, "_LAYER_GRAM_BYTES", 3 * 10 * 10 * 8 + spare)
        assert jacobian._layer_grams.pay == pay


def test_gram_solve_follows_the_ridge(monkeypatch):
    at = Linearised(some_case(n_outputs=3, factor="softmax"))
    jacobian, rhs = at.jacobian(), np.random.default_rng(9).standard_normal((len(at.x), 2))
    factored, potrf = [], _kernels.potrf

    def counting(matrix):
        factored.append(matrix)
        return potrf(matrix)

    monkeypatch.setattr(_kernels, "potrf", counting)
    gram = jacobian.gram.matrix().copy()
    for ridge in (0.1, 0.1, 10.0, 0.1):
        wanted = np.linalg.solve(gram + ridge * np.eye(len(at.x)), rhs)
        np.testing.assert_allclose(jacobian.gram.shifted(ridge).solve(rhs), wanted, rtol=1e-8)
    assert len(factored) == 3
    np.testing.assert_array_equal(jacobian.gram.matrix(), gram)


def test_gram_solve_refuses_what_is_not_definite_and_goes_on():
    at = Linearised(some_case(n_outputs=1, factor="diagonal"))
    jacobian, rhs = at.jacobian(), np.ones((len(at.x), 1))
    expected = jacobian.gram.shifted(0.1).solve(rhs)
    for _ in range(2):
        with pytest.raises(np.linalg.LinAlgError):
            jacobian.gram.shifted(-1e6).solve(rhs)
    np.testing.assert_array_equal(jacobian.gram.shifted(0.1).solve(rhs), expected)


@pytest.mark.parametrize(("n_outputs", "n_random"), [(1, 3), (2, 1), (3, 1), (3, 3)])
def test_few_outputs_are_their_own_probes(n_outputs, n_random):
    probes = make_probes(n_outputs, np.random.default_rng(0), n_random)
    np.testing.assert_array_equal(probes, np.eye(n_outputs))


@pytest.mark.parametrize("n_random", [1, 3])
def test_random_probes_average_to_the_mean_over_outputs(n_random):
    # A product of two entries is 1/k on the diagonal and has mean 0, variance 1/k² off it.
    n_outputs, n_draws, rng = 10, 1200 // n_random, np.random.default_rng(0)
    draws = np.concatenate([make_probes(n_outputs, rng, n_random) for _ in range(n_draws)], axis=1)
    assert draws.shape == (n_outputs, 1200)
    mean = draws @ draws.T / draws.shape[1]
    np.testing.assert_allclose(np.diag(mean), 1 / n_outputs)
    off_diagonal = mean - np.diag(np.diag(mean))
    assert np.abs(off_diagonal).max() < 5 / (n_outputs * np.sqrt(draws.shape[1]))
