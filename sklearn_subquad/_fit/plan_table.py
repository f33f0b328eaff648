"""What `verbose` prints of a plan."""

import numpy as np


def plan_table(plan):
    """A line for every choice, in the terms of the estimators' parameters."""
    solver, architecture, size = plan.solver, plan.architecture, plan.size
    held_out = f"{plan.validation_fraction:.3g} of the rows held out"
    if plan.in_folds:
        held_out = f"{plan.n_networks} networks, each without one fold"
    elif size.n_validation_rows:
        held_out = f"a validation set of {size.n_validation_rows} rows"
    stopping = {"loo": "leave-one-out errors", "validation": held_out, False: "no row held out"}
    lines = {
        "rows": f"{size.n_rows}, in batches of at most {solver.batch_size}" if solver.in_batches else size.n_rows,
        "loss": plan.loss,
        "layers": ", ".join(
            f"{width} ({density:.2g} active)"
            for width, density in zip(architecture.widths, architecture.densities, strict=True)
        ),
        "precision": "single" if plan.dtype == np.float32 else "double",
        "n_bins": ", ".join(map(_of_kind, plan.kinds)),
        "init, init_scale": f"{architecture.init}, {architecture.init_scale:.3g}",
        "early_stopping": stopping[plan.early_stopping],
        "preconditioner": (
            f"{solver.preconditioner} of {solver.sketch_size} columns"
            if solver.preconditioner == "sketch"
            else solver.preconditioner
        ),
        "cg_tol": solver.cg_tol,
        "damping": "from leave-one-out errors of a first step" if solver.damping is None else solver.damping,
        "memory": f"{plan.n_bytes / 1e6:.0f} MB at most",
    }
    return "\n".join(f"{name + ':':<18}{value}" for name, value in lines.items())


def _of_kind(ramps):
    return "none" if ramps.n_bins is None else f"{ramps.n_bins}{' loud ones' if ramps.loud else ''}"
