"""The shifted-ReLU network: its parameters, its forward pass, and how a step changes it.

With x the network input of a row (features and a constant), layer inputs g_0 = x and g_l = [h_l, x] (skip
connections) or g_l = h_l:

    z_l = W_l g_{l-1},    h_l = gain_l * sparsify(z_l - shift_l),    f = A^T g_L.

The parts of W_l that meet h_{l-1} (m_l x m_{l-1}) are `LazyWeights`; the parts that meet x are dense, or
`SpannedWeights` of sparse rows that are fewer than the inputs.
"""

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn import get_config
from sklearn.utils import gen_even_slices

from sklearn_subquad._linalg.columnwise import ColumnwiseSum
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.packed import PackedMatrix, times_dense
from sklearn_subquad._linalg.row_span import RowSpan, SpannedWeights, products
from sklearn_subquad._network.activations import SPARSIFIERS, calibrate_shift, dense_row_bytes
from sklearn_subquad._network.initial_weights import INPUT_WEIGHTS, normal, normal_tiles
from sklearn_subquad._network.lazy_weights import LazyWeights
from sklearn_subquad._utils.slices import batches

# From this scale of the output weights on the random start would drown the targets: the last layer
# is then mirrored, so that the network starts at zero.
MIRROR_INIT_SCALE = 0.3
# Norm of a hidden layer's activations (root of the mean square over rows) where the next layer sees the features beside
# them, whose norm is about one. The deeper layer then starts as a shallow one that is bent a little, and finds out
# itself how much of the hidden layer it needs.
HIDDEN_NORM = 0.25


@dataclass
class Activations:
    """Result of a forward pass of n rows.

    Attributes
    ----------
    x : ndarray or SparseFeatures of shape (n, n_features + 1)
    hidden : list of SparseRows of shape (n, m_l)
        h_1 to h_L; their patterns are the active sets.
    output : ndarray of shape (n, n_outputs)
    """

    x: np.ndarray
    hidden: list
    output: np.ndarray

    @property
    def n_active(self):
        """Active neurons of all rows, per layer."""
        return [h.nnz for h in self.hidden]


@dataclass
class ActivationBlocks:
    """Result of a forward pass of more rows than temporary arrays should have.

    Attributes
    ----------
    blocks : list of Activations
        Of consecutive rows.
    output : ndarray of shape (n, n_outputs)
    """

    blocks: list
    output: np.ndarray

    @property
    def n_active(self):
        """Active neurons of all rows, per layer."""
        return np.sum([block.n_active for block in self.blocks], axis=0).tolist()


@dataclass
class Step:
    """A change of all parameters, with the hidden-to-hidden parts as factors.

    Attributes
    ----------
    factors : list of list of tuple (SparseRows of shape (n, m_l), SparseRows of shape (n, m_{l-1}))
        For every layer and block of rows, the derivatives U_l of the combined outputs by z_l, and h_{l-1} of the
        linearisation point: W_l's hidden part changes by the sum of ``U_l.T @ h_{l-1}``. Empty for the first layer.
    input_changes : list of ndarray or SpannedWeights of shape (m_l, n_features + 1), or None
    output_changes : tuple of ndarray or None
        Changes of the output weights that meet h_L and x.
    """

    factors: list
    input_changes: list
    output_changes: tuple


@dataclass
class Layer:
    """One hidden layer; `hidden_weights` is None in the first, `input_weights` where nothing meets x."""

    width: int
    density: float
    hidden_weights: LazyWeights | None
    input_weights: np.ndarray | SpannedWeights | None
    shift: float = 0.0
    gain: float = 1.0


@dataclass
class _Undo:
    step: Step
    input_weights: list
    output_weights: tuple


@dataclass(frozen=True)
class Architecture:
    """The network's shape, its initial weights, and how its weights are maintained; None: as costs say."""

    widths: tuple
    densities: tuple
    sparsifier: str = "shifted_relu"
    skip_connections: bool = True
    init: str = "axis_aligned"
    init_scale: float = 0.07
    max_rank: int | None = None
    matmul: str | None = None

    @property
    def mirrored(self):
        """True if the last layer starts in pairs of equal neurons with opposite output weights.

        An odd width leaves one neuron without a partner, with output weight zero. Under top-k it can push
        one of a pair out of the active set, which leaves a small part of the random start.
        """
        return self.init_scale >= MIRROR_INIT_SCALE

    @property
    def activation_norms(self):
        """Norm of every layer's activations, as a root of the mean square over rows."""
        inner = HIDDEN_NORM if self.skip_connections else 1.0
        return (*[inner] * (len(self.widths) - 1), 1.0)

    def layers(self):
        """Width and density of every layer; top-k keeps whole pairs of a mirrored layer."""
        densities = list(self.densities)
        if self.mirrored and self.sparsifier == "topk" and self.widths[-1] > 1:
            densities[-1] = 2 * max(1, round(densities[-1] * self.widths[-1] / 2)) / self.widths[-1]
        return list(zip(self.widths, densities, strict=True))


