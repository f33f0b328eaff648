"""Random weights that a network starts with."""

import numpy as np

from sklearn_subquad._kernels import LANES
from sklearn_subquad._linalg.features import as_features
from sklearn_subquad._linalg.packed import PackedMatrix
from sklearn_subquad._linalg.threads import for_each


def normal(seed, shape, dtype):
    """Standard normal numbers, drawn in single precision so that every dtype gets the same ones."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


def gaussian(seed, width, x, sample_weight):
    """Weights of neurons that meet every network input; of the rows x only their number of columns and dtype count."""
    return normal(seed, (width, x.shape[1]), x.dtype)


def axis_aligned(seed, width, x, sample_weight):
    """Weights of neurons each of which meets one feature, and the constant.

    Gaussian weights look the same after any rotation of the features, and so does what is learned from them. Trees are
    not like that: most features of tables mean something on their own. Neurons that start on single features put their
    kinks across the axes; training may turn them anywhere.

    Parameters
    ----------
    seed : SeedSequence
    width : int
    x : ndarray or SparseFeatures of shape (n, d + 1)
        Network inputs, the constant last. Features get as many neurons as their share of the mean square, to rounding,
        and weights such that the part of a pre-activation that is not constant has, with every feature, the mean square
        that Gaussian weights would give it.
    sample_weight : ndarray of shape (n,), positive

    Returns
    -------
    ndarray of shape (width, d + 1), of x's dtype

    References
    ----------
    A. Y. Ng, "Feature selection, L1 vs. L2 regularization, and rotational invariance", ICML 2004, and L. Grinsztajn,
    E. Oyallon, G. Varoquaux, "Why do tree-based models still outperform deep learning on typical tabular data?",
    NeurIPS 2022, on what learners that rotations do not affect lack on tables.
    """
    shares = _shares_of_mean_square(x, sample_weight)
    rng = np.random.default_rng(seed)
    of_feature, of_constant = rng.standard_normal((2, width), dtype=np.float32)
    # Neurons lie at about equal distances along the cumulated shares, so that chance leaves no feature out.
    places = rng.permutation((np.arange(width) + 1 - rng.random(width)) / width)
    # Places are in (0, 1], so that features without a share have no neuron.
    ends = np.cumsum(shares)
    features = np.searchsorted(ends / ends[-1], places)
    weights = np.zeros((width, x.shape[1]), dtype=x.dtype)
    weights[np.arange(width), features] = of_feature / np.sqrt(shares[features])
    weights[:, -1] = of_constant
    return weights


INPUT_WEIGHTS = {"axis_aligned": axis_aligned, "gaussian": gaussian}


def _shares_of_mean_square(x, sample_weight):
    squares = as_features(x).relative_squares(sample_weight)
    return squares / squares.sum() if squares.any() else np.full(len(squares), 1 / len(squares))


def normal_tiles(seed, n_out, n_in, dtype, mirrored):
    """Standard normal weights drawn in packed form; mirrored: neurons 2j and 2j + 1 have equal ones.

    Every panel has its own stream of random numbers: panels are drawn in parallel, and are the same whatever the
    number of threads.
    """
    packed = PackedMatrix.zeros(n_out, n_in, dtype)
    streams = seed.spawn(len(packed.tiles))

    def draw(i):
        panel = packed.tiles[i]
        rng = np.random.Generator(np.random.SFC64(streams[i]))
        if panel.dtype == np.float32:
            rng.standard_normal(dtype=np.float32, out=panel)
        else:
            panel[:] = rng.standard_normal(panel.shape, dtype=np.float32)
        if mirrored:
            panel[:, 1::2] = panel[:, ::2]
        panel[:, n_out - i * LANES :] = 0

    for_each(draw, len(packed.tiles))
    return packed
