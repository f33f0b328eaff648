"""Every constructor parameter with values of any type: what its description allows is fitted, all else is refused."""

from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _memory

BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
X = np.random.default_rng(0).standard_normal((12, 2))
Y = np.arange(12) % 2
HUGE = 10**30


def small(estimator_class, **parameters):
    return estimator_class(**{"hidden_layer_sizes": (4,), "max_iter": 1, "n_folds": 1, "random_state": 0} | parameters)


@dataclass(frozen=True)
class Number:
    """Numbers from low to high; as to scikit-learn, True is the integer 1."""

    kind: type
    low: float
    high: float = np.inf
    low_counts: bool = True
    high_counts: bool = False
    auto: bool = False
    none: bool = False

    def allows(self, value):
        if isinstance(value, str):
            return self.auto and value == "auto"
        if value is None:
            return self.none
        if not isinstance(value, self.kind):
            return False
        return (value > self.low or (self.low_counts and value == self.low)) and (
            value < self.high or (self.high_counts and value == self.high)
        )

    @property
    def edges(self):
        low, high = int(self.low), HUGE
        if self.kind is Real:
            low = self.low if self.low_counts else np.nextafter(self.low, 1)
            high = 1e300 if self.high == np.inf else self.high if self.high_counts else np.nextafter(self.high, 0)
        return [low, high] + ["auto"] * self.auto + [None] * self.none


@dataclass(frozen=True)
class Choice:
    """One of these values, of the same type."""

    values: tuple

    def allows(self, value):
        return any(isinstance(value, type(one)) and value == one for one in self.values)

    @property
    def edges(self):
        return self.values


@dataclass(frozen=True)
class Other:
    """What needs a rule of its own."""

    allows: object
    edges: tuple


def is_flag(value):
    return isinstance(value, (bool, np.bool_))


def are_widths(value):
    try:
        widths = np.asarray(value)
    except ValueError:
        return False
    single = widths.ndim == 0 and isinstance(value, (Integral, np.ndarray)) and not isinstance(value, bool)
    # bytes and strings are sequences, but no text is a number.
    listed = widths.ndim == 1 and not isinstance(value, (str, bytes)) and len(widths) > 0
    return (single or listed) and widths.dtype.kind in "iu" and bool((widths >= 1).all())


def are_densities(value):
    """For one hidden layer."""
    if isinstance(value, str):
        return value == "auto"
    try:
        densities = np.asarray(value)
    except ValueError:
        return False
    fits = densities.shape in [(), (1,)] and densities.dtype.kind == "f"
    return fits and bool(((densities > 0) & (densities <= 0.5)).all())


def is_seed(value):
    return (
        value is None
        or isinstance(value, np.random.RandomState)
        or Number(Integral, 0, 2**32 - 1, high_counts=True).allows(value)
    )


def any_score(estimator, X, y):
    return 0.5


def is_scoring(value):
    return value is None or callable(value) or (isinstance(value, str) and value in {"loss", *get_scorer_names()})


def names_columns(value):
    """A mask or indices of those of X, which have no names."""
    if value is None or isinstance(value, str):
        return value is None or value == "from_dtype"
    try:
        asked = np.asarray(value)
    except ValueError:
        return False
    if isinstance(value, (bytes, Length)) or asked.ndim == 0:
        return False
    mask = asked.dtype == bool and asked.shape == X.shape[1:]
    indices = asked.ndim == 1 and asked.dtype.kind in "iu" and bool(((asked >= 0) & (asked < X.shape[1])).all())
    return asked.size == 0 or mask or indices


