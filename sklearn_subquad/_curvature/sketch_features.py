"""Sketched rows of the Jacobian."""

import numpy as np

from sklearn_subquad._curvature.jacobian_blocks import JacobianBlocks


def probe_factors(jacobian):
    """For every probe, and every layer and the output weights: (u, h, x), whose rows' tensors u ⊗ [h, x] have the inner
    products of the Gram matrix; u is sparse but for the output weights, one of h and x may be None."""
    return [
        [(u, h, x) for u, (h, x) in zip([*U, C], jacobian.layer_inputs, strict=True)]
        for U, C in zip(jacobian.probe_cotangents, jacobian.probe_outputs, strict=True)
    ]


def sketch_features(jacobian, sketch):
    """Row features (n x sketch_size), with the inner products of the Gram matrix in expectation.

    Parameters
    ----------
    jacobian : Jacobian or JacobianBlocks
    sketch : JacobianSketch
    """
    blocks = jacobian.blocks if isinstance(jacobian, JacobianBlocks) else [jacobian]
    out = sketch.empty_features(jacobian.n_rows, jacobian.dtype)
    bounds = np.cumsum([block.n_rows for block in blocks])[:-1]
    for block, rows in zip(blocks, np.split(out, bounds), strict=True):
        sketch.features(probe_factors(block), block.n_rows, block.dtype, rows)
    return out
