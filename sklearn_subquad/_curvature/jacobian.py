"""The Jacobian of the network's outputs by all its parameters, as an operator that is never formed."""

import numpy as np

from sklearn_subquad._curvature.folded_step import FoldedStep
from sklearn_subquad._curvature.gram import GramMatrix, LayerGrams
from sklearn_subquad._curvature.losses import IdentityFactor
from sklearn_subquad._linalg.columnwise import ColumnwiseSum, sparse_term
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.packed import times_dense
from sklearn_subquad._linalg.row_span import products
from sklearn_subquad._network.network import Step

# Up to so many outputs, all are probes.
MAX_SPANNED = 3


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
    factors. `Jt` combines rows into the factors of a `Step`, `J` is the forward tangent along one, and `gram_matvec` is
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
        The part of S that the Gram matrix leaves out: all that is not one number per row.
    gram : GramMatrix
    probe_outputs : list of ndarray of shape (n, k)
        Every column of `probes` as cotangents of all rows' outputs, with the row scale but not S.
    probe_cotangents : list of list of SparseRows
        Their `cotangents`, one list per probe.
    layer_inputs : list of tuple
        Pairs of what W_l and, last, the output weights meet, see `Network.layer_inputs`.
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
        self._x = as_features(activations.x)
        self._combine = self._x.combiner()
        self.layer_inputs = network.layer_inputs(activations)
        self._layer_grams = LayerGrams(self.layer_inputs, activations)
        self.probe_outputs = [self._scale * probe for probe in self.probes.T]
        self.probe_cotangents = [self.cotangents(C) for C in self.probe_outputs]
        self.gram = GramMatrix(self.probe_cotangents, self.probe_outputs, self._layer_grams)

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
        """Factors by which S, which the Gram matrix leaves out, scales outputs (n x k); None where S is one."""
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

    def Jt(self, C, U=None):
        """The change of the parameters by the transposed scaled Jacobian times C (n x k), as a `Step`.

        U are the `scaled_cotangents` of C, where they are known.
        """
        hidden = self.activations.hidden
        U, C = self.scaled_cotangents(C) if U is None else U, self.output_cotangents(C)
        input_changes = [
            None if layer.input_weights is None else self._combine(u)
            for layer, u in zip(self.network.layers, U, strict=True)
        ]
        _, inputs = self.network.output_weights
        of_inputs = None if inputs is None else self._x.transposed_times(C)
        output_changes = (times_dense(hidden[-1].transposed(), C), of_inputs)
        factors = [[], *([pair] for pair in zip(U[1:], hidden[:-1], strict=True))]
        return Step(factors, input_changes, output_changes)

    @property
    def _probes_span_outputs(self):
        """True if the probes are the outputs themselves: then nothing else needs another backward pass."""
        return self.probes.shape[1] == self.n_outputs

    def scaled_cotangents(self, C):
        """`cotangents` of ``output_cotangents(C)``: linear in C, and what `Jt` spends most of its time on."""
        if not self._probes_span_outputs:
            return self.cotangents(self.output_cotangents(C))
        by_layer, C = zip(*self.probe_cotangents, strict=True), self.curvature.apply(C)
        return [_combination(of_outputs, C) for of_outputs in by_layer]

    def J(self, step):
        """The scaled Jacobian times a `Step` (n x k), through the folded weights."""
        folded = FoldedStep(self.network)
        folded.add(step)
        return self.tangent(folded)

    def tangent(self, folded):
        """The scaled Jacobian times a `FoldedStep` (n x k)."""
        x, hidden = self.activations.x, self.activations.hidden
        moved = None
        for depth, layer in enumerate(self.network.layers):
            change = folded.input_changes[depth]
            dense, sparse = (None, []) if change is None else products(x, change)
            if depth > 0:
                sparse = sparse + layer.hidden_weights.forward_terms(moved)
                sparse.append(folded.hidden_term(depth, hidden[depth - 1]))
            moved = self._active(depth, dense, sparse)
        A, _ = self.network.output_weights
        out = times_dense(moved, A) + times_dense(hidden[-1], folded.output_changes[0])
        if folded.output_changes[1] is not None:
            out += x @ folded.output_changes[1]
        return self._scaled(out)

    def gram_matvec(self, C, U=None):
        """``J Jt C`` for the scaled Jacobian (n x k); U as for `Jt`.

        With few rows every layer's part is ``(G G^T) U`` for the Gram matrix of the layer's inputs; with the outputs
        themselves as probes, the tangent at a layer then contracts with their cotangents, without any weights.
        """
        grams = self._layer_grams
        if not grams.pay:
            return self.J(self.Jt(C, U))
        U, last = self.scaled_cotangents(C) if U is None else U, grams.matrix(len(self.network.layers))
        from_outputs = self._scaled(last.times(self.output_cotangents(C)))
        if self._probes_span_outputs:
            out = np.zeros((self.n_rows, self.n_outputs))
            for depth, u in enumerate(U):
                moved = ColumnwiseSum(u.shape, self.dtype, sparse=[sparse_term(grams.matrix(depth), u)])
                tangent = moved.on_pattern(u, 1.0)
                for output, probe in enumerate(self.probe_cotangents):
                    out[:, output] += probe[depth].row_dots(tangent)
            return self.curvature.apply_transposed(out.astype(self.dtype, copy=False)) + from_outputs
        moved = None
        for depth, u in enumerate(U):
            sparse = [sparse_term(grams.matrix(depth), u)]
            if depth > 0:
                sparse += self.network.layers[depth].hidden_weights.forward_terms(moved)
            moved = self._active(depth, None, sparse)
        return self._scaled(times_dense(moved, self.network.output_weights[0])) + from_outputs

    def _active(self, depth, dense, sparse):
        """The sparsifier's derivative at layer `depth` times a `ColumnwiseSum` of these products (n x m)."""
        rows = self.activations.hidden[depth]
        return ColumnwiseSum(rows.shape, self.dtype, dense, sparse).on_pattern(rows, self.network.layers[depth].gain)

    def mean_diagonal(self):
        """Mean over rows (by their sample weights) and probes of the diagonal of ``S^T J J^T S``."""
        return self.trace() / float(np.square(self.row_scale, dtype=np.float64).sum())

    def trace(self):
        """Mean over probes of the trace of ``S^T J J^T S``."""
        diagonal = np.zeros(self.n_rows)
        outputs = [np.einsum("ij,ij->i", C, C, dtype=np.float64) for C in self.probe_outputs]
        # All layers that meet the features meet the same ones.
        norms_of_x = self._x.row_norms()
        for depth, (h, x) in enumerate(self.layer_inputs):
            norms = np.zeros(self.n_rows)
            if h is not None:
                norms += h.row_norms()
            if x is not None:
                norms += norms_of_x
            of_probes = outputs
            if depth < len(self.network.layers):
                of_probes = [U[depth].row_norms() for U in self.probe_cotangents]
            diagonal += norms * np.mean(of_probes, axis=0)
        scales = self.output_scales()
        if scales is not None:
            diagonal *= np.square(scales, dtype=np.float64).mean(axis=1)
        return float(diagonal.sum())


def _combination(of_outputs, C):
    """Sum of sparse rows on one pattern, those of output a with rows times ``C[:, a]``."""
    first, *others = (u.scaled_rows(C[:, output]) for output, u in enumerate(of_outputs))
    if not others:
        return first
    values = first.values.copy()
    for other in others:
        values += other.values
    return first.with_values(values)
