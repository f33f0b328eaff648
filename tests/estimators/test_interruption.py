"""An interrupted or failing fit leaves an unfitted estimator, never a half-updated one."""

import functools

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._network.lazy_weights import LazyWeights
from sklearn_subquad._network.network import Network
from sklearn_subquad._solver.averaging import IterateAverage, Parameters

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((60, 4)), RNG.standard_normal(60)
SETTINGS = {"hidden_layer_sizes": (130, 70), "max_iter": 4, "random_state": 0, "max_rank": 0}


def targets(Estimator):
    return Y if Estimator is SubquadMLPRegressor else Y > 0


def interrupt_call(monkeypatch, owner, name, number):
    """Let the numbered call of a method raise KeyboardInterrupt halfway: after its work, before it returns."""
    calls, original = [], getattr(owner, name)

    def interrupted(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(name)
        if len(calls) == number:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, interrupted)


IN_EVERY_FIT = [(Network, "forward", 1), (Network, "forward", 3), (Network, "apply", 2), (LazyWeights, "flush", 2)]
# The fifth step is of the second pass. The second time that parameters are given to a network, it gets its own back
# from the average.
IN_BATCHES = [
    (Network, "apply", 5),
    (IterateAverage, "update", 2),
    (Parameters, "give_to", 1),
    (Parameters, "give_to", 2),
]
CALLS = [
    ({"early_stopping": early_stopping, "batch_size": batch_size}, *call)
    for early_stopping in ("validation", False)
    for batch_size in ("auto", 20)
    for call in IN_EVERY_FIT + IN_BATCHES * (batch_size == 20)
    # Without a criterion, parameters are given back once, at the end.
    if early_stopping or call != (Parameters, "give_to", 2)
]


@functools.cache
def fresh_predictions(Estimator, early_stopping, batch_size):
    options = {"early_stopping": early_stopping, "batch_size": batch_size}
    return Estimator(**SETTINGS, **options).fit(X, targets(Estimator)).predict(X)


@pytest.mark.parametrize(("options", "owner", "name", "number"), CALLS)
@pytest.mark.parametrize("fitted_before", [False, True])
@pytest.mark.parametrize("Estimator", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_interrupted_fit_leaves_the_estimator_unfitted_and_usable(
    Estimator, fitted_before, options, owner, name, number, monkeypatch
):
    y = targets(Estimator)
    model = Estimator(**SETTINGS, **options)
    if fitted_before:
        model.fit(X[:, :2], y)
    with monkeypatch.context() as patch:
        interrupt_call(patch, owner, name, number)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    again = model.fit(X, y).predict(X)
    np.testing.assert_array_equal(again, fresh_predictions(Estimator, **options))


def test_refused_data_leave_the_estimator_unfitted():
    model = SubquadMLPRegressor(**SETTINGS).fit(X, Y)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, np.full(60, np.nan))
    with pytest.raises(NotFittedError):
        model.predict(X)
