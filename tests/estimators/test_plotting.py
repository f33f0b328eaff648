"""Figures of a fit: what is drawn is what the estimator says, and what cannot be drawn is refused by name."""

import doctest
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, plotting
from sklearn_subquad.plotting import FitDisplay

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@pytest.fixture
def pyplot():
    """matplotlib.pyplot without windows; all figures are closed at the end."""
    matplotlib = pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib, which is not installed")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def rows(n=120):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    return X, np.sin(2 * X[:, 0]) + X[:, 1] + 0.2 * rng.standard_normal(n)


def unfitted(estimator_class=SubquadMLPRegressor, **parameters):
    defaults = {"hidden_layer_sizes": (40, 30, 35), "max_iter": 6, "random_state": 0}
    return estimator_class(**defaults | {"init": "axis_aligned"} | parameters)


def fitted(estimator_class=SubquadMLPRegressor, **parameters):
    X, y = rows()
    if estimator_class is SubquadMLPClassifier:
        y = np.argsort(np.argsort(y)) * 3 // len(y)
    elif parameters.get("loss") == "poisson":
        y = np.round(np.exp(y))
    return unfitted(estimator_class, **parameters).fit(X, y)


@pytest.fixture(scope="module")
def model():
    """A regressor that goes back from later steps to a better one, or may have."""
    return fitted(early_stopping="loo")


def assert_line(line, x, y):
    np.testing.assert_array_equal(line.get_xdata(), x)
    np.testing.assert_array_equal(line.get_ydata(), y)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ---- what is drawn ------------------------------------------------------------------------------------------


KINDS = pytest.mark.parametrize(
    ("estimator_class", "parameters", "loss_name", "error_name"),
    [
        (SubquadMLPRegressor, {"early_stopping": "loo"}, "Mean squared error / variance", "Leave-one-out error"),
        (SubquadMLPRegressor, {"early_stopping": "validation"}, "Mean squared error / variance", "Held-out error"),
        (SubquadMLPRegressor, {"early_stopping": False}, "Mean squared error / variance", None),
        (SubquadMLPRegressor, {"loss": "poisson"}, "Mean Poisson deviance", "Held-out error"),
        (SubquadMLPClassifier, {"batch_size": 200}, "Mean squared error", "Held-out error"),
        (SubquadMLPClassifier, {"loss": "log_loss", "batch_size": 50}, "Mean log loss", "Held-out error"),
        (SubquadMLPRegressor, {"batch_size": 50, "early_stopping": False}, "Mean squared error / variance", None),
    ],
)


@KINDS
def test_lines_and_bars_are_the_attributes(estimator_class, parameters, loss_name, error_name, pyplot):
    model = fitted(estimator_class, **parameters)
    in_batches = parameters.get("batch_size") == 50
    assert (len(model.n_cg_iter_) > model.n_iter_) == in_batches
    display = FitDisplay.from_estimator(model)
    assert isinstance(display, FitDisplay)
    loss_ax, density_ax, time_ax = display.axes_
    assert len(display.figure_.axes) == 4

    steps = np.arange(model.n_iter_ + 1)[int(in_batches) :]
    assert_line(display.loss_line_, steps, model.loss_curve_)
    assert loss_ax.get_ylabel() == loss_name
    if error_name is None:
        assert display.error_line_ is None
    else:
        errors = getattr(model, "loo_curve_", None) or 1 - np.array(model.validation_scores_)
        assert_line(display.error_line_, np.arange(model.n_iter_ + 1), errors)
        assert np.argmin(display.error_line_.get_ydata()) == model.best_iter_
    assert_line(display.best_line_, [model.best_iter_] * 2, [0, 1])
    unit = "pass" if in_batches else "step"
    assert labels(loss_ax) == [
        "Training loss",
        *([] if error_name is None else [error_name]),
        f"Returned ({unit} {model.best_iter_})",
    ]

    assert len(display.density_lines_) == 3
    for layer, line in enumerate(display.density_lines_):
        assert_line(line, steps, model.density_curve_[:, layer])
        assert line.axes is density_ax
    assert_line(display.rank_line_, steps, model.rank_curve_)
    assert display.rank_line_.axes is display.rank_ax_
    assert labels(density_ax) == [*[f"Density, layer {i}" for i in (1, 2, 3)], "Pending rank (right)"]
    assert loss_ax.get_xlabel() == density_ax.get_xlabel() == unit.capitalize()

    assert [bar.get_width() for bar in display.time_bars_] == list(model.phase_times_.values())
    assert [text.get_text() for text in time_ax.get_yticklabels()] == list(model.phase_times_)
    assert time_ax.get_xlabel() == "Seconds"
    # The first phase is on top.
    heights = [time_ax.transData.transform((0, bar.get_y()))[1] for bar in display.time_bars_]
    assert heights == sorted(heights, reverse=True)


