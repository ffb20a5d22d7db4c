"""Classes that say what a service offers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, overload

import pytest

from amphora import WrongResult, function_name
from amphora.rpc.contract.types.apis import Api

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


@dataclass
class User:
    name: str
    born: datetime


class Base(Protocol):
    def ping(self) -> str: ...


class UsersAPI(Base, Protocol):
    limit: int

    def find(self, name: str, *, exact: bool = False) -> User | None: ...

    def everybody(self) -> Iterator[User]: ...

    def tail(self) -> Generator[int, None, User]: ...

    @function_name("mail.send")
    def send(self, text: str) -> None: ...

    @staticmethod
    def version() -> str: ...

    @classmethod
    def made(cls, number: int) -> int: ...

    def untyped(self, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        ...

    def _private(self) -> None: ...


def test_the_methods_of_a_class_are_functions() -> None:
    api = Api(UsersAPI)
    assert {name: function.name for name, function in api.functions.items()} == {
        "everybody": "everybody",
        "find": "find",
        "made": "made",
        "ping": "ping",
        "send": "mail.send",
        "tail": "tail",
        "untyped": "untyped",
        "version": "version",
    }
    assert {name for name, function in api.functions.items() if function.is_stream} == {
        "everybody",
        "tail",
    }
    assert str(api.functions["find"].signature).startswith("(name: ")
    assert str(api.functions["version"].signature).startswith("() ->")
    assert str(api.functions["made"].signature).startswith("(number: ")


def test_a_class_may_have_a_body_and_generators() -> None:
    class Numbers:
        def count(self, most: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
            yield most

    api = Api(Numbers, "n")
    assert api.functions["count"].is_stream
    assert api.functions["count"].name == "n.count"
    assert api.functions["count"].item("anything") == "anything"


def test_results_and_items_are_converted() -> None:
    functions = Api(UsersAPI).functions
    sent = {"name": "Alice", "born": "2001-02-03T04:05:06Z"}
    user = functions["find"].result(sent)
    assert isinstance(user, User)
    assert user.born.year == 2001
    assert functions["find"].result(None) is None
    assert functions["everybody"].item(sent) == functions["tail"].result(sent) == user
    assert functions["untyped"].result(sent) is sent


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("find", {"name": 1, "born": "2001-02-03T04:05:06Z"}, r"UsersAPI.find says: .*\$.name"),
        ("send", 1, "UsersAPI.send says: Expected `null`"),
    ],
)
def test_a_result_that_does_not_fit_is_a_wrong_one(name: str, value: Any, text: str) -> None:
    with pytest.raises(WrongResult, match=text) as caught:
        Api(UsersAPI).functions[name].result(value)
    assert caught.value.executed is True


def test_an_item_that_does_not_fit_is_a_wrong_result() -> None:
    with pytest.raises(WrongResult, match=r"the item is not what UsersAPI\.everybody says"):
        Api(UsersAPI).functions["everybody"].item(3)


def test_a_stream_may_have_none_as_items_and_as_its_result() -> None:
    class ClockAPI(Protocol):
        def count(self) -> Generator[int, None, None]: ...

        def ticks(self) -> Iterator[None]: ...

    functions = Api(ClockAPI).functions
    assert functions["count"].item(3) == 3
    assert functions["count"].result(None) is None
    assert functions["ticks"].item(None) is None
    for told in (functions["count"].result, functions["ticks"].item):
        with pytest.raises(WrongResult, match="Expected `null`"):
            told(3)


def test_arguments_are_checked_as_python_does() -> None:
    function = Api(UsersAPI).functions["find"]
    function.check(("Alice",), {"exact": True})
    with pytest.raises(TypeError, match=r"UsersAPI\.find\(name: str, .*: too many positional"):
        function.check(("Alice", True), {})


def test_a_method_is_found_by_itself() -> None:
    api = Api(UsersAPI)
    assert api.find(UsersAPI.find) is api.functions["find"]
    assert api.find(UsersAPI.made) is api.functions["made"]
    assert api.find(Base.ping) is api.functions["ping"]
    with pytest.raises(TypeError, match="is not a method of UsersAPI"):
        api.find(User)


def test_what_is_no_api_is_refused() -> None:
    class Empty:
        _a: int

    class Unmet:
        def f(self) -> Callable[..., Any]:
            raise NotImplementedError

    class Unknown:
        def f(self) -> Missing: ...

    class Selfless:
        def f() -> int:  # type: ignore[misc]
            raise NotImplementedError

    class Unsigned:
        f = staticmethod(max)

    class Overloaded(Protocol):
        @overload
        def f(self, one: int) -> int: ...

        @overload
        def f(self, one: str) -> str: ...

    class Finished(Protocol):
        @overload
        def f(self, one: int) -> int: ...

        @overload
        def f(self, one: str) -> str: ...

        def f(self, one: int | str) -> int | str: ...

    assert Api(Finished).functions["f"].result("a") == "a"
    for api, text in (
        (UsersAPI.find, "an API is a class"),
        (Empty, "Empty has no methods"),
        (Unmet, "nothing that arrives is what Unmet.f returns"),
        (Unknown, r"the result of Unknown\.f has a hint that is not a type: Missing"),
        (Selfless, "Selfless.f takes no self"),
        (Unsigned, "Unsigned.f has no signature"),
        (Overloaded, r"Overloaded\.f has overloads alone, .* without @overload$"),
    ):
        with pytest.raises(TypeError, match=text):
            Api(api)


def test_an_api_is_described_as_a_server_would() -> None:
    offer = Api(UsersAPI).offer()
    described = {function["name"]: function for function in offer.functions}
    assert described["find"]["result"] == {"anyOf": [{"$ref": "#/$defs/User"}, {"type": "null"}]}
    assert described["everybody"]["item"] == {"$ref": "#/$defs/User"}
    assert described["find"]["signature"] == (
        "find(name: str, *, exact: bool = False) -> User | None"
    )
    assert offer.title == "UsersAPI"
    assert list(offer.definitions) == ["User"]


def test_reading_an_api_runs_nothing_of_it() -> None:
    class Loud:
        def __init__(self) -> None:
            raise AssertionError

        @property
        def broken(self) -> str:
            raise AssertionError

        def ping(self) -> str:
            raise AssertionError

    api = Api(Loud)
    assert list(api.functions) == ["ping"]
    assert repr(api) == "<Api Loud>"
    assert repr(api.functions["ping"]) == "<ApiFunction Loud.ping>"
