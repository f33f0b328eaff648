import os
import threading
import time

import joblib
import numpy as np
import pytest
import threadpoolctl
from joblib.parallel import ParallelBackendBase
from sklearn import config_context, get_config

from sklearn_subquad._linalg import threads
from sklearn_subquad._linalg.columnwise import ColumnwiseSum, sparse_term
from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix, row_gram_columns, row_products, symmetric, times_dense
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._linalg.threads import blas_threads as large_work
from sklearn_subquad._linalg.threads import each_alone, for_each, resolve_n_jobs, worker_threads

# Longer than any thread needs to get going; only a failing test waits as long.
TIMEOUT = 30


def items_of(n_items):
    """The items that `for_each` calls for, in order, and the threads that ran them."""
    calls = []
    for_each(lambda i: calls.append((i, threading.get_ident())), n_items)
    calls.sort()
    return [item for item, _ in calls], {thread for _, thread in calls}


def assert_threads_at_work(n_threads):
    """So many threads work at the same time: each with its first item waits for the others with theirs."""
    barrier, seen = threading.Barrier(n_threads, timeout=TIMEOUT), set()

    def work(i):
        thread = threading.get_ident()
        if thread not in seen:
            seen.add(thread)
            barrier.wait()

    for_each(work, 20)
    assert len(seen) == n_threads


def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def blas_limit_of_two():
    with threadpoolctl.threadpool_limits(2):
        yield


class TestForEach:
    @pytest.mark.parametrize("n_items", [0, 1, 2, 3, 4, 5, 64, 1001])
    @pytest.mark.parametrize("n_jobs", [1, 2, 3, 4])
    def test_every_item_is_worked_on_once(self, n_jobs, n_items):
        with worker_threads(n_jobs):
            items, threads = items_of(n_items)
        assert items == list(range(n_items))
        assert len(threads) <= min(n_jobs, n_items)

    def test_items_run_at_the_same_time(self):
        # No thread gets past the barrier alone.
        barrier = threading.Barrier(3, timeout=TIMEOUT)
        with worker_threads(3):
            for_each(lambda i: barrier.wait(), 3)

    def test_a_long_item_does_not_hold_up_the_others(self):
        others_done, n_done, lock = threading.Event(), 0, threading.Lock()

        def work(i):
            nonlocal n_done
            if i == 0:
                assert others_done.wait(TIMEOUT)
                return
            with lock:
                n_done += 1
                if n_done == 99:
                    others_done.set()

        with worker_threads(2):
            for_each(work, 100)

    @pytest.mark.parametrize("n_jobs", [1, None])
    def test_one_thread_works_inline_and_in_order(self, n_jobs):
        items = []
        with threadpoolctl.threadpool_limits(1), worker_threads(n_jobs):
            assert items_of(100)[1] == {threading.get_ident()}
            for_each(items.append, 100)
        assert items == list(range(100))

    def test_without_a_pool_work_runs_inline(self):
        assert items_of(100) == (list(range(100)), {threading.get_ident()})

    def test_a_single_item_runs_inline(self):
        with worker_threads(4):
            assert items_of(1) == ([0], {threading.get_ident()})

    def test_inner_block_of_one_thread_runs_inline(self):
        with worker_threads(2):
            with worker_threads(1):
                assert items_of(100)[1] == {threading.get_ident()}
            assert_threads_at_work(2)

    @pytest.mark.parametrize("n_jobs", [2, 4])
    def test_work_inside_an_item_is_done_once(self, n_jobs):
        inner, threads_of = [], {}

        def work(i):
            threads_of[i] = set()

            def work_inside(k):
                inner.append((i, k))
                threads_of[i].add(threading.get_ident())

            for_each(work_inside, 10)
            if threading.current_thread() is not threading.main_thread():
                # The threads of the pool do not wait for each other.
                assert threads_of[i] == {threading.get_ident()}

        with worker_threads(n_jobs):
            for_each(work, 20)
        assert sorted(inner) == [(i, k) for i in range(20) for k in range(10)]

    def test_results_written_by_the_items_are_complete_on_return(self):
        out = np.zeros(1000)

        def work(i):
            out[i] += i

        with worker_threads(4):
            for_each(work, 1000)
        np.testing.assert_array_equal(out, np.arange(1000))


