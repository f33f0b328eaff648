"""Bad input and bad parameters: what is raised, what the message names, and what is left behind."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._solver.gauss_newton import GaussNewton

N, D = 20, 3
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])


def small(estimator_class, **parameters):
    return estimator_class(**{"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0} | parameters)


def rows():
    return np.random.default_rng(0).standard_normal((N, D))


def targets():
    """Fit for both estimators: two values."""
    return np.arange(N) % 2


def fitted_attributes(estimator):
    return sorted(set(vars(estimator)) - set(estimator.get_params()))


# ---- data ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("method", ["fit", "predict"])
def test_infinite_features_are_named(estimator_class, method):
    bad = rows()
    bad[3, 1] = np.inf
    estimator = small(estimator_class)
    if method == "predict":
        estimator.fit(rows(), targets())
    with pytest.raises(ValueError, match="Input X contains infinity in columns 1: put in a number, or nan"):
        getattr(estimator, method)(*(bad, targets())[: 2 if method == "fit" else 1])


@BOTH
@pytest.mark.parametrize(("value", "named"), [(np.nan, "y contains NaN"), (np.inf, "y contains infinity")])
def test_non_finite_targets_are_named(estimator_class, value, named):
    y = targets().astype(float)
    y[3] = value
    with pytest.raises(ValueError, match=named):
        small(estimator_class).fit(rows(), y)


@BOTH
@pytest.mark.parametrize(
    ("X", "y", "error", "named"),
    [
        (rows()[0], targets(), ValueError, "Expected 2D array"),
        (rows()[:, :0], targets(), ValueError, r"0 feature\(s\)"),
        (rows()[:1], targets()[:1], ValueError, "minimum of 2"),
        (rows()[:-1], targets(), ValueError, "inconsistent numbers of samples"),
        (rows().astype(complex), targets(), ValueError, "Complex data not supported"),
        (np.full((N, D), "a"), targets(), ValueError, "string to float"),
        (rows(), None, ValueError, "requires y to be passed"),
    ],
    ids=["1d", "no_feature", "one_row", "lengths", "complex", "strings", "no_y"],
)
def test_malformed_data_is_named(estimator_class, X, y, error, named):
    with pytest.raises(error, match=named):
        small(estimator_class).fit(X, y)


@BOTH
@pytest.mark.parametrize("n_features", [D - 1, D + 1])
def test_wrong_number_of_features_at_predict_is_named(estimator_class, n_features):
    estimator = small(estimator_class).fit(rows(), targets())
    with pytest.raises(ValueError, match=f"X has {n_features} features, but .* expecting {D} features"):
        estimator.predict(np.ones((4, n_features)))


@BOTH
def test_reordered_columns_at_predict_are_named(estimator_class):
    frame = pd.DataFrame(rows(), columns=["a", "b", "c"])
    estimator = small(estimator_class).fit(frame, targets())
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[["c", "b", "a"]])


@pytest.mark.parametrize("y", [np.full(N, "a"), np.full(N, "a", dtype=object)], ids=["str", "object"])
def test_non_numeric_regression_targets_are_named(y):
    with pytest.raises(ValueError, match="y must be numeric"):
        small(SubquadMLPRegressor).fit(rows(), y)


def test_continuous_classification_targets_are_named():
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        small(SubquadMLPClassifier).fit(rows(), rows()[:, 0])


def test_several_columns_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"y has several columns with more than two values: .* one column of classes"):
        small(SubquadMLPClassifier).fit(rows(), np.arange(2 * N).reshape(N, 2) % 3)


@pytest.mark.parametrize("label", [1, "spam"])
def test_a_single_class_is_named(label):
    with pytest.raises(ValueError, match=f"two classes .* only class .*{label}"):
        small(SubquadMLPClassifier).fit(rows(), np.full(N, label))


def test_a_single_class_of_positive_weight_is_named():
    with pytest.raises(ValueError, match=r"two classes in rows of positive sample_weight; only class .*1"):
        small(SubquadMLPClassifier).fit(rows(), targets(), sample_weight=targets())


@pytest.mark.parametrize(
    ("labels", "named"),
    [([0, 1, 2], r"there is none of \[1\]"), (["ham", "eggs", "spam"], r"there is none of \['ham'\]")],
)
def test_a_class_without_weight_is_named_by_the_log_loss(labels, named):
    y = np.array(labels)[np.arange(N) % 3]
    # The second in the order of labels: 1 and "ham".
    weights = (y != sorted(labels)[1]).astype(float)
    with pytest.raises(ValueError, match=f"loss='log_loss' needs rows of positive sample_weight .* {named}"):
        small(SubquadMLPClassifier, loss="log_loss").fit(rows(), y, sample_weight=weights)


COUNTS = np.arange(N) % 3


@pytest.mark.parametrize(
    ("y", "sample_weight", "named"),
    [
        (COUNTS - 1, None, "needs y >= 0, but the smallest value of y is -1"),
        (np.c_[COUNTS, -0.25 * COUNTS], None, "needs y >= 0, but the smallest value of y is -0.5"),
        (np.zeros(N), None, r"y is zero in all rows .* column \[0\]"),
        (np.c_[COUNTS, np.zeros((N, 2))], None, r"column \[1, 2\]"),
        (COUNTS, COUNTS == 0, "y is zero in all rows of positive sample_weight"),
    ],
    ids=["negative", "negative_column", "zero", "zero_columns", "zero_where_it_counts"],
)
def test_targets_that_are_no_counts_are_named(y, sample_weight, named):
    estimator = small(SubquadMLPRegressor, loss="poisson").fit(rows(), COUNTS)
    with pytest.raises(ValueError, match=f"loss='poisson' .*{named}"):
        estimator.fit(rows(), y, sample_weight=sample_weight)
    with pytest.raises(NotFittedError):
        estimator.predict(rows())


@BOTH
@pytest.mark.parametrize("batch_size", [1, N - 1])
def test_leave_one_out_in_batches_is_refused(estimator_class, batch_size):
    estimator = small(estimator_class, early_stopping="loo", batch_size=batch_size)
    with pytest.raises(ValueError, match=f"early_stopping='loo' needs all {N} rows .* batch_size={batch_size} cuts"):
        estimator.fit(rows(), targets())
    assert not hasattr(estimator, "coefs_")


@pytest.mark.parametrize(
    ("estimator_class", "loss"), [(SubquadMLPRegressor, "poisson"), (SubquadMLPClassifier, "log_loss")]
)
def test_leave_one_out_of_another_loss_is_refused(estimator_class, loss):
    estimator = small(estimator_class, early_stopping="loo", loss=loss)
    with pytest.raises(ValueError, match=f"early_stopping='loo' .* loss='{loss}'"):
        estimator.fit(rows(), targets())
    assert not hasattr(estimator, "coefs_")


@BOTH
def test_only_rows_that_count_are_cut_into_batches(estimator_class):
    estimator = small(estimator_class, early_stopping="loo", batch_size=N - 1)
    assert hasattr(estimator.fit(rows(), targets(), sample_weight=np.arange(N) > 0), "loo_curve_")


@BOTH
@pytest.mark.parametrize(
    ("sample_weight", "named"),
    [
        (np.r_[-1.0, np.ones(N - 1)], "Negative values in sample_weight"),
        (np.ones(N + 1), r"sample_weight.shape == \(21,\), expected \(20,\)"),
        (np.ones((N, 2)), "Sample weights must be 1D"),
        (np.zeros(N), "(?i)sample.weight.*zero"),
        (0.0, "(?i)sample.weight.*zero"),
        (np.r_[np.nan, np.ones(N - 1)], "sample_weight contains NaN"),
        (np.r_[np.inf, np.ones(N - 1)], "sample_weight contains infinity"),
    ],
    ids=["negative", "length", "2d", "zeros", "zero", "nan", "inf"],
)
def test_bad_sample_weight_is_named(estimator_class, sample_weight, named):
    with pytest.raises(ValueError, match=named):
        small(estimator_class).fit(rows(), targets(), sample_weight=sample_weight)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_large", [2, N])
def test_weights_whose_sum_leaves_the_range_of_the_type_are_named(estimator_class, dtype, n_large):
    largest = float(np.finfo(dtype).max)
    weights = np.where(np.arange(N) < n_large, 0.75 * largest, 1.0)
    with pytest.raises(ValueError, match=f"sum of sample_weight exceeds {largest:.3g}".replace("+", r"\+")):
        small(estimator_class).fit(rows().astype(dtype), targets(), sample_weight=weights)


@BOTH
def test_weights_that_are_nothing_to_the_type_beside_others_count_as_none(estimator_class):
    """Steps take square roots of weights in X's type: of 1e-100, less than half of 1e-45, the least number there is."""
    X, weights = rows().astype(np.float32), np.where(np.arange(N) < 14, 1.0, 1e-100)
    estimator = small(estimator_class, batch_size=5).fit(X, targets(), sample_weight=weights)
    expected = small(estimator_class, batch_size=5).fit(X[:14], targets()[:14])
    assert estimator.loss_curve_ == expected.loss_curve_
    np.testing.assert_array_equal(estimator.predict(X), expected.predict(X))


