"""The examples are pages of a gallery, and programs that need nothing but the package and matplotlib."""

import ast
import pathlib
import re
import sys

import pytest

import sklearn_subquad
from sklearn_subquad import plotting

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
GALLERY = [path for path in EXAMPLES if path.name.startswith("plot_")]
# What `pip install` brings along.
INSTALLED = {"joblib", "numpy", "scipy", "sklearn", "sklearn_subquad", "threadpoolctl"}
PUBLIC = {"sklearn_subquad": sklearn_subquad.__all__, "sklearn_subquad.plotting": plotting.__all__}
# Pictures of what no estimator shows.
USES_PRIVATE_MODULES = {"plot_preconditioning.py"}

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
each_page = pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)


def imports(path):
    """Pairs of a module and the names that are imported from it, none for `import module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, [alias.name for alias in node.names]


def test_every_example_is_a_page_of_the_gallery_or_the_quickstart():
    assert {path.name for path in EXAMPLES} - {path.name for path in GALLERY} == {"quickstart.py"}
    assert len(GALLERY) >= 8


@each_example
def test_it_says_what_it_shows(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@each_page
def test_a_page_has_a_title_an_introduction_and_cells(path):
    text = path.read_text(encoding="utf-8")
    title, underline, empty, *introduction = ast.get_docstring(ast.parse(text)).splitlines()
    assert re.fullmatch("=+", underline)
    assert len(underline) >= len(title) > 0
    assert empty == ""
    assert introduction
    assert re.search(r"^# %%\n# \S", text, re.MULTILINE)


@each_page
def test_a_page_shows_its_figures_at_the_end(path):
    assert path.read_text(encoding="utf-8").endswith("\nplt.show()\n")


@each_example
def test_it_needs_the_package_and_matplotlib_alone(path):
    used = {module.split(".")[0] for module, _ in imports(path)}
    assert used <= INSTALLED | {"matplotlib"} | set(sys.stdlib_module_names)
    assert "sklearn_subquad" in used


@each_example
def test_it_uses_public_names_or_says_that_it_does_not(path):
    private = {
        (module, name)
        for module, names in imports(path)
        if module.split(".")[0] == "sklearn_subquad"
        for name in names or [None]
        if name not in PUBLIC.get(module, [])
    }
    assert bool(private) == (path.name in USES_PRIVATE_MODULES), private
    if private:
        assert "\n# Private modules, " in path.read_text(encoding="utf-8")
