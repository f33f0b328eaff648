"""Widths and densities of the hidden layers, by the parameters."""

import numpy as np

from sklearn_subquad._network.activations import auto_density


def widths_of(hidden_layer_sizes):
    try:
        widths = np.atleast_1d(np.asarray(hidden_layer_sizes))
    except ValueError:
        # Sequences of different lengths within the sequence.
        widths = np.empty(0)
    integral = widths.dtype.kind in "iu"
    if widths.ndim != 1 or not len(widths) or not integral or widths.min() < 1:
        raise ValueError(
            "hidden_layer_sizes must be a positive integer or a non-empty sequence of them, one per hidden "
            f"layer; got {hidden_layer_sizes!r}."
        )
    return tuple(int(width) for width in widths)


def densities_of(density, widths):
    if isinstance(density, str):
        return tuple(auto_density(width) for width in widths)
    try:
        densities = np.asarray(density)
        # Strings and complex numbers would be converted as well.
        densities = densities.astype(np.float64) if densities.dtype.kind in "iufO" else np.empty(0)
        if densities.ndim == 0:
            densities = np.full(len(widths), densities)
    except (TypeError, ValueError):
        densities = np.empty(0)
    if densities.shape != (len(widths),) or not np.all((densities > 0) & (densities <= 0.5)):
        raise ValueError(
            "density must be 'auto', a number in (0, 0.5], or one such number per hidden layer "
            f"({len(widths)} here); got {density!r}."
        )
    return tuple(float(each) for each in densities)
