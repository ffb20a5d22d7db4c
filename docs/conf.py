"""Sphinx's settings."""

import builtins
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import amphora  # noqa: E402

if shutil.which("dot") is None:
    sys.exit("graphviz, which draws the diagrams, is not installed: scripts/install-graphviz helps")

project = "amphora"
author = "the amphora authors"
project_copyright = "2026, the amphora authors"
version = release = amphora.__version__

extensions = [
    "myst_parser",
    "search_words",
    "sphinx.ext.autodoc",
    "sphinx.ext.graphviz",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "snippets"]
default_role = "code"  # what stands in single backquotes in docstrings

html_theme = "furo"
html_title = f"amphora {release}"
html_static_path = ["static"]
html_css_files = ["manual.css"]

# Signatures show the types; the text says what they mean.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

myst_heading_anchors = 3

# Diagrams: boxes are processes.  The colours do for light and dark pages.
graphviz_output_format = "svg"
graphviz_dot_args = [
    "-Gbgcolor=transparent",
    "-Granksep=0.6",
    "-Nshape=box",
    "-Nstyle=filled,rounded",
    "-Nfillcolor=#e6efec",
    "-Ncolor=#2f6f62",
    "-Nfontcolor=#1d3b35",
    "-Nfontname=Helvetica,Arial,sans-serif",
    "-Nfontsize=12",
    "-Ecolor=#6f8f88",
    "-Efontcolor=#6f8f88",
    "-Efontname=Helvetica,Arial,sans-serif",
    "-Efontsize=11",
    "-Earrowsize=0.7",
]

# Every reference to a name of amphora's own has to be found (-n). Those of others would need
# their inventories from the network, and are left as text.
OTHERS = sorted(
    {
        *sys.stdlib_module_names,
        *("click", "gevent", "greenlet", "msgspec", "opentelemetry", "pamqp"),
        *("prometheus_client", "rich"),
    }
)
BUILTINS = sorted(name for name in dir(builtins) if not name.startswith("_"))
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(map(re.escape, OTHERS))})(\..*)?"),
    ("py:.*", rf"({'|'.join(BUILTINS)})"),
    # Signatures name types that are not for import, and type variables.
    ("py:class", r"amphora\.(broker|errors|rpc|stores|transport|web|wire)\..*"),
    ("py:class", r"amphora\.testing\.HasSession"),
    ("py:class", r"P|P\.args|P\.kwargs|R"),
    ("py:obj", r"amphora\.rpc\..*\.(A|R_co)"),
]


def keep_sentence(app, what, name, obj, options, lines):
    """Let a property's docstring begin "Whether it runs: ...", which napoleon takes for a type."""
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]  # an empty comment takes the sentence's place


def mark_code(app, what, name, obj, options, lines):
    """Make an indented block below a sentence a block of code, as it is meant in docstrings."""
    marked, last = [], "  "
    for number, line in enumerate(lines):
        begins = line.startswith(" ") and number > 0 and not lines[number - 1]
        if begins and last and not last.startswith(" "):
            marked += [".. code-block:: python", ""]
        marked.append(line)
        last = line or last
    lines[:] = marked


def setup(app):
    app.connect("autodoc-process-docstring", keep_sentence, priority=100)
    app.connect("autodoc-process-docstring", mark_code, priority=100)
