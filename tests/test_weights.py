import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sklearn_subquad._matmul import MATMUL_ROUTES, PackedMatrix, with_values
from sklearn_subquad._weights import LazyWeights

# Ragged panels on both sides.
M_OUT, M_IN = 70, 66
DTYPES = [np.float32, np.float64]


@pytest.fixture
def draw(sparse_rows):
    """Function of (seed, n_columns, n_rows, dtype) that draws sparse rows."""
    return lambda seed, n_columns, n_rows=4, dtype=np.float64: sparse_rows(
        np.random.default_rng(seed), n_rows, n_columns, 0.3, dtype
    )


def start_matrix(dtype=np.float64):
    return np.random.default_rng(0).standard_normal((M_OUT, M_IN)).astype(dtype)


def lazy(dtype=np.float64, **options):
    return LazyWeights(PackedMatrix.from_dense(start_matrix(dtype)), **options)


def product(U, G):
    return U.toarray().astype(np.float64).T @ G.toarray().astype(np.float64)


class LazyWeightsBesideDenseOnes(RuleBasedStateMachine):
    """Any sequence of operations on LazyWeights, mirrored on a dense start and a dense change.

    Beside the change goes a bound of its size, term by term, so that the rounding errors that may have
    piled up are bounded entry by entry however large the terms that cancelled were.
    """

    sparse_rows = None

    @initialize(
        dtype=st.sampled_from(DTYPES),
        keep_start=st.booleans(),
        max_rank=st.sampled_from([0, 3, "auto", 1000]),
        matmul=st.sampled_from(MATMUL_ROUTES),
    )
    def create(self, dtype, keep_start, max_rank, matmul):
        self.dtype, self.keep_start = dtype, keep_start
        self.weights = lazy(dtype, max_rank=max_rank, matmul=matmul, keep_start=keep_start)
        self.max_rank = M_IN // 2 if max_rank == "auto" else max_rank
        self.start = start_matrix(dtype).astype(np.float64)
        self.change, self.change_size = np.zeros((M_OUT, M_IN)), np.zeros((M_OUT, M_IN))
        self.n_operations = self.n_terms = self.pending = 0
        self.last_push = None

    def rows(self, seed, n_rows, n_columns):
        return self.sparse_rows(np.random.default_rng(seed), n_rows, n_columns, 0.3, self.dtype)

    def assert_close(self, actual, expected, size):
        assert actual.dtype == self.dtype
        assert actual.shape == expected.shape
        # Sums of at most this many terms lead from the data to the result, and every operation may add
        # roundings of its own (the scale of the change, for one).
        n_roundings = M_IN + M_OUT + self.n_terms + 4 * self.n_operations + 8
        assert (np.abs(actual - expected) <= n_roundings * np.finfo(self.dtype).eps * size).all()

    @rule(seed=st.integers(0, 99), rank=st.integers(1, 12), size=st.sampled_from([1e-3, 1.0, 30.0]))
    def push(self, seed, rank, size):
        U, G = self.rows(seed, rank, M_OUT), self.rows(seed + 100, rank, M_IN)
        U = with_values(U, U.data * self.dtype(size))
        self.weights.push(U, G)
        self.last_push = (U, G, self.pending)
        self.change = self.change + product(U, G)
        self.change_size = self.change_size + product(abs(U), abs(G))
        self.n_terms += rank
        self.n_operations += 1
        self.pending += rank

    @precondition(lambda self: self.last_push is not None)
    @rule()
    def retract_last_push(self):
        U, G, pending_before = self.last_push
        folded_in = self.pending == 0
        self.weights.retract(U, G)
        self.pending = U.shape[0] if folded_in else pending_before
        self.change = self.change - product(U, G)
        self.change_size = self.change_size + product(abs(U), abs(G))
        self.n_terms += U.shape[0]
        self.n_operations += 1
        self.last_push = None

    @precondition(lambda self: self.keep_start)
    @rule(factor=st.sampled_from([0.3, 0.999, 1.0, 2.5]))
    def scale_change(self, factor):
        self.weights.scale_change(factor)
        self.change, self.change_size = factor * self.change, factor * self.change_size
        self.n_operations += 1
        # What it means to take back a push that was scaled since is not defined.
        self.last_push = None

    @rule()
    def flush(self):
        self.weights.flush()
        self.pending = 0
        self.n_operations += 1

    @rule()
    def flush_if_full(self):
        self.weights.flush_if_full()
        if self.pending > self.max_rank:
            self.pending = 0
        self.n_operations += 1

    @rule()
    def pack(self):
        packed = self.weights.packed()
        self.pending = 0
        self.n_operations += 1
        self.assert_close(packed.to_dense(), self.start + self.change, np.abs(self.start) + self.change_size)

    @rule(seed=st.integers(0, 99))
    def query_forward(self, seed):
        rows = self.rows(seed, 5, M_IN)
        dense = rows.toarray().astype(np.float64)
        size = np.abs(dense) @ (np.abs(self.start) + self.change_size).T
        self.assert_close(self.weights.forward(rows), dense @ (self.start + self.change).T, size)

    @rule(seed=st.integers(0, 99))
    def query_backward(self, seed):
        rows = self.rows(seed, 5, M_OUT)
        dense = rows.toarray().astype(np.float64)
        size = np.abs(dense) @ (np.abs(self.start) + self.change_size)
        self.assert_close(self.weights.backward(rows), dense @ (self.start + self.change), size)

    @precondition(lambda self: self.keep_start)
    @rule(seed=st.integers(0, 99))
    def query_delta(self, seed):
        rows = self.rows(seed, 5, M_IN)
        dense = rows.toarray().astype(np.float64)
        self.assert_close(self.weights.delta(), self.change, self.change_size)
        self.assert_close(self.weights.delta_forward(rows), dense @ self.change.T, np.abs(dense) @ self.change_size.T)

    @invariant()
    def dense_matrix_and_rank_agree(self):
        self.assert_close(self.weights.to_dense(), self.start + self.change, np.abs(self.start) + self.change_size)
        assert self.weights.rank == self.pending


