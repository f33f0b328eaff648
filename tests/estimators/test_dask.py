"""Searches and parts on Dask's workers, and data that is read a part at a time."""

import importlib.util
import os
import signal

import joblib
import numpy as np
import pytest
from joblib.parallel import ParallelBackendBase
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thread_counts import thread_counts

from sklearn_subquad import SubquadMLPClassifier, SubquadMLPRegressor
from sklearn_subquad._linalg.threads import resolve_n_jobs

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("dask") is None or importlib.util.find_spec("distributed") is None,
    reason="dask.distributed is not installed",
)
SETTINGS = {"hidden_layer_sizes": (64, 64), "max_iter": 3, "random_state": 0}


@pytest.fixture(scope="module")
def client():
    """A client of two processes of one thread each on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def data(estimator_class):
    load = load_diabetes if estimator_class is SubquadMLPRegressor else load_breast_cancer
    X, y = load(return_X_y=True)
    return X[:300], y[:300].astype(float if estimator_class is SubquadMLPRegressor else int)


@needs_dask
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_a_search_on_workers_finds_what_one_process_finds(estimator_class, client):
    X, y = data(estimator_class)
    name = estimator_class.__name__.lower()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator_class(**SETTINGS)), {f"{name}__density": [0.1, 0.2, 0.4]}, cv=2
    )
    alone = clone(search).set_params(n_jobs=1).fit(X, y)
    with joblib.parallel_config(backend="dask"):
        found = search.fit(X, y)
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(found.cv_results_[key], alone.cv_results_[key], rtol=1e-9)
    assert found.best_params_ == alone.best_params_


class CountsThreads(ClassifierMixin, BaseEstimator):
    """Fits a classifier, and scores one over the threads that it may use here, works with, and leaves to BLAS."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X, y):
        model = SubquadMLPClassifier(hidden_layer_sizes=(512, 512), max_iter=2, batch_size=1000, random_state=self.seed)
        with thread_counts() as counts:
            model.fit(X, y)
        self.most_ = max(resolve_n_jobs(), *counts)
        self.classes_ = np.unique(y)
        return self

    def score(self, X, y):
        return self.most_


@needs_dask
def test_a_worker_of_one_thread_computes_with_one(client):
    X, y = data(SubquadMLPClassifier)
    with joblib.parallel_config(backend="dask"):
        search = GridSearchCV(CountsThreads(), {"seed": [0, 1]}, cv=2, refit=False).fit(X, y)
    assert search.cv_results_["mean_test_score"].max() == 1


class ClusterBackend(ParallelBackendBase):
    """As joblib's backends of clusters do, offers 64 processors of other machines, also within a task."""

    default_n_jobs = -1

    def effective_n_jobs(self, n_jobs):
        return 64


@pytest.mark.parametrize("n_jobs", [None, -1, 2])
def test_processors_of_a_cluster_are_no_threads_of_a_fit(n_jobs):
    expected = resolve_n_jobs(n_jobs)
    joblib.register_parallel_backend("a cluster", ClusterBackend)
    with joblib.parallel_config(backend="a cluster"):
        assert joblib.effective_n_jobs() == 64
        assert resolve_n_jobs(n_jobs) == expected


# ---- parts of the rows ---------------------------------------------------------------------------------------------


def in_parts(estimator_class, n_parts=4):
    """Parts, rows of all, and the model of a fit in this process."""
    X, y = data(estimator_class)
    parts = [(X[rows], y[rows]) for rows in np.array_split(np.arange(len(X)), n_parts)]
    return parts, X, y, estimator_class(**SETTINGS).fit_parts(parts)


def predictions(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


@needs_dask
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
@pytest.mark.parametrize("persisted", [False, True])
def test_partitions_of_arrays_are_parts(estimator_class, persisted, client):
    import dask.array

    _, X, y, expected = in_parts(estimator_class)
    collections = [dask.array.from_array(each, (75, *each.shape[1:])) for each in (X, y, np.ones(300))]
    if persisted:
        collections = [each.persist() for each in collections]
    model = estimator_class(**SETTINGS).fit(*collections)
    assert predictions(model, X).tobytes() == predictions(expected, X).tobytes()
    assert {"batch_of_summarise_part_1_calls", "batch_of_fit_part_1_calls"} <= set(names_of_tasks(client))


@needs_dask
def test_persisted_arrays_are_fitted_by_a_cluster_of_a_single_thread():
    import dask.array
    from distributed import Client

    _, X, y, expected = in_parts(SubquadMLPRegressor)
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None):
        collections = [dask.array.from_array(each, (75, *each.shape[1:])).persist() for each in (X, y, np.ones(300))]
        model = SubquadMLPRegressor(**SETTINGS).fit(*collections)
    assert predictions(model, X).tobytes() == predictions(expected, X).tobytes()


def names_of_tasks(client):
    return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))


