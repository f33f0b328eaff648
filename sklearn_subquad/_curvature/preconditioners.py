"""Preconditioners of the damped normal equations ``(J J^T + ridge I) c = r``.

Each is prepared for a linearisation, factored for a ridge, and then applied to residuals (n x k) as often as the inner
solver asks. `exact` says that `apply` is the solution itself, `varies` that it is no linear map.
"""

import numpy as np
from scipy.linalg.blas import dsymv, get_blas_funcs

from sklearn_subquad._curvature.jacobian import MAX_SPANNED
from sklearn_subquad._curvature.losses import SoftmaxFactor
from sklearn_subquad._curvature.sketch import JacobianSketch
from sklearn_subquad._curvature.sketch_features import sketch_features
from sklearn_subquad._linalg.cholesky import SINGLE_RIDGE, cholesky, cholesky_solve, lower_inverse
from sklearn_subquad._linalg.pcg import pcg
from sklearn_subquad._linalg.threads import blas_threads

# Rows of a step up to which n x n matrices are formed without being asked for. Beyond, rows are linearised in blocks of
# so many, where nobody asks for the Gram matrix of all.
MAX_SQUARE_ROWS = 8192
# Columns of a sketch at most, where it is not told: more take longer to multiply than the iterations they save.
_MAX_AUTO_SKETCH_SIZE = 2048
# Of the cost model: operations that the step's operator takes per row and neuron whatever the density; that an element
# of the Gram matrix and one of a layer's take beside its products; of a factorisation in double precision, per n³;
# inner iterations with a sketch; and what sketches take beside them.
_ROW_OPERATIONS, _SQUARE_OPERATIONS, _LAYER_OPERATIONS = 400, 1600, 500
_FACTOR_OPERATIONS, _SKETCH_ITERATIONS, _SKETCH_FACTOR = 0.65, 6, 1.4
# With more outputs than this, curvatures that differ between outputs are replaced by their mean in what is factored.
MAX_FACTORED_OUTPUTS = 32
# Of the iterations with the Gram matrix alone, within those with the network: a closer solution costs more than the
# outer iterations that it saves. Their number is bounded where rounding keeps them from the tolerance.
_GRAM_TOL, _MAX_GRAM_ITER = 0.1, 200
# A preconditioner of an earlier linearisation is kept until a solve does not converge, or takes more iterations than
# the first one did by this factor and this number.
_MORE_ITERATIONS, _SPARE_ITERATIONS = 1.5, 2
# A factor serves other ridges up to this ratio, that of a rejected attempt and the next one included.
_NEARBY_RIDGE = 4.0


class IdentityPreconditioner:
    """No preconditioning."""

    exact = varies = False

    def prepare(self, jacobian, same_rows):
        """Nothing to prepare."""

    def factor(self, ridge):
        """Nothing to factor."""

    def apply(self, R):
        """R itself."""
        return R

    def observe(self, n_iter, converged):
        """Nothing to learn."""


