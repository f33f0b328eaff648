"""Threads for work that is split into independent items.

`worker_threads` opens a pool for the length of a fit or a prediction; `for_each` finds it, wherever in
the call tree it is called, and runs inline where there is none. Meanwhile BLAS runs on one thread, but for
what `blas_threads` finds large enough: kernels and BLAS stay within one limit.

Two measurements behind this, on 2 cores. One call of joblib's threading backend takes 10 ms (it polls for
results), a hundred times a call of the executor used here, and a fit makes thousands of calls. OpenBLAS'
threads go on spinning for tens of milliseconds after every product: kernels that follow took up to twice the time.
"""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import joblib
from joblib.parallel import BACKENDS, get_active_backend
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import ThreadpoolController

# Operations of dense linear algebra from which more threads save more than their spinning costs afterwards.
_MIN_BLAS_OPERATIONS = 4e9

# The number of jobs of other backends, such as Dask's, counts the processors of a cluster.
_LOCAL_BACKENDS = tuple(
    BACKENDS[name] for name in ("loky", "multiprocessing", "sequential", "threading") if name in BACKENDS
)

# The pool, its number of threads, and whether its opener set the limit of BLAS.
_pool = ContextVar("sklearn_subquad_pool", default=(None, 1, False))


@dataclass
class _BlasUsers:
    """How many fits and predictions run, and who keeps BLAS' limit for those whose first one has left."""

    count: int = 0
    keeper: object = None


_blas_users, _blas_lock = _BlasUsers(), threading.Lock()


@functools.cache
def _controller():
    """The process's BLAS libraries; finding them takes tens of milliseconds, asking them microseconds."""
    return ThreadpoolController().select(user_api="blas")


def blas_libraries():
    """Return threadpoolctl's description of every BLAS in the process."""
    return _controller().info()


def _blas_limit():
    """Threads that BLAS may use now, hence what a caller of threadpool_limits or loky allows us."""
    limits = [library["num_threads"] for library in blas_libraries()]
    # To count processors takes longer than to ask BLAS.
    return min(limits) if limits else joblib.cpu_count()


@contextmanager
def _one_blas_thread():
    """Set BLAS to one thread, unless somebody else does already; yields whether it was us.

    BLAS' limit belongs to the process. Of fits and predictions that overlap in several threads, the one that came first
    sets it: if each restored what it had found, the last would leave one thread behind. Where the first one leaves
    before the others, a thread of its own keeps the limit for them, because only the thread that has set it may set it
    back (threadpoolctl 3.8). Without it they would compute on more threads than there are, which takes many times as
    long, and to other roundings.
    """
    users = _blas_users
    with _blas_lock:
        limit = None if users.count else _controller().limit(limits=1).__enter__()
        # Only now: what has failed before would count for ever.
        users.count += 1
    try:
        yield limit is not None
    finally:
        with _blas_lock:
            users.count -= 1
            if limit is not None:
                limit.__exit__(None, None, None)
                if users.count:
                    users.keeper = _LimitKeeper()
            elif not users.count and users.keeper is not None:
                users.keeper.end()
                users.keeper = None


class _LimitKeeper:
    """A thread that keeps BLAS on one thread, from now on until its end."""

    def __init__(self):
        self._set, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sklearn_subquad_blas", daemon=True)
        self._thread.start()
        self._set.wait()

    def _keep(self):
        with _controller().limit(limits=1):
            self._set.set()
            self._ended.wait()

    def end(self):
        self._ended.set()
        self._thread.join()


def resolve_n_jobs(n_jobs=None):
    """The number of threads that `worker_threads` uses for `n_jobs`."""
    backend, configured = get_active_backend()
    if not isinstance(backend, _LOCAL_BACKENDS):
        with joblib.parallel_config(backend="threading", n_jobs=None):
            return resolve_n_jobs(n_jobs)
    n_jobs = configured if n_jobs is None else n_jobs
    if n_jobs is None and backend.nesting_level and threading.current_thread() is not threading.main_thread():
        # A thread of a joblib pool, whose others are at work as well. Tasks of worker processes are in main threads.
        return 1
    return _blas_limit() if n_jobs is None else joblib.effective_n_jobs(n_jobs)


