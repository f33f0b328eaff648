"""Configuration of the documentation: `sphinx-build -W --keep-going doc doc/_build/html`."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "sklearn_subquad"
author = "The sklearn_subquad developers"
project_copyright = "the sklearn_subquad developers, BSD 3-Clause"
release = version = installed_version("sklearn-subquad")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    # In _extensions.
    "repository_pages",
    "inherited_docstrings",
    "offline",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Anchors of headings, as links between the pages use them.
myst_heading_anchors = 3

autosummary_generate = True
# Methods stand beside their class in the list of a page's headings.
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
# Members are listed by the template of classes.
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    # What a cell ends with is no result but a legend, and seconds are those of the machine that built the site.
    "capture_repr": (),
    "min_reported_time": 1e9,
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Shown and executed alike; quickstart.py is for the command line.
    "filename_pattern": "plot_",
    "ignore_pattern": "quickstart",
    "download_all_examples": False,
    "show_signature": False,
    # A build writes nothing that depends on how long examples took.
    "write_computation_times": False,
    # Every figure at twice the resolution of the screen.
    "image_srcset": ["2x"],
}
# The gallery has one level, and its configuration holds functions where no file can.
suppress_warnings = ["config.cache"]

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_subquad"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    # Without the word, so that the links fit into one line.
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"install": [], "paper": [], "changelog": [], "contributing": []}