@dataclass
class Network:
    """Parameters and forward pass; created by `initialise` or `from_state`.

    Attributes
    ----------
    architecture : Architecture
    layers : list of Layer
    output_weights : tuple (ndarray of shape (m_L, k), ndarray of shape (n_features + 1, k) or None)
    """

    architecture: Architecture
    layers: list
    output_weights: tuple

    @classmethod
    def initialise(cls, architecture, x, sample_weight, n_outputs, seed, varies=None):
        """Random weights, with shifts and gains calibrated on the rows x layer by layer.

        Parameters
        ----------
        architecture : Architecture
        x : ndarray or SparseFeatures of shape (n, n_features + 1)
            Network inputs; their dtype is that of all weights.
        sample_weight : ndarray of shape (n,), positive
        n_outputs : int
        seed : int
            The same seed gives the same weights, whatever the dtype and, but for those that meet single features or
            inputs that are zero, whatever the rows.
        varies : ndarray of shape (n_features + 1,), bool, or None, default=None
            Which inputs are not zero throughout; the weights of others are zero, and stay so for as long as they are.
            Hence nothing that was constant has a say in predictions. None: those of x.
        """
        streams = iter(np.random.SeedSequence(seed).spawn(2 * len(architecture.widths) + 1))
        network = cls(architecture, [], (None, None))
        hidden, n_layers = None, len(architecture.widths)
        varies = as_features(x).nonzero_columns() if varies is None else varies
        for depth, (width, density) in enumerate(architecture.layers()):
            mirror = architecture.mirrored and depth == n_layers - 1
            hidden_weights = input_weights = None
            if depth > 0:
                start = normal_tiles(next(streams), width, architecture.widths[depth - 1], x.dtype, mirror)
                hidden_weights = LazyWeights(start, max_rank=architecture.max_rank, matmul=architecture.matmul)
            if depth == 0 or architecture.skip_connections:
                input_weights = network._drawn_input_weights(depth, next(streams), x, sample_weight)
                # After all are drawn: those of other inputs do not depend on it.
                input_weights[:, ~varies] = 0
                input_weights = as_features(x).trainable(input_weights)
            layer = Layer(width, density, hidden_weights, input_weights)
            hidden = network._calibrate(layer, hidden, x, sample_weight)
            network.layers.append(layer)
        # Larger ones are as good as this, whose squares are in the range of the type.
        init_scale = min(architecture.init_scale, float(np.finfo(x.dtype).max) ** 0.25)
        A = init_scale * normal(next(streams), (architecture.widths[-1], n_outputs), x.dtype)
        if architecture.mirrored:
            A[1::2] = -A[: len(A) - len(A) % 2 : 2]
            if len(A) % 2:
                A[-1] = 0
        inputs = None
        if architecture.skip_connections:
            inputs = np.zeros((x.shape[1], n_outputs), dtype=x.dtype)
        network.output_weights = (A.astype(x.dtype, copy=False), inputs)
        return network

    def _drawn_input_weights(self, depth, stream, x, sample_weight):
        width = self.architecture.widths[depth]
        weights = INPUT_WEIGHTS[self.architecture.init](stream, width, x, sample_weight)
        if self.architecture.mirrored and depth == len(self.architecture.widths) - 1:
            weights[1::2] = weights[: width - width % 2 : 2]
        return weights

    def draw_unseen(self, varies, x, sample_weight, seed):
        """Give inputs that had weights of zero in every layer, and now vary, those that they would have started with.

        Without them, all neurons would learn the same of such an input, but for a factor. Where it was zero so far,
        outputs do not change.

        Parameters
        ----------
        varies : ndarray of shape (n_features + 1,), bool
            The inputs that may be given weights.
        x, sample_weight, seed
            As for `initialise`.
        """
        new = varies & self.unseen()
        if not new.any():
            return
        for depth, stream in enumerate(np.random.SeedSequence(seed).spawn(len(self.layers))):
            layer = self.layers[depth]
            if layer.input_weights is None:
                continue
            drawn = self._drawn_input_weights(depth, stream, x, sample_weight)
            # Dense parts are never changed in place.
            layer.input_weights = np.where(new, drawn, layer.input_weights)

    def _calibrate(self, layer, hidden, x, sample_weight):
        """Set the layer's shift and gain from the rows; returns its activations."""
        # Kept, because the threshold is known only once all of it is: once in a fit there are n x m numbers.
        z = self._preactivation(layer, hidden, x).dense()
        squares = np.einsum("ij,ij->i", z, z, dtype=np.float64) / z.shape[1]
        mean_square = np.average(squares, weights=sample_weight)
        # Keeping whole pairs may take both neurons of a layer of width two.
        layer.shift = calibrate_shift(min(layer.density, 0.5), mean_square)

        def known(out, first):
            out += z[:, first : first + out.shape[1]]

        again = ColumnwiseSum(z.shape, z.dtype, sparse=[known])
        rows = SPARSIFIERS[self.architecture.sparsifier](again, layer.shift, 1.0, layer.density)
        norm = np.average(rows.row_norms(), weights=sample_weight)
        # A narrow layer may have no active neuron on any row.
        layer.gain = self.architecture.activation_norms[len(self.layers)] / np.sqrt(norm) if norm > 0 else 1.0
        return rows.scaled(layer.gain)

    @staticmethod
    def _preactivation(layer, hidden, x):
        dense, sparse = (None, []) if layer.input_weights is None else products(x, layer.input_weights)
        if layer.hidden_weights is not None:
            sparse = sparse + layer.hidden_weights.forward_terms(hidden)
        return ColumnwiseSum((len(x), layer.width), x.dtype, dense, sparse)

    def forward(self, x):
        """Activations of network inputs x (n x (n_features + 1)), dense or sparse."""
        sparsify = SPARSIFIERS[self.architecture.sparsifier]
        hidden, previous = [], None
        for layer in self.layers:
            previous = sparsify(self._preactivation(layer, previous, x), layer.shift, layer.gain, layer.density)
            hidden.append(previous)
        A, inputs = self.output_weights
        output = times_dense(previous, A)
        if inputs is not None:
            # Kernels of OpenBLAS may raise the flag for lanes that they do not use. Losses notice numbers that are not
            # finite.
            with np.errstate(invalid="ignore"):
                output += x @ inputs
        return Activations(x, hidden, output)

    def layer_inputs(self, activations):
        """Pairs (h_{l-1} or None, x or None) of what W_l and, last, the output weights meet."""
        x, hidden = activations.x, [None, *activations.hidden]
        meets_x = [*(layer.input_weights is not None for layer in self.layers), self.output_weights[1] is not None]
        return [(h, x if meets else None) for h, meets in zip(hidden, meets_x, strict=True)]

    def row_batches(self, n_rows):
        """Slices of rows whose activations, in a forward pass, fit in scikit-learn's `working_memory`."""
        itemsize = self.dtype.itemsize
        # One at least, however small the densities are.
        entries = max(1.0, sum(width * density for width, density in self.architecture.layers()))
        per_row = entries * (itemsize + 2)
        if self.span is not None:
            per_row += 2 * len(self.span.rows) * itemsize
        if self.architecture.sparsifier == "topk":
            per_row += max(self.architecture.widths) * dense_row_bytes(itemsize, topk=True)
        batch = int(get_config()["working_memory"] * 2**20 // per_row)
        return batches(n_rows, max(1, min(n_rows, batch)))

    def forward_blocks(self, x, n_rows):
        """`ActivationBlocks` of network inputs x, in blocks of at most `n_rows` rows."""
        blocks = [self.forward(x[rows]) for rows in gen_even_slices(len(x), -(-len(x) // n_rows))]
        return ActivationBlocks(blocks, np.concatenate([block.output for block in blocks]))

    def apply(self, step):
        """Add a step; returns what `revert` needs. Dense parts are replaced, never changed in place."""
        undo = _Undo(step, [layer.input_weights for layer in self.layers], self.output_weights)
        for depth, layer in enumerate(self.layers):
            if layer.hidden_weights is not None:
                for U, G in step.factors[depth]:
                    layer.hidden_weights.push(U, G)
            layer.input_weights = _moved(layer.input_weights, step.input_changes[depth])
        self.output_weights = tuple(map(_moved, self.output_weights, step.output_changes))
        return undo

    def revert(self, undo):
        """Take back a step: to rounding, and to the bit for one that was not flushed yet."""
        for depth, layer in enumerate(self.layers):
            if layer.hidden_weights is not None:
                for U, G in reversed(undo.step.factors[depth]):
                    layer.hidden_weights.retract(U, G)
            layer.input_weights = undo.input_weights[depth]
        self.output_weights = undo.output_weights

    def copy(self):
        """The same network in memory of its own, but for what never changes."""

        def copied(part):
            return None if part is None else part.copy()

        layers = [
            dataclasses.replace(
                layer, hidden_weights=copied(layer.hidden_weights), input_weights=copied(layer.input_weights)
            )
            for layer in self.layers
        ]
        output_weights = tuple(copied(part) for part in self.output_weights)
        return dataclasses.replace(self, layers=layers, output_weights=output_weights)

    def unseen(self):
        """Which inputs have weights of zero in every layer, as an array of bool."""
        matrices = [layer.input_weights for layer in self.layers]
        if self.output_weights[1] is not None:
            matrices.append(self.output_weights[1].T)
        return ~np.any([weights.any(axis=0) for weights in matrices if weights is not None], axis=0)

    @property
    def span(self):
        """The `RowSpan` of weights that meet x, or None where these are dense."""
        first = self.layers[0].input_weights
        return first.span if isinstance(first, SpannedWeights) else None

    def accepted(self, X):
        """Features X, in the form in which the network takes them after scaling."""
        return X if self.span is None else csr_array(X)

    def constant(self):
        """A network on the same arrays that is zero everywhere."""
        other = copy.copy(self)
        other.clear_output()
        return other

    def clear_output(self):
        """Let the network be zero everywhere."""
        self.output_weights = tuple(None if part is None else np.zeros_like(part) for part in self.output_weights)

    @property
    def dtype(self):
        return self.output_weights[0].dtype

    def lazy_weights(self):
        """The hidden-to-hidden weights of all layers but the first."""
        return [layer.hidden_weights for layer in self.layers if layer.hidden_weights is not None]

    def take_peak_rank(self):
        """The most rank-one terms that one weight matrix held after a push since the last call; 0 if there was none."""
        peak = max((weights.peak_rank for weights in self.lazy_weights()), default=0)
        for weights in self.lazy_weights():
            weights.peak_rank = 0
        return peak

    def mean_densities(self, n_active, n_rows):
        """Fraction of active neurons per layer (ndarray), of `n_active` ones on so many rows together."""
        return np.asarray(n_active) / (n_rows * np.array(self.architecture.widths))

    def to_state(self):
        """Parameters as a dict of arrays and lists, everything pending folded in; nothing is copied."""
        rows = {} if self.span is None else {"input_rows": self.span.to_state()}
        return rows | {
            "tiles": [weights.packed.tiles for weights in self.lazy_weights()],
            "input_weights": [
                layer.input_weights.to_state()
                if isinstance(layer.input_weights, SpannedWeights)
                else layer.input_weights
                for layer in self.layers
            ],
            "shifts": [layer.shift for layer in self.layers],
            "gains": [layer.gain for layer in self.layers],
            "output_weights": list(self.output_weights),
        }

    @classmethod
    def from_state(cls, architecture, state):
        """A network on the arrays of `to_state`."""
        tiles, layers = iter(state["tiles"]), []
        span = RowSpan.from_state(state["input_rows"]) if "input_rows" in state else None
        for depth, (width, density) in enumerate(architecture.layers()):
            hidden_weights = None
            if depth > 0:
                hidden_weights = LazyWeights(
                    PackedMatrix(next(tiles), width),
                    max_rank=architecture.max_rank,
                    matmul=architecture.matmul,
                )
            shift, gain = state["shifts"][depth], state["gains"][depth]
            input_weights = state["input_weights"][depth]
            if isinstance(input_weights, dict):
                input_weights = SpannedWeights.from_state(input_weights, span)
            layers.append(Layer(width, density, hidden_weights, input_weights, shift, gain))
        return cls(architecture, layers, tuple(state["output_weights"]))


def _moved(weights, change):
    return None if weights is None else weights + change
