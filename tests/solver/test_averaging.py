"""Averages of iterates against sums with their weights written out, and copies of parameters."""

import numpy as np
import pytest
from cases import Case, build, parameters, random_step

from sklearn_subquad._linalg.threads import worker_threads
from sklearn_subquad._solver.averaging import IterateAverage, Parameters

DTYPES = ["float32", "float64"]
# Layers, skip connections: without weights between layers, and without input weights.
KINDS = [(1, True), (2, False), (2, True), (3, True), (3, False)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def make(kind, dtype="float64"):
    """A network that has moved, with a step pending where it has hidden-to-hidden weights, and its rows."""
    n_layers, skip = kind
    return build(Case(n_layers, 3, skip, "shifted_relu", 0.25, dtype, True, "identity"))


def move(network, x, seed):
    network.apply(random_step(network, x, 3, np.random.default_rng(seed)))


def close(actual, desired, dtype, factor=20):
    scale = np.abs(desired).max()
    np.testing.assert_allclose(actual, desired, rtol=0, atol=factor * np.finfo(dtype).eps * scale)


def arrays(parts):
    return [matrix.tiles for matrix in parts.packed] + parts.dense


class TestParameters:
    @every_dtype
    @every_kind
    def test_are_the_arrays_of_the_network_with_everything_folded_in(self, kind, dtype):
        network, _ = make(kind, dtype)
        before = parameters(network)
        parts = Parameters.of(network)
        assert all(weights.rank == 0 for weights in network.lazy_weights())
        close(parameters(network), before, dtype)
        assert len(parts.packed) == len(network.lazy_weights())
        for weights, packed in zip(network.lazy_weights(), parts.packed, strict=True):
            assert weights.packed is packed
        own = [layer.input_weights for layer in network.layers] + list(network.output_weights)
        own = [array for array in own if array is not None]
        assert len(parts.dense) == len(own)
        assert all(any(array is other for other in parts.dense) for array in own)

    @every_dtype
    @every_kind
    def test_a_copy_is_the_same_in_other_memory(self, kind, dtype):
        network, _ = make(kind, dtype)
        parts = Parameters.of(network)
        copy = parts.copy()
        for mine, theirs in zip(arrays(copy), arrays(parts), strict=True):
            assert mine.dtype == theirs.dtype
            assert mine.flags.c_contiguous
            np.testing.assert_array_equal(mine, theirs)
            assert not np.shares_memory(mine, theirs)
        for mine, theirs in zip(copy.packed, parts.packed, strict=True):
            assert mine.shape == theirs.shape
        before = parameters(network)
        for array in arrays(copy):
            array += 1
        np.testing.assert_array_equal(parameters(network), before)

    @every_dtype
    @every_kind
    def test_given_to_a_network_they_are_its_own(self, kind, dtype):
        network, x = make(kind, dtype)
        first = Parameters.of(network)
        kept, wanted, output = first.copy(), parameters(network), network.forward(x).output
        move(network, x, 1)
        second = Parameters.of(network)
        assert np.abs(parameters(network) - wanted).max() > 1e-3
        kept.give_to(network)
        np.testing.assert_array_equal(parameters(network), wanted)
        np.testing.assert_array_equal(network.forward(x).output, output)
        # Not copied: what is done to the one is done to the other.
        for mine, theirs in zip(arrays(Parameters.of(network)), arrays(kept), strict=True):
            assert np.shares_memory(mine, theirs)
        second.give_to(network)
        for mine, theirs in zip(arrays(Parameters.of(network)), arrays(second), strict=True):
            assert mine is theirs or np.shares_memory(mine, theirs)

    @every_kind
    def test_what_was_pending_is_not_added_to_those_that_are_given(self, kind):
        network, x = make(kind)
        kept, wanted = Parameters.of(network).copy(), parameters(network)
        move(network, x, 1)
        kept.give_to(network)
        np.testing.assert_array_equal(parameters(network), wanted)
        assert all(weights.rank == 0 for weights in network.lazy_weights())

    @every_kind
    def test_a_network_goes_on_from_those_that_are_given(self, kind):
        # Swapped twice, as for the error of an average, steps add what they would have added.
        wanted, x = make(kind)
        network, _ = make(kind)
        average = Parameters.of(network).copy()
        for array in arrays(average):
            array *= 0.5
        for seed in (1, 2):
            iterate = Parameters.of(network)
            average.give_to(network)
            network.forward(x)
            iterate.give_to(network)
            for each in (network, wanted):
                move(each, x, seed)
        close(parameters(network), parameters(wanted), "float64", 100)
        state = network.to_state()
        assert all(np.isfinite(tiles).all() for tiles in state["tiles"])

    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    @every_dtype
    @every_kind
    def test_move_by_a_share_of_the_distance(self, kind, dtype, share):
        network, x = make(kind, dtype)
        mine, start = Parameters.of(network).copy(), parameters(network)
        move(network, x, 1)
        theirs, end = Parameters.of(network), parameters(network)
        mine.move_towards(theirs, share)
        np.testing.assert_array_equal(parameters(network), end)
        mine.give_to(network)
        close(parameters(network), start + share * (end - start), dtype)
        assert all(array.dtype == dtype for array in arrays(mine))
        if share == 1.0:
            np.testing.assert_array_equal(parameters(network), end)

    def test_lanes_beyond_the_width_stay_zero(self):
        network, x = make((3, True))
        average = IterateAverage()
        for seed in range(3):
            average.update(Parameters.of(network))
            move(network, x, seed)
        for packed in average.parameters.packed:
            n_panels, n_in, lanes = packed.tiles.shape
            rows = packed.tiles.transpose(0, 2, 1).reshape(n_panels * lanes, n_in)
            assert rows[: packed.n_out].all()
            assert not rows[packed.n_out :].any()

    @pytest.mark.parametrize("n_jobs", [2, 4])
    @every_dtype
    def test_do_not_depend_on_the_number_of_threads(self, dtype, n_jobs):
        def averaged():
            network, x = make((3, True), dtype)
            average = IterateAverage()
            for seed in range(3):
                move(network, x, seed)
                average.update(Parameters.of(network))
            return [array.tobytes() for array in arrays(average.parameters.copy())]

        inline = averaged()
        with worker_threads(n_jobs):
            assert averaged() == inline


class TestIterateAverage:
    @pytest.mark.parametrize("n_steps", [1, 2, 3, 12])
    @every_dtype
    @every_kind
    def test_is_the_polynomial_decay_average(self, kind, dtype, n_steps):
        # With shares (c + 1) / (t + c) for c = 3, iterate t of any number counts t (t + 1) (t + 2).
        network, x = make(kind, dtype)
        average, iterates = IterateAverage(), []
        for seed in range(n_steps):
            move(network, x, seed)
            average.update(Parameters.of(network))
            iterates.append(parameters(network))
        t = np.arange(1, n_steps + 1)
        wanted = np.average(iterates, axis=0, weights=t * (t + 1) * (t + 2))
        last = parameters(network)
        average.parameters.give_to(network)
        close(parameters(network), wanted, dtype)
        if n_steps > 1:
            assert np.abs(wanted - last).max() > 1e-3

    def test_starts_with_nothing(self):
        assert IterateAverage().parameters is None

    @every_kind
    def test_keeps_its_own_memory(self, kind):
        network, x = make(kind)
        average = IterateAverage()
        average.update(Parameters.of(network))
        first = arrays(average.parameters)
        before = [array.copy() for array in first]
        move(network, x, 0)
        Parameters.of(network)
        for array, wanted in zip(first, before, strict=True):
            np.testing.assert_array_equal(array, wanted)
        average.update(Parameters.of(network))
        assert all(mine is array for mine, array in zip(arrays(average.parameters), first, strict=True))
        assert not any(
            np.shares_memory(mine, theirs) for mine, theirs in zip(first, arrays(Parameters.of(network)), strict=True)
        )
