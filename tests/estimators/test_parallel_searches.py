"""Fits and predictions that run beside each other: results are those of one after the other."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thread_counts import thread_counts

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

SETTINGS = {"hidden_layer_sizes": (64, 64), "max_iter": 3, "random_state": 0}


def rows(n=300):
    X, y = load_breast_cancer(return_X_y=True)
    return X[:n], y[:n]


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_a_search_finds_the_same_with_every_backend(backend):
    X, y = rows()
    grid = {"subquadmlpclassifier__density": [0.1, 0.4], "subquadmlpclassifier__loss": ["squared_error", "log_loss"]}
    search = GridSearchCV(make_pipeline(StandardScaler(), SubquadMLPClassifier(**SETTINGS)), grid, cv=2, n_jobs=2)
    alone = clone(search).set_params(n_jobs=1).fit(X, y)
    with joblib.parallel_config(backend):
        found = search.fit(X, y)
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert found.predict_proba(X).tobytes() == alone.predict_proba(X).tobytes()


class CountsThreads(ClassifierMixin, BaseEstimator):
    """Fits a classifier, and scores one over the threads that work for this process meanwhile, or that BLAS may use."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X, y):
        model = SubquadMLPClassifier(hidden_layer_sizes=(512, 512), max_iter=2, batch_size=1000, random_state=self.seed)
        with thread_counts() as counts:
            model.fit(X, y)
        self.most_ = max(0, *counts)
        self.classes_ = np.unique(y)
        return self

    def score(self, X, y):
        return self.most_


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_processes_of_a_search_do_not_take_more_threads_than_processors():
    X, y = rows()
    with joblib.parallel_config("loky", n_jobs=os.cpu_count()):
        search = GridSearchCV(CountsThreads(), {"seed": [0, 1]}, cv=2, refit=False).fit(X, y)
    # As many processes as there are processors leave one thread to each.
    assert search.cv_results_["mean_test_score"].max() == 1


@pytest.mark.parametrize("n_bins", [None, "auto"])
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_threads_predict_from_one_estimator(estimator_class, n_bins):
    X, y = rows()
    model = estimator_class(n_bins=n_bins, precision="double", **SETTINGS).fit(X, y)
    expected, state = model.predict(X), vars(model).copy()
    barrier = threading.Barrier(4)

    def predict(part):
        barrier.wait()
        return [model.predict(X[part::4]) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for part, predictions in enumerate(pool.map(predict, range(4))):
            for prediction in predictions:
                np.testing.assert_allclose(prediction, expected[part::4], rtol=1e-9)
                # Products with many ramps may be cut among BLAS' threads, which belong to the process.
                if n_bins is None:
                    assert prediction.tobytes() == predictions[0].tobytes()
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[name] is value for name, value in state.items())


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_threads_fit_estimators_of_their_own(estimator_class):
    X, y = rows()
    expected = [estimator_class(**SETTINGS | {"random_state": seed}).fit(X, y).predict(X) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda s: estimator_class(**SETTINGS | {"random_state": s}).fit(X, y).predict(X), range(3))
        )
    # The one that came first sets BLAS back when it ends, and sums of the others may take another order.
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-6, atol=1e-6)
