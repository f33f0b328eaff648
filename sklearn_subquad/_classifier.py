"""The classifier."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from sklearn_subquad._base import BaseSubquadMLP
from sklearn_subquad._calibration import scores
from sklearn_subquad._compat import StrOptions, check_sample_weight, fit_context


class SubquadMLPClassifier(ClassifierMixin, BaseSubquadMLP):
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
    hidden_layer_sizes : int or sequence of int, default=(1024, 1024)
        Widths of the hidden layers. Wider is usually better and never needs another setting to be changed.
    loss : {"squared_error", "log_loss"}, default="squared_error"
        What is minimised: the squared error of class indicators, or the log loss of probabilities (softmax; for two
        classes the logistic function).
    sparsifier : {"shifted_relu", "topk"}, default="shifted_relu"
        Activation that keeps few neurons active per row: ``max(z - shift, 0)`` with a calibrated shift, or
        the same on exactly the ``round(density * width)`` largest z of each row.
    density : "auto", float or sequence of float, default="auto"
        Fraction of active neurons aimed at, in (0, 0.5]; one number, or one per hidden layer. "auto" is
        width^(-1/5) ([1]_), 0.25 at width 1024. 0.5 is the ordinary ReLU.
    skip_connections : bool, default=True
        Feed the features to every layer and to the output. Without them a sparse network generalises poorly.
    init : {"auto", "axis_aligned", "gaussian"}, default="auto"
        Initial weights of the features. "axis_aligned" starts every neuron on one feature, as many on each as its share
        of the variance; "gaussian" on all of them, as in [1]_. Training changes all weights either way. The first is
        better on most tables, where features mean something one by one. "auto" takes what is better on a first held-out
        part; where none is held out, or for more than 512 features, it is "axis_aligned".
    init_scale : "auto" or float, default="auto"
        Standard deviation of the output weights at the start, for class indicators (0 and 1). Small values let
        the hidden layers learn features, values of 1 and more give kernel regression. "auto" is
        0.05 * sqrt(2048 / width of the last layer) where the features have up to 10 effective dimensions (exp of the
        entropy of the spectrum of their covariance, after scaling), 1 from 20 on, and grows in between.
    damping : "auto" or float, default="auto"
        Levenberg-Marquardt damping of the first step, relative to the mean diagonal of J J^T; it adapts from
        there. "auto" is three times the leave-one-out optimum of the first step, and at least 0.3; in batches of the
        squared error, that optimum, and at least 0.1.
    alpha : float, default=0.0
        L2 penalty on the distance from the initial weights, relative to the mean diagonal of J J^T at the
        start, so that it compares with `damping`. A positive value keeps a second copy of the weights.
    max_rank : "auto" or int, default="auto"
        Rank-one updates beyond which a weight matrix folds its factors in, after the step that exceeded it.
        "auto" balances passes over the weights with what pending factors add to every query, and folds in before a
        query that would cost more than that. It changes the speed and, by rounding, the last digits.
    matmul : {"auto", "scatter", "blas", "strassen"}, default="auto"
        How factors are folded in: by sparse products, dense BLAS, or Strassen's algorithm over BLAS, which has
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
        Relative residual at which the conjugate gradients stop. "auto" is 0.01, in batches 0.3 for
        the squared error and 0.1 for other losses.
    max_cg_iter : int, default=50
        Conjugate gradient iterations per inner solve at most. If that is too few for most solves of a fit, there is a
        ConvergenceWarning (in batches none).
    max_iter : int, default=20
        Gauss-Newton steps at most; passes over the rows where they are fitted in batches.
    batch_size : "auto" or int, default="auto"
        Rows that a step uses. Up to so many rows, counted before any are held out, every step uses all; more are
        shuffled and cut into equal batches in every pass, the damping keeps a step from forgetting other batches, and
        the fitted weights are an average of the iterates. "auto" fits up to 256 rows at once (with
        ``early_stopping="loo"`` as many as the regressor) and more in batches of at most an eighth of all rows, but of
        128 at least and of 512 at most.
    tol : float, default=1e-3
        Relative improvement below which a step counts as no change.
    early_stopping : {"auto", "loo", "validation"} or False, default="auto"
        How the number of steps is chosen. "loo" follows an approximate leave-one-out error of the squared error and
        returns the best iterate. "validation" finds the best number of steps on a held-out part (on two of them,
        where they are smaller than 100 rows) and then fits again on all rows with that number; in batches that leave
        1,000 rows or more out, it keeps the best average of iterates, and they stay out. False takes steps until the
        training loss does not fall any more.
        "auto" is "validation" for 100 rows or more, in batches and for other losses than the squared error, else "loo".
    validation_fraction : float, default=0.1
        Fraction of rows held out for ``early_stopping="validation"``.
    n_iter_no_change : int, default=3
        Steps without improvement after which the fit stops; in batches, at the end of a pass, but not of the first.
    feature_metric : "auto" or None, default="auto"
        Whether a metric of the features is learned, in which directions count by how much the outputs depend on them.
        "auto" fits twice wherever rows are held out, with the features as they are and multiplied by the fourth root of
        the second moments of the first network's gradients by them [2]_, and keeps what the held-out rows say is
        better. Up to 512 features; it needs ``early_stopping="validation"``, which "auto" is for 100 rows or more.
        None takes the features as they are, in about half the time.
    standardize : bool, default=True
        Centre and scale every feature inside (weighted by `sample_weight`), such that no deviation from the
        mean exceeds 6. Without it, features should be centred and of unit scale already.
    n_jobs : int or None, default=None
        Threads, as in joblib; fits whose steps are too short to share (fewer than 400,000 rows times neurons) use one.
        None follows ``joblib.parallel_config``, then the present thread limit of BLAS, hence
        ``threadpoolctl.threadpool_limits`` and joblib's worker processes. Up to about 2,000 rows the result is
        the same to the bit for every number; beyond, factorisations by threaded BLAS are the same to rounding.
    random_state : int, RandomState instance or None, default=None
        Determines the initial weights, the held-out part, probes and sketches.
    verbose : int or bool, default=0
        Print a line per step.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    coefs_ : list of ndarray
        Weights, as dense arrays built at every access. With skip connections item l has shape
        (m_l + n_features_in_, m_{l+1}), m_0 being 0: first the rows that meet the hidden layer before, then
        those that meet the scaled features, ``(x - mean) / scale / sqrt(n_features_in_)``. Without, item 0 has
        shape (n_features_in_, m_1), the others (m_l, m_{l+1}).
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
        Steps taken, for ``early_stopping="validation"`` by the final fit; in batches, passes.
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
        One minus the error on the held-out rows, in the units of `loss_curve_`, after 0 (the class frequencies), 1, ...
        steps of the search; in batches, of the average after every pass. Of the better of two, where a metric was
        tried. Only for ``early_stopping="validation"``. With ``loss="log_loss"`` the rows include one more, whose label
        is the most probable one besides its own: what it costs is the mean over the held-out rows, and of fewer than
        100 rows it is as large a share as of 100.
    rank_ : int
        Largest number of rank-one updates that a weight matrix held as factors during the fit.
    phase_times_ : dict of str to float
        Seconds by phase: init, forward, jacobian, solve, update, flush, stopping, metric.
    stop_reason_ : str
        Why the fit (or the search for the number of steps) ended.
    n_layers_ : int
        Number of layers, with the input and output layers.
    n_outputs_ : int
        Number of network outputs: 1 for two classes, else the number of classes.
    out_activation_ : str
        "identity"; with ``loss="log_loss"`` "logistic" for two classes and "softmax" for more.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X has string column names.

    See Also
    --------
    SubquadMLPRegressor : The same for regression.

    Notes
    -----
    Computation follows the dtype of X: float32 stays float32 (but for n x n matrices), which halves memory
    and time. A step on n rows keeps several n x n matrices of doubles.

    References
    ----------
    .. [1] Z. Song, L. Zhang, R. Zhang, "Training Multi-Layer Over-Parametrized Neural Networks in
       Subquadratic Time", arXiv:2112.07628, ITCS 2024.
    .. [2] A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin, "Mechanism for feature learning in neural networks and
       backpropagation-free machine learning models", Science 383, 2024.

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

    _parameter_constraints = BaseSubquadMLP._parameter_constraints | {
        "loss": [StrOptions({"squared_error", "log_loss"})],
    }

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; float32 is kept, anything else becomes float64. At least two rows.
        y : array-like of shape (n_samples,)
            Class labels, numbers or strings; at least two classes in rows of positive weight.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative weights. A row of weight w counts as w rows, one of weight 0 as none. If the positive
            weights have a mean below one they are scaled to mean one. (``early_stopping="validation"`` holds out
            rows, however much they weigh.)

        Returns
        -------
        self : SubquadMLPClassifier

        Raises
        ------
        ValueError
            For missing or infinite values, lengths that differ, a single class, continuous labels, bad
            weights or invalid parameters; the message says which.
        MemoryError
            Where the machine has less memory than the fit takes, before any of it is allocated.

        Notes
        -----
        A fit that is refused for its data, fails or is interrupted leaves the estimator unfitted.
        """
        architecture = self._architecture()
        self._forget()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        weights = check_sample_weight(sample_weight, X)
        classes, codes = np.unique(y, return_inverse=True)
        counted = np.unique(codes[weights > 0])
        if len(counted) < 2:
            raise ValueError(
                "y must hold at least two classes in rows of positive sample_weight; only class "
                f"{classes[counted].tolist()[0]!r} was found."
            )
        if self.loss == "log_loss" and len(counted) < len(classes):
            raise ValueError(
                "loss='log_loss' needs rows of positive sample_weight of every class in y; there is none of "
                f"{np.delete(classes, counted).tolist()}. Leave those rows out, or use loss='squared_error'."
            )
        # A byte each: of many rows and classes, they would be most of the data.
        indicators = codes[:, None] == np.arange(len(classes))
        if len(classes) == 2:
            indicators = indicators[:, 1:]
        self.classes_ = classes
        self._fit_network(
            X,
            indicators,
            weights,
            architecture=architecture,
            unit_variance_targets=False,
            stratify=codes,
            calibration=self.loss == "squared_error",
        )
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Scores whose sign or maximum decides the class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Two classes: the fitted indicator mapped to -1 and 1, or the log odds of the second class with
            ``loss="log_loss"``. More: the fitted indicator, or the logarithm of the probability to a constant, of each.
        """
        outputs = self._outputs(X)
        if len(self.classes_) > 2:
            return outputs
        return (outputs if self._uses_log_loss else scores(outputs))[:, 0]

    @property
    def _uses_log_loss(self):
        """Whether the outputs of the fitted network are logarithms of probabilities, to a constant."""
        return self.out_activation_ != "identity"

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[chosen]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Class probabilities.

        With ``loss="log_loss"`` the probabilities that were fitted. With the squared error, the fitted indicators times
        one factor are taken for logarithms of probabilities, to a constant per row; `fit` chooses the factor as the
        likeliest one for rows that were held or left out, by temperature scaling [1]_. With ``early_stopping=False``
        there are none, and the probability vector nearest to the fitted indicators is returned, which is not
        calibrated.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Non-negative, rows sum to one; columns in the order of `classes_`.

        References
        ----------
        .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.
        """
        return self._probabilities(self._outputs(X))

    @property
    def _sharpness(self):
        """What outputs are multiplied by to be logarithms of probabilities, or None."""
        return 1.0 if self._uses_log_loss else self._state_["sharpness"]

    def _probabilities(self, outputs):
        if self._sharpness is not None:
            # By way of doubles, so that this and its logarithm differ by no more than their last bits.
            return np.exp(self._log_probabilities(outputs)).astype(outputs.dtype, copy=False)
        if len(self.classes_) == 2:
            outputs = np.column_stack([1 - outputs[:, 0], outputs[:, 0]])
        return project_onto_simplex(outputs)

    def _log_probabilities(self, outputs):
        logits = self._sharpness * (outputs if self._uses_log_loss else scores(outputs)).astype(np.float64)
        if len(self.classes_) == 2:
            return np.column_stack([log_expit(-logits[:, 0]), log_expit(logits[:, 0])])
        return log_softmax(logits, axis=1)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Logarithm of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Minus infinity where a probability is zero, which only probabilities that are not calibrated are.
        """
        outputs = self._outputs(X)
        if self._sharpness is not None:
            return self._log_probabilities(outputs).astype(outputs.dtype, copy=False)
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities(outputs))


def project_onto_simplex(rows):
    """Euclidean projection of every row onto the probability simplex.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008.
    """
    # The projection does not see a constant added to a row; without large numbers nothing is lost to rounding.
    shifted = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
    descending = -np.sort(-shifted, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    counts = np.arange(1, rows.shape[1] + 1)
    support = np.count_nonzero(descending * counts > excess, axis=1)
    threshold = excess[np.arange(len(rows)), support - 1] / support
    projected = np.maximum(shifted - threshold[:, None], 0)
    return (projected / projected.sum(axis=1, keepdims=True)).astype(rows.dtype)
