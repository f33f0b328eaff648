"""A fitted model that a fit goes on from."""

from dataclasses import dataclass

import numpy as np

from sklearn_subquad._fit.scaling import InputScaling, TargetScaling
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.row_span import as_array
from sklearn_subquad._network.network import Network


@dataclass(frozen=True)
class WarmStart:
    """A model to go on from.

    Attributes
    ----------
    architecture : dict
        Whatever cannot change, in the terms of `Architecture`.
    init, init_scale
        As the network was initialised.
    inputs : InputScaling
    targets : TargetScaling
        For other losses than the squared error, its mean is the baseline.
    state : dict
        `Network.to_state`, and what else an estimator keeps; never changed.
    others : tuple of WarmStart
        The other networks of the model, where it has several.
    weights : ndarray of shape (n_networks,) or None
        What each of them counts in their mean.
    """

    architecture: dict
    init: str
    init_scale: float
    inputs: InputScaling
    targets: TargetScaling
    state: dict
    others: tuple = ()
    weights: np.ndarray | None = None

    @property
    def networks(self):
        """One for every network of the model."""
        return (self, *self.others)

    @property
    def batch_damping(self):
        """The least damping that a part of the data asked for, infinite where none was fitted alone."""
        return self.state["batch_damping"]

    @property
    def weight_unit(self):
        """Weight of one row; models that were stored before there was one have 1."""
        return self.state.get("weight_unit", 1.0)

    @property
    def dtype(self):
        """Of the weights."""
        return self.state["output_weights"][0].dtype

    def network(self, architecture):
        """A network on copies of the arrays that steps change in place, whose weights are no combinations of rows."""
        pairs = zip(self.state["tiles"], architecture.widths[1:], strict=True)
        copies = [PackedMatrix(tiles, width).copy().tiles for tiles, width in pairs]
        network = Network.from_state(architecture, self.state | {"tiles": copies})
        for layer in network.layers:
            layer.input_weights = as_array(layer.input_weights)
        return network
