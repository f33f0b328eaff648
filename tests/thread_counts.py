"""How many threads work for this process, and how many BLAS may use, while something runs."""

import contextlib
import threading

from threadpoolctl import threadpool_info


@contextlib.contextmanager
def thread_counts():
    """A list to which counts are added every millisecond in the body: of this package's threads, and of BLAS."""
    counts, done = [], threading.Event()

    def watch():
        while not done.wait(0.001):
            counts.append(sum(t.name.startswith("sklearn_subquad") for t in threading.enumerate()))
            counts.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield counts
    finally:
        done.set()
        watcher.join()
