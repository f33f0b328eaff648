"""Preconditioned conjugate gradients for systems whose unknowns are n x k arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass
class PCGResult:
    """Outcome of `pcg`.

    Attributes
    ----------
    solution, residual : ndarray of the right-hand side's shape
        The residual is the recursively updated ``rhs - operator(solution)``.
    n_iter : int
    converged : bool
    """

    solution: np.ndarray
    residual: np.ndarray
    n_iter: int
    converged: bool


def pcg(operator, rhs, preconditioner, *, tol, max_iter, flexible=False, advance=None):
    """Solve ``operator(C) = rhs`` for a symmetric positive definite operator.

    Parameters
    ----------
    operator, preconditioner : callable
        Map an array like rhs to one of its shape.
    rhs : ndarray
    tol : float
        Stop once the residual's norm is at most `tol` times that of rhs.
    max_iter : int
    flexible : bool, default=False
        True if the preconditioner may be another one in every iteration, as one that iterates itself is. Directions are
        then conjugate to the one before by Polak and Ribière's formula, which takes another array.
    advance : callable or None, default=None
        ``advance(length)`` is called whenever the solution moves, by so many times the array that the operator was
        called with last: for what depends linearly on the solution.

    Returns
    -------
    PCGResult
        Not converged where max_iter was reached or rounding broke the recursion; the best-effort solution
        is a descent direction all the same.
    """
    solution, residual = np.zeros_like(rhs), rhs.copy()
    target = tol * np.sqrt(_dot(rhs, rhs))
    if not np.isfinite(target):
        return PCGResult(solution, residual, 0, False)
    direction, rho, residual_before = None, None, None
    for n_iter in range(max_iter):
        if np.sqrt(_dot(residual, residual)) <= target:
            return PCGResult(solution, residual, n_iter, True)
        z = preconditioner(residual)
        rho, previous = _dot(residual, z), rho
        if not (np.isfinite(rho) and rho > 0):
            return PCGResult(solution, residual, n_iter, False)
        if direction is None:
            direction = z
        else:
            turned = rho - _dot(residual_before, z) if flexible else rho
            direction = z + rhs.dtype.type(turned / previous) * direction
        image = operator(direction)
        curvature = _dot(direction, image)
        if not (np.isfinite(curvature) and curvature > 0):
            return PCGResult(solution, residual, n_iter, False)
        length = rhs.dtype.type(rho / curvature)
        solution = solution + length * direction
        if advance is not None:
            advance(length)
        residual_before = residual if flexible else None
        residual = residual - length * image
    converged = np.sqrt(_dot(residual, residual)) <= target
    return PCGResult(solution, residual, max_iter, bool(converged))


def _dot(a, b):
    return float(np.einsum("ij,ij->", a, b, dtype=np.float64))