@pytest.mark.parametrize(("backend", "expected"), [("threading", 1), ("sequential", 3)])
def test_threads_of_a_pool_take_one_each(backend, expected):
    """Unless they are told otherwise; a sequential backend is no pool."""

    def threads(n_jobs):
        return resolve_n_jobs(n_jobs)

    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        found = joblib.Parallel(2, backend=backend)(joblib.delayed(threads)(n_jobs) for n_jobs in (None, 2, None))
    assert found == [expected, 2, expected]


class Interrupted:
    """Work on 200 items that is ended by an exception, in the calling thread or in one of the pool.

    Every thread has its first item when it is raised, and the others are in the middle of theirs.
    """

    N_ITEMS = 200

    def __init__(self, error, in_calling_thread, n_jobs):
        self.error, self.in_calling_thread = error, in_calling_thread
        self.started, self.finished, self.lock = [], [], threading.Lock()
        self.all_started, self.raising = threading.Barrier(n_jobs, timeout=TIMEOUT), threading.Event()
        self.seen, self.failed = set(), False

    def __call__(self, i):
        thread = threading.current_thread()
        with self.lock:
            self.started.append(i)
            first, self.seen = thread not in self.seen, self.seen | {thread}
        if first:
            self.all_started.wait()
        with self.lock:
            mine = not self.failed and self.in_calling_thread == (thread is threading.main_thread())
            self.failed = self.failed or mine
        if mine:
            self.raising.set()
            raise self.error
        assert self.raising.wait(TIMEOUT)
        if first or self.in_calling_thread:
            # Long enough for the exception to get out, were it not for those who are still at work.
            time.sleep(0.01)
        with self.lock:
            self.finished.append(i)


class TestExceptions:
    @pytest.mark.parametrize("n_jobs", [2, 4])
    @pytest.mark.parametrize("in_calling_thread", [True, False])
    @pytest.mark.parametrize("error", [ArithmeticError("no such number"), KeyboardInterrupt(), SystemExit()], ids=repr)
    def test_no_thread_writes_after_an_exception(self, error, in_calling_thread, n_jobs):
        work = Interrupted(error, in_calling_thread, n_jobs)
        with worker_threads(n_jobs):
            with pytest.raises(type(error)) as raised:
                for_each(work, work.N_ITEMS)
            started, finished = list(work.started), list(work.finished)
            # Whoever had started has finished, but for the one that failed.
            assert len(finished) == len(started) - 1
            # The pool is still of use.
            assert_threads_at_work(n_jobs)
        assert raised.value is error
        assert (work.started, work.finished) == (started, finished)

    @pytest.mark.parametrize("n_jobs", [2, 4])
    def test_an_interrupted_caller_lets_no_new_item_begin(self, n_jobs):
        work = Interrupted(KeyboardInterrupt(), True, n_jobs)
        with worker_threads(n_jobs), pytest.raises(KeyboardInterrupt):
            for_each(work, work.N_ITEMS)
        # A thread may have taken another item before the caller could stop them, not two hundred.
        assert len(work.started) < work.N_ITEMS

    @pytest.mark.parametrize("failing", [0, 1, 50, 99])
    @pytest.mark.parametrize("n_jobs", [1, 4])
    def test_the_exception_of_any_item_reaches_the_caller(self, n_jobs, failing):
        def work(i):
            if i == failing:
                raise ArithmeticError(f"item {i}")

        with worker_threads(n_jobs):
            with pytest.raises(ArithmeticError, match=f"item {failing}$"):
                for_each(work, 100)
            assert items_of(100)[0] == list(range(100))

    def test_inline_work_ends_at_an_exception(self):
        done = []

        def work(i):
            if i == 3:
                raise KeyboardInterrupt
            done.append(i)

        with pytest.raises(KeyboardInterrupt):
            for_each(work, 10)
        assert done == [0, 1, 2]

    def test_exceptions_in_every_thread_are_one_to_the_caller(self):
        with worker_threads(4), pytest.raises(ZeroDivisionError):
            for_each(lambda i: 1 / 0, 100)


