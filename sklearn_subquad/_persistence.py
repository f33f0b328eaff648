"""Facts from the installed distribution: the version they are stored with, the site they link to."""

import inspect
import warnings
from importlib.metadata import metadata, version
from typing import Any

from sklearn.base import BaseEstimator

VERSION: str = version("sklearn_subquad")
_STAMP = "_sklearn_subquad_version"


class InconsistentVersionWarning(UserWarning):
    """Warns of an estimator that is loaded by another version of this package than the one that stored it.

    Its fitted state may then mean something else, or predictions may fail. Fit again, or load it where the version is
    installed that the message names. ``warnings.simplefilter("error", InconsistentVersionWarning)`` refuses such files,
    and "ignore" instead of "error" takes them without a word.
    """


class StampedEstimator(BaseEstimator):
    """Base class that stamps what pickle, joblib, skops and copies store, and looks at the stamp of what they load.

    Parameters that what they load does not have are at their defaults.

    scikit-learn does the same for its own modules only, as for the link to the documentation in HTML representations.
    """

    _doc_link_module = "sklearn_subquad"

    @property
    def _doc_link_template(self) -> str:
        """Address of an estimator's page on the site that the distribution names; empty, without a link, for none."""
        for entry in metadata("sklearn_subquad").get_all("Project-URL", []):
            label, _, site = entry.partition(",")
            if label.strip().lower() == "documentation":
                return site.strip().rstrip("/") + "/generated/{estimator_module}.{estimator_name}.html"
        return ""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {_STAMP: VERSION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        stored_by = state.pop(_STAMP, None)
        if stored_by != VERSION:
            origin = "a version that left no stamp" if stored_by is None else f"version {stored_by}"
            warnings.warn(
                f"{type(self).__name__} was stored by {origin} of sklearn_subquad and is loaded by version {VERSION}: "
                "it may predict something else, or fail. Fit it again, or load it with the version that stored it.",
                InconsistentVersionWarning,
                stacklevel=2,
            )
        # Of a version that lacked some parameters. Attributes of parameters that are gone stay: nothing reads them.
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.default is not parameter.empty:
                state.setdefault(name, parameter.default)
        super().__setstate__(state)
