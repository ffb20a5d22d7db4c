"""What each sort of type hint takes, what it makes of it, and what is refused or told at once.

Below the broker: functions are called with what a serializer would have read.
"""

from __future__ import annotations
import __future__

import collections
import dataclasses
import functools
import ipaddress
import math
import pathlib
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, NotRequired, Protocol, TypedDict, Unpack
from uuid import UUID

import pydantic
import pytest
import typing_extensions
from annotated_types import Gt, Len, Predicate
from msgspec import Meta

from amphora.rpc.contract.bodies import Request
from amphora.rpc.contract.serializers import JSON, MSGPACK
from amphora.rpc.functions.functions import Function
from amphora.rpc.functions.parameters import Misfit


class Number(IntEnum):
    ONE = 1


class Mixed(Enum):
    NUMBER = 1
    TEXT = "text"


class Planet(Enum):
    """As in Python's manual, with tuples."""

    EARTH = (5.976e24, 6378.14)
    MARS = (6.421e23, 3397.2)


class Era(Enum):
    LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
    NOW = b"now"
    NEVER = None


class Plain:
    pass


class Named(Protocol):
    name: str


@dataclasses.dataclass
class Cat:
    meow: int


@dataclasses.dataclass
class Dog:
    bark: int = 0


@dataclasses.dataclass
class Cow:
    moo: int = 0


@dataclasses.dataclass
class Owner:
    pet: Cat | Dog


@dataclasses.dataclass
class Stock:
    left: dict[int, int]


@dataclasses.dataclass
class Session:
    name: str
    made_by: Plain | None = None
    within: Plain = dataclasses.field(default_factory=Plain)


@dataclasses.dataclass
class Initial:
    number: int
    extra: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Hosts:
    loads: dict[ipaddress.IPv4Address, int]


@dataclasses.dataclass
class MaybeHosts:
    loads: dict[ipaddress.IPv4Address, int] | None = None


@dataclasses.dataclass
class HoldsChecked:
    checked: Checked | None = None


@dataclasses.dataclass
class Route:
    days: collections.deque[date] = dataclasses.field(default_factory=collections.deque)


@dataclasses.dataclass
class Angry:
    number: int

    def __post_init__(self) -> None:
        raise KeyError("no number pleases it")


class Options(TypedDict):
    depth: int
    since: NotRequired[date]


T = typing.TypeVar("T")


class Labelled(TypedDict, typing.Generic[T]):
    label: T


class Model(pydantic.BaseModel):
    born: date
    number: int = pydantic.Field(1, gt=0, alias="no")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    born: date


class Loose(pydantic.BaseModel):
    data: bytes = b""
    share: float = 0.0


@pydantic.dataclasses.dataclass
class Checked:
    number: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class HoldsModel:
    model: Model


# An alias that contains itself: `type Tree = list[Tree] | dict[str, Tree] | date`.
if sys.version_info >= (3, 12):
    Tree: Any
    exec("type Tree = list[Tree] | dict[str, Tree] | date")
else:
    Tree = typing_extensions.TypeAliasType("Tree", None)
    object.__setattr__(Tree, "__value__", list[Tree] | dict[str, Tree] | date)

DAY = date(2026, 1, 2)
KEY = UUID("12345678-1234-5678-1234-567812345678")
Day = typing.TypeVar("Day", bound=date)
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")


def function_of(hint: Any) -> Function:
    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": hint}
    return Function("take", take)


def converted(hint: Any, value: Any) -> Any:
    return function_of(hint).call([value], {})


