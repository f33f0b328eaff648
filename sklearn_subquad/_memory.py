"""How much memory a fit takes, and whether there is so much."""

import itertools
import os
import pathlib

# Rows on which shifts and gains are calibrated and densities measured, where there are more.
CALIBRATION_ROWS = 4096
_MEMINFO = pathlib.Path("/proc/meminfo")
# Limits of a container and what it uses: cgroups, version 2 and 1.
_CGROUPS = (
    (pathlib.Path("/sys/fs/cgroup/memory.max"), pathlib.Path("/sys/fs/cgroup/memory.current")),
    (
        pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        pathlib.Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_bytes():
    """Bytes that the process can still allocate without swapping, or None where the system does not say."""
    known = []
    try:
        lines = _MEMINFO.read_text().splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pages = getattr(os, "sysconf_names", {}).get("SC_PHYS_PAGES")
        if pages is not None:
            known.append(os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"))
    for limit, usage in _CGROUPS:
        try:
            known.append(int(limit.read_text()) - int(usage.read_text()))
        except (OSError, ValueError):
            # No such group, or no limit ("max").
            continue
    return max(0, min(known)) if known else None


def fit_bytes(widths, densities, keep_start, topk, n_rows, batch_size, n_inputs, n_outputs, n_factors, itemsize):
    """Bytes that a fit holds at a time, by the budget of doc/architecture.md.

    Parameters
    ----------
    widths, densities : tuple
        Per hidden layer.
    keep_start : bool
        Whether the change of the weights is kept apart from their start.
    topk : bool
        Whether rows are chosen from as a whole.
    n_rows, batch_size, n_inputs, n_outputs : int
    n_factors : int
        Outputs with a factorisation of their own.
    itemsize : int
        Bytes of a number.

    Returns
    -------
    weights, rows : int
        Bytes of the weight matrices, and of all that grows with the rows.
    """
    hidden = sum(m_in * m_out for m_in, m_out in itertools.pairwise(widths))
    dense = sum(widths) * n_inputs + (widths[-1] + n_inputs) * n_outputs
    # In batches, with an average of the iterates and the best one.
    copies = 1 if n_rows <= batch_size else 3
    weights = itemsize * ((copies + keep_start) * hidden + (1 + copies + keep_start) * dense)
    # An entry of sparse rows: a value, its 2 bytes of position, and 8 of its place in the transpose.
    entries = sum(width * density for width, density in zip(widths, densities, strict=True))
    # Activations and cotangents of this iterate and some before it, by rows and partly transposed.
    dense_row = max(widths) * dense_row_bytes(itemsize, topk)
    stepping = batch_size * (4 * entries * (itemsize + 10) + dense_row)
    # Shifts are calibrated on more rows than a small batch has.
    calibrating = min(n_rows, CALIBRATION_ROWS) * (entries * (itemsize + 10) + dense_row)
    # Gram matrices: two per layer, their sum in double precision, its factor, and what leave-one-out makes of it.
    squares = batch_size**2 * ((2 * len(widths) + 4) * itemsize + 8 * 8)
    if n_factors > 1:
        squares += batch_size**2 * 8 * (n_factors + 3)
    rows = int(max(stepping, calibrating)) + n_rows * (n_inputs + n_outputs) * itemsize
    return weights, rows + squares


def dense_row_bytes(itemsize, topk):
    """Bytes per neuron of a row's pre-activations: at initialisation, and with top-k in every forward pass.

    To choose the largest takes the places of all (8 bytes), copies of the chosen ones, and 32-bit indices.
    """
    return itemsize + 16 if topk else itemsize


def require_bytes(needed, message):
    """Raise MemoryError with `message` where fewer bytes than `needed` are available."""
    available = available_bytes()
    if available is not None and needed > available:
        raise MemoryError(f"{message} {needed:,} bytes are needed and {available:,} are available.")
