"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.base import clone
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


# These compare numbers of two fits or calls to 1e-7, which single precision rounds to: sums over rows round with their
# order, and products of BLAS with the rows beside a row.
ROUNDING = dict.fromkeys(
    [
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
    ],
    "rounding of single precision",
)


def expected_failures(estimator):
    """Checks that may fail, and why."""
    return ROUNDING if estimator.precision == "single" else {}


@parametrize_with_checks(
    ESTIMATORS + [clone(estimator).set_params(precision="single") for estimator in ESTIMATORS],
    expected_failed_checks=expected_failures,
)
def test_sklearn_compatible(estimator, check):
    check(estimator)
