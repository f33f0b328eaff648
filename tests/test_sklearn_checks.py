"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor


@pytest.fixture(scope="module", autouse=True)
def _one_blas_thread():
    # Matrices as small as these gain nothing from threads, and lose much where the processors are busy.
    with threadpool_limits(1, user_api="blas"):
        yield


@parametrize_with_checks([SubquadMLPRegressor(), SubquadMLPClassifier()])
def test_sklearn_compatible(estimator, check):
    check(estimator)
