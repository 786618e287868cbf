"""How the site is built: ``make docs``."""

import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import pushforward  # noqa: E402

# a page that shows a warning says nothing of the machine it was built on
warnings.formatwarning = lambda message, kind, *_: f"{kind.__name__}: {message}\n"

logging.getLogger("fontTools").setLevel(logging.WARNING)  # of figures in PDF

project = "pushforward"
author = "the pushforward authors"
release = version = pushforward.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "modules",
]
exclude_patterns = ["_build", "gallery"]
html_theme = "furo"
html_title = "pushforward"
html_static_path = ["_static"]
html_css_files = ["pushforward.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False

# text in single backticks links to an object of the library where there is one of that name
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!pushforward\.).*"),
    ("py:.*", r"pushforward\..*\._\w+"),  # types that a signature names and nobody makes
]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

reference_packages = ["theory", "theory/exact", "metrics"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

sphinx_gallery_conf = {
    "examples_dirs": ["gallery/tutorials", "gallery/lesson"],
    "gallery_dirs": ["tutorials", "lesson"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": ("_repr_html_",),
    "image_scrapers": ("matplotlib", "plates"),
    "image_srcset": ["2x"],
    "default_thumb_file": str(Path(__file__).parent / "_static" / "no-figure.png"),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "run_stale_examples": True,  # a page shows what the code does now, not what it once did
    "nested_sections": False,
    "write_computation_times": False,
}
