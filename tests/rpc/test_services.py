"""The methods of an object as functions of a server."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from amphora import AmqpRpcServer, WrongRequest, exposed
from tests.support.rpc import MakeClient, MakeServer


class Numbers:
    """A service in arpc's manner: what clients may call begins with c_."""

    def __init__(self) -> None:
        self.total = 0

    def c_add(self, number: int) -> int:
        self.total += number
        return self.total

    @staticmethod
    def c_twice(number: int) -> int:
        return 2 * number

    def add(self) -> str:
        return "not for clients"

    def _c_secret(self) -> str:
        return "not for clients"


class Plain:
    limit = 3

    def first(self) -> str:
        return "first"

    def second(self) -> str:
        return "second"

    @property
    def broken(self) -> str:
        raise AssertionError("adding a service runs nothing of it")

    def _private(self) -> str:
        return "not for clients"


class Marked(Plain):
    @exposed
    def third(self) -> str:
        return "third"


def names(server: AmqpRpcServer) -> set[str]:
    return {function.name for function in server.functions}


class Unfinished(Numbers):
    async def c_zero(self) -> int:
        return 0


class NumbersAPI(Protocol):
    def add(self) -> str: ...

    def c_twice(self, number: int) -> int: ...


def test_methods_with_the_prefix_are_called_without_it(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(serve=False)
    server.add_service(Numbers())
    server.serve()
    client = make_client()
    assert client.call.add(2) == 2
    assert client.call.add(3) == 5
    assert client.call.twice(4) == 8
    assert names(server) == {"add", "twice"}


def test_a_service_may_have_a_name_in_front_of_its_methods(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(serve=False)
    server.add_service(Numbers(), name="numbers")
    server.add_service(Plain(), prefix="", name="plain")
    server.serve()
    assert make_client().call.numbers.add(1) == 1
    assert make_client().call.plain.first() == "first"
    with pytest.raises(WrongRequest, match="no function 'add'"):
        make_client().call.add(1)


def test_without_a_prefix_all_public_methods_are_offered(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    server.add_service(Plain(), prefix="")
    assert names(server) == {"first", "second"}


def test_marked_methods_are_offered_alone(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    server.add_service(Marked(), prefix="")
    assert names(server) == {"third"}


def test_a_name_with_an_underscore_in_front_is_never_offered(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    with pytest.raises(ValueError, match="no method"):
        server.add_service(Numbers(), prefix="_c_")


def test_a_service_without_such_methods_is_a_mistake(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    for service, instead in (
        (Plain(), "whose names do not begin with _"),
        (Marked(), "that are marked with exposed"),
    ):
        with pytest.raises(ValueError, match="no method whose name begins with 'c_'") as told:
            server.add_service(service)
        assert str(told.value).endswith(f'; prefix="" offers those {instead}')


def test_a_prefix_is_text(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    with pytest.raises(TypeError, match="prefix must be text, not None"):
        server.add_service(Marked(), prefix=None)  # type: ignore[arg-type]


def test_two_services_may_not_have_a_method_of_one_name(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    server.add_service(Numbers())
    with pytest.raises(ValueError, match="has a function 'add' already"):
        server.add_service(Numbers())


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        (Numbers(), {}),
        (Numbers(), {"api": NumbersAPI}),
        (Unfinished(), {"name": "numbers"}),
    ],
)
def test_a_service_of_which_one_method_cannot_be_offered_is_not_offered_at_all(
    service: object, settings: dict[str, Any]
) -> None:
    with AmqpRpcServer("service") as server:
        server.add_function(len, "twice")
        server.add_function(len, "c_twice")
        before = names(server)
        with pytest.raises((ValueError, TypeError), match=r"already|async def"):
            server.add_service(service, **settings)
        assert names(server) == before
