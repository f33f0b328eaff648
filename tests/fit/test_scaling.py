import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import r2_score

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._fit.init_scale import effective_dimension
from sklearn_subquad._fit.scaling import BIAS_FEATURE, InputScaling, TargetScaling

DTYPES = [np.float32, np.float64]


def data(n=50, d=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((n, d)) * [1.0, 30.0, 0.01][:d] + [0.0, 100.0, -5.0][:d]).astype(dtype)


def integer_weights(n=50):
    return np.random.default_rng(1).integers(1, 5, n).astype(float)


def fit_inputs(X, sample_weight=None, standardize=True):
    sample_weight = np.ones(len(X)) if sample_weight is None else sample_weight
    return InputScaling.fit(X, sample_weight, standardize)


def fit_targets(Y, sample_weight=None, unit_variance=True):
    sample_weight = np.ones(len(Y)) if sample_weight is None else sample_weight
    return TargetScaling.fit(Y, sample_weight, unit_variance)


FITS = [pytest.param(fit_inputs, id="inputs"), pytest.param(fit_targets, id="targets")]


@pytest.mark.parametrize("fit", FITS)
def test_moments_are_computed_in_double_precision(fit):
    scaling = fit(data(dtype=np.float32))
    assert scaling.mean.dtype == scaling.scale.dtype == np.float64


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fit", FITS)
def test_scaled_data_have_weighted_mean_zero_and_variance_one(fit, dtype):
    X, w = data(dtype=dtype), integer_weights()
    scaling = fit(X, w)
    wide = X.astype(np.float64)
    mean = (w[:, None] * wide).sum(axis=0) / w.sum()
    variance = (w[:, None] * (wide - mean) ** 2).sum(axis=0) / w.sum()
    assert scaling.mean.dtype == scaling.scale.dtype == np.float64
    np.testing.assert_allclose(scaling.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(scaling.scale, np.sqrt(variance), rtol=1e-12)


@pytest.mark.parametrize("fit", FITS)
def test_integer_weight_is_a_row_repeated(fit):
    X, w = data(), integer_weights()
    weighted, repeated = fit(X, w), fit(np.repeat(X, w.astype(int), axis=0))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-12)


@pytest.mark.parametrize("fit", FITS)
def test_weights_have_no_scale(fit):
    X, w = data(), integer_weights()
    small, large = fit(X, 1e-6 * w), fit(X, 1e6 * w)
    np.testing.assert_allclose(small.mean, large.mean, rtol=1e-12)
    np.testing.assert_allclose(small.scale, large.scale, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("standardize", [True, False])
def test_network_inputs_are_scaled_features_and_the_bias(standardize, dtype):
    X = data(dtype=dtype)
    scaling = fit_inputs(X, standardize=standardize)
    x = scaling.transform(X)
    wide = X.astype(np.float64)
    expected = (wide - wide.mean(axis=0)) / wide.std(axis=0) if standardize else wide
    assert x.dtype == dtype
    assert x.shape == (50, 4)
    assert (x[:, 3] == BIAS_FEATURE).all()
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(x[:, :3], expected / np.sqrt(3), rtol=tolerance, atol=tolerance)


def test_network_inputs_have_unit_mean_square_norm_before_the_bias():
    X = data()
    x = fit_inputs(X).transform(X)[:, :-1]
    assert (x**2).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("n_rows", [1, 2, 10])
@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 1e-300, 1e150])
@pytest.mark.parametrize("fit", FITS)
def test_constant_columns_become_zero(fit, value, n_rows):
    X = np.column_stack([np.full(n_rows, value), np.arange(float(n_rows))])
    scaling = fit(X)
    assert scaling.scale[0] == (0.0 if fit is fit_targets else 1.0)
    x = scaling.transform(X)
    assert np.isfinite(x).all()
    assert (x[:, 0] == 0).all()