class TestWorkerThreads:
    def test_default_follows_the_limit_of_blas(self, blas_limit_of_two):
        with worker_threads():
            assert_threads_at_work(2)

    def test_default_follows_the_number_of_jobs_of_joblib(self, blas_limit_of_two):
        with joblib.parallel_config("threading", n_jobs=3), worker_threads():
            assert_threads_at_work(3)

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_blas_has_one_thread_and_then_its_old_limit(self, n_jobs, blas_limit_of_two):
        before = blas_threads()
        with worker_threads(n_jobs):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before

    @pytest.mark.parametrize(("n_jobs", "n_operations", "allowed"), [(2, 1e12, 2), (2, 1e6, 1), (1, 1e12, 1)])
    def test_blas_has_all_threads_for_large_work_only(self, n_jobs, n_operations, allowed, blas_limit_of_two):
        with worker_threads(n_jobs):
            with large_work(n_operations):
                assert set(blas_threads()) == {allowed}
            assert set(blas_threads()) == {1}

    def test_large_work_without_a_pool_leaves_the_limit_alone(self, blas_limit_of_two):
        before = blas_threads()
        with large_work(1e12):
            assert blas_threads() == before

    @pytest.mark.parametrize("n_overlapping", [2, 8])
    def test_overlapping_blocks_in_threads_leave_the_limit_as_it_was(self, n_overlapping, blas_limit_of_two):
        before = blas_threads()
        entered, leave = threading.Barrier(n_overlapping + 1, timeout=TIMEOUT), threading.Event()

        def other():
            with worker_threads():
                entered.wait()
                leave.wait()

        others = [threading.Thread(target=other) for _ in range(n_overlapping)]
        with worker_threads(2):
            for thread in others:
                thread.start()
            entered.wait()
        leave.set()
        for thread in others:
            thread.join()
        assert blas_threads() == before

    def test_those_that_stay_longer_than_the_first_keep_one_thread(self):
        """Only where no caller limits BLAS: threadpoolctl then lets no other thread do so."""
        before = blas_threads()
        if max(before) == 1:
            pytest.skip("BLAS has one thread here in any case.")
        entered, leave = threading.Barrier(2, timeout=TIMEOUT), threading.Event()

        def other():
            with worker_threads():
                entered.wait()
                leave.wait()

        thread = threading.Thread(target=other)
        with worker_threads(2):
            thread.start()
            entered.wait()
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
        with worker_threads(2):
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
        leave.set()
        thread.join()
        assert blas_threads() == before
        assert not [thread for thread in threading.enumerate() if thread.name == "sklearn_subquad_blas"]

    @pytest.mark.parametrize("n_jobs", [1, 3])
    def test_blas_limit_is_restored_after_an_exception(self, n_jobs, blas_limit_of_two):
        before = blas_threads()
        with pytest.raises(ZeroDivisionError), worker_threads(n_jobs):
            for_each(lambda i: 1 / 0, 100)
        assert blas_threads() == before

    def test_pool_ends_with_the_block_even_after_an_exception(self):
        n_threads = threading.active_count()
        with pytest.raises(ZeroDivisionError), worker_threads(3):
            for_each(lambda i: 1 / 0, 100)
        assert items_of(100)[1] == {threading.get_ident()}
        assert threading.active_count() == n_threads


