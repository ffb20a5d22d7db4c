"""The functions of typed-people, for their callers.

Written by `amphora stubs`: changes are lost when it is written again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from amphora import AmqpRpcClient, Bound, Result, Stream


@dataclass
class Person:
    name: str
    born: dt.date


class TypedPeopleAPI(Protocol):
    """The functions of typed-people."""

    def age(self, person: Person, on: dt.date) -> int: ...

    def everybody(self) -> Iterator[Person]: ...

    def find(self, name: str) -> Person | None: ...


class TypedPeopleDeferred(Protocol):
    """The functions of typed-people, each of which returns a `Result` at once."""

    def age(self, person: Person, on: dt.date) -> Result[int]: ...

    def find(self, name: str) -> Result[Person | None]: ...


class TypedPeopleCasts(Protocol):
    """The functions of typed-people, asked for no answer."""

    def age(self, person: Person, on: dt.date) -> None: ...

    def find(self, name: str) -> None: ...


class TypedPeopleStreams(Protocol):
    """The functions of typed-people that are called for their items."""

    def everybody(self) -> Stream[Person]: ...


class TypedPeopleClient:
    """Calls the functions of typed-people.

    Args:
        client: the client, or what its `bind` returns, with options for all calls.
    """

    def __init__(self, client: AmqpRpcClient | Bound[TypedPeopleAPI]) -> None:
        bound = (
            client.bind(TypedPeopleAPI) if isinstance(client, AmqpRpcClient) else client
        )
        self.call: TypedPeopleAPI = bound.call
        self.defer = cast("TypedPeopleDeferred", bound.defer)
        self.cast = cast("TypedPeopleCasts", bound.cast)
        self.stream = cast("TypedPeopleStreams", bound.stream)
