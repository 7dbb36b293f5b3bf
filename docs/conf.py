"""Sphinx builds the documentation with this: make docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag import __version__

project = "audiotag"
author = "The audiotag authors"
copyright = "The audiotag authors, Apache-2.0"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
exclude_patterns = ["_extensions"]
html_theme = "furo"
html_title = f"audiotag {__version__}"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes only: quotation marks stay as they are typed
# A word in single backticks in a docstring is code.
default_role = "literal"
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
# The sections of our docstrings that Google's style does not have.
napoleon_custom_sections = ["Input", "Output", "Input shape", "Output shape", "Conventions"]
nitpicky = True
# Types of other packages: their documentation is not needed to build ours. Links between pages are all checked.
nitpick_ignore_regex = [("py:.*", ".*")]
