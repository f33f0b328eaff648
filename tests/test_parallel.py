import threading

import numpy as np
import pytest
import threadpoolctl

from sklearn_subquad._parallel import blas_threads as large_work
from sklearn_subquad._parallel import for_panels, worker_threads


def ranges_of(n_panels):
    """The ranges that `for_panels` calls for, in order, and the threads that ran them."""
    calls = []
    for_panels(lambda first, last: calls.append((first, last, threading.get_ident())), n_panels)
    calls.sort()
    return [call[:2] for call in calls], {call[2] for call in calls}


def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def blas_limit_of_two():
    with threadpoolctl.threadpool_limits(2):
        yield


@pytest.mark.parametrize("n_panels", [0, 1, 2, 3, 4, 5, 7, 8, 64, 1001])
@pytest.mark.parametrize("n_jobs", [1, 2, 3, 4])
def test_every_panel_is_worked_on_once(n_jobs, n_panels):
    with worker_threads(n_jobs):
        ranges, _ = ranges_of(n_panels)
    covered = [panel for first, last in ranges for panel in range(first, last)]
    assert covered == list(range(n_panels))


@pytest.mark.parametrize(("n_jobs", "n_panels", "n_ranges"), [(1, 100, 1), (2, 100, 2), (4, 100, 4)])
def test_many_panels_make_one_range_a_thread(n_jobs, n_panels, n_ranges):
    with worker_threads(n_jobs):
        ranges, _ = ranges_of(n_panels)
    assert len(ranges) == n_ranges
    sizes = [last - first for first, last in ranges]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("n_panels", [0, 1, 2, 3])
def test_few_panels_are_not_shared(n_panels):
    with worker_threads(4):
        assert ranges_of(n_panels) == ([(0, n_panels)], {threading.get_ident()})


def test_ranges_run_at_the_same_time():
    # Neither side gets past the barrier alone.
    barrier = threading.Barrier(2, timeout=30)
    with worker_threads(2):
        for_panels(lambda first, last: barrier.wait(), 10)


@pytest.mark.parametrize("n_jobs", [1, None])
def test_no_pool_is_opened_for_one_thread(n_jobs):
    with threadpoolctl.threadpool_limits(1), worker_threads(n_jobs):
        assert ranges_of(100) == ([(0, 100)], {threading.get_ident()})


def test_without_a_pool_work_runs_inline():
    assert ranges_of(100) == ([(0, 100)], {threading.get_ident()})


def test_default_follows_the_limit_of_blas(blas_limit_of_two):
    with worker_threads():
        assert len(ranges_of(100)[0]) == 2


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_blas_has_one_thread_and_then_its_old_limit(n_jobs, blas_limit_of_two):
    before = blas_threads()
    with worker_threads(n_jobs):
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


@pytest.mark.parametrize(("n_jobs", "n_operations", "allowed"), [(2, 1e12, 2), (2, 1e6, 1), (1, 1e12, 1)])
def test_blas_has_all_threads_for_large_work_only(n_jobs, n_operations, allowed, blas_limit_of_two):
    with worker_threads(n_jobs):
        with large_work(n_operations):
            assert set(blas_threads()) == {allowed}
        assert set(blas_threads()) == {1}


@pytest.mark.parametrize("n_overlapping", [2, 8])
def test_overlapping_blocks_in_threads_leave_the_limit_as_it_was(n_overlapping, blas_limit_of_two):
    before = blas_threads()
    entered, leave = threading.Barrier(n_overlapping + 1), threading.Event()

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


def test_blas_limit_is_restored_after_an_exception(blas_limit_of_two):
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), worker_threads(1):
        for_panels(lambda first, last: 1 / 0, 100)
    assert blas_threads() == before


def test_pool_ends_with_the_block_even_after_an_exception():
    n_threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), worker_threads(3):
        for_panels(lambda first, last: 1 / 0, 100)
    assert ranges_of(100) == ([(0, 100)], {threading.get_ident()})
    assert threading.active_count() == n_threads


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_exception_in_any_range_reaches_the_caller(failing):
    def work(first, last):
        if first == 25 * failing:
            raise ArithmeticError(f"range {failing}")

    with worker_threads(4):
        with pytest.raises(ArithmeticError, match=f"range {failing}"):
            for_panels(work, 100)
        # The pool is still of use.
        assert len(ranges_of(100)[0]) == 4


def test_inner_block_of_one_thread_runs_inline():
    with worker_threads(2):
        with worker_threads(1):
            assert ranges_of(100)[0] == [(0, 100)]
        assert len(ranges_of(100)[0]) == 2


def test_work_inside_a_worker_runs_inline():
    inner = []

    def work(first, last):
        if first > 0:
            for_panels(lambda a, b: inner.append((a, b)), 100)

    with worker_threads(2):
        for_panels(work, 10)
    assert inner == [(0, 100)]


def test_results_written_by_the_ranges_are_complete_on_return():
    out = np.zeros(1000)

    def work(first, last):
        out[first:last] += np.arange(first, last)

    with worker_threads(4):
        for_panels(work, 1000)
    np.testing.assert_array_equal(out, np.arange(1000))


def test_triangular_ranges_cover_everything_with_equal_work():
    with worker_threads(4):
        ranges = []
        for_panels(lambda first, last: ranges.append((first, last)), 1000, triangular=True)
    ranges.sort()
    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
    assert ranges[-1][1] == 1000
    work = [sum(1000 - p for p in range(*bounds)) for bounds in ranges]
    assert max(work) < 1.02 * min(work)
