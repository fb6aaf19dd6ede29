"""Sphinx's settings."""

import re
from importlib.metadata import version as installed

from docutils import nodes
from sphinx.application import Sphinx

project = "learned-surrogates"
version = release = installed("learned-surrogates")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas show without network
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_title = "learned-surrogates"


def keep_figures_whole(app: Sphinx, document: nodes.document) -> None:
    """A table's cell of figures, "-9.4 % (5 of 5)", is not broken into lines."""
    for cell in document.findall(nodes.entry):
        if not cell.astext().strip():
            cell["classes"].append("figures")
        if re.fullmatch(r"(?:[\W\d]|of|to|e|ms)*\d(?:[\W\d]|of|to|e|ms)*", cell.astext()):
            cell["classes"].append("figures")
            for words in list(cell.findall(nodes.Text)):
                words.parent.replace(words, nodes.Text(words.replace(" ", "\N{NO-BREAK SPACE}")))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", keep_figures_whole)
