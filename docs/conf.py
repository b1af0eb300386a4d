"""The documentation site: the pages of this folder, and the reference from the docstrings.

`make docs` builds it into build/docs, offline; a warning is an error. All pages are plain Markdown
that reads the same on a repository's web page. What only the site needs is made here:

- index.md is a list of links under headings; each heading becomes a part of the table of contents.
- api.md is followed by one page of reference a room of the package, made from what the room holds.
- A link to a file outside this folder gives that file: the web page shows it, the site gives it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tools"))

import docs_reference as reference  # noqa: E402

project = "espnetv2"
author = "the espnetv2 authors"
copyright = "MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["figures"]
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = "espnetv2"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "none"

myst_heading_anchors = 4
myst_enable_extensions: list[str] = []

default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
nitpick_ignore_regex = reference.OUTSIDE


def with_contents(app: object, docname: str, source: list[str]) -> None:
    """Add the tables of contents that index.md and api.md describe."""
    if docname == "index":
        source[0] += reference.contents_of(source[0])
    elif docname == "api":
        source[0] += reference.toctree("", [f"api/{room}" for room in reference.rooms()])


def setup(app: object) -> None:
    """Connect what is described above."""
    reference.write_pages(HERE / "api")
    app.connect("source-read", with_contents)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", reference.tidy, priority=400)  # type: ignore[attr-defined]
