"""Every loss against differences of its value, and against scikit-learn's metrics."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_poisson_deviance

from sklearn_subquad._curvature.losses import (
    BinaryLogLoss,
    MultinomialLogLoss,
    PoissonDeviance,
    SquaredError,
    make_loss,
)

N_ROWS = 11
DTYPES = ["float32", "float64"]


@dataclass(frozen=True)
class Case:
    name: str
    n_outputs: int
    fractional: bool = False

    def __str__(self):
        return f"{self.name}-k{self.n_outputs}{'-fractional' * self.fractional}"


CASES = [Case(name, k) for name in ("squared_error", "log_loss", "poisson") for k in (1, 2, 3, 7)]
CASES += [Case("log_loss", 1, True), Case("log_loss", 3, True), Case("poisson", 2, True)]
LINK_CASES = [case for case in CASES if case.name != "squared_error"]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def targets(case, n_rows=N_ROWS, seed=0):
    rng, k = np.random.default_rng(seed), case.n_outputs
    if case.name == "squared_error":
        return rng.standard_normal((n_rows, k))
    if case.name == "poisson":
        counts = rng.poisson(2.0, (n_rows, k))
        counts[0], counts[1] = 0, 5
        return counts + 0.3 * case.fractional
    if case.fractional:
        return rng.uniform(0, 1, (n_rows, 1)) if k == 1 else rng.dirichlet(np.ones(k), n_rows)
    labels = rng.permutation(np.arange(n_rows) % max(k, 2))
    return labels[:, None].astype(float) if k == 1 else np.eye(k)[labels]


def problem(case, dtype="float64"):
    """Loss, targets, outputs and weights."""
    rng = np.random.default_rng(1)
    Y = targets(case).astype(dtype)
    sample_weight = rng.uniform(0.5, 3.0, N_ROWS)
    F = rng.normal(0, 1.5, Y.shape).astype(dtype)
    return make_loss(case.name, Y, sample_weight), Y, F, sample_weight


def negative_gradient(loss, Y, F):
    return loss.factor(F).apply(loss.residual(Y, F))


def dense_factor(loss, F, method="apply"):
    """S or its transpose, (n x k x k)."""
    factor, unit = loss.factor(F), np.eye(F.shape[1], dtype=F.dtype)
    return np.stack([getattr(factor, method)(np.tile(e, (len(F), 1))) for e in unit], axis=2)


def central_differences(function, F, column, h=1e-5):
    step = h * np.eye(F.shape[1])[column]
    return (function(F + step) - function(F - step)) / (2 * h)


# ---- gradient and curvature -------------------------------------------------------------------------------------


@every_dtype
@every_case
def test_factor_times_residual_is_the_negative_gradient(case, dtype):
    loss, Y, F, sample_weight = problem(case, dtype)
    expected = np.empty(F.shape)
    for i, j in np.ndindex(F.shape):
        row = slice(i, i + 1)

        def value(f, row=row):
            return loss.value(Y[row], f, sample_weight[row])

        expected[i, j] = -central_differences(value, F[row].astype(np.float64), j)
    tolerance = {"float32": 1e-5, "float64": 1e-8}[dtype]
    actual = sample_weight[:, None] * negative_gradient(loss, Y, F)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@every_dtype
@every_case
def test_factor_times_its_transpose_is_the_hessian(case, dtype):
    loss, Y, F, _ = problem(case, dtype)
    S = dense_factor(loss, F)
    columns = [
        -central_differences(lambda f: negative_gradient(loss, Y, f), F.astype(np.float64), j)
        for j in range(case.n_outputs)
    ]
    tolerance = {"float32": 1e-5, "float64": 1e-8}[dtype]
    np.testing.assert_allclose(S @ S.transpose(0, 2, 1), np.stack(columns, axis=2), rtol=tolerance, atol=tolerance)


@every_dtype
@every_case
def test_apply_transposed_is_the_adjoint_of_apply(case, dtype):
    loss, _, F, _ = problem(case, dtype)
    transposed = dense_factor(loss, F).transpose(0, 2, 1)
    np.testing.assert_allclose(dense_factor(loss, F, "apply_transposed"), transposed, atol=10 * np.finfo(dtype).eps)


@every_dtype
@every_case
def test_residual_has_minimum_norm(case, dtype):
    loss, Y, F, _ = problem(case, dtype)
    S, r = dense_factor(loss, F).astype(np.float64), loss.residual(Y, F)
    tolerance = {"float32": 1e-4, "float64": 1e-10}[dtype]
    expected = np.linalg.pinv(S, rcond=tolerance) @ negative_gradient(loss, Y, F)[:, :, None]
    np.testing.assert_allclose(r, expected[:, :, 0], rtol=tolerance, atol=tolerance)
    rank = case.n_outputs - (case.name == "log_loss" and case.n_outputs > 1)
    singular = np.linalg.svd(S, compute_uv=False)
    assert ((singular > tolerance * singular[:, :1]).sum(axis=1) == rank).all()


@every_dtype
@every_case
def test_results_have_the_shape_and_dtype_of_the_outputs(case, dtype):
    loss, Y, F, _ = problem(case, dtype)
    factor = loss.factor(F)
    for targets_dtype in DTYPES:
        assert loss.residual(Y.astype(targets_dtype), F).dtype == dtype
    for result in (loss.residual(Y, F), factor.apply(F), factor.apply_transposed(F), loss.predict(F)):
        assert result.shape == F.shape
        assert result.dtype == dtype


@every_case
def test_factor_knows_whether_it_is_a_number_per_row(case):
    loss, _, F, _ = problem(case)
    factor = loss.factor(F)
    assert factor.is_identity == (case.name == "squared_error")
    if case.n_outputs == 1 and not factor.is_identity:
        assert factor.row_scale.shape == (N_ROWS, 1)
        np.testing.assert_array_equal(factor.row_scale * F, factor.apply(F))
    else:
        assert factor.row_scale is None


# ---- value, baseline and prediction -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if not case.fractional], ids=str)
def test_value_is_that_of_the_metrics(case):
    loss, Y, F, sample_weight = problem(case)
    prediction, value = loss.predict(F), loss.value(Y, F, sample_weight)
    total = sample_weight.sum()
    if case.name == "squared_error":
        expected = 0.5 * (sample_weight[:, None] * (Y - F) ** 2).sum()
    elif case.name == "poisson":
        columns = zip(Y.T, prediction.T, strict=True)
        expected = sum(0.5 * total * mean_poisson_deviance(y, p, sample_weight=sample_weight) for y, p in columns)
    else:
        labels = Y[:, 0] if case.n_outputs == 1 else Y.argmax(axis=1)
        probabilities = prediction[:, 0] if case.n_outputs == 1 else prediction
        expected = total * log_loss(labels, probabilities, sample_weight=sample_weight)
    assert isinstance(value, float)
    assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if not case.fractional], ids=str)
def test_value_of_other_labels_is_that_of_the_most_probable_other_label(case):
    loss, Y, F, sample_weight = problem(case)
    if not loss.has_labels:
        assert not hasattr(loss, "value_of_other_labels")
        return
    probabilities = loss.predict(F)
    if case.n_outputs == 1:
        probabilities, Y_all = np.column_stack([1 - probabilities, probabilities]), np.column_stack([1 - Y, Y])
    else:
        Y_all = Y
    others = [p[label != 1].max() for p, label in zip(probabilities, Y_all, strict=True)]
    value = loss.value_of_other_labels(Y, F, sample_weight)
    assert isinstance(value, float)
    assert value == pytest.approx(-(sample_weight * np.log(others)).sum(), rel=1e-6)
    assert loss.value_of_other_labels(Y, F * np.inf, sample_weight) == np.inf


@every_case
def test_value_and_baseline_are_computed_in_double_precision(case):
    _, Y, F, sample_weight = problem(case, "float32")
    wide = [a.astype(np.float64) for a in (Y, F, sample_weight)]
    single, double = make_loss(case.name, Y, sample_weight), make_loss(case.name, wide[0], sample_weight)
    np.testing.assert_allclose(single.baseline, double.baseline, rtol=1e-14)
    assert single.value(Y, F, sample_weight) == pytest.approx(double.value(*wide), rel=1e-14)


@every_dtype
@every_case
def test_baseline_is_the_best_constant(case, dtype):
    loss, Y, F, sample_weight = problem(case, dtype)
    assert loss.baseline.shape == (case.n_outputs,)
    assert loss.baseline.dtype == np.float64
    if case.name == "squared_error":
        assert not loss.baseline.any()
        return
    zero = np.zeros(F.shape)
    np.testing.assert_allclose(sample_weight @ negative_gradient(loss, Y, zero), 0, atol=1e-12)
    np.testing.assert_allclose(loss.predict(zero)[0], np.average(Y, axis=0, weights=sample_weight), rtol=1e-6)
    if case.name == "log_loss" and case.n_outputs > 1:
        assert loss.baseline.sum() == pytest.approx(0, abs=1e-12)


@every_case
def test_weights_are_repeated_rows(case):
    _, Y, F, _ = problem(case)
    copies = np.random.default_rng(2).integers(1, 5, N_ROWS)
    weighted = make_loss(case.name, Y, copies.astype(float))
    repeated = make_loss(case.name, np.repeat(Y, copies, axis=0), np.ones(copies.sum()))
    np.testing.assert_allclose(weighted.baseline, repeated.baseline, rtol=1e-12, atol=1e-14)
    expected = repeated.value(np.repeat(Y, copies, axis=0), np.repeat(F, copies, axis=0), np.ones(copies.sum()))
    assert weighted.value(Y, F, copies.astype(float)) == pytest.approx(expected, rel=1e-12)


@every_dtype
def test_binary_is_multinomial_with_two_classes(dtype):
    binary, Y, F, sample_weight = problem(Case("log_loss", 1), dtype)
    Y2, F2 = np.hstack([1 - Y, Y]), np.hstack([-F / 2, F / 2])
    multinomial = make_loss("log_loss", Y2, sample_weight)
    assert multinomial.value(Y2, F2, sample_weight) == pytest.approx(binary.value(Y, F, sample_weight), rel=1e-12)
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(multinomial.predict(F2)[:, 1:], binary.predict(F), rtol=tolerance)


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-6])
def test_poisson_deviance_close_to_a_perfect_fit(distance):
    Y = np.array([[1e-3], [7.0], [1e6]])
    loss = PoissonDeviance(np.log([2.0]))
    F = np.log(Y) - loss.baseline + distance
    distance = F + loss.baseline - np.log(Y)
    expected = (Y * distance**2 / 2).sum()
    assert loss.value(Y, F, np.ones(3)) == pytest.approx(expected, rel=1e-2, abs=1e-24)


@pytest.mark.parametrize(
    ("name", "n_outputs", "expected"),
    [
        ("squared_error", 3, SquaredError),
        ("log_loss", 1, BinaryLogLoss),
        ("log_loss", 2, MultinomialLogLoss),
        ("poisson", 2, PoissonDeviance),
    ],
)
def test_losses_have_names(name, n_outputs, expected):
    assert type(make_loss(name, targets(Case(name, n_outputs)), np.ones(N_ROWS))) is expected


# ---- extreme outputs and targets --------------------------------------------------------------------------------


def sure_outputs(F, size):
    """Outputs of about the given size, of either sign, right for some rows and wrong for others."""
    return (size * np.sign(F) * np.linspace(0.5, 1.0, F.size).reshape(F.shape)).astype(F.dtype)


@pytest.mark.parametrize("size", [30.0, 80.0, 1e3, 1e4, "max"])
@every_dtype
@pytest.mark.parametrize("case", LINK_CASES, ids=str)
def test_nothing_overflows_at_extreme_outputs(case, dtype, size):
    loss, Y, F, sample_weight = problem(case, dtype)
    F = sure_outputs(F, np.finfo(dtype).max if size == "max" else size)
    assert loss.value(Y, F, sample_weight) > 10
    residual, factor = loss.residual(Y, F), loss.factor(F)
    # An inner solve takes norms of its right-hand side.
    assert np.isfinite(np.vdot(residual, residual))
    for result in (factor.apply(residual), factor.apply_transposed(residual), loss.predict(F)):
        assert np.isfinite(result).all()


def test_squared_error_that_overflows_is_infinite():
    F = np.full((2, 1), 1e200)
    assert SquaredError().value(np.zeros((2, 1)), F, np.ones(2)) == np.inf


@pytest.mark.parametrize("size", [60.0, 1e4])
@every_dtype
@pytest.mark.parametrize("case", LINK_CASES, ids=str)
def test_wrong_and_sure_rows_keep_their_gradient(case, dtype, size):
    loss, Y, F, _ = problem(case, dtype)
    F = sure_outputs(F, size)
    prediction, eps = loss.predict(F), np.finfo(dtype).eps
    error = np.abs(negative_gradient(loss, Y, F) - (Y - prediction))
    assert (error <= 10 * eps * (1 + prediction)).all()
    if case.name == "log_loss":
        # Bounded by the smallest curvature.
        assert 0.3 < np.abs(loss.residual(Y, F)).max() * np.sqrt(eps) < 1.5


@every_dtype
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_poisson_residual_scales_with_the_unit_of_the_targets(unit, dtype):
    case = Case("poisson", 2)
    _, Y, F, sample_weight = problem(case, dtype)
    F = sure_outputs(F, 30.0)
    expected = make_loss("poisson", Y, sample_weight).residual(Y, F)
    scaled = unit * Y.astype(np.float64)
    residual = make_loss("poisson", scaled, sample_weight).residual(scaled, F)
    np.testing.assert_allclose(residual / np.sqrt(unit), expected, rtol=1e-5)


@pytest.mark.parametrize("output", [-1e4, 1e4])
@pytest.mark.parametrize(
    ("name", "Y", "expected"),
    [
        ("log_loss", [[0.0], [1.0]], [0.0, 1e4]),
        ("log_loss", [[1.0, 0.0], [0.0, 1.0]], [0.0, 1e4]),
    ],
    ids=["binary", "multinomial"],
)
def test_log_loss_of_wrong_and_sure_rows_is_linear_in_the_output(name, Y, expected, output):
    Y = np.array(Y)
    F = np.zeros(Y.shape)
    F[:, -1] = output
    rows = expected if output < 0 else expected[::-1]
    loss = make_loss(name, Y, np.ones(2))
    assert [loss.value(Y[[i]], F[[i]], np.ones(1)) for i in range(2)] == rows


@pytest.mark.parametrize("output", [np.inf, -np.inf, np.nan])
@every_case
def test_outputs_that_are_not_finite_have_infinite_loss(case, output):
    loss, Y, F, sample_weight = problem(case)
    F[3, 0] = output
    assert loss.value(Y, F, sample_weight) == np.inf


@pytest.mark.parametrize(
    ("name", "Y", "message"),
    [
        ("poisson", np.zeros((4, 1)), r"positive mean of y.*column \[0\].*use loss='squared_error'"),
        ("poisson", np.eye(4)[:, [0, 1, 2]] * [1, 0, 1], r"y is zero .*column \[1\]"),
        ("poisson", np.array([[1.0], [-2.0]]), r"y >= 0, but the smallest value of y is -2"),
        ("log_loss", np.zeros((4, 1)), "both classes, but y holds one"),
        ("log_loss", np.ones((4, 1)), "both classes, but y holds one"),
        ("log_loss", np.eye(3)[[0, 2, 0]], r"every class, but y has none of class number \[1\]"),
    ],
    ids=["poisson-zero", "poisson-zero-column", "poisson-negative", "all-zero", "all-one", "class-missing"],
)
def test_targets_without_a_best_constant_are_refused(name, Y, message):
    with pytest.raises(ValueError, match=message):
        make_loss(name, Y, np.ones(len(Y)))
