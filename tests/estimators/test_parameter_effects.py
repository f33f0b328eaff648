"""Every parameter does something, and what it should not change it does not."""

import dataclasses

import numpy as np
import pytest
from small_fits import BOTH, data_for, fixed_steps, outputs, regression_data, small

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.init_scale import effective_dimension
from sklearn_subquad._fit.plan import resolve_architecture
from sklearn_subquad._fit.scaling import InputScaling
from sklearn_subquad._linalg import threads
from sklearn_subquad._linalg.packed import ROUTES, PackedMatrix
from sklearn_subquad._network.network import Network

pytestmark = pytest.mark.usefixtures("one_blas_thread")

# Parameter, values of others, two values of it, and what has to differ between the fits.
EFFECTS = [
    ("hidden_layer_sizes", {}, (64, 64), (64, 32), "outputs"),
    ("sparsifier", {}, "shifted_relu", "topk", "outputs"),
    ("density", {}, "auto", 0.1, "densities_"),
    ("density", {}, (0.1, 0.3), (0.3, 0.1), "densities_"),
    ("skip_connections", {}, True, False, "outputs"),
    ("init", {}, "axis_aligned", "gaussian", "outputs"),
    ("init_scale", {}, "auto", 1.0, "outputs"),
    ("damping", {}, "auto", 5.0, "damping_"),
    ("max_rank", {}, 0, 1000, "rank_"),
    ("preconditioner", {}, "gram", "none", "n_cg_iter_"),
    ("preconditioner", {}, "gram", "sketch", "n_cg_iter_"),
    ("sketch", {"preconditioner": "sketch"}, "tensor_srht", "tensor_sketch", "outputs"),
    ("sketch_size", {"preconditioner": "sketch"}, 10, 1000, "n_cg_iter_"),
    ("cg_tol", {"preconditioner": "none"}, 1e-1, 1e-4, "n_cg_iter_"),
    ("max_cg_iter", {"preconditioner": "none"}, 2, 50, "n_cg_iter_"),
    ("max_iter", {}, 4, 2, "n_iter_"),
    ("batch_size", {"max_iter": 2, "early_stopping": False}, 40, 20, "n_cg_iter_"),
    ("tol", {"max_iter": 6, "early_stopping": False}, 1e-3, 0.99, "n_iter_"),
    ("early_stopping", {}, "loo", "validation", "loo_curve_"),
    ("early_stopping", {}, False, "validation", "validation_scores_"),
    ("validation_fraction", {"early_stopping": "validation"}, 0.1, 0.4, "validation_scores_"),
    ("scoring", {"early_stopping": "validation"}, "loss", None, "validation_scores_"),
    ("n_iter_no_change", {"tol": 0.9, "early_stopping": False}, 1, 3, "n_iter_"),
    ("n_folds", {"early_stopping": "validation"}, 1, 3, "outputs"),
    ("n_bins", {}, "auto", None, "outputs"),
    ("n_bins", {}, 3, 10, "outputs"),
    ("categorical_features", {}, None, [0], "outputs"),
    ("standardize", {}, True, False, "outputs"),
    ("precision", {}, "single", "double", "outputs"),
    ("random_state", {}, 0, 1, "outputs"),
]


@BOTH
@pytest.mark.parametrize(("parameter", "others", "one", "another", "changes"), EFFECTS)
def test_every_parameter_has_an_effect(estimator_class, parameter, others, one, another, changes):
    X, y = data_for(estimator_class)
    X = 2 * X + 1
    seen = []
    for value in (one, another):
        estimator = small(estimator_class, **others | {parameter: value}).fit(X, y)
        seen.append(outputs(estimator, X) if changes == "outputs" else getattr(estimator, changes, None))
    assert not np.array_equal(*seen)


PLAN_LINES = [
    "rows",
    "loss",
    "layers",
    "precision",
    "n_bins",
    "init, init_scale",
    "early_stopping",
    "preconditioner",
    "cg_tol",
    "damping",
    "memory",
]


