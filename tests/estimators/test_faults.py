"""Whatever call of a fit fails, the estimator is unfitted, and it and the process can go on."""

import contextlib
import gc
import inspect
import pathlib
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_info, threadpool_limits

import sklearn_subquad
from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

PACKAGE = str(pathlib.Path(sklearn_subquad.__file__).parent)
GENERATOR = inspect.CO_GENERATOR
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((24, 3)), RNG.standard_normal(24)
# Of the ways that a fit can take, those that differ most.
WAYS = {
    "leave-one-out": {"early_stopping": "loo"},
    "validation": {"early_stopping": "validation", "sparsifier": "topk", "init": "gaussian"},
    "batches": {"batch_size": 8, "preconditioner": "sketch", "init": "gaussian"},
    "inner iterations": {"early_stopping": False, "preconditioner": "none"},
}
over_ways = pytest.mark.parametrize("way", WAYS)


class FaultError(Exception):
    """Raised by nothing else."""


@contextlib.contextmanager
def fault_at(number, error):
    """Raise `error` in the place of a call that the package makes, the numbered one; yields the count of calls.

    Calls of Python functions, and of compiled ones, such as those that allocate arrays, factor matrices or take locks.
    Generators are left alone: Python drops what is raised while it closes one.
    """
    calls = [0]

    def on_event(frame, event, called):
        code = frame.f_code
        if event in ("call", "c_call") and code.co_filename.startswith(PACKAGE) and not code.co_flags & GENERATOR:
            calls[0] += 1
            if calls[0] == number:
                raise error

    previous = sys.getprofile()
    sys.setprofile(on_event)
    try:
        yield calls
    finally:
        sys.setprofile(previous)


def make(estimator_class, way):
    return estimator_class(hidden_layer_sizes=(8, 8), max_iter=2, n_folds=1, random_state=0, n_jobs=1, **WAYS[way])


def targets(estimator_class):
    return Y if estimator_class is SubquadMLPRegressor else (Y > 0) + 0


_REFERENCES = {}


def reference(estimator_class, way):
    """Number of calls of a fit, and what it predicts."""
    if (estimator_class, way) not in _REFERENCES:
        # A first fit measures the machine, which later ones do not.
        make(estimator_class, way).fit(X, targets(estimator_class))
        model = make(estimator_class, way)
        with fault_at(-1, None) as calls:
            model.fit(X, targets(estimator_class))
        _REFERENCES[estimator_class, way] = calls[0], model.predict(X)
    return _REFERENCES[estimator_class, way]


def blas_threads():
    return [library["num_threads"] for library in threadpool_info()]


@BOTH
@over_ways
@settings(max_examples=8)
@given(share=st.floats(0, 0.95), error=st.sampled_from([MemoryError, KeyboardInterrupt, FaultError]))
def test_a_failing_call_leaves_the_estimator_unfitted_and_usable(estimator_class, way, share, error):
    n_calls, expected = reference(estimator_class, way)
    y = targets(estimator_class)
    model = make(estimator_class, way).fit(X[:, :2], y)
    before = model.predict(X[:, :2])
    with threadpool_limits(2):
        threads = blas_threads()
        # Not the very last ones: how many there are depends a little on measured times.
        number = 1 + int(share * n_calls)
        with pytest.raises(error), fault_at(number, error):
            model.fit(X, y)
        assert blas_threads() == threads
    if hasattr(model, "coefs_"):
        # The first calls look at parameters, before the fit begins.
        np.testing.assert_array_equal(model.predict(X[:, :2]), before)
    else:
        with pytest.raises(NotFittedError):
            model.predict(X)
    np.testing.assert_array_equal(model.fit(X, y).predict(X), expected)


@BOTH
@over_ways
@pytest.mark.parametrize("routine", ["numpy.linalg.eigh", "scipy.linalg.cholesky", "scipy.linalg.solve_triangular"])
def test_a_failing_factorisation_is_an_error_or_no_step(estimator_class, way, routine, monkeypatch):
    def failing(*args, **kwargs):
        raise np.linalg.LinAlgError("no convergence")

    _, expected = reference(estimator_class, way)
    model = make(estimator_class, way)
    with monkeypatch.context() as patch:
        patch.setattr(routine, failing)
        with contextlib.suppress(np.linalg.LinAlgError):
            model.fit(X, targets(estimator_class))
        if hasattr(model, "coefs_"):
            assert np.isfinite(model.predict(X)).all()
    np.testing.assert_array_equal(model.fit(X, targets(estimator_class)).predict(X), expected)


@BOTH
@over_ways
def test_a_fit_and_its_failure_leave_no_memory_behind(estimator_class, way):
    """Less than one panel of weights (8 x 64 doubles) a fit.

    What is lost in a fit is lost in every fit, so that the round that grew least tells it; other memory comes and goes
    (caches, the lists of measured times).
    """
    n_calls, _ = reference(estimator_class, way)
    model = make(estimator_class, way)

    def traced_after(rounds):
        for _ in range(rounds):
            model.fit(X, targets(estimator_class)).predict(X)
            with contextlib.suppress(FaultError), fault_at(n_calls // 2, FaultError):
                model.fit(X, targets(estimator_class))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        # What is traced takes the place of what was there before, for a while.
        traced = [traced_after(3) for _ in range(4)]
    finally:
        tracemalloc.stop()
    growth = np.diff(traced)
    print(f"{growth} bytes more")
    assert growth.min() < 3 * 8 * 64 * 8