@pytest.mark.parametrize("fit", FITS)
def test_constant_column_is_recognised_in_many_rows(fit):
    # The mean of 0.1 over many rows is not 0.1 to the last bit.
    X = np.column_stack([np.full(10_000, 0.1), np.arange(10_000.0)])
    assert fit(X).scale[0] == (0.0 if fit is fit_targets else 1.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_rare_indicator_is_not_blown_up(weighted):
    X = data(n=10_000)
    X[:, 1] = 0
    X[1234, 1] = 1
    w = np.random.default_rng(1).uniform(0.5, 2, len(X)) if weighted else np.ones(len(X))
    scaling = fit_inputs(X, w)
    x = scaling.transform(X)
    assert np.abs(x[:, 1]).max() == pytest.approx(6 / np.sqrt(3), rel=1e-12)
    # One that is seen often keeps its standard deviation.
    X[::2, 1] = 1
    assert fit_inputs(X).scale[1] == pytest.approx(X[:, 1].std(), rel=1e-12)


def test_new_data_use_the_fitted_mean_and_scale():
    scaling = fit_inputs(data())
    new = np.array([[1.0, 2.0, 3.0]])
    expected = (new - data().mean(axis=0)) / data().std(axis=0) / np.sqrt(3)
    np.testing.assert_allclose(scaling.transform(new)[:, :3], expected, rtol=1e-11)


@pytest.mark.parametrize("factor", [1e150, 1e-100])
@pytest.mark.parametrize("fit", FITS)
def test_extreme_units_do_not_matter(fit, factor):
    X = np.random.default_rng(0).standard_normal((50, 3)) + 1
    expected = fit(X).transform(X)
    scaled = fit(factor * X).transform(factor * X)
    np.testing.assert_allclose(scaled, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit_variance", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_survive_the_round_trip(dtype, unit_variance):
    Y = data(dtype=dtype)
    scaling = fit_targets(Y, integer_weights(), unit_variance)
    Z = scaling.transform(Y).astype(dtype)
    back = scaling.inverse_transform(Z)
    assert back.dtype == dtype
    tolerance = 10 * np.finfo(dtype).eps
    assert (np.abs(back - Y) <= tolerance * (np.abs(Y) + np.abs(scaling.mean))).all()


def test_targets_are_only_centred_without_unit_variance():
    scaling = fit_targets(data(), unit_variance=False)
    assert (scaling.scale == 1).all()
    np.testing.assert_allclose(scaling.mean, data().mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("fit", FITS)
def test_data_are_left_alone(fit):
    X = data()
    fit(X).transform(X)
    np.testing.assert_array_equal(X, data())


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("unit", "unit_of_weights"), [(2.0**1014, 1.0), (2.0**-1000, 1.0), (1.0, 2.0**1014)])
def test_moments_of_numbers_and_weights_of_any_unit_are_the_same_to_the_bit(fit, unit, unit_of_weights):
    """Powers of two change no digit; the largest sums and products are beyond the range of doubles."""
    X, w = data(), integer_weights()
    scaling, expected = fit(X * unit, w * unit_of_weights), fit(X, w)
    np.testing.assert_array_equal(scaling.mean, expected.mean * unit)
    np.testing.assert_array_equal(scaling.scale, expected.scale * unit)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("largest", [5e-324, 1e-310, 1e-307])
def test_numbers_without_a_normal_range_are_constant(fit, largest):
    X = np.array([[0.0], [0.25], [1.0]]) * largest
    scaled = fit(X).transform(X)[:, 0]
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() < 1e-300


# ---- effective dimensions ----------------------------------------------------------------------------------


def entropy_of_squared_singular_values(x, sample_weight):
    centred = x - (sample_weight @ x) / sample_weight.sum()
    shares = np.linalg.svd(np.sqrt(sample_weight)[:, None] * centred, compute_uv=False) ** 2
    shares = shares[shares > 1e-20 * shares.sum()] / shares.sum()
    return np.exp(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 40), (2, 3), (7, 1)])