class _ReusedPreconditioner:
    """A preconditioner that outlives its linearisation, as long as it serves the next ones on the same rows.

    What is factored stands for one output. Where the curvature scales outputs differently, there is a factor for every
    output; with many outputs that would cost too much, and the curvature becomes its mean.

    Subclasses' `_compute` sets `_gram`, the matrix to factor but for scales and ridge.
    """

    exact = varies = False

    def __init__(self):
        self._first_count = self._last_count = self._ridge = None
        self._last_converged = False

    def prepare(self, jacobian, same_rows):
        """Compute what later factors need, unless that of an earlier linearisation still works.

        Parameters
        ----------
        jacobian : Jacobian
        same_rows : bool
            True if the linearisation before was one of the same rows.
        """
        # A curvature that has changed is no longer the one that was inverted.
        if same_rows and jacobian.curvature.is_identity and not self._worn_out():
            return
        self._first_count = self._last_count = self._ridge = None
        self._dtype, self._scales, self._mean_square = jacobian.dtype, jacobian.output_scales(), 1.0
        if self._scales is not None and jacobian.n_outputs > MAX_FACTORED_OUTPUTS:
            self._mean_square = float(np.square(self._scales, dtype=np.float64).mean())
            self._scales = None
        self._compute(jacobian)

    def _worn_out(self):
        # Counts end where the inner solver gives up, which may be too soon to exceed the limit below.
        if self._last_count is None or not self._last_converged:
            return True
        return self._last_count > _MORE_ITERATIONS * self._first_count + _SPARE_ITERATIONS

    def factor(self, ridge):
        """Factor for a ridge; the factor of one close by is kept.

        Raises
        ------
        numpy.linalg.LinAlgError
            Where the shifted matrix is not positive definite in double precision.
        """
        if self._ridge is None or not 1 / _NEARBY_RIDGE <= ridge / self._ridge <= _NEARBY_RIDGE:
            self._ridge = None
            self._compute_factor(ridge)
            self._ridge = ridge

    def _compute_factor(self, ridge):
        # Those of the last ridge go first: all together would take twice the memory.
        self._factors = []
        for scale in [None] if self._scales is None else self._scales.T:
            self._factors.append(cholesky(self._matrix(scale), ridge, self._dtype))

    def _matrix(self, scale):
        """Matrix to factor for an output whose rows have these scales (n,), or for all of them (None)."""
        if scale is None:
            return self._mean_square * self._gram
        return self._gram * scale * scale[:, None]

    def apply(self, R):
        """Solve for R (n x k); returns R's dtype."""
        if self._scales is None:
            return self._solve(self._factors[0], None, R).astype(R.dtype, copy=False)
        parts = [
            self._solve(factor, scale, R[:, [output]])
            for output, (factor, scale) in enumerate(zip(self._factors, self._scales.T, strict=True))
        ]
        return np.concatenate(parts, axis=1).astype(R.dtype, copy=False)

    def _solve(self, factor, scale, R):
        """Solve for columns of R that share a factor."""
        return cholesky_solve(factor, R)

    def observe(self, n_iter, converged):
        """Learn how many iterations an inner solve took, and whether they were enough."""
        if self._first_count is None:
            self._first_count = n_iter
        self._last_count, self._last_converged = n_iter, converged


class ExactGram:
    """The Gram matrix of one output: its Cholesky factor solves the system."""

    exact = True
    varies = False

    def prepare(self, jacobian, same_rows):
        """Compute the Gram matrix, which the Jacobian keeps."""
        self._jacobian = jacobian
        jacobian.gram.matrix()

    def factor(self, ridge):
        """The Jacobian factors, and keeps the factor of the last ridge."""
        self._ridge = ridge

    def apply(self, R):
        """Solve for R (n x 1) to double precision; returns R's dtype."""
        return self._jacobian.gram.shifted(self._ridge).solve(R).astype(R.dtype, copy=False)

    def observe(self, n_iter, converged):
        """Nothing to learn."""


class GramPreconditioner(_ReusedPreconditioner):
    """Solves with the Gram matrix K that all outputs share: with ``S^T (K ⊗ I) S + ridge * I``.

    Without curvature that takes one Cholesky factor, in the Jacobian's precision where that is enough; where the
    curvature scales outputs, one for every output; for the softmax see `_SoftmaxGram`, and for many outputs
    `_IteratedGram`.
    """

    def _compute(self, jacobian):
        self._gram, self._curvature = jacobian.gram.matrix(), jacobian.curvature
        self.varies = not self._curvature.is_identity and jacobian.n_outputs > MAX_FACTORED_OUTPUTS

    def _compute_factor(self, ridge):
        self._solver = None
        if self.varies:
            self._solver = _IteratedGram(self._gram, self._curvature, ridge)
        elif self._scales is not None and isinstance(self._curvature, SoftmaxFactor):
            self._solver = _SoftmaxGram(self._gram, self._curvature, ridge)
        else:
            super()._compute_factor(ridge)

    def apply(self, R):
        """Solve for R (n x k); returns R's dtype."""
        return super().apply(R) if self._solver is None else self._solver.solve(R).astype(R.dtype, copy=False)


