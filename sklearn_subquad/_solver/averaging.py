"""Copies and running averages of a network's parameters."""

import numpy as np

from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.row_span import moving_part, with_moving_part
from sklearn_subquad._linalg.threads import for_each

# The newest of t iterates counts (_SHARPNESS + 1) / (t + _SHARPNESS), so that early ones are forgotten.
_SHARPNESS = 3


class Parameters:
    """All parameters of a network that steps change.

    Attributes
    ----------
    packed : list of PackedMatrix
        Of the `LazyWeights`.
    dense : list of ndarray
        Weights that meet the features, and output weights.
    """

    def __init__(self, packed, dense):
        self.packed, self.dense = packed, dense

    @classmethod
    def of(cls, network):
        """The network's own arrays, not copied; everything pending is folded in."""
        dense = [moving_part(layer.input_weights) for layer in network.layers if layer.input_weights is not None]
        dense += [part for part in network.output_weights if part is not None]
        return cls([weights.packed for weights in network.lazy_weights()], dense)

    def give_to(self, network):
        """Let the network have these arrays as its own."""
        for weights, packed in zip(network.lazy_weights(), self.packed, strict=True):
            weights.packed = packed
        dense = iter(self.dense)
        for layer in network.layers:
            if layer.input_weights is not None:
                layer.input_weights = with_moving_part(layer.input_weights, next(dense))
        network.output_weights = tuple(None if part is None else next(dense) for part in network.output_weights)

    def copy(self):
        """The same numbers in other memory."""
        copies = [PackedMatrix.zeros(*matrix.shape, matrix.dtype) for matrix in self.packed]
        other = Parameters(copies, [np.empty_like(array) for array in self.dense])
        other.move_towards(self, 1.0)
        return other

    def move_towards(self, other, share):
        """``self += share * (other - self)``; a share of one copies."""
        for mine, theirs in zip(self.packed, other.packed, strict=True):

            def move(panel, mine=mine.tiles, theirs=theirs.tiles):
                _move(mine[panel], theirs[panel], share)

            for_each(move, len(mine.tiles))
        for mine, theirs in zip(self.dense, other.dense, strict=True):
            _move(mine, theirs, share)


def _move(mine, theirs, share):
    if share == 1.0:
        mine[...] = theirs
    else:
        mine += mine.dtype.type(share) * (theirs - mine)


class IterateAverage:
    """Average of the iterates so far, the newer ones counting more.

    After step t it moves by the share ``(c + 1) / (t + c)`` towards the iterate, which is the polynomial-decay average.

    References
    ----------
    O. Shamir, T. Zhang, "Stochastic gradient descent for non-smooth optimization: convergence results and optimal
    averaging schemes", ICML 2013, section 4.
    """

    def __init__(self):
        self._n_steps = 0
        self.parameters = None

    def update(self, parameters):
        """Take in the next iterate."""
        self._n_steps += 1
        if self.parameters is None:
            self.parameters = parameters.copy()
        else:
            self.parameters.move_towards(parameters, (_SHARPNESS + 1) / (self._n_steps + _SHARPNESS))
