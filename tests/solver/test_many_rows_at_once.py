"""Steps on more rows than n x n matrices are formed for: blocks of rows, sketches, and memory in proportion to rows."""

import tracemalloc

import numpy as np
import pytest

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _memory
from sklearn_subquad._curvature import preconditioners
from sklearn_subquad._curvature.gram import GramMatrix
from sklearn_subquad._curvature.jacobian_blocks import JacobianBlocks
from sklearn_subquad._fit import memory, plan
from sklearn_subquad._solver import levenberg_marquardt

N, LIMIT = 450, 100


@pytest.fixture
def few_at_once(monkeypatch):
    """Let n x n matrices be formed, and rows be linearised at a time, for 100 rows at most."""
    for module in (plan, memory, preconditioners):
        monkeypatch.setattr(module, "MAX_SQUARE_ROWS", LIMIT)


def problem(k=1, n=N, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4)).astype(dtype)
    signal = np.column_stack([np.sin(2 * X[:, 0]) + X[:, 1] * X[:, (2 + c) % 4] for c in range(k)])
    return X, signal[:, 0] if k == 1 else signal


def estimator(loss, **options):
    defaults = {
        "hidden_layer_sizes": (48, 40),
        "batch_size": 10_000,
        "preconditioner": "sketch",
        "sketch_size": 64,
        "early_stopping": False,
        "max_iter": 3,
        "damping": 1.0,
        "cg_tol": 1e-8,
        "max_cg_iter": 300,
        "n_folds": 1,
        "precision": "double",
        "random_state": 0,
    }
    Estimator = SubquadMLPClassifier if loss == "log_loss" else SubquadMLPRegressor
    return Estimator(loss=loss, **defaults | options)


def targets(loss, k):
    X, y = problem(k)
    if loss == "log_loss":
        return X, np.digitize(y if k == 1 else y[:, 0], [0.0] if k == 1 else [-0.5, 0.5])
    return X, np.round(np.exp(y)) if loss == "poisson" else y


@pytest.mark.parametrize(
    ("loss", "k"), [("squared_error", 1), ("squared_error", 5), ("poisson", 2), ("log_loss", 1), ("log_loss", 3)]
)
@pytest.mark.parametrize("preconditioner", ["sketch", "none"])
def test_blocks_of_rows_give_the_fit_of_all_rows(preconditioner, loss, k, monkeypatch, request):
    X, y = targets(loss, k)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(X))
    at_once = estimator(loss, preconditioner=preconditioner).fit(X, y, weights)
    request.getfixturevalue("few_at_once")
    blocks = []
    gram_matvec = JacobianBlocks.gram_matvec

    def counting(self, *C):
        blocks.append(len(self.blocks))
        return gram_matvec(self, *C)

    monkeypatch.setattr(JacobianBlocks, "gram_matvec", counting)
    in_blocks = estimator(loss, preconditioner=preconditioner).fit(X, y, weights)
    assert set(blocks) == {5}
    np.testing.assert_allclose(in_blocks.loss_curve_, at_once.loss_curve_, rtol=1e-5)
    outputs = [m.predict_proba(X) if loss == "log_loss" else m.predict(X) for m in (in_blocks, at_once)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-4 * np.abs(outputs[1]).max())


@pytest.mark.parametrize("early_stopping", ["auto", False])
@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
def test_defaults_form_no_gram_matrix_of_many_rows(loss, early_stopping, few_at_once, monkeypatch):
    rows, matrix = [], GramMatrix.matrix

    def recording(self):
        rows.append(len(matrix(self)))
        return matrix(self)

    monkeypatch.setattr(GramMatrix, "matrix", recording)
    # The first damping is found on a sample.
    monkeypatch.setattr(levenberg_marquardt, "_MAX_DAMPING_ROWS", 60)
    X, y = targets(loss, 3)
    model = estimator(loss, preconditioner="auto", damping="auto", early_stopping=early_stopping).fit(X, y)
    assert max(rows) <= 60
    assert hasattr(model, "validation_scores_") == (early_stopping == "auto")
    assert not hasattr(model, "loo_curve_")


def test_who_asks_for_the_gram_matrix_gets_it(few_at_once, monkeypatch):
    X, y = problem()
    small = estimator("squared_error", preconditioner="gram").fit(X, y)
    assert set(small.n_cg_iter_) == {1}
    with_loo = estimator("squared_error", preconditioner="auto", early_stopping="loo").fit(X, y)
    assert set(with_loo.n_cg_iter_) == {1}
    assert len(with_loo.loo_curve_) == with_loo.n_iter_ + 1


@pytest.mark.parametrize(
    ("options", "name"),
    [({"preconditioner": "gram"}, "preconditioner='gram'"), ({"early_stopping": "loo"}, "early_stopping='loo'")],
)
def test_too_large_a_gram_matrix_names_who_asked_for_it(options, name, few_at_once, monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 10**6)
    with pytest.raises(MemoryError, match=f"{name} takes most of that; leave it at 'auto', or use a smaller batch"):
        estimator("squared_error", **options).fit(*problem())


@pytest.mark.parametrize(
    ("n", "batch_size", "early_stopping", "rows"),
    [
        (21, 20, False, 11),
        (23, 20, False, 12),
        (19, 20, False, 19),
        (450, "auto", False, 450),
        # Three or two are held out, and the others are one batch.
        (21, 20, "validation", 18),
        (19, 20, "validation", 17),
    ],
)
def test_auto_asks_for_the_rows_that_steps_really_have(n, batch_size, early_stopping, rows, monkeypatch):
    asked = []

    def recording(n_rows, widths, densities, n_outputs, n_curvatures):
        asked.append((n_rows, widths, n_outputs, n_curvatures))
        return "gram"

    monkeypatch.setattr(plan, "cheapest_preconditioner", recording)
    X, y = problem()
    options = {"batch_size": batch_size, "early_stopping": early_stopping}
    estimator("squared_error", preconditioner="auto", **options).fit(X[:n], y[:n])
    assert asked == [(rows, (48, 40), 1, 1)]


@pytest.mark.parametrize("k", [1, 5])
def test_memory_grows_in_proportion_to_the_rows(k, few_at_once, monkeypatch):
    """And stays within what is asked for beforehand."""
    asked, peaks = [], []
    monkeypatch.setattr(memory, "require_bytes", lambda needed, message: asked.append(needed))
    for n in (1000, 2000, 4000):
        X, y = problem(k, n, np.float32)
        model = estimator("squared_error", cg_tol=0.1, max_iter=2, n_jobs=1, sketch_size=32)
        tracemalloc.start()
        try:
            model.fit(X, y)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    print([f"{peak / budget:.2f} of {budget / 1e6:.0f} MB" for peak, budget in zip(peaks, asked, strict=True)])
    assert all(0.2 * budget < peak < budget for peak, budget in zip(peaks, asked, strict=True))
    # Far from a factor of four, which a single n x n matrix (here 64 MB) would bring.
    assert peaks[1] < 2.2 * peaks[0]
    assert peaks[2] < 2.2 * peaks[1]