def test_features_whose_differences_leave_the_range_of_doubles_are_named():
    X = rows()
    X[3, 1] = -1.7e308
    estimator = small(SubquadMLPRegressor)
    with pytest.raises(ValueError, match=r"X holds 1.7e\+308, but numbers beyond 2.59e\+307 cannot be standardised"):
        estimator.fit(X, targets())
    assert not hasattr(estimator, "coefs_")


def test_targets_whose_differences_leave_the_range_of_doubles_are_named():
    with pytest.raises(ValueError, match=r"y holds 1.7e\+308, .* end at 4.49e\+307"):
        small(SubquadMLPRegressor).fit(rows(), targets() * 1.7e308)


# The message is about numbers that overflow on the way to it.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_whose_gradients_have_no_squares_are_named():
    estimator = small(SubquadMLPRegressor, standardize=False, init_scale=1.0, precision="double")
    with pytest.raises(ValueError, match="leave standardize=True, or scale X"):
        estimator.fit(rows() * 1e300, rows()[:, 0])
    assert not hasattr(estimator, "coefs_")


def test_validation_needs_two_rows_that_count():
    estimator = small(SubquadMLPRegressor, early_stopping="validation")
    with pytest.raises(ValueError, match="early_stopping='validation' needs at least two rows"):
        estimator.fit(rows(), targets(), sample_weight=np.eye(N)[0])


