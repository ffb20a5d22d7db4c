"""Lines with styles, and tables, as data; and their plain text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["", "bold", "bold red"]
# Pieces of one line.
Line = tuple[tuple[str, Style], ...]


@dataclass(frozen=True)
class Table:
    """Rows below a header.

    A column whose name begins with `>` is aligned to the right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def text_of(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(text for text, _ in line)


def plain(parts: Iterable[Line | Table]) -> Iterator[str]:
    """Yield the lines of a page without styles."""
    for part in parts:
        if isinstance(part, Table):
            yield from plain_table(part)
        else:
            yield text_of(part)


def plain_table(table: Table) -> Iterator[str]:
    """Yield a table's lines, its header first."""
    lines = [[name.removeprefix(">") for name in table.columns], *table.rows]
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = []
        for name, width, text in zip(table.columns, widths, line, strict=True):
            padding = " " * (width - cells(text))
            padded.append(padding + text if name.startswith(">") else text + padding)
        yield "  ".join(padded)


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    count = 0
    for each in text:
        if unicodedata.category(each) in ("Mn", "Me", "Cf"):
            continue  # drawn over the one before
        count += 2 if unicodedata.east_asian_width(each) in "WF" else 1
    return count