FLAG = Other(is_flag, (True, False, np.True_, np.False_))
COUNT = Number(Integral, 1)
PARAMETERS = {
    "hidden_layer_sizes": Other(are_widths, (1, (1,), [1, 1], np.array([3, 2]), np.array(5), np.uint8(200))),
    "sparsifier": Choice(("shifted_relu", "topk")),
    "density": Other(are_densities, ("auto", 0.5, np.nextafter(0, 1), [0.5], np.array([1e-300]), np.float16(0.5))),
    "skip_connections": FLAG,
    "init": Choice(("axis_aligned", "gaussian")),
    "init_scale": Number(Real, 0, low_counts=False, auto=True),
    "damping": Number(Real, 0, low_counts=False, auto=True),
    "max_rank": Number(Integral, 0, auto=True),
    "matmul": Choice(("auto", "scatter", "blas", "strassen")),
    "preconditioner": Choice(("auto", "gram", "sketch", "none")),
    "sketch": Choice(("tensor_srht", "tensor_sketch")),
    "sketch_size": Number(Integral, 1, auto=True),
    "cg_tol": Number(Real, 0, 1, low_counts=False, auto=True),
    "max_cg_iter": COUNT,
    "max_iter": COUNT,
    "batch_size": Number(Integral, 1, auto=True),
    "tol": Number(Real, 0, 1),
    "early_stopping": Choice(("auto", "loo", "validation", False)),
    "scoring": Other(is_scoring, ("loss", "r2", "neg_mean_squared_error", None, any_score)),
    "validation_fraction": Number(Real, 0, 1, low_counts=False),
    "n_iter_no_change": COUNT,
    "n_folds": Number(Integral, 1, auto=True),
    "n_bins": Number(Integral, 2, auto=True, none=True),
    "categorical_features": Other(names_columns, (None, "from_dtype", [], [0], np.array([False] * 2))),
    "standardize": FLAG,
    "precision": Choice(("auto", "single", "double")),
    "n_jobs": Other(
        lambda value: value is None or (isinstance(value, Integral) and value != 0), (None, 1, 2, -1, -HUGE, np.int8(1))
    ),
    "random_state": Other(is_seed, (None, 0, 2**32 - 1, np.random.RandomState(0))),
    "warm_start": FLAG,
    "verbose": Other(lambda value: is_flag(value) or (isinstance(value, Integral) and value >= 0), (0, HUGE, True)),
}
LOSSES = {
    SubquadMLPRegressor: Choice(("squared_error", "poisson")),
    SubquadMLPClassifier: Choice(("squared_error", "log_loss")),
}


# What dicts and lists may hold depends on the classes: see test_labels.py.
CLASS_WEIGHT = Other(
    lambda value: value is None or isinstance(value, (dict, list)) or (isinstance(value, str) and value == "balanced"),
    (None, "balanced", {}, {0: 1e-300, 1: 2.0}),
)


def rules(estimator_class):
    only_here = {"class_weight": CLASS_WEIGHT} if estimator_class is SubquadMLPClassifier else {}
    return PARAMETERS | {"loss": LOSSES[estimator_class]} | only_here


@BOTH
def test_every_parameter_has_a_rule(estimator_class):
    assert set(rules(estimator_class)) == set(estimator_class().get_params())


@BOTH
def test_defaults_are_allowed(estimator_class):
    parameters = estimator_class().get_params() | {"hidden_layer_sizes": (1024,)}
    assert all(rule.allows(parameters[name]) for name, rule in rules(estimator_class).items())


EDGES = [
    pytest.param(estimator_class, name, value, id=f"{estimator_class.__name__}-{name}-{str(value)[:12]}-{i}")
    for estimator_class in LOSSES
    for name, rule in rules(estimator_class).items()
    for i, value in enumerate(rule.edges)
    # As many columns as this have no room, and as many folds no rows.
    if not (name in ("sketch_size", "n_folds") and value == HUGE)
]


# Weights of 1e300 have squares beyond any type: what counts is what is left behind.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("estimator_class", "name", "value"), EDGES)
def test_values_at_the_edge_are_fitted(estimator_class, name, value):
    assert rules(estimator_class)[name].allows(value)
    needed = {"preconditioner": "sketch"} if name in ("sketch", "sketch_size") else {}
    estimator = small(estimator_class, **needed, **{name: value}).fit(X, Y)
    assert np.isfinite(estimator.predict(X)).all()


