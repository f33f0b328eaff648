"""Lazy low-rank maintenance of one m_out x m_in weight matrix."""

import copy

import numpy as np

from sklearn_subquad._linalg.columnwise import ColumnwiseSum, sparse_term
from sklearn_subquad._linalg.costs import balanced_rank, cheapest_route, folding_operations, query_operations
from sklearn_subquad._linalg.packed import PackedMatrix, row_products

# The scale of the change is folded in before pushes divided by it could leave the range of single precision.
_MAX_SCALE = 1e6


class LazyWeights:
    """W = base + sum of pending products ``U.T @ G``, queried without being formed.

    A Gauss-Newton step on n rows changes a weight matrix by a product of two sparse factors of n rows. The
    factors are queued; `forward` and `backward` answer from base and queue together, and `flush` folds the
    queue into the base.

    Parameters
    ----------
    start : PackedMatrix of shape (m_out, m_in)
        The initial weights. Without `keep_start` they are overwritten by flushes.
    max_rank : int or "auto"
        Rank beyond which `flush_if_full` flushes; a push may exceed it until then. "auto" balances what the pending
        factors add to queries with what a pass over the weights costs, and also flushes before a query that would
        cost more than folding the factors in.
    matmul : {"auto", "scatter", "blas", "strassen"}
        How `flush` adds the factors, see `PackedMatrix.add_product`; "auto" is the cheapest by a cost model.
    keep_start : bool
        Keep the change since the start apart from the start, at the price of a second matrix after the first
        flush. `delta` and its products then need no copy of the start, and the change can be scaled.

    Notes
    -----
    This is the "lazy" weight maintenance of Song, Zhang and Zhang (arXiv 2112.07628): m² is
    paid once, at initialisation, and then only for one flush in many steps.
    """

    def __init__(self, start, *, max_rank="auto", matmul="auto", keep_start=False):
        self._start = start
        self._matmul = matmul
        self._keep_start = keep_start
        # The change since the start is _scale * (_change + pending); without keep_start _change lives in _start.
        self._change = None
        self._scale = 1.0
        self._pending = []
        self._max_rank = max_rank
        # Since the start, and since the caller last set it back.
        self.max_rank_seen = self.peak_rank = 0

    @property
    def shape(self):
        return self._start.shape

    @property
    def dtype(self):
        return self._start.dtype

    @property
    def rank(self):
        """Number of rank-one terms that are pending."""
        return sum(U.shape[0] for U, _ in self._pending)

    def forward_terms(self, rows):
        """``rows @ W.T`` for sparse rows (n x m_in), as terms of a `ColumnwiseSum` (n x m_out)."""
        self._flush_if_cheaper(rows.shape[0])
        return [lambda out, first: self._start.add_forward(rows, out, first), *self._change_terms(rows)]

    def backward_terms(self, rows):
        """``rows @ W`` for sparse rows (n x m_out), as terms of a `ColumnwiseSum` (n x m_in)."""
        self._flush_if_cheaper(rows.shape[0])
        terms = [lambda out, first: self._start.add_backward(rows, out, first)]
        scaled = self._scaled(rows)
        if self._change is not None:
            terms.append(lambda out, first: self._change.add_backward(scaled, out, first))
        return terms + [sparse_term(row_products(scaled, U), G) for U, G in self._pending]

    def delta_terms(self, rows):
        """``rows @ (W - W_start).T`` as terms of a `ColumnwiseSum` (n x m_out); needs `keep_start`."""
        self._require_start("delta_terms")
        return self._change_terms(rows)

    def _change_terms(self, rows):
        terms = []
        scaled = self._scaled(rows)
        if self._change is not None:
            terms.append(lambda out, first: self._change.add_forward(scaled, out, first))
        return terms + [sparse_term(row_products(scaled, G), U) for U, G in self._pending]

    def _scaled(self, rows):
        return rows if self._scale == 1.0 else rows.scaled(self._scale)

    def forward(self, rows):
        """``rows @ W.T`` for sparse rows (n x m_in): dense, n x m_out."""
        return ColumnwiseSum((rows.shape[0], self.shape[0]), self.dtype, sparse=self.forward_terms(rows)).dense()

    def backward(self, rows):
        """``rows @ W`` for sparse rows (n x m_out): dense, n x m_in."""
        return ColumnwiseSum((rows.shape[0], self.shape[1]), self.dtype, sparse=self.backward_terms(rows)).dense()

    def push(self, U, G):
        """Add ``U.T @ G`` to W, for sparse U (rank x m_out) and G (rank x m_in); it stays pending."""
        if self._scale != 1.0:
            U = U.scaled(1 / self._scale)
        self._pending.append((U, G))
        self.peak_rank = max(self.peak_rank, self.rank)
        self.max_rank_seen = max(self.max_rank_seen, self.rank)

    def retract(self, U, G):
        """Undo ``push(U, G)``: exact while it is the last one pending, to rounding once it was folded in.

        A `scale_change` between the two must have been undone first.
        """
        if self._pending and self._pending[-1][1] is G:
            self._pending.pop()
        else:
            self.push(U.scaled(-1), G)

    def scale_change(self, factor):
        """Multiply all that was added since the start by a positive number; needs `keep_start`."""
        self._require_start("scale_change")
        self._scale *= factor
        if not 1 / _MAX_SCALE < self._scale < _MAX_SCALE:
            self.flush()

    def flush_if_full(self):
        """Flush once the pending rank exceeds `max_rank`."""
        if not self._pending:
            return
        limit = balanced_rank(*self._pending[-1]) if self._max_rank == "auto" else self._max_rank
        if self.rank > limit:
            self.flush()

    def _flush_if_cheaper(self, n_rows):
        """Flush before a query of n rows that costs more than folding in, unless the user chose the rank."""
        if self._max_rank == "auto" and self._pending:
            query = sum(query_operations(U, G, n_rows) for U, G in self._pending)
            if query > sum(folding_operations(U, G) for U, G in self._pending):
                self.flush()

    def flush(self):
        """Fold all pending factors into the base."""
        if not self._pending and self._scale == 1.0:
            return
        if self._keep_start and self._change is None:
            self._change = PackedMatrix.zeros(*self.shape, self.dtype)
        target = self._change if self._keep_start else self._start
        # One push at a time: all of them together would be dense factors of the size of W.
        for U, G in self._pending:
            route = cheapest_route(U, G, self.shape[0]) if self._matmul == "auto" else self._matmul
            target.add_product(U, G, route)
        self._pending = []
        if self._scale != 1.0:
            target.tiles *= self.dtype.type(self._scale)
            self._scale = 1.0

    @property
    def moving_part(self):
        """The matrix (PackedMatrix) that flushes change, with everything pending folded in: W, or W - W_start."""
        self.flush()
        if not self._keep_start:
            return self._start
        if self._change is None:
            self._change = PackedMatrix.zeros(*self.shape, self.dtype)
        return self._change

    @moving_part.setter
    def moving_part(self, packed):
        self._pending = []
        self._scale = 1.0
        if self._keep_start:
            self._change = packed
        else:
            self._start = packed

    def delta(self):
        """What has been added since the start, dense (m_out x m_in); needs `keep_start`."""
        self._require_start("delta")
        out = np.zeros(self.shape, dtype=self.dtype) if self._change is None else self._change.to_dense()
        for U, G in self._pending:
            out = out + _dense_product(U, G)
        return out * self.dtype.type(self._scale)

    def to_dense(self):
        """W as a dense array (m_out x m_in)."""
        if self._keep_start:
            return self._start.to_dense() + self.delta()
        out = self._start.to_dense()
        for U, G in self._pending:
            out = out + _dense_product(U, G)
        return out

    def copy(self):
        """The same weights in memory of their own, but for pending factors, which never change."""
        other = copy.copy(self)
        other._pending = list(self._pending)
        other._start = self._start.copy()
        other._change = None if self._change is None else self._change.copy()
        return other

    def packed(self):
        """W as a PackedMatrix in the object's own memory, everything folded in; the start is not kept any longer."""
        self.flush()
        if self._change is not None:
            self._start.tiles += self._change.tiles
            self._change = None
        self._keep_start = False
        return self._start

    def _require_start(self, method):
        if not self._keep_start:
            raise ValueError(f"{method} needs the initial weights; create LazyWeights with keep_start=True.")


def _dense_product(U, G):
    return (U.to_csr().T @ G.to_csr()).toarray()
