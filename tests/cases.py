"""The tables of networks and problems that tests run over, and their dense NumPy oracle."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.base import is_classifier

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._curvature.jacobian import Jacobian, make_probes
from sklearn_subquad._curvature.losses import DiagonalFactor, IdentityFactor, SoftmaxFactor, make_loss
from sklearn_subquad._fit.held_out import split
from sklearn_subquad._labels import encode_labels
from sklearn_subquad._network.network import Architecture, Network
from sklearn_subquad._solver.levenberg_marquardt import Batch
from sklearn_subquad._utils.random_streams import Stream, generator

N_ROWS, N_FEATURES = 17, 5
# Both estimators with all their losses.
EVERY_LOSS = pytest.mark.parametrize(
    ("estimator_class", "loss"),
    [
        (SubquadMLPRegressor, "squared_error"),
        (SubquadMLPRegressor, "poisson"),
        (SubquadMLPClassifier, "squared_error"),
        (SubquadMLPClassifier, "log_loss"),
    ],
    ids=["regressor", "poisson", "classifier", "log_loss"],
)

# One loss of each, where it matters how rows and steps are counted and not what is minimised.
ONE_LOSS_EACH = pytest.mark.parametrize(
    ("estimator_class", "loss"),
    [(SubquadMLPRegressor, "squared_error"), (SubquadMLPClassifier, "log_loss")],
    ids=["regressor", "log_loss"],
)


@dataclass(frozen=True)
class Case:
    n_layers: int
    n_outputs: int
    skip: bool
    sparsifier: str
    density: float
    dtype: str
    pending: bool
    factor: str

    def __str__(self):
        skip = "skip" if self.skip else "plain"
        pending = "pending" if self.pending else "folded"
        return (
            f"L{self.n_layers}-k{self.n_outputs}-{skip}-{self.sparsifier}-{self.density}-{self.dtype}-{pending}"
            f"-{self.factor}"
        )


def _all_cases():
    """Everything with everything, but for the density, the precision and what is pending: these are drawn."""
    rng = np.random.default_rng(0)
    return [
        # One layer has no lazy weights; of one output there is no softmax.
        Case(n_layers, k, skip, sparsifier, density, dtype, pending and n_layers > 1, factor)
        for n_layers in (1, 2, 3)
        for k in (1, 3, 5)
        for skip in (True, False)
        for sparsifier in ("shifted_relu", "topk")
        for factor in ("identity", "diagonal", "softmax")
        if k > 1 or factor != "softmax"
        for density, dtype, pending in [
            (float(rng.choice(DENSITIES)), str(rng.choice(["float32", "float64"])), bool(rng.integers(2)))
        ]
    ]


DENSITIES = (0.05, 0.25, 0.5)
CASES = _all_cases()
WIDTHS = (40, 70, 33)


def build(case, seed=0, dtype=None):
    """The case's network on random rows, its weights moved off the start by two random steps."""
    dtype = np.dtype(dtype or case.dtype)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N_ROWS, N_FEATURES)) / np.sqrt(N_FEATURES)
    x = np.column_stack([x, np.full(N_ROWS, 0.5)]).astype(dtype)
    architecture = Architecture(
        widths=WIDTHS[: case.n_layers],
        densities=(case.density,) * case.n_layers,
        sparsifier=case.sparsifier,
        skip_connections=case.skip,
        init_scale=0.2,
        max_rank=10_000,
    )
    network = Network.initialise(architecture, x, np.ones(N_ROWS), case.n_outputs, seed)
    for _ in range(2):
        network.apply(random_step(network, x, case.n_outputs, rng))
    if not case.pending:
        for weights in network.lazy_weights():
            weights.flush()
    return network, x


def random_step(network, x, n_outputs, rng, size=0.1):
    """A step along the Jacobian's rows with random cotangents."""
    probes = make_probes(n_outputs, rng)
    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), probes, IdentityFactor())
    return jacobian.Jt((size * rng.standard_normal((len(x), n_outputs))).astype(x.dtype))


