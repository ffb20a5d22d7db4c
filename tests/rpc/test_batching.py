"""Answers that are ready in the same turn of the event loop."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import NamedTuple

import gevent
import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora.rpc.server.answers.batching import Batching


class Answer(NamedTuple):
    kind: str
    number: int
    body: bytes


def answer(kind: str, number: int, size: int = 1) -> Answer:
    return Answer(kind, number, b"x" * size)


def next_turn() -> None:
    gevent.sleep(0)
    gevent.sleep(0)


def batching(sent: list[list[Answer]], most: int = 3, most_bytes: int = 100) -> Batching[Answer]:
    return Batching(sent.append, most=most, most_bytes=most_bytes)


def add(to: Batching[Answer], kind: str, *numbers: int, size: int = 1) -> None:
    for number in numbers:
        to.add(kind, answer(kind, number, size))


def test_what_came_in_one_turn_is_handed_on_at_its_end() -> None:
    sent: list[list[Answer]] = []
    answers = batching(sent)
    add(answers, "a", 1, 2)
    assert sent == []
    next_turn()
    assert sent == [[answer("a", 1), answer("a", 2)]]
    add(answers, "a", 3)
    next_turn()
    assert sent[1:] == [[answer("a", 3)]]


def test_what_does_not_belong_together_is_handed_on_apart() -> None:
    sent: list[list[Answer]] = []
    answers = batching(sent)
    for number in (1, 2):
        for kind in ("a", "b"):
            add(answers, kind, number)
    next_turn()
    assert sent == [[answer("a", 1), answer("a", 2)], [answer("b", 1), answer("b", 2)]]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=30),
    st.integers(1, 5),
    st.integers(0, 40),
)
def test_each_is_handed_on_once_in_order_and_no_list_is_too_large(
    added: list[tuple[str, int]], most: int, most_bytes: int
) -> None:
    sent: list[list[Answer]] = []
    answers = batching(sent, most, most_bytes)
    for number, (kind, size) in enumerate(added):
        add(answers, kind, number, size=size)
    next_turn()
    for batch in sent:
        assert len({each.kind for each in batch}) == 1
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(len(each.body) for each in batch) <= most_bytes
    for kind in "ab":
        handed_on = [each.number for batch in sent for each in batch if each.kind == kind]
        assert handed_on == [n for n, (wanted, _) in enumerate(added) if wanted == kind]
    # And no list ends before it has to.
    for kind, batches in groupby(sent, lambda batch: batch[0].kind):
        assert full(list(batches), most, most_bytes), kind


def full(batches: list[list[Answer]], most: int, most_bytes: int) -> bool:
    sizes = [[len(each.body) for each in batch] for batch in batches]
    return all(
        len(one) == most or sum(one) + following[0] > most_bytes
        for one, following in pairwise(sizes)
    )


def test_one_that_is_too_large_for_any_list_goes_alone() -> None:
    sent: list[list[Answer]] = []
    answers = batching(sent, most_bytes=10)
    add(answers, "a", 1, size=11)
    add(answers, "a", 2, 3, size=5)
    add(answers, "a", 4, size=11)
    next_turn()
    assert sent == [
        [answer("a", 1, 11)],
        [answer("a", 2, 5), answer("a", 3, 5)],
        [answer("a", 4, 11)],
    ]


@pytest.fixture
def interruptions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the event loop was told of, and would have printed."""
    found: list[object] = []

    def told(context: object, kind: object, value: object, traceback: object) -> None:
        found.append(kind)

    monkeypatch.setattr(gevent.get_hub(), "handle_error", told)
    return found


def test_what_was_interrupted_is_handed_on_again(interruptions: list[object]) -> None:
    sent: list[list[Answer]] = []
    interrupt = [KeyboardInterrupt()]

    def send(batch: list[Answer]) -> None:
        sent.append(batch)
        if interrupt:
            raise interrupt.pop()

    answers: Batching[Answer] = Batching(send, most=2, most_bytes=100)
    add(answers, "a", 1, 2, 3)
    next_turn()
    assert sent == [
        [answer("a", 1), answer("a", 2)],
        [answer("a", 1), answer("a", 2)],
        [answer("a", 3)],
    ]
    assert interruptions == [KeyboardInterrupt]


def test_what_is_forgotten_is_not_handed_on() -> None:
    sent: list[list[Answer]] = []
    answers = batching(sent)
    add(answers, "a", 1)
    answers.forget()
    next_turn()
    assert sent == []
    add(answers, "a", 2)
    next_turn()
    assert sent == [[answer("a", 2)]]
