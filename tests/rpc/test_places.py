"""Finding what cannot be sent in a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from amphora.rpc.contract.bodies import Response
from amphora.rpc.contract.serializers import JSON, MSGPACK, Serializer
from amphora.rpc.contract.unsendable import refused_part


class Foo:
    pass


@dataclass
class Row:
    id: int
    owner: Any


class Entry(msgspec.Struct):
    owner: Any


class FailsInIteration(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("not now")


class FailsAsDate:
    def isoformat(self) -> str:
        raise LookupError("no such calendar")


def place(value: Any, serializer: Serializer = JSON) -> str:
    def send(part: Any) -> bytes:
        return serializer.encode(Response(result=part))

    try:
        send(value)
    except ValueError as error:
        return refused_part([("result", value)], send, error)
    raise AssertionError("it can be sent")


def in_a_circle() -> list[Any]:
    circle: list[Any] = [1]
    circle.append({"again": circle})
    return circle


def very_deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(1_000_000):
        deep = [deep]
    return deep


UNKNOWN = "type Foo cannot be sent"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Foo(), f"result: {UNKNOWN}"),
        ({"rows": [1, 2, 3, Row(4, Foo())]}, f'result["rows"][3].owner: {UNKNOWN}'),
        ([Entry(1), Entry(Foo())], f"result[1].owner: {UNKNOWN}"),
        ((1, (2, Foo())), f"result[1][1]: {UNKNOWN}"),
        ({1: {"a": Foo()}}, f'result[1]["a"]: {UNKNOWN}'),
        ([*range(10_000), Foo(), *range(10_000)], f"result[10000]: {UNKNOWN}"),
        ([Foo(), Foo()], f"result[0]: {UNKNOWN}"),
        ({"x\n": Foo()}, rf'result["x\n"]: {UNKNOWN}'),
        (["a", "b\ud800"], "result[1]: 'utf-8' codec can't encode character '\\ud800'"),
        ({"a": FailsAsDate()}, 'result["a"]: LookupError while it was turned into bytes: no such'),
        ({"a": {Foo(): 1}}, 'result["a"]: key <'),
        (in_a_circle(), 'result[1]["again"]: it contains itself'),
        (FailsInIteration(a=Foo()), f"result: {UNKNOWN}"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_the_place_and_the_reason_are_named(value: Any, text: str) -> None:
    assert place(value).startswith(text)


def test_it_depends_on_the_serializer_what_is_refused() -> None:
    assert place({"n": [2**70]}, MSGPACK).startswith('result["n"][0]: ')


def test_a_place_that_is_very_deep_is_named_as_far_as_is_good() -> None:
    text = place(very_deep())

    assert text.startswith("result[0][0]")
    assert len(text) < 600


def test_what_is_only_refused_as_a_whole_is_told_as_it_was() -> None:
    def send(part: Any) -> Iterator[None]:
        raise ValueError("never")

    assert refused_part([], send, ValueError("all of it")) == "all of it"
