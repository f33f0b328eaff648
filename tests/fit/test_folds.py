"""Fits without held-out parts: side by side or one after the other, they are the same fits."""

import numpy as np
import pytest

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit import folds, plan


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_fits_side_by_side_equal_those_that_take_turns(estimator_class, monkeypatch, capsys):
    monkeypatch.setattr(plan, "_MIN_STEP_FOR_THREADS", 0)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((160, 3))
    y = np.sin(2 * X[:, 0]) + 0.1 * rng.standard_normal(160)
    if estimator_class is SubquadMLPClassifier:
        y = y > 0
    side_by_side = []

    def counting(work, n_items):
        side_by_side.append(n_items)
        return for_each_alone(work, n_items)

    for_each_alone = folds.for_each_alone
    monkeypatch.setattr(folds, "for_each_alone", counting)
    fitted = [
        estimator_class(hidden_layer_sizes=(64, 64), max_iter=4, n_folds=1, random_state=0, **options).fit(X, y)
        for options in ({"n_jobs": 2}, {"n_jobs": 1}, {"n_jobs": 2, "verbose": 1})
    ]
    assert len(side_by_side) == 2
    assert min(side_by_side) > 1
    assert "held out" in capsys.readouterr().out
    for other in fitted[1:]:
        assert other.n_iter_ == fitted[0].n_iter_
        np.testing.assert_array_equal(other.predict(X), fitted[0].predict(X))
        for ours, theirs in zip(other.coefs_, fitted[0].coefs_, strict=True):
            np.testing.assert_array_equal(ours, theirs)
