"""Threads for work that is split into independent panels.

`worker_threads` opens a pool for the length of a fit or a prediction; `for_panels` finds it, wherever in
the call tree it is called, and runs inline where there is none. Meanwhile BLAS runs on one thread, but for
what `blas_threads` finds large enough: kernels and BLAS stay within one limit.

Two measurements behind this, on 2 cores. One call of joblib's threading backend takes 10 ms (it polls for
results), a hundred times a call of the executor used here, and a fit makes thousands of calls. OpenBLAS'
threads go on spinning for tens of milliseconds after every product: kernels that follow took up to twice the time.
"""

import functools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import joblib
from threadpoolctl import ThreadpoolController

# Panels below this number are not worth handing to another thread.
_MIN_PANELS_PER_THREAD = 2
# Operations of dense linear algebra from which more threads save more than their spinning costs afterwards.
_MIN_BLAS_OPERATIONS = 4e9

# The pool, its number of threads, and whether its opener set the limit of BLAS.
_pool = ContextVar("sklearn_subquad_pool", default=(None, 1, False))
_blas_owner = threading.Lock()


@functools.cache
def _controller():
    """The process's BLAS libraries; finding them takes tens of milliseconds, asking them microseconds."""
    return ThreadpoolController().select(user_api="blas")


def _blas_limit():
    """Threads that BLAS may use now, hence what a caller of threadpool_limits or loky allows us."""
    limits = [library["num_threads"] for library in _controller().info()]
    return min(limits, default=joblib.cpu_count())


@contextmanager
def _one_blas_thread():
    """Set BLAS to one thread, unless somebody else does already; yields whether it was us.

    BLAS' limit belongs to the process. Of fits and predictions that overlap in several threads, only the one that
    came first sets it and sets it back: if each restored what it had found, the last would leave one thread behind.
    """
    if not _blas_owner.acquire(blocking=False):
        yield False
        return
    try:
        with _controller().limit(limits=1):
            yield True
    finally:
        _blas_owner.release()


@contextmanager
def worker_threads(n_jobs=None):
    """Run `for_panels` calls in the body on a pool of threads, and BLAS on one.

    Parameters
    ----------
    n_jobs : int or None
        Number of threads as in joblib (-1: all processors). None follows the limit that BLAS has at the
        moment, so that ``threadpoolctl.threadpool_limits`` and joblib's worker processes govern it.
    """
    n_threads = _blas_limit() if n_jobs is None else joblib.effective_n_jobs(n_jobs)
    # The executor starts threads only for what is submitted: with n_threads = 1 there are none.
    with (
        _one_blas_thread() as owns_blas,
        ThreadPoolExecutor(n_threads, thread_name_prefix="sklearn_subquad") as pool,
    ):
        token = _pool.set((pool, n_threads, owns_blas))
        try:
            yield
        finally:
            _pool.reset(token)


@contextmanager
def blas_threads(n_operations):
    """Let BLAS use all threads of the pool in the body, if so many operations are worth the spinning after."""
    _, n_threads, owns_blas = _pool.get()
    if n_threads == 1 or not owns_blas or n_operations < _MIN_BLAS_OPERATIONS:
        yield
        return
    with _controller().limit(limits=n_threads):
        yield


def for_panels(work, n_panels, *, triangular=False):
    """Call ``work(first, last)`` on ranges that cover ``range(n_panels)``, in parallel where a pool is open.

    The ranges are of equal work: of equal length, or, if `triangular`, for work that falls linearly to zero.
    """
    pool, n_threads, _ = _pool.get()
    n_threads = min(n_threads, n_panels // _MIN_PANELS_PER_THREAD)
    if n_threads <= 1:
        work(0, n_panels)
        return
    shares = [t / n_threads for t in range(n_threads + 1)]
    if triangular:
        shares = [1 - math.sqrt(1 - share) for share in shares]
    bounds = [round(n_panels * share) for share in shares]
    others = [pool.submit(work, *bounds[t : t + 2]) for t in range(1, n_threads)]
    work(*bounds[:2])
    for other in others:
        other.result()