@BOTH
@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_prints_a_line_a_step(estimator_class, verbose, capsys):
    X, y = data_for(estimator_class)
    small(estimator_class, verbose=verbose, early_stopping=False).fit(X, y)
    # The plan, a title, the start, four steps and the reason to stop.
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (len(PLAN_LINES) + 7) * verbose
    assert [line.split(":")[0] for line in printed[: len(PLAN_LINES)]] == PLAN_LINES[: len(printed)]


@BOTH
@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_plan_says_the_precision(estimator_class, precision, capsys):
    X, y = data_for(estimator_class)
    model = small(estimator_class, precision=precision, warm_start=True, verbose=1, max_iter=1).fit(X, y)
    other = {"single": "double", "double": "single"}[precision]
    # A fit that goes on keeps the precision.
    model.set_params(precision=other, early_stopping=False).fit(X, y)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision:")]
    assert [line.split()[1] for line in lines] == [precision] * 2


@pytest.mark.parametrize("route", ["auto", "scatter", "blas", "strassen"])
def test_matmul_chooses_how_weights_are_updated(route, monkeypatch):
    routes, add_product = [], PackedMatrix.add_product

    def spy(self, U, G, route):
        routes.append(route)
        return add_product(self, U, G, route)

    monkeypatch.setattr(PackedMatrix, "add_product", spy)
    X, y = regression_data()
    estimator = small(SubquadMLPRegressor, matmul=route, precision="double").fit(X, y)
    # "auto" is decided by measured costs.
    assert routes
    assert set(routes) <= (set(ROUTES) if route == "auto" else {route})
    monkeypatch.undo()
    usual = small(SubquadMLPRegressor, precision="double").fit(X, y)
    np.testing.assert_allclose(usual.predict(X), estimator.predict(X), rtol=1e-6)


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_n_jobs_is_the_number_of_threads(n_jobs, monkeypatch):
    counts, pool = [1], threads.ThreadPoolExecutor

    def spy(max_workers, **kwargs):
        counts.append(max_workers)
        return pool(max_workers, **kwargs)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", spy)
    X, y = regression_data()
    small(SubquadMLPRegressor, n_jobs=n_jobs, max_iter=1).fit(X, y).predict(X)
    assert max(counts) == n_jobs


@BOTH
def test_no_parameter_is_missing_from_these_tests(estimator_class):
    tested = {row[0] for row in EFFECTS} | {"loss", "verbose", "matmul", "n_jobs"}
    elsewhere = {"warm_start"} | ({"class_weight"} if estimator_class is SubquadMLPClassifier else set())
    assert tested | elsewhere == set(estimator_class().get_params())


@BOTH
@pytest.mark.parametrize("max_rank", [0, 100, 10_000])
def test_result_does_not_depend_on_when_weights_are_flushed(estimator_class, max_rank):
    X, y = data_for(estimator_class)
    parameters = {"cg_tol": 1e-6, "precision": "double"}
    lazy = fixed_steps(estimator_class, 3, max_rank=max_rank, **parameters).fit(X, y)
    usual = fixed_steps(estimator_class, 3, **parameters).fit(X, y)
    np.testing.assert_allclose(outputs(lazy, X), outputs(usual, X), atol=1e-8)


@pytest.mark.parametrize("n_outputs", [None, 3])
def test_result_does_not_depend_on_the_preconditioner(n_outputs):
    X, Y = regression_data(n=50, n_outputs=n_outputs)
    predictions = [
        fixed_steps(
            SubquadMLPRegressor,
            3,
            preconditioner=preconditioner,
            sketch=sketch,
            sketch_size=sketch_size,
            cg_tol=1e-6,
            max_cg_iter=1000,
        )
        .fit(X, Y)
        .predict(X)
        for preconditioner, sketch, sketch_size in [
            ("auto", "tensor_srht", "auto"),
            ("gram", "tensor_srht", "auto"),
            ("none", "tensor_srht", "auto"),
            ("sketch", "tensor_srht", "auto"),
            ("sketch", "tensor_srht", 20),
            ("sketch", "tensor_sketch", "auto"),
            ("sketch", "tensor_sketch", 20),
        ]
    ]
    for prediction in predictions[1:]:
        np.testing.assert_allclose(prediction, predictions[0], atol=1e-4)


