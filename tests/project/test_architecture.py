"""Imports go down the layers, which are the folders that doc/architecture.md shows."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sklearn_subquad"
# What uses every module, and what every module may use.
TOP, GROUND = {"__init__", "_show_versions"}, {"_compat", "_memory"}
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem not in TOP]


def layers():
    """The number of the row of every folder, and of every file that is in none, in the table of the page."""
    page = (ROOT / "doc" / "architecture.md").read_text(encoding="utf-8").split("## Folders are layers")[1]
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return {name: row for row, cell in enumerate(cells) for name in re.findall(r"`(\w+)(?:\.py|/)`", cell)}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path):
    """Names within the package of the modules that a module imports, and of folders where it imports from these."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Import) or not any("sklearn_subquad" in alias.name for alias in node.names)
        if not isinstance(node, ast.ImportFrom):
            continue
        assert node.level == 0, "imports name the package"
        if node.module.split(".")[0] == "sklearn_subquad":
            within = node.module.split(".")[1:]
            modules = [alias.name for alias in node.names if (PACKAGE.joinpath(*within) / f"{alias.name}.py").exists()]
            yield from [".".join([*within, module]) for module in modules] or [".".join(within or ["_kernels"])]


def layer(name):
    return name.split(".")[0]


def test_every_folder_and_file_has_a_row():
    assert set(layers()) == {layer(name_of(path)) for path in MODULES} - GROUND


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path):
    row, name = layers(), name_of(path)
    if layer(name) in GROUND:
        # These two may use the floor below, and nothing else.
        allowed = {name for name, number in row.items() if number >= row["_utils"]}
        assert {layer(other) for other in imported(path)} <= allowed
        return
    up = [other for other in imported(path) if layer(other) not in GROUND and row[layer(other)] < row[layer(name)]]
    assert up == []


def test_no_two_files_import_each_other():
    graph = {name_of(path): set(imported(path)) for path in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short(path):
    estimators = {"_regressor", "_classifier"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450 or path.stem in estimators


def test_auto_is_compared_in_the_plan_alone():
    """What "auto" stands for in a fit is decided once; `plotting` has one of its own, of an axis."""
    found = set()
    for path in (path for path in MODULES if path.stem != "plotting"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                compared = [leaf for side in [node.left, *node.comparators] for leaf in ast.walk(side)]
                if any(isinstance(leaf, ast.Constant) and leaf.value == "auto" for leaf in compared):
                    found.add(name_of(path))
    assert found == {"_fit.plan"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short(path):
    """At most 60 lines of code, without docstring, comments and blank lines; constructors list parameters."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            first = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.body[0].lineno
            lines = source.splitlines()[first - 1 : node.end_lineno]
            code = [line for line in lines if line.strip() and not line.strip().startswith("#")]
            assert len(code) <= 60, node.name
