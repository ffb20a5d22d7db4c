"""Cancelling calls: what the caller gets, and what becomes of the handler."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent.event import Event

import amphora
from amphora.errors import Cancelled, ConnectionLost, NoResult, RemoteException
from amphora.rpc.client.workers import control
from amphora.rpc.contract.control import Unwanted, encode_cancels
from amphora.rpc.server.requests.control import LONGEST_KEPT, MOST_KEPT, EarlyCancels
from amphora.transport.connections.connection import Connection
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.raw import RawClient, RawServer
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add, begun_in_time
from tests.support.waiting import wait_until


class Work:
    """A handler that waits, and tells how it ended."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[tuple[Any, str]] = []
        self._go = Event()

    def do(self, name: Any = None) -> Any:
        """Wait to be let go or cancelled."""
        self.begun.append(name)
        how = "done"
        try:
            self._go.wait()
        except amphora.Cancel:
            how = "cancelled"
            raise
        finally:
            self.ended.append((name, how))
        return name

    def let_go(self) -> None:
        """Let all handlers return."""
        self._go.set()


def test_a_cancelled_call_ends_at_once_for_its_caller_and_in_its_handler(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    server = make_server()
    server.add_function(work.do, cancellable=True)
    client = make_client()
    result = client.defer.do("it")
    wait_until(lambda: work.begun)
    assert result.cancel() is True
    with pytest.raises(Cancelled, match="do was cancelled") as caught:
        result.get(block=False)
    assert caught.value.executed is None
    assert result.cancel() is False
    wait_until(lambda: work.ended)
    assert work.ended == [("it", "cancelled")]
    wait_until(lambda: server.statistics.cancelled == 1)
    assert (server.processed, server.exceptions, client.pending) == (0, 0, 0)
    assert client.unexpected_responses == 0


def test_a_function_that_does_not_say_so_is_not_interrupted(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work, begun, seen = Work(), [], []
    server = make_server(work.do)

    @server.add_function
    def patient() -> None:
        begun.append("patient")
        while not amphora.current().cancelled:
            gevent.sleep(0.01)
        seen.append("cancelled")

    client = make_client()
    results = [client.defer.do("it"), client.defer.patient()]
    wait_until(lambda: work.begun and begun)
    for result in results:
        result.cancel()
    wait_until(lambda: seen)
    assert not work.ended
    work.let_go()
    wait_until(lambda: work.ended == [("it", "done")])
    wait_until(lambda: client.unexpected_responses == 2)


def test_a_server_may_say_it_for_all_its_functions(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    server = make_server(work.do, cancellable=True)
    server.add_function(work.do, name="never", cancellable=False)
    client = make_client()
    results = [client.defer.do("do"), client.defer.never("never")]
    wait_until(lambda: len(work.begun) == 2)
    for result in results:
        result.cancel()
    wait_until(lambda: work.ended)
    work.let_go()
    wait_until(lambda: len(work.ended) == 2)
    assert dict(work.ended) == {"do": "cancelled", "never": "done"}


def test_a_call_whose_caller_is_killed_is_cancelled(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    make_server(work.do, cancellable=True)
    client = make_client()
    caller = gevent.spawn(client.call.do, "killed")
    wait_until(lambda: work.begun)
    caller.kill()
    wait_until(lambda: work.ended == [("killed", "cancelled")])

    def time_out() -> None:
        with pytest.raises(gevent.Timeout):
            client.call.do("timed out")

    caller = gevent.spawn(time_out)
    wait_until(lambda: len(work.begun) == 2)
    caller.kill(gevent.Timeout())
    caller.get()
    wait_until(lambda: work.ended[1:] == [("timed out", "cancelled")])


def test_a_dropped_result_and_a_closed_client_cancel_nothing(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    make_server(work.do, cancellable=True)
    client = make_client()
    client.defer.do("dropped")
    kept = client.defer.do("kept")
    wait_until(lambda: len(work.begun) == 2)
    client.close()
    with pytest.raises(ConnectionLost):
        kept.get()
    work.let_go()
    wait_until(lambda: len(work.ended) == 2)
    assert dict(work.ended) == {"dropped": "done", "kept": "done"}


def test_a_client_may_cancel_what_is_pending_when_it_closes(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    make_server(work.do, cancellable=True)
    client = make_client()
    results = [client.defer.do(number) for number in range(3)]
    wait_until(lambda: len(work.begun) == 3)
    client.close(cancel=True)
    for result in results:
        with pytest.raises(Cancelled):
            result.get(block=False)
    wait_until(lambda: sorted(work.ended) == [(number, "cancelled") for number in range(3)])


def test_a_request_that_is_cancelled_in_the_queue_is_not_begun(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    gate = Gate()
    servers = [make_server(gate.hold, concurrency=1) for _ in range(2)]
    client = make_client()
    running = [client.defer.hold(number) for number in range(2)]
    wait_until(lambda: len(gate.entered) == 2)
    waiting = [client.defer.hold(number) for number in range(2, 12)]
    wait_until(lambda: not client.session.publisher.unconfirmed)
    for result in waiting[:8]:
        result.cancel()
    # The cancels have come when another message has, by the same way.
    more = client.defer.hold(12)
    wait_until(
        lambda: sum(len(server._worker.requests.admission.cancelled) for server in servers) == 16
    )
    gate.open()
    assert [result.get() for result in [*running, *waiting[8:], more]] == [0, 1, 10, 11, 12]
    assert sorted(gate.entered) == [0, 1, 10, 11, 12]
    assert sum(server.statistics.cancelled for server in servers) == 8


def test_a_call_that_was_never_sent_is_cancelled_as_not_run(closed_port: int) -> None:
    url = f"amqp://127.0.0.1:{closed_port}/"
    with amphora.AmqpRpcClient("nobody", url=url) as client:
        result = client.defer.f()
        assert result.cancel()
        with pytest.raises(Cancelled) as caught:
            result.get()
        assert caught.value.executed is False
        assert client.pending == 0


def test_what_a_cancelled_handler_has_called_is_cancelled_too(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    client = make_client()

    def middle(name: str) -> Any:
        later = client.defer.do(f"{name} later")
        try:
            return client.call.do(name)
        finally:
            work.ended.append((name, "middle"))
            assert later.ready()

    server = make_server(work.do, middle, cancellable=True)
    result = client.defer.middle("it")
    wait_until(lambda: len(work.begun) == 2)
    result.cancel()
    wait_until(lambda: len(work.ended) == 3)
    assert sorted(work.ended) == [
        ("it", "cancelled"),
        ("it", "middle"),
        ("it later", "cancelled"),
    ]
    wait_until(lambda: server.statistics.cancelled == 3)
    assert client.pending == 0


def test_a_stream_that_a_cancelled_handler_has_made_does_not_look_complete(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work, client = Work(), make_client()
    taken: list[Any] = []
    readers: list[gevent.Greenlet[..., Any]] = []
    outcomes: list[str] = []

    def numbers() -> Iterator[int]:
        yield 1
        work.do("numbers")
        yield 2

    def middle() -> None:
        stream = client.stream.numbers()
        readers.append(amphora.spawn(taken.extend, stream))
        work.do("middle")

    @client.use
    def watch(call: amphora.OutgoingCall, proceed: Any) -> Any:
        if call.function == "numbers":
            call.when_done(lambda outcome: outcomes.append(outcome.status))
        return proceed()

    make_server(numbers, middle, cancellable=True)
    result = client.defer.middle()
    wait_until(lambda: taken and len(work.begun) == 2)
    result.cancel()
    with pytest.raises(Cancelled, match="numbers was cancelled"):
        readers[0].get(timeout=20)
    assert taken == [1]
    wait_until(lambda: len(work.ended) == 2)
    wait_until(lambda: outcomes == ["Cancelled"])
    assert client.pending == 0


def test_a_cancellable_function_ends_with_its_callers_time(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    make_server(work.do, add, cancellable=True)
    client = make_client()
    client.call.add(1, 2)
    late = begun_in_time(lambda timeout: client.defer(timeout=timeout).do(), lambda: work.begun)
    with pytest.raises(NoResult):
        late.get()
    wait_until(lambda: len(work.ended) == len(work.begun))
    assert {how for _, how in work.ended} == {"cancelled"}


def test_a_shield_holds_a_cancellation_off(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    done: list[str] = []
    calls: list[amphora.CallContext] = []
    go = Event()

    def careful() -> None:
        try:
            with amphora.shield():
                with amphora.shield():
                    calls.append(amphora.current())
                    go.wait()
                done.append("shielded")
            done.append("not reached")
        except amphora.Cancel:
            done.append("cancelled")
            raise

    make_server(careful, cancellable=True)
    result = make_client().defer.careful()
    wait_until(lambda: calls)
    result.cancel()
    wait_until(lambda: calls[0].cancelled)
    gevent.sleep(0.1)
    assert done == []
    go.set()
    wait_until(lambda: done == ["shielded", "cancelled"])
    with amphora.shield():  # which does nothing outside of a handler
        pass


def test_a_shield_in_a_greenlet_of_the_call_holds_its_cancellation_off_to_the_end_of_the_block(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    inside, go, ended = Event(), Event(), []

    def careful() -> None:
        with amphora.shield():
            inside.set()
            go.wait()
            ended.append("shielded")
        Event().wait()

    def work() -> None:
        greenlet = amphora.spawn(careful)
        try:
            greenlet.join()
        except amphora.Cancel:
            ended.append("cancelled")
            raise
        finally:
            greenlet.kill()

    make_server(work, cancellable=True)
    # Its deadline, at which it ends as well, is far away.
    result = make_client(timeout=600).defer.work()
    inside.wait()
    result.cancel()
    gevent.sleep(0.1)
    assert ended == []
    go.set()
    wait_until(lambda: ended == ["shielded", "cancelled"])


def test_a_shield_in_a_thread_holds_the_end_of_its_function_off_to_the_end_of_the_block(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    late, go, end = threading.Event(), threading.Event(), threading.Event()

    def careful() -> None:
        with amphora.shield():
            while not amphora.current().cancelled:
                time.sleep(0.01)
            late.set()
            go.wait()
        end.wait()

    make_server().add_function(careful, threadpool=True, timeout=1.0)
    result = make_client().defer.careful()
    try:
        wait_until(late.is_set)
        gevent.sleep(0.1)
        assert not result.ready()
        go.set()
        with pytest.raises(amphora.TimedOut):
            result.get()
    finally:
        go.set()
        end.set()


def test_a_handler_that_goes_on_after_its_cancellation_is_not_answered(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()

    def stubborn() -> str:
        with suppress(amphora.Cancel):
            work.do("stubborn")
        return "all the same"

    def broken() -> None:
        try:
            work.do("broken")
        finally:
            raise ValueError("while it ended")

    server = make_server(stubborn, broken, cancellable=True)
    failed: list[str] = []
    server.on_error(lambda name, error: failed.append(f"{name}: {error}"))
    client = make_client()
    results = [client.defer.stubborn(), client.defer.broken()]
    wait_until(lambda: len(work.begun) == 2)
    for result in results:
        result.cancel()
    wait_until(lambda: server.statistics.cancelled == 2)
    assert failed == ["broken: while it ended"]
    assert client.unexpected_responses == 0


def test_a_handler_that_raises_cancel_by_itself_has_raised(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def give_up() -> None:
        raise amphora.Cancel("not asked for")

    make_server(give_up, cancellable=True)
    with pytest.raises(RemoteException, match="Cancel: not asked for"):
        make_client().call.give_up()


def test_the_thread_of_a_function_learns_that_it_is_cancelled(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    begun: list[bool] = []
    seen: list[bool] = []

    def compute() -> None:
        begun.append(True)
        while not amphora.current().cancelled:
            time.sleep(0.01)
        seen.append(True)

    make_server(cancellable=True).add_function(compute, threadpool=True)
    result = make_client().defer.compute()
    wait_until(lambda: begun)
    result.cancel()
    wait_until(lambda: seen)


@pytest.mark.parametrize("limit", [None, 60])
def test_the_thread_of_a_cancellable_function_learns_that_its_callers_time_is_over(
    make_server: MakeServer, make_client: MakeClient, limit: float | None
) -> None:
    begun: list[str] = []
    saw: list[float | None] = []
    let_go = threading.Event()

    def compute(name: str) -> None:
        begun.append(name)
        call = amphora.current()
        while not call.cancelled and not let_go.is_set():
            time.sleep(0.01)
        saw.append(call.remaining())

    terms: dict[str, Any] = {} if limit is None else {"timeout": limit}
    server = make_server(cancellable=True, serve=False)
    server.add_function(compute, threadpool=True, **terms)
    server.add_function(compute, name="goes_on", threadpool=True, cancellable=False, **terms)
    server.serve()
    client = make_client()
    begun_in_time(lambda timeout: client.defer(timeout=timeout).compute("a"), lambda: begun)
    wait_until(lambda: len(saw) == len(begun))
    told = len(saw)
    late = begun_in_time(
        lambda timeout: client.defer(timeout=timeout).goes_on("b"), lambda: "b" in begun
    )
    with pytest.raises(NoResult):
        late.get()
    gevent.sleep(0.2)  # long enough for what must not happen
    assert len(saw) == told
    let_go.set()
    wait_until(lambda: len(saw) == len(begun))
    assert set(saw) == {0.0}


def test_a_receivers_handler_is_cancelled_and_the_receiver_goes_on(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    work = Work()
    server = make_server(work.do, serve=False, cancellable=True)
    server.add_function(add)
    client = make_client()
    client.create_new_request_queue("key")
    receiving = server.receive_from_queue("key", block=False)
    result = client.defer(routing_key="key").do("it")
    wait_until(lambda: work.begun)
    result.cancel()
    assert client.call(routing_key="key").add(1, 2) == 3
    assert work.ended == [("it", "cancelled")]
    receiving.stop()


def test_a_receiver_begins_nothing_before_its_worker_can_be_told(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, go = Work(), Event()
    server = make_server(work.do, serve=False, cancellable=True)
    listening = server._worker.control.consumer
    restore = listening.restore

    def restore_late(connection: Connection) -> None:
        go.wait()
        restore(connection)

    monkeypatch.setattr(listening, "restore", restore_late)
    client = make_client()
    client.create_new_request_queue("key")
    receiving = server.receive_from_queue("key", block=False)
    result = client.defer(routing_key="key", wait_publish=True).do("it")
    gevent.sleep(0.2)  # long enough for what must not happen
    assert work.begun == []
    go.set()
    wait_until(lambda: work.begun)
    result.cancel()
    wait_until(lambda: work.ended == [("it", "cancelled")])
    receiving.stop()


def test_middleware_sees_a_cancellation(make_server: MakeServer, make_client: MakeClient) -> None:
    work, seen = Work(), []
    server = make_server(work.do, cancellable=True)

    @server.middleware
    def watch(call: amphora.CallContext, proceed: Any) -> Any:
        try:
            return proceed()
        except BaseException as error:
            seen.append((type(error), call.cancelled))
            raise

    result = make_client().defer.do()
    wait_until(lambda: work.begun)
    result.cancel()
    wait_until(lambda: seen)
    assert seen == [(amphora.Cancel, True)]


@pytest.mark.parametrize("cancellable", [False, True])
@pytest.mark.parametrize("kind", ["call", "thread", "stream", "shielded"])
def test_a_call_that_is_cancelled_while_middleware_waits_is_not_begun(
    make_server: MakeServer, make_client: MakeClient, cancellable: bool, kind: str
) -> None:
    begun: list[bool] = []
    waiting: list[amphora.CallContext] = []
    go = Event()
    server = make_server(serve=False)

    def function() -> None:
        begun.append(True)

    def stream() -> Iterator[int]:
        begun.append(True)
        yield 1

    if kind == "stream":
        server.add_function(stream, cancellable=cancellable)
    else:
        server.add_function(function, cancellable=cancellable, threadpool=kind == "thread")

    @server.middleware
    def slow(call: amphora.CallContext, proceed: Any) -> Any:
        with amphora.shield() if kind == "shielded" else nullcontext():
            waiting.append(call)
            go.wait()
        return proceed()

    server.serve()
    client = make_client()
    asked = client.stream.stream() if kind == "stream" else client.defer.function()
    wait_until(lambda: waiting)
    asked.cancel()
    wait_until(lambda: waiting[0].cancelled)
    gevent.sleep(0.1)
    go.set()
    wait_until(lambda: server.statistics.cancelled == 1)
    assert begun == []


# -- strangers and races --------------------------------------------------------------------------


def test_a_call_whose_time_is_over_when_middleware_goes_on_is_not_begun(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    begun: list[str] = []
    waiting: list[amphora.CallContext] = []
    statuses: list[str] = []
    server = make_server(begun.append, serve=False)
    server.on_done(lambda call, outcome: statuses.append(outcome.status))

    @server.middleware
    def wait(call: amphora.CallContext, proceed: Any) -> Any:
        if "waits" in call.headers:
            waiting.append(call)
            wait_until(lambda: call.remaining() == 0.0)
        return proceed()

    server.serve()
    client = make_client()
    late = begun_in_time(
        lambda timeout: client.defer(timeout=timeout, headers={"waits": True}).append("late"),
        lambda: waiting,
    )
    wait_until(lambda: len(statuses) == len(waiting))
    with pytest.raises(NoResult):
        late.get()
    assert set(statuses) == {"Cancelled"}
    client.call.append("in time")
    assert begun == ["in time"]


def test_a_strangers_cancel_hits_nobody_else(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    work = Work()
    server = make_server(work.do, cancellable=True)
    server.add_function(add)
    with RawClient(broker, namespace) as victim, RawClient(broker, namespace) as stranger:
        victim.request("do", "it", message_id="1", correlation_id="1")
        wait_until(lambda: work.begun)

        def say(body: bytes, **properties: Any) -> None:
            values = {"message_type": "cancel", "reply_to": stranger.client_id, **properties}
            exchange = f"rpc_{namespace}_control"
            stranger.channel.publish(exchange, "", Properties(**values), body)

        say(encode_cancels([Unwanted("1", 60.0)]))
        say(encode_cancels([Unwanted("1", 60.0)]), reply_to=None)
        say(encode_cancels([Unwanted("1", 60.0)]), reply_to=victim.client_id, message_type="credit")
        say(b"\xff{")
        say(b'[["1"]]', reply_to=victim.client_id)
        say(b'[["1", "soon"]]', reply_to=victim.client_id)
        say(encode_cancels([Unwanted("1", 60.0)] * 501), reply_to=victim.client_id)
        say(encode_cancels([Unwanted("seen", 60.0)]))
        wait_until(lambda: len(server._worker.requests.admission.cancelled) == 2)
        assert make_client().call.add(1, 2) == 3
        assert not work.ended
        work.let_go()
        assert victim.answer() == {"result": "it"}


def test_cancels_race_with_answers_and_each_call_ends_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    calls = 1000
    order = random.Random(7)

    def work(seconds: float) -> float:
        gevent.sleep(seconds)
        return seconds

    server = make_server(work, cancellable=True)
    client = make_client(timeout=20)
    ended: list[str] = []

    def one(seconds: float, patience: float) -> None:
        result = client.defer.work(seconds)
        gevent.sleep(patience)
        result.cancel()
        try:
            assert result.get() == seconds
            ended.append("answered")
        except Cancelled as error:
            # One that had not left is never sent.
            ended.append("unsent" if error.executed is False else "cancelled")

    # About as long as a call takes here while 20 of them run.
    took: list[float] = []

    def caller(count: int) -> None:
        for _ in range(count):
            one(order.uniform(0, 0.006), order.uniform(0, 2 * took[-1]))

    def untroubled() -> None:
        for _ in range(5):
            began = monotonic()
            client.call.work(0.003)
            took.append(monotonic() - began)

    gevent.joinall([gevent.spawn(untroubled) for _ in range(20)], raise_error=True)
    gevent.joinall([gevent.spawn(caller, calls // 20) for _ in range(20)], raise_error=True)
    assert len(ended) == calls
    # How many of each is up to the machine.
    assert "cancelled" in ended
    assert client.pending == 0
    # Some may still be in the queue.
    expected = calls + len(took) - ended.count("unsent")
    wait_until(lambda: server.processed + server.statistics.cancelled >= expected)
    wait_until(lambda: server.running == 0)
    assert server.processed + server.statistics.cancelled == expected


def test_what_is_kept_of_cancelled_requests_is_bounded_and_ends() -> None:
    kept = EarlyCancels()
    for number in range(MOST_KEPT + 5):
        kept.add("client", str(number), 1e9 if number % 2 else LONGEST_KEPT)
    assert len(kept) == MOST_KEPT
    assert not kept.take("client", "0")
    assert kept.take("client", str(MOST_KEPT))
    assert not kept.take("client", str(MOST_KEPT))
    for left in (0.0, -1.0, float("nan")):
        kept.add("other", "1", left)
        assert not kept.take("other", "1")
    kept = EarlyCancels()
    kept.add("client", "1", 0.01)
    wait_until(lambda: len(kept) == 0)


# -- older servers --------------------------------------------------------------------------------


def test_a_client_that_cancelled_before_there_was_a_server_can_tell_later_ones(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REFUSED_FOR", 0.2)
    client, work = make_client(), Work()
    client.defer(wait_publish=True).do("early").cancel()
    wait_until(lambda: client._calls.control._reported)
    wait_until(lambda: not client._calls.control.refused)
    make_server(work.do, cancellable=True)
    result = client.defer.do("late")
    wait_until(lambda: "late" in work.begun)
    result.cancel()
    wait_until(lambda: work.ended == [("late", "cancelled")])
    work.let_go()


def test_where_nobody_can_be_told_calls_are_cancelled_all_the_same(
    make_client: MakeClient, broker: Broker, namespace: str, make_session: MakeSession
) -> None:
    with RawServer(broker, namespace) as old:
        client = make_client()
        result = client.defer.f()
        request = old.receive()
        result.cancel()
        with pytest.raises(Cancelled):
            result.get()
        wait_until(lambda: client._calls.control._reported)
        again = client.defer.f()
        old.respond(old.receive(), b'{"result": 3}')
        assert again.get() == 3
        old.respond(request, b'{"result": 4}')
        wait_until(lambda: client.unexpected_responses == 1)
