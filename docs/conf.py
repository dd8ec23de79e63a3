"""Sphinx: sphinx-build -W -q docs docs/_build."""

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "srs-certify"
author = "the srs-certify developers"
copyright = author  # noqa: A001  (Sphinx's name)
version = release = installed("srs-certify")

extensions = [
    "myst_nb",  # MyST, and notebooks in it, which are run
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "command_reference",
    "mathml",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell, on a machine that does much else
nb_execution_in_temp = True
nb_merge_streams = True  # what a command prints is one block
nb_output_stderr = "remove"  # how far commands are, which no reader needs

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings state types and shapes
napoleon_google_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses are documented once, in the class

html_theme = "furo"
html_title = "srs-certify"
html_show_sourcelink = False


def escape_norms(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep |x - y| in docstrings a norm: reStructuredText would take it for a substitution."""
    lines[:] = [re.sub(r"\|([^|`]+)\|", r"\|\1\|", line) for line in lines]


def unlink_letters(app: Any, doctree: Any) -> None:
    """Keep the letters of "array of shape (n, K)" from becoming links to attributes that happen to be called n."""
    for reference in list(doctree.findall(pending_xref)):
        if len(reference.get("reftarget", "")) == 1:
            reference.replace_self(reference.children)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", escape_norms)
    app.connect("doctree-read", unlink_letters)
