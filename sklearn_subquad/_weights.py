"""Lazy low-rank maintenance of one m_out x m_in weight matrix."""

import numpy as np

from sklearn_subquad._matmul import PackedMatrix, packed_times_rows, rows_times_rows, with_values

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
        Rank beyond which `flush_if_full` flushes; a push may exceed it until then. "auto" is m_in / 2: a query
        of the factors (two sparse products) then costs as much as one of the base.
    matmul : {"auto", "scatter", "blas", "strassen"}
        How `flush` adds the factors, see `PackedMatrix.add_product`.
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
        self.max_rank = start.shape[1] // 2 if max_rank == "auto" else max_rank
        self.max_rank_seen = 0

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

    def forward(self, rows):
        """``rows @ W.T`` for sparse rows (n x m_in)."""
        out = self._start.forward(rows)
        if self._change is not None or self._pending:
            out += self._change_forward(rows)
        return out

    def backward(self, rows):
        """``rows @ W`` for sparse rows (n x m_out)."""
        out = self._start.backward(rows)
        if self._change is not None:
            out += self._scaled(self._change.backward(rows))
        for U, G in self._pending:
            out += self._scaled(packed_times_rows(PackedMatrix.from_dense(rows_times_rows(rows, U)), G))
        return out

    def delta_forward(self, rows):
        """``rows @ (W - W_start).T``; needs `keep_start`."""
        self._require_start("delta_forward")
        return self._change_forward(rows)

    def _change_forward(self, rows):
        if self._change is not None:
            out = self._scaled(self._change.forward(rows))
        else:
            out = np.zeros((rows.shape[0], self.shape[0]), dtype=self.dtype)
        for U, G in self._pending:
            out += self._scaled(packed_times_rows(PackedMatrix.from_dense(rows_times_rows(rows, G)), U))
        return out

    def _scaled(self, product):
        return product if self._scale == 1.0 else product * self.dtype.type(self._scale)

    def push(self, U, G):
        """Add ``U.T @ G`` to W, for sparse U (rank x m_out) and G (rank x m_in); it stays pending."""
        if self._scale != 1.0:
            U = with_values(U, U.data / self.dtype.type(self._scale))
        self._pending.append((U, G))
        self.max_rank_seen = max(self.max_rank_seen, self.rank)

    def retract(self, U, G):
        """Undo ``push(U, G)``: exact while it is the last one pending, to rounding once it was folded in.

        A `scale_change` between the two must have been undone first.
        """
        if self._pending and self._pending[-1][1] is G:
            self._pending.pop()
        else:
            self.push(with_values(U, -U.data), G)

    def scale_change(self, factor):
        """Multiply all that was added since the start by a positive number; needs `keep_start`."""
        self._require_start("scale_change")
        self._scale *= factor
        if not 1 / _MAX_SCALE < self._scale < _MAX_SCALE:
            self.flush()

    def flush_if_full(self):
        """Flush once the pending rank exceeds `max_rank`."""
        if self.rank > self.max_rank:
            self.flush()

    def flush(self):
        """Fold all pending factors into the base."""
        if not self._pending and self._scale == 1.0:
            return
        target = self._start
        if self._keep_start:
            if self._change is None:
                self._change = PackedMatrix.zeros(*self.shape, self.dtype)
            target = self._change
        # One push at a time: all of them together would be dense factors of the size of W.
        for U, G in self._pending:
            target.add_product(U, G, self._matmul)
        self._pending = []
        if self._scale != 1.0:
            target.tiles *= self.dtype.type(self._scale)
            self._scale = 1.0

    def delta(self):
        """What has been added since the start, dense (m_out x m_in); needs `keep_start`."""
        self._require_start("delta")
        out = np.zeros(self.shape, dtype=self.dtype) if self._change is None else self._change.to_dense()
        for U, G in self._pending:
            out = out + (U.T @ G).toarray()
        return self._scaled(out)

    def to_dense(self):
        """W as a dense array (m_out x m_in)."""
        if self._keep_start:
            return self._start.to_dense() + self.delta()
        out = self._start.to_dense()
        for U, G in self._pending:
            out = out + (U.T @ G).toarray()
        return out

    def packed(self):
        """W as a PackedMatrix, everything folded in (the object's own memory where the start is not kept)."""
        self.flush()
        if self._change is None:
            return self._start
        return PackedMatrix(self._start.tiles + self._change.tiles, self._start.n_out)

    def _require_start(self, method):
        if not self._keep_start:
            raise ValueError(f"{method} needs the initial weights; create LazyWeights with keep_start=True.")
