"""Being told what handlers raise."""

from __future__ import annotations

import logging

import pytest

from amphora import IgnoreRequest, RemoteException, WrongRequest
from tests.support.rpc import MakeClient, MakeServer


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
