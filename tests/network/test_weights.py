import numpy as np
import pytest
from cases import as_dense
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

from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.columnwise import ColumnwiseSum
from sklearn_subquad._linalg.costs import balanced_rank, folding_operations, query_operations
from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._network.lazy_weights import LazyWeights

# Ragged panels and several blocks of columns on both sides.
M_OUT, M_IN = 150, 140
DTYPES = [np.float32, np.float64]
# Rows of a query that answers from the factors, and of one for which folding them in is cheaper once the pending
# rank is some tens.
FEW, MANY = 5, 2000


@pytest.fixture
def draw(sparse_rows):
    """Function of (seed, n_columns, n_rows, dtype) that draws sparse rows."""

    def draw(seed, n_columns, n_rows=4, dtype=np.float64):
        return SparseRows.from_csr(sparse_rows(np.random.default_rng(seed), n_rows, n_columns, 0.3, dtype))

    return draw


def start_matrix(dtype=np.float64):
    return np.random.default_rng(0).standard_normal((M_OUT, M_IN)).astype(dtype)


def lazy(dtype=np.float64, **options):
    return LazyWeights(PackedMatrix.from_dense(start_matrix(dtype)), **options)


def product(U, G):
    return as_dense(U).T @ as_dense(G)


def product_size(U, G):
    return abs(as_dense(U)).T @ abs(as_dense(G))


def total(terms, n_rows, n_columns, dtype=np.float64):
    return ColumnwiseSum((n_rows, n_columns), dtype, sparse=terms).dense()


class LazyWeightsBesideDenseOnes(RuleBasedStateMachine):
    """Any sequence of operations on LazyWeights, mirrored on a dense start and a dense change.

    Beside the change goes a bound of its size, term by term, so that the rounding errors that may have
    piled up are bounded entry by entry however large the terms that cancelled were. When factors are folded in
    is mirrored on a list of those pending.
    """

    draw = None

    @initialize(
        dtype=st.sampled_from(DTYPES),
        max_rank=st.sampled_from([0, 3, None, 1000]),
        matmul=st.sampled_from([None, *ROUTES]),
    )
    def create(self, dtype, max_rank, matmul):
        self.dtype, self.max_rank = dtype, max_rank
        self.weights = lazy(dtype, max_rank=max_rank, matmul=matmul)
        self.start = start_matrix(dtype).astype(np.float64)
        self.change, self.change_size = np.zeros((M_OUT, M_IN)), np.zeros((M_OUT, M_IN))
        self.n_operations = self.n_terms = self.max_rank_seen = 0
        self.pending = []
        self.last_push = None

    def rows(self, seed, n_rows, n_columns):
        return self.draw(seed, n_columns, n_rows, self.dtype)

    def rank(self):
        return sum(U.shape[0] for U, _ in self.pending)

    def add(self, U, G, sign):
        self.change = self.change + sign * product(U, G)
        self.change_size = self.change_size + product_size(U, G)
        self.n_terms += U.shape[0]
        self.n_operations += 1

    def folded_in(self):
        self.pending = []

    def queried(self, n_rows):
        """A query of so many rows may come after a flush of its own."""
        self.n_operations += 1
        by_factors = sum(query_operations(U, G, n_rows) for U, G in self.pending)
        folding = sum(folding_operations(U, G) for U, G in self.pending)
        if self.max_rank is None and by_factors > folding:
            self.folded_in()

    def assert_close(self, actual, expected, size):
        assert actual.dtype == self.dtype
        assert actual.shape == expected.shape
        # Sums of at most this many terms lead from the data to the result, and every operation may add
        # roundings of its own.
        n_roundings = M_IN + M_OUT + self.n_terms + 4 * self.n_operations + 8
        assert (np.abs(actual - expected) <= n_roundings * np.finfo(self.dtype).eps * size).all()

    @rule(seed=st.integers(0, 99), rank=st.sampled_from([1, 2, 5, 12, 60]), size=st.sampled_from([1e-3, 1.0, 30.0]))
    def push(self, seed, rank, size):
        U, G = self.rows(seed, rank, M_OUT).scaled(size), self.rows(seed + 100, rank, M_IN)
        self.weights.push(U, G)
        self.pending.append((U, G))
        self.max_rank_seen = max(self.max_rank_seen, self.rank())
        self.last_push = (U, G)
        self.add(U, G, 1)

    @precondition(lambda self: self.last_push is not None)
    @rule()
    def retract_last_push(self):
        U, G = self.last_push
        self.weights.retract(U, G)
        if self.pending:
            self.pending.pop()
        else:
            self.pending.append((U, G))
        self.max_rank_seen = max(self.max_rank_seen, self.rank())
        self.last_push = None
        self.add(U, G, -1)

    @rule()
    def flush(self):
        self.weights.flush()
        self.folded_in()
        self.n_operations += 1

    @rule()
    def flush_if_full(self):
        self.weights.flush_if_full()
        if self.pending and self.rank() > (
            balanced_rank(*self.pending[-1]) if self.max_rank is None else self.max_rank
        ):
            self.folded_in()
        self.n_operations += 1

    @rule()
    def read_packed(self):
        packed = self.weights.packed
        self.folded_in()
        self.n_operations += 1
        self.assert_close(packed.to_dense(), self.start + self.change, np.abs(self.start) + self.change_size)

    @rule(seed=st.integers(0, 99))
    def set_packed(self, seed):
        """Whatever they were, the weights are these now."""
        W = np.random.default_rng(seed).standard_normal((M_OUT, M_IN)).astype(self.dtype)
        self.weights.packed = PackedMatrix.from_dense(W)
        self.folded_in()
        self.last_push = None
        self.change, self.change_size = W.astype(np.float64), np.abs(W).astype(np.float64)
        self.start = np.zeros((M_OUT, M_IN))

    @rule(seed=st.integers(0, 99), n_rows=st.sampled_from([0, FEW, MANY]))
    def query_forward(self, seed, n_rows):
        rows = self.rows(seed, n_rows, M_IN)
        self.queried(n_rows)
        size = np.abs(as_dense(rows)) @ (np.abs(self.start) + self.change_size).T
        self.assert_close(self.weights.forward(rows), as_dense(rows) @ (self.start + self.change).T, size)

    @rule(seed=st.integers(0, 99), n_rows=st.sampled_from([0, FEW, MANY]))
    def query_backward(self, seed, n_rows):
        rows = self.rows(seed, n_rows, M_OUT)
        self.queried(n_rows)
        size = np.abs(as_dense(rows)) @ (np.abs(self.start) + self.change_size)
        self.assert_close(self.weights.backward(rows), as_dense(rows) @ (self.start + self.change), size)

    @invariant()
    def dense_matrix_and_rank_agree(self):
        self.assert_close(self.weights.to_dense(), self.start + self.change, np.abs(self.start) + self.change_size)
        assert self.weights.rank == self.rank()
        assert self.weights.max_rank_seen == self.max_rank_seen


