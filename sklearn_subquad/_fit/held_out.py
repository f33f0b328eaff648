"""Which rows are held out, to say when to stop."""

import math

import numpy as np

from sklearn_subquad._utils.random_streams import Stream, generator


def held_out_parts(data, n_networks, fraction, seed):
    """Rows of a `TrainingSet` that each network does not see, as a list of indices.

    Several networks hold out one fold each, a single one that fraction of the rows.
    """
    if n_networks > 1:
        numbers = folds(data, n_networks, seed)
        return [np.flatnonzero(numbers == number) for number in range(n_networks)]
    labels = data.Y if data.Y.dtype == bool else None
    return [split(len(data), fraction, generator(seed, Stream.HELD_OUT_ROWS), labels)[1]]


def folds(data, n_folds, seed):
    """The fold of every row of a `TrainingSet`: numbers below `n_folds`, whose counts differ by one at most.

    Rows of one class, or of one combination of labels, are dealt one after the other, so that every fold gets its share
    of them.
    """
    rng, n = generator(seed, Stream.FOLDS), len(data)
    kinds = np.zeros(n, dtype=int)
    if data.Y.dtype == bool:
        kinds = np.unique(np.packbits(data.Y, axis=1), axis=0, return_inverse=True)[1].ravel()
    numbers = np.empty(n, dtype=int)
    numbers[np.lexsort((rng.random(n), kinds))] = np.arange(n) % n_folds
    # Which fold the last rows of the last kind fall into is left to chance.
    return rng.permutation(n_folds)[numbers]


def split(n, fraction, rng, labels=None):
    """Rows to fit and rows to hold out, drawn at random.

    Parameters
    ----------
    n : int
        Two or more.
    fraction : float
        Of the rows to hold out.
    rng : numpy.random.Generator
    labels : ndarray of shape (n, k), bool, or None
        Labels to stratify by: one column for two classes, else one for every class or label.

    Returns
    -------
    fitting, held_out : ndarray of int
        Ascending; at least one row on either side.
    """
    n_held_out = min(n - 1, max(1, math.ceil(fraction * n)))
    if labels is None:
        order = rng.permutation(n)
        return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])
    held_out = _stratified(labels, n_held_out, rng)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _stratified(labels, n_held_out, rng):
    """Mask of the rows to hold out, of which every label, and the lack of every label, is to have its share.

    They take turns, the rarest first: of the rows that none before has placed, one holds out as many as its share
    lacks. A label of two rows or more has at least one on either side, so that more rows may be held out than asked
    for; the only row of a label is fitted.

    References
    ----------
    K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011: there rows are
    dealt one at a time, and the order of the labels is found anew after each.
    """
    n, n_labels = labels.shape
    counts = labels.sum(axis=0)
    counts = np.concatenate([counts, n - counts])
    held_out, placed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    remainder = 0.0
    for side in np.argsort(counts, kind="stable"):
        rows = labels[:, side] if side < n_labels else ~labels[:, side - n_labels]
        wanted = 0
        if counts[side] > 1:
            # What rounding takes from one label the next one gets.
            exact = n_held_out / n * counts[side] + remainder
            remainder = exact - round(exact)
            wanted = min(max(round(exact), 1), counts[side] - 1)
        free = np.flatnonzero(rows & ~placed)
        lacking = max(wanted - np.count_nonzero(rows & held_out), 0)
        held_out[rng.permutation(free)[:lacking]] = True
        placed[free] = True
    if not held_out.any():
        held_out[rng.integers(n)] = True
    return held_out
