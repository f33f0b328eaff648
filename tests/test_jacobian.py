"""J and Jt against a dense Jacobian, central differences and each other."""

import numpy as np
import pytest
from cases import CASES, DenseNetwork, as_dense, as_vector, build

from sklearn_subquad._jacobian import Jacobian, make_probes

TOLERANCE = {"float32": 2e-4, "float64": 1e-10}


def make_jacobian(case, **options):
    network, x = build(case, **options)
    row_scale = np.sqrt(np.random.default_rng(3).uniform(0.5, 2.0, len(x)))
    probes = make_probes(case.n_outputs, np.random.default_rng(4))
    return network, x, row_scale, Jacobian(network, network.forward(x), row_scale, probes)


def assert_close(actual, desired, case):
    scale = np.abs(desired).max() or 1.0
    np.testing.assert_allclose(actual / scale, desired / scale, atol=TOLERANCE[case.dtype], rtol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestOperator:
    def test_Jt_equals_dense_transpose(self, case):
        network, x, row_scale, jacobian = make_jacobian(case)
        C = np.random.default_rng(5).standard_normal((len(x), case.n_outputs)).astype(case.dtype)
        dense = DenseNetwork.of(network).jacobian(x) * row_scale[:, None, None]
        wanted = np.einsum("icp,ic->p", dense, C)
        assert_close(as_vector(jacobian.Jt(C), network), wanted, case)

    def test_J_equals_dense_product(self, case):
        network, x, row_scale, jacobian = make_jacobian(case)
        C = np.random.default_rng(6).standard_normal((len(x), case.n_outputs)).astype(case.dtype)
        step = jacobian.Jt(C)
        dense = DenseNetwork.of(network).jacobian(x) * row_scale[:, None, None]
        wanted = np.einsum("icp,p->ic", dense, as_vector(step, network))
        assert_close(jacobian.J(step), wanted, case)

    def test_J_and_Jt_are_adjoint(self, case):
        _, x, _, jacobian = make_jacobian(case)
        rng = np.random.default_rng(7)
        A, B = rng.standard_normal((2, len(x), case.n_outputs)).astype(case.dtype)
        left, right = np.vdot(jacobian.J(jacobian.Jt(A)), B), np.vdot(A, jacobian.J(jacobian.Jt(B)))
        size = np.linalg.norm(jacobian.J(jacobian.Jt(A))) * np.linalg.norm(B)
        assert abs(left - right) <= TOLERANCE[case.dtype] * size

    def test_gram_is_the_mean_over_probes(self, case):
        network, x, row_scale, jacobian = make_jacobian(case)
        dense = DenseNetwork.of(network).jacobian(x) * row_scale[:, None, None]
        seen = np.einsum("icp,cv->ivp", dense, jacobian.probes)
        wanted = np.einsum("ivp,jvp->ij", seen, seen) / jacobian.probes.shape[1]
        assert_close(jacobian.gram(), wanted, case)

    def test_mean_diagonal_is_that_of_the_unscaled_gram(self, case):
        _, _, row_scale, jacobian = make_jacobian(case)
        wanted = np.diag(jacobian.gram()).sum() / (row_scale**2).sum()
        assert jacobian.mean_diagonal() == pytest.approx(wanted, rel=1e3 * float(np.finfo(case.dtype).eps))

    def test_forward_equals_dense_forward(self, case):
        network, x = build(case)
        out, pairs, _ = DenseNetwork.of(network).forward(x)
        activations = network.forward(x)
        assert_close(activations.output, out, case)
        for rows, (h, _) in zip(activations.hidden, pairs[1:], strict=True):
            assert_close(as_dense(rows), h, case)


@pytest.mark.parametrize("case", [case for case in CASES if case.dtype == "float64"], ids=str)
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


@pytest.mark.parametrize("case", [case for case in CASES if case.dtype == "float64" and case.density == 0.25], ids=str)
def test_along_total_change_is_J_times_the_change(case):
    start, x, _, _ = make_jacobian(case, keep_start=True)
    network, _, row_scale, jacobian = make_jacobian(case, keep_start=True)
    for layer in start.layers:
        layer.input_weights = layer.start_input_weights
    start.output_weights = start.start_output_weights
    now = np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])
    before = DenseNetwork.of(start)
    for depth, layer in enumerate(start.layers):
        if layer.hidden_weights is not None:
            before.hidden[depth] = layer.hidden_weights.to_dense() - layer.hidden_weights.delta()
    change = now - np.concatenate([part.ravel() for part in before.parts()])
    dense = DenseNetwork.of(network).jacobian(x) * row_scale[:, None, None]
    assert_close(jacobian.along_total_change(), np.einsum("icp,p->ic", dense, change), case)


@pytest.mark.parametrize("case", [case for case in CASES if case.n_outputs == 1], ids=str)
def test_Jt_of_one_output_equals_a_fresh_backward_pass(case):
    _, x, row_scale, jacobian = make_jacobian(case)
    C = np.random.default_rng(5).standard_normal((len(x), 1)).astype(case.dtype)
    fresh = jacobian.cotangents(row_scale.astype(case.dtype)[:, None] * C)
    for reused, wanted in zip(jacobian.Jt(C).cotangents, fresh, strict=True):
        assert reused.dtype == wanted.dtype
        # Both on the pattern of the activations: where an entry is zero by chance it is still stored.
        assert reused.pattern is wanted.pattern
        assert_close(as_dense(reused), as_dense(wanted), case)


@pytest.mark.parametrize(("n_outputs", "passes"), [(1, 1), (3, 5)])
def test_one_output_takes_one_backward_pass_in_all(n_outputs, passes, monkeypatch):
    case = next(case for case in CASES if case.n_layers == 2 and case.n_outputs == n_outputs)
    _, x, _, jacobian = make_jacobian(case)
    calls, cotangents = [], jacobian.cotangents

    def counting(C):
        calls.append(1)
        return cotangents(C)

    monkeypatch.setattr(jacobian, "cotangents", counting)
    C = np.ones((len(x), n_outputs), dtype=case.dtype)
    jacobian.mean_diagonal()
    jacobian.gram()
    jacobian.Jt(C)
    jacobian.Jt(2 * C)
    # One a probe, and with several outputs one more for each Jt.
    assert len(calls) == passes


def test_gram_solve_follows_the_shift():
    _, x, _, jacobian = make_jacobian(CASES[0])
    rhs = np.random.default_rng(9).standard_normal((len(x), 2))
    for shift in (0.1, 10.0, 0.1):
        wanted = np.linalg.solve(jacobian.gram() + shift * np.eye(len(x)), rhs)
        np.testing.assert_allclose(jacobian.gram_solve(shift, rhs), wanted, rtol=1e-8)


def test_random_probes_average_to_the_mean_over_outputs():
    # A product of two entries is 1/k on the diagonal and has mean 0, variance 1/k² off it.
    n_outputs, n_draws, rng = 10, 400, np.random.default_rng(0)
    draws = np.concatenate([make_probes(n_outputs, rng) for _ in range(n_draws)], axis=1)
    mean = draws @ draws.T / draws.shape[1]
    np.testing.assert_allclose(np.diag(mean), 1 / n_outputs)
    off_diagonal = mean - np.diag(np.diag(mean))
    assert np.abs(off_diagonal).max() < 5 / (n_outputs * np.sqrt(draws.shape[1]))
