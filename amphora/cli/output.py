"""What commands print: values, tables, and one JSON object per line for programs.

Standard output has the results and nothing else.  What is said about them goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import click
import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from amphora.errors import printable

# What is printed for good is as wide as it needs to be: a name that is cut cannot be copied.
FULL_WIDTH = 10_000
CELL_WIDTH = 2_000


def console(*, stderr: bool = False, width: int | None = FULL_WIDTH) -> Console:
    """Return a rich console that takes text as it is, without markup of its own.

    Its width is that of the terminal if None is given.  Rich leaves colours out when the stream is
    not a terminal, or when NO_COLOR is set.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def show_error(sentence: str) -> None:
    """Print what went wrong on standard error."""
    _remark(Text.assemble("amphora: ", ("error: ", "bold red"), sentence))


def show_note(sentence: str) -> None:
    """Print what the user should know on standard error."""
    _remark(Text.assemble("amphora: ", sentence))


def _remark(text: Text) -> None:
    console(stderr=True).print(text, soft_wrap=True)


def show_json(value: Any) -> None:
    """Print one line of JSON on standard output, at once."""
    click.echo(msgspec.json.encode(value, enc_hook=str))


def show_value(value: Any) -> None:
    """Print a result: a text as it is, anything else as JSON on several lines.

    On a terminal, characters that would steer it are escaped.
    """
    click.echo(safe_lines(as_text(value)) if sys.stdout.isatty() else as_text(value))


def as_text(value: Any) -> str:
    """Return a value as people write it: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()


def safe_lines(text: str) -> str:
    """Return a text of several lines in which only line ends and tabs are left unescaped."""
    lines = text.split("\n")
    return "\n".join(
        "\t".join(printable(part, len(part) * 10 + 10) for part in line.split("\t"))
        for line in lines
    )


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, unless it has no rows."""
    made = table(columns, rows)
    if made.row_count:
        show(made)


def show(what: RenderableType) -> None:
    """Print something of rich's on standard output, without spaces at the ends of lines."""
    screen = console()
    with screen.capture() as captured:
        screen.print(what)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; a column whose name begins with `>` is aligned to the right.

    What stands in the cells may come from anywhere: it is made safe to print.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        made.add_column(name.removeprefix(">"), justify=justify, no_wrap=True)
    for row in rows:
        made.add_row(*(Text(printable(cell, CELL_WIDTH)) for cell in row))
    return made


def counted(number: int, noun: str) -> str:
    """Return `1 worker` or `2 workers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def seconds(value: float | None) -> str:
    """Return a duration as people read it: `250 us`, `1.2 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`."""
    if value is None:
        return "-"
    for unit, size, limit in (("us", 1e-6, 1e-3), ("ms", 1e-3, 1.0), ("s", 1.0, 120.0)):
        if value < limit:
            return f"{value / size:.3g} {unit}"
    for unit, size, limit in (("min", 60, 7200), ("h", 3600, 172800)):
        if value < limit:
            return f"{value / size:.0f} {unit}"
    return f"{value / 86400:.0f} d"
