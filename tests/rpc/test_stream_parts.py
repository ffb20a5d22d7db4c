"""The two ends of a stream without a broker: what any order, loss and repetition makes of them."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from amphora.errors import AmphoraError, StreamLost
from amphora.rpc.client.streams.stream import MOST_REFUSED, PendingStream
from amphora.rpc.contract.control import (
    Credit,
    Unwanted,
    decode_cancels,
    decode_credits,
    encode_cancels,
    encode_credits,
)
from amphora.rpc.contract.streams import (
    BESIDE_BYTES,
    MOST_BYTES,
    MOST_WINDOW,
    UNDER_WAY_BYTES,
    WINDOW_BYTES,
)
from amphora.rpc.server.streams.window import MOST_STALLS, Window
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate

ids = st.text(max_size=255)
# Any number that fits into a header or a message, and many that are about right.
numbers = st.one_of(st.integers(-3, 40), st.integers(-(2**63), 2**63 - 1))


class Caller:
    """A client around one pending stream."""

    def __init__(self, credit: int) -> None:
        template = PropertiesTemplate(Properties(reply_to="client"))
        outgoing = Outgoing("requests", "", template, "request", b"", needs=())
        self.refused: list[tuple[str, str]] = []
        self.grants = 0
        self.pending = PendingStream(self, self, "f", 5.0, outgoing, credit, True)  # type: ignore[arg-type]
        self.taken: list[Any] = []

    def refuse(self, pending: PendingStream, worker: str, run_id: str) -> None:
        self.refused.append((worker, run_id))

    def grant(self, pending: PendingStream) -> None:
        self.grants += 1

    def take(self) -> bool:
        there, item = self.pending.next()
        if there:
            self.taken.append(item)
        return there


class Worker:
    """A server around one window: its items are numbers, each with as many bytes as is said."""

    def __init__(self, credit: int, sizes: list[int]) -> None:
        self.window = Window(credit)
        self._sizes = sizes

    @property
    def done(self) -> bool:
        return self.window.seq == len(self._sizes)

    def produce(self) -> bool:
        if self.done or not self.window.has_room(self._sizes[self.window.seq]):
            return False
        number = self.window.seq + 1
        self.window.add(number.to_bytes(4) + bytes(self._sizes[self.window.seq]))
        return True

    def send(self) -> tuple[int, list[int], int] | None:
        if not self.window.due():
            return None
        first, items = self.window.next_items()
        return first, [int.from_bytes(item[:4]) for item in items], sum(map(len, items))

    def check(self, credit: int) -> None:
        """Check what is always so."""
        window = self.window
        kept = window._kept
        assert 0 <= window.received <= window._came <= window._sent <= window.seq
        assert len(kept) == window.seq - window.received <= credit
        assert window._kept_bytes == sum(map(len, kept))
        under_way = [len(item) for item in kept][window._came - window.received :]
        assert window._under_way == sum(under_way[: window._sent - window._came])
        # The last message may go beyond it.
        assert window._under_way < UNDER_WAY_BYTES + max(MOST_BYTES, *under_way, 0)
        # A little of each is the number; one larger item goes alone.
        assert window._kept_bytes <= WINDOW_BYTES + 4 * len(kept) or len(kept) == 1


@given(
    credit=st.integers(1, 6),
    sizes=st.lists(st.sampled_from([0, 100, 40_000, 2**20, 5 * 2**20]), max_size=12),
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000)), max_size=120),
)
def test_each_item_comes_once_and_in_order_whatever_is_lost_repeated_or_late(
    credit: int, sizes: list[int], steps: list[tuple[int, int]]
) -> None:
    caller, worker = Caller(credit), Worker(credit, sizes)
    pending = caller.pending
    assert pending.begun("worker", "run", False)
    down: list[tuple[int, list[int], int]] = []
    up: list[Credit] = []
    ended = False
    for step, which in steps:
        if step <= 1:
            worker.produce()
        elif step == 2 and (sent := worker.send()) is not None:
            down.append(sent)
        elif step in (3, 4, 5) and down:
            # Any of them: it comes once, or again, or not at all.
            message = down[which % len(down)] if step == 4 else down.pop(which % len(down))
            if step != 5:
                pending.came("run", *message)
        elif step == 6:
            caller.take()
        elif step == 7:
            up.append(pending.counts())
        elif step == 8 and up:
            told = up[which % len(up)] if which % 3 else up.pop(which % len(up))
            worker.window.credit(told.allowed, told.received, told.came)
        elif step == 9 and which % 2:
            worker.window.send_again()
        elif step == 9 and worker.done:
            # It may overtake the items before it.
            ended = pending.ends("run", len(sizes) + 1, "the end", None)
        worker.check(credit)
        assert len(pending._items) <= credit
    # From here on nothing is lost any more.
    for _ in range(len(sizes) + 4 * MOST_STALLS):
        while worker.produce():
            worker.check(credit)
        while (sent := worker.send()) is not None:
            pending.came("run", *sent)
        while caller.take():
            pass
        told = pending.counts()
        worker.window.credit(told.allowed, told.received, told.came)
        if worker.done:
            ended = pending.ends("run", len(sizes) + 1, "the end", None)
    assert ended
    assert caller.taken == list(range(1, len(sizes) + 1))
    assert pending.outcome() == ("the end", None)
    assert worker.window.received == len(sizes)
    assert not worker.window._kept


@given(st.lists(st.tuples(numbers, numbers, numbers, st.booleans()), max_size=50))
def test_no_count_makes_a_server_keep_more_or_send_what_it_has_not(
    counts: list[tuple[int, int, int, bool]],
) -> None:
    worker = Worker(5, [2**20] * 40)
    for allowed, received, came, sends in counts:
        worker.window.credit(allowed, received, came)
        while worker.produce():
            pass
        worker.check(MOST_WINDOW)
        while sends and (sent := worker.send()) is not None:
            first, items, _ = sent
            assert items == list(range(first, first + len(items)))
            assert worker.window.received < first <= worker.window.seq


def test_what_has_come_is_not_sent_again_while_the_caller_sleeps() -> None:
    caller, worker = Caller(4), Worker(4, [10] * 10)
    assert caller.pending.begun("worker", "run", False)
    sent = 0
    while worker.produce():
        pass
    for _ in range(100):
        while (message := worker.send()) is not None:
            sent += len(message[1])
            caller.pending.came("run", *message)
        told = caller.pending.counts()
        worker.window.credit(told.allowed, told.received, told.came)
    assert sent == 4


def test_what_does_not_come_is_sent_again_less_and_less_often() -> None:
    worker = Worker(4, [10] * 4)
    while worker.produce():
        pass
    sent = []
    for number in range(100):
        while worker.send() is not None:
            sent.append(number)
        worker.window.credit(4, 0, 0)
    assert sent == [0, 2, 6, 14, 30, 60, 90]
    worker.window.credit(8, 4, 4)
    assert not worker.window.due()


# What two workers say that have one request: each what is to come from it.
RUNS = {
    run: [
        (run, "started", 0, []),
        (run, "item", 1, [f"{run}1", f"{run}2"]),
        (run, "item", 3, [f"{run}3"]),
        (run, "end", 4, []),
    ]
    for run in "abc"
}


@given(
    st.permutations([run for run in RUNS for _ in range(4)]),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=6),
)
def test_of_several_runs_the_caller_sees_one(
    turns: list[str], early: list[tuple[str, int]]
) -> None:
    caller = Caller(8)
    said = {run: list(messages) for run, messages in RUNS.items()}
    done = False

    def say(run: str, kind: str, number: int, items: list[Any]) -> None:
        nonlocal done
        if done:
            return
        if kind == "started":
            caller.pending.begun(f"worker of {run}", run, False)
        elif kind == "item":
            caller.pending.came(run, number, items, 10)
            done = caller.pending.complete
        else:
            done = caller.pending.ends(run, number, f"end of {run}", None)

    # The end is sent on another channel than the items, and may overtake them.
    overtaking = {run for run, place in early if place > 1}
    for run in turns:
        messages = said[run]
        late = run in overtaking and 1 < len(messages) < 4
        say(*messages.pop(-1 if late else 0))
    if not done:
        # What was lost is sent again by the worker whose run is taken.
        for message in RUNS[caller.pending.run_id][1:]:
            say(*message)
    assert done
    while caller.take():
        pass
    run = caller.pending.run_id
    assert caller.taken == [f"{run}{number}" for number in (1, 2, 3)]
    assert caller.pending.outcome() == (f"end of {run}", None)
    assert (f"worker of {run}", run) not in caller.refused
    assert len(caller.refused) == len(set(caller.refused))


def test_a_run_that_was_given_up_for_another_is_not_taken_again() -> None:
    # Its worker is told to end it.  What it said before may come once more, and late.
    caller = Caller(8)
    assert caller.pending.begun("first", "run 1", False)
    assert caller.pending.begun("second", "run 2", False)
    assert not caller.pending.begun("first", "run 1", False)
    assert caller.pending.run_id == "run 2"
    assert caller.refused == [("first", "run 1")] * 2


def test_what_is_remembered_of_runs_is_bounded() -> None:
    caller = Caller(8)
    for number in range(100):
        caller.pending.begun("stranger", f"run {number}", False)
    assert len(caller.pending._refused) == MOST_REFUSED
    assert len(caller.refused) == 99


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["item", "end", "started"]),
            st.sampled_from(["", "other", "rum", "run "]),
            numbers,
            st.integers(0, 5),
        )
    ),
    st.lists(numbers, max_size=10),
)
def test_strangers_can_neither_add_items_nor_end_a_stream(
    said: list[tuple[str, str, int, int]], firsts: list[int]
) -> None:
    caller = Caller(8)
    pending = caller.pending
    # Before it has begun there is no run that they could belong to.
    pending.came("", 1, ["stranger"], 10)
    assert not pending.begun("worker", "", False)
    assert pending.begun("worker", "run", False)
    pending.came("run", 1, ["a"], 10)
    for kind, run, number, count in said:
        if kind == "item":
            pending.came(run, number, ["stranger"] * count, 10)
        elif kind == "end":
            assert not pending.ends(run, number, "stranger", None)
        else:
            assert not pending.begun("stranger", run, True)
    for first in firsts:
        if not 1 <= first <= 2:
            pending.came("run", first, ["stranger"] * 5, 10)
    pending.came("run", 1, ["a", "b"], 10)
    assert pending.ends("run", 3, "end", None)
    while caller.take():
        pass
    assert caller.taken == ["a", "b"]
    assert (pending.worker, pending.run_id, pending.resumable) == ("worker", "run", False)


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(-2, 40), st.integers(1, 40), st.integers(0, 3)), max_size=40),
)
def test_a_server_cannot_make_a_caller_keep_more_than_was_granted(
    credit: int, said: list[tuple[int, int, int]]
) -> None:
    caller = Caller(credit)
    pending = caller.pending
    assert pending.begun("worker", "run", True)
    for first, count, takes in said:
        pending.came("run", first, list(range(first, first + count)), 10)
        for _ in range(takes):
            caller.take()
        told = pending.counts()
        assert len(pending._items) <= credit
        assert told.came <= told.allowed <= told.received + credit
    # What was too much was not taken, and comes again.
    while len(caller.taken) < 50:
        first = pending.counts().came + 1
        pending.came("run", first, list(range(first, first + 100)), 10)
        assert caller.take()
    assert caller.taken == list(range(1, 51))


def test_the_rest_of_a_stream_comes_before_all_is_taken_that_an_earlier_worker_has_sent() -> None:
    caller = Caller(4)
    pending = caller.pending
    assert pending.begun("one", "first", True)
    pending.came("first", 1, [1, 2, 3, 4], 10)
    pending.restart(pending.outgoing)
    assert pending.begun("other", "second", True)
    pending.counts()
    pending.came("second", 1, [5, 6, 7, 8], 10)
    while caller.take():
        pass
    assert caller.taken == list(range(1, 9))


def test_a_request_that_is_refused_ends_a_stream_that_nobody_has_begun() -> None:
    refused, begun = Caller(8).pending, Caller(8).pending
    error = AmphoraError("no such function")
    assert refused.ends("", 0, None, error)
    assert refused.outcome() == (None, error)
    # Where one worker has begun it, what another one says counts for nothing.
    assert begun.begun("worker", "run", False)
    assert not begun.ends("", 0, None, error)
    assert begun.outcome() is None


def test_large_items_are_told_of_before_half_of_the_credit_is_used() -> None:
    caller = Caller(32)
    caller.pending.begun("worker", "run", False)
    caller.pending.came("run", 1, list("abcd"), 4 * 2**20)
    assert caller.take()
    assert caller.grants == 1
    assert caller.pending.counts() == Credit("request", "run", 33, 1, 4)


def test_of_large_items_two_mebibytes_are_under_way_and_more_are_ready() -> None:
    worker = Worker(32, [300_000] * 20)
    while worker.produce():
        pass
    assert worker.window.seq == WINDOW_BYTES // 300_004
    sent = []
    while (message := worker.send()) is not None:
        sent += message[1]
    assert sent == [1, 2, 3, 4, 5, 6, 7]
    # What has come makes room, although nothing is taken; what is said again makes none.
    for _ in range(2):
        worker.window.credit(32, 0, 1)
    while (message := worker.send()) is not None:
        sent += message[1]
    assert sent == [1, 2, 3, 4, 5, 6, 7, 8]
    # Beside the answers to calls, there are fewer.
    worker.window.credit(32, 3, 3)
    assert worker.window.due()
    assert not worker.window.due(BESIDE_BYTES)


def test_a_stream_whose_rest_nobody_has_is_lost_with_the_number_of_items_that_had_come() -> None:
    caller = Caller(8)
    pending = caller.pending
    pending.begun("worker", "run", True)
    pending.came("run", 1, ["a", "b"], 10)
    assert caller.take()
    pending.restart(pending.outgoing)
    error = AmphoraError("nobody is there")
    pending.fail(error)
    assert caller.take()
    outcome = pending.outcome()
    assert outcome is not None
    assert isinstance(outcome[1], StreamLost)
    assert outcome[1].__cause__ is error
    assert pending.received == 2


@given(
    st.lists(st.builds(Unwanted, ids, st.floats(0, 1e6), ids)),
    st.lists(st.builds(Credit, ids, ids, numbers, numbers, numbers)),
)
def test_what_clients_say_is_read_as_it_was_written(
    unwanted: list[Unwanted], credits: list[Credit]
) -> None:
    assert decode_cancels(encode_cancels(unwanted)) == unwanted
    assert decode_credits(encode_credits(credits)) == credits


def test_what_clients_of_before_and_of_other_languages_say_is_read() -> None:
    # And what workers of before can read is what they are told.
    assert encode_cancels([Unwanted("a", 1.5)]) == b'[["a",1.5]]'
    assert decode_cancels(b'[["a",1.5]]') == [Unwanted("a", 1.5)]
    assert decode_credits(b'[["a","run",7,3]]') == [Credit("a", "run", 7, 3, 0)]


def test_ids_that_no_request_can_have_are_not_kept_in_mind() -> None:
    """What a worker remembers of cancels and credit is limited in number, so also in size."""
    long = "x" * 255
    assert decode_cancels(encode_cancels([Unwanted(long, 1.0, long)]))[0].request_id == long
    assert decode_credits(encode_credits([Credit(long, long, 1, 1)]))[0].run_id == long
    for cancel in (Unwanted(long + "x", 1.0), Unwanted("a", 1.0, long + "x")):
        with pytest.raises(ValueError, match="length <= 255"):
            decode_cancels(encode_cancels([cancel]))
    for credit in (Credit(long + "x", "run", 1, 1), Credit("a", long + "x", 1, 1)):
        with pytest.raises(ValueError, match="length <= 255"):
            decode_credits(encode_credits([credit]))
