"""Losses, as functions of targets and outputs alone.

A loss offers what a Gauss-Newton step needs: its value, and the residual whose weighted square it is to
second order.
"""

import numpy as np


class SquaredError:
    """Half the weighted sum of squares."""

    @staticmethod
    def value(Y, F, sample_weight):
        """``1/2 sum_i w_i |y_i - f_i|²`` in double precision, for targets and outputs (n x k)."""
        rows = np.einsum("ij,ij->i", *(2 * [Y.astype(np.float64) - F]))
        return 0.5 * float(sample_weight @ rows)

    @staticmethod
    def residual(Y, F):
        """Negative gradient by the outputs, per row of weight one, in the outputs' dtype."""
        return (Y - F).astype(F.dtype, copy=False)
