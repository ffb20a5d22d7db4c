"""Several answers to one client in one message: how they are joined and read, without a broker."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from amphora.rpc.contract import batches
from amphora.rpc.contract.bodies import ErrorBody, Response
from amphora.rpc.contract.serializers import JSON, MSGPACK, Serializer

both = pytest.mark.parametrize("serializer", [JSON, MSGPACK], ids=lambda each: each.name)


def batch_of(serializer: Serializer, *answers: tuple[str, Response]) -> bytes:
    return batches.join(serializer, [(name, serializer.encode(answer)) for name, answer in answers])


@both
@pytest.mark.parametrize("count", [1, 2, 15, 16, 100])
def test_answers_that_were_joined_are_read_one_by_one(serializer: Serializer, count: int) -> None:
    values: list[Any] = [number if number % 2 else {"id": str(number)} for number in range(count)]
    answers = [(f"request {number}", Response(value)) for number, value in enumerate(values)]
    read = list(batches.split(serializer, batch_of(serializer, *answers)))
    assert read == answers


@both
def test_errors_travel_with_results(serializer: Serializer) -> None:
    answers = ("a", Response(None)), ("b", Response(exception=ErrorBody("KeyError", ["x"])))
    read = list(batches.split(serializer, batch_of(serializer, *answers)))
    assert read == list(answers)


@both
def test_an_id_may_be_any_text(serializer: Serializer) -> None:
    name = 'a "quoted" \\ id, Ünïcode\n'
    ((read, answer),) = batches.split(serializer, batch_of(serializer, (name, Response(1))))
    assert (read, answer) == (name, Response(1))


def test_an_answer_that_cannot_be_read_is_bad_alone() -> None:
    body = b'[{"id":"a","result":1},{"id":"b","exception":5},{"id":"c","result":3}]'
    (_, first), (name, bad), (_, last) = batches.split(JSON, body)
    assert (first, last) == (Response(1), Response(3))
    assert name == "b"
    assert isinstance(bad, ValueError)


NAMELESS: list[Any] = [None, 7, {}, {"result": 1}, {"id": 5, "result": 1}, [{"id": "x"}]]


@both
@pytest.mark.parametrize("nameless", NAMELESS)
def test_an_answer_that_names_no_request_hides_no_other(
    serializer: Serializer, nameless: Any
) -> None:
    encode = msgspec.json.encode if serializer is JSON else msgspec.msgpack.encode
    body = encode([nameless, {"id": "a", "result": 1}, nameless, {"id": "b", "result": 2}])
    read: list[tuple[str, Any]] = []
    with pytest.raises(batches.Unreadable, match="tells no id") as caught:
        read.extend(batches.split(serializer, body))
    assert read == [("a", Response(1)), ("b", Response(2))]
    assert caught.value.request_ids == []


ID = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


@both
@pytest.mark.parametrize("cut", [1, 5])
def test_a_batch_that_cannot_be_read_tells_whose_answers_are_in_it(
    serializer: Serializer, cut: int
) -> None:
    body = batch_of(serializer, (ID, Response("a")), (OTHER, Response("abcdef")))
    with pytest.raises(batches.Unreadable) as caught:
        list(batches.split(serializer, body[:-cut]))
    assert caught.value.request_ids == [ID, OTHER]


def test_a_batch_in_other_spacing_that_cannot_be_read_tells_whose_answers_are_in_it() -> None:
    body = f'[ {{ "id" : "{ID}", "result": 1 }}, {{"id": "{OTHER}", "resu'.encode()
    with pytest.raises(batches.Unreadable) as caught:
        list(batches.split(JSON, body))
    assert caught.value.request_ids == [ID, OTHER]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b"[[]]", b'[{"id":5}]', b'[{"result":1}]', b"\x93", b"[" * 10_000]
)
@both
def test_what_is_no_batch_names_nobody(serializer: Serializer, body: bytes) -> None:
    with pytest.raises(batches.Unreadable) as caught:
        list(batches.split(serializer, body))
    assert caught.value.request_ids == []


@both
def test_what_does_not_look_like_an_answer_travels_alone(serializer: Serializer) -> None:
    assert batches.can_travel(serializer.content_type, serializer.encode(Response(1)))
    assert not batches.can_travel(
        serializer.content_type, serializer.encode(Response("x" * 70_000))
    )
    assert not batches.can_travel(serializer.content_type, b"")
    assert not batches.can_travel(serializer.content_type, b"[1]")
