"""Dask's delayed objects, arrays and data frames. They are known by what they offer; Dask is imported for them alone."""

import math
from typing import Any

import numpy as np


def is_lazy(value):
    """Whether a value is one of Dask's, delayed object or collection."""
    return callable(getattr(value, "__dask_graph__", None))


def is_collection(value):
    """Whether a value is a Dask array, data frame or series."""
    return is_lazy(value) and (hasattr(value, "map_blocks") or hasattr(value, "map_partitions"))


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
    from distributed import worker_client

    with worker_client() as client:
        return client.compute(value, sync=True)


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
        cut[name] = np.ravel(value.to_delayed()).tolist()
    counts = {name: len(parts) for name, parts in cut.items()}
    sizes = {name: value.chunks[0] for name, value in given.items() if hasattr(value, "chunks")}
    known = {name: each for name, each in sizes.items() if not any(map(math.isnan, each))}
    if len(set(counts.values())) > 1 or len(set(known.values())) > 1:
        raise ValueError(
            f"Partitions differ: their numbers are {counts}, rows of arrays {known}. Rows of one part belong together: "
            "use rechunk or repartition."
        )
    return list(zip(*cut.values(), strict=True))


def mapped(method, X, example):
    """What a method says of the rows of a Dask collection, as a Dask array that is computed where the rows lie.

    Parameters
    ----------
    method : callable
        From rows to an ndarray with a row for each.
    X : Dask array or data frame
    example : ndarray of shape (n, ...)
        What it says of some rows.
    """
    if hasattr(X, "map_partitions"):
        return _of_frame(method, X, example)
    if len(X.chunks[1]) > 1:
        raise ValueError("X is cut across its columns: use X.rechunk({1: -1}).")
    options: dict[str, Any] = {"dtype": example.dtype, "meta": example[:0]}
    if example.ndim == 1:
        return X.map_blocks(method, drop_axis=1, **options)
    return X.map_blocks(method, chunks=(X.chunks[0], example.shape[1:]), **options)


def _of_frame(method, X, example):
    import dask.array

    lengths, delayed = math.nan, X.to_delayed()
    from dask.delayed import delayed as lazily

    blocks = [
        dask.array.from_delayed(lazily(method)(part), (lengths, *example.shape[1:]), meta=example[:0])
        for part in delayed
    ]
    return dask.array.concatenate(blocks, allow_unknown_chunksizes=True)
