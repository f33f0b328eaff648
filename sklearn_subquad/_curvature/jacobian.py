"""The Jacobian of the network's outputs by all its parameters, as an operator that is never formed."""

import numpy as np
import scipy.linalg

from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.columnwise import ColumnwiseSum, sparse_term
from sklearn_subquad._linalg.packed import PackedMatrix, row_gram_columns, symmetric, times_dense
from sklearn_subquad._linalg.threads import blas_threads
from sklearn_subquad._network.network import Step

# Up to so many outputs, all are probes.
MAX_SPANNED = 3
# The Gram matrices of all layers' inputs may take so many bytes, beyond which products go through folded weights.
_LAYER_GRAM_BYTES = 1 << 30


def make_probes(n_outputs, rng, n_random=3):
    """Output combinations (k x p) over which shared quantities are averaged.

    All unit vectors for up to three outputs, otherwise `n_random` vectors of random signs over sqrt(k): the mean of the
    Gram matrices over such signs is their mean over the outputs, in expectation.
    """
    if n_outputs <= MAX_SPANNED:
        return np.eye(n_outputs)
    return rng.choice([-1.0, 1.0], size=(n_outputs, n_random)) / np.sqrt(n_outputs)


class Jacobian:
    """Derivative of the outputs at one point, scaled as a Gauss-Newton step needs it: ``diag(row_scale) S^T J``.

    For row i and layer l the derivative by W_l is the rank-one matrix u_il g_{i,l-1}^T, sparse in both
    factors. `Jt` combines rows into the factors of a `Step`, `J` is the forward tangent along one, and `normal` is
    J after Jt. One call costs the same for 1 and for many outputs but for products of n x k numbers; no array has
    n * m * k or m * m elements, but for the change of the weights where there are more rows than neurons.

    Parameters
    ----------
    network : Network
    activations : Activations
        Of the n rows at the network's present parameters.
    row_scale : ndarray of shape (n,)
        Square roots of the sample weights.
    probes : ndarray of shape (k, p)
        From `make_probes`.
    factor : IdentityFactor, DiagonalFactor or SoftmaxFactor
        The curvature factor S of the loss.

    Attributes
    ----------
    curvature : IdentityFactor, DiagonalFactor or SoftmaxFactor
        What of S `gram` leaves out: all that is not one number per row.
    """

    def __init__(self, network, activations, row_scale, probes, factor):
        dtype = activations.output.dtype
        self.network = network
        self.activations = activations
        self.row_scale = row_scale.astype(dtype)[:, None]
        self.probes = probes.astype(dtype)
        self.n_rows, self.n_outputs = activations.output.shape
        # A number per row is part of its scale; what mixes outputs, or weighs them differently, is not.
        self.curvature = factor
        self._scale = self.row_scale
        if self.n_outputs == 1 and factor.row_scale is not None:
            self.curvature = IdentityFactor()
            self._scale = self.row_scale * factor.row_scale
        self._x_columns = PackedMatrix.from_dense(activations.x.T)
        self._layer_grams = {}
        self._probe_cotangents = None
        self._gram = None
        self._gram_factor = (None, None)

    @property
    def dtype(self):
        return self.activations.output.dtype

    def output_cotangents(self, C):
        """``S C`` by rows, times the row scale: what C means for the network's own outputs (n x k)."""
        return self._scale * self.curvature.apply(C)

    def _scaled(self, tangents):
        """The adjoint of `output_cotangents`, of tangents of the outputs (n x k)."""
        return self.curvature.apply_transposed(self._scale * tangents)

    def output_scales(self):
        """By how much S scales every output of every row (n x k), which `gram` leaves out; None where it is one."""
        return None if self.curvature.is_identity else self.curvature.output_scales()

    def cotangents(self, C):
        """U_l for all layers: the derivatives of ``sum(C * outputs)`` by z_l, row by row.

        Parameters
        ----------
        C : ndarray of shape (n, k)
            Of the outputs themselves, from `output_cotangents`.

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
        """The change of the parameters by the transposed scaled Jacobian times C (n x k), as a `Step`."""
        x, hidden = self.activations.x, self.activations.hidden
        U, C = self._combined_cotangents(C), self.output_cotangents(C)
        input_changes = [
            None if layer.input_weights is None else self._x_columns.forward(u.transposed())
            for layer, u in zip(self.network.layers, U, strict=True)
        ]
        _, inputs = self.network.output_weights
        output_changes = (times_dense(hidden[-1].transposed(), C), None if inputs is None else x.T @ C)
        factors = [[], *([pair] for pair in zip(U[1:], hidden[:-1], strict=True))]
        return Step(factors, input_changes, output_changes)

    @property
    def _probes_span_outputs(self):
        """Whether the probes are the outputs themselves: then nothing else needs another backward pass."""
        return self.probes.shape[1] == self.n_outputs

    def _combined_cotangents(self, C):
        """`cotangents` of ``output_cotangents(C)``."""
        if not self._probes_span_outputs:
            return self.cotangents(self.output_cotangents(C))
        by_layer, C = zip(*self.probe_cotangents(), strict=True), self.curvature.apply(C)
        return [_combination(of_outputs, C) for of_outputs in by_layer]

    def J(self, step):
        """The scaled Jacobian times a `Step` (n x k), through the folded weights."""
        folded = FoldedStep(self.network)
        folded.add(step)
        return self.tangent(folded)

    def tangent(self, folded):
        """The scaled Jacobian times a `FoldedStep` (n x k)."""

        def hidden_change(depth):
            rows = self.activations.hidden[depth - 1]
            return [lambda out, first: folded.hidden[depth].add_forward(rows, out, first)]

        return self._tangent(hidden_change, folded.input_changes, folded.output_changes)

    def normal(self, C):
        """``J Jt C`` for the scaled Jacobian (n x k).

        With few rows every layer's part is ``(G G^T) U`` for the Gram matrix of the layer's inputs; with the outputs
        themselves as probes, the tangent at a layer then contracts with their cotangents, without any weights.
        """
        if not self._layer_grams_pay:
            return self.J(self.Jt(C))
        U, last = self._combined_cotangents(C), self._layer_gram(len(self.network.layers))
        from_outputs = self._scaled(last.times(self.output_cotangents(C)))
        if self._probes_span_outputs:
            out = np.zeros((self.n_rows, self.n_outputs))
            for depth, u in enumerate(U):
                moved = ColumnwiseSum(u.shape, self.dtype, sparse=[sparse_term(self._layer_gram(depth), u)])
                tangent = moved.on_pattern(u, 1.0)
                for output, probe in enumerate(self.probe_cotangents()):
                    out[:, output] += probe[depth].row_dots(tangent)
            return self.curvature.apply_transposed(out.astype(self.dtype, copy=False)) + from_outputs
        moved = None
        for depth, u in enumerate(U):
            sparse = [sparse_term(self._layer_gram(depth), u)]
            if depth > 0:
                sparse += self.network.layers[depth].hidden_weights.forward_terms(moved)
            moved = self._active(depth, None, sparse)
        return self._scaled(times_dense(moved, self.network.output_weights[0])) + from_outputs

    @property
    def _layer_grams_pay(self):
        """Whether layers' Gram matrices are the cheaper way for `normal`, and small enough to be kept."""
        layers = self.network.layers
        through_grams = through_weights = 0
        for depth, (h, x) in enumerate(self.layer_inputs()[:-1]):
            active = self.activations.hidden[depth].nnz
            through_grams += self.n_rows * active
            if h is not None:
                # Folding the factors in, and multiplying with what they are folded into.
                through_weights += h.nnz * layers[depth].width * 2
            if x is not None:
                through_weights += (active + self.n_rows * layers[depth].width) * x.shape[1]
        n_bytes = (len(layers) + 1) * self.n_rows**2 * self.dtype.itemsize
        return n_bytes <= _LAYER_GRAM_BYTES and through_grams <= through_weights

    def along_total_change(self):
        """The scaled tangent (n x k) of the outputs along all that was added to the network since its start."""
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
        return self._scaled(out)

    def _active(self, depth, dense, sparse):
        """The sparsifier's derivative at layer `depth` times a `ColumnwiseSum` of these products (n x m)."""
        rows = self.activations.hidden[depth]
        return ColumnwiseSum(rows.shape, self.dtype, dense, sparse).on_pattern(rows, self.network.layers[depth].gain)

    def layer_inputs(self):
        """Pairs (h_{l-1} or None, x or None) of what W_l and, last, the output weights meet."""
        layers, hidden, x = self.network.layers, self.activations.hidden, self.activations.x
        _, inputs = self.network.output_weights
        pairs = [
            (hidden[depth - 1] if depth else None, None if layer.input_weights is None else x)
            for depth, layer in enumerate(layers)
        ]
        return [*pairs, (hidden[-1], None if inputs is None else x)]

    def _layer_gram(self, depth):
        """``G G^T`` of what W_l meets, or the output weights for the depth after the last; kept, n x n, packed."""
        if depth not in self._layer_grams:
            gram = symmetric(self.n_rows, self.dtype, lambda *columns: self._layer_gram_columns(depth, *columns))
            self._layer_grams[depth] = PackedMatrix.from_dense(gram)
        return self._layer_grams[depth]

    def _layer_gram_columns(self, depth, first, last):
        """Rows from `first` on of the columns `first` to `last` of `_layer_gram`: dense."""
        if depth in self._layer_grams:
            return self._layer_grams[depth].tiles[first // LANES, first:, : last - first]
        h, x = self.layer_inputs()[depth]
        of_x = None if x is None else x[first:] @ x[first:last].T
        if h is None:
            return of_x
        of_h = row_gram_columns(h, first, last)
        return of_h if of_x is None else np.add(of_h, of_x, out=of_h)

    def probe_cotangents(self):
        """`cotangents` of every column of `probes`, with the row scale but not S; one list per probe."""
        if self._probe_cotangents is None:
            self._probe_cotangents = [self.cotangents(C) for C in self._probe_outputs()]
        return self._probe_cotangents

    def _probe_outputs(self):
        return [self._scale * probe for probe in self.probes.T]

    def probe_factors(self):
        """For every probe, and every layer and the output weights: (u, h, x), whose rows' tensors u ⊗ [h, x] have the
        inner products of `gram`; u is sparse but for the output weights, one of h and x may be None."""
        inputs = self.layer_inputs()
        return [
            [(u, h, x) for u, (h, x) in zip([*U, C], inputs, strict=True)]
            for U, C in zip(self.probe_cotangents(), self._probe_outputs(), strict=True)
        ]

    def probe_input_gradients(self):
        """For every probe the gradients (n x (n_features + 1)) of its combination of outputs by x, times row scale."""
        inputs = [*(layer.input_weights for layer in self.network.layers), self.network.output_weights[1]]
        for U, C in zip(self.probe_cotangents(), self._probe_outputs(), strict=True):
            *of_layers, of_outputs = inputs
            parts = [times_dense(u, W) for u, W in zip(U, of_layers, strict=True) if W is not None]
            yield sum(parts) if of_outputs is None else sum(parts) + C @ of_outputs.T

    def gram(self):
        """The Gram matrix (n x n, float64) that all outputs share, averaged over the probes, without their scales.

        ``K = sum_l (G_{l-1} G_{l-1}^T) * mean_v(U_l^(v) U_l^(v)^T)``, the output weights being the last layer; exact
        for one output.
        """
        if self._gram is None:
            if self.n_outputs > 1 and self._layer_grams_pay:
                # `normal` needs them as well.
                for depth in range(len(self.network.layers) + 1):
                    self._layer_gram(depth)
            self._gram = symmetric(self.n_rows, np.float64, self._gram_columns)
        return self._gram

    def _gram_columns(self, first, last):
        """Rows from `first` on of the columns `first` to `last` of `gram`: all that is summed stays in the cache."""
        n_probes = self.dtype.type(self.probes.shape[1])
        total = np.zeros((self.n_rows - first, last - first))
        for depth, of_probes in enumerate(zip(*self.probe_cotangents(), strict=True)):
            layer = sum(row_gram_columns(u, first, last) for u in of_probes)
            layer *= self._layer_gram_columns(depth, first, last)
            total += layer / n_probes
        layer = sum(C[first:] @ C[first:last].T for C in self._probe_outputs())
        layer *= self._layer_gram_columns(len(self.network.layers), first, last)
        return total + layer / n_probes

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
                # The transpose of a symmetric matrix is stored as LAPACK wants it, and is not copied once more.
                factor = scipy.linalg.cho_factor(shifted.T, lower=True, overwrite_a=True, check_finite=False)
            self._gram_factor = (shift, factor)
        with blas_threads(2 * self.n_rows**2 * R.shape[1]):
            return scipy.linalg.cho_solve(self._gram_factor[1], R, check_finite=False)

    def features(self, sketch, out=None):
        """Row features of a `JacobianSketch` (n x sketch_size), with the inner products of `gram` in expectation.

        Parameters
        ----------
        sketch : JacobianSketch
        out : ndarray of shape (n, sketch_size) or None
            Where to write them.
        """
        return sketch.features(self.probe_factors(), self.n_rows, self.dtype, out)

    def mean_diagonal(self):
        """Mean over rows (by their sample weights) and probes of the diagonal of ``S^T J J^T S``."""
        return self.trace() / float(np.square(self.row_scale, dtype=np.float64).sum())

    def trace(self):
        """Mean over probes of the trace of ``S^T J J^T S``."""
        diagonal = np.zeros(self.n_rows)
        inputs = self.layer_inputs()
        outputs = [np.einsum("ij,ij->i", C, C, dtype=np.float64) for C in self._probe_outputs()]
        for depth, (h, x) in enumerate(inputs):
            norms = np.zeros(self.n_rows)
            if h is not None:
                norms += h.row_norms()
            if x is not None:
                norms += np.einsum("ij,ij->i", x, x, dtype=np.float64)
            of_probes = outputs
            if depth < len(self.network.layers):
                of_probes = [U[depth].row_norms() for U in self.probe_cotangents()]
            diagonal += norms * np.mean(of_probes, axis=0)
        scales = self.output_scales()
        if scales is not None:
            diagonal *= np.square(scales, dtype=np.float64).mean(axis=1)
        return float(diagonal.sum())


class FoldedStep:
    """A sum of steps as dense changes of all parameters, which the tangents of many rows share.

    Parameters
    ----------
    network : Network
        Whose steps are added; it is not changed.

    Attributes
    ----------
    hidden : list of PackedMatrix or None
        Changes of the hidden-to-hidden weights; they take as much memory as those.
    input_changes, output_changes : list of ndarray or None
    """

    def __init__(self, network):
        self.hidden = [
            None if layer.hidden_weights is None else PackedMatrix.zeros(*layer.hidden_weights.shape, network.dtype)
            for layer in network.layers
        ]
        self.input_changes = [None] * len(network.layers)
        self.output_changes = [None] * len(network.output_weights)

    def add(self, step):
        """Add a `Step`."""
        for packed, pairs in zip(self.hidden, step.factors, strict=True):
            for U, G in pairs:
                packed.add_product(U, G, "scatter")
        self.input_changes = sums_of(self.input_changes, step.input_changes)
        self.output_changes = sums_of(self.output_changes, step.output_changes)


def sums_of(parts, others):
    """Sums of two lists of arrays; None counts as zero."""
    return [b if a is None else a if b is None else a + b for a, b in zip(parts, others, strict=True)]


def _combination(of_outputs, C):
    """Sum of sparse rows on one pattern, those of output a with rows times ``C[:, a]``."""
    first, *others = (u.scaled_rows(C[:, output]) for output, u in enumerate(of_outputs))
    if not others:
        return first
    values = first.values.copy()
    for other in others:
        values += other.values
    return first.with_values(values)
