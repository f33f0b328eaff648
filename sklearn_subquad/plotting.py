"""Figures of a fit, drawn by matplotlib."""

from collections.abc import Iterable, Mapping

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_subquad._base import BaseSubquadMLP
from sklearn_subquad._compat import check_matplotlib_support

__all__ = ["FitDisplay"]

_PANELS = ("loss", "density", "time")
_SCALES = ("auto", "linear", "log")
# What `loss_curve_` is, by the activation that the loss comes with.
_LOSS_NAMES = {
    "identity": "Mean squared error",
    "exp": "Mean Poisson deviance",
    "logistic": "Mean log loss",
    "softmax": "Mean log loss",
}
# yscale="auto": curves that change by less than this factor are as easy to read on a linear scale.
_MIN_RATIO_FOR_LOG = 10.0
# Inches of one panel of a new figure.
_PANEL_WIDTH, _PANEL_HEIGHT = 4.8, 3.8
# Shares of the height that the frame of a legend and a row of it take, and the most that is not left to the curves.
_LEGEND_FRAME, _LEGEND_ROW, _MAX_LEGEND = 0.04, 0.08, 0.6
# Told apart without colours as well, by dashes and markers.
_LOSS_STYLE = {"color": "C0", "marker": "o", "markersize": 4}
_ERROR_STYLE = {"color": "C1", "marker": "s", "markersize": 4, "linestyle": "--"}
_BEST_STYLE = {"color": "0.35", "linestyle": ":"}
_DENSITY_MARKERS = "os^Dv"
_RANK_STYLE = {"color": "0.6", "marker": "|", "drawstyle": "steps-mid"}
_RANK_FILL = "0.92"


