"""How much memory a fit takes, and whether there is so much."""

import itertools
import os
import pathlib
from dataclasses import dataclass

from scipy.sparse import issparse

# Rows of a step up to which n x n matrices are formed without being asked for. Beyond, rows are linearised in blocks of
# so many, where nobody asks for the Gram matrix of all.
MAX_SQUARE_ROWS = 8192
# Where batches are smaller, the first damping is found on so many rows, or all.
MIN_DAMPING_ROWS = 512
# Rows on which shifts and gains are calibrated and densities measured, where there are more.
CALIBRATION_ROWS = 4096
# Rows whose Jacobian is sketched at a time, for the covariance of predictions.
COVARIANCE_BLOCK_ROWS = 1024
_MEMINFO = pathlib.Path("/proc/meminfo")
# Limits of a container and what it uses: cgroups, version 2 and 1, at the root of what is mounted.
_CGROUPS = (
    (pathlib.Path("/sys/fs/cgroup/memory.max"), pathlib.Path("/sys/fs/cgroup/memory.current")),
    (
        pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        pathlib.Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
# In which groups the process is.
_OWN_CGROUPS = pathlib.Path("/proc/self/cgroup")


def available_bytes():
    """Bytes that the process can still allocate without swapping, or None where the system does not say."""
    known = _of_machine() + [left for pair in _CGROUPS for left in _of_groups(*pair)]
    return max(0, min(known)) if known else None


def _of_machine():
    """Bytes that the machine has to give, in a list; empty where it does not say."""
    try:
        lines = _MEMINFO.read_text().splitlines()
        return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pages = getattr(os, "sysconf_names", {}).get("SC_PHYS_PAGES")
        return [] if pages is None else [os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")]
    except (ValueError, IndexError):
        return []


def _of_groups(limit, usage):
    """Bytes that a mounted hierarchy of cgroups leaves to the process: one number for each group that has a limit."""
    root = limit.parent
    own = _own_group(limit.name)
    # A container without a namespace of its own sees itself by a path that is not below its mount. What is there under
    # the names of its ancestors are other groups, so that the root alone counts, which is the container's.
    groups = [own, *own.parents] if os.path.isdir(root / own) else [pathlib.PurePath()]
    for group in groups:
        folder = root / group
        try:
            most, used = (int((folder / path.name).read_text()) for path in (limit, usage))
        except (OSError, ValueError):
            # No such group, or no limit ("max").
            continue
        yield min(most, most - used + _page_cache_bytes(folder / "memory.stat"))


def _own_group(limit_name):
    """The group of the process, as a path relative to the mount of the hierarchy whose limits have that name."""
    controller = "memory" if limit_name == "memory.limit_in_bytes" else ""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        # Number of the hierarchy, its controllers (version 2: none), and the path, which may hold colons.
        _, *fields = line.split(":", 2)
        if len(fields) == 2 and controller in fields[0].split(",") and ".." not in fields[1].split("/"):
            # ".." leads to a group outside of the namespace, of which nothing is mounted.
            return pathlib.PurePath(fields[1].lstrip("/"))
    return pathlib.PurePath()


def _page_cache_bytes(stat):
    """Bytes of files in memory that a group uses and gives back where others need them; 0 where it does not say."""
    found = {}
    try:
        for line in stat.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name.removeprefix("total_") in ("inactive_file", "active_file"):
                found[name] = int(value)
    except (OSError, ValueError):
        return 0
    # Version 1 counts the groups below apart, which its usage contains; version 2 always counts them.
    return max(0, sum(found.get(f"total_{name}", found.get(name, 0)) for name in ("inactive_file", "active_file")))


@dataclass(frozen=True)
class FitSize:
    """What decides how much memory a fit takes, and how much that is by the budget of doc/architecture.md.

    Attributes
    ----------
    widths, densities : tuple
        Per hidden layer.
    n_rows, rows_of_a_step : int
        The first is larger where a fit is in batches.
    n_inputs, n_outputs : int
    itemsize : int
        Bytes of a number.
    keep_start : bool
        Whether the change of the weights is kept apart from their start.
    topk : bool
        Whether active neurons are chosen from a whole row.
    forms_gram : bool
        Whether the Gram matrix of a step's rows is formed.
    sketch_size : int
        Columns of the sketch that a step makes of its rows, 0 without one.
    n_factors : int
        Outputs with a factorisation of their own; 0 where their curvatures differ and one has to serve all.
    covariance_size : int
        Columns of the sketch in whose space the covariance of predictions is, 0 without one.
    n_validation_rows : int
        Rows that are not fitted and no part of `n_rows`.
    """

    widths: tuple
    densities: tuple
    n_rows: int
    rows_of_a_step: int
    n_inputs: int
    n_outputs: int
    itemsize: int
    keep_start: bool = False
    topk: bool = False
    forms_gram: bool = True
    sketch_size: int = 0
    n_factors: int = 1
    covariance_size: int = 0
    n_validation_rows: int = 0

    @property
    def weight_bytes(self):
        """Bytes of all copies of the weight matrices."""
        hidden = sum(m_in * m_out for m_in, m_out in itertools.pairwise(self.widths))
        dense = sum(self.widths) * self.n_inputs + (self.widths[-1] + self.n_inputs) * self.n_outputs
        # In batches, with an average of the iterates and the best one.
        copies = 1 if self.n_rows == self.rows_of_a_step else 3
        copies += self.keep_start
        # J J^T of blocks of rows goes through a dense change of the weights.
        folded = not self.forms_gram and self.rows_of_a_step > MAX_SQUARE_ROWS
        # A step changes copies of the dense parts.
        return self.itemsize * ((copies + folded) * hidden + (1 + copies) * dense)

    @property
    def _largest_step(self):
        """Rows of the largest step, which may be one that is tried only."""
        return max(self.rows_of_a_step, min(self.n_rows, MIN_DAMPING_ROWS))

    @property
    def row_bytes(self):
        """Bytes of all that grows with the rows."""
        n = self._largest_step
        # An entry of sparse rows: a value, its 2 bytes of position, and 8 of its place in the transpose.
        entries = sum(width * density for width, density in zip(self.widths, self.densities, strict=True))
        entry = self.itemsize + 10
        # Activations and cotangents of this iterate and some before it, by rows and partly transposed.
        dense_row = max(self.widths) * dense_row_bytes(self.itemsize, self.topk)
        stepping = n * 4 * entries * entry + min(n, MAX_SQUARE_ROWS) * dense_row
        # Shifts are calibrated on more rows than a small batch has.
        calibrating = min(self.n_rows, CALIBRATION_ROWS) * (entries * entry + dense_row)
        data = (self.n_inputs + self.n_outputs) * self.itemsize
        data *= self.n_rows + self.n_validation_rows
        # Numbers per row and output: of the inner solver, and in double precision of the model that it leaves. Besides,
        # places of rows in patterns, norms, weights.
        solving = n * (self.n_outputs * (10 * self.itemsize + 4 * 8) + 200)
        if self.n_factors == 0:
            # Iterations within those of the inner solver, which keeps one residual more.
            solving += n * self.n_outputs * 7 * self.itemsize
        fitting = max(stepping, calibrating) + solving + self._square_bytes()
        # What a step has held is free when the covariance is made.
        return int(max(fitting, self._covariance_bytes(entries * entry, dense_row))) + data

    def _covariance_bytes(self, activation_row, dense_row):
        """Bytes that finding the covariance of predictions takes, given those of a row's activations."""
        block, size = min(self.n_rows, COVARIANCE_BLOCK_ROWS), self.covariance_size
        if size == 0:
            return 0
        # Activations and the cotangents of up to three probes; features in both precisions.
        linearising = block * (4 * activation_row + dense_row + size * (self.itemsize + 8))
        # Features of rows that are left out, turned and squared; residuals.
        leaving_out = min(self.n_rows, CALIBRATION_ROWS) * 8 * (3 * size + 3 * self.n_outputs)
        # The normal matrix, its eigenvectors, and what LAPACK takes for them.
        return linearising + leaving_out + 8 * size * (5 * size + 2 * self.n_outputs)

    def _square_bytes(self):
        """Bytes of matrices of rows x rows, and of sketches."""
        n, factored = self.rows_of_a_step, 0 if self.n_factors == 1 else self.n_factors + 3
        # Two per layer; their sum in double precision, its factor, and what leave-one-out makes of it.
        of_layers, of_the_sum = (2 * len(self.widths) + 4) * self.itemsize, 8 * 8
        n_bytes = 0
        if self.forms_gram or n <= MAX_SQUARE_ROWS:
            n_bytes += n**2 * of_layers
        if self.forms_gram:
            n_bytes += n**2 * (of_the_sum + 8 * factored)
        if self.sketch_size:
            smaller = min(n, self.sketch_size)
            n_bytes += 2 * n * self.sketch_size * self.itemsize + smaller**2 * 8 * (4 + factored)
        if self._largest_step > n:
            n_bytes = max(n_bytes, self._largest_step**2 * (of_layers + of_the_sum))
        return n_bytes


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


def densified(X):
    """Validated features as an array; MemoryError where there is no room for what a sparse matrix leaves out."""
    if not issparse(X):
        return X
    n_bytes = X.shape[0] * X.shape[1] * X.dtype.itemsize
    require_bytes(
        n_bytes,
        f"X is sparse, and its {X.shape[0]} rows of {X.shape[1]} features are made dense for the fit; use fewer of "
        "either, or reduce the features by sklearn.decomposition.TruncatedSVD.",
    )
    return X.toarray()
