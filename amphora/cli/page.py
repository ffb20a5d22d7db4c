"""Lines with styles, and tables, as data; and their plain text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["", "bold", "bold red"]
# The fewest cells to which a text in a table is cut.
SHORTEST = 12
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
    widths = _widths(table)
    for line in lines:
        padded = []
        for name, width, text in zip(table.columns, widths, line, strict=True):
            padding = " " * (width - cells(text))
            padded.append(padding + text if name.startswith(">") else text + padding)
        yield "  ".join(padded)


def fitted(table: Table, width: int, least: Sequence[str], *, ids: bool = False) -> Table:
    """Return a table of at most a given width, if possible.

    Texts are cut, then whole columns are left out.  Numbers are never cut.

    Args:
        least: the columns to leave out, the first one first.
        ids: the first column has ids, which differ at their ends: their beginnings are cut.
    """
    made = table
    for name in (None, *least):
        if name is not None:
            left = [each for each in range(len(made.columns)) if made.columns[each] != name]
            made = Table(
                [made.columns[each] for each in left],
                [[row[each] for each in left] for row in made.rows],
            )
        made = _cut(made, width, ids)
        if sum(_widths(made)) + 2 * (len(made.columns) - 1) <= width:
            break
    return made


def _cut(table: Table, width: int, ids: bool) -> Table:
    """Cut texts until the table fits, but leave them `SHORTEST` cells."""
    widths = _widths(table)
    excess = sum(widths) + 2 * (len(widths) - 1) - width
    texts = [place for place, name in enumerate(table.columns) if not name.startswith(">")]
    while excess > 0:
        place = max(texts, key=lambda each: widths[each], default=None)
        if place is None or widths[place] <= SHORTEST:
            break
        widths[place] -= 1
        excess -= 1
    rows = [
        [
            shortened(text, widths[place], at_the_end=place > 0 or not ids)
            if place in texts
            else text
            for place, text in enumerate(row)
        ]
        for row in table.rows
    ]
    return Table(table.columns, rows)


def _widths(table: Table) -> list[int]:
    lines = [[name.removeprefix(">") for name in table.columns], *table.rows]
    return [max(map(cells, column)) for column in zip(*lines, strict=True)]


def shortened(text: str, width: int, *, at_the_end: bool) -> str:
    """Return a text of at most `width` cells; dots stand for what is left out."""
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[:-1] if at_the_end else text[1:]
    return f"{text}\u2026" if at_the_end else f"\u2026{text}"


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    count = 0
    for each in text:
        if unicodedata.category(each) in ("Mn", "Me", "Cf"):
            continue  # drawn over the one before
        count += 2 if unicodedata.east_asian_width(each) in "WF" else 1
    return count
