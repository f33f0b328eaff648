"""Blocks of Python on the pages of the documentation run, and links between files lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a build of the site writes into doc.
BUILT = {"_build", "auto_examples", "generated", "results"}
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "doc").rglob("*.md")) if page.relative_to(ROOT / "doc").parts[0] not in BUILT),
]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))

# A fence and what stands between it and the next; before it perhaps a comment.
FENCE = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(path):
    return str(path.relative_to(ROOT))


def python_blocks(text):
    """Source of every block, with as many empty lines before it as put it on its lines of the page; its comment."""
    for fence in FENCE.finditer(text):
        if fence[2] == "python":
            yield "\n" * text.count("\n", 0, fence.start(3)) + fence[3], fence[1] or ""


WITH_BLOCKS = [page for page in PAGES if list(python_blocks(page.read_text(encoding="utf-8")))]


def test_blocks_are_found():
    text = "# Title\n\n```python\na = 1\n```\n\n<!-- not run: why -->\n```python\nb\n```\n\n```sh\nls\n```\n"
    assert list(python_blocks(text)) == [("\n\n\na = 1\n", ""), ("\n" * 8 + "b\n", "not run: why")]
    assert ROOT / "README.md" in WITH_BLOCKS
    assert ROOT / "doc" / "guide" / "own_csv.md" in WITH_BLOCKS


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for source, comment in python_blocks(page.read_text(encoding="utf-8")):
        code = compile(source, str(page), "exec")
        kind, _, detail = comment.partition(": ")
        if kind == "not run":
            assert detail, f"{name(page)}: say why a block is not run"
            continue
        if kind == "needs":
            for package in detail.split(", "):
                pytest.importorskip(package)
        exec(code, namespace)


def anchors(path):
    """Anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page, text):
    """Links of a page to files of the repository, or to their headings, that are not there."""
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        address, _, anchor = target.partition("#")
        path = (page.parent / address).resolve() if address else page
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in anchors(path)):
            yield target


def test_broken_links_are_found(tmp_path):
    page = ROOT / "doc" / "index.md"
    text = "[a](nowhere.md) [b](defaults.md#no-such-heading) [c](defaults.md#batches) ![d](images/scaling.svg)"
    assert list(broken(page, text)) == ["nowhere.md", "defaults.md#no-such-heading"]


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=name)
def test_links_lead_somewhere(page):
    assert list(broken(page, page.read_text(encoding="utf-8"))) == []
