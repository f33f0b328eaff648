"""Which rows are held out, to say when to stop."""

import math

import numpy as np

from sklearn_subquad._utils.random_streams import Stream, generator


def held_out_part(data, fraction, seed, part):
    """Rows of a `TrainingSet` to fit and to hold out, in the part of that number."""
    labels = data.Y if data.Y.dtype == bool else None
    return split(len(data), fraction, generator(seed, Stream.HELD_OUT_ROWS, part), labels)


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