@contextmanager
def worker_threads(n_jobs=None):
    """Run `for_each` calls in the body on a pool of threads, and BLAS on one.

    Parameters
    ----------
    n_jobs : int or None
        Number of threads as in joblib (-1: all processors). None follows ``joblib.parallel_config`` where that
        says something, is 1 in the threads of a joblib pool, and otherwise the limit that BLAS has at the moment, so
        that ``threadpoolctl.threadpool_limits`` and joblib's worker processes govern it.
    """
    with so_many_threads(resolve_n_jobs(n_jobs)):
        yield


@contextmanager
def so_many_threads(n_threads):
    """The same for a number of threads that has been found already."""
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


def each_alone(work, items):
    """``[work(*item) for item in items]`` for items that are worth a thread each, as whole fits are, by joblib.

    They run on threads, or where the user's ``joblib.parallel_config`` says: work and items must be fit for pickle.
    Within each, `for_each` has an equal share of the threads of the pool: there are never more than it has.
    """
    _, n_threads, _ = _pool.get()
    n_workers, share = min(n_threads, len(items)), None
    if isinstance(get_active_backend()[0], _LOCAL_BACKENDS):
        share = n_threads // max(n_workers, 1)
    else:
        n_workers = None
    if n_workers == 1:
        return [work(*item) for item in items]
    return Parallel(n_workers, prefer="threads")(delayed(_alone)(share, work, item) for item in items)


def each_in_order(work, items, n_jobs):
    """What ``work(*item)`` returns for every item, one after the other, as soon as those before are there.

    They run side by side as by `each_alone`, as many as n_jobs and the user's ``joblib.parallel_config`` say. How many
    threads each has is for the work to say.
    """
    n_workers, (backend, _) = None, get_active_backend()
    if isinstance(backend, _LOCAL_BACKENDS):
        n_workers = min(resolve_n_jobs(n_jobs), len(items))
    # Of work that overlaps in threads, each would set BLAS' limit, and where the first one ends others would find
    # another limit for a moment, which other roundings come from.
    with _one_blas_thread():
        if n_workers == 1:
            yield from (work(*item) for item in items)
            return
        # multiprocessing alone has none.
        return_as = "generator" if getattr(backend, "supports_return_generator", False) else "list"
        parallel = Parallel(n_workers, prefer="threads", batch_size=1, return_as=return_as)
        yield from parallel(delayed(work)(*item) for item in items)


def _alone(n_threads, work, item):
    with worker_threads() if n_threads is None else so_many_threads(n_threads):
        return work(*item)


@contextmanager
def blas_threads(n_operations):
    """Let BLAS use all threads of the pool in the body, if so many operations are worth the spinning after."""
    _, n_threads, owns_blas = _pool.get()
    if n_threads == 1 or not owns_blas or n_operations < _MIN_BLAS_OPERATIONS:
        yield
        return
    with _controller().limit(limits=n_threads):
        yield


def for_each(work, n_items):
    """Call ``work(i)`` for every i in ``range(n_items)``, in parallel where a pool is open.

    Threads take the next item when they are done with one: items need not be of equal size, but there should be
    several per thread.
    """
    pool, n_threads, _ = _pool.get()
    n_threads = min(n_threads, n_items)
    if n_threads <= 1:
        for i in range(n_items):
            work(i)
        return
    lock, items = threading.Lock(), iter(range(n_items))

    def take_items():
        while True:
            with lock:
                i = next(items, None)
            if i is None:
                return
            work(i)

    others = [pool.submit(take_items) for _ in range(n_threads - 1)]
    try:
        take_items()
    finally:
        # Not one of them may go on writing after this call, whatever ended it.
        with lock:
            for _ in items:
                pass
        wait(others)
    for other in others:
        other.result()
