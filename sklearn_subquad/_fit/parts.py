"""Parts of the rows: what they are called, how they are loaded, and errors that say which one is meant."""

import contextlib
import functools
import reprlib
from dataclasses import dataclass
from typing import Any

from sklearn_subquad._utils.dask_collections import computed, is_lazy

# Errors of these types are about the data; others come from whoever loads a part.
_OF_DATA = (ValueError, TypeError, MemoryError)


@dataclass(frozen=True)
class Part:
    """A part of the rows, which may have to be loaded.

    Attributes
    ----------
    number : int
        From zero.
    source : tuple, callable or delayed object
        (X, y) or (X, y, sample_weight), or what returns one.
    """

    number: int
    source: Any

    @property
    def name(self):
        """For messages: its number, and what its source is called where it has a name."""
        source = next(iter(self.sources), None)
        called = getattr(source, "key", None) if is_lazy(source) else _called(source)
        return f"part {self.number}" if called is None else f"part {self.number} ({called})"

    @property
    def sources(self):
        """What it is loaded from, as a tuple."""
        return self.source if isinstance(self.source, tuple) else (self.source,)

    @contextlib.contextmanager
    def named_errors(self):
        """Let errors in the body begin with the name of this part."""
        try:
            yield
        except _OF_DATA as error:
            kind = next(kind for kind in _OF_DATA if isinstance(error, kind))
            raise kind(f"{self.name}: {error}") from error

    def load(self):
        """X, y and weights or None; None of an empty partition of collections, such as filters leave.

        Raises
        ------
        RuntimeError
            For what cannot be loaded.
        ValueError
            For what is no tuple of two or three, and for another part without rows.
        """
        try:
            loaded = computed(self.source)
            loaded = computed(loaded()) if callable(loaded) and not is_lazy(loaded) else loaded
            loaded = tuple(map(computed, loaded)) if isinstance(loaded, tuple) else loaded
        except Exception as error:
            raise RuntimeError(f"{self.name} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(loaded, tuple) or len(loaded) not in (2, 3):
            raise ValueError(
                f"{self.name} is {type(loaded).__name__}, but must be a tuple (X, y) or (X, y, sample_weight)."
            )
        X, y, *weights = loaded
        if not getattr(X, "shape", (1,))[0]:
            if isinstance(self.source, tuple) and all(map(is_lazy, self.source)):
                return None
            raise ValueError(f"{self.name} has no rows: leave it out.")
        return X, y, weights[0] if weights else None


def _called(source):
    """Name of a callable, with its arguments where they are bound to it; None for anything else."""
    if isinstance(source, functools.partial):
        keywords = (f"{name}={reprlib.repr(value)}" for name, value in source.keywords.items())
        return f"{_called(source.func)}({', '.join([*(reprlib.repr(each) for each in source.args), *keywords])})"
    return getattr(source, "__qualname__", type(source).__name__) if callable(source) else None


def parts_of(sources):
    """A `Part` for each source, or ValueError where there are none, or one is no part."""
    if sources is None:
        raise ValueError("parts is None: pass a tuple (X, y), or a callable that returns one, for every part.")
    parts = [Part(number, source) for number, source in enumerate(sources)]
    if not parts:
        raise ValueError("parts is empty: pass a tuple (X, y), or a callable that returns one, for every part.")
    wrong = [part for part in parts if not (isinstance(part.source, tuple) or callable(part.source))]
    if wrong:
        raise ValueError(
            f"{wrong[0].name} is {type(wrong[0].source).__name__}, but must be a tuple (X, y) or (X, y, sample_weight) "
            "or return one: a callable, or a Dask delayed object. One part alone is [(X, y)]; collections are for fit."
        )
    return parts
