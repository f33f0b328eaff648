"""A fit that cannot have its memory says so before it takes any."""

import tracemalloc

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _base, _memory
from sklearn_subquad._memory import available_bytes, fit_bytes, require_bytes


def problem(n=20):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 3)).astype(np.float32), rng.standard_normal(n)


@pytest.mark.parametrize("Estimator", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_width_beyond_memory_is_refused_before_anything_is_allocated(Estimator, monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 10**9)
    X, y = problem()
    if Estimator is SubquadMLPClassifier:
        y = y > 0
    model = Estimator(hidden_layer_sizes=(50_000, 50_000))
    tracemalloc.start()
    with pytest.raises(MemoryError, match=r"hidden_layer_sizes=\(50000, 50000\) takes 10,00\d,\d+,\d+ bytes") as caught:
        model.fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "1,000,000,000 are available" in str(caught.value)
    assert peak < 1e6
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_alpha_counts_a_second_copy_of_the_weights():
    once, twice = (fit_bytes((100, 70), (0.2, 0.2), keep_start, False, 1, 1, 1, 4)[0] for keep_start in (False, True))
    assert twice - once == 4 * (100 * 70 + 170 + 71)


def test_everything_fits_where_the_system_says_nothing(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: None)
    require_bytes(10**30, "")


def test_exactly_what_is_there_is_enough(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 1000)
    require_bytes(1000, "")
    with pytest.raises(MemoryError, match=r"^no room: 1,001 bytes are needed and 1,000 are available\."):
        require_bytes(1001, "no room:")


def test_available_bytes_is_the_least_of_machine_and_container(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    limit, usage = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(_memory, "_CGROUPS", ((limit, usage),))
    assert available_bytes() == 5000 * 1024
    usage.write_text("1000\n")
    limit.write_text("max\n")
    assert available_bytes() == 5000 * 1024
    limit.write_text("51000\n")
    assert available_bytes() == 50_000
    limit.write_text("10\n")
    assert available_bytes() == 0


@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
def test_budget_covers_what_a_fit_allocates(alpha, sparsifier, monkeypatch):
    """The bytes that are asked for are at least those that are used, and not many times as many."""
    asked = []
    monkeypatch.setattr(_base, "require_bytes", lambda needed, message: asked.append(needed))
    X, y = problem(300)
    model = SubquadMLPRegressor(
        hidden_layer_sizes=(2048, 2048),
        sparsifier=sparsifier,
        max_iter=2,
        early_stopping=False,
        alpha=alpha,
        n_jobs=1,
        random_state=0,
    )
    model.fit(X, y)  # measures the cost model of the machine, once
    tracemalloc.start()
    model.fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 * asked[-1] < peak < asked[-1]
