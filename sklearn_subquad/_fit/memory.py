"""The memory bill of a fit."""

import itertools
from dataclasses import dataclass

from scipy.sparse import issparse

from sklearn_subquad._curvature.preconditioners import MAX_SQUARE_ROWS, default_sketch_size
from sklearn_subquad._fit.data import CALIBRATION_ROWS
from sklearn_subquad._fit.laplace import COVARIANCE_BLOCK_ROWS
from sklearn_subquad._kernels import LANES
from sklearn_subquad._memory import require_bytes
from sklearn_subquad._network.activations import dense_row_bytes
from sklearn_subquad._solver.levenberg_marquardt import MIN_DAMPING_ROWS


@dataclass(frozen=True)
class SparseInputs:
    """Figures of sparse network inputs.

    Attributes
    ----------
    row_entries : float
        Of a row, on average.
    n_spanning : int or None
        Rows whose combinations weights of the inputs are kept as, where these are more; None: they are dense.
    keeps_start : bool
        True where initial weights are dense, and are kept beside combinations of rows.
    """

    row_entries: float
    n_spanning: int | None
    keeps_start: bool

    @classmethod
    def of(cls, data, n_bins, start, n_fitted, init):
        """Those of a `TrainingSet` at most; None of a dense X.

        No feature has more than `n_bins` ramps. A fit goes on from a `start`, whose weights are of other rows, if it is
        not None. Of the number of fitted rows, None says that they are a part that others follow.
        """
        if not issparse(data.X):
            return None
        n_ramps = n_bins if start is None else max(start.inputs.n_ramps, default=0)
        row_entries = data.X.nnz / len(data) * (1 + n_ramps)
        spans_rows = start is None and n_fitted is not None and data.X.shape[1] > n_fitted
        return cls(row_entries, n_fitted if spans_rows else None, keeps_start=init == "gaussian")


