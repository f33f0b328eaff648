"""Parts of many rows, and some of them, as slices."""


def batches(n, size):
    """Slices of `size` rows one after the other, and of what is left.

    As `sklearn.utils.gen_batches` gives them, which checks its arguments at every call: several times a step and a
    prediction of one row, that takes longer than what is done with the slices.
    """
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def spaced_rows(n, n_at_most):
    """A slice of rows at equal distances, because their order may mean something: all, or at most so many."""
    return slice(None, None, max(1, -(-n // n_at_most)))