def test_the_legend_of_densities_is_above_all_curves(pyplot):
    # Many layers have a high legend, and a rank of zero or of one point is a curve as well.
    for widths in [(30,), (30, 30), (30,) * 7]:
        display = FitDisplay.from_estimator(fitted(hidden_layer_sizes=widths, early_stopping=False))
        display.figure_.canvas.draw()
        bottom = display.axes_[1].get_legend().get_window_extent().y0
        for line in [*display.density_lines_, display.rank_line_]:
            points = line.axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
            assert points[:, 1].max() < bottom


def test_a_fit_of_no_pass_is_drawn(pyplot):
    X, _ = rows()
    model = unfitted(batch_size=50, early_stopping=False).fit(X, np.ones(len(X)))
    display = FitDisplay.from_estimator(model)
    assert_line(display.loss_line_, [1], [0.0])
    assert [len(line.get_xdata()) for line in display.density_lines_] == [0, 0, 0]
    assert len(display.rank_line_.get_xdata()) == 0
    display.figure_.canvas.draw()


def test_a_fit_of_no_step_is_drawn(pyplot):
    X, _ = rows()
    model = unfitted(early_stopping=False).fit(X, np.ones(len(X)))
    display = FitDisplay.from_estimator(model)
    assert_line(display.loss_line_, [0], model.loss_curve_)
    assert_line(display.rank_line_, [0], [0])
    assert_line(display.best_line_, [0, 0], [0, 1])
    display.figure_.canvas.draw()


@pytest.mark.parametrize("ends", [True, False])
def test_plain_data_are_drawn(ends, pyplot):
    loss_curve = [3.0, 2.0, 1.0] if ends else [3.0, 2.0]
    display = FitDisplay(
        loss_curve=loss_curve,
        best_iter=2,
        density_curve=[[0.1, 0.2], [0.3, 0.4]],
        rank_curve=[5.0, 6.0],
        phase_times={"solve": 1.0, "flush": 20.0},
        error_curve=[9.0, 8.0, 7.0],
        in_batches=True,
        loss_name="Hinge loss",
        error_name="Test error",
    )
    assert display.plot() is display
    # A last pass that found no step has a loss only.
    assert_line(display.loss_line_, [1, 2, 3][: len(loss_curve)], loss_curve)
    assert_line(display.error_line_, [0, 1, 2], [9.0, 8.0, 7.0])
    assert_line(display.density_lines_[1], [1, 2], [0.2, 0.4])
    assert_line(display.rank_line_, [1, 2], [5.0, 6.0])
    assert labels(display.axes_[0]) == ["Training loss", "Test error", "Returned (pass 2)"]
    assert display.axes_[0].get_ylabel() == "Hinge loss"
    assert display.axes_[2].get_title() == "Phase times, 21 s in all"
    assert [text.get_text() for text in display.axes_[2].texts] == ["1", "20"]


def test_defaults_of_the_constructor(pyplot):
    arguments = {"best_iter": 1, "density_curve": [[0.1], [0.2]], "rank_curve": [0, 4], "phase_times": {}}
    display = FitDisplay(loss_curve=[2.0, 1.0], **arguments).plot(panels="loss")
    assert_line(display.loss_line_, [0, 1], [2.0, 1.0])
    assert display.axes_[0].get_ylabel() == "Loss"
    assert display.error_line_ is None
    display.error_curve = [2.0, 2.0]
    assert labels(display.plot(panels="loss").axes_[0])[1] == "Early-stopping error"


@pytest.mark.parametrize(
    ("losses", "errors", "scale"),
    [
        ([1.0, 0.1], None, "log"),
        ([1.0, 0.11], None, "linear"),
        ([1.0, 0.5], [1.0, 0.05], "log"),
        ([1.0, 0.0], None, "linear"),
        ([1.0, 0.01], [1.0, np.inf], "linear"),
        ([1.0, 0.01], [1.0, -0.5], "linear"),
        ([np.nan, 0.01], None, "linear"),
    ],
)
def test_losses_are_on_a_logarithmic_scale_where_they_span_a_decade(losses, errors, scale, pyplot):
    arguments = {"best_iter": 1, "density_curve": [[0.1], [0.2]], "rank_curve": [0, 4], "phase_times": {}}
    display = FitDisplay(loss_curve=losses, error_curve=errors, **arguments)
    assert display.plot(panels="loss").axes_[0].get_yscale() == scale
    for chosen in ("linear", "log"):
        assert display.plot(panels="loss", yscale=chosen).axes_[0].get_yscale() == chosen


