"""The classifier."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax, logsumexp
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import type_of_target

from sklearn_subquad._compat import StrOptions, check_sample_weight, fit_context
from sklearn_subquad._fit.calibration import logits, project_onto_simplex, scores
from sklearn_subquad._fit.data import GivenRows
from sklearn_subquad._fit.part_statistics import Moments
from sklearn_subquad._fit.plan import resolve_architecture
from sklearn_subquad._labels import (
    LabelCounts,
    encode_labels,
    encode_more_labels,
    one_column_or_labels,
    require_classes,
    require_examples,
    sorted_classes,
    weights_of_classes,
)
from sklearn_subquad._parts import FitsParts
from sklearn_subquad._utils.dask_collections import in_memory, of_collections
from sklearn_subquad._utils.missing import check_targets
from sklearn_subquad._utils.typing import MatrixLike

_MISSING_LABELS = "labels: drop these rows, or give them a class of their own."


class SubquadMLPClassifier(ClassifierMixin, FitsParts):
    """Very wide multi-layer perceptron for classification, trained by Gauss-Newton at subquadratic cost.

    Minimises the squared error of class indicators or the log loss by damped Gauss-Newton steps [1]_, on all rows or,
    where there are many, on batches of them, with one output for two classes and one per class for more. There is no
    learning rate; a handful of steps is enough. For n rows a step and width m, s = density * m of which are active per
    row, one inner iteration costs n * m * s + n * n * s operations per layer, one step a factorisation of an n * n
    matrix (with the log loss some per class), and nothing of size m * m is formed. In batches, averages of the
    iterates take up to two more copies of the weights, and m * m operations a step; steps that go through no Gram
    matrix because n is large form one change of the weights, of size m * m.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(512, 512)
        Widths of the hidden layers. Wider is usually better and never needs another setting to be changed.
    loss : {"squared_error", "log_loss"}, default="squared_error"
        Loss to minimise: the squared error of class indicators, or the log loss of probabilities (softmax; for two
        classes the logistic function).
    class_weight : "balanced", dict, list of dict or None, default=None
        Weight of a row by its class, times `sample_weight`: numbers by class (1 for those not named), or "balanced" for
        n_samples / (n_classes * rows of the class). For several labels a dict for each of them; their weights multiply.
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
        Standard deviation of the output weights at the start, for class indicators (0 and 1). Small values let
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
        the fitted weights are an average of the iterates. "auto" fits up to 256 rows at once and more in batches of at
        most an eighth of all rows, but of 128 at least and of 1,024 at most; with ``loss="log_loss"`` or
        ``early_stopping="loo"`` up to 4,096 rows at once and more in batches of at most 2,048, for more than two
        classes both numbers are 1,024.
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
        it stops. Predictions have the mean of their outputs, or with ``loss="log_loss"`` of their probabilities; kinds
        of networks (`n_bins`) count by their errors out of fold. "auto" takes eight up to 5,000 rows and
        four of more. 1 is a single network, which is fitted without `validation_fraction` of the rows. A fit that goes
        on from another has as many networks as that.
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
        of a feature together have its variance. Every second network then has none. With ``loss="log_loss"``, or from
        1,000 rows on, the second of four has none, and the fourth up to 16 that have its variance each. None leaves
        features as they are, which suits smooth functions of few features and features that are alike, such as pixels.
        A fit that goes on from another keeps its ramps.
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
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    estimators_ : list of SubquadMLPClassifier
        Fitted estimators of one network each, made at every access. Of several networks, attributes below that describe
        a fit are those of the one that took most steps, seconds are summed over all, and `coefs_`, `intercepts_`,
        `shifts_` and `gains_` are there for each of these only.
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
        Mean squared error of the indicators, per row and output, or mean log loss, after 0 (the random start),
        1, ... steps. In batches, for every pass the mean over them of the loss before each one's step.
    loo_curve_ : list of float
        Leave-one-out error after 0 (the mean), 1, ... steps, in the units of `loss_curve_`. Only for
        ``early_stopping="loo"``.
    validation_scores_ : list of float
        One minus the error on the held-out rows, in the units of `loss_curve_`, or the score that `scoring` names,
        after 0 (the class frequencies), 1, ... steps; in batches, of the average after every pass. Only
        for ``early_stopping="validation"``. The error with ``loss="log_loss"`` counts one more row, whose label is the
        most probable one besides its own: what it costs is the mean over the held-out rows, and of fewer than 100 rows
        it is as large a share as of 100, or of all rows where these are fewer.
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
        Seconds by phase: init, forward, jacobian, solve, update, flush, stopping.
    oof_decision_function_ : ndarray of shape (n_samples, n_classes)
        Out-of-fold probabilities, of every training row by the network that did not see it; nan for rows of weight
        zero. Only of several networks, as is `oof_score_`, and not of a fit that went on from another: all have seen
        all rows.
    oof_score_ : float
        Their accuracy, weighted by `sample_weight` and `class_weight`. That of the mean of networks is a little better.
    stop_reason_ : str
        Why the fit ended.
    n_layers_ : int
        Number of layers, with the input and output layers.
    n_outputs_ : int
        Number of network outputs: 1 for two classes, else the number of classes.
    out_activation_ : str
        "identity"; with ``loss="log_loss"`` "logistic" for two classes and "softmax" for more.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, where X has string column names.

    See Also
    --------
    SubquadMLPRegressor : The same for regression.
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
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn_subquad import SubquadMLPClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = SubquadMLPClassifier(hidden_layer_sizes=(256, 256), random_state=0).fit(X[:400], y[:400])
    >>> model.score(X[400:], y[400:]) > 0.95
    True
    """

    # Set by `fit`.
    classes_: NDArray[Any]
    oof_decision_function_: NDArray[np.floating]
    _multilabel: bool

    _parameter_constraints = FitsParts._parameter_constraints | {
        "loss": [StrOptions({"squared_error", "log_loss"})],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (512, 512),
        loss: Literal["squared_error", "log_loss"] = "squared_error",
        class_weight: Literal["balanced"] | dict | list[dict] | None = None,
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
        self.class_weight = class_weight

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: MatrixLike | None = None,
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
        y : {array-like, sparse matrix} of shape (n_samples,) or (n_samples, n_labels)
            Classes, numbers, strings or dates (datetime64), at least two of them in rows of positive weight; or for
            every label whether a row has it, as zeros and ones in two columns or more. None may be missing.
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
        self : SubquadMLPClassifier

        Raises
        ------
        ValueError
            For infinite values, missing targets, columns that are neither numbers nor categories, lengths that differ,
            a single class, continuous labels, bad weights or invalid parameters; the message says which.
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
        check_targets(y, "y", _MISSING_LABELS)
        check_targets(y_val, "y_val", _MISSING_LABELS)
        rows, targets = self._validated_data(X, y, start is None, ensure_min_samples=2)
        classes, codes, indicators = encode_labels(targets)
        if start is not None and (self._multilabel != (codes is None) or not np.array_equal(classes, self.classes_)):
            raise ValueError(
                f"warm_start=True goes on with the classes {self.classes_.tolist()}, but y has {classes.tolist()}. Use "
                "warm_start=False, or partial_fit for rows of some of the classes."
            )

        def encode(y, weights):
            indicators = encode_more_labels(y, classes, codes is None, "y_val")
            return indicators, self._class_weighted(weights, y, classes, indicators, codes is None)

        weights = check_sample_weight(sample_weight, rows)
        given = GivenRows(X, targets, None if sample_weight is None else weights)
        weights = self._class_weighted(weights, targets, classes, indicators, codes is None)
        if codes is not None:
            require_examples(classes, codes, weights, self.loss)
        validation = self._validation_set(X_val, y_val, sample_weight_val, rows.dtype, encode)
        self.classes_ = classes
        self._multilabel = codes is None
        self._fit_network(
            rows,
            indicators,
            weights,
            given=given,
            score=score,
            architecture=architecture,
            unit_variance_targets=False,
            calibration=self.loss == "squared_error",
            validation=validation,
            start=start,
        )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Pass once over a part of the data: one step per batch of its rows, from the present weights.

        The damping of a step keeps it close to what earlier parts have taught. Levels of categories that the first part
        does not have are unknown, and a column has gaps of its own if the first part has any. Features are scaled as in
        the first call or the `fit` before it, whose rows should look like those that follow.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.
        y : {array-like, sparse matrix} of shape (n_samples,) or (n_samples, n_labels)
            Classes or labels, as for `fit`; not all of the classes need to be there.
        classes : array-like of shape (n_classes,) or None, default=None
            All classes of all calls. Needed in the first call, but not for several labels or after `fit`.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            As for `fit`.

        Returns
        -------
        self : SubquadMLPClassifier

        Raises
        ------
        ValueError
            As in `fit`; for classes that are missing in the first call, or others in a later one.
        MemoryError
            Where the machine has less memory than the fit takes.

        Notes
        -----
        A call that fails or is interrupted leaves the estimator as it was. `n_iter_` counts calls, after those of a
        `fit` its steps as well. Probabilities with the squared error are not calibrated, but after a `fit` that was.
        """
        start = self._present()
        architecture = resolve_architecture(self, start)
        check_targets(y, "y", _MISSING_LABELS)
        rows, targets = self._validated_data(X, y, start is None)
        known, multilabel = self._classes_of_all_parts(targets, classes, start)
        indicators = encode_more_labels(targets, known, multilabel)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all rows, which partial_fit does not see; pass a dict of weights."
            )
        weights = check_sample_weight(sample_weight, rows)
        given = GivenRows(X, targets, None if sample_weight is None else weights)
        weights = self._class_weighted(weights, targets, known, indicators, multilabel)
        self.classes_ = known
        self._multilabel = multilabel
        self._fit_part(
            rows,
            indicators,
            weights,
            given=given,
            architecture=architecture,
            unit_variance_targets=False,
            start=start,
        )
        return self

    def _classes_of_all_parts(self, y, classes, start):
        """The classes, and whether they are labels of which rows have any number."""
        if classes is not None:
            classes = sorted_classes(classes)
        if start is not None:
            if classes is not None and not np.array_equal(classes, self.classes_):
                raise ValueError(
                    f"classes are {classes.tolist()}, but those of the calls before are {self.classes_.tolist()}."
                )
            return self.classes_, self._multilabel
        require_classes(y, "y")
        if type_of_target(y) == "multilabel-indicator":
            return np.arange(y.shape[1]), True
        if classes is None:
            raise ValueError("classes must be passed in the first call of partial_fit: all that will ever be seen.")
        if len(classes) < 2:
            raise ValueError(f"classes must hold at least two classes; got {classes.tolist()}.")
        return classes, False

    def _validated_targets(self, X, y, reset):
        check_targets(y, "y", _MISSING_LABELS)
        X, y = self._validated_data(X, y, reset)
        return X, one_column_or_labels(y)

    def _told_of_targets(self, targets, sample_weight):
        return LabelCounts.of_rows(targets, sample_weight)

    def _share_targets(self, parts, told):
        counts = LabelCounts.merged([part.name for part in parts], told)
        if self.class_weight == "balanced":
            self.class_weight = counts.balanced_weights()
        self.classes_, self._multilabel = counts.classes, counts.multilabel
        weights = counts.weights
        if not self._multilabel:
            _, weights = self._encoded(self.classes_, weights)
            require_examples(self.classes_, np.arange(len(weights)), weights, self.loss)
            shares = weights / weights.sum()
            return Moments.of_indicators(shares[1:] if len(shares) == 2 else shares, 1.0)
        # Weights of labels multiply to those of rows: the share of a label in these is not known exactly.
        return Moments.of_indicators(weights, counts.total)

    def _encoded(self, targets, sample_weight):
        Y = encode_more_labels(targets, self.classes_, self._multilabel)
        return Y, self._class_weighted(sample_weight, targets, self.classes_, Y, self._multilabel)

    def _class_weighted(self, sample_weight, *targets):
        """Weights of rows times those of their classes."""
        if self.class_weight is None:
            return sample_weight
        weights = sample_weight * weights_of_classes(self.class_weight, *targets)
        if not (weights > 0).any():
            raise ValueError(
                f"With class_weight={self.class_weight!r} and sample_weight no row has a positive weight; some must "
                "count."
            )
        return weights

    @property
    def _independent_labels(self):
        """True if every output is for or against one label."""
        return self._multilabel or len(self.classes_) == 2

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def score(self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy of predictions; for several labels, the share of rows all labels of which are right.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : {array-like, sparse matrix} of shape (n_samples,) or (n_samples, n_labels)
            Classes or labels, as for `fit`.
        sample_weight : array-like of shape (n_samples,) or None, default=None

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For missing labels.
        """
        # Not with the package: it loads a large part of scikit-learn.
        from sklearn.metrics import accuracy_score

        y, sample_weight = in_memory(y), in_memory(sample_weight)
        check_targets(y, "y", _MISSING_LABELS)
        return accuracy_score(self._scored_targets(y), in_memory(self.predict(X)), sample_weight=sample_weight)

    @of_collections
    def decision_function(self, X: MatrixLike) -> NDArray[np.floating]:
        """Scores whose sign or maximum decides the class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Two classes: the fitted indicator mapped to -1 and 1, or the log odds of the second class with
            ``loss="log_loss"``; for several labels the same of each. More classes: the fitted indicator, or the
            logarithm of the probability to a constant, of each.
        """
        values = self._scores(self._outputs(X))
        return values if self._multilabel or len(self.classes_) > 2 else values[:, 0]

    def _scores(self, outputs):
        """Scores that decide on labels by their sign, or on the class by their maximum."""
        return outputs if self._uses_log_loss else scores(outputs, self._independent_labels)

    @property
    def _uses_log_loss(self):
        """True if the outputs of the fitted network are logarithms of probabilities, to a constant."""
        return self.out_activation_ != "identity"

    @property
    def _is_calibrated(self):
        """True where probabilities have logarithms."""
        return self._uses_log_loss or self._calibration is not None

    @of_collections
    def predict(self, X: MatrixLike) -> NDArray[Any]:
        """Predict classes, or which labels rows have.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_labels)
            Classes as in `classes_`, or zeros and ones where `fit` had a matrix of them.
        """
        return self._labels(self._scores(self._outputs(X)))

    def _labels(self, values):
        if self._multilabel:
            return (values > 0).astype(int)
        chosen = (values[:, 0] > 0).astype(int) if self._independent_labels else values.argmax(axis=1)
        return self.classes_[chosen]

    @of_collections
    def predict_proba(self, X: MatrixLike) -> NDArray[np.floating]:
        """Class probabilities.

        With ``loss="log_loss"`` the probabilities that were fitted. With the squared error the fitted indicators are
        calibrated: a combination of them and of their logarithms, from floors of 0.01 and 0.1 on, is taken for
        logarithms of probabilities, to a constant per row. `fit` chooses its three coefficients, none of them negative,
        as the likeliest ones for rows that were held or left out [1]_, [2]_. No decision depends on them. With
        ``early_stopping=False`` there are no such rows, and the probability vector nearest to the fitted indicators is
        returned, which is not calibrated.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Non-negative, rows sum to one; columns in the order of `classes_`. For several labels, the probability of
            each.

        References
        ----------
        .. [1] J. Platt, "Probabilistic outputs for support vector machines", in Advances in Large Margin Classifiers,
           1999.
        .. [2] M. Kull, T. Silva Filho, P. Flach, "Beta calibration", AISTATS 2017.
        """
        return self._probabilities(self._outputs(X))

    def _combined(self, outputs):
        """Mean of outputs that are expected indicators; of logarithms, those of the mean of the probabilities."""
        if not self._uses_log_loss:
            return super()._combined(outputs)
        logs, weights = np.array(outputs, dtype=np.float64), self._state_["weights"][:, None, None]
        if self._independent_labels:
            combined = logsumexp(log_expit(logs), axis=0, b=weights) - logsumexp(log_expit(-logs), axis=0, b=weights)
        else:
            combined = logsumexp(log_softmax(logs, axis=2), axis=0, b=weights)
        return combined.astype(outputs[0].dtype)

    def _expected(self, outputs):
        """Expected indicators (n x k): probabilities."""
        probabilities = self._probabilities(outputs)
        return probabilities if probabilities.shape == outputs.shape else probabilities[:, 1:]

    def _set_out_of_fold(self, outputs, data):
        # Not with the package: it loads a large part of scikit-learn.
        from sklearn.metrics import accuracy_score

        predicted = self._labels(self._scores(outputs))
        known = data.Y.astype(int)
        if not self._multilabel:
            known = self.classes_[known[:, 0] if self._independent_labels else known.argmax(axis=1)]
        self.oof_decision_function_ = data.of_given(self._probabilities(outputs))
        self.oof_score_ = accuracy_score(known, predicted, sample_weight=data.sample_weight)

    def _probabilities(self, outputs):
        if self._is_calibrated:
            # By way of doubles, so that this and its logarithm differ by no more than their last bits.
            return np.exp(self._log_probabilities(outputs)).astype(outputs.dtype, copy=False)
        if self._multilabel:
            return np.clip(outputs, 0, 1)
        if len(self.classes_) == 2:
            outputs = np.column_stack([1 - outputs[:, 0], outputs[:, 0]])
        return project_onto_simplex(outputs)

    def _log_probabilities(self, outputs):
        values = outputs.astype(np.float64)
        if not self._uses_log_loss:
            values = logits(values, self._calibration, self._independent_labels)
        if self._multilabel:
            return log_expit(values)
        if len(self.classes_) == 2:
            return np.column_stack([log_expit(-values[:, 0]), log_expit(values[:, 0])])
        return log_softmax(values, axis=1)

    @of_collections
    def predict_log_proba(self, X: MatrixLike) -> NDArray[np.floating]:
        """Logarithm of `predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Minus infinity where a probability is zero, which only probabilities that are not calibrated are.
        """
        outputs = self._outputs(X)
        if self._is_calibrated:
            return self._log_probabilities(outputs).astype(outputs.dtype, copy=False)
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities(outputs))
