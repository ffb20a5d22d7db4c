"""The program's log: what amphora tells it, and what its handlers cannot do to amphora."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import subprocess
from gevent.event import Event

from amphora.net.log import MOST_WAITING, Log, tell
from tests.support.waiting import wait_until

LOGGER = logging.getLogger("amphora.of_this_test")


class Handler(logging.Handler):
    """Keeps the lines that it gets, after it has done what the test wants."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._before = before

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def emit(self, record: logging.LogRecord) -> None:
        self._before()
        self.records.append(record)


@pytest.fixture
def install() -> Iterator[Callable[[Handler], Handler]]:
    handlers = []

    def add(handler: Handler) -> Handler:
        LOGGER.addHandler(handler)
        handlers.append(handler)
        return handler

    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    yield add
    LOGGER.propagate = True
    for handler in handlers:
        LOGGER.removeHandler(handler)


@pytest.fixture
def log() -> Log:
    return Log(LOGGER.name)


Install = Callable[[Handler], Handler]


def test_a_line_comes_to_the_handlers_with_its_level_its_text_and_its_place(
    log: Log, install: Install
) -> None:
    handler = install(Handler())
    log.info("%s has %d", "it", 3)
    assert handler.records == []  # not where it arose
    wait_until(lambda: handler.records)
    (record,) = handler.records
    assert record.getMessage() == "it has 3"
    assert (record.levelname, record.name) == ("INFO", LOGGER.name)
    assert record.pathname == __file__
    assert record.funcName == (
        "test_a_line_comes_to_the_handlers_with_its_level_its_text_and_its_place"
    )


def test_lines_keep_their_order_and_the_time_when_they_arose(log: Log, install: Install) -> None:
    goes_on = Event()
    handler = install(Handler(goes_on.wait))
    log.info("first")
    gevent.sleep(0)
    log.warning("second")
    said_by = gevent.get_hub().loop.now()
    goes_on.set()
    wait_until(lambda: len(handler.records) == 2)
    assert handler.lines == ["first", "second"]
    assert said_by  # the loop went on while the handler waited
    first, second = handler.records
    assert first.created <= second.created


