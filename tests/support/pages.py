"""Pages of the documentation, read by tests that compare them with the code."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.processes import ROOT

DOCS = ROOT / "docs"

_LITERAL = re.compile(r"``([^`]+)``")


def page(name: str) -> str:
    """Return the source of a page, such as `reference/api`."""
    return Path(DOCS / f"{name}.rst").read_text(encoding="utf-8")


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of each `list-table` in a page, by row, without the headers."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        words = line.strip()
        if words == ".. list-table::":
            inside = True
            found.append([])
        elif words and line[:1] != " ":
            inside = False
        elif inside and words.startswith("* -"):
            found[-1].append([words[3:].strip()])
        elif inside and (words == "-" or words.startswith("- ")):
            found[-1][-1].append(words[1:].strip())
        elif inside and words and not words.startswith(":"):
            found[-1][-1][-1] += f" {words}"
    return [rows[1:] for rows in found]


def literals(text: str) -> list[str]:
    """Return what stands in double backquotes."""
    return _LITERAL.findall(text)


def definitions(text: str) -> dict[str, dict[str, str]]:
    """Return the list below each definition of a page, by its term in double backquotes."""
    found: dict[str, dict[str, str]] = {}
    term = ""
    for line in text.splitlines():
        if line.startswith("``"):
            term = literals(line)[0] if _LITERAL.fullmatch(line) else ""
        elif line[:1] not in ("", " "):
            term = ""
        field = re.match(r"    - (\w+): (.+)", line)
        if term and field:
            found.setdefault(term, {})[field[1]] = field[2]
    return found


def names_in_json(command: str) -> set[str]:
    """Return the names that the page about the command line gives for a command's `--json`."""
    (told,) = [
        row[1]
        for table in tables(page("reference/cli"))
        for row in table
        if command in literals(row[0])
    ]
    return set(re.findall(r'"(\w+)"', told))
