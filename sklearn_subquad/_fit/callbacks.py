"""Tells scikit-learn's callbacks of the fits that a fit consists of, and of their steps."""

from functools import cached_property

from sklearn_subquad._solver.stopping import StepListener


class CallbackProgress:
    """The tree of tasks that callbacks see: below a call of `fit`, every fit of a network; below that, its steps.

    Parameters
    ----------
    estimator : estimator
        The one that is being fitted.
    context : CallbackContext
        The root of the tree.
    given : GivenRows
        All rows.

    References
    ----------
    The callback protocol of scikit-learn 1.9, `sklearn.callback.FitCallback`.
    """

    def __init__(self, estimator, context, given):
        self._estimator, self._context = estimator, context
        self._hooks = _HookArguments(estimator, lambda: given)
        self._context.call_on_fit_task_begin(**self._hooks.without_model())

    def end(self):
        """Tell that the estimator is fitted."""
        self._context.call_on_fit_task_end(**self._hooks.with_model(dict))

    def fit(self, name, max_steps, given, attributes):
        """The task of one fit, as a context manager.

        Parameters
        ----------
        name : str
            For readers of progress bars and logs.
        max_steps : int
        given : callable
            Returns the rows that are fitted, `GivenRows`.
        attributes : callable
            From the `Judgement` of the network as it is, or None, to the fitted attributes of an estimator that stopped
            there, in memory of their own.
        """
        context = self._context.subcontext(name, max_subtasks=max_steps)
        return WatchedFit(context, _HookArguments(self._estimator, given), attributes)


class WatchedFit(StepListener):
    """One fit as a task whose subtasks are its steps; use it as a context manager.

    Attributes
    ----------
    stopped : bool
        True once a callback has asked to stop.
    """

    def __init__(self, context, hooks, attributes):
        self._context, self._hooks, self._attributes = context, hooks, attributes
        self._step = self._judgement = None
        self.stopped = False

    def __enter__(self):
        self._context.call_on_fit_task_begin(**self._hooks.without_model())
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.stopped |= self._context.call_on_fit_task_end(**self._hooks.with_model(self._model))

    def _model(self):
        return self._attributes(self._judgement)

    def restored(self, history):
        """The network is the best iterate of a fit that has ended."""
        self._judgement = history.best_judgement

    def begin_step(self):
        """Tell that an iteration begins."""
        self._step = self._context.subcontext("step")
        self._step.call_on_fit_task_begin(**self._hooks.without_model())

    def end_step(self, history):
        """Tell that it is over; returns True to stop."""
        self._judgement = history.judgement
        self.stopped |= self._step.call_on_fit_task_end(**self._hooks.with_model(self._model))
        return self.stopped

    def abandon_step(self):
        """Tell that there was none to take."""
        self._step.call_on_fit_task_end(**self._hooks.without_model())


class _HookArguments:
    """Arguments of callbacks' hooks; rows and models are made where a hook asks for them, and rows once."""

    def __init__(self, estimator, given):
        self._estimator, self._given = estimator, given

    @cached_property
    def _rows(self):
        return self._given()

    def _metadata(self):
        weights = self._rows.sample_weight
        return None if weights is None else {"sample_weight": weights}

    def without_model(self):
        return {
            "estimator": self._estimator,
            "X": lambda: self._rows.X,
            "y": lambda: self._rows.y,
            "metadata": self._metadata,
        }

    def with_model(self, attributes):
        return self.without_model() | {"reconstruction_attributes": attributes}
