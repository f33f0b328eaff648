"""The scale of initial weights, where it is to follow the features."""

import math

import numpy as np
from scipy.special import entr

from sklearn_subquad._fit.data import drawn_rows
from sklearn_subquad._fit.scaling import unit_of
from sklearn_subquad._linalg.features import SparseFeatures
from sklearn_subquad._utils.random_streams import Stream, generator

# A small scale is this over sqrt(m), 0.05 at m = 2048, where the features have few effective dimensions, and 1
# where they have many; it grows geometrically in between.
_SMALL_INIT_SCALE = 0.05 * math.sqrt(2048)
_FEW_DIMENSIONS, _MANY_DIMENSIONS = 10, 20
# Rows on which effective dimensions are counted, at most and at least where there are more, and their numbers at most.
_MAX_DIMENSION_ROWS, _MIN_DIMENSION_ROWS, _DIMENSION_NUMBERS = 1024, 64, 1 << 23


def small_init_scale(width):
    """The scale for features of few effective dimensions, given the width of the last hidden layer."""
    return _SMALL_INIT_SCALE / math.sqrt(width)


def scale_of_initial_weights(inputs, X, sample_weight, width, seed):
    """Small for features of few effective dimensions, and one for those of many.

    Parameters
    ----------
    inputs : InputScaling
    X : ndarray or sparse array of shape (n, n_features)
        Rows, of which some are drawn.
    sample_weight : ndarray of shape (n,)
    width : int
        Of the last hidden layer.
    seed : int
    """
    n_wanted = min(_MAX_DIMENSION_ROWS, max(_MIN_DIMENSION_ROWS, _DIMENSION_NUMBERS // len(inputs.mean)))
    rows = drawn_rows(X.shape[0], n_wanted, generator(seed, Stream.DIMENSION_ROWS))
    # Without the constant, which has no say in a covariance.
    x = inputs.transform(X[rows], np.float64)
    x = x if isinstance(x, SparseFeatures) else x[:, :-1]
    few, many = math.log(_FEW_DIMENSIONS), math.log(_MANY_DIMENSIONS)
    share = (math.log(effective_dimension(x, sample_weight[rows])) - few) / (many - few)
    return small_init_scale(width) ** (1 - min(max(share, 0.0), 1.0))


def effective_dimension(x, sample_weight):
    """In how many directions rows vary: exp of the entropy of the spectrum of their covariance.

    It is d for d independent columns of equal variance and one where all of them move together.

    Parameters
    ----------
    x : ndarray or SparseFeatures of shape (n, d)
    sample_weight : ndarray of shape (n,)

    Returns
    -------
    float
        At least one, also for rows that do not vary.

    References
    ----------
    O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, there of singular
    values instead of their squares.
    """
    sample_weight = sample_weight / unit_of(sample_weight)
    if isinstance(x, SparseFeatures):
        if x.shape[1] > len(x):
            return _entropic_dimension(_centred_gram(x, sample_weight))
        x = x.to_array()
    x = x / unit_of(x)
    x -= np.average(x, axis=0, weights=sample_weight)
    x *= np.sqrt(sample_weight)[:, None]
    if not x.any():
        return 1.0
    # Again: rows far from zero may be near each other, and those that differ may weigh little.
    x /= np.abs(x).max()
    return _entropic_dimension(x.T @ x if x.shape[1] <= len(x) else x @ x.T)


def _entropic_dimension(gram):
    spectrum = np.maximum(np.linalg.eigvalsh(gram), 0)
    return float(np.exp(entr(spectrum / (spectrum.sum() or 1.0)).sum()))


def _centred_gram(x, sample_weight):
    """Inner products of rows less their mean, times the roots of their weights, to a common factor."""
    unit = unit_of(np.append(x.stored.data, x.origin))
    x = SparseFeatures(x.stored / unit, x.origin / unit)
    gram = x.inner_products(x).copy()
    for rows in (gram, gram.T):
        rows -= np.average(rows, axis=0, weights=sample_weight)
    roots = np.sqrt(sample_weight)
    gram *= np.outer(roots, roots)
    return gram / (np.abs(gram).max() or 1.0)
