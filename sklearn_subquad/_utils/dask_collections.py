"""Dask's delayed objects, arrays and data frames, known by what they offer; Dask is imported for them alone."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import TypeVar

import joblib
import numpy as np
from sklearn.utils.validation import check_is_fitted

_Method = TypeVar("_Method", bound=Callable)


def is_lazy(value):
    """Whether a value is one of Dask's, delayed object or collection."""
    return callable(getattr(value, "__dask_graph__", None))


def is_collection(value):
    """Whether a value is a Dask array, data frame or series."""
    # Of delayed objects any attribute is one more delayed object.
    return is_lazy(value) and any(hasattr(type(value), name) for name in ("map_blocks", "map_partitions"))


def computed(value):
    """A delayed object as what it stands for, computed here and now; any other value as it is.

    What the cluster holds already, after `persist`, comes from there; everything else is computed in this thread, so
    that no row goes through another process.
    """
    if not is_lazy(value):
        return value
    import dask

    if not _held_by_the_cluster(value):
        return dask.compute(value, scheduler="synchronous")[0]
    from distributed import get_client, get_worker, worker_client

    try:
        get_worker()
    except ValueError:
        # Joblib runs the tasks of a single thread in the client.
        return get_client().compute(value, sync=True)
    with worker_client() as client:
        return client.compute(value, sync=True)


def in_memory(value):
    """A collection computed by Dask's own choice of where, for results that are not lazy; any other value as it is."""
    return value.compute() if is_collection(value) else value


def _held_by_the_cluster(value):
    try:
        from distributed.client import futures_of
    except ImportError:
        return False
    return bool(futures_of(value))


def partitions(X, y, sample_weight=None):
    """The parts that Dask collections have: tuples of delayed objects (X, y) or (X, y, sample_weight).

    Raises
    ------
    ValueError
        For what is no collection, collections in parts that differ, and arrays that are cut across columns.
    """
    given = {"X": X, "y": y} | ({} if sample_weight is None else {"sample_weight": sample_weight})
    cut = {}
    for name, value in given.items():
        if not is_collection(value):
            raise ValueError(
                f"{name} is {type(value).__name__}, but other arguments are Dask collections: pass all of them as "
                "collections with the same partitions."
            )
        if hasattr(value, "chunks") and any(len(sizes) > 1 for sizes in value.chunks[1:]):
            raise ValueError(f"{name} is cut across its columns: use {name}.rechunk({{1: -1}}).")
        # What is held by the cluster has no graph that could be cut down to a part, and may lose its keys.
        cut[name] = np.ravel(value.to_delayed(optimize_graph=not _held_by_the_cluster(value))).tolist()
    counts = {name: len(parts) for name, parts in cut.items()}
    sizes = {name: value.chunks[0] for name, value in given.items() if hasattr(value, "chunks")}
    known = {name: each for name, each in sizes.items() if not any(map(math.isnan, each))}
    if len(set(counts.values())) > 1 or len(set(known.values())) > 1:
        raise ValueError(
            f"Partitions differ: their numbers are {counts}, rows of arrays {known}. Rows of one part belong together: "
            "use rechunk or repartition."
        )
    return list(zip(*cut.values(), strict=True))


def cluster_backend(values):
    """Where joblib's tasks run: where any value is lazy, on the cluster of the current client, if there is one."""
    if any(map(is_lazy, values)):
        with contextlib.suppress(ImportError, ValueError):
            from distributed import get_client

            get_client()
            return joblib.parallel_config(backend="dask")
    return contextlib.nullcontext()


def of_collections(method: _Method) -> _Method:
    """Let a method that says something of every row of X take Dask collections, too.

    It returns Dask arrays then, which are computed a part at a time, where the rows lie.
    """

    @functools.wraps(method)
    def wrapper(self, X, *args, **options):
        if not is_collection(X):
            return method(self, X, *args, **options)
        check_is_fitted(self)
        from dask import delayed

        of_some = method(self, _some_rows(X), *args, **options)
        meta = np.stack(of_some, axis=-1)[:0] if isinstance(of_some, tuple) else of_some[:0]
        call = functools.partial(_stacked, name=method.__name__, args=args, options=options, of_none=meta)
        # A task of its own: workers get the model once, not with every part.
        model = delayed(self, pure=False, traverse=False)
        if hasattr(X, "map_partitions"):
            told = X.map_partitions(call, model=model, meta=meta)
        elif meta.ndim == 1:
            told = X.map_blocks(call, model=model, dtype=meta.dtype, meta=meta, drop_axis=1)
        else:
            chunks, new_axis = (X.chunks[0], *((size,) for size in meta.shape[1:])), list(range(2, meta.ndim)) or None
            told = X.map_blocks(call, model=model, dtype=meta.dtype, meta=meta, chunks=chunks, new_axis=new_axis)
        return tuple(told[..., i] for i in range(len(of_some))) if isinstance(of_some, tuple) else told

    return wrapper  # type: ignore[return-value]


def _some_rows(X):
    """Rows of the kind that a collection has, for what they are worth."""
    if hasattr(X, "map_partitions"):
        from dask.dataframe.utils import meta_nonempty

        return meta_nonempty(X._meta)
    if len(X.chunks) != 2 or len(X.chunks[1]) > 1:
        raise ValueError(f"X has the chunks {X.chunks}, but all columns must be in one: use X.rechunk({{1: -1}}).")
    return np.zeros((1, X.shape[1]), dtype=X.dtype)


def _stacked(X, model, name, args, options, of_none):
    """What a method says of these rows; of several arrays, one with an axis more. No rows are what filters leave."""
    if not X.shape[0]:
        return of_none
    told = getattr(model, name)(X, *args, **options)
    return np.stack(told, axis=-1) if isinstance(told, tuple) else told
