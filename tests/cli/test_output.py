"""What is printed, and how it looks on a terminal and elsewhere."""

from __future__ import annotations

import os
import sys

import gevent
import pytest
from gevent import subprocess

from amphora.cli.output import counted, safe_lines, seconds
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


def test_text_for_a_terminal_keeps_its_lines_and_loses_its_power() -> None:
    assert safe_lines("a\tb\nc") == "a\tb\nc"
    assert safe_lines("\x1b[2J\x07\r\x9b1m") == "\\x1b[2J\\x07\\r\\x9b1m"
    assert safe_lines("x" * 5000) == "x" * 5000


def on_a_terminal(*words: str, **env: str) -> tuple[int, str]:
    """Run the command on a terminal, and return its exit code and what the terminal got."""
    screen, terminal = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "amphora", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **env},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        status = process.wait(timeout=20)
        os.set_blocking(screen, False)
        return status, os.read(screen, 65536).decode()
    finally:
        os.close(screen)
        os.close(terminal)


def test_an_error_is_red_on_a_terminal_unless_colours_are_not_wanted(closed_port: int) -> None:
    words = ["ping", "math", "--url", f"amqp://127.0.0.1:{closed_port}"]
    (status, red), (_, plain) = (
        greenlet.get()
        for greenlet in (
            gevent.spawn(on_a_terminal, *words, NO_COLOR=""),
            gevent.spawn(on_a_terminal, *words, NO_COLOR="1"),
        )
    )
    assert status == 3
    assert "\x1b[1;31merror: \x1b[0m" in red
    assert "\x1b[1merror: \x1b[0m" in plain
