"""What a client keeps of a request until its end: of one that one answers, and of one for all.

Without a broker: the servers answer when the test says so.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import gevent
import pytest

from amphora.errors import AmphoraError, ConnectionLost, NoResult, RemoteException, Unroutable
from amphora.rpc.client.waiting.gather import Gathered, PendingGather, Reply
from amphora.rpc.client.waiting.pending import Pending
from amphora.rpc.client.waiting.result import PendingCall, Result, iwait, wait
from amphora.rpc.client.waiting.waking import Waker
from amphora.rpc.client.workers.roll_call import OneWorker
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.properties import Properties
from amphora.wire.templates import PropertiesTemplate
from tests.support.waiting import wait_until


class Waiting:
    """What keeps pending requests: here, which of them were discarded."""

    def __init__(self) -> None:
        self.discarded: list[Pending] = []
        self.wake = Waker().wake

    def discard(self, pending: Pending) -> None:
        self.discarded.append(pending)

    def withdraw(self, pending: Pending) -> None:
        self.discarded.append(pending)

    def cancel(self, pending: Pending) -> bool:
        self.discard(pending)
        return True

    def in_its_thread(self, function: Callable[[], object]) -> None:
        function()


class Servers:
    """The servers of a namespace: those that the test names."""

    def __init__(self, *workers: str) -> None:
        self.workers = set(workers)
        self.returned_at = 0.0

    def count(self) -> int | None:
        return len(self.workers)

    def nobody(self) -> bool:
        return not self.workers

    def gone(self, workers: Collection[str], moved: Mapping[str, str]) -> frozenset[str]:
        return frozenset(workers) - self.workers

    def back_at(self) -> float:
        return self.returned_at


def outgoing() -> Outgoing:
    return Outgoing("exchange", "", PropertiesTemplate(Properties()), "1", b"body", needs=())


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def call(waiting: Waiting) -> PendingCall:
    return PendingCall(waiting, "f", 5.0, outgoing())


def gather_of(waiting: Waiting, servers: Any) -> PendingGather:
    request = PendingGather(waiting, "f", 5.0, outgoing(), servers)
    request.outgoing.confirmed(True, None)
    return request


# -- one answer -------------------------------------------------------------------------------


def test_a_result_is_there_when_its_call_is_answered(call: PendingCall) -> None:
    result = Result(call)
    assert not result.ready()
    assert repr(result) == "<Result of f [pending]>"
    assert call.answered("worker", 7, None)
    assert result.get() == 7
    assert repr(result) == "<Result of f [ready]>"


def test_a_result_raises_what_went_wrong(call: PendingCall) -> None:
    result = Result(call)
    error = NoResult("too late", executed=None)
    call.fail(error)
    with pytest.raises(NoResult) as caught:
        result.get()
    # A copy: see `test_letting_go`.
    assert caught.value is not error
    assert (str(caught.value), caught.value.executed) == ("too late", None)
    assert result.exception is error
    assert repr(result) == "<Result of f [failed: NoResult]>"


@pytest.mark.parametrize("busy", [False, True])
def test_another_thread_may_wait_for_a_result(call: PendingCall, busy: bool) -> None:
    result = Result(call)
    got: list[Any] = []
    begun = threading.Event()

    def wait_there() -> None:
        # A thread whose event loop has something else to wait for, or nothing.
        other = gevent.spawn(gevent.sleep, 300) if busy else None
        begun.set()
        try:
            with gevent.Timeout(40):
                got.append(result.get())
        except BaseException as error:  # noqa: BLE001 (looked at below)
            got.append(error)
        if other is not None:
            other.kill()

    thread = threading.Thread(target=wait_there)
    thread.start()
    wait_until(begun.is_set)
    gevent.sleep(0.1)
    call.answered("worker", "the answer", None)
    wait_until(lambda: not thread.is_alive(), timeout=60)
    assert got == ["the answer"]


def test_only_the_first_answer_counts(call: PendingCall) -> None:
    result = Result(call)
    call.answered("one", 1, None)
    call.answered("other", 2, None)
    call.fail(ConnectionLost("lost"))
    assert result.get() == 1


def test_a_server_that_ignores_a_call_does_not_end_it(call: PendingCall) -> None:
    result = Result(call)
    assert not call.ignored("one")
    assert not result.ready()
    call.answered("other", 2, None)
    assert result.get() == 2


def test_a_result_that_is_dropped_takes_its_call_along(call: PendingCall, waiting: Waiting) -> None:
    result = Result(call)
    del result
    gc.collect()
    assert waiting.discarded == [call]
    assert call.answered("late", 1, None)


def test_a_result_that_was_there_is_dropped_in_silence(call: PendingCall, waiting: Waiting) -> None:
    result = Result(call)
    call.answered("one", 1, None)
    assert result.get() == 1
    del result
    gc.collect()
    assert waiting.discarded == []


def test_a_callback_runs_although_nobody_holds_the_result(
    call: PendingCall, waiting: Waiting
) -> None:
    got: list[Any] = []
    result = Result(call)
    result.rawlink(lambda result: got.append(result.value))
    del result
    gc.collect()
    assert waiting.discarded == []
    call.answered("one", 1, None)
    gevent.sleep(0)
    assert got == [1]


def test_results_are_waited_for_in_the_order_of_arrival(waiting: Waiting) -> None:
    calls = [PendingCall(waiting, "f", 5.0, outgoing()) for _ in range(3)]
    results = [Result(call) for call in calls]
    ready = iwait(results)
    for number in (2, 0):
        calls[number].answered("one", number, None)
        assert next(ready) is results[number]
    assert set(wait(results, timeout=0.001)) == {results[0], results[2]}
    calls[1].fail(ConnectionLost("lost"))
    assert next(ready) is results[1]
    assert next(ready, None) is None


# -- many answers -------------------------------------------------------------------------------


def test_a_gather_ends_when_all_who_are_there_have_answered(waiting: Waiting) -> None:
    request = gather_of(waiting, Servers("one", "other"))
    gathered = Gathered(request)
    assert not request.answered("one", 1, None)
    assert not request.answered("other", None, RemoteException("ValueError", ["no"], ""))
    replies = list(gathered)
    assert [reply.worker for reply in replies] == ["one", "other"]
    assert replies[0].get() == 1
    with pytest.raises(RemoteException):
        replies[1].get()
    assert gathered.complete
    assert not gathered.timed_out
    assert (gathered.expected, gathered.missing) == (2, 0)
    assert waiting.discarded == [request]


def test_replies_are_there_as_they_come(waiting: Waiting) -> None:
    request = gather_of(waiting, Servers("one", "other"))
    gathered = Gathered(request)
    replies = iter(gathered)
    request.answered("one", 1, None)
    assert next(replies).value == 1
    assert repr(gathered) == "<Gathered f [1 heard, gathering]>"
    gevent.spawn(request.answered, "other", 2, None)
    assert next(replies).value == 2
    assert next(replies, None) is None
    assert repr(gathered) == "<Gathered f [2 heard, ended]>"


def test_a_server_that_ignores_a_gather_is_not_waited_for_and_gives_no_reply(
    waiting: Waiting,
) -> None:
    request = gather_of(waiting, Servers("one", "other"))
    request.ignored("other")
    request.answered("one", 1, None)
    gathered = Gathered(request)
    assert gathered.values() == [1]
    assert gathered.complete


def test_a_request_that_one_server_got_twice_has_one_reply_of_it(waiting: Waiting) -> None:
    request = gather_of(waiting, Servers("one"))
    request.answered("one", 1, None)
    request.answered("one", 2, None)
    request.ignored("one")
    gathered = Gathered(request)
    assert gathered.values() == [1]
    request.answered("one", 3, None)
    assert gathered.values() == []


def test_at_the_timeout_a_gather_ends_with_what_is_missing(waiting: Waiting) -> None:
    request = gather_of(waiting, Servers("one", "other"))
    request.answered("one", 1, None)
    gathered = Gathered(request)
    replies = iter(gathered)
    assert next(replies).value == 1
    gevent.spawn(request.fail, NoResult("too late"))
    assert next(replies, None) is None
    assert gathered.timed_out
    assert not gathered.complete
    assert (gathered.expected, gathered.missing) == (2, 1)


def test_a_gather_that_no_queue_took_is_complete_with_nobody(waiting: Waiting) -> None:
    request = PendingGather(waiting, "f", 5.0, outgoing(), Servers())
    request.fail(Unroutable("no queue"))
    gathered = Gathered(request)
    assert gathered.values() == []
    assert gathered.complete


def test_a_gather_that_no_queue_took_while_servers_come_back_is_not_complete(
    waiting: Waiting,
) -> None:
    servers = Servers()
    servers.returned_at = float("inf")
    request = PendingGather(waiting, "f", 5.0, outgoing(), servers)
    request.fail(Unroutable("no queue"))
    gathered = Gathered(request)
    assert gathered.values() == []
    assert not gathered.complete


@pytest.mark.parametrize("sent", [False, True])
def test_a_gather_that_did_not_get_through_raises_why_after_its_replies(
    waiting: Waiting, sent: bool
) -> None:
    request = PendingGather(waiting, "f", 5.0, outgoing(), Servers("one", "other"))
    request.answered("one", 1, None)
    # Not confirmed at the timeout, or failed with the connection.
    error: AmphoraError = ConnectionLost("lost") if sent else NoResult("it was never sent")
    request.fail(error)
    replies = iter(Gathered(request))
    assert next(replies).value == 1
    with pytest.raises(type(error), match=str(error)):
        next(replies)


def test_a_gather_that_is_dropped_is_discarded_unless_it_has_ended(waiting: Waiting) -> None:
    ended = gather_of(waiting, Servers("one"))
    ended.fail(NoResult("too late"))
    Gathered(ended)
    assert waiting.discarded == []
    pending = gather_of(waiting, Servers("one"))
    Gathered(pending)
    gc.collect()
    assert waiting.discarded == [pending]


def test_one_worker_is_waited_for_until_it_is_heard_of(waiting: Waiting) -> None:
    request = gather_of(waiting, OneWorker())
    gathered = Gathered(request)
    gevent.spawn(request.answered, "mgt", 1, None)
    assert gathered.values() == [1]
    assert gathered.complete
    nobody = PendingGather(waiting, "f", 5.0, outgoing(), OneWorker())
    nobody.fail(Unroutable("no queue"))
    assert Gathered(nobody).values() == []


def test_a_reply_shows_what_it_is() -> None:
    assert repr(Reply("w", [1], None)) == "Reply(worker='w', value=[1])"
    assert repr(Reply("w", None, NoResult("late"))).startswith("Reply(worker='w', error=NoResult(")