# ---- options ------------------------------------------------------------------------------------------------

DRAWN = {
    "loss": ["loss_line_", "error_line_", "best_line_"],
    "density": ["density_lines_", "rank_ax_", "rank_line_"],
    "time": ["time_bars_"],
}


@pytest.mark.parametrize(
    "panels", ["loss", "density", "time", ("time", "loss"), ["density"], np.array(["loss", "density", "time"])]
)
def test_panels_are_drawn_in_the_order_asked_for(panels, model, pyplot):
    display = FitDisplay.from_estimator(model)
    # What an earlier plot has drawn is not taken for what this one has.
    assert display.plot(panels=panels) is display
    panels = [panels] if isinstance(panels, str) else list(panels)
    titles = {"loss": "Learning curve", "density": "Activity and rank", "time": "Phase times"}
    assert [ax.get_title().split(",")[0] for ax in display.axes_] == [titles[panel] for panel in panels]
    for panel, names in DRAWN.items():
        for name in names:
            assert (getattr(display, name) is not None) == (panel in panels), name
    assert len(display.figure_.axes) == len(panels) + ("density" in panels)


def test_given_axes_are_drawn_on(model, pyplot):
    figure, axes = pyplot.subplots(2, 2)
    display = FitDisplay.from_estimator(model, panels=("time", "loss"), ax=axes[0])
    assert display.figure_ is figure
    assert display.axes_.shape == (2,)
    assert list(display.axes_) == list(axes[0])
    assert display.loss_line_.axes is axes[0, 1]
    display.plot(axes[1, 0], panels="density")
    assert list(display.axes_) == [axes[1, 0]]
    # In any shape, and no other figure is made.
    display.plot(axes.ravel()[:3].reshape(3, 1).tolist())
    assert list(display.axes_) == list(axes.ravel()[:3])
    assert pyplot.get_fignums() == [figure.number]


def test_properties_reach_lines_and_bars(model, pyplot):
    # Also under matplotlib's short names, which would clash with the defaults.
    display = FitDisplay.from_estimator(
        model, line_kw={"c": "red", "lw": 3.5}, bar_kw={"color": "black", "height": 0.2}
    )
    lines = [display.loss_line_, display.error_line_, *display.density_lines_, display.rank_line_]
    assert [(line.get_color(), line.get_linewidth()) for line in lines] == [("red", 3.5)] * 6
    for bar in display.time_bars_:
        assert bar.get_facecolor() == (0, 0, 0, 1)
        assert bar.get_height() == pytest.approx(0.2)


@pytest.mark.parametrize("method", ["from_estimator", "plot"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"panels": "losses"}, ValueError, "panels must be 'all', one of 'loss', 'density', 'time'.*got 'losses'"),
        ({"panels": ("loss", "rank")}, ValueError, "panels must be"),
        ({"panels": ("loss", "loss")}, ValueError, "panels must be .* different"),
        ({"panels": ()}, ValueError, "panels must be"),
        ({"panels": 3}, ValueError, "panels must be"),
        ({"panels": None}, ValueError, "panels must be"),
        ({"panels": ["all"]}, ValueError, "panels must be"),
        ({"panels": [["loss"]]}, ValueError, "panels must be"),
        ({"yscale": "symlog"}, ValueError, "yscale must be one of 'auto', 'linear', 'log'; got 'symlog'"),
        ({"yscale": None}, ValueError, "yscale must be"),
        ({"yscale": ["log"]}, ValueError, "yscale must be"),
        ({"line_kw": "red"}, TypeError, "line_kw must be a dict"),
        ({"bar_kw": [1]}, TypeError, "bar_kw must be a dict"),
        ({"ax": "left"}, TypeError, "ax must be a matplotlib Axes"),
        ({"ax": [1, 2, 3]}, TypeError, "ax must be a matplotlib Axes"),
        ({"ax": []}, ValueError, "ax must hold one Axes per panel, here 3 .*holds 0 different"),
    ],
)
def test_wrong_options_are_named(method, options, error, message, model, pyplot):
    draw = FitDisplay.from_estimator(model).plot
    if method == "from_estimator":

        def draw(**options):
            FitDisplay.from_estimator(model, **options)

    pyplot.close("all")
    with pytest.raises(error, match=message):
        draw(**options)
    # No empty figure is left behind.
    assert pyplot.get_fignums() == []