@pytest.mark.parametrize(
    ("hint", "value", "became"),
    [
        # Constraints.
        (Annotated[int, Meta(ge=0)], 5, 5),
        (Annotated[int, "a note"], 5, 5),
        (Annotated[int, Gt(0)] | None, None, None),
        (pydantic.PositiveInt, 5, 5),
        # What has an obvious form as text.
        (pathlib.Path, "/x", pathlib.Path("/x")),
        (pathlib.PurePosixPath, "/x", pathlib.PurePosixPath("/x")),
        (pathlib.Path | None, None, None),
        (list[pathlib.Path], ["/x"], [pathlib.Path("/x")]),
        (ipaddress.IPv4Address, "1.2.3.4", ipaddress.IPv4Address("1.2.3.4")),
        (ipaddress.IPv6Network, "::/0", ipaddress.IPv6Network("::/0")),
        (re.Pattern, "a+", re.compile("a+")),
        (re.Pattern[str], "a+", re.compile("a+")),
        (complex, 1.5, 1.5 + 0j),
        (complex, "1+2j", 1 + 2j),
        # Collections.
        (collections.deque, [1], collections.deque([1])),
        (collections.deque[date], ["2026-01-02"], collections.deque([DAY])),
        (collections.OrderedDict[str, int], {"a": 1}, collections.OrderedDict(a=1)),
        (collections.Counter[str], {"a": 1}, collections.Counter("a")),
        (
            collections.Counter[pathlib.Path],
            {"/x": 1},
            collections.Counter({pathlib.Path("/x"): 1}),
        ),
        (Route, {"days": ["2026-01-02"]}, Route(collections.deque([DAY]))),
        (collections.Counter, {"a": 1}, collections.Counter("a")),
        (Iterable[date], ["2026-01-02"], [DAY]),
        (Iterable, "ab", "ab"),
        (Sequence[date], ["2026-01-02"], [DAY]),
        (Mapping[str, pathlib.Path], {"a": "/x"}, {"a": pathlib.Path("/x")}),
        # Keys that are no texts, as JSON sends them and as MessagePack does.
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (dict[int, str], {1: "a"}, {1: "a"}),
        (dict[float, str], {"1.5": "a"}, {1.5: "a"}),
        (dict[Number, str], {"1": "a"}, {Number.ONE: "a"}),
        (dict[date, str], {"2026-01-02": "a"}, {DAY: "a"}),
        (dict[UUID, str], {str(KEY): "a"}, {KEY: "a"}),
        (dict[Decimal, str], {"1.10": "a"}, {Decimal("1.10"): "a"}),
        (dict[pathlib.Path, date], {"/x": "2026-01-02"}, {pathlib.Path("/x"): DAY}),
        (collections.Counter[int], {"1": 2}, collections.Counter({1: 2})),
        (Stock, {"left": {"1": 2}}, Stock({1: 2})),
        (list[dict[int, int]], [{"1": 2}], [{1: 2}]),
        # One of several.
        (Cat | Dog, {"bark": 1}, Dog(1)),
        (Cat | Dog, {"meow": 1}, Cat(1)),
        (Dog | Cow, {"moo": 1}, Cow(1)),
        (Dog | Cow | None, None, None),
        (list[Dog | Cow], [{"moo": 1}, {"bark": 2}], [Cow(1), Dog(2)]),
        (dict[str, Cat | Dog], {"a": {"meow": 1}}, {"a": Cat(1)}),
        (str | date, "2026-01-02", "2026-01-02"),
        (date | datetime, "2026-01-02", DAY),
        (date | datetime, "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        (str | bytes, "YQ==", "YQ=="),
        (str | bytes, b"a", b"a"),
        (typing.AnyStr, "YQ==", "YQ=="),
        (str | pathlib.Path, "/x", "/x"),
        (Cat | dict, {"meow": 1}, Cat(1)),
        (Cat | dict, {"other": 1}, {"other": 1}),
        (int | Plain, 5, 5),
        (Plain | None, None, None),
        (Number | int, 1, 1),
        (Mixed, "text", Mixed.TEXT),
        (Mixed | None, 1, Mixed.NUMBER),
        # Values that arrive as others, from JSON and from MessagePack.
        (Planet, [6.421e23, 3397.2], Planet.MARS),
        (Planet | None, [6.421e23, 3397.2], Planet.MARS),
        (Era, "1970-01-01T00:00:00Z", Era.LONG_AGO),
        (Era, datetime(1970, 1, 1, tzinfo=UTC), Era.LONG_AGO),
        (Era, "bm93", Era.NOW),
        (Era, b"now", Era.NOW),
        (Era, None, Era.NEVER),
        # Hints that say nothing, or another name of a type.
        (object, 5, 5),
        (T, 5, 5),
        (Day, "2026-01-02", DAY),
        (NewType("Folder", pathlib.Path), "/x", pathlib.Path("/x")),
        (typing.LiteralString, "x", "x"),
        (typing.Hashable, "x", "x"),
        (typing.SupportsInt, 5, 5),
        (typing.Optional["Cat"], {"meow": 1}, Cat(1)),
        # An alias that contains itself.
        (Tree, [["2026-01-02"], {"a": ["2026-01-02"]}], [[DAY], {"a": [DAY]}]),
        (Tree | None, {"a": {}}, {"a": {}}),
        (list[Tree], ["2026-01-02"], [DAY]),
        # Models of pydantic.
        (Model, {"born": "2026-01-02", "no": 2}, Model(born=DAY, no=2)),
        (Strict, {"born": "2026-01-02"}, Strict(born=DAY)),
        (Model | None, None, None),
        (list[Model], [{"born": "2026-01-02"}], [Model(born=DAY)]),  # type: ignore[call-arg]
        (Model | Loose, {"share": 1}, Loose(share=1)),
        (Loose, {"data": b"\xff", "share": math.inf}, Loose(data=b"\xff", share=math.inf)),
        (Checked, {"number": 1}, Checked(1)),
        (HoldsModel, {"model": {"born": "2026-01-02"}}, HoldsModel(Model(born=DAY))),  # type: ignore[call-arg]
        (Annotated[int, pydantic.Field(gt=0)], 1, 1),
        (pydantic.AnyUrl, "http://x/", pydantic.AnyUrl("http://x/")),
    ],
)
def test_what_fits_a_hint_becomes_what_it_says(hint: Any, value: Any, became: Any) -> None:
    got = converted(hint, value)
    assert got == became
    assert type(got) is type(became)
    if isinstance(became, dict | list | collections.deque):
        assert [type(part) for part in got] == [type(part) for part in became]


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Annotated[int, Meta(ge=0)], -5, ">= 0"),
        (list[Annotated[str, Meta(max_length=2)]], ["abc"], "length <= 2"),
        (Annotated[int, Meta(ge=0)] | None, -5, ">= 0"),
        (Annotated[int, Gt(0)], 0, ">= 1"),
        (Annotated[str, Len(1, 2)], "abc", "length <= 2"),
        (pydantic.PositiveInt, 0, ">= 1"),
        (pathlib.Path, 5, "Expected `str`, got `int`"),
        (ipaddress.IPv4Address, 5, "Expected `str`, got `int`"),
        (ipaddress.IPv4Address, "x", "octets"),
        (re.Pattern, "(", "Invalid pattern"),
        (complex, True, "Expected `complex`"),
        (collections.deque[date], ["x"], "date"),
        (Iterable[int], "12", "Expected `array`"),
        (dict[int, int], {"1": "2"}, "Expected `int`, got `str`"),
        (dict[int, int], {"x": 2}, "Expected `int`"),
        (dict[ipaddress.IPv4Address, int], {"x": 2}, "octets"),
        (Cat | Dog, {"bark": "rubbish"}, "Expected `int`, got `str`"),
        (Cat | Dog, {"meow": "rubbish"}, "Expected `int`, got `str`"),
        (Cat | Dog, 5, "Expected"),
        (list[Dog | Cow], [{"moo": "rubbish"}], r"at `\$\[0\]`"),
        (Mixed, "other", "not a valid Mixed"),
        (Planet, [1.0, 2.0], "not a valid Planet"),
        (Tree, [{"a": ["2026-01-02", 5]}], "Expected `array | object | date`, got `int`"),
        (str | date, 5, "Expected"),
        (Plain | None, 5, "Expected `null`"),
        (typing.Hashable, [], "Expected `Hashable`"),
        (Angry, {"number": 1}, "no number pleases it"),
        (Model, {"born": "x", "no": 0}, r"date.*at `born`; .*greater than 0 - at `no`"),
        (Checked, {"number": 0}, "greater than 0"),
        (HoldsModel, {"model": {"born": "x"}}, "at `born`"),
        (Annotated[int, pydantic.Field(gt=0)], 0, "greater than 0"),
    ],
)
def test_what_does_not_fit_a_hint_is_told(hint: Any, value: Any, text: str) -> None:
    with pytest.raises(Misfit, match=rf"^take: argument 'value': .*{text}"):
        converted(hint, value)