def test_any_sequence_of_operations_equals_the_dense_matrix(draw, monkeypatch):
    monkeypatch.setattr(LazyWeightsBesideDenseOnes, "draw", staticmethod(draw))
    run_state_machine_as_test(LazyWeightsBesideDenseOnes, settings=settings(max_examples=150, stateful_step_count=20))


# Each puts the change since the start into another combination of folded in and pending.
HISTORIES = [
    (),
    ("push",),
    ("push", "flush"),
    ("push", "flush", "push"),
    ("push", "flush", "push", "push"),
    ("push", "flush", "push", "flush", "push"),
]


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_every_query_sees_all_of_the_change(history, draw):
    weights, change = lazy(), np.zeros((M_OUT, M_IN))
    for seed, operation in enumerate(history):
        if operation == "push":
            U, G = draw(seed, M_OUT), draw(100 + seed, M_IN)
            weights.push(U, G)
            change = change + product(U, G)
        else:
            weights.flush()
    inputs, outputs = draw(200, M_IN), draw(201, M_OUT)
    W = start_matrix() + change
    for actual, expected in (
        (weights.forward(inputs), as_dense(inputs) @ W.T),
        (weights.backward(outputs), as_dense(outputs) @ W),
        (weights.to_dense(), W),
        (weights.packed.to_dense(), W),
        (weights.forward(inputs), as_dense(inputs) @ W.T),
        (weights.backward(outputs), as_dense(outputs) @ W),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_terms_add_any_columns_that_begin_with_a_panel(history, draw):
    weights = lazy()
    for seed, operation in enumerate(history):
        if operation == "push":
            weights.push(draw(seed, M_OUT), draw(100 + seed, M_IN))
        else:
            weights.flush()
    inputs, outputs = draw(200, M_IN), draw(201, M_OUT)
    for terms, whole in (
        (weights.forward_terms(inputs), weights.forward(inputs)),
        (weights.backward_terms(outputs), weights.backward(outputs)),
    ):
        for first, last in ((0, whole.shape[1]), (0, 10), (LANES, whole.shape[1]), (LANES, LANES + 3)):
            out = np.ones((4, last - first))
            for term in terms:
                term(out, first)
            np.testing.assert_allclose(out, 1 + whole[:, first:last], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_retract_of_a_pending_push_restores_every_bit(dtype, draw):
    weights = lazy(dtype)
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
def test_retract_after_a_flush_restores_to_rounding(dtype, draw):
    weights = lazy(dtype)
    before = weights.to_dense()
    U, G = draw(5, M_OUT, dtype=dtype), draw(6, M_IN, dtype=dtype)
    weights.push(U, G)
    weights.flush()
    weights.retract(U, G)
    assert weights.rank == U.shape[0]
    weights.flush()
    # Twice the sum of five terms.
    bound = 10 * np.finfo(dtype).eps * (np.abs(before) + product_size(U, G))
    assert (np.abs(weights.to_dense() - before) <= bound).all()


def test_pushed_factors_are_not_changed(draw):
    weights = lazy()
    U, G = draw(1, M_OUT), draw(2, M_IN)
    before = U.values.copy(), G.values.copy()
    weights.push(U, G)
    weights.flush()
    weights.retract(U, G)
    weights.flush()
    np.testing.assert_array_equal(U.values, before[0])
    np.testing.assert_array_equal(G.values, before[1])


def test_queries_change_nothing(draw):
    weights = lazy()
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    weights.flush()
    weights.push(draw(3, M_OUT), draw(4, M_IN))

    def answers():
        results = [weights.forward(draw(5, M_IN)), weights.backward(draw(6, M_OUT)), weights.to_dense()]
        return [*(array.tobytes() for array in results), weights.rank, weights.max_rank_seen]

    first = answers()
    assert answers() == first


def test_answers_are_not_views_of_the_weights(draw):
    weights = lazy()
    expected = weights.to_dense()
    for array in (weights.to_dense(), weights.forward(draw(1, M_IN))):
        array += 1
    np.testing.assert_array_equal(weights.to_dense(), expected)


@pytest.mark.parametrize(("max_rank", "flushed"), [(0, True), (3, True), (4, False), (None, False), (1000, False)])
def test_flush_if_full_respects_max_rank(max_rank, flushed, draw):
    weights = lazy(max_rank=max_rank)
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    weights.flush_if_full()
    assert weights.rank == (0 if flushed else 4)


def test_automatic_max_rank_balances_passes_with_queries(draw):
    weights = lazy()
    U, G = draw(1, M_OUT, 50), draw(2, M_IN, 50)
    # 30 operations a weight for a pass, against twice the 0.3 * (150 + 140) = 87 entries of a row of the factors.
    assert balanced_rank(U, G) == pytest.approx(np.sqrt(30 * M_OUT * M_IN / (2 * 87)), rel=0.05)
    for rank, flushed in ((50, False), (100, True)):
        weights.push(U, G)
        assert weights.rank == rank
        weights.flush_if_full()
        assert (weights.rank == 0) == flushed
    assert weights.max_rank_seen == 100


@pytest.mark.parametrize("query", ["forward", "backward", "forward_terms", "backward_terms"])
@pytest.mark.parametrize(
    ("max_rank", "n_rows", "flushed"), [(None, MANY, True), (None, FEW, False), (100, MANY, False)]
)
def test_automatic_flush_before_a_query_that_costs_more_than_folding_in(query, max_rank, n_rows, flushed, draw):
    weights = lazy(max_rank=max_rank)
    U, G = draw(1, M_OUT, 20), draw(2, M_IN, 20)
    weights.push(U, G)
    assert (query_operations(U, G, n_rows) > folding_operations(U, G)) == (n_rows == MANY)
    rows = draw(3, M_IN if query.startswith("forward") else M_OUT, n_rows)
    answer = getattr(weights, query)(rows)
    assert weights.rank == (0 if flushed else 20)
    W = start_matrix() + product(U, G)
    expected = as_dense(rows) @ (W.T if query.startswith("forward") else W)
    if query.endswith("terms"):
        answer = total(answer, *expected.shape)
    np.testing.assert_allclose(answer, expected, rtol=1e-11, atol=1e-11)


def test_the_costs_of_all_pending_factors_are_compared_with_folding_in(draw):
    # One large push is worth a flush by itself, but not beside many of rank one, of which each needs a pass.
    weights = lazy()
    rows = draw(3, M_IN, MANY)
    for seed in range(20):
        weights.push(draw(seed, M_OUT, 1), draw(100 + seed, M_IN, 1))
    weights.push(draw(20, M_OUT, 10), draw(120, M_IN, 10))
    weights.forward(rows)
    assert weights.rank == 30


def test_nothing_is_flushed_before_anything_was_pushed():
    weights = lazy(max_rank=0)
    weights.flush_if_full()
    weights.flush()
    assert weights.rank == 0
    np.testing.assert_array_equal(weights.to_dense(), start_matrix())


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_packed_folds_everything_into_the_memory_of_the_start(history, draw):
    start = PackedMatrix.from_dense(start_matrix())
    weights = LazyWeights(start)
    for seed, operation in enumerate(history):
        if operation == "push":
            weights.push(draw(seed, M_OUT), draw(100 + seed, M_IN))
        else:
            weights.flush()
    expected = weights.to_dense()
    packed = weights.packed
    assert np.shares_memory(packed.tiles, start.tiles)
    assert weights.rank == 0
    assert packed.shape == weights.shape == (M_OUT, M_IN)
    assert packed.dtype == weights.dtype
    np.testing.assert_allclose(packed.to_dense(), expected, rtol=1e-12, atol=1e-12)
    # Twice is as good as once, and the weights go on.
    np.testing.assert_array_equal(weights.packed.to_dense(), packed.to_dense())
    U, G = draw(300, M_OUT), draw(301, M_IN)
    weights.push(U, G)
    np.testing.assert_allclose(weights.packed.to_dense(), expected + product(U, G), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_packed_is_what_flushes_change(history, draw):
    start = PackedMatrix.from_dense(start_matrix())
    weights = LazyWeights(start)
    for seed, operation in enumerate(history):
        if operation == "push":
            weights.push(draw(seed, M_OUT), draw(100 + seed, M_IN))
        else:
            weights.flush()
    W = weights.to_dense()
    packed = weights.packed
    assert weights.rank == 0
    np.testing.assert_allclose(packed.to_dense(), W, rtol=1e-12, atol=1e-12)
    # Not a copy: later flushes add to it.
    assert weights.packed is packed
    assert np.shares_memory(packed.tiles, start.tiles)
    U, G = draw(300, M_OUT), draw(301, M_IN)
    before = packed.to_dense()
    weights.push(U, G)
    np.testing.assert_array_equal(packed.to_dense(), before)
    assert weights.packed is packed
    np.testing.assert_allclose(packed.to_dense(), before + product(U, G), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("history", HISTORIES, ids="-".join)
def test_another_packed_matrix_takes_the_place_of_all_that_was_added(history, draw):
    weights = lazy()
    for seed, operation in enumerate(history):
        if operation == "push":
            weights.push(draw(seed, M_OUT), draw(100 + seed, M_IN))
        else:
            weights.flush()
    replaced = weights.packed
    kept = replaced.to_dense()
    other = np.random.default_rng(1).standard_normal((M_OUT, M_IN))
    packed = PackedMatrix.from_dense(other)
    weights.packed = packed
    np.testing.assert_array_equal(weights.to_dense(), other)
    assert weights.packed is packed
    rows = draw(400, M_IN)
    np.testing.assert_allclose(weights.forward(rows), as_dense(rows) @ other.T, rtol=1e-12, atol=1e-12)
    U, G = draw(300, M_OUT), draw(301, M_IN)
    weights.push(U, G)
    weights.flush()
    np.testing.assert_allclose(weights.to_dense(), other + product(U, G), rtol=1e-12, atol=1e-12)
    # The other way round again: the matrix that was replaced is what it was.
    np.testing.assert_array_equal(replaced.to_dense(), kept)
    weights.packed = replaced
    np.testing.assert_array_equal(weights.to_dense(), kept)


def test_unknown_route_is_refused_by_the_flush(draw):
    weights = lazy(matmul="abacus")
    weights.push(draw(1, M_OUT), draw(2, M_IN))
    with pytest.raises(ValueError, match="'abacus'"):
        weights.flush()