def test_as_many_axes_as_panels_are_asked_for(model, pyplot):
    figure, axes = pyplot.subplots(1, 4)
    for ax in (axes[0], axes, axes[:2], [axes[0], axes[1], axes[0]]):
        with pytest.raises(ValueError, match=r"ax must hold one Axes per panel, here 3 \(loss, density, time\)"):
            FitDisplay.from_estimator(model, ax=ax)
    with pytest.raises(TypeError, match="ax must be"):
        FitDisplay.from_estimator(model, ax=figure)
    assert not any(ax.has_data() for ax in axes)


# ---- estimators ---------------------------------------------------------------------------------------------


def test_the_last_step_of_a_pipeline_is_drawn(pyplot):
    X, y = rows()
    pipeline = make_pipeline(StandardScaler(), unfitted()).fit(X, y)
    display = FitDisplay.from_estimator(pipeline)
    assert_line(display.loss_line_, np.arange(pipeline[-1].n_iter_ + 1), pipeline[-1].loss_curve_)
    nested = Pipeline([("inner", Pipeline([("model", pipeline[-1])]))])
    assert FitDisplay.from_estimator(nested).loss_curve == pipeline[-1].loss_curve_


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: make_pipeline(StandardScaler(), model)])
def test_what_is_not_fitted_is_not_drawn(wrap, pyplot):
    with pytest.raises(NotFittedError, match="SubquadMLPRegressor instance is not fitted yet"):
        FitDisplay.from_estimator(wrap(unfitted()))
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("estimator", "got"),
    [
        (Ridge(), "Ridge"),
        (DummyRegressor().fit([[0]], [0]), "DummyRegressor"),
        (None, "NoneType"),
        (SubquadMLPRegressor, "the class SubquadMLPRegressor"),
        (GridSearchCV(SubquadMLPRegressor(), {}), "GridSearchCV. Of a search .*, pass best_estimator_"),
        (make_pipeline(StandardScaler(), Ridge()), "a Pipeline that ends in Ridge"),
        (Pipeline([]), "Pipeline"),
        (make_pipeline(SubquadMLPRegressor(), "passthrough"), "a Pipeline whose last step is 'passthrough'"),
    ],
)
def test_other_estimators_are_refused(estimator, got, pyplot):
    with pytest.raises(TypeError, match=f"estimator must be a fitted SubquadMLPRegressor .*got {got}"):
        FitDisplay.from_estimator(estimator)


def test_the_estimator_is_not_changed(pyplot):
    model = fitted(early_stopping="loo")
    before = pickle.dumps(model)
    display = FitDisplay.from_estimator(model)
    assert pickle.dumps(model) == before
    # Nor by what is done to the display.
    display.loss_curve.append(1.0)
    display.density_curve[:] = 0.0
    display.rank_curve.clear()
    display.error_curve.clear()
    display.phase_times.clear()
    assert pickle.dumps(model) == before


def test_curves_take_little_of_a_pickle():
    model = fitted(early_stopping=False, tol=0.0)
    size = len(pickle.dumps(model))
    del model.density_curve_, model.rank_curve_
    # Three densities of eight bytes and an integer for each of six steps and the start, and what pickle adds.
    assert 0 < size - len(pickle.dumps(model)) < 7 * (3 * 8 + 5) + 300


# ---- matplotlib ---------------------------------------------------------------------------------------------


def test_without_matplotlib_the_error_says_what_to_install(model, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    # As if it could not be found.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"FitDisplay.from_estimator requires matplotlib.*pip install matplotlib"):
        FitDisplay.from_estimator(model)
    display = FitDisplay(loss_curve=[1.0], best_iter=0, density_curve=[[0.1]], rank_curve=[0], phase_times={})
    with pytest.raises(ImportError, match=r"FitDisplay.plot requires matplotlib"):
        display.plot()


def test_matplotlib_is_imported_by_the_first_plot_only():
    code = "import sys, sklearn_subquad.plotting as p; print(p.FitDisplay.__name__, 'matplotlib' in sys.modules)"
    printed = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["FitDisplay", "False"]


def test_docstring_examples(pyplot):
    result = doctest.testmod(plotting)
    assert result.attempted > 0
    assert result.failed == 0
