"""Initial weights, and what a forward pass owes to the calibration; operators are tested in test_jacobian.py."""

import dataclasses
import warnings

import numpy as np
import pytest
from cases import DenseNetwork, as_dense

from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._network.initial_weights import INPUT_WEIGHTS
from sklearn_subquad._network.network import Architecture, Network

# Ragged last panels.
WIDTHS = (130, 300, 200)
DTYPES = [np.float32, np.float64]


def initialise(dtype=np.float32, seed=0, n_rows=20, **options):
    x = np.random.default_rng(1).standard_normal((n_rows, 4)).astype(dtype)
    architecture = Architecture(**{"widths": WIDTHS, "densities": (0.25, 0.2, 0.1)} | options)
    return Network.initialise(architecture, x, np.ones(n_rows), 2, seed), x


def weights(network):
    """All initial weights but those of the outputs."""
    hidden = [lazy.packed.tiles for lazy in network.lazy_weights()]
    return hidden + [layer.input_weights for layer in network.layers if layer.input_weights is not None]


@pytest.mark.parametrize("options", [{}, {"init": "gaussian"}, {"init_scale": 1.0}, {"sparsifier": "topk"}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_jobs", [1, 2, 4])
def test_the_start_does_not_depend_on_the_number_of_threads(n_jobs, dtype, options):
    inline, _ = initialise(dtype, **options)
    with worker_threads(n_jobs):
        threaded, _ = initialise(dtype, **options)
    for one, other in zip(weights(inline), weights(threaded), strict=True):
        assert one.tobytes() == other.tobytes()
    for one, other in zip(inline.output_weights, threaded.output_weights, strict=True):
        assert one.tobytes() == other.tobytes()
    assert [layer.shift for layer in inline.layers] == [layer.shift for layer in threaded.layers]
    assert [layer.gain for layer in inline.layers] == [layer.gain for layer in threaded.layers]


@pytest.mark.parametrize("init_scale", [0.07, 1.0])
def test_both_precisions_start_with_the_same_weights(init_scale):
    (single, _), (double, _) = (initialise(dtype, init="gaussian", init_scale=init_scale) for dtype in DTYPES)
    for one, other in zip(weights(single), weights(double), strict=True):
        assert (one.dtype, other.dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(one.astype(np.float64), other)
    # These are scaled, each in its own precision.
    np.testing.assert_allclose(single.output_weights[0], double.output_weights[0], rtol=1e-6)


def test_the_start_does_not_depend_on_the_rows():
    few, many = (initialise(n_rows=n_rows, init="gaussian")[0] for n_rows in (3, 50))
    for one, other in zip(weights(few), weights(many), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_gives_the_same_start_and_another_one_does_not():
    first, again, other = (weights(initialise(seed=seed)[0]) for seed in (3, 3, 4))
    for a, b, c in zip(first, again, other, strict=True):
        assert a.tobytes() == b.tobytes()
        # Lanes beyond the width are zero in all.
        assert (a == c)[a != 0].mean() < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_weights_are_independent_standard_normal_numbers(dtype):
    network, _ = initialise(dtype, init="gaussian")
    tiles = [lazy.packed.tiles for lazy in network.lazy_weights()]
    panels = [panel[:, :8].astype(np.float64).ravel()[: 128 * 8] for array in tiles for panel in array]
    panels += [layer.input_weights.astype(np.float64).ravel()[: 128 * 4] for layer in network.layers]
    for i, numbers in enumerate(panels):
        # Five standard errors of the mean, of the mean square and of the correlation with another panel.
        assert abs(numbers.mean()) < 5 / np.sqrt(numbers.size)
        assert abs((numbers**2).mean() - 1) < 5 * np.sqrt(2 / numbers.size)
        for others in panels[:i]:
            size = min(numbers.size, others.size)
            assert abs(numbers[:size] @ others[:size]) < 5 * np.sqrt(size)


@pytest.mark.parametrize("width", [64, 65, 127, 128])
def test_lanes_beyond_the_width_are_zero(width):
    network, _ = initialise(widths=(30, width), densities=(0.25, 0.25))
    (tiles,) = (lazy.packed.tiles for lazy in network.lazy_weights())
    lanes = tiles.transpose(0, 2, 1).reshape(-1, 30)
    assert lanes[:width].all()
    assert not lanes[width:].any()


@pytest.mark.parametrize("width", [64, 65, 129, 7])
@pytest.mark.parametrize("init", INPUT_WEIGHTS)
def test_a_mirrored_layer_starts_in_pairs(width, init):
    network, _ = initialise(np.float64, init=init, widths=(30, width), densities=(0.25, 0.25), init_scale=1.0)
    dense = DenseNetwork.of(network)
    paired = width - width % 2
    for part in (dense.hidden[1], dense.inputs[1]):
        np.testing.assert_array_equal(part[:paired:2], part[1:paired:2])
    np.testing.assert_array_equal(dense.output[0][:paired:2], -dense.output[0][1:paired:2])
    assert not dense.output[0][paired:].any()
    # Other layers and the pairs among each other differ.
    one, next_one = dense.inputs[0][:-1], dense.inputs[0][1:]
    assert (one != next_one)[one != 0].all()
    assert (dense.hidden[1][1 : paired - 1 : 2] != dense.hidden[1][2:paired:2]).all()


@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("skip_connections", [True, False])
@pytest.mark.parametrize("init", INPUT_WEIGHTS)
def test_layers_are_calibrated_to_their_density_and_norm(dtype, sparsifier, skip_connections, init):
    network, x = initialise(dtype, n_rows=400, init=init, sparsifier=sparsifier, skip_connections=skip_connections)
    hidden, densities = network.forward(x).hidden, network.architecture.densities
    # Where the features come along, hidden layers whisper to the next; the last one speaks to the output.
    norms = [0.25 if skip_connections else 1.0] * (len(hidden) - 1) + [1.0]
    for rows, density, norm in zip(hidden, densities, norms, strict=True):
        assert rows.dtype == dtype
        # Pre-activations are not quite normal, less so without the features, and few neurons are seen by all rows.
        assert rows.density == pytest.approx(density, rel=0.3 if skip_connections else 0.5)
        mean_square = (as_dense(rows) ** 2).sum(axis=1).mean()
        assert mean_square == pytest.approx(norm**2, rel=1e-4 if dtype == np.float32 else 1e-12)


def test_a_network_goes_on_from_its_state():
    network, x = initialise(np.float64)
    expected = network.forward(x).output
    restored = Network.from_state(dataclasses.replace(network.architecture), network.to_state())
    np.testing.assert_array_equal(restored.forward(x).output, expected)


def test_numbers_that_are_not_finite_come_out_without_a_warning():
    # BLAS raises the same flag now and then where all numbers are finite.
    network, x = initialise(np.float64)
    network.output_weights = (network.output_weights[0], np.full_like(network.output_weights[1], np.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(network.forward(0 * x).output).all()


@pytest.mark.parametrize("widths", [(64,), (9,), (1,), (64, 64), (65, 33), (8, 129), (5, 1)])
@pytest.mark.parametrize("skip_connections", [True, False])
@pytest.mark.parametrize("sparsifier", ["shifted_relu", "topk"])
@pytest.mark.parametrize("init_scale", [0.3, 1.0])
def test_large_initial_output_weights_start_at_zero(widths, skip_connections, sparsifier, init_scale):
    if sparsifier == "topk" and widths[-1] % 2:
        widths = (*widths[:-1], widths[-1] + 1)  # the neuron without a partner may split a pair, see Architecture
    x = np.random.default_rng(0).standard_normal((30, 4))
    architecture = Architecture(
        widths=widths,
        densities=(0.25,) * len(widths),
        sparsifier=sparsifier,
        skip_connections=skip_connections,
        init_scale=init_scale,
    )
    network = Network.initialise(architecture, x, np.ones(30), 3, seed=0)
    np.testing.assert_allclose(network.forward(x).output, 0, atol=1e-13)


@pytest.mark.parametrize("init_scale", [0.05, 0.2])
def test_small_initial_output_weights_start_at_their_scale(init_scale):
    x = np.random.default_rng(0).standard_normal((200, 4))
    architecture = Architecture(widths=(512, 512), densities=(0.25, 0.25), init_scale=init_scale)
    network = Network.initialise(architecture, x, np.ones(200), 50, seed=0)
    assert network.forward(x).output.std() == pytest.approx(init_scale, rel=0.2)
