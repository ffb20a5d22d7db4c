"""What a service cannot do that its callers expect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, NotRequired, TypedDict, Unpack

import msgspec
import pytest

from amphora.rpc.contract.types.apis import Api
from amphora.rpc.contract.types.compatibility import Offer, brief, differences, offer_of


def api(function: Any) -> Offer:
    """Return an offer of one function, called f."""
    return Api(type("API", (), {"f": staticmethod(function)})).offer()


def found(wanted: Any, there: Any) -> list[str]:
    return differences(api(wanted), api(there))


def returning(hint: Any) -> Any:
    def f():  # type: ignore[no-untyped-def]  # noqa: ANN202
        pass

    f.__annotations__["return"] = hint
    return f


def taking(hint: Any) -> Any:
    def f(a):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pass

    f.__annotations__["a"] = hint
    return f


def classes(*fields: tuple[Any, ...], name: str = "User") -> Any:
    """Return a dataclass."""
    return dataclass(type(name, (), {"__annotations__": {each[0]: each[1] for each in fields}}))


def sizes(*values: str) -> Any:
    """Return an enumeration that is called Size."""
    return Enum("Size", {each.upper(): each for each in values})


@dataclass
class Tree:
    leaves: list[Tree] = field(default_factory=list)


@dataclass
class OtherTree:
    leaves: list[OtherTree] = field(default_factory=list)
    depth: int = 0


class Colour(Enum):
    RED = "red"


class Colours(Enum):
    RED = "red"
    BLUE = "blue"


class Options(TypedDict):
    depth: int
    width: NotRequired[int]


class Fewer(TypedDict):
    depth: NotRequired[int]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    depth: int


# -- parameters ---------------------------------------------------------------------------------


def one(a: int) -> None: ...
def two(a: int, b: int) -> None: ...
def optional(a: int, b: int = 0) -> None: ...
def swapped(b: int, a: int) -> None: ...
def by_name(a: int, *, b: int) -> None: ...
def by_place(a: int, b: int, /) -> None: ...
def others(a: int, c: int) -> None: ...
def rest(*args: int) -> None: ...
def extra(**kwargs: int) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def text_rest(*args: str) -> None: ...
def unpacked(**options: Unpack[Options]) -> None: ...
def as_names(*, depth: int, width: int = 1) -> None: ...
def depth_only(*, depth: int) -> None: ...


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        (one, one),
        (one, optional),
        (optional, optional),
        (two, optional),
        (by_name, two),
        (by_name, optional),
        (by_place, two),
        (by_place, swapped),
        (by_place, rest),
        (two, anything),
        (anything, anything),
        (optional, anything),
        (by_name, anything),
        (rest, rest),
        (unpacked, as_names),
        (as_names, unpacked),
        (depth_only, unpacked),
        (unpacked, extra),
    ],
)
def test_parameters_that_take_what_is_passed_fit(wanted: Any, there: Any) -> None:
    assert found(wanted, there) == []


@pytest.mark.parametrize(
    ("wanted", "there", "sentences"),
    [
        (two, one, ["f: takes no argument b"]),
        (one, two, ["f: needs b, which API does not have"]),
        (optional, two, ["f: needs b, which may be left out in API"]),
        (two, swapped, ["f: has b where API has a", "f: has a where API has b"]),
        (two, others, ["f: has c where API has b", "f: needs c, which API does not have"]),
        (two, by_name, ["f: takes b by name only"]),
        (two, by_place, ["f: takes a by position only", "f: takes b by position only"]),
        (by_place, one, ["f: takes no argument b"]),
        (by_name, one, ["f: takes no argument b"]),
        (rest, two, ["f: takes no more arguments by position"]),
        (extra, two, ["f: takes no other arguments by name"]),
        (text_rest, rest, ["f: argument args is string, and not integer"]),
        (two, rest, ["f: takes a by position only", "f: takes b by position only"]),
        (extra, unpacked, ["f: takes no other arguments by name"]),
    ],
)
def test_parameters_that_do_not_take_it_are_named(
    wanted: Any, there: Any, sentences: list[str]
) -> None:
    assert set(sentences) <= set(found(wanted, there))


# -- types --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (int, int),
        (int, float),
        (int, Any),
        (Any, int),
        (int, int | None),
        (int | str, str | int | None),
        (Literal["a"], str),
        (Literal["a"], Literal["a", "b"]),
        (Literal[1, None], int | None),
        (Literal[True], bool),
        (Literal[1], float),
        (Colour, Colours),
        (Colour, str),
        (date, str),
        # A constraint.
        (str, re.Pattern),
        (list[int], list[float]),
        (list[int], list),
        (tuple[int, int], list[int]),
        (tuple[int, str], tuple[int, str]),
        (tuple[int, ...], list[int]),
        (list, tuple[int, int]),
        (tuple[()], list[int]),
        (tuple[()], tuple[()]),
        (set[int], list[int]),
        (dict[str, int], dict[str, float]),
        (dict[int, int], dict[int, int]),
        (dict[int, int], dict[str, int]),
        (complex, float | str | None),
        # The keys are not compared: one side says nothing of them.
        (dict[str, int], dict[int, int]),
        (classes(("a", int)), classes(("a", float), name="Other")),
        (classes(("a", int), ("b", int)), classes(("a", int))),
        (classes(("a", int)), dict[str, int]),
        (classes(("a", int)), Fewer),
        (Tree, OtherTree),
        (OtherTree, Tree),
        (Options, Fewer),
        (int | classes(("a", int)), int | classes(("a", int), name="Other")),
    ],
)
def test_types_that_fit(sent: Any, taken: Any) -> None:
    assert found(taking(sent), taking(taken)) == []
    # Results go the other way.
    assert found(returning(taken), returning(sent)) == []


@pytest.mark.parametrize(
    ("sent", "taken", "what"),
    [
        (float, int, " is number, and not integer"),
        (str, int, " is string, and not integer"),
        (int | None, int, " is null, and not integer"),
        (str, date, " is string, and not string (date)"),
        (datetime, date, " is string (date-time), and not string (date)"),
        (bytes, datetime, " is string (base64), and not string (date-time)"),
        (str, Colour, " is string, and not Colour"),
        (Colours, Colour, " is Colours, and not Colour"),
        (Literal[1], str, " is one of 1, and not string"),
        (Literal[True], int, " is one of True, and not integer"),
        (list[str], list[int], "[] is string, and not integer"),
        (list[int], dict[str, int], " is array of integer, and not object"),
        (list[int], tuple[int, int], " is array of integer, and not array"),
        (tuple[int], tuple[int, int], " has 1 items, and not 2"),
        (tuple[()], tuple[int], " has 0 items, and not 1"),
        (tuple[int], tuple[()], " has 1 items, and not 0"),
        (tuple[int, int, int], tuple[int, int], " has 3 items, and not 2"),
        (tuple[int, str], tuple[int, int], "[1] is string, and not integer"),
        (tuple[int, str], list[int], "[1] is string, and not integer"),
        (dict[str, str], dict[str, int], "[] is string, and not integer"),
        (dict[str, int], classes(("a", int)), " is object, and not User"),
        (classes(("a", int)), classes(("b", int), name="Other"), " has no b"),
        (classes(("a", str)), dict[str, int], ".a is string, and not integer"),
        (Fewer, Options, " may have no depth"),
        (Options, Strict, " has width, which is not taken"),
        (
            list[classes(("a", classes(("b", str))))] | None,  # type: ignore[misc, valid-type]
            list[classes(("a", classes(("b", int))))] | None,  # type: ignore[misc, valid-type]
            "[].a.b is string, and not integer",
        ),
        (str | list[int], str, " is array of integer, and not string"),
        (bool, int | str, " is boolean, and not integer or string"),
    ],
)
def test_types_that_do_not_fit_are_named(sent: Any, taken: Any, what: str) -> None:
    assert found(taking(sent), taking(taken)) == [f"f: argument a{what}"]
    assert found(returning(taken), returning(sent)) == [f"f: the result{what}"]


def test_a_class_that_has_changed_is_told_by_what_is_in_it() -> None:
    more, fewer = sizes("s", "l"), sizes("s")
    other = classes(("s", int), name="Size")
    what = "argument a is one of 's', 'l', and not one of 's'"
    assert found(taking(more), taking(fewer)) == [f"f: {what}"]
    lists = taking(list[more]), taking(list[fewer])  # type: ignore[valid-type]
    assert found(*lists) == [f"f: {what.replace(' a ', ' a[] ')}"]
    assert found(taking(more | None), taking(fewer | None)) == [f"f: {what} or null"]
    assert found(taking(more), taking(other)) == [
        "f: argument a is one of 's', 'l', and not object"
    ]


# -- functions ----------------------------------------------------------------------------------


def test_a_function_that_is_gone_is_named_and_another_one_does_not_matter() -> None:
    class Old:
        def f(self) -> None: ...
        def g(self) -> None: ...

    class New:
        def f(self) -> None: ...
        def h(self) -> None: ...

    assert differences(Api(Old).offer(), Api(New).offer()) == ["there is no function g"]


def test_a_stream_is_another_thing_than_a_function() -> None:
    stream = returning(Iterator[int])
    assert found(stream, returning(list[int])) == ["f: it is not a stream"]
    assert found(returning(list[int]), stream) == ["f: it is a stream"]
    assert found(returning(Iterator[str]), stream) == ["f: an item is integer, and not string"]


def test_older_workers_tell_of_names_alone() -> None:
    answer: dict[str, Any] = {
        "wid": "math-1",
        "host": "web1",
        "pid": 1,
        "namespace": "math",
        "commands": [],
        "functions": [
            {
                "name": "f",
                "signature": "f(b)",
                "doc": "",
                "parameters": [{"name": "b", "kind": "positional_or_keyword"}],
            }
        ],
    }
    offered = offer_of(answer)
    assert offered.title == "math"
    assert "f: has b where API has a" in differences(api(one), offered)
    assert offer_of({**answer, "version": "2.1.0"}).title == "math 2.1.0"
    answer["functions"][0] |= {"signature": "f(...)", "parameters": []}
    assert differences(api(one), offer_of(answer)) == []


def test_what_is_no_description_is_refused() -> None:
    with pytest.raises(ValueError, match="functions"):
        offer_of({"wid": "math-1", "host": "web1", "pid": 1, "namespace": "math", "commands": []})


def test_a_schema_is_told_in_a_few_words() -> None:
    assert brief({}) == "anything"
    assert brief({"type": ["number", "string"]}) == "number or string"
    assert brief({"enum": ["a", None]}) == "one of 'a', None"
    assert brief({"$ref": "#/$defs/User\x1b"}) == r"User\x1b"


def test_references_that_lead_nowhere_say_nothing() -> None:
    wanted, there = api(taking(int)), api(taking(int))
    there.functions[0]["parameters"][0]["schema"] = {"$ref": "#/$defs/Gone"}
    assert differences(wanted, there) == []
    there.definitions = {"Gone": {"$ref": "#/$defs/Gone"}}
    assert differences(wanted, there) == []
