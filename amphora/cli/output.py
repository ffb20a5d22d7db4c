"""The printing of commands: values, tables, and one JSON object per line for programs.

Results, and nothing else, go to standard output.  Remarks about them go to standard error.

On a terminal `styled` prints the same text in colours, with rich, if that is installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TextIO

import click
import msgspec

from amphora.cli.page import Line, Table, plain, text_of
from amphora.errors import printable, printable_lines

# Longer cells of a table are cut.
CELL_WIDTH = 2_000


def has_style(stream: TextIO) -> bool:
    """Return whether `styled` can print on a stream: it is a terminal, and rich is installed."""
    return stream.isatty() and find_spec("rich") is not None


def can_redraw(stream: TextIO) -> bool:
    """Return whether lines on a stream can be replaced: it is a terminal, and not a dumb one."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def show_error(sentence: str) -> None:
    """Print an error on standard error."""
    _remark((("amphora: ", ""), ("error: ", "bold red"), (sentence, "")))


def show_note(sentence: str) -> None:
    """Print a note for the user on standard error."""
    _remark((("amphora: ", ""), (sentence, "")))


def _remark(line: Line) -> None:
    if has_style(sys.stderr):
        from amphora.cli import styled

        styled.remark(line)
    else:
        print(text_of(line), file=sys.stderr, flush=True)


def show_json(value: Any) -> None:
    """Print one line of JSON on standard output, at once."""
    click.echo(msgspec.json.encode(value, enc_hook=str))


def show_value(value: Any) -> None:
    """Print a result: a text as it is, anything else as JSON on several lines."""
    show_line(as_text(value))


def show_line(text: str) -> None:
    """Print a text on standard output, at once.

    On a terminal, control characters are escaped.
    """
    # Without `color`, click would take the escape sequences out of what a program reads.
    click.echo(printable_lines(text) if sys.stdout.isatty() else text, color=True)


def as_text(value: Any) -> str:
    """Return a value as text: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()


def one_line(value: Any) -> str:
    """Return a result as the text of a table's cell."""
    return value if isinstance(value, str) else json_line(value)


def json_line(value: Any) -> str:
    """Return a value as one line of JSON."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, unless it has no rows."""
    made = table(columns, rows)
    if made.rows:
        show([made])


def show(parts: Sequence[Line | Table]) -> None:
    """Print lines and tables on standard output, without spaces at the ends of lines.

    Lines are as wide as they need to be: a cut name could not be copied.
    """
    if has_style(sys.stdout):
        from amphora.cli import styled

        lines = styled.lines(parts)
    else:
        lines = plain(parts)
    for line in lines:
        click.echo(line.rstrip())


def show_live(frames: Iterable[Sequence[Line | Table]]) -> None:
    """Show frame after frame on the terminal, each in the place of the one before."""
    if has_style(sys.stdout):
        from amphora.cli import styled

        styled.show_live(frames)
        return
    for parts in frames:
        click.clear()
        show(parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table whose cells are made safe to print."""
    return Table(columns, [[printable(cell, CELL_WIDTH) for cell in row] for row in rows])


def counted(number: int, noun: str) -> str:
    """Return `1 worker` or `2 workers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_progress(stats: Mapping[str, Any]) -> str:
    """Return a worker's requests in progress, their limit, and its streams: `3/100 +2`."""
    # Older workers do not report this, and for them top has None.
    streams = stats.get("streams") or 0
    calls = f"{max(stats['in_flight'] - streams, 0)}/{stats['concurrency']}"
    return f"{calls} +{streams}" if streams else calls


def caller(request: Mapping[str, Any]) -> str:
    """Return the caller of a request: its login and the beginning of its client's id."""
    return " ".join(filter(None, (request["user"], (request["client"] or "")[:12]))) or "-"


def seconds(value: float | None) -> str:
    """Return a duration as text: `250 us`, `1.2 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`."""
    if value is None:
        return "-"
    for unit, size, limit in (("us", 1e-6, 1e-3), ("ms", 1e-3, 1.0), ("s", 1.0, 120.0)):
        if value < limit:
            return f"{value / size:.3g} {unit}"
    for unit, size, limit in (("min", 60, 7200), ("h", 3600, 172800)):
        if value < limit:
            return f"{value / size:.0f} {unit}"
    return f"{value / 86400:.0f} d"