def test_effective_dimension_is_the_entropy_of_the_spectrum(n, d):
    rng = np.random.default_rng(n)
    x, w = rng.standard_normal((n, d)) * np.geomspace(1, 5, d) + 3, rng.uniform(0.5, 2, n)
    assert effective_dimension(x, w) == pytest.approx(entropy_of_squared_singular_values(x, w), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_effective_dimension_counts_equal_orthogonal_columns(scale):
    # Columns of a Hadamard matrix but the first: centred, orthogonal, of equal norm.
    signs = np.array([[(-1) ** (i & j).bit_count() for j in range(1, 8)] for i in range(8)])
    assert effective_dimension(scale * signs, np.ones(8)) == pytest.approx(7)
    assert effective_dimension(scale * signs[:, [0] * 5], np.ones(8)) == pytest.approx(1)


def test_effective_dimension_of_rows_that_do_not_vary_is_one():
    assert effective_dimension(np.full((5, 3), 2.0), np.ones(5)) == 1


@pytest.mark.parametrize("unit", [2.0**1020, 2.0**-1040])
def test_effective_dimension_of_any_unit_is_the_same(unit):
    """Whole numbers, so that those of the small unit, which are not normal, lose no digit."""
    x, w = np.random.default_rng(0).integers(-8, 9, (20, 3)).astype(float), integer_weights(20)
    assert effective_dimension(x * unit, w) == effective_dimension(x, w)


def test_effective_dimension_counts_weights_as_copies():
    X, w = data(), integer_weights()
    repeated = np.repeat(X, w.astype(int), axis=0)
    assert effective_dimension(X, w) == pytest.approx(effective_dimension(repeated, np.ones(len(repeated))), rel=1e-10)


# ---- targets far from zero ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "unit"), [(1e15, 1.0), (1e16, 1.0), (-1e15, 0.3), (1.0, 1e-15), (1e300, 1e285)])
@pytest.mark.parametrize("n", [30, 30_000])
def test_targets_keep_what_double_precision_has_of_them(mean, unit, n):
    """Also over many rows, where the rounding of the mean adds up to more than all deviations."""
    Y = mean + unit * np.random.default_rng(0).standard_normal((n, 1))
    assert len(np.unique(Y)) > 1
    scaling = TargetScaling.fit(Y, np.random.default_rng(1).uniform(0.5, 2, n), True)
    Z = scaling.transform(Y)
    assert abs(Z.mean()) < 0.5
    assert 0.5 < Z.std() < 2
    assert np.abs(scaling.inverse_transform(Z) - Y).max() <= np.spacing(np.abs(Y).max())


@pytest.mark.parametrize("n_folds", [1, 3, 8])
@pytest.mark.parametrize("value", [0.0, 7.1, 0.1, 1e-9, -1e12])
def test_a_constant_target_beside_others_is_predicted_as_it_is(value, n_folds):
    X = np.random.default_rng(0).standard_normal((150, 3))
    y = X[:, 0] + X[:, 1] ** 2
    options = {"hidden_layer_sizes": (32, 32), "max_iter": 3, "n_folds": n_folds, "random_state": 0}
    model = SubquadMLPRegressor(**options).fit(X, np.column_stack([y, np.full(150, value)]))
    predicted, std = model.predict(X, return_std=True)
    np.testing.assert_array_equal(predicted[:, 1], value)
    np.testing.assert_array_equal(std[:, 1], 0)
    # The other one is not better or worse for it.
    assert r2_score(y, predicted[:, 0]) > 0.8
    if n_folds > 1:
        assert model.oof_score_ > 0.8


@pytest.mark.parametrize("goes_on", ["partial_fit", "warm_start"])
def test_a_target_that_was_constant_so_far_is_learned_once_it_varies(goes_on):
    X = np.random.default_rng(0).standard_normal((300, 3))
    y = X[:, 0] + X[:, 1]
    model = SubquadMLPRegressor(
        hidden_layer_sizes=(32, 32), n_folds=1, early_stopping=False, random_state=0, warm_start=True
    )
    fit = model.partial_fit if goes_on == "partial_fit" else model.fit
    fit(X[:50], np.column_stack([y[:50], np.ones(50)]))
    fit(X, np.column_stack([y, 1 + y]))
    assert r2_score(1 + y, model.predict(X)[:, 1]) > 0.9


# Mean and scale of targets, and the precision of outputs of which X is in single precision.
RESOLUTIONS = [
    ([0.0], [1.0], np.float32),
    ([500.0], [1.0], np.float32),
    ([1700.0], [1.0], np.float64),
    ([1.7e9], [60.0], np.float64),
    ([-1.7e9], [60.0], np.float64),
    ([1.7e9], [1e7], np.float32),
    ([0.0, 1.7e9], [1.0, 60.0], np.float64),
    # Logarithms of rates and of odds, class frequencies.
    ([88.0, -88.0], [1.0, 1.0], np.float32),
]


@pytest.mark.parametrize(("mean", "scale", "expected"), RESOLUTIONS)
def test_outputs_are_in_double_precision_where_single_cannot_resolve_targets(mean, scale, expected):
    scaling = TargetScaling(np.array(mean), np.array(scale))
    Z = np.random.default_rng(0).standard_normal((50, len(mean))).astype(np.float32)
    out = scaling.inverse_transform(Z)
    assert out.dtype == scaling.resolving(np.float32) == expected
    assert scaling.resolving(np.float64) == np.float64
    np.testing.assert_allclose((out - mean) / scale, Z, atol=2e-4)


def dated(n=120):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    return X, X[:, 0] + np.sin(X[:, 1])


NARROW = {"hidden_layer_sizes": (32, 32), "max_iter": 5, "n_folds": 1, "random_state": 0}
FAR = {"seconds": (1.7e9, 60.0), "below zero": (-1e8, 1.0), "beyond integers": (1e15, 1.0)}


def _fit(model, X, y):
    return model.fit(X, y)


def _fit_in_parts(model, X, y):
    for rows in (slice(60), slice(60, None)) * 3:
        model.partial_fit(X[rows], y[rows])
    return model


def _fit_scored(model, X, y):
    """A score that is lost where predictions of the network in progress are rounded."""
    seen = []

    def score(estimator, X, y):
        seen.append(estimator.predict(X))
        return estimator.score(X, y)

    model.set_params(scoring=score, early_stopping="validation").fit(X, y)
    assert len(np.unique(seen[-1])) > 5
    return model


@pytest.mark.parametrize("fit_model", [_fit, _fit_in_parts, _fit_scored])
@pytest.mark.parametrize("far", FAR)
def test_targets_far_from_zero_are_predicted_as_well_from_single_precision(far, fit_model):
    X, signal = dated()
    mean, unit = FAR[far]
    y = mean + unit * signal
    model = fit_model(SubquadMLPRegressor(**NARROW), X.astype(np.float32), y)
    assert model.coefs_[0].dtype == np.float32
    prediction = model.predict(X.astype(np.float32))
    assert prediction.dtype == np.float64
    in_double = fit_model(SubquadMLPRegressor(precision="double", **NARROW), X, y)
    assert model.score(X.astype(np.float32), y) > in_double.score(X, y) - 0.02 > 0.5
    # What is asked of either, and fitted in the other.
    for asked, fitted in ((X, model), (X.astype(np.float32), in_double)):
        crossed = fitted.predict(asked)
        assert crossed.dtype == np.float64
        np.testing.assert_allclose((crossed - mean) / unit, (fitted.predict(X) - mean) / unit, atol=0.2)


def test_deviations_of_targets_far_from_zero_are_those_of_targets_near_it():
    X, signal = dated()
    X = X.astype(np.float32)
    near = SubquadMLPRegressor(**NARROW).fit(X, 60 * signal).predict(X, return_std=True)
    far = SubquadMLPRegressor(**NARROW).fit(X, 60 * signal + 1.7e9).predict(X, return_std=True)
    np.testing.assert_allclose(far[0] - 1.7e9, near[0], atol=0.1)
    np.testing.assert_allclose(far[1], near[1], rtol=1e-2)


def test_one_far_target_of_several_is_enough():
    X, signal = dated()
    X = X.astype(np.float32)
    model = SubquadMLPRegressor(**NARROW).fit(X, np.column_stack([signal, 1.7e9 + signal]))
    prediction = model.predict(X)
    assert prediction.dtype == np.float64
    np.testing.assert_allclose(prediction[:, 1] - 1.7e9, prediction[:, 0], atol=0.12)


def test_other_predictions_have_the_dtype_of_x():
    X, signal = dated()
    X = X.astype(np.float32)
    counts = np.round(np.exp(signal + 12))
    for model, y in (
        (SubquadMLPRegressor(**NARROW), signal),
        (SubquadMLPRegressor(loss="poisson", **NARROW), counts),
    ):
        assert clone(model).fit(X, y).predict(X).dtype == np.float32
    for loss in ("squared_error", "log_loss"):
        model = SubquadMLPClassifier(loss=loss, **NARROW).fit(X, np.where(signal > 1, 10**9, 10**9 + 1))
        assert model.predict_proba(X).dtype == np.float32


# ---- outlying values --------------------------------------------------------------------------------------------


def heavy(kind, n=500):
    """A feature with values far from all others, and its last rows, which are like the first ones."""
    x = np.random.default_rng(0).standard_normal(n)
    if kind == "one cell":
        x[0] = 1e6
    elif kind == "sentinel":
        x[:5] = -9999
    elif kind == "heavy tail":
        x = np.exp(3 * x)
    else:
        # Most values are equal.
        x[np.arange(n) % 3 > 0] = 0
        x[:2] = 1e4
    return x


@pytest.mark.parametrize("kind", ["one cell", "sentinel", "heavy tail", "mostly zero"])
def test_outlying_values_are_squashed_and_the_others_stay_apart(kind):
    x = heavy(kind)
    X = np.column_stack([x, np.random.default_rng(1).standard_normal(len(x))])
    scaling = fit_inputs(X)
    limits = scaling.squash[1]
    assert np.isfinite(limits[0])
    assert np.isinf(limits[1])
    scaled = scaling.transform(X)[:, 0] * np.sqrt(2)
    # The order stays, and every value is as far from the mean as is usual.
    assert (np.diff(scaled[np.argsort(x)]) >= 0).all()
    assert np.abs(scaled).max() < 8
    middle = np.abs(x - np.median(x)) <= np.quantile(np.abs(x - np.median(x)), 0.9)
    assert scaled[middle].std() > 0.3


def test_squashed_values_are_those_of_the_formula():
    x = heavy("heavy tail")
    median, limit = fit_inputs(x[:, None]).squash
    q1, q2, q3 = np.quantile(x, [0.25, 0.5, 0.75], method="inverted_cdf")
    assert median == q2
    assert limit == pytest.approx(3 * (q3 - q1))
    z = (x - q2) / (q3 - q1)
    squashed = q2 + (q3 - q1) * z / np.sqrt(1 + (z / 3) ** 2)
    wanted = (squashed - squashed.mean()) / squashed.std()
    np.testing.assert_allclose(fit_inputs(x[:, None]).transform(x[:, None])[:, 0], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0]])
