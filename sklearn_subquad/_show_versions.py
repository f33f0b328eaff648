"""Report for issues: versions, SIMD level, BLAS, threads."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from sklearn_subquad import _kernels
from sklearn_subquad._linalg.threads import blas_libraries, resolve_n_jobs

_PACKAGES = ("sklearn-subquad", "scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl")


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def show_versions() -> None:
    """Print what a report of a problem should contain: versions, SIMD level of the kernels, BLAS and threads.

    The SIMD level can be forced by the environment variable ``SKLEARN_SUBQUAD_SIMD``, which is read at import.
    """
    print("System")
    print(f"  python: {sys.version.split()[0]}")
    print(f"  machine: {platform.platform()}, {platform.machine()}")
    print("Packages")
    for package in _PACKAGES:
        print(f"  {package}: {_version(package)}")
    print("Kernels")
    print(f"  SIMD level: {_kernels.simd_level()} (this machine runs {', '.join(_kernels.simd_levels())})")
    print(f"  threads for n_jobs=None: {resolve_n_jobs()}")
    print("BLAS")
    for library in blas_libraries():
        print(f"  {library['internal_api']} {library['version']}: {library['num_threads']} threads")
