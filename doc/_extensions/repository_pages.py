"""Results of benchmarks as pages of the site.

The files of benchmarks/results are copied to doc/results, and links between them and the pages of doc are made those of
the site. In the repository they stay what they are, so that they work there as well.
"""

import re
from pathlib import Path

DOC = Path(__file__).resolve().parents[1]
RESULTS = DOC.parent / "benchmarks" / "results"
PAGES = DOC / "results"


def copy_results(app):
    """Write doc/results, and nothing that is there already, which would be read again."""
    PAGES.mkdir(exist_ok=True)
    names = {path.name for path in RESULTS.glob("*.md")}
    for path in PAGES.glob("*.md"):
        if path.name not in names:
            path.unlink()
    for name in names:
        text = (RESULTS / name).read_text(encoding="utf-8").replace("](../../doc/", "](../")
        if not text.startswith("# "):
            text = f"# {name.removesuffix('.md').replace('_', ' ').capitalize()}\n\n{text}"
        page = PAGES / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def link_results(app, docname, source):
    """Links of pages to files of results become links to their pages."""
    source[0] = re.sub(r"\]\(((?:\.\./)*)\.\./benchmarks/results/(\w+\.md)", r"](\1results/\2", source[0])


def setup(app):
    app.connect("builder-inited", copy_results)
    app.connect("source-read", link_results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
