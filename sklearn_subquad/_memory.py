"""Memory that the machine has to give."""

import os
import pathlib

from scipy.sparse import issparse

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
        f"X is sparse, and its {X.shape[0]} rows of {X.shape[1]} features are made dense, because this model of an "
        "earlier version has a metric; pass fewer rows, or fit it again.",
    )
    return X.toarray()
