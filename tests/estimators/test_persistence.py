"""Stored estimators: pickle, joblib, skops, the size of files, version stamps, other SIMD levels."""

import copy
import os
import pathlib
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stored import fitted, problem, rounding_bound, rows_of

from sklearn_subquad import (
    InconsistentVersionWarning,
    SubquadMLPClassifier,
    SubquadMLPRegressor,
    _kernels,
    _persistence,
)

pytestmark = pytest.mark.usefixtures("one_blas_thread")

# Where other processes find `stored`.
TESTS = str(pathlib.Path(__file__).resolve().parents[1])
BOTH = pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def all_predictions(model, X):
    """Of every method that predicts, as bytes."""
    if isinstance(model, SubquadMLPClassifier):
        found = [model.predict(X), model.decision_function(X), model.predict_proba(X), model.predict_log_proba(X)]
    elif model.loss == "poisson":
        found = [model.predict(X)]
    else:
        found = model.predict(X, return_std=True)
    return [array.tobytes() for array in found]


def array_bytes(value):
    """Bytes of all arrays in nested dicts, lists and tuples."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        value = value.values()
    return sum(map(array_bytes, value)) if isinstance(value, (list, tuple, type({}.values()))) else 0


# ---- pickle, joblib and memory maps ----------------------------------------------------------------------------


@BOTH
@DTYPES
def test_pickle_keeps_predictions_and_weights_to_the_bit(estimator_class, dtype):
    model, X = fitted(estimator_class, dtype)
    loaded = pickle.loads(pickle.dumps(model))
    assert all_predictions(loaded, X) == all_predictions(model, X)
    for now, then in zip(loaded.coefs_, model.coefs_, strict=True):
        np.testing.assert_array_equal(now, then)


@BOTH
@DTYPES
def test_joblib_keeps_predictions_to_the_bit(estimator_class, dtype, tmp_path):
    model, X = fitted(estimator_class, dtype, hidden_layer_sizes=(64, 64, 32))
    joblib.dump(model, tmp_path / "model.joblib")
    for mmap_mode in (None, "r"):
        loaded = joblib.load(tmp_path / "model.joblib", mmap_mode=mmap_mode)
        assert all_predictions(loaded, X) == all_predictions(model, X)


@BOTH
def test_predictions_from_a_read_only_map_copy_no_layer(estimator_class, tmp_path):
    model, X = fitted(estimator_class, np.float32, hidden_layer_sizes=(1024, 1024), max_iter=1, n_jobs=1)
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    (tiles,) = mapped._state_["tiles"]
    assert isinstance(tiles, np.memmap)
    assert not tiles.flags.writeable
    rows = X[:4]
    mapped.predict(rows)
    tracemalloc.start()
    try:
        predicted = mapped.predict(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert predicted.tobytes() == model.predict(rows).tobytes()
    assert peak < tiles.nbytes / 8


# ---- skops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator_class", "options"),
    [
        (SubquadMLPRegressor, {"n_outputs": 2}),
        (SubquadMLPRegressor, {"loss": "poisson"}),
        (SubquadMLPRegressor, {"early_stopping": "loo"}),
        (SubquadMLPRegressor, {"batch_size": 40, "dtype": np.float32, "skip_connections": False}),
        (SubquadMLPClassifier, {"sparsifier": "topk", "density": (0.2, 0.3)}),
        (SubquadMLPClassifier, {"loss": "log_loss", "hidden_layer_sizes": [32]}),
        (SubquadMLPClassifier, {"batch_size": 40, "dtype": np.float32, "init": "gaussian"}),
    ],
)
def test_skops_trusts_all_of_the_state_but_the_name_of_the_class(estimator_class, options):
    if options.get("loss") == "poisson":
        X, y = problem(estimator_class)
        model = estimator_class(hidden_layer_sizes=(32, 32), max_iter=2, random_state=0, loss="poisson").fit(X, abs(y))
    else:
        model, X = fitted(estimator_class, **options)
    stored = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=stored)
    # skops knows no estimator but scikit-learn's and those of a few libraries.
    assert untrusted == [f"{estimator_class.__module__}.{estimator_class.__name__}"]
    assert all_predictions(skops.io.loads(stored, trusted=untrusted), X) == all_predictions(model, X)


@BOTH
def test_skops_stores_pipelines_that_were_fitted_on_data_frames(estimator_class):
    X, y = problem(estimator_class)
    frame = pd.DataFrame(X, columns=list("abcdef"))
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, estimator_class(hidden_layer_sizes=(32,), max_iter=2, random_state=0)).fit(frame, y)
    stored = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=stored)
    assert untrusted == [f"{estimator_class.__module__}.{estimator_class.__name__}"]
    loaded = skops.io.loads(stored, trusted=untrusted)
    assert list(loaded[-1].feature_names_in_) == list("abcdef")
    assert loaded.predict(frame).tobytes() == model.predict(frame).tobytes()


# ---- size ----------------------------------------------------------------------------------------------------


@BOTH
@DTYPES
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden_layer_sizes": (256, 256)},
        {"hidden_layer_sizes": (256, 192, 256)},
        {"hidden_layer_sizes": (256, 256), "batch_size": 40},
        {"hidden_layer_sizes": (256, 256), "early_stopping": False, "max_iter": 20},
        {"hidden_layer_sizes": (256, 256), "preconditioner": "sketch", "sparsifier": "topk"},
    ],
    ids=str,
)
def test_a_pickle_holds_the_parameters_and_little_else(estimator_class, options, dtype):
    """The arrays that predictions read, and at most 4 KB for all else: options, curves, times, names."""
    model, _ = fitted(estimator_class, dtype, **options)
    parameters = array_bytes(model._state_)
    # Of widths that are multiples of 64 nothing is padded; the rest is the scaling and the covariance.
    dense = array_bytes(model.coefs_ + model.intercepts_)
    state = model._state_
    # A few numbers for every input.
    scaling = [state[name] for name in ("input_mean", "input_scale", "input_tolerance", "knots", "knot_counts")]
    assert parameters - array_bytes([state["laplace"], scaling]) - dense < 1024
    stored = len(pickle.dumps(model))
    assert parameters < stored < parameters + 4096
    if parameters > 40_960:
        assert stored < 1.1 * parameters


@DTYPES
def test_the_covariance_for_deviations_is_one_matrix_that_does_not_grow_with_the_width(dtype):
    sizes = [
        array_bytes(fitted(SubquadMLPRegressor, dtype, hidden_layer_sizes=(width,))[0]._state_["laplace"])
        for width in (32, 128)
    ]
    # Of 150 rows, 15 are held out.
    assert sizes[0] == sizes[1] == (2 * 135) ** 2 * np.dtype(dtype).itemsize + 8


# ---- version stamps --------------------------------------------------------------------------------------------


def joblib_round_trip(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def load_with_skops(stored):
    return skops.io.loads(stored, trusted=skops.io.get_untrusted_types(data=stored))


ROUND_TRIPS = pytest.mark.parametrize(
    "round_trip",
    [
        lambda model, folder: pickle.loads(pickle.dumps(model)),
        joblib_round_trip,
        lambda model, folder: load_with_skops(skops.io.dumps(model)),
        lambda model, folder: copy.copy(model),
        lambda model, folder: copy.deepcopy(model),
        lambda model, folder: clone(model),
    ],
    ids=["pickle", "joblib", "skops", "copy", "deepcopy", "clone"],
)


@BOTH
@ROUND_TRIPS
def test_the_same_version_loads_without_a_word_and_without_a_stamp(estimator_class, round_trip, tmp_path):
    model = estimator_class(hidden_layer_sizes=(8,), damping=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = round_trip(model, tmp_path)
    assert vars(loaded) == vars(model)


@BOTH
@pytest.mark.parametrize(
    ("store", "load"),
    [
        (pickle.dumps, pickle.loads),
        (skops.io.dumps, load_with_skops),
    ],
    ids=["pickle", "skops"],
)
def test_another_version_warns_with_both_versions(estimator_class, store, load, monkeypatch):
    model, X = fitted(estimator_class)
    with monkeypatch.context() as other:
        other.setattr(_persistence, "VERSION", "0.0.7")
        stored = store(model)
    with pytest.warns(InconsistentVersionWarning, match=rf"stored by version 0\.0\.7 .* {_persistence.VERSION}"):
        loaded = load(stored)
    assert all_predictions(loaded, X) == all_predictions(model, X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It has been said once: what is stored again has this version's stamp.
        pickle.loads(pickle.dumps(loaded))


@BOTH
def test_a_file_without_a_stamp_warns(estimator_class):
    model = estimator_class()
    state = dict(vars(model))
    with pytest.warns(InconsistentVersionWarning, match="left no stamp"):
        estimator_class.__new__(estimator_class).__setstate__(state)
    assert state == vars(model)


def test_users_can_filter_the_warning_by_its_class():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        SubquadMLPRegressor.__new__(SubquadMLPRegressor).__setstate__({})


class Derived(SubquadMLPRegressor):
    """An estimator of somebody else's."""