def initial_network(estimator, X):
    """The network that `fit` starts from on X, and its inputs."""
    ones = np.ones(len(X))
    x = InputScaling.fit(X, ones, estimator.standardize).transform(X)
    seed = np.random.RandomState(estimator.random_state).randint(np.iinfo(np.int32).max)
    architecture = dataclasses.replace(resolve_architecture(estimator), init_scale=estimator.init_scale_)
    return Network.initialise(architecture, x, ones, 1, seed), x


# ---- the start -----------------------------------------------------------------------------------


SMALL_INIT_SCALE = 0.05 * np.sqrt(2048 / 200)


@BOTH
@pytest.mark.parametrize(
    ("n_independent", "n_copies", "standardize", "expected"),
    [
        (5, 1, True, SMALL_INIT_SCALE),
        # Many features, but few directions.
        (5, 20, True, SMALL_INIT_SCALE),
        (40, 1, True, 1.0),
        # exp of the entropy of 14 equal shares is 14 = 10 * 2^share.
        (14, 1, True, SMALL_INIT_SCALE ** (1 - np.log2(1.4))),
        (14, 2, True, SMALL_INIT_SCALE ** (1 - np.log2(1.4))),
        # As they come, one of them has all the variance.
        (40, 1, False, SMALL_INIT_SCALE),
    ],
)
def test_automatic_initial_scale_follows_the_effective_dimension(
    estimator_class, n_independent, n_copies, standardize, expected
):
    rng = np.random.default_rng(0)
    # Exactly orthogonal columns of mean zero and equal variance.
    X = np.linalg.qr(np.column_stack([np.ones(300), rng.standard_normal((300, n_independent))]))[0][:, 1:]
    X = np.tile(X, n_copies) * 300**0.5
    if not standardize:
        X[:, 0] *= 100
    y = np.sign(X[:, 0])
    settings = {"hidden_layer_sizes": (20, 200), "max_iter": 1, "early_stopping": False, "standardize": standardize}
    estimator = small(estimator_class, **settings).fit(X, y)
    # No deviation exceeds the cap of six, so that scaling changes nothing.
    assert np.abs(X[:, 1:]).max() < 6
    assert estimator.init_scale_ == pytest.approx(expected, rel=1e-6 if standardize else 0.01)
    assert small(estimator_class, **settings, init_scale=0.2).fit(X, y).init_scale_ == 0.2


@pytest.mark.parametrize(("n_features", "numbers"), [(40, 0), (40, 1 << 23), (600, 1 << 16)])
def test_the_effective_dimension_is_counted_on_some_of_many_rows(n_features, numbers, monkeypatch):
    monkeypatch.setattr("sklearn_subquad._fit.init_scale._DIMENSION_NUMBERS", numbers)
    seen = []

    def counting(x, sample_weight):
        seen.append(x.shape)
        return effective_dimension(x, sample_weight)

    monkeypatch.setattr("sklearn_subquad._fit.init_scale.effective_dimension", counting)
    X = np.random.default_rng(0).standard_normal((1500, n_features), np.float32)
    settings = {"hidden_layer_sizes": (20, 200), "max_iter": 1, "early_stopping": False}
    assert small(SubquadMLPRegressor, **settings).fit(X, X[:, 0]).init_scale_ == 1.0
    assert seen == [({0: 64, 1 << 16: 109, 1 << 23: 1024}[numbers], n_features)]


@BOTH
def test_mirrored_networks_learn(estimator_class):
    X, y = data_for(estimator_class)
    assert small(estimator_class, init_scale=1.0, hidden_layer_sizes=(65, 63), max_iter=8).fit(X, y).score(X, y) > 0.5
