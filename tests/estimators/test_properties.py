"""What holds for any small data set: how rows, columns, targets and labels are given does not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import hash as joblib_hash
from sklearn import config_context
from sklearn.base import is_classifier

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor

pytestmark = pytest.mark.usefixtures("one_blas_thread")

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
few = settings(max_examples=20)


OPTIONS = st.fixed_dictionaries(
    {
        "hidden_layer_sizes": st.sampled_from([1, (8,), (8, 5)]),
        "sparsifier": st.sampled_from(["shifted_relu", "topk"]),
        "skip_connections": st.booleans(),
        "standardize": st.booleans(),
        "preconditioner": st.sampled_from(["auto", "gram", "sketch", "none"]),
        "batch_size": st.sampled_from(["auto", 5]),
        "early_stopping": st.sampled_from(["auto", "validation", False]),
        "init": st.sampled_from(["axis_aligned", "gaussian"]),
    }
)


def make(estimator_class, **options):
    return estimator_class(**{"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0} | options)


def outputs(estimator, X):
    return estimator.predict_proba(X) if is_classifier(estimator) else estimator.predict(X)


@st.composite
def features(draw, min_rows=2, max_columns=5):
    """Normal or few values, of which columns and rows may be equal."""
    n, d = draw(st.integers(min_rows, 14)), draw(st.integers(1, max_columns))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.standard_normal((n, d))
    kind = draw(st.sampled_from(["normal", "few values", "low rank", "equal rows"]))
    if kind == "few values":
        X = np.round(X)
    elif kind == "low rank":
        X = X[:, :1] @ rng.standard_normal((1, d))
    elif kind == "equal rows":
        X = X[rng.integers(0, n, n)]
    if draw(st.booleans()):
        X[:, 0] = X[0, 0]
    if draw(st.booleans()):
        X[:, -1] = X[:, 0]
    return X


def targets_for(estimator_class, X, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    if estimator_class is SubquadMLPClassifier:
        # Both classes, wherever the rows are cut.
        return (np.arange(len(X)) + rng.integers(0, 2)) % 2
    return (X.sum(axis=1) + rng.standard_normal(len(X))).astype(dtype)


SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.sampled_from([1.0, 1e-30, 1e-10, 1e10, 1e30])


# Numbers of scale 1e30 that are not standardised overflow in single precision: what is left behind counts.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@BOTH
@few
@given(
    X=features(),
    seed=SEEDS,
    scale=SCALES,
    dtype=st.sampled_from([np.float32, np.float64]),
    precision=st.sampled_from(["single", "double"]),
    options=OPTIONS,
)
def test_predictions_are_finite_or_the_error_says_why(estimator_class, X, seed, scale, dtype, precision, options):
    X = (X * scale).astype(dtype)
    estimator = make(estimator_class, precision=precision, **options)
    refusal = None
    try:
        estimator.fit(X, targets_for(estimator_class, X / dtype(scale), seed))
    except ValueError as error:
        refusal = str(error)
    if refusal is not None:
        assert "scale X" in refusal
        assert not options["standardize"]
        assert not hasattr(estimator, "coefs_")
        return
    assert np.isfinite(outputs(estimator, X)).all()
    assert estimator.predict(X[:1]).shape == (1,)
    if is_classifier(estimator):
        # Probabilities of single precision have its rounding, for each of two classes.
        np.testing.assert_allclose(outputs(estimator, X).sum(axis=1), 1, rtol=4 * np.finfo(dtype).eps)
    else:
        deviations = estimator.predict(X, return_std=True)[1]
        assert (np.isfinite(deviations) & (deviations >= 0)).all()


LAYOUTS = {
    "columns": np.asfortranarray,
    "every second column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "lists": lambda X: X.tolist(),
    "read only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
}


@BOTH
@few
@given(X=features(), seed=SEEDS, layout=st.sampled_from(list(LAYOUTS)), options=OPTIONS)
def test_layout_of_features_does_not_matter_to_predictions(estimator_class, X, seed, layout, options):
    estimator = make(estimator_class, **options).fit(X, targets_for(estimator_class, X, seed))
    before = joblib_hash(vars(estimator))
    expected = outputs(estimator, X)
    np.testing.assert_array_equal(outputs(estimator, LAYOUTS[layout](X)), expected)
    assert joblib_hash(vars(estimator)) == before


@BOTH
@few
@given(X=features(), seed=SEEDS, cut=st.integers(1, 13), options=OPTIONS)
def test_rows_are_predicted_one_by_one(estimator_class, X, seed, cut, options):
    options["sparsifier"] = "shifted_relu"  # top-k decides near-ties by rounding
    estimator = make(estimator_class, precision="double", **options).fit(X, targets_for(estimator_class, X, seed))
    cut = min(cut, len(X) - 1)
    parts = np.concatenate([outputs(estimator, X[:cut]), outputs(estimator, X[cut:])])
    with config_context(working_memory=0):
        one_by_one = outputs(estimator, X)
    # BLAS sums up to d + m < 30 products in an order that depends on the number of rows, in two layers and the output.
    expected = outputs(estimator, X)
    tolerance = 100 * 30 * np.finfo(float).eps * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(parts, expected, atol=tolerance)
    np.testing.assert_allclose(one_by_one, expected, atol=tolerance)


@BOTH
@few
@given(X=features(), seed=SEEDS, dtype=st.sampled_from([bool, np.int8, np.uint8, np.int64, np.float16, np.longdouble]))
def test_other_types_are_the_doubles_that_they_hold(estimator_class, X, seed, dtype):
    X = np.abs(np.round(X)).astype(dtype)
    y = targets_for(estimator_class, X.astype(float), seed)
    estimator = make(estimator_class).fit(X, y)
    expected = make(estimator_class).fit(X.astype(np.float64), y)
    assert outputs(estimator, X).dtype == np.float64
    np.testing.assert_array_equal(outputs(estimator, X), outputs(expected, X.astype(np.float64)))


@BOTH
@few
@given(X=features(min_rows=4), seed=SEEDS, options=OPTIONS)
def test_rows_of_zero_weight_are_not_there(estimator_class, X, seed, options):
    y = targets_for(estimator_class, X, seed)
    weights = np.random.default_rng(seed).integers(0, 3, len(X)).astype(float)
    weights[:2] = 1
    some = weights > 0
    model = make(estimator_class, **options).fit(X, y, sample_weight=weights)
    expected = make(estimator_class, **options).fit(X[some], y[some], sample_weight=weights[some])
    np.testing.assert_array_equal(outputs(model, X), outputs(expected, X))


@few
@given(
    X=features(),
    seed=SEEDS,
    exponent=st.integers(-60, 60),
    offset=st.integers(-100, 100),
    options=OPTIONS,
)
def test_predictions_follow_the_unit_of_targets(X, seed, exponent, offset, options):
    """What is fitted has the same digits for powers of two, and for whole offsets of whole numbers.

    Means of 2, 4 or 8 whole numbers are exact, and those of all rows are what is subtracted where none are held out.
    """
    options["early_stopping"] = False
    X = X[: 2 ** int(np.log2(len(X)))]
    y = np.round(8 * targets_for(SubquadMLPRegressor, X, seed))
    unit = 2.0**exponent
    expected = make(SubquadMLPRegressor, **options).fit(X, y).predict(X)
    predicted = make(SubquadMLPRegressor, **options).fit(X, (y + offset) * unit).predict(X)
    # The mean is added once: two roundings of the largest sum.
    tolerance = 2 * np.finfo(float).eps * (np.abs(expected).max() + np.abs(y).max() + abs(offset))
    np.testing.assert_allclose(predicted / unit - offset, expected, rtol=0, atol=tolerance)


@BOTH
@few
@given(X=features(), seed=SEEDS, exponents=st.lists(st.integers(-100, 100), min_size=5, max_size=5), options=OPTIONS)
def test_units_of_features_do_not_matter(estimator_class, X, seed, exponents, options):
    """From 1e-30 to 1e30 by powers of two: moments and standardised features have the same digits."""
    options["standardize"] = True
    units = 2.0 ** np.array(exponents[: X.shape[1]])
    y = targets_for(estimator_class, X, seed)
    expected = outputs(make(estimator_class, **options).fit(X, y), X)
    np.testing.assert_array_equal(outputs(make(estimator_class, **options).fit(X * units, y), X * units), expected)


@few
@given(X=features(), seed=SEEDS, labels=st.sampled_from([(-1, 1), ("a", "b"), (False, True), (0.0, 7.0), (3, 10**6)]))
def test_labels_do_not_matter_but_for_their_order(X, seed, labels):
    y = targets_for(SubquadMLPClassifier, X, seed)
    expected = make(SubquadMLPClassifier).fit(X, y)
    model = make(SubquadMLPClassifier).fit(X, np.array(labels)[y])
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), np.array(labels)[expected.predict(X)])


@BOTH
@few
@given(X=features(), seed=SEEDS, value=st.sampled_from([0.0, 1.0, -1e30, 1e-30, 1e300]), options=OPTIONS)
def test_the_value_of_a_constant_column_does_not_matter(estimator_class, X, seed, value, options):
    options["standardize"] = True
    y = targets_for(estimator_class, X, seed)
    with_zeros, with_value = (np.column_stack([X, np.full(len(X), constant)]) for constant in (0.0, value))
    expected = outputs(make(estimator_class, **options).fit(with_zeros, y), with_zeros)
    np.testing.assert_array_equal(outputs(make(estimator_class, **options).fit(with_value, y), with_value), expected)
