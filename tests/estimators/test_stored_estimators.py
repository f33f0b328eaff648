"""Files of an earlier day, which tests/data/make.py wrote: they load, and predict what they did."""

import copy
import io
import pathlib
import pickle
import warnings

import numpy as np
import pytest
import skops.io
from scipy.sparse import csr_array
from sklearn.base import clone
from stored import fitted, raw_outputs, rounding_bound

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor, _memory

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
# Names that files hold: these have to lead to the classes for ever.
NAMES = {
    "regressor": "sklearn_subquad._regressor.SubquadMLPRegressor",
    "classifier": "sklearn_subquad._classifier.SubquadMLPClassifier",
}
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
STORED = pytest.mark.parametrize("name", NAMES)
FORMATS = pytest.mark.parametrize("form", ["pickle", "skops"])


def load(name, form):
    path = DATA / f"{name}.{form}"
    with warnings.catch_warnings():
        # Versions of this package and of scikit-learn move on, and say so, each by an `InconsistentVersionWarning`.
        warnings.filterwarnings("ignore", category=UserWarning, message=".*version")
        return pickle.loads(path.read_bytes()) if form == "pickle" else skops.io.load(path, trusted=[NAMES[name]])


@pytest.fixture(scope="module")
def expected():
    with np.load(DATA / "expected.npz") as arrays:
        return dict(arrays)


@FORMATS
def test_a_stored_regressor_predicts_what_it_did(form, expected):
    model, X = load("regressor", form), expected["X"]
    assert type(model) is SubquadMLPRegressor
    mean, deviation = model.predict(X, return_std=True)
    assert mean.dtype == deviation.dtype == np.float32
    # Both are rounded, maybe by other kernels and another BLAS.
    assert np.all(abs(mean - expected["mean"]) <= 2 * rounding_bound(model, X).ravel())
    # Of the same random sketch; sums of some dozens of products, three layers and two matrices, are on the way.
    np.testing.assert_allclose(deviation, expected["deviation"], rtol=100 * np.finfo(np.float32).eps)


@FORMATS
def test_a_stored_classifier_predicts_what_it_did(form, expected):
    model, X = load("classifier", form), expected["X"]
    assert type(model) is SubquadMLPClassifier
    scores, bound = model.decision_function(X), 2 * rounding_bound(model, X)
    assert np.all(abs(scores - expected["scores"]) <= bound)
    # The softmax of scores times a factor passes on at most half of the largest error, and rounds a few times itself.
    moved = model._state_["sharpness"] * bound.max(axis=1, keepdims=True) / 2 + 8 * np.finfo(np.float32).eps
    assert np.all(abs(model.predict_proba(X) - expected["probabilities"]) <= moved)
    # No row is so near the border that rounding decides.
    best, second = np.sort(expected["scores"], axis=1)[:, :-3:-1].T
    assert np.all(best - second > bound.max())
    np.testing.assert_array_equal(model.predict(X), expected["labels"])


@STORED
@FORMATS
def test_stored_estimators_have_every_parameter(name, form, expected):
    model = load(name, form)
    own = vars(model).keys()
    assert type(model)().get_params().keys() <= own
    assert model.get_params()["hidden_layer_sizes"] == (8, 8)
    assert repr(clone(model)) == repr(model)
    model.set_params(warm_start=True, max_iter=1).fit(expected["X"], model.predict(expected["X"]))


@BOTH
def test_parameters_that_came_later_are_at_their_defaults(estimator_class):
    defaults = estimator_class().get_params()
    changed = dict.fromkeys(defaults, "changed")
    for name, default in defaults.items():
        state = estimator_class(**changed).__getstate__()
        del state[name]
        model = estimator_class.__new__(estimator_class)
        model.__setstate__(state)
        assert name not in state
        for of_it in (model, clone(model)):
            assert of_it.get_params() == changed | {name: default}
            assert repr(of_it).startswith(estimator_class.__name__)


@STORED
def test_skops_has_to_trust_one_class(name):
    assert skops.io.get_untrusted_types(file=DATA / f"{name}.skops") == [NAMES[name]]


class Recorder(pickle.Unpickler):
    """Notes the names that a pickle imports."""

    def __init__(self, stored):
        super().__init__(io.BytesIO(stored))
        self.found = set()

    def find_class(self, module, name):
        self.found.add(f"{module}.{name}")
        return super().find_class(module, name)