def curvature_factor(name, n_rows, n_outputs, dtype, rng):
    """The curvature factor called `name`, and its matrices S (n_rows x n_outputs x n_outputs) in double precision."""
    if name == "identity":
        return IdentityFactor(), np.tile(np.eye(n_outputs), (n_rows, 1, 1))
    if name == "diagonal":
        scale = rng.uniform(0.2, 2.0, (n_rows, n_outputs)).astype(dtype)
        return DiagonalFactor(scale), np.stack([np.diag(row.astype(np.float64)) for row in scale])
    p = rng.dirichlet(np.ones(n_outputs), n_rows).astype(dtype)
    root = np.sqrt(p.astype(np.float64))
    return SoftmaxFactor(p), np.stack([np.diag(s) - np.outer(s**2, s) for s in root])


def fitting_problem(
    loss="squared_error",
    n_outputs=1,
    *,
    n=60,
    widths=(96, 80),
    seed=0,
    dtype=np.float64,
    max_rank=100_000,
    weighted=False,
):
    """A network at its start, a `Batch` of rows to fit and the loss."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.standard_normal((n, 4)) / 2, np.full(n, 0.5)])
    signal = np.column_stack([np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + c * x[:, 3] for c in range(n_outputs)])
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    if loss == "squared_error":
        Y = signal
    elif loss == "poisson":
        Y = rng.poisson(np.exp(signal))
    else:
        # Classes of equal size, by the rank of the first signal.
        n_classes = max(2, n_outputs)
        labels = signal[:, 0].argsort().argsort() * n_classes // n
        Y = labels[:, None] if n_outputs == 1 else np.eye(n_outputs)[labels]
    sample_weight = rng.uniform(0.5, 2.0, n) if weighted else np.ones(n)
    batch = Batch(x.astype(dtype), Y.astype(dtype), sample_weight)
    architecture = Architecture(widths, (0.25,) * len(widths), init_scale=0.1, max_rank=max_rank)
    network = Network.initialise(architecture, batch.x, np.ones(n), n_outputs, seed)
    return network, batch, make_loss(loss, batch.Y, sample_weight)


def held_out_error(loss, batch, output):
    """Mean loss in the unit of users; of labels with a share of the most probable other ones: 1 in 100 rows or more."""
    value, weight = loss.value(batch.Y, output, batch.sample_weight), batch.sample_weight.sum()
    if loss.has_labels:
        share = 1 / max(len(batch), 100)
        value += share * loss.value_of_other_labels(batch.Y, output, batch.sample_weight)
        weight *= 1 + share
    return loss.reported(value / weight)


def dense_densities(dense, x):
    """Fraction of active neurons of every layer of a `DenseNetwork` on rows x."""
    return [np.mean(slopes > 0) for slopes in dense.forward(x)[2]]


def parameters(network):
    """All weights as one double-precision vector in the order of `DenseNetwork.parts`; changes nothing."""
    return np.concatenate([part.ravel() for part in DenseNetwork.of(network).parts()])


@dataclass
class DenseNetwork:
    """Every weight as an ordinary float64 array; parameters can be read and set as one vector."""

    hidden: list
    inputs: list
    output: list
    shifts: list
    gains: list
    sparsifier: str
    densities: tuple

    @classmethod
    def of(cls, network):
        as_double = lambda a: None if a is None else np.array(a, dtype=np.float64)  # noqa: E731
        return cls(
            [None if la.hidden_weights is None else as_double(la.hidden_weights.to_dense()) for la in network.layers],
            [as_double(layer.input_weights) for layer in network.layers],
            [as_double(part) for part in network.output_weights],
            [layer.shift for layer in network.layers],
            [layer.gain for layer in network.layers],
            network.architecture.sparsifier,
            network.architecture.densities,
        )

    def parts(self):
        """All weight arrays, layer by layer, the output weights last."""
        pairs = [*zip(self.hidden, self.inputs, strict=True), tuple(self.output)]
        return [part for pair in pairs for part in pair if part is not None]

    def active(self, z, depth):
        if self.sparsifier == "shifted_relu":
            return z > self.shifts[depth]
        n_active = max(1, round(self.densities[depth] * z.shape[1]))
        threshold = np.sort(z, axis=1)[:, -n_active][:, None]
        return z >= threshold

    def forward(self, x):
        """Outputs, layer inputs [h_{l-1}, x] and derivatives of the activations."""
        x = x.astype(np.float64)
        h, pairs, slopes = None, [], []
        for depth in range(len(self.shifts)):
            z = 0.0
            if self.hidden[depth] is not None:
                z = z + h @ self.hidden[depth].T
            if self.inputs[depth] is not None:
                z = z + x @ self.inputs[depth].T
            pairs.append((h if self.hidden[depth] is not None else None, x))
            slopes.append(self.gains[depth] * self.active(z, depth))
            h = slopes[-1] * (z - self.shifts[depth])
        pairs.append((h, x))
        out = h @ self.output[0]
        if self.output[1] is not None:
            out = out + x @ self.output[1]
        return out, pairs, slopes

    def jacobian(self, x):
        """Dense Jacobian (n, k, number of parameters) by the chain rule, in the order of `parts`."""
        out, pairs, slopes = self.forward(x)
        n, k = out.shape
        blocks = []
        for c in range(k):
            columns, u = [None] * (len(slopes) + 1), np.tile(self.output[0][:, c], (n, 1))
            h, g = pairs[-1]
            unit = np.eye(k)[c]
            last = [np.einsum("ij,k->ijk", h, unit).reshape(n, -1)]
            if self.output[1] is not None:
                last.append(np.einsum("ij,k->ijk", g, unit).reshape(n, -1))
            columns[-1] = np.concatenate(last, axis=1)
            for depth in reversed(range(len(slopes))):
                u = u * slopes[depth]
                h, g = pairs[depth]
                parts = []
                if self.hidden[depth] is not None:
                    parts.append(np.einsum("ij,ik->ijk", u, h).reshape(n, -1))
                if self.inputs[depth] is not None:
                    parts.append(np.einsum("ij,ik->ijk", u, g).reshape(n, -1))
                columns[depth] = np.concatenate(parts, axis=1)
                u = u @ self.hidden[depth] if depth else None
            blocks.append(np.concatenate(columns, axis=1))
        return np.stack(blocks, axis=1)

    def moved(self, change):
        """A copy with `change` (one vector in the order of `parts`) added."""
        clone = DenseNetwork(
            list(self.hidden),
            list(self.inputs),
            list(self.output),
            self.shifts,
            self.gains,
            self.sparsifier,
            self.densities,
        )
        offset = 0

        def take(part):
            nonlocal offset
            if part is None:
                return None
            offset += part.size
            return part + change[offset - part.size : offset].reshape(part.shape)

        for depth in range(len(self.shifts)):
            clone.hidden[depth] = take(clone.hidden[depth])
            clone.inputs[depth] = take(clone.inputs[depth])
        clone.output = [take(part) for part in clone.output]
        return clone


def as_dense(rows):
    """`SparseRows` as an ordinary float64 array."""
    return rows.to_csr().toarray().astype(np.float64)


def as_vector(step, network):
    """A `Step` as one dense vector in the order of `DenseNetwork.parts`."""
    parts = []
    for depth, layer in enumerate(network.layers):
        if layer.hidden_weights is not None:
            parts.append(sum(as_dense(U).T @ as_dense(G) for U, G in step.factors[depth]))
        if layer.input_weights is not None:
            parts.append(step.input_changes[depth])
    parts.extend(part for part in step.output_changes if part is not None)
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])


def first_split(estimator, y, fraction):
    """Rows that one network of ``random_state=0`` fits and holds out, where no rows are equal."""
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    labels = encode_labels(y)[2] if is_classifier(estimator) else None
    return split(len(y), fraction, generator(seed, Stream.HELD_OUT_ROWS), labels)
