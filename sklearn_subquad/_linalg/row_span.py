"""Weights that change by combinations of the rows of sparse network inputs.

Where there are more inputs than rows, the weights of all inputs would take more memory, and every step more time, than
what these rows are combined with.
"""

import numpy as np
from scipy.sparse import csr_array, issparse

from sklearn_subquad._linalg.features import SparseFeatures, as_features
from sklearn_subquad._linalg.packed import times_dense

# Initial weights are kept sparse that take less memory so.
_MAX_SPARSE_SHARE = 0.4


class RowSpan:
    """All combinations of the rows of network inputs.

    Parameters
    ----------
    rows : SparseFeatures of shape (n, d)
    """

    def __init__(self, rows):
        self.rows = rows

    def features(self):
        """The rows, as network inputs whose `combiner` stays in the span."""
        return SparseFeatures(self.rows.stored, self.rows.origin, self, np.arange(len(self.rows)))

    def weights(self, start):
        """`SpannedWeights` at their start, a dense one (m x d)."""
        if np.count_nonzero(start) <= _MAX_SPARSE_SHARE * start.size:
            start = csr_array(start)
        return SpannedWeights(start, None, self)

    def combination(self, numbers, u):
        """``u.T @ rows[numbers]`` for sparse rows u (len(numbers) x m), as `SpannedWeights`."""
        coefficients = np.zeros((len(self.rows), u.shape[1]), dtype=u.dtype)
        coefficients[numbers] = u.to_csr().toarray()
        return SpannedWeights(None, coefficients, self)

    def to_state(self):
        """As a dict of arrays."""
        return {**_arrays_of(self.rows.stored), "origin": self.rows.origin}

    @classmethod
    def from_state(cls, state):
        """From the dict of `to_state`."""
        return cls(SparseFeatures(_csr(state, len(state["origin"])), state["origin"]))


class SpannedWeights:
    """Weights ``W = start + coefficients.T @ rows`` (m x d).

    Attributes
    ----------
    start : ndarray or scipy.sparse.csr_array of shape (m, d), or None
        None: zero.
    coefficients : ndarray of shape (n, m) or None
        None where no step has been taken.
    span : RowSpan
    """

    def __init__(self, start, coefficients, span):
        self.start, self.coefficients, self.span = start, coefficients, span

    def __add__(self, change):
        """With a combination of the rows added, as `SpannedWeights`."""
        known = self.coefficients
        return self.at(change.coefficients if known is None else known + change.coefficients)

    def at(self, coefficients):
        """The same with other coefficients."""
        return SpannedWeights(self.start, coefficients, self.span)

    def products(self, x):
        """``x @ W.T`` as `SparseFeatures.products`."""
        dense, terms = None, []
        if self.coefficients is not None:
            dense = (x.inner_products(self.span.rows), self.coefficients)
        if issparse(self.start):

            def add(out, first):
                part = self.start[first : first + out.shape[1]]
                out += (x.stored @ part.T).toarray()
                out += part @ x.origin

            terms = [add]
        elif self.start is not None:
            _, terms = x.products(self.start)
        return dense, terms

    def to_array(self):
        """W as an ndarray."""
        start = self.start.toarray() if issparse(self.start) else self.start
        if self.coefficients is None:
            return start
        # One neuron after the other would take little memory, all at once take little time.
        of_rows = self.span.rows.transposed_times(self.coefficients).T
        return of_rows if start is None else start + of_rows

    def times(self, u):
        """``u @ W`` for sparse rows u (n x m): dense, n x d."""
        out = 0
        if self.coefficients is not None:
            out = self.span.rows.transposed_times(times_dense(u, self.coefficients.T).T).T
        if self.start is None:
            return out
        return out + ((u.to_csr() @ self.start).toarray() if issparse(self.start) else times_dense(u, self.start))

    def any(self, axis):
        """As of an ndarray, for axis 0: which inputs have weights that are not zero, or may have."""
        if issparse(self.start):
            known = np.bincount(self.start.indices, minlength=self.start.shape[1]) > 0
        else:
            known = self.start.any(axis=axis)
        return known if self.coefficients is None else known | self.span.rows.nonzero_columns()

    def copy(self):
        """The same in memory of its own, but for what never changes."""
        return self.at(None if self.coefficients is None else self.coefficients.copy())

    def to_state(self):
        """As a dict of arrays, without the rows."""
        start = _arrays_of(self.start) if issparse(self.start) else self.start
        return {"start": start, "coefficients": self.coefficients}

    @classmethod
    def from_state(cls, state, span):
        """From the dict of `to_state`."""
        start = state["start"]
        if isinstance(start, dict):
            start = _csr(start, span.rows.shape[1])
        return cls(start, state["coefficients"], span)


def products(x, W):
    """``x @ W.T`` for network inputs x, dense or sparse, and weights W of either kind, as parts of a `ColumnwiseSum`.

    Returns
    -------
    tuple of ndarray or None
        Factors of a dense product.
    list of callable
        Other terms.
    """
    return W.products(x) if isinstance(W, SpannedWeights) else as_features(x).products(W)


def times(u, W):
    """``u @ W`` for sparse rows u (n x m) and weights W (m x d) of either kind: dense, n x d."""
    return W.times(u) if isinstance(W, SpannedWeights) else times_dense(u, W)


def as_array(W):
    """Weights of either kind as an ndarray."""
    return W.to_array() if isinstance(W, SpannedWeights) else W


def moving_part(W):
    """The array of weights of either kind that steps replace."""
    return W.coefficients if isinstance(W, SpannedWeights) else W


def with_moving_part(W, array):
    """The weights W with another `moving_part`."""
    return W.at(array) if isinstance(W, SpannedWeights) else array


def _arrays_of(matrix):
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}


def _csr(arrays, n_columns):
    n_rows = len(arrays["indptr"]) - 1
    return csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n_rows, n_columns))
