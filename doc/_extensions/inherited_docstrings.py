"""Docstrings that methods have from scikit-learn, without what only its own manual resolves.

References to its pages become plain text, formulas literals: a formula on a page would make it load a renderer from the
network.
"""

import re


def simplify(app, what, name, obj, options, lines):
    for index, line in enumerate(lines):
        line = re.sub(r":ref:`([^`<]+?)\s*<[^`>]*>`", r"\1", line)
        line = re.sub(r":ref:`([^`<]+)`", r"``\1``", line)
        lines[index] = re.sub(r":math:`([^`]+)`", r"``\1``", line)


def setup(app):
    # Before numpydoc.
    app.connect("autodoc-process-docstring", simplify, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
