"""Preconditioners of the damped normal equations ``(J J^T + shift I) c = r``.

Each is factored once for a linearisation and a shift, and then applied to residuals (n x k) as often as the
inner solver asks. `exact` says that `apply` is the solution itself.
"""

import numpy as np
import scipy.linalg

from sklearn_subquad._parallel import blas_threads
from sklearn_subquad._sketch import JacobianSketch


class IdentityPreconditioner:
    """No preconditioning."""

    exact = False

    def factor(self, jacobian, shift):
        """Nothing to factor."""

    def apply(self, R):
        """R itself."""
        return R


class GramPreconditioner:
    """Cholesky factor of the exact Gram matrix that all outputs share."""

    def factor(self, jacobian, shift):
        """Prepare for ``jacobian.gram() + shift * I``; the Jacobian keeps the Gram matrix and its factor."""
        self._jacobian, self._shift = jacobian, shift
        self.exact = jacobian.n_outputs == 1

    def apply(self, R):
        """Solve for R (n x k) in double precision; returns R's dtype."""
        return self._jacobian.gram_solve(self._shift, R).astype(R.dtype, copy=False)


class SketchPreconditioner:
    """Cholesky factor of ``Φ Φ^T + shift * I`` for a sketch Φ (n x sketch_size) of the Jacobian's rows.

    For sketch_size < n the smaller matrix ``Φ^T Φ + shift * I`` is factored and applied by Woodbury's
    identity.

    Parameters
    ----------
    kind : {"tensor_srht", "tensor_sketch"}
    sketch_size : int or "auto"
        "auto" is twice the number of rows.
    seed : int or sequence of int
    """

    exact = False

    def __init__(self, kind, sketch_size, seed):
        self._kind, self._sketch_size, self._seed = kind, sketch_size, seed
        self._jacobian = None

    def factor(self, jacobian, shift):
        """Sketch once for a linearisation, factor for every shift."""
        if jacobian is not self._jacobian:
            size = 2 * jacobian.n_rows if self._sketch_size == "auto" else self._sketch_size
            sketch = JacobianSketch(self._kind, size, self._seed)
            self._features = sketch.features(jacobian).astype(np.float64)
            self._woodbury = size < jacobian.n_rows
            rows = self._features.T if self._woodbury else self._features
            with blas_threads(2 * rows.size * len(rows)):
                self._small_gram = rows @ rows.T
            self._jacobian = jacobian
        self._shift = shift
        shifted = self._small_gram.copy()
        shifted.flat[:: len(shifted) + 1] += shift
        with blas_threads(len(shifted) ** 3 / 3):
            self._factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)

    def apply(self, R):
        """Solve for R (n x k) in double precision; returns R's dtype."""
        if self._woodbury:
            inner = scipy.linalg.cho_solve(self._factor, self._features.T @ R, check_finite=False)
            out = (R - self._features @ inner) / self._shift
        else:
            out = scipy.linalg.cho_solve(self._factor, R, check_finite=False)
        return out.astype(R.dtype, copy=False)


def make_preconditioner(name, *, sketch, sketch_size, seed):
    """The preconditioner called `name` ("auto", "gram", "sketch" or "none")."""
    if name == "none":
        return IdentityPreconditioner()
    if name == "sketch":
        return SketchPreconditioner(sketch, sketch_size, seed)
    return GramPreconditioner()
