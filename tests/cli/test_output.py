"""What is printed, and how it looks on a terminal and elsewhere."""

from __future__ import annotations

import os
import sys

import gevent
import pytest
from gevent import subprocess

from amphora.cli import styled
from amphora.cli.output import counted, seconds, table
from amphora.cli.page import Line, Table, plain
from tests.cli.conftest import WITHOUT_RICH
from tests.support.processes import ROOT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 us"),
        (0.00025, "250 us"),
        (0.0012, "1.2 ms"),
        (0.25, "250 ms"),
        (3.14159, "3.14 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172800, "2 d"),
        (1e6, "12 d"),
    ],
)
def test_durations_are_short(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_one_thing_is_not_many() -> None:
    assert [counted(n, "worker") for n in (0, 1, 2, 1000)] == [
        "0 workers",
        "1 worker",
        "2 workers",
        "1,000 workers",
    ]


def test_columns_are_as_wide_as_they_need_to_be() -> None:
    made = table(("name", ">calls", "note"), [("add", 1, ""), ("a\nb", "1,000", "x" * 3000)])
    assert [line.rstrip()[:40] for line in plain([made])] == [
        "name  calls  note",
        "add       1",
        "a\\nb  1,000  " + "x" * 27,
    ]


def test_a_page_has_the_same_text_with_rich_and_without() -> None:
    line: Line = (("amphora: ", ""), ("[bold] :smile:", "bold red"))
    tables = [
        table(("name", ">calls"), [("add", 1), ("日本語", 22), ("ne\u0301e", 333), ("", None)]),
        table((">a", "b", ">c"), [("x", "[red]y[/red]", "z" * 500)]),
        Table(("a", "b"), []),
    ]
    parts: list[Line | Table] = [line, (), *tables]
    with_rich = [text.rstrip() for text in styled.lines(parts)]
    assert [text.rstrip() for text in plain(parts)] == with_rich


def on_a_terminal(*words: str, rich: bool = True, **env: str) -> tuple[int, str]:
    """Run the command on a terminal, and return its exit code and what the terminal got."""
    how = ["-m", "amphora"] if rich else ["-c", WITHOUT_RICH]
    screen, terminal = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *how, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **env},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        status = process.wait(timeout=80)
        os.set_blocking(screen, False)
        return status, os.read(screen, 65536).decode()
    finally:
        os.close(screen)
        os.close(terminal)


def test_an_error_is_red_on_a_terminal_unless_colours_are_not_wanted(closed_port: int) -> None:
    words = ["ping", "math", "--url", f"amqp://127.0.0.1:{closed_port}"]
    runs = [
        gevent.spawn(on_a_terminal, *words, NO_COLOR=""),
        gevent.spawn(on_a_terminal, *words, NO_COLOR="1"),
        gevent.spawn(on_a_terminal, *words, NO_COLOR="", rich=False),
    ]
    (status, red), (_, bold), without_rich = [each.get() for each in runs]
    assert status == 3
    assert "\x1b[1;31merror: \x1b[0m" in red
    assert "\x1b[1merror: \x1b[0m" in bold
    plain_text = bold.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert without_rich == (3, plain_text)


def test_rich_is_not_imported_where_there_is_no_terminal() -> None:
    program = """
import sys
from amphora.cli import output
from amphora.cli.operating import top
output.show_table(("name", ">calls"), [("add", 1)])
output.show_error("told")
print(sorted({"rich"}.intersection(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == "amphora: error: told\n"
    assert done.stdout == "name  calls\nadd       1\n[]\n"
