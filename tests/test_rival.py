"""Fits that are given up because another to the same rows is clearly ahead."""

import numpy as np
import pytest
from cases import fitting_problem

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _search
from sklearn_subquad._minibatch import MiniBatchSolver
from sklearn_subquad._solver import GaussNewtonSolver, SolverOptions
from sklearn_subquad._stopping import Rival, StopReason


@pytest.mark.parametrize(
    ("rival", "curve", "ahead"),
    [
        # Not before the third step, however far behind.
        ([1.0, 0.1, 0.1, 0.1], [1.0, 0.9, 0.9], False),
        ([1.0, 0.1, 0.1, 0.1], [1.0, 0.9, 0.9, 0.9], True),
        # By 5 %.
        ([1.0, 0.9, 0.5, 0.4], [1.0, 0.9, 0.8, 0.42], False),
        ([1.0, 0.9, 0.5, 0.4], [1.0, 0.9, 0.8, 0.421], True),
        # What the rival finds later does not count, what it had before does.
        ([1.0, 0.9, 0.8, 0.7, 0.1], [1.0, 0.9, 0.8, 0.7], False),
        ([1.0, 0.2, 0.8, 0.7], [1.0, 0.9, 0.8, 0.7], True),
        # Neither does it count against a curve that it was better once.
        ([1.0, 0.5, 0.5, 0.5], [1.0, 0.5, 0.9, 0.9], False),
        # A rival that has ended stays where it was.
        ([1.0, 0.5], [1.0, 0.9, 0.9, 0.6, 0.53], True),
        ([1.0, 0.5], [1.0, 0.9, 0.9, 0.6, 0.52], False),
        # Errors that are no numbers are no errors at all.
        ([1.0, np.nan, 0.5, np.inf], [1.0, np.nan, np.inf, 0.6], True),
        ([1.0, np.nan, np.inf, np.nan], [1.0, 0.9, np.nan, np.nan], False),
        # Without any error there is nothing to gain.
        ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], False),
    ],
)
def test_ahead_is_five_percent_after_as_many_steps_and_three(rival, curve, ahead):
    assert Rival(rival).is_ahead_of(curve) is ahead


class Falling:
    """Errors that fall by a hundredth a step."""

    needs_gram = False

    def __init__(self):
        self.n_steps = 0

    def of_the_constant(self):
        return 1.0

    def of_network(self, network):
        self.n_steps += 1
        return 1 - self.n_steps / 100

    def after_step(self, network, output, jacobian, solution):
        return self.of_network(network)


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize(
    ("rival", "n_iter", "reason"),
    [
        (None, 6, StopReason.MAX_ITER),
        (Rival([1.0, 0.99, 0.98, 0.97, 0.96]), 6, StopReason.MAX_ITER),
        (Rival([1.0, 0.1]), 3, StopReason.OUTPACED),
        (Rival([1.0, 0.99, 0.98, 0.97, 0.96, 0.5]), 5, StopReason.OUTPACED),
    ],
)
def test_solvers_give_up(in_batches, rival, n_iter, reason):
    network, data, loss = fitting_problem(n=50, widths=(30, 20))
    options = SolverOptions(max_iter=6, damping=10.0, rival=rival, tol=0.0)
    if in_batches:
        solver = MiniBatchSolver(network, data, loss, options, 25, Falling(), 0)
    else:
        solver = GaussNewtonSolver(network, data, loss, options, Falling(), 0)
    result = solver.solve()
    assert (result.n_iter, result.stop_reason) == (n_iter, reason)


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
@pytest.mark.parametrize("batch_size", [1000, 100])
@pytest.mark.parametrize("one_part", [False, True])
def test_what_was_given_up_is_not_chosen_and_not_fitted_further(estimator_class, batch_size, one_part, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 4))
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
    if estimator_class is SubquadMLPClassifier:
        y = y > 0
    if one_part:
        # Parts have 40 rows.
        monkeypatch.setattr(_search, "HELD_OUT_ROWS", 40)
    searches, create = [], _search._Search.__post_init__
    monkeypatch.setattr(_search._Search, "__post_init__", lambda self: searches.append(self) or create(self))
    # Whatever has a rival is behind it.
    monkeypatch.setattr(Rival, "is_ahead_of", lambda self, curve: len(curve) == 4)
    parameters = {"hidden_layer_sizes": (64, 64), "batch_size": batch_size, "max_iter": 6, "random_state": 0}
    model = estimator_class(**parameters).fit(X, y)
    first, gaussian, with_metric = searches
    assert gaussian.options.architecture.init == "gaussian"
    assert with_metric.metric is not None
    # The first part decides on the weights, and on the metric where there is no other.
    for search, given_up in ((first, False), (gaussian, True), (with_metric, one_part)):
        assert search.given_up == given_up
        assert search.error() == (np.inf if given_up else min(search.curve))
        assert len(search.results) == (1 if given_up or one_part else 2 + (estimator_class is SubquadMLPRegressor))
        assert all(result.n_iter == 3 for result in search.results if given_up)
    assert model.init_ == "axis_aligned"
    if one_part:
        expected = estimator_class(init="axis_aligned", feature_metric=None, **parameters).fit(X, y)
        assert model.predict(X).tobytes() == expected.predict(X).tobytes()
        assert model.validation_scores_ == expected.validation_scores_
        assert model.stop_reason_ == expected.stop_reason_
