"""Standard deviations of predictions, against dense algebra, brute-force refits and data of known noise."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from cases import DenseNetwork, fitting_problem
from sklearn import config_context
from small_fits import precision_of

from sklearn_subquad import SubquadMLPRegressor
from sklearn_subquad._fit import laplace as laplace_module
from sklearn_subquad._fit.laplace import LinearisedLaplace
from sklearn_subquad._network.network import Network

OPTIONS = {"hidden_layer_sizes": (48, 40), "max_iter": 4, "n_folds": 1, "random_state": 0}


def linear_problem(n=40, n_features=6, n_outputs=2):
    """Features, targets and weights of a ridge regression."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, n_features))
    Y = features @ rng.standard_normal((n_features, n_outputs)) + rng.standard_normal((n, n_outputs))
    return features, Y, rng.integers(1, 5, n).astype(float)


def left_out_rows(features, Y, sample_weight):
    weighted = sample_weight[:, None] * features
    eigenvalues, vectors = np.linalg.eigh(features.T @ weighted)
    return laplace_module._LeftOutRows(features @ vectors, eigenvalues, vectors.T @ weighted.T @ Y, Y, sample_weight)


def toy_data(n=300, n_outputs=1, noise=0.3, seed=0, dtype=np.float64):
    """A smooth signal of unit order and Gaussian noise that is the same everywhere."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 3))
    signal = np.sin(3 * X[:, :1]) + X[:, 1:2] * X[:, 2:]
    Y = signal * np.arange(1, n_outputs + 1) + noise * rng.standard_normal((n, n_outputs))
    return X.astype(dtype), Y if n_outputs > 1 else Y[:, 0]


@pytest.mark.parametrize("shift", [1e-3, 1.0, 50.0])
def test_left_out_residuals_and_variances_are_those_of_refits(shift):
    features, Y, sample_weight = linear_problem()
    left_out = left_out_rows(features, Y, sample_weight).at(shift)
    for row in range(len(Y)):
        w = np.where(np.arange(len(Y)) == row, 0, sample_weight)
        normal = features.T @ (w[:, None] * features) + shift * np.eye(features.shape[1])
        coefficients = np.linalg.solve(normal, features.T @ (w[:, None] * Y))
        np.testing.assert_allclose(left_out.residual[row], Y[row] - features[row] @ coefficients, rtol=1e-8)
        spread = features[row] @ np.linalg.solve(normal, features[row])
        np.testing.assert_allclose(left_out.spread[row, 0], spread, rtol=1e-8)


@pytest.mark.parametrize("shift", [1e-3, 1.0])
def test_what_remains_of_a_left_out_row_is_positive_for_weights_of_any_order(shift):
    """Beside three rows of weight 1e30 the share of those of weight 1 in the matrix is lost to rounding."""
    features, Y, _ = linear_problem()
    sample_weight = np.where(np.arange(len(Y)) < 3, 1e30, 1.0)
    rows = left_out_rows(features, Y, sample_weight)
    left_out = replace(rows, eigenvalues=np.maximum(rows.eigenvalues, 0)).at(shift)
    # Without the row, the matrix is at least the shift: φ^T (...)^-1 φ is at most |φ|^2 / shift, to some roundings.
    bound = np.einsum("ij,ij->i", features, features) / shift
    assert (left_out.spread >= 0).all()
    assert (left_out.spread[:, 0] <= bound * (1 + 1e-12)).all()
    assert np.isfinite(left_out.loss)


def test_the_noise_is_the_likeliest_one():
    features, Y, sample_weight = linear_problem()
    left_out = left_out_rows(features, Y, sample_weight).at(2.0)

    def loss(noise):
        variance = noise * (1 + left_out.spread)
        rows = np.log(variance) + left_out.residual**2 / variance
        return np.average(rows.mean(axis=1), weights=sample_weight)

    # At the likeliest noise squares over variances have mean one.
    np.testing.assert_allclose(loss(left_out.noise), left_out.loss + 1)
    for output in range(2):
        for factor in (0.99, 1.01):
            scale = np.where(np.arange(2) == output, factor, 1.0)
            assert loss(left_out.noise * scale) > loss(left_out.noise)


def test_the_noise_explains_a_given_error():
    features, Y, sample_weight = linear_problem()
    left_out = left_out_rows(features, Y, sample_weight).at(2.0)
    noise = left_out.noise_of(0.123)
    variance = np.average(noise * (1 + left_out.spread), axis=0, weights=sample_weight)
    assert variance.mean() == pytest.approx(0.123)
    # Outputs share it as their squares are.
    squares = np.average(left_out.residual**2, axis=0, weights=sample_weight)
    np.testing.assert_allclose(variance / squares, np.full(2, variance[0] / squares[0]))


def fitted_laplace(n_outputs=1, dtype=np.float64, weighted=False, error=None):
    network, batch, _ = fitting_problem(n_outputs=n_outputs, dtype=dtype, weighted=weighted)
    return network, batch, LinearisedLaplace.fit(network, batch, error, 0)


def new_inputs(batch):
    return (batch.x[::-1] * np.array([0.5, 1.0, 1.5, -1.0, 1.0])).astype(batch.x.dtype)


@pytest.mark.parametrize("n_outputs", [1, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_variance_is_that_of_dense_algebra_on_the_sketches(n_outputs, weighted, monkeypatch):
    monkeypatch.setattr(laplace_module, "_SHIFTS", np.array([0.1]))
    network, batch, laplace = fitted_laplace(n_outputs, weighted=weighted, error=1.0)
    features, new = (laplace_module._features(network, x, 120, 0) for x in (batch.x, new_inputs(batch)))
    normal = features.T @ (batch.sample_weight[:, None] * features)
    normal += 0.1 * np.trace(normal) / batch.sample_weight.sum() * np.eye(120)
    spread = np.einsum("ij,ji->i", new, np.linalg.solve(normal, new.T))
    expected = (1 + spread)[:, None] * laplace.noise
    np.testing.assert_allclose(laplace.variance(network, new_inputs(batch)), expected, rtol=1e-9)
    # The error that was given is that of the fitted rows, each of them left out.
    q = np.einsum("ij,ji->i", features, np.linalg.solve(normal, features.T))
    left_out = q / (1 - batch.sample_weight * q)
    mean = np.average(1 + left_out, weights=batch.sample_weight)
    assert laplace.noise.mean() * mean == pytest.approx(1.0)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_variance_tends_to_that_of_the_dense_jacobian(n_outputs, monkeypatch):
    size = 1024
    monkeypatch.setattr(laplace_module, "covariance_sketch_size", lambda n_rows: size)
    monkeypatch.setattr(laplace_module, "_SHIFTS", np.array([3.0]))
    network, batch, laplace = fitted_laplace(n_outputs, weighted=True)
    new, roots = new_inputs(batch), np.sqrt(batch.sample_weight)
    J, J_new = (DenseNetwork.of(network).jacobian(x) for x in (batch.x, new))
    # Gram matrices, as means over the outputs.
    gram = np.einsum("icp,jcp->ij", J, J) / n_outputs * roots * roots[:, None]
    between = np.einsum("icp,jcp->ij", J_new, J) / n_outputs * roots
    of_new = np.einsum("icp,icp->i", J_new, J_new) / n_outputs
    shift = 3.0 * np.trace(gram) / batch.sample_weight.sum()
    shifted = gram + shift * np.eye(len(gram))
    spread = (of_new - np.einsum("ij,ji->i", between, np.linalg.solve(shifted, between.T))) / shift
    relative = (laplace.variance(network, new)[:, 0] / laplace.noise[0] - 1) / spread - 1
    # The standard deviation of a sketched element is at most sqrt(11 / size) of the norms of its rows.
    assert np.sqrt(np.mean(relative**2)) < np.sqrt(11 / size)
    assert np.abs(relative).max() < 3 * np.sqrt(11 / size)


def test_the_shift_is_the_likeliest_one_of_the_grid(monkeypatch):
    network, batch, laplace = fitted_laplace()
    tried = {}
    for shift in laplace_module._SHIFTS:
        with monkeypatch.context() as context:
            context.setattr(laplace_module, "_SHIFTS", np.array([shift]))
            at_shift = LinearisedLaplace.fit(network, batch, None, 0)
        features = laplace_module._features(network, batch.x, 120, 0).astype(np.float64)
        inverse = at_shift.whitener @ at_shift.whitener.T
        q = np.einsum("ij,jk,ik->i", features, inverse, features)[:, None]
        variance = at_shift.noise * (1 + q / (1 - q))
        residual = (batch.Y - features @ inverse @ features.T @ batch.Y) / (1 - q)
        tried[shift] = (np.mean(np.log(variance) + residual**2 / variance), at_shift)
    _, best = min(tried.values(), key=lambda pair: pair[0])
    np.testing.assert_array_equal(laplace.whitener, best.whitener)
    np.testing.assert_array_equal(laplace.noise, best.noise)


@pytest.mark.parametrize("n_rows", [60, 59])
def test_rows_are_processed_in_blocks_and_left_out_at_equal_distances(n_rows, monkeypatch):
    network, batch, _ = fitting_problem()
    batch = batch[:n_rows]
    monkeypatch.setattr(laplace_module, "CALIBRATION_ROWS", 20)
    whole = LinearisedLaplace.fit(network, batch, None, 0)
    chosen = []

    class Spy(laplace_module._LeftOutRows):
        def __post_init__(self):
            chosen.append(self.Y)
            super().__post_init__()

    monkeypatch.setattr(laplace_module, "_LeftOutRows", Spy)
    monkeypatch.setattr(laplace_module, "COVARIANCE_BLOCK_ROWS", 7)
    blocks = LinearisedLaplace.fit(network, batch, None, 0)
    np.testing.assert_array_equal(chosen[0], batch.Y[::3])
    np.testing.assert_allclose(blocks.noise, whole.noise, rtol=1e-7)
    x = new_inputs(batch)
    np.testing.assert_allclose(blocks.variance(network, x), whole.variance(network, x), rtol=1e-7)


def test_single_precision_gives_the_same_variances():
    (network, batch, double), (single_network, _, single) = (fitted_laplace(dtype=t) for t in (np.float64, np.float32))
    assert single.whitener.dtype == np.float32
    np.testing.assert_allclose(
        single.variance(single_network, new_inputs(batch).astype(np.float32)),
        double.variance(network, new_inputs(batch)),
        rtol=1e-2,
    )


# ---- of the estimator --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "early_stopping"),
    [("auto", "loo"), ("auto", "validation"), ("auto", False), (60, "validation"), (60, False)],
)
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_means_are_those_of_predict_and_deviations_have_their_shape(dtype, n_outputs, batch_size, early_stopping):
    X, y = toy_data(n=150, n_outputs=n_outputs, dtype=dtype)
    parameters = {"early_stopping": early_stopping, "batch_size": batch_size, "precision": precision_of(dtype)}
    model = SubquadMLPRegressor(**OPTIONS, **parameters).fit(X, y)
    state = pickle.dumps(model)
    mean, std = model.predict(X[:31], return_std=True)
    assert pickle.dumps(model) == state
    assert mean.tobytes() == model.predict(X[:31]).tobytes()
    assert std.shape == mean.shape == y[:31].shape
    assert std.dtype == dtype
    assert np.all(std > 0)


def test_pickle_keeps_deviations_to_the_bit_and_grows_by_one_factor():
    X, y = toy_data(dtype=np.float32)
    model = SubquadMLPRegressor(**OPTIONS).fit(X, y)
    pickled = pickle.dumps(model)
    restored = pickle.loads(pickled)
    expected = model.predict(X, return_std=True)[1]
    assert restored.predict(X, return_std=True)[1].tobytes() == expected.tobytes()
    state = model._state_["laplace"]
    assert {name: type(value) for name, value in state.items()} == {
        "whitener": np.ndarray,
        "noise": np.ndarray,
        "seed": int,
    }
    model._state_["laplace"] = None
    assert len(pickled) - len(pickle.dumps(model)) == pytest.approx(512 * 512 * 4, rel=1e-2)


def test_deviations_do_not_depend_on_the_parts_of_the_rows():
    X, y = toy_data()
    model = SubquadMLPRegressor(precision="double", **OPTIONS).fit(X, y)
    _, expected = model.predict(X, return_std=True)
    with config_context(working_memory=1e-2):
        [(network, *_)] = model._models()
        assert len(list(network.row_batches(len(X)))) > 5
        _, in_parts = model.predict(X, return_std=True)
    np.testing.assert_allclose(in_parts, expected, rtol=1e-12)
    one_by_one = [model.predict(X[[i]], return_std=True)[1][0] for i in range(5)]
    np.testing.assert_allclose(one_by_one, expected[:5], rtol=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_deviations_are_in_units_of_the_targets(n_outputs):
    X, y = toy_data(n_outputs=n_outputs)
    scale, shift = np.array([8.0, 1 / 16])[:n_outputs], np.array([100.0, -3.0])[:n_outputs]
    if n_outputs == 1:
        scale, shift = scale[0], shift[0]
    # Solved well enough for the number of inner iterations not to hang on rounding.
    model = SubquadMLPRegressor(**OPTIONS, cg_tol=1e-9, max_cg_iter=500)
    _, expected = model.fit(X, y).predict(X, return_std=True)
    _, scaled = model.fit(X, y * scale + shift).predict(X, return_std=True)
    np.testing.assert_allclose(scaled, expected * scale, rtol=1e-6)


def test_every_output_has_its_own_noise():
    X, Y = toy_data(n=400, n_outputs=2, noise=0.0)
    noise = np.array([0.2, 1.0])
    Y = Y + noise * np.random.default_rng(1).standard_normal(Y.shape)
    model = SubquadMLPRegressor(**OPTIONS).fit(X, Y)
    _, std = model.predict(X, return_std=True)
    ratio = std / model._state_["target_scale"]
    # They share the covariance.
    np.testing.assert_allclose(ratio[:, 1] / ratio[0, 1], ratio[:, 0] / ratio[0, 0])
    # The network errs as well, and by more where there is less noise.
    assert 2 < (std[:, 1] / std[:, 0]).mean() < 5.5


@pytest.mark.parametrize(
    ("n", "batch_size", "early_stopping"), [(2000, "auto", "auto"), (2000, 500, "auto"), (190, "auto", "loo")]
)
def test_intervals_cover_what_they_should(n, batch_size, early_stopping):
    noise, n_left_out = 0.3, n if early_stopping == "loo" else n // 10
    X, y = toy_data(n=n, noise=noise)
    X_new, y_new = toy_data(n=4000, noise=noise, seed=1)
    model = SubquadMLPRegressor(
        hidden_layer_sizes=(128, 128), n_folds=1, random_state=0, batch_size=batch_size, early_stopping=early_stopping
    )
    mean, std = model.fit(X, y).predict(X_new, return_std=True)
    # A variance from so many squares has the relative error sqrt(2 / n), its root half of that; moving the ends of the
    # interval by a share e moves the coverage by 2 * 1.645 * 0.103 * e, 0.103 being the density there.
    error = 2 * 1.645 * 0.103 * np.sqrt(2 / n_left_out) / 2 + np.sqrt(0.9 * 0.1 / len(y_new))
    assert np.mean(np.abs(y_new - mean) < 1.645 * std) == pytest.approx(0.9, abs=3 * error)
    rmse = np.sqrt(np.mean((y_new - mean) ** 2))
    assert np.sqrt(np.mean(std**2)) == pytest.approx(rmse, rel=3 * (np.sqrt(2 / n_left_out) / 2))


def test_deviations_grow_away_from_the_fitted_rows():
    X, y = toy_data()
    model = SubquadMLPRegressor(**OPTIONS).fit(X, y)
    _, near = model.predict(X, return_std=True)
    _, far = model.predict(10 * X, return_std=True)
    assert far.mean() > 2 * near.mean()


def test_constant_targets_have_no_deviation():
    X, _ = toy_data(n=50)
    model = SubquadMLPRegressor(**OPTIONS).fit(X, np.full(50, 7.0))
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_array_equal(mean, 7.0)
    np.testing.assert_array_equal(std, 0.0)


def test_a_constant_model_says_how_far_targets_are_from_it():
    X, _ = toy_data(n=400)
    y = np.random.default_rng(2).standard_normal(400)
    model = SubquadMLPRegressor(**OPTIONS, validation_fraction=0.25).fit(X, y)
    _, std = model.predict(X, return_std=True)
    assert model.best_iter_ == 0
    # Of 100 rows held out.
    assert np.sqrt(np.mean(std**2)) == pytest.approx(y.std(), rel=3 * np.sqrt(2 / 100) / 2)


@pytest.mark.parametrize("early_stopping", ["loo", False])
def test_a_network_without_active_neurons_has_the_deviation_of_the_targets(early_stopping):
    """No gradients, hence no spread: about a constant, every row's deviation is that of the noise."""
    X, y = np.array([[-0.8], [-1.3], [-1.2], [-0.6]]), np.array([0.0, 1.0, 3.0, 4.0])
    options = {"hidden_layer_sizes": 1, "skip_connections": False, "standardize": False, "precision": "double"}
    model = SubquadMLPRegressor(**options, early_stopping=early_stopping, random_state=0).fit(X, y)
    assert model.densities_[0] == 0
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, 2)
    assert np.ptp(std) == 0
    # Of rows that are left out, a constant misses n / (n - 1) times as much.
    assert np.std(y) * (1 - 1e-12) <= std[0] <= np.std(y) * 4 / 3 * (1 + 1e-12)


def test_poisson_has_no_deviations():
    X, y = toy_data(n=100)
    model = SubquadMLPRegressor(**OPTIONS, loss="poisson").fit(X, np.exp(y))
    assert model._state_["laplace"] is None
    with pytest.raises(ValueError, match=r"return_std=True needs a model of loss='squared_error'.*loss='poisson'"):
        model.predict(X, return_std=True)
    # What counts is what was fitted.
    with pytest.raises(ValueError, match="return_std"):
        model.set_params(loss="squared_error").predict(X, return_std=True)


def test_network_states_round_trip():
    network, batch, laplace = fitted_laplace(3)
    restored = LinearisedLaplace.from_state(laplace.to_state())
    network = Network.from_state(network.architecture, network.to_state())
    np.testing.assert_array_equal(restored.variance(network, batch.x), laplace.variance(network, batch.x))
