"""What `pyproject.toml` cannot say: the README as the package index shows it."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent


def readme() -> str:
    """Return the README with links to the documentation, not to files beside it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pages = f"{project['urls']['Documentation']}en/latest"
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/([\w./-]+)\.rst(#[\w-]+)?\)", rf"]({pages}/\1.html\2)", text)
    return re.sub(
        r"\]\((CHANGELOG|CONTRIBUTING)\.md\)",
        lambda found: f"]({pages}/project/{found[1].lower()}.html)",
        text,
    )


setup(long_description=readme(), long_description_content_type="text/markdown")