@pytest.mark.parametrize(
    "hint",
    [
        Plain,
        list[Plain],
        dict[str, Plain],
        Plain | Exception,
        Owner,
        Initial,
        Hosts,
        MaybeHosts,
        HoldsChecked,
        collections.deque[Plain],
        Named,
        Callable[[int], int],
        type[int],
        Iterator[int],
        range,
        collections.defaultdict[str, int],
        Exception,
        Literal[Number.ONE],
        # What the class says can be sent, but the others alone are taken.
        Owner | None,
        int | list[Owner],
        Hosts | None,
        typing.Self,
        typing.Never,
        dict[Plain, int],
    ],
)
def test_a_hint_that_nothing_can_meet_is_refused_when_the_function_is_added(hint: Any) -> None:
    with pytest.raises(TypeError, match=r"^take: the argument 'value' can never be .* says, \S"):
        function_of(hint)


def test_an_argument_that_may_be_left_out_may_have_such_a_hint() -> None:
    def work(number: int, plain: Plain = Plain()) -> int:  # noqa: B008 (as people write it)
        return number

    function = Function("work", work)
    assert function.call([5], {}) == 5
    with pytest.raises(Misfit, match="argument 'plain': Expected `Plain`"):
        function.call([5, {}], {})


def test_the_default_of_such_an_argument_may_be_passed() -> None:
    def work(number: int, owner: Owner | None = None) -> Owner | None:
        return owner

    function = Function("work", work)
    assert function.call([5], {}) is None
    assert function.call([5, None], {}) is None
    with pytest.raises(
        Misfit, match=r"argument 'owner': Expected `Owner \| None`: Type unions may"
    ):
        function.call([5, {"pet": {"bark": 1}}], {})


