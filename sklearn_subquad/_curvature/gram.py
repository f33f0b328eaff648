"""Gram matrices of the Jacobian's rows: K, which all outputs share, and one factor of it for every layer."""

import numpy as np

from sklearn_subquad import _kernels
from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.cholesky import ShiftedMatrix
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.packed import PackedMatrix, row_gram_columns, symmetric

# The Gram matrices of all layers' inputs may take so many bytes, beyond which products go through folded weights.
_LAYER_GRAM_BYTES = 1 << 30


class LayerGrams:
    """``G G^T`` (n x n) of what the weights of every layer meet; the output weights are the last layer.

    Parameters
    ----------
    inputs : list of tuple
        From `Network.layer_inputs`: pairs (h, x) whose columns side by side are G.
    activations : Activations
    """

    def __init__(self, inputs, activations):
        self._inputs, self._hidden = inputs, activations.hidden
        self._n_rows, self._dtype = len(activations.x), activations.output.dtype
        self._matrices = {}

    @property
    def n_layers(self):
        return len(self._inputs)

    @property
    def pay(self):
        """True where products with J J^T cost less through these matrices, and these may be kept."""
        through_grams = through_weights = 0
        for hidden, (h, x) in zip(self._hidden, self._inputs[:-1], strict=True):
            through_grams += self._n_rows * hidden.nnz
            if h is not None:
                # Folding the factors in, and multiplying with what they are folded into.
                through_weights += h.nnz * hidden.shape[1] * 2
            if x is not None:
                through_weights += (hidden.nnz + self._n_rows * hidden.shape[1]) * x.shape[1]
        n_bytes = self.n_layers * self._n_rows**2 * self._dtype.itemsize
        return n_bytes <= _LAYER_GRAM_BYTES and through_grams <= through_weights

    def matrix(self, depth):
        """The matrix of the layer at `depth`, packed; it is kept."""
        if depth not in self._matrices:
            gram = symmetric(self._n_rows, self._dtype, lambda *columns: self.columns(depth, *columns))
            self._matrices[depth] = PackedMatrix.from_dense(gram)
        return self._matrices[depth]

    def columns(self, depth, first, last, of_x=None):
        """Rows from `first` on of the columns `first` to `last` of a matrix: dense, not to be changed.

        `of_x` is what the caller has from `columns_of_x` for the same columns.
        """
        if depth in self._matrices:
            return self._matrices[depth].tiles[first // LANES, first:, : last - first]
        h, x = self._inputs[depth]
        if x is not None and of_x is None:
            of_x = as_features(x).gram_columns(first, last)
        if h is None:
            return of_x
        return row_gram_columns(h, first, last, None if x is None else of_x.copy())

    def parts(self, depth, first, last, of_x):
        """What `columns` are the sum of: dense ones or None, and sparse rows that are multiplied with themselves."""
        h, x = self._inputs[depth]
        if depth in self._matrices or h is None:
            return self.columns(depth, first, last, of_x), []
        return None if x is None else of_x, [(h.pattern, h.values)]

    def columns_of_x(self, first, last):
        """The part of the features in `columns`, which all layers share; None where it is not needed."""
        layers_of_x = [depth for depth, (_, x) in enumerate(self._inputs) if x is not None]
        if all(depth in self._matrices for depth in layers_of_x):
            return None
        x = self._inputs[layers_of_x[0]][1]
        return as_features(x).gram_columns(first, last)


class GramMatrix:
    """The Gram matrix (n x n) that all outputs share, averaged over the probes, without their scales.

    ``K = sum_l (G_{l-1} G_{l-1}^T) * mean_v(U_l^(v) U_l^(v)^T)``, the output weights being the last layer; exact for
    one output.

    Parameters
    ----------
    cotangents : list of list of SparseRows
        U_l^(v) for every probe v and hidden layer l.
    outputs : list of ndarray of shape (n, k)
        The same of the outputs, for every probe.
    layer_grams : LayerGrams
    """

    def __init__(self, cotangents, outputs, layer_grams):
        self._cotangents, self._outputs, self._layer_grams = cotangents, outputs, layer_grams
        self._matrix = None
        self._shifted = (None, None)

    def matrix(self):
        """K in double precision; it is kept."""
        if self._matrix is None:
            n_rows, n_outputs = self._outputs[0].shape
            grams = self._layer_grams
            if n_outputs > 1 and grams.pay:
                # Products with J J^T need them as well.
                for depth in range(grams.n_layers):
                    grams.matrix(depth)
            self._matrix = symmetric(n_rows, np.float64, self._columns)
        return self._matrix

    def _columns(self, first, last):
        """Rows from `first` on of the columns `first` to `last`: all that is summed stays in the cache."""
        grams = self._layer_grams
        of_x = grams.columns_of_x(first, last)
        # Sums of rounded numbers need no more precision than these.
        total = np.zeros((len(self._outputs[0]) - first, last - first), dtype=self._outputs[0].dtype)
        for depth, of_probes in enumerate(zip(*self._cotangents, strict=True)):
            cotangents = [(u.pattern, u.values) for u in of_probes]
            _kernels.add_hadamard(total, first, None, cotangents, *grams.parts(depth, first, last, of_x))
        outputs = sum(C[first:] @ C[first:last].T for C in self._outputs)
        _kernels.add_hadamard(total, first, outputs, [], *grams.parts(grams.n_layers - 1, first, last, of_x))
        if len(self._outputs) > 1:
            total /= total.dtype.type(len(self._outputs))
        return total

    def shifted(self, ridge):
        """``K + ridge * I`` as a `ShiftedMatrix`; the last one is kept.

        Raises
        ------
        numpy.linalg.LinAlgError
            Where the matrix is not positive definite in double precision.
        """
        if self._shifted[0] != ridge:
            # That of the last ridge goes first: two would take twice the memory.
            self._shifted = (None, None)
            self._shifted = (ridge, ShiftedMatrix(self.matrix(), ridge, self._outputs[0].dtype))
        return self._shifted[1]
