"""Operations of the compiled product kernels, and the weights that they go through, counted call by call."""

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._linalg.columnwise import ColumnwiseSum
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._network.lazy_weights import LazyWeights
from sklearn_subquad._utils.stopwatch import Stopwatch

CHUNK_ROWS, LANES = _kernels.CHUNK_ROWS, _kernels.LANES


@dataclass
class Counts:
    """What was counted in one phase.

    Attributes
    ----------
    through_weights, into_weights : int
        Multiplications and additions of products with hidden-to-hidden weights, and of factors folded into them.
    elsewhere : int
        Those of all other products of the kernels (Gram matrices, pending factors, first and last layer).
    dense : int
        Those of dense products with the network's inputs.
    weights_fetched, weights_written : int
        Hidden-to-hidden weights that went through the cache, once for every chunk of rows: a kernel fetches a block of
        weights whether its rows have entries there or not.
    inputs_used, outputs_used : float
        Summed over products with weights, their shares of inputs (forward) or outputs (backward) that are active on
        any row: the share of the weights that the product depends on.
    n_forward, n_backward : float
        Products with weights, a part of the columns counting as such.
    """

    through_weights: int = 0
    into_weights: int = 0
    elsewhere: int = 0
    dense: int = 0
    weights_fetched: int = 0
    weights_written: int = 0
    inputs_used: float = 0.0
    outputs_used: float = 0.0
    n_forward: float = 0.0
    n_backward: float = 0.0

    @property
    def operations(self):
        return self.through_weights + self.into_weights + self.elsewhere + self.dense


@dataclass
class OperationCounter:
    """Counts within ``with counter.counting():``; networks that are to be counted are made there as well.

    Attributes
    ----------
    phases : dict of str to Counts
        By the solver's phases; "init" is all that comes before and after the solver.
    n_weights : int
        Hidden-to-hidden weights that were made.
    """

    phases: dict = field(default_factory=dict)
    n_weights: int = 0
    _phase: str = "init"
    _tiles: list = field(default_factory=list)
    _known: dict = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counting(self):
        """Count all calls of the body, by whichever thread."""
        with ExitStack() as patches:
            for owner, name, replacement in (
                (_kernels, "forward", self._forward),
                (_kernels, "backward", self._backward),
                (_kernels, "forward_packed", self._forward_packed),
                (_kernels, "add_hadamard", self._add_hadamard),
                (PackedMatrix, "add_product", self._add_product),
                (ColumnwiseSum, "_evaluate", self._evaluate),
                (LazyWeights, "__init__", self._register),
                (Stopwatch, "phase", self._enter_phase),
            ):
                wrapped = replacement(getattr(owner, name))
                patches.enter_context(mock.patch.object(owner, name, wrapped))
            yield self
        self._tiles, self._known = [], {}

    @property
    def counts(self):
        """Of the present phase."""
        return self.phases.setdefault(self._phase, Counts())

    def _enter_phase(self, phase):
        @contextmanager
        def wrapped(stopwatch, name):
            outer, self._phase = self._phase, name
            try:
                with phase(stopwatch, name):
                    yield
            finally:
                self._phase = outer

        return wrapped

    def _register(self, init):
        def wrapped(weights, start, **options):
            self._tiles.append(start.tiles)
            self.n_weights += start.shape[0] * start.shape[1]
            init(weights, start, **options)

        return wrapped

    def _are_weights(self, array):
        return any(np.may_share_memory(array, tiles) for tiles in self._tiles)

    def _rows(self, pattern):
        """Where the rows of a pattern begin, and its columns that have entries."""
        if id(pattern) not in self._known:
            indptr, indices, _ = pattern.to_csr()
            used = np.zeros(pattern.shape[1], dtype=bool)
            used[indices] = True
            # The pattern is kept, so that no other one gets its address.
            self._known[id(pattern)] = pattern, indptr, used
        return self._known[id(pattern)][1:]

    def _product(self, rows, tiles, shape, first_row, transposed):
        n_rows, n_columns = shape
        with self._lock:
            indptr, used = self._rows(rows)
            operations = 2 * int(indptr[first_row + n_rows] - indptr[first_row]) * n_columns
            if not self._are_weights(tiles):
                self.counts.elsewhere += operations
                return
            self.counts.through_weights += operations
            chunks = -(-(first_row + n_rows) // CHUNK_ROWS) - first_row // CHUNK_ROWS
            self.counts.weights_fetched += chunks * len(used) * n_columns
            if transposed:
                share = n_columns / tiles.shape[1]
                self.counts.n_backward += share
                self.counts.outputs_used += share * used.mean()
            else:
                share = n_columns / (LANES * len(tiles))
                self.counts.n_forward += share
                self.counts.inputs_used += share * used.mean()

    def _forward(self, kernel):
        def wrapped(rows, values, tiles, out, first_panel=0, first_row=0, accumulate=False):
            self._product(rows, tiles, out.shape, first_row, False)
            kernel(rows, values, tiles, out, first_panel, first_row, accumulate)

        return wrapped

    def _backward(self, kernel):
        def wrapped(rows, values, tiles, out, first_panel=0, first_row=0, accumulate=False):
            self._product(rows, tiles, out.shape, first_row, True)
            kernel(rows, values, tiles, out, first_panel, first_row, accumulate)

        return wrapped

    def _add_hadamard(self, kernel):
        def wrapped(total, first, left, left_rows, right, right_rows):
            for rows, _ in [*left_rows, *right_rows]:
                with self._lock:
                    indptr, _ = self._rows(rows)
                    self.counts.elsewhere += 2 * int(indptr[-1] - indptr[first]) * total.shape[1]
            kernel(total, first, left, left_rows, right, right_rows)

        return wrapped

    def _forward_packed(self, kernel):
        def wrapped(rows, values, tiles, out, accumulate=False):
            operations = 2 * rows.nnz * len(tiles) * LANES
            with self._lock:
                if self._are_weights(out):
                    self.counts.into_weights += operations
                    self.counts.weights_written += out.size
                else:
                    self.counts.elsewhere += operations
            kernel(rows, values, tiles, out, accumulate)

        return wrapped

    def _add_product(self, add_product):
        def wrapped(packed, U, G, route):
            if route != "scatter":
                raise ValueError(f"factors went through the route {route!r}, whose operations are not counted.")
            add_product(packed, U, G, route)

        return wrapped

    def _evaluate(self, evaluate):
        def wrapped(columnwise_sum, part, out):
            if columnwise_sum._dense is not None:
                with self._lock:
                    self.counts.dense += 2 * out.size * columnwise_sum._dense[0].shape[1]
            evaluate(columnwise_sum, part, out)

        return wrapped