def test_indicators_and_few_values_are_not_squashed(values):
    x = np.tile(values, 50)
    x[:150] = values[0]
    assert fit_inputs(x[:, None]).squash is None


def test_without_standardisation_nothing_is_squashed():
    assert fit_inputs(heavy("sentinel")[:, None], standardize=False).squash is None


def test_a_weight_squashes_as_a_row_repeated():
    x, w = heavy("heavy tail"), integer_weights(500)
    weighted, repeated = fit_inputs(x[:, None], w), fit_inputs(np.repeat(x, w.astype(int))[:, None])
    np.testing.assert_array_equal(weighted.squash, repeated.squash)


@pytest.mark.parametrize("kind", ["one cell", "sentinel", "heavy tail"])
@pytest.mark.parametrize("n_bins", [None, "auto"])
def test_models_see_features_with_outlying_values(kind, n_bins):
    rng = np.random.default_rng(3)
    X = np.column_stack([heavy(kind), rng.standard_normal((500, 2))])
    signal = np.random.default_rng(0).standard_normal(500)
    y = np.sin(2 * signal) + X[:, 1]
    model = SubquadMLPRegressor(hidden_layer_sizes=(128, 128), n_bins=n_bins, random_state=0).fit(X[100:], y[100:])
    kept = slice(5, 100)
    assert model.score(X[kept], y[kept]) > 0.75


@pytest.mark.parametrize(
    ("dtype", "precision", "far"),
    [
        (np.float32, "single", 1e30),
        (np.float32, "single", 3e38),
        (np.float32, "double", 1e30),
        (np.float64, "single", 1e60),
        (np.float64, "single", 1e300),
        (np.float64, "double", 1e200),
    ],
)
@pytest.mark.parametrize("feature", [0, 1])
def test_new_values_however_far_give_finite_predictions(dtype, precision, far, feature):
    """Doubles may be far beyond the range of a network in single precision; here the first feature is squashed."""
    X = np.column_stack([heavy("heavy tail"), np.random.default_rng(1).standard_normal(500)]).astype(dtype)
    rows = np.zeros((2, 2), dtype=dtype)
    rows[:, feature] = far, -far
    for model, y in (
        (SubquadMLPRegressor(precision=precision, **NARROW), X[:, 1]),
        (SubquadMLPClassifier(precision=precision, loss="log_loss", **NARROW), X[:, 1] > 0),
    ):
        predicted = model.fit(X, y).predict(rows) if y.dtype != bool else model.fit(X, y).predict_proba(rows)
        assert np.isfinite(predicted).all()
        assert feature == 0 or len(np.unique(predicted)) > 1