class _IteratedGram:
    """Solves with ``S^T (K ⊗ I) S + λ I`` by conjugate gradients, to the tolerance `_GRAM_TOL`.

    A product takes 2 n² k operations and no weights, a small part of one with the network. Where a row is nearly sure
    of its class, the curvature of one or two outputs is far above that of the others. The preconditioner takes them
    apart: outputs above twice the row's mean are divided by their diagonal, and what is left shares the inverse of one
    matrix, of K scaled by the root of the mean square of every row's other curvatures.
    """

    def __init__(self, gram, curvature, ridge):
        squares = np.square(curvature.output_scales(), dtype=np.float64)
        bound = float(np.diag(gram) @ squares.max(axis=1))
        # So rough a solution needs no double precision, unless rounding is near the ridge.
        dtype = np.dtype(np.float32 if ridge > SINGLE_RIDGE * bound else np.float64)
        large = squares > 2 * squares.mean(axis=1, keepdims=True)
        row_scale = np.sqrt(np.where(large, 0.0, squares).sum(axis=1) / (~large).sum(axis=1))
        self._gram, self._curvature, self._ridge = gram.astype(dtype), curvature.astype(dtype), dtype.type(ridge)
        # Masks as numbers, which are multiplied with faster than places are looked up.
        self._others = (~large).astype(dtype)
        self._diagonal = np.where(large, 1 / (np.diag(gram)[:, None] * squares + ridge), 0.0).astype(dtype)
        factor = cholesky(gram * row_scale * row_scale[:, None], ridge, dtype)
        # A product with the inverse is much faster than two triangular solves.
        self._inverse = lower_inverse(factor).astype(dtype, copy=False)
        self._symm = get_blas_funcs("symm", (self._inverse,))

    def solve(self, R):
        R = R.astype(self._gram.dtype, copy=False)
        return pcg(self._operator, R, self._precondition, tol=_GRAM_TOL, max_iter=_MAX_GRAM_ITER).solution

    def _operator(self, C):
        with blas_threads(2 * len(C) * C.size):
            image = self._gram @ self._curvature.apply(C)
        return self._curvature.apply_transposed(image) + self._ridge * C

    def _precondition(self, R):
        with blas_threads(2 * len(R) * R.size):
            # Transposes are in Fortran's order.
            shared = self._symm(1.0, self._inverse, (self._others * R).T, side=1, lower=True).T
        return self._others * shared + self._diagonal * R


class _SoftmaxGram:
    """The inverse of ``S^T (K ⊗ I) S + λ I`` for the softmax's curvature factor S, in double precision.

    With ``S S^T = H`` it is ``(I - S^T (λ K^-1 + H)^-1 S) / λ``. H is diagonal but for a matrix of rank one per row, so
    that the inner inverse takes a Cholesky factor per class and one of the sum of what they invert.

    A class takes about n³ operations and a matrix of n x n doubles that is kept. With two more such matrices these are
    8 n² (k + 2) bytes: 96 MB for 1,000 rows and 10 classes, 4.6 GB for 4,096 rows and 32.

    References
    ----------
    C. E. Rasmussen, C. K. I. Williams, "Gaussian processes for machine learning", MIT Press 2006, section 3.5
    (the posterior covariance of multi-class classification).
    """

    def __init__(self, gram, curvature, ridge):
        self._curvature, self._ridge = curvature, ridge
        n = len(gram)
        self._gram = gram / ridge
        # Symmetric, as is their sum, and in Fortran's order; only lower triangles are computed and read.
        self._inner = []
        total = np.zeros((n, n), order="F")
        for p in curvature.probabilities.T.astype(np.float64):
            root = np.sqrt(p)
            factor = cholesky(self._gram * root * root[:, None], 1.0, np.float64)
            inner = lower_inverse(factor)
            inner *= root
            inner *= root[:, None]
            self._inner.append(inner)
            total += inner
        self._total = cholesky(total, 0.0, np.float64)

    def solve(self, R):
        R = R.astype(np.float64)
        with blas_threads(4 * len(R) * R.size):
            known = self._gram @ self._curvature.apply(R)
            parts = self._apply_inner(known)
            shared = cholesky_solve(self._total, parts.sum(axis=1, keepdims=True))
            parts -= self._apply_inner(np.broadcast_to(shared, R.shape))
            known -= self._gram @ parts
        return (R - self._curvature.apply_transposed(known)) / self._ridge

    def _apply_inner(self, C):
        """The matrix of every class times its column of C (n x k)."""
        products = [dsymv(1.0, inner, column, lower=True) for inner, column in zip(self._inner, C.T, strict=True)]
        return np.column_stack(products)