def test_a_field_that_may_be_left_out_may_have_such_a_hint() -> None:
    assert converted(Session, {"name": "x"}).name == "x"
    with pytest.raises(Misfit, match=r"Expected `Plain`, got `dict` - at `.*within`"):
        converted(Session, {"name": "x", "within": {}})


# -- hints that cannot be checked -----------------------------------------------------------------


def partly_known(day: date, amount: int, account: Account = None) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return day, amount, account


def test_a_hint_that_cannot_be_evaluated_does_not_switch_off_the_others() -> None:
    with pytest.warns(UserWarning, match="argument 'account' is not checked .*'Account' is not"):
        function = Function("report", partly_known)
    assert function.call(["2026-01-02", 5, 6], {}) == (DAY, 5, 6)
    for wrong in (["x", 5], ["2026-01-02", "x"]):
        with pytest.raises(Misfit):
            function.call(wrong, {})


LAZY = """
import datetime

def report(day: datetime.date, account: Account, more: list[Account] | None = None):
    return day, account, more

class Reports:
    def report(self, day: datetime.date, account: Account, more: other.Thing = None):
        return day, account, more
"""


GENERIC = """
class Shelf[T]:
    def put[N: int](self, thing: T, number: N):
        return thing, number
"""


def test_hints_that_are_text_may_name_type_parameters() -> None:
    module: dict[str, Any] = {"__name__": "generic"}
    as_text = __future__.annotations.compiler_flag
    if sys.version_info >= (3, 12):
        exec(compile(GENERIC, "generic.py", "exec", flags=as_text, dont_inherit=True), module)
    else:
        plain = GENERIC.replace("[T]", "").replace("[N: int]", "")
        exec(compile(plain, "generic.py", "exec", flags=as_text, dont_inherit=True), module)
        module["Shelf"].__type_params__ = (typing.TypeVar("T"),)
        module["Shelf"].put.__type_params__ = (typing.TypeVar("N", bound=int),)
    function = Function("put", module["Shelf"]().put)
    assert function.call(["x", 5], {}) == ("x", 5)
    with pytest.raises(Misfit, match="argument 'number'"):
        function.call(["x", "y"], {})


def test_hints_that_python_evaluates_later_are_evaluated_each_on_its_own() -> None:
    """From Python 3.14 on, as all are; before, as text."""
    later = 0 if sys.version_info >= (3, 14) else __future__.annotations.compiler_flag
    module: dict[str, Any] = {"__name__": "lazy"}
    exec(compile(LAZY, "lazy.py", "exec", flags=later, dont_inherit=True), module)
    for handler in (module["report"], module["Reports"]().report, passing_on(module["report"])):
        with pytest.warns(UserWarning, match="argument '(account|more)' is not checked") as told:
            function = Function("report", handler)
        assert "hint: Account: name 'Account' is not defined" in str(told[0].message)
        assert function.call(["2026-01-02", 5], {}) == (DAY, 5, None)
        assert str(function.signature).startswith("(day: ")
        with pytest.raises(Misfit, match="argument 'day'"):
            function.call(["x", 5], {})


