"""The Jacobian of the network's outputs by all its parameters, as an operator that is never formed."""

import numpy as np
import scipy.linalg

from sklearn_subquad._matmul import PackedMatrix, dense_product, row_gram, times_dense
from sklearn_subquad._network import Step
from sklearn_subquad._parallel import blas_threads
from sklearn_subquad._products import ColumnwiseSum, sparse_term

# Outputs (or random combinations of them) whose Gram matrices are averaged.
MAX_PROBES = 3


def make_probes(n_outputs, rng):
    """Output combinations (k x p) over which shared quantities are averaged.

    All unit vectors for up to `MAX_PROBES` outputs, otherwise random signs over sqrt(k): the mean of the Gram
    matrices over such signs is their mean over the outputs, in expectation.
    """
    if n_outputs <= MAX_PROBES:
        return np.eye(n_outputs)
    return rng.choice([-1.0, 1.0], size=(n_outputs, MAX_PROBES)) / np.sqrt(n_outputs)


class Jacobian:
    """Derivative of the outputs at one point, with rows scaled by the square roots of the sample weights.

    For row i and layer l the derivative by W_l is the rank-one matrix u_il g_{i,l-1}^T, sparse in both
    factors. `Jt` combines rows into the factors of a `Step`, `J` is the forward tangent along one. One call
    costs the same for 1 and for many outputs but for products of n x k numbers; no array has n * m * k or
    m * m elements.

    Parameters
    ----------
    network : Network
    activations : Activations
        Of the n rows at the network's present parameters.
    row_scale : ndarray of shape (n,)
        Square roots of the sample weights.
    probes : ndarray of shape (k, p)
        From `make_probes`.
    """

    def __init__(self, network, activations, row_scale, probes):
        dtype = activations.output.dtype
        self.network = network
        self.activations = activations
        self.row_scale = row_scale.astype(dtype)[:, None]
        self.probes = probes.astype(dtype)
        self.n_rows, self.n_outputs = activations.output.shape
        self._x_columns = PackedMatrix.from_dense(activations.x.T)
        self._hidden_grams = {}
        self._packed_hidden_grams = {}
        self._probe_cotangents = None
        self._gram = None
        self._gram_factor = (None, None)

    @property
    def dtype(self):
        return self.activations.output.dtype

    def cotangents(self, C):
        """U_l for all layers: the derivatives of ``sum(C * outputs)`` by z_l, row by row.

        Parameters
        ----------
        C : ndarray of shape (n, k)

        Returns
        -------
        list of SparseRows of shape (n, m_l), with the patterns of the activations
        """
        layers = self.network.layers
        A, _ = self.network.output_weights
        U = [None] * len(layers)
        dense, sparse = (C, A.T), []
        for depth in reversed(range(len(layers))):
            U[depth] = self._active(depth, dense, sparse)
            if depth > 0:
                dense, sparse = None, layers[depth].hidden_weights.backward_terms(U[depth])
        return U

    def Jt(self, C):
        """The change of the parameters ``J^T C``, as a `Step`.

        Parameters
        ----------
        C : ndarray of shape (n, k)
        """
        C = self.row_scale * C
        x, hidden = self.activations.x, self.activations.hidden
        U = self._combined_probes(C) if self.n_outputs == 1 else self.cotangents(C)
        input_changes = [
            None if layer.input_weights is None else self._x_columns.forward(u.transposed())
            for layer, u in zip(self.network.layers, U, strict=True)
        ]
        _, inputs = self.network.output_weights
        output_changes = (times_dense(hidden[-1].transposed(), C), None if inputs is None else x.T @ C)
        return Step(U, hidden, input_changes, output_changes)

    def _combined_probes(self, C):
        """`cotangents` for one output: those of the only probe, the output itself, times a number per row."""
        return [u.scaled_rows(C[:, 0]) for u in self.probe_cotangents()[0]]

    def J(self, step):
        """The tangent ``J step`` (n x k) of the outputs along a `Step` of this linearisation."""

        def hidden_change(depth):
            return [sparse_term(self._packed_hidden_gram(depth - 1), step.cotangents[depth])]

        return self._tangent(hidden_change, step.input_changes, step.output_changes)

    def along_total_change(self):
        """The tangent (n x k) of the outputs along all that was added to the network since its start."""
        network = self.network

        def hidden_change(depth):
            return network.layers[depth].hidden_weights.delta_terms(self.activations.hidden[depth - 1])

        return self._tangent(
            hidden_change,
            [
                None if layer.input_weights is None else layer.input_weights - layer.start_input_weights
                for layer in network.layers
            ],
            [
                None if now is None else now - start
                for now, start in zip(network.output_weights, network.start_output_weights, strict=True)
            ],
        )

    def _tangent(self, hidden_change, input_changes, output_changes):
        x, hidden = self.activations.x, self.activations.hidden
        moved = None
        for depth, layer in enumerate(self.network.layers):
            dense = None if input_changes[depth] is None else (x, input_changes[depth].T)
            sparse = []
            if depth > 0:
                sparse = layer.hidden_weights.forward_terms(moved) + hidden_change(depth)
            moved = self._active(depth, dense, sparse)
        A, _ = self.network.output_weights
        out = times_dense(moved, A) + times_dense(hidden[-1], output_changes[0])
        if output_changes[1] is not None:
            out += x @ output_changes[1]
        return self.row_scale * out

    def _active(self, depth, dense, sparse):
        """The sparsifier's derivative at layer `depth` times a `ColumnwiseSum` of these products (n x m)."""
        rows = self.activations.hidden[depth]
        return ColumnwiseSum(rows.shape, self.dtype, dense, sparse).on_pattern(rows, self.network.layers[depth].gain)

    def _hidden_gram(self, depth):
        """h_l h_l^T (n x n), kept for this linearisation."""
        if depth not in self._hidden_grams:
            self._hidden_grams[depth] = row_gram(self.activations.hidden[depth])
        return self._hidden_grams[depth]

    def _packed_hidden_gram(self, depth):
        if depth not in self._packed_hidden_grams:
            self._packed_hidden_grams[depth] = PackedMatrix.from_dense(self._hidden_gram(depth))
        return self._packed_hidden_grams[depth]

    def probe_cotangents(self):
        """`cotangents` for every column of `probes`, one list per probe."""
        if self._probe_cotangents is None:
            ones = np.ones((self.n_rows, 1), dtype=self.dtype)
            self._probe_cotangents = [self.cotangents(ones * probe) for probe in self.probes.T]
        return self._probe_cotangents

    def layer_inputs(self):
        """Pairs (h_{l-1} or None, x or None) of what W_l and, last, the output weights meet."""
        layers, hidden, x = self.network.layers, self.activations.hidden, self.activations.x
        _, inputs = self.network.output_weights
        pairs = [
            (hidden[depth - 1] if depth else None, None if layer.input_weights is None else x)
            for depth, layer in enumerate(layers)
        ]
        return [*pairs, (hidden[-1], None if inputs is None else x)]

    def gram(self):
        """The Gram matrix J J^T (n x n, float64) that all outputs share, averaged over the probes.

        ``K = sum_l (G_{l-1} G_{l-1}^T) * mean_v(U_l^(v) U_l^(v)^T) + G_L G_L^T``; exact for one output.
        """
        if self._gram is None:
            x = self.activations.x
            x_gram = dense_product(x, x.T)
            total = np.zeros((self.n_rows, self.n_rows))
            for depth, (h, inputs) in enumerate(self.layer_inputs()):
                inner = np.zeros((self.n_rows, self.n_rows), dtype=self.dtype)
                if h is not None:
                    inner += self._hidden_gram(depth - 1)
                if inputs is not None:
                    inner += x_gram
                if depth < len(self.network.layers):
                    outer = sum(row_gram(U[depth]) for U in self.probe_cotangents())
                    inner *= outer / self.dtype.type(self.probes.shape[1])
                total += inner
            scale = self.row_scale.astype(np.float64)
            total *= scale
            total *= scale.T
            self._gram = total
        return self._gram

    def gram_solve(self, shift, R):
        """``(gram() + shift * I)^-1 R`` by Cholesky; the factor of the last shift is kept.

        Raises
        ------
        numpy.linalg.LinAlgError
            Where the shifted matrix is not positive definite in double precision.
        """
        if self._gram_factor[0] != shift:
            shifted = self.gram().copy()
            shifted.flat[:: self.n_rows + 1] += shift
            with blas_threads(self.n_rows**3 / 3):
                factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
            self._gram_factor = (shift, factor)
        with blas_threads(2 * self.n_rows**2 * R.shape[1]):
            return scipy.linalg.cho_solve(self._gram_factor[1], R, check_finite=False)

    def mean_diagonal(self):
        """Mean over rows (by their sample weights) and probes of the diagonal of the unscaled J J^T."""
        diagonal = np.zeros(self.n_rows)
        for depth, (h, inputs) in enumerate(self.layer_inputs()):
            norms = np.zeros(self.n_rows)
            if h is not None:
                norms += h.row_norms()
            if inputs is not None:
                norms += np.einsum("ij,ij->i", inputs, inputs, dtype=np.float64)
            if depth < len(self.network.layers):
                norms *= np.mean([U[depth].row_norms() for U in self.probe_cotangents()], axis=0)
            diagonal += norms
        return float(np.average(diagonal, weights=self.row_scale[:, 0] ** 2))
