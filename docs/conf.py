"""How Sphinx builds the documentation. What can be generated from the code is (see ``_ext``)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from kallichore import __version__

project = "Kallichore"
author = "Kallichore contributors"
project_copyright = "Kallichore contributors, BSD-3-Clause"
release = version = __version__

extensions = ["myst_parser", "generated"]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Kallichore {release}"
html_show_sphinx = False
