"""What every result file names: the commit, the machine in words, and the versions."""

import os
import pathlib
import platform
import subprocess

import numpy as np

HERE = pathlib.Path(__file__).resolve().parents[1]


def commit():
    """The commit that is checked out, with "-dirty" where programs differ from it, or "unknown" outside a checkout."""
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":/!benchmarks/results", ":/!doc")
        return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments):
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def machine():
    """The machine in words, and the versions."""
    import scipy
    import sklearn
    from threadpoolctl import threadpool_info

    from sklearn_subquad import __version__, _kernels
    from sklearn_subquad._linalg.threads import resolve_n_jobs

    blas = sorted({f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"})
    return (
        f"{resolve_n_jobs()} cores, {platform.machine()}, kernels at SIMD level {_kernels.simd_level()}, "
        f"{', '.join(blas)}, Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, sklearn_subquad {__version__}"
    )


def print_provenance():
    """One line at the head of what a benchmark prints. The load says whether others used the machine as it began."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"commit {commit()}; {machine()}; load at the start {load}", flush=True)