@needs_dask
def test_partitions_of_frames_are_parts(client):
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    _, X, y, _ = in_parts(SubquadMLPClassifier)
    frame = pd.DataFrame(X[:, :4], columns=list("abcd")).assign(word=np.where(X[:, 4] > 0.1, "high", "low"), y=y)
    expected = SubquadMLPClassifier(**SETTINGS)
    expected.fit_parts([(frame[i : i + 75].drop(columns="y"), y[i : i + 75]) for i in range(0, 300, 75)])
    collection = dd.from_pandas(frame, npartitions=4)
    features = collection.drop(columns="y")
    model = SubquadMLPClassifier(**SETTINGS).fit(features, collection["y"])
    predicted = model.predict_proba(features)
    assert predicted.dtype == float
    assert predicted.shape[1:] == (2,)
    np.testing.assert_array_equal(*(each.predict_proba(frame.drop(columns="y")) for each in (model, expected)))
    np.testing.assert_allclose(predicted.compute(), model.predict_proba(frame.drop(columns="y")), rtol=1e-5)


class SaysWhere:
    """Loads a part, and says in a folder which process did."""

    def __init__(self, part, folder):
        self.part, self.folder = part, folder

    def __call__(self):
        (self.folder / f"{os.getpid()}").touch()
        return self.part


@needs_dask
def test_delayed_parts_are_loaded_by_workers(client, tmp_path):
    import dask

    parts, X, _, expected = in_parts(SubquadMLPRegressor)
    delayed = [dask.delayed(SaysWhere(part, tmp_path))() for part in parts]
    model = SubquadMLPRegressor(**SETTINGS).fit_parts(delayed)
    assert model.predict(X).tobytes() == expected.predict(X).tobytes()
    pids = {int(path.name) for path in tmp_path.iterdir()}
    assert pids <= set(client.run(os.getpid).values())


class KillsItsWorker(SaysWhere):
    """Kills the process when it is to be fitted, which is the second time that it is loaded."""

    def __call__(self):
        loads = [self.folder / f"load {number}" for number in range(3)]
        next(path for path in loads if not path.exists()).touch()
        if loads[1].exists() and not loads[2].exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.part


@needs_dask
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that kills")
def test_a_worker_that_is_killed_changes_nothing(client, tmp_path):
    parts, X, _, expected = in_parts(SubquadMLPRegressor)
    with joblib.parallel_config(backend="dask"):
        model = SubquadMLPRegressor(**SETTINGS).fit_parts([*parts[:2], KillsItsWorker(parts[2], tmp_path), parts[3]])
    assert (tmp_path / "load 2").exists()
    assert model.predict(X).tobytes() == expected.predict(X).tobytes()


@needs_dask
def test_what_dask_collections_lack_is_an_error():
    import dask.array

    _, X, y, _ = in_parts(SubquadMLPRegressor)
    X, y = dask.array.from_array(X, (75, 10)), dask.array.from_array(y, 75)
    for arguments, message in (
        ((X, y.compute()), "y is ndarray, but other arguments are Dask collections"),
        ((X.rechunk((75, 5)), y), "X is cut across its columns"),
        ((X, y.rechunk(100)), "Partitions differ"),
        ((X, y, None), "leave them out"),
    ):
        validation = {"X_val": X, "y_val": y} if len(arguments) == 3 else {}
        with pytest.raises(ValueError, match=message):
            SubquadMLPRegressor(**SETTINGS).fit(*arguments, **validation)


METHODS = [
    (SubquadMLPRegressor, "predict", {}),
    (SubquadMLPRegressor, "predict", {"return_std": True}),
    (SubquadMLPClassifier, "predict", {}),
    (SubquadMLPClassifier, "predict_proba", {}),
    (SubquadMLPClassifier, "predict_log_proba", {}),
    (SubquadMLPClassifier, "decision_function", {}),
]


@needs_dask
@pytest.mark.parametrize(("estimator_class", "method", "options"), METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("several", [False, True])
def test_predictions_for_collections_are_lazy_and_the_same(estimator_class, method, options, dtype, several):
    import dask.array

    X, y = data(estimator_class)
    if several:
        y = np.stack([y, y[::-1]], axis=1)
    model = estimator_class(**SETTINGS | {"n_folds": 2, "max_iter": 1}).fit(X.astype(dtype), y)
    expected = getattr(model, method)(X.astype(dtype), **options)
    found = getattr(model, method)(dask.array.from_array(X.astype(dtype), (100, X.shape[1])), **options)
    for lazy, array in zip(*((each,) if not options else each for each in (found, expected)), strict=True):
        assert isinstance(lazy, dask.array.Array)
        assert (lazy.shape, lazy.dtype, lazy.chunks[0]) == (array.shape, array.dtype, (100, 100, 100))
        computed = lazy.compute(scheduler="synchronous")
        assert computed.dtype == array.dtype
        np.testing.assert_allclose(computed, array, rtol=1e-5, atol=1e-6)


def frame_of(X):
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(X, columns=[f"x{number}" for number in range(X.shape[1])])


@needs_dask
@pytest.mark.parametrize(("estimator_class", "method", "options"), METHODS)
def test_partitions_may_be_empty_at_prediction(estimator_class, method, options):
    dd = pytest.importorskip("dask.dataframe")
    X, y = data(estimator_class)
    frame = frame_of(X)
    model = estimator_class(**SETTINGS | {"n_folds": 2, "max_iter": 1}).fit(frame, y)
    filtered = dd.from_pandas(frame, npartitions=3).map_partitions(lambda rows: rows[rows.index >= 100])
    found, expected = (getattr(model, method)(rows, **options) for rows in (filtered, frame[100:]))
    for lazy, array in zip(*((each,) if not options else each for each in (found, expected)), strict=True):
        np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), array, rtol=1e-5, atol=1e-6)


