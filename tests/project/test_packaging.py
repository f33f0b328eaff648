"""What the installed package promises: types, a version, a light import, a build for every processor."""

import ast
import importlib.metadata
import importlib.resources
import inspect
import json
import pathlib
import re
import subprocess
import sys
import typing

import pytest

import sklearn_subquad
from sklearn_subquad import _base, _parameters, _parts, _predictor

ROOT = pathlib.Path(__file__).resolve().parents[2]
ESTIMATORS = [sklearn_subquad.SubquadMLPRegressor, sklearn_subquad.SubquadMLPClassifier]
BASES = (_parts.FitsParts, _base.BaseSubquadMLP, _predictor.Predictor, _parameters.MLPParameters)


def imported_modules(statement):
    """Names of the modules that a fresh process has after a statement."""
    script = f"{statement}; import json, sys; print(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-P", "-c", script]
    return set(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def test_the_version_is_that_of_the_build():
    version = re.search(r"^  version: '(.+)',$", (ROOT / "meson.build").read_text(encoding="utf-8"), re.MULTILINE)
    assert sklearn_subquad.__version__ == importlib.metadata.version("sklearn-subquad") == version[1]


def test_import_loads_no_part_of_scikit_learn_that_only_fits_need():
    """`sklearn.model_selection` would double the time of the import (benchmarks/speed/newcomer.py imports)."""
    added = imported_modules("import sklearn_subquad") - imported_modules("import sklearn")
    packages = {".".join(name.split(".")[:2]) for name in added if name.startswith("sklearn.")}
    assert packages <= {"sklearn.utils", "sklearn.base", "sklearn.exceptions"}
    assert not {"dask", "distributed", "pandas"} & {name.split(".")[0] for name in added}


# ---- types -----------------------------------------------------------------------------------------------------


def test_the_installed_package_says_that_it_is_typed():
    assert importlib.resources.files("sklearn_subquad").joinpath("py.typed").is_file()


def unannotated(function):
    """Parameters without an annotation, and "return" where there is none for the result."""
    signature = inspect.signature(function)
    missing = [
        name for name, parameter in signature.parameters.items() if parameter.annotation is inspect.Parameter.empty
    ]
    missing += ["return"] if signature.return_annotation is inspect.Signature.empty else []
    return [name for name in missing if name != "self"]


def public_methods(cls):
    """Public functions and properties that this package defines for a class, and its constructor."""
    for owner in (cls, *BASES):
        for name, member in vars(owner).items():
            if not name.startswith("_") or name == "__init__":
                function = member.fget if isinstance(member, property) else member
                if inspect.isfunction(function):
                    yield name, function


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_all_that_is_public_is_annotated(estimator_class):
    methods = dict(public_methods(estimator_class))
    assert {"__init__", "fit", "predict", "coefs_", "intercepts_"} <= set(methods)
    for name, function in methods.items():
        # Of an overloaded one the overloads are what type checkers see.
        for seen in typing.get_overloads(inspect.unwrap(function)) or [function]:
            assert unannotated(seen) == [], name
    assert unannotated(sklearn_subquad.show_versions) == []


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_documented_attributes_have_types(estimator_class):
    section = inspect.getdoc(estimator_class).split("Attributes\n----------\n")[1].split("\n\n")[0]
    documented = {name.strip() for line in re.findall(r"^(\w.*) : ", section, re.MULTILINE) for name in line.split(",")}
    typed = set().union(*(inspect.get_annotations(cls) for cls in (estimator_class, *BASES)))
    assert documented >= {"coefs_", "n_iter_", "loss_curve_"}
    # These are properties.
    assert documented - {"coefs_", "intercepts_", "estimators_", "feature_importances_"} <= typed


def test_names_of_the_package_are_documented_and_sorted():
    tree = ast.parse(pathlib.Path(sklearn_subquad.__file__).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert sklearn_subquad.__all__ == sorted(sklearn_subquad.__all__)
    for name in set(sklearn_subquad.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(sklearn_subquad, name))