def test_any_sequence_of_operations_equals_the_dense_matrix(sparse_rows, monkeypatch):
    monkeypatch.setattr(LazyWeightsBesideDenseOnes, "sparse_rows", staticmethod(sparse_rows))
    run_state_machine_as_test(LazyWeightsBesideDenseOnes, settings=settings(max_examples=150, stateful_step_count=20))


# Each puts the change since the start into another combination of folded in, pending and scaled.
HISTORIES = [
    (),
    ("push",),
    ("push", "flush"),
    ("push", "flush", "push"),
    ("push", "scale"),
    ("push", "flush", "scale"),
    ("push", "flush", "scale", "push", "push"),
    ("push", "flush", "scale", "push", "scale", "flush", "push"),
]


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_every_query_sees_all_of_the_change(history, draw):
    weights, change = lazy(keep_start=True), np.zeros((M_OUT, M_IN))
    for seed, operation in enumerate(history):
        if operation == "push":
            U, G = draw(seed, M_OUT), draw(100 + seed, M_IN)
            weights.push(U, G)
            change = change + product(U, G)
        elif operation == "scale":
            weights.scale_change(0.3)
            change = 0.3 * change
        else:
            weights.flush()
    inputs, outputs = draw(200, M_IN), draw(201, M_OUT)
    W = start_matrix() + change
    for actual, expected in (
        (weights.forward(inputs), inputs @ W.T),
        (weights.backward(outputs), outputs @ W),
        (weights.delta_forward(inputs), inputs @ change.T),
        (weights.delta(), change),
        (weights.to_dense(), W),
        (weights.packed().to_dense(), W),
        (weights.forward(inputs), inputs @ W.T),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keep_start", [False, True])
def test_retract_of_a_pending_push_restores_every_bit(keep_start, dtype, draw):
    weights = lazy(dtype, keep_start=keep_start)
    weights.push(draw(1, M_OUT, dtype=dtype), draw(2, M_IN, dtype=dtype))
    inputs, outputs = draw(3, M_IN, dtype=dtype), draw(4, M_OUT, dtype=dtype)
    forward, backward, rank = weights.forward(inputs), weights.backward(outputs), weights.rank
    U, G = draw(5, M_OUT, dtype=dtype), draw(6, M_IN, dtype=dtype)
    weights.push(U, G)
    assert (weights.forward(inputs) != forward).any()
    weights.retract(U, G)
    assert weights.forward(inputs).tobytes() == forward.tobytes()
    assert weights.backward(outputs).tobytes() == backward.tobytes()
    assert weights.rank == rank


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keep_start", [False, True])
def test_retract_after_a_flush_restores_to_rounding(keep_start, dtype, draw):
    weights = lazy(dtype, keep_start=keep_start)
    before = weights.to_dense()
    U, G = draw(5, M_OUT, dtype=dtype), draw(6, M_IN, dtype=dtype)
    weights.push(U, G)
    weights.flush()
    weights.retract(U, G)
    assert weights.rank == U.shape[0]
    weights.flush()
    # Twice the sum of five terms.
    bound = 10 * np.finfo(dtype).eps * (np.abs(before) + product(abs(U), abs(G)))
    assert (np.abs(weights.to_dense() - before) <= bound).all()


def test_retract_within_a_scaled_change_restores_every_bit(draw):
    weights = lazy(keep_start=True)
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    weights.scale_change(0.3)
    rows = draw(3, M_IN)
    before = weights.forward(rows)
    U, G = draw(5, M_OUT), draw(6, M_IN)
    weights.push(U, G)
    weights.retract(U, G)
    assert weights.forward(rows).tobytes() == before.tobytes()


def test_pushed_factors_are_not_changed(draw):
    weights = lazy(keep_start=True)
    U, G = draw(1, M_OUT), draw(2, M_IN)
    before = U.data.copy(), G.data.copy()
    weights.scale_change(0.5)
    weights.push(U, G)
    weights.flush()
    weights.retract(U, G)
    weights.flush()
    np.testing.assert_array_equal(U.data, before[0])
    np.testing.assert_array_equal(G.data, before[1])


@pytest.mark.parametrize("keep_start", [False, True])
def test_queries_change_nothing(keep_start, draw):
    weights = lazy(keep_start=keep_start)
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    weights.flush()
    if keep_start:
        weights.scale_change(0.7)
    weights.push(draw(3, M_OUT), draw(4, M_IN))

    def answers():
        results = [weights.forward(draw(5, M_IN)), weights.backward(draw(6, M_OUT)), weights.to_dense()]
        if keep_start:
            results += [weights.delta(), weights.delta_forward(draw(5, M_IN))]
        return [*(array.tobytes() for array in results), weights.rank, weights.max_rank_seen]

    first = answers()
    assert answers() == first


def test_answers_are_not_views_of_the_weights(draw):
    weights = lazy(keep_start=True)
    expected = weights.to_dense()
    for array in (weights.to_dense(), weights.delta(), weights.forward(draw(1, M_IN))):
        array += 1
    np.testing.assert_array_equal(weights.to_dense(), expected)


@pytest.mark.parametrize(("max_rank", "flushed"), [(0, True), (3, True), (4, False), ("auto", False), (1000, False)])
def test_flush_if_full_respects_max_rank(max_rank, flushed, draw):
    weights = lazy(max_rank=max_rank)
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    weights.flush_if_full()
    assert weights.rank == (0 if flushed else 4)


def test_automatic_max_rank_is_half_the_inputs(draw):
    weights = lazy()
    weights.push(draw(1, M_OUT, 33), draw(2, M_IN, 33))
    weights.flush_if_full()
    assert weights.rank == 33
    weights.push(draw(1, M_OUT, 1), draw(2, M_IN, 1))
    weights.flush_if_full()
    assert weights.rank == 0
    assert weights.max_rank_seen == 34


def test_nothing_is_flushed_before_anything_was_pushed():
    weights = lazy(max_rank=0, keep_start=True)
    weights.flush_if_full()
    weights.flush()
    assert weights.rank == 0
    assert (weights.delta() == 0).all()
    np.testing.assert_array_equal(weights.to_dense(), start_matrix())


def test_scaled_change_is_measured_from_the_start(draw):
    weights = lazy(keep_start=True)
    U, G = draw(1, M_OUT), draw(2, M_IN)
    weights.push(U, G)
    weights.scale_change(0.5)
    weights.push(U, G)
    np.testing.assert_allclose(weights.delta(), 1.5 * product(U, G), rtol=1e-14, atol=1e-14)


def test_packed_folds_everything_in(draw):
    weights = lazy(keep_start=True)
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    packed = weights.packed()
    assert weights.rank == 0
    assert packed.shape == weights.shape == (M_OUT, M_IN)
    assert packed.dtype == weights.dtype


@pytest.mark.parametrize("method", ["delta", "delta_forward", "scale_change"])
def test_methods_that_need_the_start_say_so(method, draw):
    weights = lazy()
    arguments = {"delta": (), "delta_forward": (draw(1, M_IN),), "scale_change": (0.5,)}[method]
    with pytest.raises(ValueError, match=f"{method} .*keep_start=True"):
        getattr(weights, method)(*arguments)


def test_unknown_route_is_refused_by_the_flush(draw):
    weights = lazy(matmul="abacus")
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    with pytest.raises(ValueError, match="'abacus'"):
        weights.flush()
