"""How Sphinx builds these pages: `make docs`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_extensions"))

from s2l_jax.version import __version__

project = "s2l_jax"
author = "the s2l_jax authors"
release = version = __version__

extensions = [
    "generated_reference",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_extensions"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_in_temp = True
nb_execution_mode = "cache"  # by its text alone: `make docs ARGS=-E` after `rm -r docs/_build` runs it anew
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "sphinx_book_theme"
html_title = "s2l_jax"
html_theme_options = {
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
}
copybutton_prompt_text = "$ "
