"""Estimators as they would be if a fit had stopped where it is: for scores and callbacks."""

import copy

from sklearn_subquad._fit.calibration import fitted_sharpness


class Iterates:
    """Makes fitted copies of an estimator from a network whose fit goes on.

    Parameters
    ----------
    estimator : Predictor
    loss : str
    calibrates : bool
        Whether probabilities are calibrated on rows that were left out.
    independent_labels : bool
        Whether every output is for or against one label.
    """

    def __init__(self, estimator, loss, calibrates, independent_labels):
        self._estimator, self._loss = estimator, loss
        self._calibrates, self._independent_labels = calibrates, independent_labels

    def attributes(self, network, inputs, targets, left_out):
        """Fitted attributes in memory of their own.

        Parameters
        ----------
        network : Network
        inputs : InputScaling
        targets : TargetScaling
        left_out : LeftOutRows or None
            What the network says of rows that were left out.
        """
        return self._attributes(network.copy(), inputs, targets, left_out)

    def live(self, network, inputs, targets, left_out):
        """An estimator on the network itself: it predicts what the network would, until that changes."""
        estimator = copy.copy(self._estimator)
        for name, value in self._attributes(network, inputs, targets, left_out, live=True).items():
            setattr(estimator, name, value)
        # To go through the state would fold in what is pending.
        estimator._model = lambda: (network, inputs, targets)
        return estimator

    def _attributes(self, network, inputs, targets, left_out, live=False):
        sharpness = None
        if self._calibrates and left_out is not None:
            sharpness = fitted_sharpness(left_out, self._independent_labels)
        return self._estimator._model_attributes(network, inputs, targets, self._loss, sharpness=sharpness, live=live)
