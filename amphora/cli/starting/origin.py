"""The origin of the running amphora."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import amphora


def requirement() -> str | None:
    """Return the argument for pip to install the same amphora; None if the index has it.

    A path leads to an existing checkout or archive.
    """
    checkout = Path(amphora.__file__).parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "amphora").is_dir():
        return str(checkout)
    try:
        text = distribution("amphora").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    return None if text is None else _of_a_direct_url(json.loads(text))


def _of_a_direct_url(record: dict[str, Any]) -> str | None:
    """Return the argument for pip, as pip recorded it (PEP 610)."""
    url: str = record["url"]
    if "vcs_info" in record:
        vcs = record["vcs_info"]
        return f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    parts = urlsplit(url)
    if parts.scheme != "file":
        return url
    path = unquote(parts.path)
    return path if Path(path).exists() else None
