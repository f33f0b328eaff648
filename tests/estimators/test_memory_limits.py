"""A fit that cannot have its memory says so before it takes any."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import random_array
from sklearn.exceptions import NotFittedError

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _base, _memory
from sklearn_subquad._fit import memory
from sklearn_subquad._fit.data import TrainingSet
from sklearn_subquad._fit.memory import FitSize
from sklearn_subquad._fit.plan import FitPlan, resolve_architecture
from sklearn_subquad._fit.scoring import Score
from sklearn_subquad._memory import available_bytes, require_bytes


def problem(n=20):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 3)).astype(np.float32), rng.standard_normal(n)


@pytest.mark.parametrize("Estimator", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_width_beyond_memory_is_refused_before_anything_is_allocated(Estimator, monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 10**9)
    X, y = problem()
    if Estimator is SubquadMLPClassifier:
        y = y > 0
    model = Estimator(hidden_layer_sizes=(50_000, 50_000), precision="single")
    tracemalloc.start()
    with pytest.raises(
        MemoryError, match=r"hidden_layer_sizes=\(50000, 50000\) takes 10,0\d\d,\d+,\d+ bytes"
    ) as caught:
        model.fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "1,000,000,000 are available" in str(caught.value)
    assert peak < 1e6
    with pytest.raises(NotFittedError):
        model.predict(X)


SIZE = FitSize((100, 70), (0.2, 0.2), n_rows=10, rows_of_a_step=10, n_inputs=1, n_outputs=1, itemsize=4)


WEIGHTS = 4 * (100 * 70 + 170 + 71)


@pytest.mark.parametrize("n_copies", [2, 3, 4])
def test_copies_of_the_weights_count(n_copies):
    assert replace(SIZE, n_copies=n_copies).weight_bytes - SIZE.weight_bytes == (n_copies - 1) * WEIGHTS


@pytest.mark.parametrize(("parameters", "copies"), [({}, 1), ({"batch_size": 50}, 3), ({"scoring": "r2"}, 2)])
def test_batches_count_an_average_and_the_best_one_and_scores_a_copy(parameters, copies):
    X = np.random.default_rng(0).standard_normal((200, 3))
    model = SubquadMLPRegressor(hidden_layer_sizes=(16, 16), **parameters)
    data, _ = TrainingSet.of_distinct_rows(X, X[:, :1], np.ones(200), None)
    score = None if model.scoring == "loss" else Score(model, model.scoring)
    options = {"unit_variance_targets": True, "covariance": False, "validation": None, "start": None, "partial": False}
    resolved = FitPlan.resolve(model, resolve_architecture(model), data, 0, loss=model.loss, score=score, **options)
    assert resolved.size.n_copies == copies


@pytest.mark.parametrize("parameters", [{}, {"init": "gaussian"}, {"batch_size": 60}])
def test_sparse_rows_take_less_than_their_bill_and_not_much_less(parameters, monkeypatch):
    rng, bills = np.random.default_rng(0), []
    X = random_array((250, 20_000), density=0.002, format="csr", rng=rng, dtype=np.float32)
    monkeypatch.setattr(_base, "require_memory", lambda plan, estimator: bills.append(plan.n_bytes))
    model = SubquadMLPRegressor(hidden_layer_sizes=64, n_folds=1, max_iter=1, n_jobs=1, random_state=0, **parameters)
    tracemalloc.start()
    model.fit(X, rng.standard_normal(250))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As arrays, X and what it is scaled to would have 40 MB.
    assert peak < min(bills[0], 30e6)
    assert bills[0] < 3 * peak


def test_batches_take_less_than_all_rows_at_once():
    sizes = [replace(SIZE, n_rows=50_000, rows_of_a_step=rows).row_bytes for rows in (500, 5000, 50_000)]
    assert sizes[0] < sizes[1] / 5 < sizes[2] / 250


def test_rows_without_a_gram_matrix_take_memory_in_proportion():
    sizes = [
        replace(SIZE, n_rows=rows, rows_of_a_step=rows, forms_gram=False, block_rows=8192, sketch_size=2048).row_bytes
        for rows in (20_000, 40_000, 80_000)
    ]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=1e-3)


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


# ---- containers -------------------------------------------------------------------------------------------------

MIB = 1 << 20
NO_LIMIT = 0x7FFFFFFFFFFFF000
V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def cache(inactive, active, shared=0, prefix=""):
    """A memory.stat of pages of files, and of some that are in memory alone."""
    lines = {"anon": 5, "file": inactive + active + shared, "shmem": shared}
    lines |= {f"{prefix}inactive_file": inactive, f"{prefix}active_file": active, "slab_reclaimable": 7}
    return "".join(f"{name} {value}\n" for name, value in lines.items())


# What files say: those of groups as {folder: (limit, usage, stat)}, and that of the process; and what is then left.
GROUPS = {
    "no cache": (V2, {"": (100, 40, cache(0, 0))}, "0::/", 60),
    "cache is left": (V2, {"": (100, 95, cache(70, 20))}, "0::/", 95),
    "shared memory is used": (V2, {"": (100, 95, cache(10, 0, shared=80))}, "0::/", 15),
    "never more than the limit": (V2, {"": (100, 50, cache(70, 20))}, "0::/", 100),
    "more used than the limit": (V2, {"": (100, 150, cache(0, 0))}, "0::/", 0),
    "no limit": (V2, {"": ("max", 95, cache(0, 0))}, "0::/", None),
    "without memory.stat": (V2, {"": (100, 95, None)}, "0::/", 5),
    "memory.stat is garbage": (V2, {"": (100, 95, "inactive_file\nactive_file many\n")}, "0::/", 5),
    "memory.stat is no text": (V2, {"": (100, 95, b"\xff\xfe\x00")}, "0::/", 5),
    "limit is garbage": (V2, {"": ("", 95, cache(0, 0))}, "0::/", None),
    "usage is missing": (V2, {"": (100, None, cache(0, 0))}, "0::/", None),
    "parent is tighter": (
        V2,
        {"": ("max", 900, None), "a": (100, 90, cache(20, 0)), "a/b": (500, 90, cache(20, 0))},
        "0::/a/b",
        30,
    ),
    "child is tighter": (
        V2,
        {"": ("max", 900, None), "a": (500, 90, cache(20, 0)), "a/b": (50, 40, cache(0, 5))},
        "0::/a/b",
        15,
    ),
    "siblings do not count": (V2, {"": (100, 50, None), "a": (90, 10, None), "b": (5, 5, None)}, "0::/a", 50),
    "colons in names": (V2, {"": ("max", 1, None), "a:b": (90, 10, None)}, "0::/a:b", 80),
    "no namespace": (V2, {"": (100, 50, None), "docker": (5, 5, None)}, "0::/docker/3f", 50),
    "outside of the namespace": (V2, {"": (100, 50, None)}, "0::/../other", 50),
    "of two versions the second": (V2, {"": (100, 50, None), "a": (5, 5, None)}, "4:memory:/a\n0::/", 50),
    "unknown groups": (V2, {"": (100, 50, None)}, None, 50),
    "groups are garbage": (V2, {"": (100, 50, None)}, "garbage\n::\n\n", 50),
    "first version": (V1, {"": (100, 95, cache(1, 1) + cache(70, 20, prefix="total_"))}, "3:memory:/", 95),
    "first version, no limit": (V1, {"": (NO_LIMIT // MIB, 95, None)}, "3:memory:/", NO_LIMIT // MIB - 95),
    "first version, nested": (
        V1,
        {"": (NO_LIMIT // MIB, 900, None), "a": (100, 90, cache(20, 0, prefix="total_")), "a/b": (500, 90, None)},
        "5:cpuset:/c\n3:cpu,memory:/a/b\n0::/",
        30,
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_available_bytes_of_groups(case, monkeypatch, tmp_path):
    names, groups, own, left = GROUPS[case]
    for folder, contents in groups.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, content in zip((*names, "memory.stat"), contents, strict=True):
            if isinstance(content, int):
                content = str(content * MIB)
            elif isinstance(content, str):
                content = "".join(
                    f"{line.rpartition(' ')[0]} {int(line.split()[-1]) * MIB}\n" if line[-1].isdigit() else f"{line}\n"
                    for line in content.splitlines()
                )
            if content is not None:
                (tmp_path / folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("")
    monkeypatch.setattr(_memory, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(_memory, "_CGROUPS", ((tmp_path / names[0], tmp_path / names[1]),))
    assert available_bytes() == (None if left is None else left * MIB)


@pytest.mark.parametrize("content", [b"MemAvailable:\n", b"MemAvailable: many kB\n", b"\xff\xfe", b""])
def test_a_machine_that_says_nothing_of_its_memory_is_no_error(content, monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_bytes(content)
    monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(_memory, "_CGROUPS", ())
    assert available_bytes() is None


# Rows, outputs, and what is not the default: with large weights, with large Gram matrices, in batches.
FULL = {"hidden_layer_sizes": (64, 64), "early_stopping": False, "max_iter": 2}
BATCHES = {"hidden_layer_sizes": (512, 512), "batch_size": 300, "max_iter": 1}
BUDGETS = [
    (
        300,
        1,
        {
            "hidden_layer_sizes": (1024, 1024),
            "max_iter": 2,
            "sparsifier": sparsifier,
            "early_stopping": False,
        },
    )
    for sparsifier in ("shifted_relu", "topk")
]
BUDGETS += [(700, k, FULL | {"early_stopping": early_stopping}) for k in (1, 3) for early_stopping in ("loo", False)]
BUDGETS += [(1500, k, BATCHES | {"early_stopping": early}) for k in (1, 3) for early in ("validation", False)]
BUDGETS += [
    (700, 3, FULL | {"preconditioner": "sketch"}),
    (1500, 1, BATCHES | {"early_stopping": "validation", "scoring": "r2"}),
    (1500, 1, BATCHES | {"batch_size": 100}),
    (1500, 3, BATCHES | {"loss": "log_loss"}),
    (1500, 3, BATCHES | {"loss": "poisson", "sparsifier": "topk"}),
    (700, 3, FULL | {"loss": "log_loss"}),
    (700, 10, FULL | {"loss": "log_loss"}),
    (700, 10, FULL | {"loss": "poisson"}),
]


def describe(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(
    ("dtype", "precision"), [(np.float32, "single"), (np.float64, "single"), (np.float64, "double")]
)
@pytest.mark.parametrize(("n", "k", "options"), BUDGETS, ids=describe)
def test_budget_covers_what_a_fit_allocates(n, k, options, dtype, precision, monkeypatch):
    """The bytes that are asked for are at least those that are used, and not many times as many."""
    asked = []
    monkeypatch.setattr(memory, "require_bytes", lambda needed, message: asked.append(needed))
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3)).astype(dtype)
    signal = X[:, [0]] + rng.standard_normal((n, k))
    Estimator, y = SubquadMLPRegressor, signal if k > 1 else signal[:, 0]
    if options.get("loss") == "log_loss":
        Estimator, y = SubquadMLPClassifier, signal[:, 0].argsort().argsort() * k // n
    elif options.get("loss") == "poisson":
        y = abs(y)
    model = Estimator(random_state=0, n_jobs=1, precision=precision, **options)
    tracemalloc.start()
    try:
        model.fit(X, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{peak / asked[-1]:.2f} of the budget of {asked[-1] / 1e6:.0f} MB")
    assert 0.25 * asked[-1] < peak < asked[-1]
