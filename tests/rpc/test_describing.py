"""What a server tells of its functions."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypedDict, Unpack

import pytest
from typing_extensions import deprecated

from amphora.rpc.contract.reports import FunctionDescription
from amphora.rpc.functions.describing import Describer
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.threads import Threads


@dataclass
class User:
    name: str


class Options(TypedDict):
    depth: int


class NotFound(Exception):
    """There is no such thing.

    It may come.
    """


def describer(*handlers: Any, cancellable: bool = False, **terms: Any) -> Describer:
    functions = Functions("math", Threads(1))
    for handler in handlers:
        functions.add(handler, **terms)
    return Describer(functions, cancellable)


def described(handler: Any, **settings: Any) -> FunctionDescription:
    (function,) = describer(handler, **settings).functions()
    json.dumps(function)
    return function


def test_results_have_schemas() -> None:
    def find(name: str) -> list[User]:
        return []

    offered = describer(find)
    (function,) = offered.functions()
    assert function["result"] == {"type": "array", "items": {"$ref": "#/$defs/User"}}
    assert function["result_type"] == "list[User]"
    assert offered.definitions["User"]["properties"] == {"name": {"type": "string"}}


def test_what_has_no_hint_has_no_schema() -> None:
    def anything(a, b=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return a

    function = described(anything)
    assert function["parameters"] == [
        {"name": "a", "kind": "positional_or_keyword"},
        {"name": "b", "kind": "positional_or_keyword", "default": "None", "value": None},
    ]
    assert "result" not in function
    assert "result_type" not in function


def test_one_hint_that_cannot_be_understood_leaves_the_others() -> None:
    def mixed(a: int, b: Nowhere = None) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        return a

    with pytest.warns(UserWarning, match="Nowhere"):
        function = described(mixed)
    first, second = function["parameters"]
    assert first["schema"] == {"type": "integer"}
    assert (second["type"], "schema" in second) == ("Nowhere", False)
    assert function["result_type"] == "Nowhere"
    assert "result" not in function


def test_a_default_that_cannot_be_sent_is_told_as_text() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise OSError

    rude = Rude()

    def lookup(a: Any = rude, b: Any = object, c: Any = float("inf")) -> None:
        pass

    function = described(lookup)
    parameters = function["parameters"]
    assert function["signature"] == (
        "lookup(a: Any = ..., b: Any = <class 'object'>, c: Any = inf) -> None"
    )
    assert [each["default"] for each in parameters] == ["...", "<class 'object'>", "inf"]
    assert not any("value" in each for each in parameters)


def test_two_processes_describe_a_default_in_the_same_words() -> None:
    anything = object()

    def lookup(a: Any = anything) -> None:
        pass

    function = described(lookup)
    assert function["signature"] == "lookup(a: Any = <object object>) -> None"
    assert function["parameters"][0]["default"] == "<object object>"


def test_the_rest_of_the_arguments_has_a_schema_for_each_or_for_all() -> None:
    def rest(*args: int, **options: Unpack[Options]) -> None:
        pass

    each, together = described(rest)["parameters"]
    assert (each["kind"], each["schema"]) == ("var_positional", {"type": "integer"})
    assert (together["kind"], together["schema"]) == ("var_keyword", {"$ref": "#/$defs/Options"})
    assert together["unpacked"] is True
    assert "unpacked" not in each


@pytest.mark.parametrize(
    ("hint", "item", "result"),
    [
        (Iterator[int], {"type": "integer"}, None),
        (Iterable[int], {"type": "integer"}, None),
        (Generator[int, None, str], {"type": "integer"}, {"type": "string"}),
        (Generator[int], {"type": "integer"}, {"type": "null"}),
        (Iterator, None, None),
        (Any, None, None),
    ],
)
def test_a_stream_has_the_schema_of_its_items(hint: Any, item: Any, result: Any) -> None:
    def count() -> Any:
        yield 1

    count.__annotations__["return"] = hint
    function = described(count)
    assert function["stream"] is True
    assert (function.get("item"), function.get("result")) == (item, result)


def test_terms_are_told() -> None:
    def find() -> None:
        """Find something.

        Even here.
          And there.
        """

    function = described(find, expected=NotFound, idempotent=True, cancellable=True)
    assert function["doc"] == "Find something.\n\nEven here.\n  And there."
    assert function["idempotent"] is function["cancellable"] is True
    assert function["errors"] == [
        {"type": "NotFound", "doc": "There is no such thing.\n\nIt may come."}
    ]
    assert not described(find).keys() & {"errors", "cancellable", "deprecated", "stream"}


def test_whether_a_function_can_be_cancelled_is_for_the_server_to_say_if_it_does_not() -> None:
    def find() -> None:
        pass

    offered = describer(find, cancellable=True)
    assert offered.functions()[0]["cancellable"] is True
    offered = describer(find, cancellable=True, threadpool=True)
    assert "cancellable" not in offered.functions()[0]


def test_a_deprecated_function_says_what_to_do_instead() -> None:
    @deprecated("call find")
    def look() -> None:
        pass

    @wraps(look)
    def around(*args: Any, **kwargs: Any) -> Any:
        return look(*args, **kwargs)

    assert described(look)["deprecated"] == "call find"
    del around.__deprecated__  # type: ignore[attr-defined]
    assert described(around)["deprecated"] == "call find"


def test_functions_are_described_once_and_later_ones_too() -> None:
    def find() -> None:
        pass

    functions = Functions("math", Threads(1))
    offered = Describer(functions, False)
    functions.add(find)
    (first,) = offered.functions()
    functions.add(find, "again")
    assert offered.functions()[0] is first
    assert [function["name"] for function in offered.functions()] == ["find", "again"]


def test_a_builtin_without_a_signature_is_described() -> None:
    function = described(dict.fromkeys)
    assert function["signature"]
    function = described(print)
    assert function["name"] == "print"
