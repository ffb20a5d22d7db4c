"""Being told what handlers raise."""

from __future__ import annotations

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
