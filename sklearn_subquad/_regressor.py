"""The regressor."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d

from sklearn_subquad._compat import StrOptions, check_sample_weight, fit_context
from sklearn_subquad._fit.data import GivenRows
from sklearn_subquad._fit.part_statistics import Moments
from sklearn_subquad._fit.plan import resolve_architecture
from sklearn_subquad._parts import FitsParts
from sklearn_subquad._utils.dask_collections import in_memory, of_collections
from sklearn_subquad._utils.missing import numeric_targets
from sklearn_subquad._utils.typing import MatrixLike


class SubquadMLPRegressor(MultiOutputMixin, RegressorMixin, FitsParts):
    """Very wide multi-layer perceptron for regression, trained by Gauss-Newton at subquadratic cost.

    Minimises the squared error or the Poisson deviance by damped Gauss-Newton steps [1]_, on all rows or, where there
    are many, on batches of them. There is no learning rate; ten to twenty steps are enough. For n rows a step and
    width m, s = density * m of which are active per row, one step costs n * m * s + n * n * s operations per layer and
    a factorisation of an n * n matrix, and forms nothing of size m * m. In batches, averages of the iterates take up
    to two more copies of the weights, and m * m operations a step; steps that go through no Gram matrix because n is
    large form one change of the weights, of size m * m.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(512, 512)
        Widths of the hidden layers. Wider is usually better and never needs another setting to be changed.
    loss : {"squared_error", "poisson"}, default="squared_error"
        Loss to minimise. "poisson" is half the Poisson deviance with log link, for counts and other targets >= 0:
        predictions are positive.
    sparsifier : {"shifted_relu", "topk"}, default="shifted_relu"
        Activation that keeps few neurons active per row: ``max(z - shift, 0)`` with a calibrated shift, or
        the same on exactly the ``round(density * width)`` largest z of each row.
    density : "auto", float or sequence of float, default="auto"
        Fraction of active neurons aimed at, in (0, 0.5]; one number, or one per hidden layer. "auto" is
        width^(-1/5) ([1]_), 0.25 at width 1024. 0.5 is the ordinary ReLU. Shifts are calibrated as if pre-activations
        were normal: `densities_` says what came out, 0.22 instead of 0.25 where neurons start on single features.
    skip_connections : bool, default=True
        Feed the features to every layer and to the output. Without them a sparse network generalises poorly.
    init : {"axis_aligned", "gaussian"}, default="axis_aligned"
        Initial weights of the features. "axis_aligned" starts every neuron on one feature, as many on each as its share
        of the variance; "gaussian" on all of them, as in [1]_. Training changes all weights either way. The first is
        better on most tables, where features mean something one by one; the second where they do not, as in spectra.
    init_scale : "auto" or float, default="auto"
        Standard deviation of the output weights at the start, for targets of unit variance. Small values let
        the hidden layers learn features, values of 1 and more give kernel regression. "auto" is
        0.05 * sqrt(2048 / width of the last layer) where the features have up to 10 effective dimensions (exp of the
        entropy of the spectrum of their covariance, after scaling), 1 from 20 on, and grows in between.
    damping : "auto" or float, default="auto"
        Levenberg-Marquardt damping of the first step, relative to the mean diagonal of J J^T; it adapts from
        there. "auto" is three times the leave-one-out optimum of the first step, and at least 0.3; in batches of the
        squared error, that optimum, and at least 0.01, in `partial_fit` 0.1.
    max_rank : "auto" or int, default="auto"
        Rank-one updates beyond which a weight matrix folds its factors in, after the step that exceeded it.
        "auto" balances passes over the weights with what pending factors add to every query, and folds in before a
        query that would cost more than that. It changes the speed and, by rounding, the last digits.
    matmul : {"auto", "scatter", "blas", "strassen"}, default="auto"
        Route by which factors are folded in: sparse products, dense BLAS, or Strassen's algorithm over BLAS, which has
        an effect from 2,048 rows and widths of 8,192 on. "auto" takes the fastest by a cost model
        with fixed figures for every SIMD level, so that all processes on a machine choose the same.
    preconditioner : {"auto", "gram", "sketch", "none"}, default="auto"
        Preconditioner of the conjugate gradients in every step: the Gram matrix that all outputs share, a
        sketch of it, or none. "auto" is "gram" while that is cheaper by a cost model (up to some 4,000 rows a step at
        width 1024, twice as many at 4096), or where leave-one-out errors need it, and "sketch" beyond. With one output
        "gram" solves the system directly.
    sketch : {"tensor_srht", "tensor_sketch"}, default="tensor_srht"
        Kind of sketch where the preconditioner is one, also by "auto".
    sketch_size : "auto" or int, default="auto"
        Columns of the sketch; "auto" is twice the number of rows of a step, and at most 2,048.
    cg_tol : "auto" or float, default="auto"
        Relative residual at which the conjugate gradients stop. "auto" is 0.1 for the squared error and 0.01 for other
        losses, in batches 0.3 and 0.1.
    max_cg_iter : int, default=50
        Conjugate gradient iterations per inner solve at most. If that is too few for most solves of a fit, there is a
        ConvergenceWarning (in batches none).
    max_iter : int, default=20
        Gauss-Newton steps at most; passes over the rows where they are fitted in batches.
    batch_size : "auto" or int, default="auto"
        Rows that a step uses. Up to so many rows, counted before any are held out, every step uses all; more are
        shuffled and cut into equal batches in every pass, the damping keeps a step from forgetting other batches, and
        the fitted weights are an average of the iterates. "auto" fits up to 1,000 rows at once and more in batches of
        at most 256. With ``loss="poisson"`` or ``early_stopping="loo"`` the numbers are 4,096 and 2,048, of several
        outputs 1,024 and 1,024.
    tol : float, default=1e-3
        Relative improvement below which a step counts as no change.
    early_stopping : {"auto", "loo", "validation"} or False, default="auto"
        Choice of the number of steps. "validation" holds rows out of every network (`n_folds`), whose error says which
        of its iterates is kept. "loo" follows an approximate leave-one-out error of the squared error and returns the
        best iterate. False takes steps until the training loss does not fall any more.
        "auto" is "validation" for 100 rows or more, in batches and for other losses than the squared error, else "loo".
    scoring : "loss", str, callable or None, default="loss"
        Criterion that says when to stop, on held-out rows or on the validation set: their loss, or a score (higher is
        better). A name is one of :func:`sklearn.metrics.get_scorer_names`; a callable takes ``(estimator, X, y)`` and
        returns a number; None stands for the estimator's own `score`. Where `fit` has weights, it is also passed those
        of the rows as ``sample_weight``. With a score ``early_stopping="auto"`` is "validation".
    n_folds : "auto" or int, default="auto"
        Networks that are fitted for ``early_stopping="validation"``, each without one fold of the rows, which says when
        it stops. Predictions are the mean of their outputs, in which kinds of networks (`n_bins`) count by
        their errors out of fold. "auto" takes eight up to 5,000 rows and four of more. 1 is a single network, which is
        fitted without `validation_fraction` of the rows. A fit that goes on from another has as many networks as that.
    validation_fraction : float, default=0.1
        Fraction of rows that a single network holds out, whose error says which of its iterates is kept.
    n_iter_no_change : int, default=2
        Steps without improvement after which the fit stops, and one more while none has improved on the constant model;
        in batches, at the end of a pass.
    n_bins : "auto", int or None, default="auto"
        Piecewise-linear encoding: beside every feature, ramps that rise from 0 to 1 between two neighbouring ones of
        `n_bins` + 1 (weighted) quantiles of the training rows, or between its values where these are fewer [2]_. A
        value that many rows share counts for one bin.
        Thresholds and steps in single features are then learned from few rows. Features of one or two values have none.
        "auto" takes the cube root of the number of rows up to 8, or what gives 16 columns in all if bins then have ten
        rows, at most 256 columns over the number of features, and none where fewer than three bins are left. All ramps
        of a feature together have its variance. Of four networks the second then has none, and the fourth up to 16
        that have its variance each. None leaves features as they are, which suits smooth functions of few features and
        features that are alike, such as pixels. A fit that goes on from another keeps its ramps.
    categorical_features : "from_dtype", array-like of bool, int or str, or None, default="from_dtype"
        Columns of X that hold categories: a mask, indices, or names of columns. "from_dtype" takes, of a frame (pandas,
        polars, pyarrow), columns whose dtype is one of categories, and columns of words unless all are numbers; of
        anything else none. None takes numbers only. Two levels are one column, up to 16 a column each; of more, every
        network learns means of the targets from rows that it is fitted to. Levels that `fit` has not seen say nothing.
    standardize : bool, default=True
        Centre and scale every feature inside (weighted by `sample_weight`), such that no deviation from the
        mean exceeds 6. Features with values beyond five interquartile ranges from the median are squashed to three on
        either side. Without it, features should be centred and of unit scale already.
    precision : {"auto", "single", "double"}, default="auto"
        Of the weights and of what is computed with them, whatever the dtype of X, which is scaled in double precision
        before. "auto" is "double" below 100 rows, where that takes little longer, and "single" from there on and in
        `partial_fit`. "double" takes twice the memory and up to twice the time. It is for targets without noise that
        are to be met to a hundred-thousandth of their range and less, and for predictions whose small differences
        count, as in derivatives by finite differences. A fit that goes on from another keeps its precision.
    n_jobs : int or None, default=None
        Threads, as in joblib; fits whose steps are too short to share (fewer than 100,000 rows times neurons) use one.
        None follows ``joblib.parallel_config``, is one in the threads of a joblib pool, and else the present thread
        limit of BLAS, hence that of ``threadpoolctl.threadpool_limits`` and joblib's worker processes. Up to about
        2,000 rows the result is the same to the bit for every number; beyond, factorisations by threaded BLAS are the
        same to rounding.
    random_state : int, RandomState instance or None, default=None
        Determines the initial weights, held-out rows, probes and sketches.
    warm_start : bool, default=False
        Let `fit` go on from the weights that were fitted before, with the scaling of the features that they have;
        the shape of the network and the classes must be the same. Held-out rows are rows that the earlier fit may have
        seen: pass a validation set to it and to this one, or use ``early_stopping=False``.
    verbose : int or bool, default=0
        Print the plan of the fit, in which every "auto" is resolved, and a line per step or pass.

    Attributes
    ----------
    estimators_ : list of SubquadMLPRegressor
        Fitted estimators of one network each, made at every access. Of several networks, attributes below that describe
        a fit are those of the one that took most steps, seconds are summed over all, and `coefs_`, `intercepts_`,
        `shifts_` and `gains_` are there for each of these only. The first two alone know deviations of predictions,
        which stand for those of all.
    feature_importances_ : ndarray of shape (`n_features_in_`,)
        How much the outputs change with each feature, of sum one (zeros of a constant model): from the average gradient
        outer product, the mean squared change of the linearised network as a feature alone takes its values in the
        training rows, summed over outputs; the weighted mean of several networks. After `partial_fit`, of all parts.
    coefs_ : list of ndarray
        Weights, as dense arrays built at every access. With skip connections item l has shape
        ``(m_l + d, m_{l+1})``, m_0 being 0: first the rows that meet the hidden layer before, then those that meet the
        d scaled features and ramps, ``(x - mean) / scale / sqrt(d)``; d is `n_features_in_` with ``n_bins=None``.
        Without skip connections, item 0 has shape ``(d, m_1)``, the others ``(m_l, m_{l+1})``. Of one network only.
    intercepts_ : list of ndarray of shape (m_{l+1},)
        The constant's share of each layer's pre-activations; zero where nothing meets the features.
    shifts_, gains_ : ndarray of shape (n_hidden_layers,)
        Hidden layer l is ``gains_[l] * max(g @ coefs_[l] + intercepts_[l] - shifts_[l], 0)``; with "topk" it is
        the same without the maximum on the active neurons and zero on the others.
    densities_ : ndarray of shape (n_hidden_layers,)
        Fraction of active neurons, measured on the training rows after the fit.
    init_ : str
        Kind of the initial weights, "axis_aligned" or "gaussian".
    init_scale_ : float
        Standard deviation of the output weights at the start.
    damping_ : float
        Damping that the next step would have started from; nan for "auto" if no step was tried.
    n_iter_ : int
        Steps taken; in batches, passes.
    best_iter_ : int
        Steps behind the returned network; in batches, passes.
    n_cg_iter_ : list of int
        Inner iterations of every step, rejected attempts included; a direct solve counts as one.
    loss_curve_ : list of float
        Mean squared error in units of the targets' variance (1: as good as the mean), or mean deviance for
        ``loss="poisson"``, after 0 (the random start), 1, ... steps. In batches, for every pass the mean over them
        of the loss before each one's step.
    loo_curve_ : list of float
        Leave-one-out error after 0 (the mean), 1, ... steps, in the units of `loss_curve_`. Only for
        ``early_stopping="loo"``.
    validation_scores_ : list of float
        One minus the error on the held-out rows, in the units of `loss_curve_`, or the score that `scoring` names,
        after 0 (the mean), 1, ... steps; in batches, of the average after every pass. Only for
        ``early_stopping="validation"``.
    density_curve_ : ndarray of shape (`n_iter_` + 1, n_hidden_layers)
        Fraction of active neurons of every hidden layer, as the mean over the fitted rows after 0 (the random start),
        1, ... `n_iter_` steps; row `best_iter_` is of the returned network. In batches, of shape
        (`n_iter_`, n_hidden_layers): for every pass the mean over its rows, each batch's counted before its step.
    rank_curve_ : list of int
        Rank-one updates that were pending as factors during steps 1, ... `n_iter_`, at most and in the weight matrix
        that held the most, after a 0 for the start. It rises from step to step while factors wait and falls once
        they were folded in; always 0 with one hidden layer. In batches, `n_iter_` floats, means over the passes' steps.
    rank_ : int
        Largest number of rank-one updates that a weight matrix held as factors during the fit.
    phase_times_ : dict of str to float
        Seconds by phase: init, forward, jacobian, solve, update, flush, stopping, covariance.
    oof_prediction_ : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Out-of-fold predictions, of every training row by the network that did not see it; nan for rows of weight zero.
        Only of several networks, as is `oof_score_`, and not of a fit that went on from another: all have seen all
        rows.
    oof_score_ : float
        Their coefficient of determination, weighted by `sample_weight`. The mean of the networks is a little better.
    stop_reason_ : str
        Why the fit ended.
    n_layers_ : int
        Number of layers, with the input and output layers.
    n_outputs_ : int
        Number of targets.
    out_activation_ : str
        "identity"; with ``loss="poisson"`` "exp".
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, where X has string column names.

    See Also
    --------
    SubquadMLPClassifier : The same for classification.
    sklearn_subquad.plotting.FitDisplay : Draws how a fit went, from the attributes above.

    Notes
    -----
    The network computes in `precision`, and predictions have X's dtype. In single precision the prediction of a row
    changes by some 1e-6 of the targets' range with the rows that are predicted beside it. A step on n rows keeps
    several n x n matrices of doubles.

    References
    ----------
    .. [1] Z. Song, L. Zhang, R. Zhang, "Training Multi-Layer Over-Parametrized Neural Networks in
       Subquadratic Time", arXiv:2112.07628, ITCS 2024.
    .. [2] Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep learning",
       NeurIPS 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_subquad import SubquadMLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SubquadMLPRegressor(hidden_layer_sizes=(256, 256), random_state=0).fit(X[:300], y[:300])
    >>> model.score(X[300:], y[300:]) > 0.3
    True
    """

    _parameter_constraints = FitsParts._parameter_constraints | {
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    oof_prediction_: NDArray[np.floating]

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (512, 512),
        loss: Literal["squared_error", "poisson"] = "squared_error",
        sparsifier: Literal["shifted_relu", "topk"] = "shifted_relu",
        density: Literal["auto"] | float | Sequence[float] = "auto",
        skip_connections: bool = True,
        init: Literal["axis_aligned", "gaussian"] = "axis_aligned",
        init_scale: Literal["auto"] | float = "auto",
        damping: Literal["auto"] | float = "auto",
        max_rank: Literal["auto"] | int = "auto",
        matmul: Literal["auto", "scatter", "blas", "strassen"] = "auto",
        preconditioner: Literal["auto", "gram", "sketch", "none"] = "auto",
        sketch: Literal["tensor_srht", "tensor_sketch"] = "tensor_srht",
        sketch_size: Literal["auto"] | int = "auto",
        cg_tol: Literal["auto"] | float = "auto",
        max_cg_iter: int = 50,
        max_iter: int = 20,
        batch_size: Literal["auto"] | int = "auto",
        tol: float = 1e-3,
        early_stopping: Literal["auto", "loo", "validation", False] = "auto",
        scoring: str | Callable[..., float] | None = "loss",
        n_folds: Literal["auto"] | int = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        n_bins: Literal["auto"] | int | None = "auto",
        categorical_features: Literal["from_dtype"] | ArrayLike | None = "from_dtype",
        standardize: bool = True,
        precision: Literal["auto", "single", "double"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int | bool = 0,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            loss=loss,
            sparsifier=sparsifier,
            density=density,
            skip_connections=skip_connections,
            init=init,
            init_scale=init_scale,
            damping=damping,
            max_rank=max_rank,
            matmul=matmul,
            preconditioner=preconditioner,
            sketch=sketch,
            sketch_size=sketch_size,
            cg_tol=cg_tol,
            max_cg_iter=max_cg_iter,
            max_iter=max_iter,
            batch_size=batch_size,
            tol=tol,
            early_stopping=early_stopping,
            scoring=scoring,
            n_folds=n_folds,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            n_bins=n_bins,
            categorical_features=categorical_features,
            standardize=standardize,
            precision=precision,
            n_jobs=n_jobs,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
        )

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame} of shape (n_samples, n_features)
            Features; numbers that are not float32 become float64. At least two rows. Columns of categories and of words
            (`categorical_features`) are encoded. NaN, None and pandas.NA are gaps: a column with gaps has another one
            beside it that says where; one that has none here has its mean where there is a gap at prediction. A sparse
            matrix stays sparse, has neither, and gives what the same rows give as an array, to rounding. Where it has
            more columns than rows are fitted, the model keeps the fitted rows: the weights of the features are
            combinations of them. Of Dask arrays and data frames, which y and weights are then as well, partitions are
            fitted as the parts of `fit_parts`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets. Dates (in UTC, where they have a time zone) and durations are numbers in their own unit, such as
            nanoseconds since 1970, and so are predictions then. None may be missing.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative weights, of which only ratios count: multiplying all by a number changes nothing but rounding.
            A row of weight 2 is the same as two equal rows, one of weight 0 as none; rows that are equal in X and y are
            one row whose weight is the sum of theirs. A row that is held or left out to say when to stop is left out
            whole, whatever it weighs.
        X_val, y_val, sample_weight_val : array-like or None, default=None
            A validation set like the above, whose error says when to stop in the place of held-out rows. All rows of X
            are then fitted from the start. Needs ``early_stopping`` "validation" or "auto".

        Returns
        -------
        self : SubquadMLPRegressor

        Raises
        ------
        ValueError
            For infinite values, missing targets, columns that are neither numbers nor categories, lengths that differ,
            bad weights or invalid parameters; the message says which.
        MemoryError
            Where the machine has less memory than the fit takes, before any of it is allocated.

        Notes
        -----
        A fit that is refused for its data, fails or is interrupted leaves the estimator unfitted, or with
        ``warm_start=True`` as it was.
        """
        if self._takes_collections(X, y, X_val, y_val):
            return self._fit_collections(X, y, sample_weight)
        architecture, score, start = self._beginning()
        y_val = numeric_targets(y_val, "y_val")
        rows, Y, single_output = self._validated(X, y, start, ensure_min_samples=2)

        def encode(y, weights):
            targets = self._targets(y, rows.dtype, "y_val")
            if targets.shape[1] != Y.shape[1]:
                raise ValueError(f"y_val has {targets.shape[1]} columns, but y has {Y.shape[1]}.")
            if self.loss == "poisson" and targets.min() < 0:
                raise ValueError(f"loss='poisson' needs y_val >= 0, but its smallest value is {targets.min():.3g}.")
            return targets, weights

        weights = check_sample_weight(sample_weight, rows)
        validation = self._validation_set(X_val, y_val, sample_weight_val, rows.dtype, encode)
        self._single_output = single_output
        self._fit_network(
            rows,
            Y,
            weights,
            given=GivenRows(X, Y[:, 0] if single_output else Y, None if sample_weight is None else weights),
            score=score,
            architecture=architecture,
            unit_variance_targets=True,
            covariance=self.loss == "squared_error",
            validation=validation,
            start=start,
        )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: MatrixLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Pass once over a part of the data: one step per batch of its rows, from the present weights.

        The damping of a step keeps it close to what earlier parts have taught. Levels of categories that the first part
        does not have are unknown, and a column has gaps of its own if the first part has any. Features and targets are
        scaled as in the first call or the `fit` before it, whose rows should look like those that follow.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            As for `fit`.

        Returns
        -------
        self : SubquadMLPRegressor

        Raises
        ------
        ValueError
            As in `fit`; for another number of targets than before.
        MemoryError
            Where the machine has less memory than the fit takes.

        Notes
        -----
        A call that fails or is interrupted leaves the estimator as it was. `n_iter_` counts calls, after those of a
        `fit` its steps as well. There are no deviations for ``predict(X, return_std=True)`` afterwards.
        """
        start = self._present()
        architecture = resolve_architecture(self, start)
        rows, Y, single_output = self._validated(X, y, start)
        weights = check_sample_weight(sample_weight, rows)
        self._single_output = single_output
        self._fit_part(
            rows,
            Y,
            weights,
            given=GivenRows(X, Y[:, 0] if single_output else Y, None if sample_weight is None else weights),
            architecture=architecture,
            unit_variance_targets=True,
            start=start,
        )
        return self

    def _validated(self, X, y, start, **checks):
        """Features, targets (n x k), and whether y is one column."""
        X, Y, single_output = self._rows_and_targets(X, y, start is None, **checks)
        if start is not None and (Y.shape[1], single_output) != (self.n_outputs_, self._single_output):
            raise ValueError(f"y has {Y.shape[1]} columns, but the model has {self.n_outputs_} targets.")
        return X, Y, single_output

    def _rows_and_targets(self, X, y, reset, **checks):
        y = numeric_targets(y, "y")
        X, y = self._validated_data(X, y, reset, y_numeric=True, **checks)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, self._targets(y, X.dtype), y.ndim == 1

    def _validated_targets(self, X, y, reset):
        X, Y, single_output = self._rows_and_targets(X, y, reset)
        return X, Y[:, 0] if single_output else Y

    def _told_of_targets(self, targets, sample_weight):
        if self.loss == "poisson" and targets.min() < 0:
            raise ValueError(f"loss='poisson' needs y >= 0, but the smallest value of y is {targets.min():.3g}.")
        Y, counted = targets.reshape(len(targets), -1), sample_weight > 0
        return targets.shape[1:], Moments.of_rows(Y[counted], sample_weight[counted])

    def _share_targets(self, parts, told):
        shapes, moments = zip(*told, strict=True)
        for part, shape in zip(parts, shapes, strict=True):
            if shape != shapes[0]:
                raise ValueError(f"y of {part.name} has the columns {shape}, but that of {parts[0].name} {shapes[0]}.")
        self._single_output = not shapes[0]
        return Moments.merged(moments)

    def _encoded(self, targets, sample_weight):
        return targets.reshape(len(targets), -1), sample_weight

    @staticmethod
    def _targets(y, dtype, name="y"):
        Y = y.reshape(len(y), -1).astype(np.float64, copy=False)
        _require_range(Y, dtype, name)
        return Y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags

    @overload
    def predict(self, X: MatrixLike, return_std: Literal[False] = False) -> NDArray[np.floating]: ...

    @overload
    def predict(
        self, X: MatrixLike, return_std: Literal[True]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]: ...

    @overload
    def predict(
        self, X: MatrixLike, return_std: bool
    ) -> NDArray[np.floating] | tuple[NDArray[np.floating], NDArray[np.floating]]: ...

    @of_collections
    def predict(self, X, return_std=False):
        """Predict targets and, if asked, how far they may be from that.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        return_std : bool, default=False
            Return standard deviations of the targets as well. Only for ``loss="squared_error"``.

        Returns
        -------
        y_mean : ndarray of shape (n_samples,) or (n_samples, n_targets)
            In X's dtype for float32 and float64; in double precision where numbers of X's dtype near the mean of y are
            more than about 1e-4 of its standard deviation apart, as for seconds since 1970 that differ by days.
        y_std : ndarray of the same shape and dtype
            Only with ``return_std=True``: standard deviations of new targets about `y_mean`, noise included, in the
            units of y.

        Raises
        ------
        ValueError
            For ``return_std=True`` where the model was fitted with ``loss="poisson"``, whose targets have another
            distribution.

        Notes
        -----
        Deviations are those of the linearised Laplace approximation [1]_: about its last weights the network is taken
        to be linear, with a Gaussian prior on the weights and Gaussian noise of the same variance everywhere. It works
        on sketches of the rows of the Jacobian, of 512 numbers at most, whose covariance is found at the end of `fit`.
        The ratio of prior to noise is chosen by the leave-one-out likelihood of that linear model. The variance of the
        noise is what explains the early-stopping error of the returned network, on rows that were left out or held
        out; with ``early_stopping=False`` there is none, and it is what explains the leave-one-out residuals of the
        linear model, however much worse than that a network is that has fitted the noise as well. For several targets
        the covariance is that of all, and every one has its own noise. Of several networks, the first two, which
        are of two kinds, have a covariance, and their noise is what explains the errors of all networks of that kind.

        References
        ----------
        .. [1] A. Immer, M. Korzepa, M. Bauer, "Improving predictions of Bayesian neural nets via local linearization",
           AISTATS 2021.
        """
        check_is_fitted(self)
        if not return_std:
            return self._predictions(self._outputs(X))
        if self.out_activation_ != "identity":
            raise ValueError(
                "return_std=True needs a model of loss='squared_error', whose noise is Gaussian; this one was fitted "
                "with loss='poisson'."
            )
        if all(laplace is None for *_, laplace in self._models()):
            raise ValueError(
                "return_std=True needs what `fit` finds at its end: partial_fit does not keep it, and of several "
                "networks (estimators_) the first two have it; call fit, or ask the estimator of them all."
            )
        outputs, deviations = self._outputs(X, return_std=True)
        return self._predictions(outputs), deviations[:, 0] if self._single_output else deviations

    def score(self, X: MatrixLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination of predictions; for several targets, the mean of theirs.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets, as for `fit`.
        sample_weight : array-like of shape (n_samples,) or None, default=None

        Returns
        -------
        float
            One for predictions that are right, zero for the mean of y.

        Raises
        ------
        ValueError
            For missing or infinite values and other targets that `fit` refuses.
        """
        # Not with the package: it loads a large part of scikit-learn.
        from sklearn.metrics import r2_score

        y, sample_weight = in_memory(y), in_memory(sample_weight)
        targets = self._scored_targets(numeric_targets(y, "y"))
        return r2_score(targets, in_memory(self.predict(X)), sample_weight=sample_weight)

    def _set_out_of_fold(self, outputs, data):
        # Not with the package: it loads a large part of scikit-learn.
        from sklearn.metrics import r2_score

        predicted, unit = self._expected(outputs), np.abs(data.Y).max() or 1.0
        self.oof_prediction_ = data.of_given(self._predictions(outputs))
        self.oof_score_ = r2_score(data.Y / unit, predicted / unit, sample_weight=data.sample_weight)

    def _expected(self, outputs):
        """Expected targets (n x k)."""
        return self._predictions(outputs).reshape(outputs.shape)

    def _predictions(self, outputs):
        if self.out_activation_ == "exp":
            # Far from the training rows, a count is neither infinite nor zero.
            outputs = np.exp(np.clip(outputs, *log_limits(outputs.dtype)))
        return outputs[:, 0] if self._single_output else outputs


def log_limits(dtype):
    """Least and largest logarithms of counts that are predicted in that dtype."""
    limits = np.finfo(dtype)
    return np.log(limits.tiny) + 1, np.log(limits.max) - 1


def _require_range(Y, dtype, name):
    """As a rule, predictions have X's dtype: refuse targets that it cannot hold, or doubles their differences."""
    largest, limit = np.abs(Y).max(), min(float(np.finfo(dtype).max), np.finfo(np.float64).max / 4)
    if largest > limit:
        raise ValueError(
            f"{name} holds {largest:.3g}, but predictions are {dtype} as X is, and end at {limit:.3g}. Pass X in "
            f"double precision, or scale {name}."
        )
