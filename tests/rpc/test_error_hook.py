"""Being told what handlers raise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from amphora import IgnoreRequest, RemoteException, WrongRequest
from amphora.rpc.functions.terms import checked_terms
from tests.support.rpc import MakeClient, MakeServer
from tests.support.waiting import wait_until


def test_a_program_is_told_what_its_handlers_raise(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    told: list[tuple[str, BaseException]] = []

    def divide(x: float, y: float) -> float:
        return x / y

    make_server(divide).on_error(lambda name, error: told.append((name, error)))
    client = make_client()
    with pytest.raises(RemoteException):
        client.call.divide(1, 0)
    ((name, error),) = told
    assert name == "divide"
    assert isinstance(error, ZeroDivisionError)
    assert error.__traceback__ is not None


def test_what_is_no_error_of_a_handler_is_not_told(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    told: list[str] = []

    def picky(x: int) -> int:
        if len(told) == 0 and x == 1:
            told.append("asked")
            raise IgnoreRequest
        return x

    make_server(picky).on_error(lambda name, error: told.append(name))
    client = make_client()
    with pytest.raises(WrongRequest):
        client.call.picky()
    with pytest.raises(WrongRequest):
        client.call.unknown()
    assert client.call.picky(1) == 1
    assert told == ["asked"]


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log host is away")


@pytest.mark.parametrize("harm", ["log", "on_error", "on_error that leaves", "both"])
def test_a_function_that_fails_runs_once_whatever_is_raised_when_that_is_told(
    make_server: MakeServer, make_client: MakeClient, harm: str
) -> None:
    ran: list[int] = []

    def fail(number: int) -> None:
        ran.append(number)
        raise ValueError(number)

    def also_fails(name: str, error: BaseException) -> None:
        raise SystemExit(3) if "leaves" in harm else KeyError(name)

    server = make_server(fail, serve=False)
    if harm != "log":
        server.on_error(also_fails)
    handler = Raising()
    logger = logging.getLogger("amphora.rpc")
    if not harm.startswith("on_error"):
        logger.addHandler(handler)
    try:
        server.serve()
        client = make_client()
        for number in range(3):
            with pytest.raises(RemoteException, match=f"ValueError: {number}"):
                client.call.fail(number)
        client.cast(wait_publish=True).fail(3)
        with pytest.raises(RemoteException, match="ValueError: 4"):
            client.call.fail(4)
    finally:
        logger.removeHandler(handler)
    assert ran == [0, 1, 2, 3, 4]
    assert (server.processed, server.exceptions) == (0, 5)


# -- exceptions that are answers ------------------------------------------------------------------


class NotFound(LookupError):
    pass


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_an_expected_exception_is_an_answer_and_no_fault(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "amphora.rpc")
    told: list[str] = []

    def find(number: int) -> int:
        if number == 1:
            raise NotFound(f"no {number}\nINFO forged")
        return 10 // number

    server = make_server(serve=False)
    server.on_error(lambda name, error: told.append(type(error).__name__))
    server.add_function(find, expected=LookupError)
    server.serve()
    client = make_client()
    with pytest.raises(RemoteException, match="NotFound: no 1") as caught:
        client.call.find(1)
    assert caught.value.traceback == ""
    assert caught.value.executed is True
    with pytest.raises(RemoteException) as unexpected:
        client.call.find(0)
    assert "ZeroDivisionError" in unexpected.value.traceback
    assert client.call.find(5) == 2
    wait_until(lambda: told == ["ZeroDivisionError"])
    lines = [record for record in caplog.records if " find " in f"{record.getMessage()} "]
    assert [(each.levelname, each.exc_info is None) for each in lines] == [
        ("INFO", True),
        ("WARNING", False),
    ]
    assert lines[0].getMessage() == f"{server.worker_id}: find raised NotFound, as expected"
    assert (server.processed, server.exceptions, server.statistics.expected) == (1, 1, 1)
    numbers = server.statistics.summary()["functions"]["find"]
    assert (numbers["count"], numbers["errors"], numbers["expected"]) == (3, 1, 1)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_what_is_expected_of_a_stream_is_no_fault_either(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def count() -> Iterator[int]:
        yield 1
        raise NotFound

    server = make_server(serve=False)
    server.add_function(count, expected=(KeyError, NotFound))
    server.serve()
    with pytest.raises(RemoteException, match="NotFound"):
        list(make_client().stream.count())
    assert (server.exceptions, server.statistics.expected) == (0, 1)


@pytest.mark.parametrize("expected", ["NotFound", [NotFound], (NotFound, 3), BaseException])
def test_what_is_expected_is_checked_when_a_function_is_added(expected: Any) -> None:
    with pytest.raises(TypeError, match="expected must be a class of exceptions"):
        checked_terms({"expected": expected})
