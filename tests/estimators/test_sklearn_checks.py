"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")


# A weight counts as copies of a row where none is held out, and to the tolerance of the inner solver. In batches copies
# are spread over them: the check of weights has fewer rows than a batch here, and many others have more.
ESTIMATORS = [
    SubquadMLPRegressor(hidden_layer_sizes=(64, 64)),
    SubquadMLPClassifier(hidden_layer_sizes=(64, 64)),
    SubquadMLPClassifier(
        loss="log_loss",
        hidden_layer_sizes=(64, 64),
        early_stopping=False,
        max_iter=3,
        cg_tol=1e-12,
        n_bins=None,
        max_cg_iter=1000,
    ),
    SubquadMLPRegressor(batch_size=60, hidden_layer_sizes=(64, 64)),
]


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_compatible(estimator, check):
    check(estimator)