@pytest.mark.parametrize(
    "hint",
    [
        "Missing",
        "list[Missing]",
        "Missing | None",
        "math.missing",
        "not a type",
        "1 +",
        5,
        [int],
        Annotated[int, Predicate(bool)],
        "tuple[int, *Ts]",
    ],
)
def test_what_cannot_be_checked_warns_and_is_passed_as_it_came(hint: Any) -> None:
    with pytest.warns(UserWarning, match="^take: the argument 'value' is not checked"):
        function = function_of(hint)
    assert function.call([[5]], {}) == [5]


def test_a_class_with_a_field_that_cannot_be_evaluated_warns() -> None:
    @dataclasses.dataclass
    class Broken:
        other: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.warns(UserWarning, match="'Missing' is not defined"):
        assert converted(Broken, {"other": 1}) == {"other": 1}


def test_hints_that_can_be_checked_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function_of(Model)
        Function("add", lambda a, b: a + b)


# -- parameters of all sorts ----------------------------------------------------------------------


def test_keywords_are_checked_against_a_document() -> None:
    def search(**options: Unpack[Options]) -> Any:
        return options

    function = Function("search", search)
    assert function.call([], {"depth": 1, "since": "2026-01-02"}) == {"depth": 1, "since": DAY}
    for wrong in ({}, {"depth": "x"}, {"depth": 1, "other": 2}):
        with pytest.raises(Misfit, match="argument 'options'"):
            function.call([], wrong)


def test_a_typed_dict_with_a_type_parameter_tells_the_keywords() -> None:
    def put(**options: Unpack[Labelled[int]]) -> Any:
        return options

    function = Function("put", put)
    assert function.call([], {"label": 1}) == {"label": 1}
    for wrong in ({"label": "x"}, {"label": 1, "other": 2}):
        with pytest.raises(Misfit, match="argument 'options'"):
            function.call([], wrong)


def test_a_tuple_of_arguments_is_checked() -> None:
    def pair(*values: *tuple[int, date]) -> Any:
        return values

    function = Function("pair", pair)
    assert function.call([1, "2026-01-02"], {}) == (1, DAY)
    with pytest.raises(Misfit, match="argument 'values'"):
        function.call([1], {})


def test_arguments_of_a_param_spec_are_not_checked() -> None:
    def any_of(*args: P.args, **kwargs: P.kwargs) -> Any:  # type: ignore[valid-type]
        return args, kwargs

    assert Function("any_of", any_of).call([1], {"a": 2}) == ((1,), {"a": 2})


def on_day(day: date, number: int = 1, *, note: str = "") -> Any:
    return day, number, note


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "became"),
    [
        (functools.partial(on_day, note="x"), ["2026-01-02"], {}, (DAY, 1, "x")),
        (functools.partial(on_day, DAY), [5], {}, (DAY, 5, "")),
        (functools.partial(functools.partial(on_day), number=3), ["2026-01-02"], {}, (DAY, 3, "")),
        (
            functools.update_wrapper(functools.partial(on_day, DAY), on_day),
            [],
            {"number": 5},
            (DAY, 5, ""),
        ),
        (staticmethod(on_day), ["2026-01-02"], {}, (DAY, 1, "")),
        (functools.lru_cache(on_day), [], {"day": "2026-01-02"}, (DAY, 1, "")),
    ],
)
def test_hints_behind_other_things_than_functions_count(
    function: Any, args: list[Any], kwargs: dict[str, Any], became: Any
) -> None:
    added = Function("f", function)
    assert added.call(args, kwargs) == became
    for wrong in ({"number": "x"}, {"day": "x"}, {"note": 5}, {"other": 5}):
        with pytest.raises(Misfit):
            added.call([], {**kwargs, **wrong})


# -- decorators -----------------------------------------------------------------------------------