class FitDisplay:
    """Learning curve, density and rank over the steps, and phase times of a fit.

    It is recommended to create one by `from_estimator`. What is passed here is kept as attributes of the same names;
    what `plot` draws is kept as attributes that end in an underscore. Needs matplotlib, which is imported by the first
    plot.

    Parameters
    ----------
    loss_curve : array-like of float
        Training loss after 0, 1, ... steps; in batches, of passes 1, 2, ...
    best_iter : int
        Steps or passes behind the returned network.
    density_curve : array-like of shape (n_curve, n_hidden_layers)
        Fraction of active neurons of every hidden layer after 0, 1, ... steps; in batches, of passes 1, 2, ...
    rank_curve : array-like of float of shape (n_curve,)
        Rank of the updates that were pending in the lazy weights, in the same steps or passes.
    phase_times : dict of str to float
        Seconds by phase.
    error_curve : array-like of float or None, default=None
        Early-stopping error after 0, 1, ... steps or passes, in the unit of `loss_curve`.
    in_batches : bool, default=False
        True if the curves are over passes in batches of rows.
    loss_name : str, default="Loss"
        Unit of loss and error, for the axis.
    error_name : str, default="Early-stopping error"
        For the legend.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure of the panels.
    axes_ : ndarray of matplotlib Axes of shape (n_panels,)
        The panels, in the order of `panels`.
    loss_line_, error_line_, best_line_ : matplotlib Line2D or None
        Training loss, early-stopping error and the vertical mark at `best_iter` of the panel "loss". None where it is
        not drawn; `error_line_` also where there is no error.
    density_lines_ : list of matplotlib Line2D or None
        One per hidden layer, in the panel "density". None where it is not drawn, as for the next two.
    rank_ax_ : matplotlib Axes or None
        The axes of the rank, which share the steps with the panel "density" and have their ranks on the right.
    rank_line_ : matplotlib Line2D or None
        Rank of pending updates.
    time_bars_ : matplotlib BarContainer or None
        One bar per phase, in the order of `phase_times` from top to bottom. None where the panel "time" is not drawn.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores against the number of training rows instead.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_subquad import SubquadMLPRegressor
    >>> from sklearn_subquad.plotting import FitDisplay
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SubquadMLPRegressor(hidden_layer_sizes=(64, 64), random_state=0).fit(X, y)
    >>> display = FitDisplay.from_estimator(model)
    >>> len(display.axes_)
    3
    >>> len(display.loss_line_.get_ydata()) == model.n_iter_ + 1
    True
    """

    def __init__(
        self,
        *,
        loss_curve,
        best_iter,
        density_curve,
        rank_curve,
        phase_times,
        error_curve=None,
        in_batches=False,
        loss_name="Loss",
        error_name="Early-stopping error",
    ):
        self.loss_curve = loss_curve
        self.best_iter = best_iter
        self.density_curve = density_curve
        self.rank_curve = rank_curve
        self.phase_times = phase_times
        self.error_curve = error_curve
        self.in_batches = in_batches
        self.loss_name = loss_name
        self.error_name = error_name

    @classmethod
    def from_estimator(cls, estimator, *, panels="all", ax=None, yscale="auto", line_kw=None, bar_kw=None):
        """Plot how the fit of an estimator went.

        Parameters
        ----------
        estimator : SubquadMLPRegressor, SubquadMLPClassifier or Pipeline
            Fitted; of a pipeline, the last step is taken, which is to be one of the two. It is not changed.
        panels : "all", {"loss", "density", "time"} or sequence of them, default="all"
            Panels to draw, see `plot`.
        ax : matplotlib Axes, array-like of Axes or None, default=None
            Where to draw, see `plot`.
        yscale : {"auto", "linear", "log"}, default="auto"
            Scale of losses and errors, see `plot`.
        line_kw, bar_kw : dict or None, default=None
            Properties of lines and bars, see `plot`.

        Returns
        -------
        display : FitDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If `estimator` is neither of the two nor a pipeline that ends in one, or a parameter is of a wrong type.
        NotFittedError
            If it is not fitted.
        ValueError
            If a parameter has a wrong value.

        Notes
        -----
        With another ``scoring`` than "loss" the early-stopping error is minus the score.

        Of several networks, the seconds are of all together, and everything else is of the one that took most steps. In
        batches the loss of a pass is that before each batch's step, hence higher than after the pass, and the error is
        that of the average after it.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        estimator = _subquad_estimator(estimator)
        check_is_fitted(estimator)
        error_curve, error_name = None, "Early-stopping error"
        if hasattr(estimator, "loo_curve_"):
            error_curve, error_name = list(estimator.loo_curve_), "Leave-one-out error"
        elif hasattr(estimator, "validation_scores_") and estimator.scoring == "loss":
            error_curve, error_name = [1.0 - score for score in estimator.validation_scores_], "Held-out error"
        elif hasattr(estimator, "validation_scores_"):
            # Falling where the fit gets better, like the loss beside it.
            error_curve, error_name = [-score for score in estimator.validation_scores_], "Minus the held-out score"
        display = cls(
            loss_curve=list(estimator.loss_curve_),
            best_iter=estimator.best_iter_,
            density_curve=estimator.density_curve_.copy(),
            rank_curve=list(estimator.rank_curve_),
            phase_times=dict(estimator.phase_times_),
            error_curve=error_curve,
            # Only steps on all rows have a start of their own, before the first.
            in_batches=len(estimator.rank_curve_) == estimator.n_iter_,
            loss_name=_loss_name(estimator),
            error_name=error_name,
        )
        return display.plot(ax, panels=panels, yscale=yscale, line_kw=line_kw, bar_kw=bar_kw)

    def plot(self, ax=None, *, panels="all", yscale="auto", line_kw=None, bar_kw=None):
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of Axes or None, default=None
            One Axes per panel, in any shape; a single one for a single panel. None makes a new figure with the panels
            side by side.
        panels : "all", {"loss", "density", "time"} or sequence of them, default="all"
            Panels to draw, in order: "loss" is the training loss and the early-stopping error over the steps, with a
            mark at the returned network; "density" the fraction of active neurons of every layer and, on an axis to the
            right, the rank of the updates that were pending; "time" the seconds of every phase. "all" is all three.
        yscale : {"auto", "linear", "log"}, default="auto"
            Scale of losses and errors. "auto" is "log" where all of them are positive and finite and the largest is at
            least ten times the smallest.
        line_kw : dict or None, default=None
            Properties of all curves, as of `matplotlib.lines.Line2D`.
        bar_kw : dict or None, default=None
            Properties of the bars, as of `matplotlib.patches.Rectangle`.

        Returns
        -------
        display : FitDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If `line_kw` or `bar_kw` is no dict, or `ax` holds something else than Axes.
        ValueError
            If `panels` or `yscale` is unknown, a panel is asked for twice, `ax` has not one Axes per panel, or one of
            them twice.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        panels = _checked_panels(panels)
        if not isinstance(yscale, str) or yscale not in _SCALES:
            raise ValueError(f"yscale must be one of {_listed(_SCALES)}; got {yscale!r}.")
        line_kw, bar_kw = _checked_properties("line_kw", line_kw), _checked_properties("bar_kw", bar_kw)
        self.axes_ = _axes_of_panels(ax, panels)
        self.figure_ = self.axes_[0].figure
        self.loss_line_ = self.error_line_ = self.best_line_ = None
        self.density_lines_ = self.rank_ax_ = self.rank_line_ = None
        self.time_bars_ = None
        for panel, panel_ax in zip(panels, self.axes_, strict=True):
            if panel == "loss":
                self._plot_loss(panel_ax, yscale, line_kw)
            elif panel == "density":
                self._plot_density(panel_ax, line_kw)
            else:
                self._plot_times(panel_ax, bar_kw)
        return self

    def _steps(self, curve):
        """The step or pass of every entry of a curve that starts with the fit."""
        return np.arange(len(curve)) + bool(self.in_batches)

    def _plot_loss(self, ax, yscale, line_kw):
        (self.loss_line_,) = ax.plot(
            self._steps(self.loss_curve), self.loss_curve, **_styled(_LOSS_STYLE, line_kw, label="Training loss")
        )
        values = np.asarray(self.loss_curve, dtype=np.float64)
        if self.error_curve is not None:
            # Also in batches there is one before the first pass: that of the constant model.
            (self.error_line_,) = ax.plot(
                np.arange(len(self.error_curve)),
                self.error_curve,
                **_styled(_ERROR_STYLE, line_kw, label=self.error_name),
            )
            values = np.concatenate([values, np.asarray(self.error_curve, dtype=np.float64)])
        unit = "pass" if self.in_batches else "step"
        self.best_line_ = ax.axvline(self.best_iter, **_BEST_STYLE, label=f"Returned ({unit} {self.best_iter})")
        if yscale == "auto":
            yscale = "log" if _spans_decades(values) else "linear"
        ax.set(title="Learning curve", ylabel=self.loss_name, yscale=yscale)
        self._label_steps(ax)
        ax.legend()

    def _plot_density(self, ax, line_kw):
        densities = np.asarray(self.density_curve, dtype=np.float64)
        self.density_lines_ = []
        for layer, curve in enumerate(densities.T):
            style = {"color": f"C{layer}", "marker": _DENSITY_MARKERS[layer % len(_DENSITY_MARKERS)], "markersize": 4}
            label = f"Density, layer {layer + 1}"
            self.density_lines_ += ax.plot(self._steps(curve), curve, **_styled(style, line_kw, label=label))
        self.rank_ax_ = ax.twinx()
        steps = self._steps(self.rank_curve)
        (self.rank_line_,) = self.rank_ax_.plot(
            steps, self.rank_curve, **_styled(_RANK_STYLE, line_kw, label="Pending rank (right)")
        )
        # An area behind the densities, which no line of theirs can be taken for.
        self.rank_ax_.fill_between(steps, self.rank_curve, step="mid", color=_RANK_FILL)
        ax.set_zorder(self.rank_ax_.get_zorder() + 1)
        ax.patch.set_visible(False)
        highest = np.max(self.rank_curve, initial=1.0)
        self.rank_ax_.set(ylabel="Rank of pending updates", ylim=(0, 1.05 * highest))
        _whole_ticks(self.rank_ax_.yaxis)
        ax.set(title="Activity and rank", ylabel="Fraction of active neurons")
        self._label_steps(ax)
        handles = [*self.density_lines_, self.rank_line_]
        # Above all curves: they are of two kinds, and no other place is surely free.
        legend = min(_LEGEND_FRAME + _LEGEND_ROW * -(-len(handles) // 2), _MAX_LEGEND)
        for axes in (ax, self.rank_ax_):
            bottom, top = axes.get_ylim()
            axes.set_ylim(bottom, bottom + (top - bottom) / (1 - legend))
        ax.legend(handles=handles, loc="upper center", ncols=2)

    def _plot_times(self, ax, bar_kw):
        seconds = list(self.phase_times.values())
        self.time_bars_ = ax.barh(list(self.phase_times), seconds, **_styled({"color": "C0"}, bar_kw))
        ax.bar_label(self.time_bars_, fmt=_readable_seconds, padding=3)
        # The first phase on top, and room for the numbers.
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set(title=f"Phase times, {_readable_seconds(sum(seconds))} s in all", xlabel="Seconds")

    def _label_steps(self, ax):
        ax.set_xlabel("Pass" if self.in_batches else "Step")
        _whole_ticks(ax.xaxis)


def _subquad_estimator(estimator):
    """The estimator itself, or the last step of a pipeline, or of a pipeline within it."""
    last = estimator
    while isinstance(last, Pipeline) and last.steps:
        last = last.steps[-1][1]
    if isinstance(last, BaseSubquadMLP):
        return last
    got = f"the class {last.__name__}" if isinstance(last, type) else type(last).__name__
    if last is not estimator:
        got = f"a Pipeline whose last step is {last!r}" if isinstance(last, str) else f"a Pipeline that ends in {got}"
    raise TypeError(
        "estimator must be a fitted SubquadMLPRegressor or SubquadMLPClassifier, or a Pipeline whose last step is one; "
        f"got {got}. Of a search such as GridSearchCV, pass best_estimator_."
    )


def _loss_name(estimator):
    name = _LOSS_NAMES[estimator.out_activation_]
    # Their targets have unit variance while they are fitted.
    scaled = estimator.out_activation_ == "identity" and not is_classifier(estimator)
    return f"{name} / variance" if scaled else name


def _checked_panels(panels):
    """Names of the panels to draw, as a tuple."""
    if isinstance(panels, str):
        chosen = _PANELS if panels == "all" else (panels,)
    else:
        chosen = tuple(panels) if isinstance(panels, Iterable) else ()
    known = all(isinstance(panel, str) and panel in _PANELS for panel in chosen)
    if not chosen or not known or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"panels must be 'all', one of {_listed(_PANELS)}, or a sequence of different ones; got {panels!r}."
        )
    return chosen


def _checked_properties(name, properties):
    """A dict of properties of artists."""
    if properties is not None and not isinstance(properties, Mapping):
        raise TypeError(f"{name} must be a dict of matplotlib properties or None; got {properties!r}.")
    return dict(properties or {})


def _axes_of_panels(ax, panels):
    """One Axes per panel, as a one-dimensional array: those given, or those of a new figure."""
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        size = (_PANEL_WIDTH * len(panels), _PANEL_HEIGHT)
        return plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)[1][0]
    axes = np.array([ax] if isinstance(ax, Axes) else ax, dtype=object).ravel()
    if not all(isinstance(one, Axes) for one in axes):
        raise TypeError(f"ax must be a matplotlib Axes, an array-like of them, or None; got {ax!r}.")
    if len(axes) != len(panels) or len(set(axes)) < len(axes):
        different = len(set(axes))
        raise ValueError(
            f"ax must hold one Axes per panel, here {len(panels)} ({', '.join(panels)}), but it holds {different} "
            "different ones. Pass as many, or choose fewer panels by `panels`."
        )
    return axes


def _styled(defaults, properties, **fixed):
    """Properties of artists: the user's own, under whichever of their names, in place of the defaults."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {**defaults, **fixed, **normalize_kwargs(properties, Line2D)}


def _spans_decades(values):
    """Return True if values are easier to read on a logarithmic scale, and can be drawn on one."""
    drawable = len(values) > 0 and np.isfinite(values).all() and values.min() > 0
    return bool(drawable and values.max() >= _MIN_RATIO_FOR_LOG * values.min())


def _whole_ticks(axis):
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _readable_seconds(seconds):
    """Two digits, or whole seconds from ten on."""
    return f"{seconds:.2g}" if seconds < 9.5 else f"{seconds:.0f}"


def _listed(names):
    return ", ".join(repr(name) for name in names)