class SketchPreconditioner(_ReusedPreconditioner):
    """Cholesky factor of ``Φ Φ^T + ridge * I`` for a sketch Φ (n x sketch_size) of the Jacobian's rows.

    For sketch_size < n the smaller matrix ``Φ^T Φ + ridge * I`` is factored and applied by Woodbury's
    identity. Scales of outputs multiply the rows of Φ.

    Parameters
    ----------
    kind : {"tensor_srht", "tensor_sketch"}
    sketch_size : int
    seed : int or sequence of int
    """

    def __init__(self, kind, sketch_size, seed):
        super().__init__()
        self._kind, self._sketch_size, self._seed = kind, sketch_size, seed

    def _compute(self, jacobian):
        size = self._sketch_size
        sketch = JacobianSketch(self._kind, size, self._seed)
        self._features = sketch_features(jacobian, sketch)
        self._woodbury = size < jacobian.n_rows
        self._gram = None
        if not self._woodbury:
            self._gram = _outer(self._features)
        elif self._scales is None:
            self._gram = _outer(self._features.T)

    def _matrix(self, scale):
        if self._woodbury and scale is not None:
            return _outer((scale[:, None] * self._features).T)
        return super()._matrix(scale)

    def _solve(self, factor, scale, R):
        if not self._woodbury:
            return cholesky_solve(factor, R)
        rows = R if scale is None else scale[:, None] * R
        with blas_threads(2 * self._features.size * R.shape[1]):
            image = self._features @ cholesky_solve(factor, self._features.T @ rows)
        return (R - (self._mean_square if scale is None else scale[:, None]) * image) / self._ridge


def _outer(rows):
    with blas_threads(2 * rows.size * len(rows)):
        return rows @ rows.T


def make_preconditioner(name, *, sketch, sketch_size, seed, n_outputs):
    """The preconditioner called `name`.

    Parameters
    ----------
    name : {"gram", "sketch", "none"}
    sketch, sketch_size, seed
        Of a `SketchPreconditioner`.
    n_outputs : int
        Of the linearisations that it will serve.
    """
    if name == "none":
        return IdentityPreconditioner()
    if name == "sketch":
        return SketchPreconditioner(sketch, sketch_size, seed)
    return ExactGram() if n_outputs == 1 else GramPreconditioner()


def cheapest_preconditioner(n_rows, widths, densities, n_outputs, n_curvatures):
    """Choose "gram" while that is cheaper by a cost model, and "sketch" beyond.

    Parameters
    ----------
    n_rows : int
        Of a step.
    widths, densities : tuple
        Per hidden layer.
    n_outputs : int
    n_curvatures : int
        Outputs with a curvature of their own. Where there are several, a sketch leaves out how they are coupled and
        takes many more iterations: the Gram matrix then serves as long as it is formed unasked.

    Returns
    -------
    {"gram", "sketch"}

    Notes
    -----
    Costs are in operations of the sparse kernels. They are fixed numbers, so that the choice is the same in every
    process; benchmarks/speed/preconditioning.py crossover measures how far it is from the best one.
    """
    if n_rows > MAX_SQUARE_ROWS:
        return "sketch"
    # A sketch with as many columns as rows saves nothing.
    if n_curvatures > 1 or n_rows <= _MAX_AUTO_SKETCH_SIZE:
        return "gram"
    active = [width * density for width, density in zip(widths, densities, strict=True)]
    # The step's operator, through the weights: factors are folded in and multiplied with, and where probes are not the
    # outputs there is a backward and a forward pass besides.
    passes = 4 if n_outputs <= MAX_SPANNED else 8
    hidden = sum(s * m for s, m in zip(active[:-1], widths[1:], strict=True))
    operator = n_rows * (passes * hidden + _ROW_OPERATIONS * sum(widths))
    # The Gram matrices of layers' inputs and of the probes' cotangents, by halves.
    n_probes = 1 if n_outputs == 1 else 3
    gram = n_rows**2 * ((1 + n_probes) * sum(active) + _SQUARE_OPERATIONS)
    if n_outputs == 1:
        gram += _FACTOR_OPERATIONS * n_rows**3
    else:
        # Layers' Gram matrices are kept, the factor is in single precision where X is, and there are iterations.
        gram += n_rows**2 * _LAYER_OPERATIONS * (len(widths) + 1) + _FACTOR_OPERATIONS / 2 * n_rows**3 + 2 * operator
    sketch = _SKETCH_FACTOR * (_SKETCH_ITERATIONS * operator + 1.2 * n_rows * _MAX_AUTO_SKETCH_SIZE**2)
    return "gram" if gram <= sketch else "sketch"


def default_sketch_size(n_rows):
    """Columns of a sketch of so many rows, where it is not told."""
    return min(2 * n_rows, _MAX_AUTO_SKETCH_SIZE)