def test_derived_estimators_are_stamped_as_well():
    assert Derived().__getstate__()["_sklearn_subquad_version"] == _persistence.VERSION


# ---- SIMD levels -------------------------------------------------------------------------------------------------

STORE = """
import pickle, sys
import numpy as np
import sklearn_subquad, stored

for name in ("SubquadMLPRegressor", "SubquadMLPClassifier"):
    for dtype in ("float32", "float64"):
        model, _ = stored.fitted(getattr(sklearn_subquad, name), np.dtype(dtype), hidden_layer_sizes=(96, 64))
        with open(f"{sys.argv[1]}-{name}-{dtype}.pickle", "wb") as file:
            pickle.dump(model, file)
"""

PREDICT = """
import pathlib, pickle, sys
import numpy as np
import stored

for path in map(pathlib.Path, sys.argv[2:]):
    model = pickle.loads(path.read_bytes())
    np.save(f"{path}-{sys.argv[1]}.npy", stored.raw_outputs(model, stored.rows_of(model)))
"""


@pytest.mark.skipif(len(_kernels.simd_levels()) < 2, reason="this processor has one SIMD level")
def test_files_of_one_simd_level_predict_the_same_on_another_within_rounding(tmp_path):
    def run(level, script, *arguments):
        environment = os.environ | {_kernels.SIMD_VARIABLE: level, "PYTHONPATH": TESTS}
        subprocess.run([sys.executable, "-P", "-c", script, *arguments], check=True, env=environment)

    for level in _kernels.simd_levels():
        run(level, STORE, str(tmp_path / level))
    files = sorted(tmp_path.glob("*.pickle"))
    assert len(files) == 4 * len(_kernels.simd_levels())
    for level in _kernels.simd_levels():
        run(level, PREDICT, level, *map(str, files))
    for path in files:
        model = pickle.loads(path.read_bytes())
        bound = rounding_bound(model, rows_of(model)).reshape(len(rows_of(model)), -1)
        predicted = [np.load(f"{path}-{level}.npy").reshape(bound.shape) for level in _kernels.simd_levels()]
        # A bound that everything meets would be none.
        assert bound.max() < 1e4 * np.finfo(predicted[0].dtype).eps * np.std(predicted[0])
        for one in predicted:
            for other in predicted:
                assert np.all(abs(one - other) <= 2 * bound)
        print(path.name, f"{np.max([abs(p - predicted[0]) / bound for p in predicted]):.3f} of the bound on one side")