@pytest.mark.parametrize(
    ("estimator_class", "method"),
    [
        (SubquadMLPRegressor, "predict"),
        (SubquadMLPClassifier, "predict"),
        (SubquadMLPClassifier, "predict_proba"),
        (SubquadMLPClassifier, "predict_log_proba"),
        (SubquadMLPClassifier, "decision_function"),
    ],
)
def test_prediction_before_fit_is_refused(estimator_class, method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(small(estimator_class), method)(rows())


@BOTH
@pytest.mark.parametrize("attribute", ["coefs_", "intercepts_"])
def test_weights_do_not_exist_before_fit(estimator_class, attribute):
    assert not hasattr(small(estimator_class), attribute)


# ---- parameters ------------------------------------------------------------------------------------------

INVALID = {
    "hidden_layer_sizes": [0, -3, 2.5, "64", None],
    "loss": ["hinge", None, 1],
    "sparsifier": ["relu", None, 1],
    "density": [0, 0.6, -1, np.nan, "dense", None],
    "skip_connections": ["yes", 2, None],
    "init": ["normal", None, 0],
    "init_scale": [0, -1.0, np.inf, np.nan, "small", None],
    "damping": [0, -0.1, np.inf, np.nan, "none", None],
    "max_rank": [-1, 1.5, "all", None],
    "matmul": ["gemm", None, 0],
    "preconditioner": ["cholesky", None, False],
    "sketch": ["gaussian", None],
    "sketch_size": [0, -1, 10.5, "n", None],
    "cg_tol": [0, 1, -1e-3, np.nan, "tight", None],
    "max_cg_iter": [0, 1.5, np.inf, "auto", None],
    "max_iter": [0, 1.5, np.inf, "auto", None],
    "batch_size": [0, -1, 1.5, np.inf, "big", None],
    "tol": [-1e-3, 1, np.nan, "auto", None],
    "early_stopping": [True, "gcv", None, 0],
    "scoring": [0, True, ["accuracy"], "no such score"],
    "validation_fraction": [0.0, 1.0, -0.1, 5, "auto", None],
    "n_iter_no_change": [0, 1.5, "auto", None],
    "n_folds": ["loo", 0, -1, 2.5, None],
    "n_bins": ["quantile", 1, 0, -3, 2.5, False],
    "categorical_features": ["all", 1, 2.5, True],
    "standardize": ["yes", 2, None],
    "precision": ["half", "float64", 2, None],
    "n_jobs": [1.5, "all"],
    "random_state": [-1, 1.5, "seed"],
    "warm_start": ["yes", 2, None],
    "verbose": [-1, 0.5, "yes", None],
}


CLASS_WEIGHTS = ["even", 1.0, (1, 2)]


@pytest.mark.parametrize(
    ("estimator_class", "parameter", "value"),
    [
        (cls, name, value)
        for cls in (SubquadMLPRegressor, SubquadMLPClassifier)
        for name, values in INVALID.items()
        for value in values
    ]
    + [(SubquadMLPClassifier, "class_weight", value) for value in CLASS_WEIGHTS],
)
def test_invalid_parameter_is_named_and_nothing_is_fitted(estimator_class, parameter, value):
    estimator = small(estimator_class, **{parameter: value})
    with pytest.raises(InvalidParameterError, match=f"The '{parameter}' parameter of {estimator_class.__name__}"):
        estimator.fit(rows(), targets())
    assert fitted_attributes(estimator) == []


@pytest.mark.parametrize(
    ("estimator_class", "loss"), [(SubquadMLPRegressor, "log_loss"), (SubquadMLPClassifier, "poisson")]
)
def test_the_loss_of_another_task_is_named(estimator_class, loss):
    with pytest.raises(InvalidParameterError, match=f"The 'loss' parameter of {estimator_class.__name__} .* '{loss}'"):
        small(estimator_class, loss=loss).fit(rows(), targets())


@BOTH
def test_every_parameter_is_validated(estimator_class):
    only_here = {"class_weight"} if estimator_class is SubquadMLPClassifier else set()
    assert set(INVALID) | only_here == set(estimator_class().get_params())


# What the declared constraints cannot say, because it takes more than one look at the value.
INVALID_SEQUENCES = [
    ("hidden_layer_sizes", ()),
    ("hidden_layer_sizes", (8, 0)),
    ("hidden_layer_sizes", (8, -3)),
    ("hidden_layer_sizes", (8, 2.5)),
    ("hidden_layer_sizes", ("8", "8")),
    ("hidden_layer_sizes", ((8, 8), (8, 8))),
    ("hidden_layer_sizes", (True, True)),
    ("density", ()),
    ("density", (0.2, 0.2)),
    ("density", (0,)),
    ("density", (0.6,)),
    ("density", (-1,)),
    ("density", (np.nan,)),
    ("density", ("auto",)),
    ("density", ((0.1, 0.2), (0.1, 0.2))),
]


@BOTH
@pytest.mark.parametrize(("parameter", "value"), INVALID_SEQUENCES, ids=str)
def test_invalid_sequence_is_named(estimator_class, parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter} must be"):
        small(estimator_class, **{parameter: value}).fit(rows(), targets())


@BOTH
@pytest.mark.parametrize(
    ("parameter", "value"), [("hidden_layer_sizes", ()), ("density", (0.2, 0.2)), ("n_jobs", 0)], ids=str
)
def test_refused_parameter_leaves_nothing_fitted(estimator_class, parameter, value):
    estimator = small(estimator_class, **{parameter: value})
    with pytest.raises(ValueError, match=parameter):
        estimator.fit(rows(), targets())
    assert fitted_attributes(estimator) == []


@BOTH
@pytest.mark.parametrize(("parameter", "value"), [("density", 0.6), ("density", (0.2, 0.2)), ("n_jobs", 0)], ids=str)
def test_refused_parameter_at_a_refit_leaves_the_first_fit_usable(estimator_class, parameter, value):
    estimator = small(estimator_class).fit(rows(), targets())
    valid = estimator.get_params()
    before = estimator.predict(rows())
    estimator.set_params(**{parameter: value})
    with pytest.raises(ValueError, match=parameter):
        estimator.fit(rows()[:, :2], targets() + 5)
    np.testing.assert_array_equal(estimator.set_params(**valid).predict(rows()), before)


@BOTH
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_refit_leaves_the_estimator_unfitted(estimator_class, interruption, monkeypatch):
    def interrupted(*args):
        raise interruption

    estimator = small(estimator_class).fit(rows(), targets())
    monkeypatch.setattr(GaussNewton, "solve", interrupted)
    with pytest.raises(interruption):
        estimator.fit(rows()[:, :2], targets() + 5)
    with pytest.raises(NotFittedError):
        estimator.predict(rows())
    monkeypatch.undo()
    assert len(estimator.fit(rows(), targets()).predict(rows())) == N


@BOTH
@pytest.mark.parametrize(("precision", "terabytes"), [("single", 16), ("double", 32)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_widths_beyond_the_memory_are_refused_before_anything_is_allocated(
    estimator_class, precision, terabytes, dtype
):
    # 4 * 10^12 weights of 4 or 8 bytes, whatever X is in.
    estimator = small(estimator_class, hidden_layer_sizes=(2_000_000, 2_000_000), precision=precision)
    asked = rf"hidden_layer_sizes=\(2000000, 2000000\) takes {terabytes},[0-9]{{3}},[0-9,]+ bytes of weights"
    with pytest.raises(MemoryError, match=asked + ".*or precision='single'"):
        estimator.fit(rows().astype(dtype), targets())
    assert not hasattr(estimator, "coefs_")


@BOTH
def test_constructors_take_keywords_only(estimator_class):
    with pytest.raises(TypeError, match="positional"):
        estimator_class((8, 8))


@pytest.mark.parametrize("y", [np.ones(N), rows()[:, 0]], ids=["single_class", "continuous"])
def test_bad_labels_leave_no_classes(y):
    estimator = small(SubquadMLPClassifier)
    with pytest.raises(ValueError, match=r"class|label"):
        estimator.fit(rows(), y)
    assert not hasattr(estimator, "classes_")
