"""Lines and tables on a terminal, in colours and live, with rich.

Only `output` imports this, when it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Literal, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from amphora.cli.page import Line, Table

# The width of output that is not live: unlimited.
FULL_WIDTH = 10_000


def remark(line: Line) -> None:
    """Print a line on standard error."""
    _console(sys.stderr, FULL_WIDTH).print(Text.assemble(*line), soft_wrap=True)


def lines(parts: Iterable[Line | Table]) -> Iterator[str]:
    """Yield the lines of a page, with the terminal's styles."""
    screen = _console(sys.stdout, FULL_WIDTH)
    with screen.capture() as captured:
        screen.print(laid_out(parts))
    yield from captured.get().splitlines()


def show_live(frames: Iterable[Iterable[Line | Table]]) -> None:
    """Show frame after frame on a screen of its own, until they end or an exception is raised."""
    # Refreshed here, because rich would do it from a thread.
    with Live(console=_console(sys.stdout, None), screen=True, auto_refresh=False) as live:
        for parts in frames:
            live.update(laid_out(parts), refresh=True)


def _console(stream: TextIO, width: int | None) -> Console:
    """Return a console that takes text as it is, as wide as the terminal if no width is given.

    Rich leaves colours out when NO_COLOR is set.
    """
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def laid_out(parts: Iterable[Line | Table]) -> Group:
    """Return a page as rich prints it."""
    return Group(
        *(_table(part) if isinstance(part, Table) else Text.assemble(*part) for part in parts)
    )


def _table(table: Table) -> RichTable:
    made = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in table.columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        made.add_column(name.removeprefix(">"), justify=justify, no_wrap=True)
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made
