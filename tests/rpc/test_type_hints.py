"""Arguments become what a handler's type hints say, or are told to be wrong."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from amphora import RemoteException, WrongRequest
from tests.support.brokers import on_embedded
from tests.support.rpc import MakeClient, MakeServer


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    number: int = 1


@dataclass
class User:
    name: str
    born: date
    addresses: list[Address] = field(default_factory=list)


class Point(NamedTuple):
    x: int
    y: int


class Settings(TypedDict):
    depth: int


class Order(msgspec.Struct):
    id: UUID
    price: Decimal


class Opaque:
    pass


IDENTITY = UUID("12345678-1234-5678-1234-567812345678")


class Handlers:
    """Functions with type hints; each returns what it was given, as Python shows it."""

    def user(self, user: User, at: datetime) -> str:
        return f"{user!r} {at!r}"

    def scalars(self, number: int, share: float, text: str, flag: bool) -> str:
        return repr((number, share, text, flag))

    def values(self, day: date, span: timedelta, id: UUID, price: Decimal, data: bytes) -> str:
        return repr((day, span, id, price, data))

    def collections(
        self, names: set[str], pair: tuple[int, str], table: dict[str, Address], point: Point
    ) -> str:
        return repr((names, pair, table, point))

    def choices(self, colour: Colour, mode: Literal["r", "w"], maybe: int | None = None) -> str:
        return repr((colour, mode, maybe))

    def structs(self, order: Order, settings: Settings) -> str:
        return repr((order, settings))

    def many(self, *numbers: int, **users: User) -> str:
        return repr((numbers, users))

    def mixed(self, plain, day: date, anything: Any, *, key: int = 3) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return repr((plain, day, anything, key))

    def unmeetable(self, value: Opaque | None = None) -> str:
        return repr(value)


class Callable:
    def __call__(self, day: date) -> str:
        return repr(day)


HANDLERS = [
    getattr(Handlers(), name) for name in sorted(vars(Handlers)) if not name.startswith("_")
]


@on_embedded
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("name", "args", "kwargs", "became"),
    [
        (
            "user",
            [{"name": "Ann", "born": "1990-01-02"}, "2026-11-21T09:30:00Z"],
            {},
            f"{User('Ann', date(1990, 1, 2))!r} {datetime(2026, 11, 21, 9, 30, tzinfo=UTC)!r}",
        ),
        (
            "user",
            [],
            {
                "at": datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
                "user": User("Bob", date(1991, 1, 2), [Address("Main St"), Address("Side", 2)]),
            },
            repr(User("Bob", date(1991, 1, 2), [Address("Main St"), Address("Side", 2)]))
            + f" {datetime(2026, 11, 21, 9, 30, tzinfo=UTC)!r}",
        ),
        ("scalars", [1, 2, "x", True], {}, repr((1, 2.0, "x", True))),
        (
            "values",
            [date(2026, 1, 2), timedelta(hours=1), IDENTITY, Decimal("1.10"), b"\x00\xff"],
            {},
            repr((date(2026, 1, 2), timedelta(hours=1), IDENTITY, Decimal("1.10"), b"\x00\xff")),
        ),
        (
            "collections",
            [["a"], [1, "b"], {"home": {"street": "Main St"}}, [3, 4]],
            {},
            repr(({"a"}, (1, "b"), {"home": Address("Main St")}, Point(3, 4))),
        ),
        ("choices", ["red", "w"], {}, repr((Colour.RED, "w", None))),
        ("choices", [Colour.BLUE, "r", 5], {}, repr((Colour.BLUE, "r", 5))),
        (
            "structs",
            [{"id": str(IDENTITY), "price": "2.50"}, {"depth": 1}],
            {},
            repr((Order(IDENTITY, Decimal("2.50")), {"depth": 1})),
        ),
        (
            "many",
            [1, 2],
            {"ann": {"name": "Ann", "born": "1990-01-02"}},
            repr(((1, 2), {"ann": User("Ann", date(1990, 1, 2))})),
        ),
        (
            "mixed",
            ["2026-01-02", "2026-01-02", "2026-01-02"],
            {},
            repr(("2026-01-02", date(2026, 1, 2), "2026-01-02", 3)),
        ),
        ("unmeetable", [None], {}, repr(None)),
    ],
)
def test_arguments_become_what_the_hints_say(
    make_server: MakeServer,
    make_client: MakeClient,
    serializer: str,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    became: str,
) -> None:
    make_server(*HANDLERS)
    client = make_client(serializer=serializer)
    assert client.call(function_name=name)(*args, **kwargs) == became


def test_the_hints_of_an_object_that_can_be_called_count(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_function(Callable(), name="object")
    client = make_client()
    assert client.call.object("2026-01-02") == repr(date(2026, 1, 2))
    with pytest.raises(WrongRequest, match="argument 'day'"):
        client.call.object("no date")


@on_embedded
@pytest.mark.parametrize(
    ("name", "args", "argument"),
    [
        ("user", [{"name": "Ann"}, "2026-11-21T09:30:00Z"], "user"),
        ("user", [{"name": 5, "born": "1990-01-02"}, "2026-11-21T09:30:00Z"], "user"),
        ("user", [{"name": "Ann", "born": "1990-01-02"}, "yesterday"], "at"),
        ("user", ["Ann", "2026-11-21T09:30:00Z"], "user"),
        ("scalars", ["1", 2, "x", True], "number"),
        ("scalars", [1.5, 2, "x", True], "number"),
        ("scalars", [1, 2, 3, True], "text"),
        ("scalars", [1, 2, "x", 1], "flag"),
        ("collections", [["a"], [1], {}, [3, 4]], "pair"),
        ("collections", [["a"], [1, "b"], {"home": {}}, [3, 4]], "table"),
        ("choices", ["green", "w"], "colour"),
        ("choices", ["red", "x"], "mode"),
        ("choices", ["red", "w", "5"], "maybe"),
        ("structs", [{"id": "no id", "price": "1"}, {"depth": 1}], "order"),
        ("structs", [{"id": str(IDENTITY), "price": "1"}, {}], "settings"),
        ("many", [1, "2"], "numbers"),
        ("unmeetable", ["text"], "value"),
    ],
)
def test_an_argument_that_does_not_fit_its_hint_is_named(
    make_server: MakeServer, make_client: MakeClient, name: str, args: list[Any], argument: str
) -> None:
    server = make_server(*HANDLERS)
    with pytest.raises(WrongRequest, match=rf"^{name}: argument '{argument}': \w") as caught:
        make_client().call(function_name=name)(*args)
    assert caught.value.executed is False
    assert server.processed == 0


def test_defaults_are_not_checked(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.add_function
    def given(day: date = "today", number: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return [day, number]

    assert make_client().call.given() == ["today", None]


def test_a_class_that_refuses_a_value_is_a_wrong_request(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(take_even)
    client = make_client()
    assert client.call.take_even({"number": 2}) == 2
    with pytest.raises(WrongRequest, match=r"argument 'even': .*must be even"):
        client.call.take_even({"number": 3})


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("must be even")


def take_even(even: Even) -> int:
    return even.number


def test_results_are_not_checked_against_hints(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def wrong() -> int:
        return "text"  # type: ignore[return-value]

    assert make_client().call.wrong() == "text"


def test_deep_nesting_is_an_error_and_no_crash(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def deep(value: dict[str, Any]) -> int:
        return len(value)

    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}
    client = make_client()
    with pytest.raises((WrongRequest, RemoteException)):
        client.call.deep(value)
    while value:  # taken apart step by step: freeing it at once would be deep as well
        value = value.popitem()[1]
    assert client.call.deep({}) == 0


def test_a_warning_of_a_hint_points_at_the_line_that_adds_the_function(
    make_server: MakeServer,
) -> None:
    server = make_server(serve=False)

    def report(account: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    class Service:
        def c_report(self, account: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server.add_function(report)
        server.add_function("other")(report)
        server.add_service(Service(), name="service")
        server.add_command(report)
    first = caught[0].lineno
    assert [warning.lineno for warning in caught] == [first, first + 1, first + 2, first + 3]
    assert {warning.filename for warning in caught} == {__file__}
    assert "report: the argument 'account' is not checked" in str(caught[0].message)


def test_a_function_that_nobody_could_call_is_refused_when_it_is_added(
    make_server: MakeServer,
) -> None:
    server = make_server(serve=False)

    def work(opaque: Opaque) -> None:
        pass

    with pytest.raises(TypeError, match=r"work: the argument 'opaque' .* Opaque: "):
        server.add_function(work)
    assert not list(server.functions)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_keys_and_models_arrive_as_the_client_had_them(
    make_server: MakeServer, make_client: MakeClient, serializer: str
) -> None:
    server = make_server()

    @server.add_function
    def keys(table: dict[int, str]) -> list[Any]:
        return [[type(key).__name__, key, value] for key, value in table.items()]

    @server.add_function
    def model(model: Model) -> Model:
        return Model(born=model.born + timedelta(days=1), data=model.data)

    client = make_client(serializer=serializer)
    assert client.call.keys({1: "a", 2: "b"}) == [["int", 1, "a"], ["int", 2, "b"]]
    answer = client.call.model(Model(born=date(2026, 1, 2), data=b"text"))
    assert answer == {"born": "2026-01-03", "data": "text"}
    with pytest.raises(WrongRequest, match=r"argument 'model': .* at `born`"):
        client.call.model({"born": "yesterday"})
    with pytest.raises(WrongRequest, match="cannot be sent"):
        client.call.model(Model(born=date(2026, 1, 2), data=b"\xff"))


class Model(pydantic.BaseModel):
    born: date
    data: bytes = b""


def test_a_wrong_argument_behind_a_decorator_is_a_wrong_request(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def with_connection(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(Opaque(), *args, **kwargs)

        return wrapper

    server = make_server()

    @server.add_function
    @with_connection
    def find(connection: Opaque, day: date) -> str:
        return f"{type(connection).__name__} {day!r}"

    client = make_client()
    assert client.call.find("2026-01-02") == f"Opaque {date(2026, 1, 2)!r}"
    for args in (["no date"], [], [1, 2]):
        with pytest.raises(WrongRequest, match=r"^find: "):
            client.call.find(*args)
