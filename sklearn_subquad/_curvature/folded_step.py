"""Steps as dense changes of the weights."""

from sklearn_subquad._linalg.packed import PackedMatrix


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

    def hidden_term(self, depth, rows):
        """Sparse rows (n x m_{l-1}) times the change of layer `depth`, as a term of a `ColumnwiseSum`."""
        return lambda out, first: self.hidden[depth].add_forward(rows, out, first)

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
