"""Options of the solver, with every choice made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SolverOptions:
    """Options of steps and of the loop around them, in the terms of the estimators' parameters.

    Attributes
    ----------
    max_iter, tol, n_iter_no_change, verbose
        As the estimators' parameters; iterations are steps on all rows, or passes over batches.
    damping : float or None
        Of the first step; None: from the leave-one-out errors of a first step.
    preconditioner : {"gram", "sketch", "none"}
    sketch : {"tensor_srht", "tensor_sketch"}
    sketch_size : int
    cg_tol, max_cg_iter
        As the estimators' parameters.
    in_batches : bool
        False where every step is one of all rows.
    batch_size : int or None
        Rows of a batch at most; None: all.
    block_rows : int or None
        Rows that are linearised at a time where a step has more; None: all, as a Gram matrix needs it.
    partial : bool
        True for one pass over a part of the data that others follow. It may lack classes that they have: the constant
        model then takes all for equally likely.
    warm_start : bool
        True where the network was fitted before. It then takes the place of the constant model, as what is returned if
        no step is better.
    """

    max_iter: int = 20
    tol: float = 1e-3
    n_iter_no_change: int = 2
    verbose: int = 0
    damping: float | None = None
    preconditioner: str = "gram"
    sketch: str = "tensor_srht"
    sketch_size: int = 2048
    cg_tol: float = 1e-2
    max_cg_iter: int = 50
    in_batches: bool = False
    batch_size: int | None = None
    block_rows: int | None = None
    partial: bool = False
    warm_start: bool = False