def test_an_error_brings_its_traceback(log: Log, install: Install) -> None:
    handler = install(Handler())
    try:
        raise ValueError("what")
    except ValueError as error:
        log.error("failed", error=error)
    wait_until(lambda: handler.records)
    record = handler.records[0]
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("raised", [OSError("no log host"), SystemExit(1), gevent.GreenletExit()])
def test_a_handler_that_raises_costs_its_line_alone(
    log: Log, install: Install, raised: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = [True]

    def fail() -> None:
        if failing.pop():
            failing.append(False)
            raise raised

    handler = install(Handler(fail))
    log.info("first")
    gevent.sleep(0)
    failing[:] = [False]
    handler._before = lambda: None
    log.info("second")
    wait_until(lambda: "second" in handler.lines)
    if not isinstance(raised, gevent.GreenletExit):
        assert type(raised).__name__ in capsys.readouterr().err


def test_a_filter_that_raises_costs_its_line_alone(
    log: Log, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = install(Handler())

    def no(record: logging.LogRecord) -> bool:
        raise KeyError(record.msg)

    LOGGER.addFilter(no)
    log.info("first")
    gevent.sleep(0)
    LOGGER.removeFilter(no)
    log.info("second")
    wait_until(lambda: handler.lines == ["second"])
    assert "KeyError" in capsys.readouterr().err


def test_what_is_logged_is_turned_into_text_at_once_and_its_str_may_raise(
    log: Log, install: Install
) -> None:
    class Changing:
        text: Any = "before"

        def __str__(self) -> str:
            if self.text is None:
                raise ValueError
            return str(self.text)

    handler = install(Handler())
    thing = Changing()
    log.info("%s", thing)
    thing.text = None
    log.info("%s", thing)
    wait_until(lambda: len(handler.lines) == 2)
    assert handler.lines == ["before", "<Changing without a text>"]


def test_a_handler_that_waits_keeps_nobody_else_waiting_and_loses_lines_that_it_counts(
    log: Log, install: Install
) -> None:
    goes_on = Event()
    handler = install(Handler(goes_on.wait))
    log.info("first")
    gevent.sleep(0)
    for number in range(MOST_WAITING + 5):
        log.info("%d", number)
    lost: list[str] = []
    counted = logging.getLogger("amphora")
    counter = Handler()
    counted.addHandler(counter)
    try:
        goes_on.set()
        wait_until(lambda: counter.lines)
        lost = counter.lines
    finally:
        counted.removeHandler(counter)
    assert len(handler.lines) == 1 + MOST_WAITING
    assert lost == ["5 lines were not logged: the handlers of the log are too slow"]


def test_a_handler_may_log_itself(log: Log, install: Install) -> None:
    said: list[None] = []

    def say() -> None:
        if not said:
            said.append(None)
            log.info("of the handler")

    handler = install(Handler(say))
    log.info("first")
    wait_until(lambda: len(handler.lines) == 2)
    assert handler.lines == ["first", "of the handler"]


def test_a_line_may_be_noted_in_the_event_loop_itself(log: Log, install: Install) -> None:
    handler = install(Handler(lambda: gevent.sleep(0)))
    gevent.get_hub().loop.run_callback(log.info, "from the loop")
    wait_until(lambda: handler.lines == ["from the loop"])


def test_of_a_throttled_kind_one_line_a_second_is_logged_and_the_others_are_counted(
    log: Log, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("amphora.net.log.monotonic", lambda: now[0])
    monkeypatch.setattr("amphora.net.log.INTERVAL", 1.0)
    handler = install(Handler())
    for number in range(5):
        log.throttled("bad message %d", number)
    log.throttled("another kind")
    now[0] += 1
    log.throttled("bad message %d", 5)
    wait_until(lambda: len(handler.lines) == 3)
    assert handler.lines == [
        "bad message 0",
        "another kind",
        "bad message 5 (and 4 more like it)",
    ]


PROGRAM = """
import logging, os, sys
logging.basicConfig(format="%(process)d %(message)s", level="INFO")
from amphora.net.log import Log
import gevent
log = Log("amphora.test")
log.info("before the fork")
if eval(sys.argv[1])() == 0:
    gevent.sleep(0.01)
    raise SystemExit(0)
os.wait()
log.info("the last line")
"""


ANNOUNCE = """
import logging, sys
from amphora.net.log import Log
if len(sys.argv) > 1: logging.basicConfig(level=sys.argv[1])
Log("amphora.rpc").announce("serving %s", "x")
"""


@pytest.mark.parametrize(
    ("level", "printed"),
    [(None, "amphora: serving x\n"), ("INFO", "INFO:amphora.rpc:serving x\n"), ("WARNING", "")],
)
def test_what_is_announced_is_printed_unless_the_program_has_set_up_logging(
    level: str | None, printed: str
) -> None:
    arguments = [] if level is None else [level]
    done = subprocess.run(
        [sys.executable, "-c", ANNOUNCE, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stderr == printed


@pytest.mark.parametrize("fork", ["os.fork", "gevent.os.fork"])
def test_what_is_said_last_is_told_and_a_forked_child_does_not_tell_it_again(fork: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, fork], capture_output=True, text=True)
    assert [line.partition(" ")[2] for line in done.stderr.splitlines()] == [
        "before the fork",
        "the last line",
    ]


def test_what_a_callback_raises_is_shown_and_goes_no_further(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    tell(fail, "of the callback")
    assert "ValueError: of the callback" in capsys.readouterr().err


def test_what_is_meant_for_the_greenlet_is_not_swallowed() -> None:
    def fail() -> None:
        raise gevent.GreenletExit

    with pytest.raises(gevent.GreenletExit):
        tell(fail)


def test_what_a_thread_writes_past_the_log_waits_for_no_reader() -> None:
    unread, full = os.pipe()
    os.set_blocking(full, False)
    try:
        while True:
            os.write(full, bytes(4096))
    except BlockingIOError:
        os.set_blocking(full, True)
    program = "from amphora.net.log import write_now; write_now('at the end')"
    try:
        with subprocess.Popen([sys.executable, "-c", program], stderr=full) as process:
            try:
                assert process.wait(40) == 0
            finally:
                process.kill()
    finally:
        os.close(unread)
        os.close(full)
