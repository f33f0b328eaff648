"""The one table of networks that the operator tests run over, and their dense NumPy oracle."""

import itertools
from dataclasses import dataclass

import numpy as np

from sklearn_subquad._network import Architecture, Network

N_ROWS, N_FEATURES = 17, 5


@dataclass(frozen=True)
class Case:
    n_layers: int
    n_outputs: int
    skip: bool
    sparsifier: str
    density: float
    dtype: str
    pending: bool

    def __str__(self):
        skip = "skip" if self.skip else "plain"
        pending = "pending" if self.pending else "folded"
        return f"L{self.n_layers}-k{self.n_outputs}-{skip}-{self.sparsifier}-{self.density}-{self.dtype}-{pending}"


CASES = [
    Case(*values)
    for values in itertools.product(
        (1, 2, 3),
        (1, 3),
        (True, False),
        ("shifted_relu", "topk"),
        (0.05, 0.25, 0.5),
        ("float32", "float64"),
        (False, True),
    )
    if not (values[0] == 1 and values[-1])  # one layer has no lazy weights
]
WIDTHS = (40, 70, 33)


def build(case, seed=0, dtype=None, keep_start=False):
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
        keep_start=keep_start,
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
    from sklearn_subquad._jacobian import Jacobian, make_probes

    jacobian = Jacobian(network, network.forward(x), np.ones(len(x)), make_probes(n_outputs, rng))
    return jacobian.Jt((size * rng.standard_normal((len(x), n_outputs))).astype(x.dtype))


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
            parts.append(as_dense(step.cotangents[depth]).T @ as_dense(step.hidden[depth - 1]))
        if layer.input_weights is not None:
            parts.append(step.input_changes[depth])
    parts.extend(part for part in step.output_changes if part is not None)
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