class Length:
    """Array-like to scikit-learn, by its length."""

    def __len__(self):
        return 1


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, -1, 0.0, 1.0, 0.5, -0.5, HUGE, -HUGE, 2**31, 2**32, 2**63, True, False]),
    st.complex_numbers(),
    st.decimals(),
    st.floats(width=16).map(np.float16),
    st.floats(width=32).map(np.float32),
    st.integers(-128, 127).map(np.int8),
    st.integers(0, 2**64 - 1).map(np.uint64),
)
SCALARS = st.one_of(
    NUMBERS,
    st.none(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.sampled_from(["auto", "Auto", "auto ", "none", "None", "True", "1", "0.1", "squared_error", "loo", "gram"]),
    st.sampled_from([np.str_("auto"), np.True_, np.datetime64("2020"), object, Decimal(1), ...]),
    st.builds(object),
    st.builds(Length),
    st.just(len),
)
COLLECTIONS = st.one_of(
    st.lists(SCALARS, max_size=3),
    st.lists(st.lists(st.integers(1, 4), max_size=2), max_size=2),
    st.lists(NUMBERS, min_size=1, max_size=3).map(tuple),
    st.lists(st.floats(), max_size=2).map(np.array),
    st.lists(st.integers(-3, 3), max_size=3).map(lambda numbers: np.array(numbers, dtype=int)),
    st.sampled_from([np.array(0.1), np.array([[4, 4]]), np.array(["4"]), np.array([4], object), np.zeros((0, 2))]),
    st.dictionaries(st.integers(0, 2), st.integers(0, 2), max_size=2),
    st.sets(st.integers(1, 3), max_size=2),
)


@pytest.mark.parametrize(
    ("estimator_class", "name"),
    [(estimator_class, name) for estimator_class in LOSSES for name in rules(estimator_class)],
)
@settings(max_examples=25)
@given(data=st.data())
def test_what_is_not_allowed_is_refused_by_name(estimator_class, name, data):
    value = data.draw(SCALARS | COLLECTIONS)
    assume(not rules(estimator_class)[name].allows(value))
    # One per hidden layer may be given as any sequence, which takes a look at each item.
    error = ValueError if name in ("hidden_layer_sizes", "density", "categorical_features") else InvalidParameterError
    estimator = small(estimator_class, **{name: value})
    with pytest.raises(error, match=rf"^(The '{name}' parameter of {estimator_class.__name__}|{name}) must be"):
        estimator.fit(X, Y)
    assert set(vars(estimator)) == set(estimator.get_params())


@BOTH
@pytest.mark.parametrize("value", [[8, [8]], [[0.1], [0.1, 0.2]], ["0.2"], [b"1"], [0.2 + 0j], np.array([0.2 + 1j])])
@pytest.mark.parametrize("name", ["hidden_layer_sizes", "density"])
def test_sequences_of_other_things_are_refused_by_name(estimator_class, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        small(estimator_class, **{name: value}).fit(X, Y)


NARROW = [
    ({"damping": np.float16(0.25)}, {}),
    ({"init_scale": np.float16(0.25)}, {}),
    ({"tol": np.float16(0.25)}, {}),
    ({"cg_tol": np.float16(0.25)}, {"preconditioner": "none"}),
    ({"max_cg_iter": np.int8(100)}, {"preconditioner": "none"}),
    ({"max_iter": np.int8(100)}, {}),
    ({"n_iter_no_change": np.int8(127)}, {"early_stopping": "loo"}),
    ({"max_rank": np.int8(3)}, {}),
    ({"batch_size": np.uint8(5)}, {}),
    # Twice this is more than its type holds.
    ({"sketch_size": np.uint8(200)}, {"preconditioner": "sketch"}),
    ({"sketch_size": True}, {"preconditioner": "sketch"}),
    ({"validation_fraction": np.float16(0.25)}, {"early_stopping": "validation"}),
    ({"density": np.float16(0.25)}, {}),
    ({"hidden_layer_sizes": np.uint8(200)}, {}),
]


@BOTH
@pytest.mark.parametrize(("narrow", "others"), NARROW, ids=str)
def test_narrow_numbers_are_the_numbers_that_they_are(estimator_class, narrow, others):
    rng = np.random.default_rng(0)
    many, labels = rng.standard_normal((40, 2)), rng.integers(0, 2, 40)
    ((name, value),) = narrow.items()
    plain = {name: float(value) if isinstance(value, np.floating) else int(value)}
    options = {"max_iter": 3, "init": "gaussian"} | others
    models = [small(estimator_class, **options | given).fit(many, labels) for given in (narrow, plain)]
    np.testing.assert_array_equal(models[0].predict(many), models[1].predict(many))
    assert models[0].loss_curve_ == models[1].loss_curve_


@BOTH
def test_a_sketch_without_room_is_named(estimator_class, monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 10**9)
    estimator = small(estimator_class, preconditioner="sketch", sketch_size=10**12)
    with pytest.raises(MemoryError, match="sketch_size=1000000000000 is more than 'auto'"):
        estimator.fit(X, Y)
    assert not hasattr(estimator, "coefs_")
