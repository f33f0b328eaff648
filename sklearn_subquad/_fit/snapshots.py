"""The estimator as it would be if its fit stopped where it is: for scores and callbacks."""

import copy

from sklearn_subquad._fit.calibration import HeldOutPath, fitted_inverse_temperature
from sklearn_subquad._fit.data import spaced_rows

# Held-out rows whose outputs are kept for calibration, at most about.
_KEPT_ROWS = 1024


class Snapshots:
    """Makes fitted attributes of networks.

    Parameters
    ----------
    estimator : Predictor
    loss : str
    calibrates : bool
        True where probabilities are calibrated on held-out rows.
    independent_labels : bool
        True where every output is for or against one label.
    """

    def __init__(self, estimator, loss, calibrates, independent_labels):
        self._estimator, self._loss = estimator, loss
        self.calibrates, self._independent_labels = calibrates, independent_labels

    def attributes(self, network, inputs, targets, held_out):
        """Fitted attributes in memory of their own.

        Parameters
        ----------
        network : Network
        inputs : InputScaling
        targets : TargetScaling
        held_out : HeldOutRows or None
            Outputs for held-out rows.
        """
        temperature = None
        if self.calibrates and held_out is not None:
            temperature = fitted_inverse_temperature(held_out, self._independent_labels)
        return self._estimator._model_attributes(
            network.copy(), inputs, targets, self._loss, inverse_temperature=temperature
        )

    def estimator(self, *model):
        """A copy of the estimator with these `attributes`."""
        fitted = copy.copy(self._estimator)
        for name, value in self.attributes(*model).items():
            setattr(fitted, name, value)
        return fitted


class FitInProgress:
    """A network that is being fitted, and what is known of held-out rows.

    Parameters
    ----------
    snapshots : Snapshots
    network : Network
    inputs : InputScaling
    targets : TargetScaling
    source, indices : TrainingSet and slice or ndarray of int
        The held-out rows, as indices of a set.
    n_rows : int
        Rows of the whole data set.
    keeps : bool
        True where outputs of held-out rows are kept.
    path : HeldOutPath or None
        Outputs for rows that were held out from other fits, where this one holds out none.

    Attributes
    ----------
    kept_rows : slice or None
        Of the held-out rows, those whose outputs are kept: all, or some at equal distances.
    """

    def __init__(self, snapshots, network, inputs, targets, source, indices, n_rows, keeps, path):
        self._snapshots, self._network, self._inputs, self._targets = snapshots, network, inputs, targets
        self._source, self._indices, self._n_rows, self._path = source, indices, n_rows, path
        n_held_out = len(source.numbers[indices])
        self.kept_rows = spaced_rows(n_held_out, _KEPT_ROWS) if keeps else None

    def held_out_path(self, history):
        """`HeldOutPath` of all iterations, or None."""
        return self._path if self.kept_rows is None else self._path_of(history.held_out_outputs)

    def attributes(self, history, n_iter):
        """Fitted attributes after so many iterations, where the network is what they have led to."""
        held_out = self._path if self._path is None else self._path.after(n_iter)
        if self.kept_rows is not None:
            outputs = history.held_out_outputs
            held_out = self._path_of([outputs[min(n_iter, len(outputs) - 1)]]).after(0)
        return self._snapshots.attributes(self._network, self._inputs, self._targets, held_out)

    def scoring(self, score, name):
        """A function from a network and its outputs for the held-out rows, of that name, to their score."""
        rows = self._source.as_given(self._indices)

        def score_of(network, outputs, **options):
            held_out = None
            if self.kept_rows is not None:
                held_out = self._path_of([outputs[self.kept_rows]]).after(0)
            estimator = self._snapshots.estimator(network, self._inputs, self._targets, held_out)
            return score(estimator, rows, name, **options)

        return score_of

    def _path_of(self, outputs):
        Y, sample_weight = self._source.Y[self._indices], self._source.sample_weight[self._indices]
        outputs = [self._targets.inverse_transform(each) for each in outputs]
        return HeldOutPath(outputs, Y[self.kept_rows], sample_weight[self.kept_rows], self._n_rows)
