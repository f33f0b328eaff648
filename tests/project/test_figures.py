"""Figures in README.md and doc are those of the result files, which name commit, machine and versions."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def table_rows(page):
    """First cell and other cells of all rows of all tables of a page."""
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            yield label, cells


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*.md")), ids=lambda page: page.name)
def test_result_files_name_commit_machine_and_versions(page):
    text = page.read_text(encoding="utf-8")
    for what in (r"commit \(?`?[0-9a-f]{7}\b", r"\bcores?\b", "Python 3", "NumPy 2", "scikit-learn 1", "(?i)openblas"):
        assert re.search(what, text), what
    assert "-dirty" not in text


def test_accuracy_on_the_page_of_what_to_expect():
    quoted_rows = dict(table_rows("doc/what_to_expect.md"))
    # What has no rows held out has tables of its own, further down.
    measured = dict(reversed(list(table_rows("benchmarks/results/accuracy.md"))))
    for name in ("yacht", "energy", "concrete", "boston", "kin8nm", "power-plant"):
        ours = float(measured[name][0].split()[0])
        quoted = quoted_rows[f"{name}, RMSE, 20 splits"][0]
        decimals = len(quoted.partition(".")[2])
        assert quoted == f"{ours:.{decimals}f}"
    for quoted, of_group in (("16 small", "16 sets, n <= 1100"), ("27", "27 sets, n <= 5000")):
        cell = quoted_rows[f"{quoted} classification sets, mean accuracy"][0]
        assert cell == f"{float(measured[f'mean, {of_group}'][0]):.1f} %"


def test_seconds_of_an_iteration_on_that_page():
    quoted_rows = dict(table_rows("doc/what_to_expect.md"))
    results = json.loads((RESULTS / "scaling.json").read_text())["results"]
    for label, series in {
        "density auto, m^(-1/5)": "auto",
        "density m^(-0.3)": "theory",
        "the same iteration with dense NumPy": "dense",
    }.items():
        seconds = {r["width"]: r["seconds"] for r in results if r["series"] == series}
        for width, quoted in zip((2048, 8192, 16384, 32768), quoted_rows[label], strict=False):
            assert not quoted or float(quoted) == pytest.approx(seconds[width], rel=0.03)


def test_seconds_of_the_quickstart_on_that_page():
    printed = (RESULTS / "newcomer.md").read_text(encoding="utf-8")
    page = (ROOT / "doc" / "what_to_expect.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| [a-z ]*\| (\w*MLP\w+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    measured = re.findall(r"^[a-z ]+ (\w*MLP\w+) +(\d+) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    assert len(quoted) == len(measured) == 6
    for mine, theirs in zip(quoted, measured, strict=True):
        assert mine[:3] == theirs[:3]
        assert mine[3] == f"{float(theirs[3]):.3f}"


@pytest.mark.parametrize(
    ("page", "sources"),
    [("doc/defaults.md", ["choices.md", "choices_older.md"]), ("doc/architecture.md", ["parts.md"])],
)
def test_tables_of_a_page_are_parts_of_result_files(page, sources):
    """Every row whose label the result files have: its cells are some of a row of that label there, in order."""
    measured = [row for source in sources for row in table_rows(f"benchmarks/results/{source}")]
    labels = {label for label, _ in measured if label}
    common = [(label, cells) for label, cells in table_rows(page) if label in labels]
    assert len(common) > 4

    def is_part_of(cells, row):
        remaining = iter(row)
        return all(cell in remaining for cell in cells)

    for label, cells in common:
        assert any(is_part_of(cells, row) for other, row in measured if other == label), label


# Rows of doc/peers.md by what benchmarks/results/peers.md calls them.
PEERS = {
    "ours": "ours",
    'ours, one search (`init="axis_aligned", feature_metric=None`)': "ours, one search",
    "gradient boosting": "gradient boosting",
    "gradient boosting, tuned": "gradient boosting, tuned",
    "SVM, defaults": "SVM",
    "SVM, tuned": "SVM, tuned",
    "kernel ridge, tuned": "kernel ridge, tuned",
    "scikit-learn MLP, Adam (100 neurons)": "scikit-learn MLP, Adam",
    "scikit-learn MLP, L-BFGS (100 neurons)": "scikit-learn MLP, L-BFGS",
    "dense, PyTorch Adam (1024, 1024)": "PyTorch, Adam",
    "dense, PyTorch Gauss-Newton (1024, 1024)": "PyTorch, Gauss-Newton",
}
ERROR_AND_SECONDS = re.compile(r"\**([\d.]+)\** \(([\d.]+) s\)")


def errors_and_seconds(page, label):
    """Numbers, as text, of the cells of every row of that label that have an error and seconds."""
    for found, cells in table_rows(page):
        matches = [ERROR_AND_SECONDS.fullmatch(cell) for cell in cells]
        if found == label and any(matches):
            yield [number for match in matches if match for number in match.groups()]


@pytest.mark.parametrize("label", PEERS)
def test_errors_and_seconds_of_other_methods(label):
    quoted = list(errors_and_seconds("doc/peers.md", label))
    measured = list(errors_and_seconds("benchmarks/results/peers.md", PEERS[label]))
    assert quoted
    for mine, theirs in zip(quoted, measured, strict=True):
        assert len(mine) == len(theirs)
        for number, exact in zip(mine, theirs, strict=True):
            unit = 10.0 ** -len(number.partition(".")[2])
            assert float(number) == pytest.approx(float(exact), abs=0.51 * unit)
