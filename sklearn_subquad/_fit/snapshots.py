"""The estimator as it would be if its fit stopped where it is: for scores and callbacks."""

import copy

from sklearn_subquad._fit.calibration import HeldOutRows, fitted_coefficients


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
            Outputs for held-out rows, where probabilities are calibrated on them.
        """
        coefficients = None
        if held_out is not None:
            coefficients = fitted_coefficients(held_out, self._independent_labels)
        return self._estimator._model_attributes(network.copy(), inputs, targets, self._loss, calibration=coefficients)

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
    """

    def __init__(self, snapshots, network, inputs, targets, source, indices, n_rows):
        self._snapshots, self._network, self._inputs, self._targets = snapshots, network, inputs, targets
        self._source, self._indices, self._n_rows = source, indices, n_rows

    def held_out_rows(self, judgement):
        """`HeldOutRows` with the outputs of a `Judgement`, or None where nothing is calibrated."""
        if judgement is None or not self._snapshots.calibrates:
            return None
        outputs = self._targets.inverse_transform(judgement.outputs)
        Y, sample_weight = self._source.Y[self._indices], self._source.sample_weight[self._indices]
        return HeldOutRows(outputs, Y[judgement.rows], sample_weight[judgement.rows], self._n_rows)

    def attributes(self, judgement):
        """Fitted attributes of the network as it is, of which that is the `Judgement`."""
        return self._snapshots.attributes(self._network, self._inputs, self._targets, self.held_out_rows(judgement))

    def scoring(self, score, name):
        """A function from a network and its `Judgement` by the loss to its score on the held-out rows, of that name."""
        rows = self._source.as_given(self._indices)

        def score_of(network, judgement, **options):
            estimator = self._snapshots.estimator(network, self._inputs, self._targets, self.held_out_rows(judgement))
            return score(estimator, rows, name, **options)

        return score_of