def passing_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def with_first(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("db", *args, **kwargs)

    return wrapper


def with_keyword(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, db="db", **kwargs)

    return wrapper


def without_token(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("token", None)
        return function(*args, **kwargs)

    return wrapper


def with_parameters(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(who: str, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def plain_db(db, day: date) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return db, day


def hinted_db(db: Plain, day: date) -> Any:
    return db, day


def document_db(db: Cat, day: date) -> Any:
    return db, day


def last_db(day: date, db: Plain) -> Any:
    return db, day


def keyword_db(day: date, *, db) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return db, day


def no_hints(db, day) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return db, day


class Service:
    @with_first
    def find(self, day: date) -> Any:
        return self, day


@pytest.mark.parametrize(
    "function",
    [
        with_first(plain_db),
        with_first(hinted_db),
        with_first(document_db),
        passing_on(with_first(passing_on(plain_db))),
        with_keyword(last_db),
        with_keyword(keyword_db),
    ],
)
def test_a_decorator_may_pass_an_argument_itself(function: Any) -> None:
    added = Function("find", function)
    assert added.call(["2026-01-02"], {}) == ("db", DAY)
    assert added.call([], {"day": "2026-01-02"}) == ("db", DAY)
    for args, kwargs in ((["x"], {}), ([], {}), ([1, 2, 3], {}), (["2026-01-02"], {"other": 1})):
        with pytest.raises(Misfit, match=r"^find: "):
            added.call(args, kwargs)


def test_what_a_decorator_passes_itself_needs_no_hints() -> None:
    added = Function("find", with_first(no_hints))
    assert added.call(["x"], {}) == ("db", "x")
    assert added.call([], {"day": "x"}) == ("db", "x")
    for args in ([], [1, 2], [1, 2, 3]):
        with pytest.raises(Misfit, match=r"^find: no_hints\(\)"):
            added.call(args, {})


def test_arguments_behind_a_decorator_are_checked() -> None:
    added = Function("on_day", passing_on(on_day))
    assert added.call(["2026-01-02"], {"number": 2}) == (DAY, 2, "")
    for args, kwargs in ((["x"], {}), ([], {}), (["2026-01-02", "x"], {}), ([], {"other": 1})):
        with pytest.raises(Misfit, match=r"^on_day: "):
            added.call(args, kwargs)


def test_a_decorator_may_take_an_argument_for_itself() -> None:
    added = Function("on_day", without_token(on_day))
    assert added.call(["2026-01-02"], {"token": 1}) == (DAY, 1, "")
    with pytest.raises(Misfit, match="argument 'day'"):
        added.call(["x"], {"token": 1})


def test_a_decorator_sees_arguments_as_they_were_passed() -> None:
    seen: list[Any] = []

    def seeing(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            seen.append((args, kwargs))
            return function(*args, **kwargs)

        return wrapper

    Function("on_day", seeing(on_day)).call([], {"day": "2026-01-02"})
    assert seen == [((), {"day": DAY})]


def test_a_decorator_with_parameters_of_its_own_says_what_can_be_passed() -> None:
    with pytest.warns(UserWarning, match="not checked against the hints behind its decorator"):
        added = Function("on_day", with_parameters(on_day))
    assert added.call(["me", DAY], {}) == (DAY, 1, "")
    with pytest.raises(Misfit, match="'who'"):
        added.call([], {})


def test_an_error_of_the_function_behind_a_decorator_is_its_own() -> None:
    def broken(number: int) -> Any:
        return broken()  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="missing 1 required"):
        Function("broken", passing_on(broken)).call([1], {})


# -- what is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", [JSON, MSGPACK], ids=repr)
@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (pathlib.Path, pathlib.Path("/x")),
        (ipaddress.IPv4Address, ipaddress.IPv4Address("1.2.3.4")),
        (collections.deque[int], collections.deque([1, 2])),
        (dict[int, str], {1: "a"}),
        (dict[ipaddress.IPv4Address, int], {ipaddress.IPv4Address("1.2.3.4"): 1}),
        (dict[date, int], {DAY: 1}),
        (Model, Model(born=DAY, no=3)),
        (list[Model], [Model(born=DAY)]),  # type: ignore[call-arg]
        (Strict, Strict(born=DAY)),
        (HoldsModel, HoldsModel(Model(born=DAY))),  # type: ignore[call-arg]
        (Loose, Loose(data=b"text", share=1.5)),
        (Checked, Checked(5)),
        (datetime, datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
    ],
)
def test_what_is_sent_for_a_hint_is_what_arrives(serializer: Any, hint: Any, value: Any) -> None:
    request = serializer.decode_request(serializer.encode(Request("take", [value])))
    assert function_of(hint).call(request.args, {}) == value
