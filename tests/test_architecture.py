"""The order of the modules is the one that doc/architecture.md says."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "sklearn_subquad").glob("*.py"))
# What every module may use or uses every module, and is in no row.
ANYWHERE = {"__init__", "_compat", "_show_versions"}


def rows():
    """The row of every module in the first table."""
    table = (ROOT / "doc" / "architecture.md").read_text(encoding="utf-8").split("\n\n")[2]
    modules = [line.split("|")[2] for line in table.splitlines()[2:]]
    return {name: row for row, cell in enumerate(modules) for name in re.findall(r"`(\w+)(?:\.py|/)`", cell)}


def imported(path):
    """Names of the package's modules that a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sklearn_subquad":
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]


def test_every_module_has_a_row():
    assert set(rows()) == {path.stem for path in MODULES} - ANYWHERE | {"_kernels"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem not in ANYWHERE], ids=lambda path: path.stem)
def test_imports_go_down_the_table(path):
    row = rows()
    assert [name for name in imported(path) if name not in ANYWHERE and row[name] < row[path.stem]] == []