@pytest.mark.parametrize("density", [0.01, 0.04, 0.4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_number_of_threads_does_not_change_a_bit_of_any_result(dtype, density, sparse_rows):
    rng = np.random.default_rng(0)
    # More than a chunk of rows, and more groups of columns than threads on both sides.
    n, m_in, m_out, rank, d = 530, 1100, 1300, 90, 7
    narrow = 65

    def rows(n_rows, n_columns):
        return SparseRows.from_csr(sparse_rows(rng, n_rows, n_columns, density, dtype))

    def dense(*shape):
        return rng.standard_normal(shape).astype(dtype)

    inputs, outputs, U, G = rows(n, m_in), rows(n, m_out), rows(rank, m_out), rows(rank, m_in)
    W, few = dense(m_out, m_in), PackedMatrix.from_dense(dense(narrow, m_in))
    A, B, C, P = dense(n, d), dense(d, m_out), dense(m_in, narrow), PackedMatrix.from_dense(dense(n, rank))

    def results(n_jobs):
        packed = PackedMatrix.from_dense(W)
        arrays = {}
        with worker_threads(n_jobs):
            # Anew each time, because rows remember their transposed pattern.
            fresh_U, fresh_G = (SparseRows(rows.pattern, rows.values) for rows in (U, G))
            terms = [lambda out, first: packed.add_forward(inputs, out, first), sparse_term(P, fresh_U)]
            products = ColumnwiseSum((n, m_out), dtype, (A, B), terms)
            selected = products.select(0.5, 2.0, density)
            arrays["dense"] = products.dense()
            arrays["selected values"] = selected.values
            arrays["selected places"] = selected.to_csr().indices
            arrays["on_pattern"] = products.on_pattern(outputs, 0.5).values
            arrays["forward"] = packed.forward(inputs)
            arrays["forward, narrow"] = few.forward(inputs)
            arrays["backward"] = packed.backward(outputs)
            arrays["row_products"] = row_products(inputs, fresh_G).tiles
            arrays["gram"] = symmetric(n, dtype, lambda first, last: row_gram_columns(inputs, first, last))
            arrays["times_dense"] = times_dense(inputs, C)
            arrays["transposed"] = SparseRows(inputs.pattern, inputs.values).transposed().values
            for route in ROUTES:
                packed.add_product(fresh_U, fresh_G, route)
                arrays[route] = packed.tiles.copy()
        return arrays

    expected = results(1)
    for n_jobs in (2, 4):
        for name, array in results(n_jobs).items():
            assert array.tobytes() == expected[name].tobytes(), f"{name} with n_jobs={n_jobs}"


@pytest.mark.parametrize(("n_jobs", "n_items"), [(1, 3), (2, 3), (3, 2), (4, 2), (5, 2), (4, 1)])
def test_items_that_run_alone_share_the_threads(n_jobs, n_items):
    """Never more threads than the pool has, the caller's configuration, BLAS on one thread, and every item once."""
    lock, running, most, blas = threading.Lock(), set(), [0], set()

    def inner(_):
        with lock:
            running.add(threading.get_ident())
            most[0] = max(most[0], len(running))
            blas.update(library["num_threads"] for library in threads.blas_libraries())
        time.sleep(0.002)
        with lock:
            running.discard(threading.get_ident())

    def item(i, name):
        assert get_config()["working_memory"] == 7
        for_each(inner, 6)
        return i, name

    items = [(i, f"item {i}") for i in range(n_items)]
    with worker_threads(n_jobs), config_context(working_memory=7):
        assert each_alone(item, items) == items
    assert most[0] <= n_jobs
    assert blas == {1}


class OfACluster(ParallelBackendBase):
    """Workers elsewhere: joblib takes it for none of its own backends."""

    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs):
        return 3 if n_jobs in (None, -1) else n_jobs

    def submit(self, func, callback=None):
        result = func()
        callback(result)
        return result

    def retrieve_result_callback(self, out):
        return out


def process_and_threads(_):
    return os.getpid(), threads._pool.get()[1]


@pytest.mark.parametrize(
    ("backend", "n_jobs", "others"),
    [("loky", 2, True), ("loky", 1, False), ("threading", 2, False), ("cluster", 3, False)],
)
def test_items_run_alone_where_joblib_is_told(backend, n_jobs, others):
    """In processes of their own, if so configured; a cluster's workers ask BLAS, which here is limited already."""
    joblib.register_parallel_backend("cluster", OfACluster)
    with joblib.parallel_config(backend, n_jobs=n_jobs), worker_threads(n_jobs):
        found = each_alone(process_and_threads, [(0,), (1,), (2,)])
    assert [(pid != os.getpid(), n_threads) for pid, n_threads in found] == [(others, 1)] * 3


def test_an_item_that_fails_alone_ends_all_and_leaves_the_pool_as_it_was():
    def failing(i):
        if i == 1:
            raise ValueError("item 1")

    with worker_threads(2):
        with pytest.raises(ValueError, match="item 1"):
            each_alone(failing, [(i,) for i in range(4)])
        assert threads._pool.get()[1] == 2


def test_nobody_has_to_keep_the_limit_of_blas_for_work_in_order():
    """Where the first of two threads ends, the other one still finds the limit that was set before both."""
    first_ended, users = threading.Event(), threads._blas_users

    def work(number):
        with threads.so_many_threads(1):
            if number:
                assert first_ended.wait(TIMEOUT)
                return users.keeper, max(library["num_threads"] for library in threads.blas_libraries())
        return None

    with joblib.parallel_config("threading", n_jobs=2):
        returned = threads.each_in_order(work, [(0,), (1,)], None)
        assert next(returned) is None
        first_ended.set()
        assert next(returned) == (None, 1)
        returned.close()
