"""Lazy low-rank maintenance of one m_out x m_in weight matrix."""

import copy

from sklearn_subquad._linalg.columnwise import ColumnwiseSum, sparse_term
from sklearn_subquad._linalg.costs import balanced_rank, cheapest_route, folding_operations, query_operations
from sklearn_subquad._linalg.packed import row_products


class LazyWeights:
    """W = base + sum of pending products ``U.T @ G``, queried without being formed.

    A Gauss-Newton step on n rows changes a weight matrix by a product of two sparse factors of n rows. The
    factors are queued; `forward` and `backward` answer from base and queue together, and `flush` folds the
    queue into the base.

    Parameters
    ----------
    start : PackedMatrix of shape (m_out, m_in)
        The initial weights; flushes overwrite them.
    max_rank : int or None
        Rank beyond which `flush_if_full` flushes; a push may exceed it until then. None balances what the pending
        factors add to queries with what a pass over the weights costs, and also flushes before a query that would
        cost more than folding the factors in.
    matmul : {"scatter", "blas", "strassen"} or None
        Route by which `flush` adds the factors, see `PackedMatrix.add_product`; None is the cheapest by a cost model.

    Notes
    -----
    This is the "lazy" weight maintenance of Song, Zhang and Zhang (arXiv 2112.07628): m² is
    paid once, at initialisation, and then only for one flush in many steps.
    """

    def __init__(self, start, *, max_rank=None, matmul=None):
        self._base = start
        self._matmul = matmul
        self._pending = []
        self._max_rank = max_rank
        # Since the start, and since the caller last set it back.
        self.max_rank_seen = self.peak_rank = 0

    @property
    def shape(self):
        return self._base.shape

    @property
    def dtype(self):
        return self._base.dtype

    @property
    def rank(self):
        """Number of rank-one terms that are pending."""
        return sum(U.shape[0] for U, _ in self._pending)

    def forward_terms(self, rows):
        """``rows @ W.T`` for sparse rows (n x m_in), as terms of a `ColumnwiseSum` (n x m_out)."""
        self._flush_if_cheaper(rows.shape[0])
        terms = [lambda out, first: self._base.add_forward(rows, out, first)]
        return terms + [sparse_term(row_products(rows, G), U) for U, G in self._pending]

    def backward_terms(self, rows):
        """``rows @ W`` for sparse rows (n x m_out), as terms of a `ColumnwiseSum` (n x m_in)."""
        self._flush_if_cheaper(rows.shape[0])
        terms = [lambda out, first: self._base.add_backward(rows, out, first)]
        return terms + [sparse_term(row_products(rows, U), G) for U, G in self._pending]

    def forward(self, rows):
        """``rows @ W.T`` for sparse rows (n x m_in): dense, n x m_out."""
        return ColumnwiseSum((rows.shape[0], self.shape[0]), self.dtype, sparse=self.forward_terms(rows)).dense()

    def backward(self, rows):
        """``rows @ W`` for sparse rows (n x m_out): dense, n x m_in."""
        return ColumnwiseSum((rows.shape[0], self.shape[1]), self.dtype, sparse=self.backward_terms(rows)).dense()

    def push(self, U, G):
        """Add ``U.T @ G`` to W, for sparse U (rank x m_out) and G (rank x m_in); it stays pending."""
        self._pending.append((U, G))
        self.peak_rank = max(self.peak_rank, self.rank)
        self.max_rank_seen = max(self.max_rank_seen, self.rank)

    def retract(self, U, G):
        """Undo ``push(U, G)``: exact while it is the last one pending, to rounding once it was folded in."""
        if self._pending and self._pending[-1][1] is G:
            self._pending.pop()
        else:
            self.push(U.scaled(-1), G)

    def flush_if_full(self):
        """Flush once the pending rank exceeds `max_rank`."""
        if not self._pending:
            return
        limit = balanced_rank(*self._pending[-1]) if self._max_rank is None else self._max_rank
        if self.rank > limit:
            self.flush()

    def _flush_if_cheaper(self, n_rows):
        """Flush before a query of n rows that costs more than folding in, unless the user chose the rank."""
        if self._max_rank is None and self._pending:
            query = sum(query_operations(U, G, n_rows) for U, G in self._pending)
            if query > sum(folding_operations(U, G) for U, G in self._pending):
                self.flush()

    def flush(self):
        """Fold all pending factors into the base."""
        # One push at a time: all of them together would be dense factors of the size of W.
        for U, G in self._pending:
            route = cheapest_route(U, G, self.shape[0]) if self._matmul is None else self._matmul
            self._base.add_product(U, G, route)
        self._pending = []

    @property
    def packed(self):
        """W as a PackedMatrix in the object's own memory, everything pending folded in."""
        self.flush()
        return self._base

    @packed.setter
    def packed(self, packed):
        self._pending = []
        self._base = packed

    def to_dense(self):
        """W as a dense array (m_out x m_in)."""
        out = self._base.to_dense()
        for U, G in self._pending:
            out = out + (U.to_csr().T @ G.to_csr()).toarray()
        return out

    def copy(self):
        """The same weights in memory of their own, but for pending factors, which never change."""
        other = copy.copy(self)
        other._pending = list(self._pending)
        other._base = self._base.copy()
        return other
