"""The Jacobian of more rows than temporary arrays should have."""

import numpy as np

from sklearn_subquad._curvature.folded_step import FoldedStep, sums_of


class JacobianBlocks:
    """The Jacobian of many rows as those of blocks of consecutive rows.

    It offers what a step needs without a Gram matrix; no temporary array has more rows than a block.

    Parameters
    ----------
    blocks : list of Jacobian
        Of one network, with the same probes and the same kind of curvature.
    """

    def __init__(self, blocks):
        self.blocks = blocks
        self.network, self.dtype = blocks[0].network, blocks[0].dtype
        self.n_rows, self.n_outputs = sum(block.n_rows for block in blocks), blocks[0].n_outputs
        self.row_scale = np.concatenate([block.row_scale for block in blocks])
        self.curvature = blocks[0].curvature

    def _parts(self, rows):
        """The blocks, each with its part of an array of all rows."""
        bounds = np.cumsum([block.n_rows for block in self.blocks])[:-1]
        return zip(self.blocks, np.split(rows, bounds), strict=True)

    def output_scales(self):
        """As of a `Jacobian`: (n x k) or None."""
        scales = [block.output_scales() for block in self.blocks]
        return None if scales[0] is None else np.concatenate(scales)

    def scaled_cotangents(self, C):
        """None: those of a block are made when they are needed, since no array is to have more rows."""
        return

    def Jt(self, C, U=None):
        """As of a `Jacobian`: a `Step` with one pair of factors per block."""
        first, *others = (block.Jt(part) for block, part in self._parts(C))
        for other in others:
            for pairs, more in zip(first.factors, other.factors, strict=True):
                pairs.extend(more)
            first.input_changes = sums_of(first.input_changes, other.input_changes)
            first.output_changes = tuple(sums_of(first.output_changes, other.output_changes))
        return first

    def gram_matvec(self, C, U=None):
        """``J Jt C`` for the scaled Jacobian (n x k), through weights that the steps of all blocks are folded into."""
        folded = FoldedStep(self.network)
        for block, part in self._parts(C):
            folded.add(block.Jt(part))
        return np.concatenate([block.tangent(folded) for block in self.blocks])

    def mean_diagonal(self):
        """As of a `Jacobian`."""
        trace = sum(block.trace() for block in self.blocks)
        return trace / float(np.square(self.row_scale, dtype=np.float64).sum())
