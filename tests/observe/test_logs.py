"""Log records as lines of JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from amphora.observe.logs import JsonFormatter, TextFormatter, set_up


class Silent:
    def __repr__(self) -> str:
        raise ValueError("no text")


def record(message: Any, *args: Any, **others: Any) -> logging.LogRecord:
    made = logging.LogRecord("amphora.rpc", logging.INFO, "f.py", 1, message, args, None)
    made.__dict__.update(others)
    return made


def line(of: logging.LogRecord) -> dict[str, Any]:
    """Return what a record is as JSON, which must be one line of plain ASCII."""
    text = JsonFormatter().format(of)
    assert text.isascii()
    assert text.isprintable()
    # Not as Python reads it, which takes NaN.
    read = msgspec.json.decode(text)
    assert isinstance(read, dict)
    return read


def test_a_line_says_when_who_and_what() -> None:
    read = line(record("%s calls", 3, created=1_700_000_000.25, process=17))
    assert read == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "INFO",
        "logger": "amphora.rpc",
        "process": 17,
        "message": "3 calls",
    }


def test_a_traceback_and_a_stack_are_fields() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        read = line(record("failed", exc_info=sys.exc_info(), stack_info="Stack:\n  here"))
    assert read["exception"].startswith("Traceback (most recent call last):\n")
    assert read["exception"].endswith("ValueError: first\nsecond")
    assert read["stack"] == "Stack:\n  here"


def test_fields_of_a_program_stand_beside_the_others() -> None:
    read = line(record("paid", fields={"order": 17, "by": None, "total": 1.5}))
    assert (read["order"], read["total"], "by" in read) == (17, 1.5, False)


@given(
    st.one_of(st.text(), st.binary(), st.none(), st.just(Silent())),
    st.one_of(st.text(), st.just(Silent()), st.just({1: {2}})),
)
def test_whatever_is_in_a_record_it_is_one_line(message: Any, value: Any) -> None:
    line(record("%s", message, fields={"value": value}))


def test_a_record_that_is_wrong_is_a_line_too() -> None:
    itself: list[Any] = []
    itself.append(itself)

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Noted(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]
            raise RuntimeError("no notes")

    noted = line(record("x", exc_info=(Noted, Noted(), None)))["exception"]
    assert "Noted" in noted
    mute = Mute()
    assert line(record("%d of %d", "one"))["message"] == "%d of %d one"
    assert line(record("x", fields={"itself": itself}))["itself"] == "[[...]]"
    assert line(record("x", fields={"keys": {(1, 2): 3}}))["keys"] == "{(1, 2): 3}"
    # NaN is no JSON, though Python reads and writes it.
    odd = line(record("x", fields={"ratio": float("nan"), "most": [float("inf")], "n": 2}))
    assert (odd["ratio"], odd["most"], odd["n"]) == ("nan", "[inf]", 2)
    assert odd["process"] == line(record("x"))["process"]
    assert "x" in line(record("x", fields="none"))["message"]
    assert "Mute" in line(record("x", exc_info=(Mute, mute, None)))["exception"]
    assert "Silent" in line(record("%s", Silent()))["message"]


@contextmanager
def no_handlers() -> Iterator[logging.Logger]:
    """Have the root logger without handlers meanwhile."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    logger.handlers[:] = []
    try:
        yield logger
    finally:
        logging.captureWarnings(capture=False)
        logger.handlers[:], logger.level = before


def test_what_is_set_up_once_can_look_different(capsys: pytest.CaptureFixture[str]) -> None:
    with no_handlers():
        set_up("debug")
        logging.getLogger("any").debug("text")
        set_up("info", "json")
        logging.getLogger("any").debug("json")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=True)
            warnings.warn("beware\nof this", stacklevel=1)
    plain, data, warned = capsys.readouterr().err.splitlines()
    assert plain.endswith(" DEBUG text")
    assert json.loads(data)["message"] == "json"
    assert "beware\nof this" in json.loads(warned)["message"]


@given(st.text())
def test_whatever_is_in_an_exception_it_begins_no_line_of_text(told: str) -> None:
    made = record("find raised", exc_info=(ValueError, ValueError(told), None))
    first, *others = TextFormatter().format(made).split("\n")
    assert first.endswith(" INFO find raised")
    assert all(line.startswith("    ") for line in others if line.strip())
    assert "".join(others).replace("\t", "").isprintable()


def test_a_traceback_of_text_is_the_same_whatever_other_handlers_make_of_it() -> None:
    made = record("find raised", exc_info=(ValueError, ValueError("no\nINFO paid"), None))
    others = logging.Formatter()
    before = others.format(made)
    assert TextFormatter().format(made).endswith("\n    ValueError: no\n    INFO paid")
    assert others.format(made) == before


def test_a_programs_own_setup_stays() -> None:
    own = logging.NullHandler()
    with no_handlers() as root:
        root.addHandler(own)
        set_up("info", "json")
        assert root.handlers == [own]


def test_lines_that_nobody_reads_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora.observe.logs.PATIENCE", 0.0)
    unread, full = os.pipe()
    with open(unread, encoding="utf-8") as reader, open(full, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with no_handlers() as root:
            set_up("info", "json")
            for _ in range(1000):
                root.info("x" * 1000)
            os.set_blocking(unread, False)
            read = len(list(reader))
            root.info("read again")
        os.set_blocking(unread, True)
        left_out, last = (json.loads(reader.readline())["message"] for _ in range(2))
    assert 0 < read < 1000
    assert left_out == f"{1000 - read} lines were not logged: nobody read them"
    assert last == "read again"