@STORED
@pytest.mark.parametrize("written", ["earlier", "now"])
def test_a_pickle_holds_arrays_and_what_python_has(name, written, expected, monkeypatch):
    """No class of ours but the estimator's own, which could then never move: dicts, lists, strings and numbers."""
    monkeypatch.syspath_prepend(DATA)
    import make

    stored = (DATA / f"{name}.pickle").read_bytes()
    recorder = Recorder(stored if written == "earlier" else pickle.dumps(make.fitted(expected["X"])[name], 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert type(recorder.load()).__module__ == NAMES[name].rpartition(".")[0]
    of_numpy = {found for found in recorder.found if found.startswith("numpy.")}
    assert {found.rpartition(".")[2] for found in of_numpy} <= {"ndarray", "dtype", "_reconstruct", "scalar"}
    assert recorder.found - of_numpy == {NAMES[name]}


@STORED
def test_models_of_before_constant_features_were_told_apart(name, expected):
    model, X = load(name, "pickle"), expected["X"]
    wanted = model.predict(X)
    for key in ("input_tolerance", "weight_unit"):
        del model._state_[key]
    np.testing.assert_array_equal(model.predict(X), wanted)


# ---- a metric of the features, which earlier versions learned if they were told to ---------------------------------


def with_metric(model, metric):
    """A copy of a fitted estimator that multiplies its scaled features by a metric."""
    other = copy.deepcopy(model)
    other._state_["input_metric"] = metric
    return other


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("skip_connections", [True, False])
def test_a_metric_is_the_same_as_other_input_weights(estimator_class, skip_connections, dtype):
    parameters = {"n_bins": None, "skip_connections": skip_connections, "early_stopping": False}
    plain, X = fitted(estimator_class, dtype, **parameters)
    assert "input_metric" not in plain._state_
    metric = np.random.default_rng(0).standard_normal((6, 6))
    model, same = with_metric(plain, metric), copy.deepcopy(plain)
    for W in same._state_["input_weights"]:
        if W is not None:
            W[:, :-1] = W[:, :-1] @ metric.T
    of_outputs = same._state_["output_weights"][1]
    if of_outputs is not None:
        of_outputs[:-1] = metric @ of_outputs[:-1]
    found, expected = raw_outputs(model, X), raw_outputs(same, X)
    assert found.dtype == dtype
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=200 * np.finfo(dtype).eps * scale)
    assert np.abs(found - raw_outputs(plain, X)).max() > 0.1 * scale
    for ours, theirs in zip(model.coefs_ + model.intercepts_, same.coefs_ + same.intercepts_, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=20 * np.finfo(dtype).eps * np.abs(theirs).max())


def test_deviations_know_of_a_metric():
    plain, X = fitted(SubquadMLPRegressor, n_bins=None)
    model = with_metric(plain, np.eye(6))
    for found, expected in zip(model.predict(X, return_std=True), plain.predict(X, return_std=True), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (with_metric(plain, 2 * np.eye(6)).predict(X, return_std=True)[1] != expected).all()


@BOTH
def test_a_fit_that_goes_on_keeps_a_metric(estimator_class):
    plain, X = fitted(estimator_class, n_bins=None, warm_start=True)
    y, metric = plain.predict(X), np.eye(6) + 0.1
    model = with_metric(plain, metric)
    for go_on in (model.fit, model.partial_fit):
        np.testing.assert_array_equal(go_on(X, y)._state_["input_metric"], metric)
    assert "input_metric" not in model.set_params(warm_start=False).fit(X, y)._state_


@BOTH
def test_sparse_rows_are_made_dense_for_a_metric_where_there_is_room(estimator_class, monkeypatch):
    plain, X = fitted(estimator_class, n_bins=None)
    model = with_metric(plain, np.eye(6) + 0.1)
    np.testing.assert_array_equal(model.predict(csr_array(X)), model.predict(X))
    monkeypatch.setattr(_memory, "available_bytes", lambda: X.nbytes - 1)
    with pytest.raises(MemoryError, match=rf"its {len(X)} rows of 6 features are made dense, .* {X.nbytes:,} bytes"):
        model.predict(csr_array(X))