@dataclass(frozen=True)
class FitSize:
    """Figures that decide the memory of a fit, and its bytes by the budget of doc/memory.md.

    Attributes
    ----------
    widths, densities : tuple
        Per hidden layer.
    n_rows, rows_of_a_step : int
        The first is larger where a fit is in batches.
    n_inputs, n_outputs : int
    itemsize : int
        Bytes of a number.
    topk : bool
        True where active neurons are chosen from a whole row.
    forms_gram : bool
        True where the Gram matrix of a step's rows is formed.
    block_rows : int or None
        Rows that are linearised at a time where a step has more; None: all.
    n_copies : int
        Copies of the weights: in batches an average of the iterates and the best one, with a score one to predict with.
    sketch_size : int
        Columns of the sketch that a step makes of its rows, 0 without one.
    n_factors : int
        Outputs with a factorisation of their own; 0 where their curvatures differ and one has to serve all.
    covariance_size : int
        Columns of the sketch in whose space the covariance of predictions is, 0 without one.
    n_validation_rows : int
        Rows that are not fitted and no part of `n_rows`.
    sparse : SparseInputs or None
        None of dense inputs.
    """

    widths: tuple
    densities: tuple
    n_rows: int
    rows_of_a_step: int
    n_inputs: int
    n_outputs: int
    itemsize: int
    topk: bool = False
    forms_gram: bool = True
    block_rows: int | None = None
    n_copies: int = 1
    sketch_size: int = 0
    n_factors: int = 1
    covariance_size: int = 0
    n_validation_rows: int = 0
    sparse: SparseInputs | None = None

    @property
    def _n_weights(self):
        """Numbers of weights between hidden layers, and of others."""
        hidden = sum(m_in * m_out for m_in, m_out in itertools.pairwise(self.widths))
        dense = sum(self.widths) * (self._n_spanning or self.n_inputs)
        dense += (self.widths[-1] + self.n_inputs) * self.n_outputs
        return hidden, dense

    @property
    def _n_spanning(self):
        """Rows whose combinations weights of the inputs are kept as, 0 where these are dense."""
        return 0 if self.sparse is None else self.sparse.n_spanning or 0

    @property
    def _start_bytes(self):
        """Bytes of initial weights that are kept beside combinations of rows."""
        kept = self._n_spanning and self.sparse.keeps_start
        return self.itemsize * sum(self.widths) * self.n_inputs if kept else 0

    @property
    def _input_row_bytes(self):
        """Bytes of the network inputs of a row."""
        if self.sparse is None:
            return self.n_inputs * self.itemsize
        # Values and columns; once more transposed, and once more in the order of the kernels.
        return 3 * self.sparse.row_entries * (self.itemsize + 8)

    @property
    def network_bytes(self):
        """Bytes of a fitted network."""
        return self.itemsize * sum(self._n_weights) + self._start_bytes

    @property
    def covariance_bytes(self):
        """Bytes of its covariance of predictions."""
        return self.itemsize * self.covariance_size**2

    @property
    def weight_bytes(self):
        """Bytes of all copies of the weight matrices."""
        hidden, dense = self._n_weights
        # J J^T of blocks of rows goes through a dense change of the weights, and a step changes copies of dense parts.
        n_bytes = self.itemsize * ((self.n_copies + self._in_blocks) * hidden + (1 + self.n_copies) * dense)
        # Initial weights are drawn as a dense matrix, one layer at a time.
        drawing = self.itemsize * max(self.widths) * self.n_inputs if self._n_spanning else 0
        return n_bytes + drawing + self._start_bytes

    @property
    def _in_blocks(self):
        return self.block_rows is not None and self.rows_of_a_step > self.block_rows

    @property
    def _largest_step(self):
        """Rows of the largest step, which may be one that is tried only."""
        return max(self.rows_of_a_step, min(self.n_rows, MIN_DAMPING_ROWS))

    @property
    def row_bytes(self):
        """Bytes of all that grows with the rows."""
        n = self._largest_step
        # An entry of sparse rows: a value, its 2 bytes of position, and 8 of its place in the transpose.
        entries = sum(width * density for width, density in zip(self.widths, self.densities, strict=True))
        entry = self.itemsize + 10
        # Activations and cotangents of this iterate and some before it, by rows and partly transposed.
        dense_row = max(self.widths) * dense_row_bytes(self.itemsize, self.topk)
        stepping = n * 4 * entries * entry + min(n, self.block_rows or n) * dense_row
        # Shifts are calibrated on more rows than a small batch has.
        calibrating = min(self.n_rows, CALIBRATION_ROWS) * (entries * entry + dense_row)
        data = self._input_row_bytes + self.n_outputs * self.itemsize
        data *= self.n_rows + self.n_validation_rows
        # Inner products of the rows of a step with those that span the weights.
        data += 2 * n * self._n_spanning * self.itemsize
        # Numbers per row and output: of the inner solver, and in double precision of the model that it leaves. Besides,
        # places of rows in patterns, norms, weights.
        solving = n * (self.n_outputs * (10 * self.itemsize + 4 * 8) + 200)
        if self.n_factors == 0:
            # Iterations within those of the inner solver, which keeps one residual more.
            solving += n * self.n_outputs * 7 * self.itemsize
        fitting = max(stepping, calibrating) + solving + self._square_bytes()
        # What a step has held is free when the covariance is made.
        return int(max(fitting, self._covariance_bytes(entries * entry, dense_row)) + data)

    def _covariance_bytes(self, activation_row, dense_row):
        """Bytes that finding the covariance of predictions takes, given those of a row's activations."""
        block, size = min(self.n_rows, COVARIANCE_BLOCK_ROWS), self.covariance_size
        if size == 0:
            return 0
        # Activations and the cotangents of up to three probes; features in both precisions.
        linearising = block * (4 * activation_row + dense_row + size * (self.itemsize + 8))
        # Features of rows that are left out, turned and squared; residuals.
        leaving_out = min(self.n_rows, CALIBRATION_ROWS) * 8 * (3 * size + 3 * self.n_outputs)
        if self.sparse is not None:
            # A panel of rows as an array, with signs, and transformed.
            linearising += 4 * LANES * self.n_inputs * self.itemsize
        # The normal matrix, its eigenvectors, and what LAPACK takes for them.
        return linearising + leaving_out + 8 * size * (5 * size + 2 * self.n_outputs)

    def _square_bytes(self):
        """Bytes of matrices of rows x rows, and of sketches."""
        n, factored = self.rows_of_a_step, 0 if self.n_factors == 1 else self.n_factors + 3
        # Two per layer; their sum in double precision, its factor, and what leave-one-out makes of it.
        of_layers, of_the_sum = (2 * len(self.widths) + 4) * self.itemsize, 8 * 8
        n_bytes = 0
        if not self._in_blocks:
            n_bytes += n**2 * of_layers
        if self.forms_gram:
            n_bytes += n**2 * (of_the_sum + 8 * factored)
        if self.sketch_size:
            smaller = min(n, self.sketch_size)
            n_bytes += 2 * n * self.sketch_size * self.itemsize + smaller**2 * 8 * (4 + factored)
        if self._largest_step > n:
            n_bytes = max(n_bytes, self._largest_step**2 * (of_layers + of_the_sum))
        return n_bytes


def require_memory(plan, parameters):
    """MemoryError where the machine has less than a plan takes, with what to change of the estimator's `parameters`."""
    size = plan.size
    advice = "use narrower layers, a smaller batch_size, fewer rows or precision='single'."
    if size.forms_gram and size.rows_of_a_step > MAX_SQUARE_ROWS:
        asked = "early_stopping='loo'" if parameters.early_stopping == "loo" else "preconditioner='gram'"
        advice = f"{asked} takes most of that; leave it at 'auto', or use a smaller batch_size."
    elif size.sketch_size > default_sketch_size(size.rows_of_a_step):
        advice = f"sketch_size={size.sketch_size} is more than 'auto', which may be enough; or {advice}"
    require_bytes(
        plan.n_bytes,
        f"hidden_layer_sizes={size.widths} takes {size.weight_bytes:,} bytes of weights and, for {size.n_rows} "
        f"rows, about {size.row_bytes:,} more; {advice}",
    )