@needs_dask
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_partitions_may_be_empty_in_a_fit(estimator_class):
    dd = pytest.importorskip("dask.dataframe")
    X, y = data(estimator_class)
    frame = frame_of(X).assign(y=y)
    filtered = dd.from_pandas(frame, npartitions=4).map_partitions(lambda rows: rows[rows.index < 150])
    model = estimator_class(**SETTINGS).fit(filtered.drop(columns="y"), filtered["y"])
    whole = dd.from_pandas(frame[:150], npartitions=2)
    expected = estimator_class(**SETTINGS).fit(whole.drop(columns="y"), whole["y"])
    np.testing.assert_array_equal(model.predict(frame.drop(columns="y")), expected.predict(frame.drop(columns="y")))
    none = filtered.map_partitions(lambda rows: rows[:0])
    with pytest.raises(ValueError, match="All partitions are empty"):
        estimator_class(**SETTINGS).fit(none.drop(columns="y"), none["y"])


@needs_dask
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_collections_have_a_score(estimator_class):
    dd = pytest.importorskip("dask.dataframe")
    X, y = data(estimator_class)
    frame = frame_of(X).assign(y=y)
    model = estimator_class(**SETTINGS).fit(frame.drop(columns="y"), y)
    lazy = dd.from_pandas(frame, npartitions=3)
    expected = model.score(frame.drop(columns="y"), y)
    np.testing.assert_allclose(model.score(lazy.drop(columns="y"), lazy["y"]), expected, rtol=1e-5)


@needs_dask
def test_delayed_objects_are_no_collections():
    from dask import delayed

    from sklearn_subquad._utils.dask_collections import is_collection

    assert not is_collection(delayed(np.ones((2, 2))))


# ---- out of core ---------------------------------------------------------------------------------------------------


def parts_of(n, size=70):
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_parts_of_a_file_teach_what_parts_of_an_array_do(estimator_class, tmp_path):
    X, y = data(estimator_class)
    for name, array in (("X", X), ("y", y)):
        file = np.memmap(tmp_path / name, dtype=array.dtype, mode="w+", shape=array.shape)
        file[:] = array
        file.flush()
    X_file = np.memmap(tmp_path / "X", dtype=X.dtype, mode="r", shape=X.shape)
    y_file = np.memmap(tmp_path / "y", dtype=y.dtype, mode="r", shape=y.shape)
    classes = {"classes": [0, 1]} if estimator_class is SubquadMLPClassifier else {}
    models = [estimator_class(**SETTINGS) for _ in range(2)]
    for _ in range(2):
        for rows in parts_of(len(X)):
            models[0].partial_fit(X[rows], y[rows], **classes)
            models[1].partial_fit(X_file[rows], y_file[rows], **classes)
    assert models[1].predict(X_file).tobytes() == models[0].predict(X).tobytes()
    np.testing.assert_array_equal(X_file, X)
    # No part of the file is kept: the estimator goes without it.
    assert not any(isinstance(value, np.memmap) for value in models[1]._state_.values())


@needs_dask
@pytest.mark.parametrize("estimator_class", [SubquadMLPRegressor, SubquadMLPClassifier])
def test_an_incremental_fit_of_dask_arrays_is_a_loop_over_their_blocks(estimator_class, client):
    wrappers = pytest.importorskip("dask_ml.wrappers", reason="dask-ml is not installed, or not for this scikit-learn")
    import dask.array

    X, y = data(estimator_class)
    classes = {"classes": [0, 1]} if estimator_class is SubquadMLPClassifier else {}
    expected = estimator_class(**SETTINGS)
    for rows in parts_of(len(X), 100):
        expected.partial_fit(X[rows], y[rows], **classes)
    # Blocks in their order.
    wrapped = wrappers.Incremental(estimator_class(**SETTINGS), shuffle_blocks=False, scoring=None)
    wrapped.fit(dask.array.from_array(X, (100, X.shape[1])), dask.array.from_array(y, 100), **classes)
    np.testing.assert_allclose(wrapped.estimator_.predict(X), expected.predict(X), rtol=1e-9)
    predicted = wrapped.predict(dask.array.from_array(X, (150, X.shape[1])))
    np.testing.assert_allclose(predicted.compute(), expected.predict(X), rtol=1e-9)
