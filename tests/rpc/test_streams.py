"""Streams: items one after the other, with flow control, through every fault."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

import amphora
from amphora import AmqpRpcClient, AmqpRpcServer, ManagementClient
from amphora.errors import (
    Cancelled,
    Denied,
    NoResult,
    RemoteException,
    StreamLost,
    WrongRequest,
    WrongResult,
)
from amphora.net import clock
from amphora.rpc.contract.control import Credit, Unwanted, encode_cancels, encode_credits
from amphora.rpc.contract.serializers import JSON, MSGPACK, Serializer
from amphora.rpc.contract.streams import (
    BESIDE_BYTES,
    UNDER_WAY_BYTES,
    WINDOW,
    WINDOW_BYTES,
    join_items,
    split_items,
)
from amphora.rpc.server.requests import pool
from amphora.rpc.server.requests.attempts import Attempts
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from tests.support.brokers import Broker, ManagedBroker
from tests.support.raw import RawClient, RawServer
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, RunProgram, add
from tests.support.waiting import TooLate, wait_until


class Source:
    """A generator function that tells what it does."""

    def __init__(self) -> None:
        self.begun = 0
        self.yielded = 0
        self.ended: list[str] = []

    def count(self, most: int, pause: float | None = None) -> Generator[int, None, str]:
        """Yield 0, 1 and so on, and return "the end"."""
        self.begun += 1
        how = "closed"
        try:
            for number in range(most):
                if pause is not None:
                    gevent.sleep(pause)
                self.yielded = number + 1
                yield number
            how = "ended"
            return "the end"
        except amphora.Cancel:
            how = "cancelled"
            raise
        finally:
            self.ended.append(how)


@pytest.fixture
def source() -> Source:
    return Source()


def open_streams(server: AmqpRpcServer) -> int:
    return len(server._worker.outlets)


def test_items_come_in_order_and_a_result_behind_them(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    server = make_server(source.count)
    client = make_client()
    for most in (0, 1, 3, WINDOW, 10 * WINDOW + 1):
        stream = client.stream.count(most)
        assert list(stream) == list(range(most))
        assert (stream.result, stream.received) == ("the end", most)
        assert list(stream) == []
    wait_until(lambda: open_streams(server) == 0 and server.running == 0)
    assert source.ended == ["ended"] * 5
    assert (server.processed, client.pending, client.unexpected_responses) == (5, 0, 0)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_items_are_whatever_a_result_may_be(
    make_server: MakeServer, make_client: MakeClient, serializer: Any
) -> None:
    values: list[Any] = [None, 1, "x" * 100, {"a": [1, {"b": None}]}, [], True, 2.5]

    def all_of_them() -> Iterator[Any]:
        yield from values

    make_server(all_of_them)
    assert list(make_client(serializer=serializer).stream.all_of_them()) == values


def test_the_server_is_never_further_ahead_than_the_credit(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    make_server(source.count)
    stream = make_client().stream(credit=10).count(100)
    wait_until(lambda: source.yielded == 10)
    gevent.sleep(0.1)
    assert source.yielded == 10
    for number in range(100):
        assert next(stream) == number
        gevent.sleep(0)
        assert source.yielded <= number + 1 + 10
    assert list(stream) == []


def test_large_items_are_bounded_in_bytes(make_server: MakeServer, make_client: MakeClient) -> None:
    made: list[int] = []

    def large(size: int) -> Iterator[str]:
        for number in range(12):
            made.append(number)
            yield chr(ord("a") + number) * size

    make_server(large)
    client = make_client()
    mib = 1024 * 1024
    stream = client.stream.large(mib)
    wait_until(lambda: len(made) >= 3)
    gevent.sleep(0.2)
    # One is made, and waits for the room that it needs.
    assert len(made) <= WINDOW_BYTES // mib + 1
    assert [len(item) for item in stream] == [mib] * 12
    # An item that is larger than the window goes alone.
    made.clear()
    stream = client.stream.large(WINDOW_BYTES + mib)
    wait_until(lambda: made)
    gevent.sleep(0.2)
    assert len(made) <= 2
    assert next(stream)[0] == "a"
    stream.close()


@pytest.mark.parametrize("how", ["closed", "left", "dropped", "block", "killed"])
def test_a_stream_that_is_let_go_ends_at_its_server(
    make_server: MakeServer, make_client: MakeClient, source: Source, how: str
) -> None:
    server = make_server(source.count)
    client = make_client()

    def read() -> None:
        for number in client.stream.count(10_000, 0.01):
            if number == 3:
                if how == "killed":
                    gevent.sleep(60)
                return

    if how == "closed":
        stream = client.stream.count(10_000, 0.01)
        assert next(stream) == 0
        stream.close()
        stream.close()
        assert list(stream) == []
    elif how == "left":
        read()
    elif how == "dropped":
        stream = client.stream.count(10_000, 0.01)
        assert next(stream) == 0
        del stream
        gc.collect()
    elif how == "block":
        with client.stream.count(10_000, 0.01) as stream:
            assert next(stream) == 0
    else:
        reading = gevent.spawn(read)
        wait_until(lambda: source.yielded > 4)
        reading.kill()
    wait_until(lambda: source.ended)
    assert source.ended[0] != "ended"
    wait_until(lambda: open_streams(server) == 0 and client.pending == 0)
    assert server.statistics.cancelled == 1
    made = source.yielded
    gevent.sleep(0.1)
    assert source.yielded == made


def test_what_is_collected_in_another_thread_ends_and_harms_nothing(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    gate = Gate()
    make_server(source.count, gate.hold)
    client = make_client()

    def drop_in_cycles() -> None:
        stream = client.stream.count(10**9)
        next(stream)
        for dropped in (stream, client.defer.hold(1)):
            cycle: list[Any] = [dropped]
            cycle.append(cycle)

    gc.disable()
    try:
        drop_in_cycles()
        wait_until(lambda: gate.entered)
        thread = threading.Thread(target=gc.collect)
        thread.start()
        wait_until(lambda: not thread.is_alive())
    finally:
        gc.enable()
    wait_until(lambda: source.ended)
    wait_until(lambda: client.pending == 0)
    # The server is still told how far streams may go.
    assert list(client.stream(credit=1).count(100)) == list(range(100))
    gate.open()


def test_a_call_and_a_stream_are_ended_from_another_thread(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    ended: list[str] = []

    def wait() -> None:
        try:
            Event().wait()
        except amphora.Cancel:
            ended.append("cancelled")
            raise

    make_server(source.count, wait, cancellable=True)
    client = make_client(timeout=600)
    stream, result = client.stream.count(10**9), client.defer.wait()
    next(stream)
    said: list[bool] = []

    def end() -> None:
        stream.close()
        said.append(result.cancel())

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(Cancelled):
        result.get(timeout=40)
    wait_until(lambda: source.ended)
    wait_until(lambda: ended)
    assert said == [True]
    assert list(stream) == []
    assert client.pending == 0


def test_another_thread_cannot_read_a_stream_and_does_it_no_harm(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    make_server(source.count)
    stream = make_client().stream(credit=2).count(100)
    assert next(stream) == 0
    raised: list[BaseException] = []

    def read_there() -> None:
        try:
            next(stream)
        except BaseException as error:  # noqa: BLE001 (looked at below)
            raised.append(error)

    thread = threading.Thread(target=read_there)
    thread.start()
    wait_until(lambda: not thread.is_alive())
    assert [type(error) for error in raised] == [RuntimeError]
    assert "is read in another thread" in str(raised[0])
    assert list(stream) == list(range(1, 100))


def test_a_stream_ends_with_its_reader_that_is_killed_while_it_waits(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    came: list[int] = []
    ended = Event()

    def slow() -> Iterator[int]:
        try:
            yield 1
            gevent.sleep(60)
        finally:
            ended.set()

    make_server(slow)
    client = make_client()

    def read() -> None:
        for number in client.stream.slow():
            came.append(number)

    reading = gevent.spawn(read)
    wait_until(lambda: came)
    # The greenlet is kept, and the error that ends it.
    reading.kill()
    assert client.pending == 0
    assert ended.wait(20)


def test_a_client_that_is_closed_behind_the_end_has_told_its_server_that_all_has_come(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    server = make_server(source.count)
    client = make_client()
    assert list(client.stream.count(3)) == [0, 1, 2]
    client.close()
    # Otherwise its server would keep the items for half a minute, also when it stops.
    wait_until(lambda: server.streams == server.running == 0, timeout=20)
    assert server.lost_responses == 0


def test_a_program_that_ends_behind_its_stream_has_told_its_server_that_all_has_come(
    make_server: MakeServer, run_program: RunProgram, source: Source
) -> None:
    server = make_server(source.count)
    program = run_program("careless", "read")
    assert program.wait() == 0
    wait_until(lambda: server.streams == server.running == 0, timeout=20)
    assert (source.ended, server.lost_responses) == (["ended"] * 2, 0)


def test_a_program_that_ends_with_open_streams_and_calls_says_nothing_else(
    make_server: MakeServer,
    run_program: RunProgram,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At the end of a Python, code that marks its branches has nothing left to mark them in.
    monkeypatch.delenv("AMPHORA_BRANCHES", raising=False)
    gate = Gate()
    make_server(source.count, gate.hold)
    program = run_program("careless", "reading")
    assert program.wait() == 0
    assert "__del__" not in program.output
    assert "Traceback" not in program.output
    gate.open()


@pytest.mark.parametrize("how", ["closed before", "left open"])
def test_a_client_that_is_closed_at_once_has_ended_its_streams(
    make_server: MakeServer, make_client: MakeClient, source: Source, how: str
) -> None:
    server = make_server(source.count)
    client = make_client()
    # So slow that none of them waits for its reader, where it is closed instead of cancelled.
    streams = [client.stream.count(10_000, 0.5) for _ in range(3)]
    assert [next(stream) for stream in streams] == [0] * 3
    if how == "closed before":
        for stream in streams:
            stream.close()
    client.close()
    # A killed process would be missed after half a minute.
    wait_until(lambda: source.ended == ["cancelled"] * 3, timeout=20)
    wait_until(lambda: open_streams(server) == 0)
    if how == "left open":
        with pytest.raises(StreamLost, match="the client was closed") as caught:
            list(streams[0])
        assert caught.value.received == streams[0].received > 0


def test_a_stream_that_may_not_be_interrupted_ends_at_its_next_item(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    calls: list[amphora.CallContext] = []
    inside, go, ended = Event(), Event(), []

    def careful() -> Iterator[int]:
        calls.append(amphora.current())
        try:
            yield 1
            inside.set()
            go.wait()
            yield 2
        finally:
            ended.append("closed")

    make_server().add_function(careful, cancellable=False)
    stream = make_client().stream.careful()
    inside.wait()
    stream.close()
    wait_until(lambda: calls[0].cancelled, "the worker knows that nobody reads it")
    gevent.sleep(0.1)
    assert ended == []
    go.set()
    wait_until(lambda: ended == ["closed"])


@pytest.mark.parametrize("cancellable", [False, True])
def test_a_shield_holds_the_end_of_a_stream_off_although_it_yields(
    make_server: MakeServer, make_client: MakeClient, cancellable: bool
) -> None:
    done: list[str] = []
    go = Event()

    calls: list[amphora.CallContext] = []

    def careful() -> Iterator[int]:
        calls.append(amphora.current())
        try:
            with amphora.shield():
                yield 1
                go.wait()
                # Many more than its caller would ever take.
                yield from range(2 * WINDOW)
                done.append("shielded")
            yield 2
            done.append("not reached")
        finally:
            done.append("closed")

    server = make_server()
    server.add_function(careful, cancellable=cancellable)
    stream = make_client().stream.careful()
    next(stream)
    stream.close()
    wait_until(lambda: calls[0].cancelled)
    assert done == []
    go.set()
    wait_until(lambda: done == ["shielded", "closed"])
    wait_until(lambda: not open_streams(server))


def test_what_a_stream_raises_comes_behind_its_items(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def breaks() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    @server.add_function
    def unsendable() -> Iterator[Any]:
        yield 1
        yield object()

    client = make_client()
    for function, error, text in (
        (client.stream.breaks, RemoteException, "ValueError: broken"),
        (client.stream.unsendable, WrongResult, "an item of .*unsendable cannot be sent"),
    ):
        stream: amphora.Stream = function()
        items: list[Any] = []
        with pytest.raises(error, match=text):
            items.extend(iter(stream.__next__, None))
        with pytest.raises(error, match=text):
            next(stream)
        assert stream.received == len(items) or stream.received > 0
    assert server.exceptions == 2


def test_the_part_of_an_item_is_named_that_cannot_be_sent(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def rows() -> Iterator[Any]:
        yield {"rows": [1, 2]}
        yield {"rows": [1, object()]}

    @server.add_function
    def large() -> Iterator[Any]:
        yield "x" * (17 * 1024 * 1024)

    client = make_client()
    rest = client.stream.rows()
    assert next(rest) == {"rows": [1, 2]}
    with pytest.raises(WrongResult, match=r'rows cannot be sent: item\["rows"\]\[1\]: type object'):
        next(rest)
    with pytest.raises(WrongResult, match=r"large cannot be sent: it has \d+ bytes"):
        next(client.stream.large())


def test_a_generator_passes_on_the_items_and_the_result_of_a_stream(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    client = make_client()

    def passed_on(most: int) -> Generator[Any, Any, Any]:
        result = yield from client.stream.count(most)
        return [result, most]

    make_server(source.count, passed_on)
    stream = client.stream.passed_on(3)
    assert list(stream) == [0, 1, 2]
    assert stream.result == ["the end", 3]
    for _ in range(2):
        with pytest.raises(StopIteration) as end:
            next(stream)
        assert end.value.value == ["the end", 3]


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_copied_or_sent_and_goes_on(
    make_server: MakeServer, make_client: MakeClient, source: Source, way: Callable[[Any], Any]
) -> None:
    make_server(source.count)
    stream = make_client().stream.count(3)
    # The end of a copy would be the end of the stream.
    with pytest.raises(TypeError, match=r"^<Stream .*> cannot be copied or sent"):
        way(stream)
    assert list(stream) == [0, 1, 2]


def test_calls_and_streams_are_told_apart(
    make_server: MakeServer, make_client: MakeClient, namespace: str, source: Source
) -> None:
    server = make_server(source.count, add)
    server.add_function(source.count, name="secret", allow={"nobody"})
    client = make_client()
    for ask, error, text in (
        (lambda: client.call.count(3), WrongRequest, rf"{namespace}.count is a stream"),
        (lambda: next(client.stream.add(1, 2)), WrongRequest, r"is not a stream: call it"),
        (lambda: next(client.stream.nothing()), WrongRequest, "has no function 'nothing'"),
        (lambda: next(client.stream.count()), WrongRequest, "missing"),
        (lambda: next(client.stream.secret(1)), Denied, "may not call"),
    ):
        with pytest.raises(error, match=text) as caught:
            ask()
        assert caught.value.executed is False
    assert source.yielded == 0
    with pytest.raises(TypeError, match="not a generator function"):
        server.add_function(add, name="other", resumable=True)
    with pytest.raises(TypeError, match="cannot run in a thread"):
        server.add_function(source.count, name="thread", threadpool=True)
    with pytest.raises(ValueError, match="credit"):
        client.stream(credit=0).count(1)


def test_a_stream_has_a_time_for_all_of_it_and_one_between_items(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    make_server(source.count)
    client = make_client()

    def idle(seconds: float) -> str:
        with pytest.raises(NoResult) as caught:
            list(client.stream(idle_timeout=seconds).count(3, 1000.0))
        return str(caught.value)

    # On a busy machine it may not have begun in that time.
    seconds = 0.2
    while not re.search(rf"no item of .*count within {seconds:g} s", idle(seconds)):
        seconds *= 2
    wait_until(lambda: len(source.ended) == source.begun > 0)
    before = source.begun
    stream, unread = (client.stream(timeout=8).count(1000, 0.05) for _ in range(2))
    with pytest.raises(NoResult, match=r"has not ended in time: \d+ items had come"):
        list(stream)
    assert stream.received > 0
    # Whoever comes late finds what was there in time.
    wait_until(lambda: unread._call.failed)
    with pytest.raises(NoResult, match=r"has not ended in time: \d+ items had come") as caught:
        list(unread)
    assert f": {unread.received} items had come" in str(caught.value)
    wait_until(lambda: len(source.ended) == before + 2)
    assert "ended" not in source.ended
    # The client's timeout is for the beginning.
    assert len(list(make_client(timeout=8).stream.count(17, 0.5))) == 17


def test_a_stream_that_nobody_begins_fails_in_time(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    server.stop()
    client = make_client(timeout=2.0)
    # Where the machine is busy, to connect takes longer than such a stream may.
    for link in (client.session.publishing, client.session.consuming):
        link.start()
        link.wait_connected(30.0)
    for stream in (client.stream(timeout=2.0).count(3), client.stream.count(3)):
        with pytest.raises(NoResult, match=r"within 2 s: no server of .* is running"):
            next(stream)
    assert client.pending == 0


def test_where_no_server_has_streams_it_is_said_at_once(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    with RawServer(broker, namespace):
        client = make_client()
        with pytest.raises(WrongRequest, match="run an older amphora") as caught:
            client.stream.count(3)
        assert caught.value.executed is False
        assert client.pending == 0


def test_a_client_that_could_tell_nobody_before_there_was_a_server_reads_streams(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    client = make_client()
    client.defer(wait_publish=True).count(3).cancel()
    wait_until(lambda: client._calls.control._reported)
    make_server(source.count)
    assert list(client.stream(credit=5).count(100)) == list(range(100))


def test_an_older_server_that_calls_the_function_is_an_error_and_no_empty_stream(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    # One of before there were streams, beside newer ones.
    with RawServer(broker, namespace) as raw:
        client = make_client()
        client._calls.streams._known = True
        stream = client.stream.count(3)
        raw.respond(receive_stream(raw), b'{"result": 3}')
        with pytest.raises(WrongResult, match=r"count ran as a plain call: .* an older amphora"):
            next(stream)
        assert client.pending == 0


def test_a_stream_made_in_a_handler_ends_with_it(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    client = make_client()

    def relay(most: int) -> Iterator[Any]:
        for item in client.stream.count(most, 0.01):
            yield [item, amphora.current().function, amphora.current().headers.get("a")]

    make_server(source.count, relay)
    assert list(client.stream(headers={"a": 1}).relay(2)) == [[0, "relay", 1], [1, "relay", 1]]
    stream = client.stream.relay(10_000)
    assert next(stream)[0] == 0
    stream.close()
    wait_until(lambda: len(source.ended) == 2)


def test_middleware_of_both_sides_sees_streams(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    server = make_server(source.count)
    client = make_client()
    seen: list[Any] = []

    @server.middleware
    def double(call: amphora.CallContext, proceed: Any) -> Any:
        items = proceed()

        def doubled() -> Iterator[int]:
            for item in items:
                yield 2 * item

        return doubled()

    @client.use
    def note(call: amphora.OutgoingCall, proceed: Any) -> Any:
        seen.append((call.mode, call.function))
        return proceed()

    assert list(client.stream.count(3)) == [0, 2, 4]
    assert seen == [("stream", "count")]


@pytest.mark.parametrize("returned", [None, "text", b"bytes", {"a": 1}, 7])
def test_middleware_that_returns_no_items_for_a_stream_is_named(
    make_server: MakeServer, make_client: MakeClient, source: Source, returned: Any
) -> None:
    server = make_server(source.count, serve=False)

    @server.middleware
    def forgetful(_: amphora.CallContext, proceed: Any) -> Any:
        proceed()
        return returned

    server.serve()
    kind = type(returned).__name__
    with pytest.raises(WrongResult, match=rf"middleware returned {kind} for the stream count"):
        next(make_client().stream.count(3))


def test_many_greenlets_take_from_one_stream(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    make_server(source.count)
    stream = make_client().stream(credit=7).count(300)
    taking = [gevent.spawn(list, stream) for _ in range(5)]
    gevent.joinall(taking, raise_error=True)
    taken = [item for each in taking for item in each.get()]
    assert sorted(taken) == list(range(300))


def test_a_stream_is_not_idle_for_a_greenlet_while_others_take_what_comes(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    make_server(source.count)
    stream = make_client().stream(idle_timeout=8.0).count(30, 0.3)
    # One takes nearly all, and the others wait all the time.
    taking = [gevent.spawn(list, stream) for _ in range(3)]
    gevent.joinall(taking, raise_error=True)
    assert sorted(item for each in taking for item in each.get()) == list(range(30))


def test_of_large_items_less_is_under_way_where_calls_are_answered_too(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amphora.rpc.server.streams.streaming.BESIDE", 600.0)
    server = make_server(add)

    @server.add_function
    def large() -> Iterator[str]:
        while True:
            yield "x" * 2**20

    client = make_client()
    with client.stream.large() as stream:
        assert len(next(stream)) == 2**20
        (outlet,) = server._worker.outlets._open.values()
        assert outlet._most_under_way == UNDER_WAY_BYTES
        assert client.call.add(1, 2) == 3
        assert outlet._most_under_way == BESIDE_BYTES


def test_a_client_has_many_streams_at_once(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    server = make_server(source.count)
    client = make_client()
    streams = [client.stream.count(3) for _ in range(300)]
    firsts = [next(stream) for stream in streams]
    assert firsts == [0] * 300
    assert [list(stream) for stream in streams] == [[1, 2]] * 300
    wait_until(lambda: open_streams(server) == 0 and client.pending == 0)


def test_streams_take_no_place_at_their_server_until_there_are_very_many(
    make_server: MakeServer,
    make_client: MakeClient,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "MOST_STREAMS", 3)
    server = make_server(source.count, add, concurrency=1)
    client = make_client()
    streams = [client.stream(credit=2).count(1000) for _ in range(3)]
    assert [next(stream) for stream in streams] == [0, 0, 0]
    assert client.call.add(1, 2) == 3
    # One more takes the place, and calls wait for its end, or for another server.
    streams.append(client.stream(credit=2).count(1000))
    assert next(streams[-1]) == 0
    waiting = client.defer.add(3, 4)
    wait_until(lambda: not client.session.publisher.unconfirmed)
    gevent.sleep(0.1)
    assert (waiting.ready(), server.running) == (False, 4)
    streams[-1].close()
    assert waiting.get() == 7
    for stream in streams:
        stream.close()


def test_a_receiver_serves_streams(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    server = make_server(source.count, serve=False)
    client = make_client()
    client.create_new_request_queue("key")
    receiving = server.receive_from_queue("key", block=False)
    wait_until(lambda: server._worker.control.address is not None)
    client._calls.streams._known = True
    assert list(client.stream(routing_key="key").count(50)) == list(range(50))
    receiving.stop()


def test_a_server_that_stops_lets_streams_end_and_then_ends_them(
    make_server: MakeServer, make_client: MakeClient, source: Source
) -> None:
    client = make_client()
    server = make_server(source.count)
    stream = client.stream.count(20, 0.01)
    assert next(stream) == 0
    stopping = gevent.spawn(server.stop, timeout=20)
    assert list(stream) == list(range(1, 20))
    stopping.get()
    server = make_server(source.count)
    stream = client.stream.count(10_000, 0.01)
    assert next(stream) == 0
    stopping = gevent.spawn(server.stop, timeout=0.2)
    with pytest.raises(StreamLost, match="was ended before it was done") as caught:
        list(stream)
    assert caught.value.received == stream.received > 0
    stopping.get()


# -- faults ---------------------------------------------------------------------------------------


def test_each_item_comes_once_and_in_order_through_lost_connections(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession, source: Source
) -> None:
    sessions = [make_session(), make_session()]
    make_server(source.count, session=sessions[0])
    client = make_client(session=sessions[1], url=None)
    came = []
    for item in client.stream(credit=8).count(200, 0.002):
        came.append(item)
        if item % 20 == 10:
            session = sessions[item // 20 % 2]
            for link in (session.publishing, session.consuming):
                if link.connection is not None:
                    link.connection.interrupted(OSError("cut"))
    assert came == list(range(200))
    assert source.ended == ["ended"]


def test_a_stream_goes_on_when_the_broker_closes_all_connections(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    source: Source,
) -> None:
    make_server(source.count)
    came = []
    for item in make_client().stream.count(60, 0.01):
        came.append(item)
        if item in (5, 30):
            managed_broker.close_all_connections()
    assert came == list(range(60))


def test_a_stream_that_is_asked_for_in_an_alarm_leaves_the_connection_that_consumes_alone(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    source: Source,
) -> None:
    make_server(source.count, add)
    client = make_client()
    assert client.call.add(1, 2) == 3
    managed_broker.alarm(True)
    try:
        wait_until(lambda: low_on_memory(client))
        with pytest.raises(NoResult):
            list(client.stream(timeout=1.0).count(3))
        # Else it would read no acks either, until the alarm is over.
        assert client.session.consuming.state == "connected"
    finally:
        managed_broker.alarm(False)
    assert list(client.stream.count(3)) == [0, 1, 2]


def low_on_memory(client: AmqpRpcClient) -> bool:
    """Return whether the broker blocks a client that publishes."""
    client.cast.add(1, 2)
    return client.state == "blocked"


def test_one_of_two_runs_reaches_the_caller_and_the_other_is_closed(
    make_client: MakeClient, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()
    with RawServer(broker, namespace) as raw:
        client._calls.streams._known = True
        told: list[tuple[str, str, str]] = []
        monkeypatch.setattr(
            client._calls.control,
            "cancel",
            lambda _, request_id, left, worker, run_id: told.append((request_id, worker, run_id)),
        )
        stream = client.stream.two()
        request = receive_stream(raw)

        def say(worker: str, run: str, kind: str | None, seq: int, body: bytes) -> None:
            numbers = {"x-amphora-run": run} | ({"x-amphora-seq": seq} if seq else {})
            reply = f"rpc_{namespace}_{worker}_control"
            raw.respond(
                request, body, headers=numbers, message_type=kind, app_id=worker, reply_to=reply
            )

        say("one", "1", "started", 0, b"")
        say("two", "2", "started", 0, b"")  # nothing of the first was there, so it counts
        say("one", "1", "item", 1, b'{"result": "wrong"}')
        say("two", "2", "item", 1, b'{"results": ["a", "b"]}')
        say("three", "3", "started", 0, b"")
        say("three", "3", "item", 1, b'{"result": "wrong"}')
        say("two", "2", "item", 4, b'{"result": "too early"}')
        say("three", "3", None, 2, b'{"result": "wrong"}')
        say("two", "2", None, 4, b'{"result": "end"}')
        say("two", "2", "item", 2, b'{"results": ["b", "c"]}')
        assert list(stream) == ["a", "b", "c"]
        assert stream.result == "end"
        asked = request.properties.message_id
        assert told == [(asked, "one", "1"), (asked, "three", "3")]


def test_a_run_whose_id_is_no_text_gets_credit_and_holds_up_no_other(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    """Only a stranger sends one; its credit goes by the same messages as that of all others."""
    client = make_client()
    with RawServer(broker, namespace) as raw:
        client._calls.streams._known = True
        there = f"rpc_{namespace}_one_control"
        raw.channel.exchange_declare(f"rpc_{namespace}_control")
        raw.channel.queue_declare(there, exclusive=True)
        raw.channel.queue_bind(there, f"rpc_{namespace}_control", "one")
        raw.consume(there)
        client._calls.control.open()
        streams = [client.stream.numbers() for _ in range(2)]
        # Lone surrogates are bytes that are no UTF-8.
        for run in ("\udcff\udcfe", "run"):
            request = receive_stream(raw)
            says = {"app_id": "one", "reply_to": there}
            numbers: dict[str, Any] = {"x-amphora-run": run}
            raw.respond(request, b"", headers=numbers, message_type="started", **says)
            numbers["x-amphora-seq"] = 1
            raw.respond(request, b'{"result": 1}', headers=numbers, message_type="item", **says)
        assert [next(stream) for stream in streams] == [1, 1]
        runs: set[str] = set()
        while len(runs) < 2:
            message = raw.receive()
            if message.properties.message_type == "credit":
                runs |= {run for _, run, *_ in json.loads(message.body)}
        assert runs == {r"\udcff\udcfe", "run"}
        client.close()


def receive_stream(raw: RawServer) -> Any:
    while True:
        request = raw.receive()
        if request.properties.message_type == "stream":
            return request


def test_a_stream_whose_worker_is_gone_is_lost_or_goes_on_at_another(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession
) -> None:
    def numbers(most: int) -> Iterator[int]:
        for number in range(amphora.current().after, most):
            gevent.sleep(0.01)
            yield number

    session = make_session()
    server = make_server(session=session)
    server.add_function(numbers)
    server.add_function(numbers, name="resumable", resumable=True)
    client = make_client()
    client.session.endpoint.__dict__["heartbeat"] = 0.2
    lost, goes_on = client.stream.numbers(10_000), client.stream.resumable(150)
    assert (next(lost), next(goes_on)) == (0, 0)
    other = make_server()
    other.add_function(numbers, name="resumable", resumable=True)
    wait_until(lambda: other.ready)
    session.close()
    with pytest.raises(StreamLost, match="is gone") as caught:
        list(lost)
    assert caught.value.received == lost.received > 0
    assert caught.value.executed is None
    assert list(goes_on) == list(range(1, 150))
    assert goes_on.received == 150


def test_a_client_that_falls_silent_ends_its_stream(
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from amphora.rpc.contract import streams

    monkeypatch.setattr(streams, "SILENCE", 1.5)
    server = make_server(source.count)
    ending = Source()
    server.add_function(ending.count, name="ending")

    def read(name: str, most: int, messages: int) -> None:
        with RawClient(broker, namespace) as client:
            client.request(name, most, headers={"x-amphora-allowed": 5}, message_type="stream")
            assert client.receive().properties.message_type == "started"
            # The end may overtake the items: its number tells.
            came = [json.loads(client.receive().body) for _ in range(messages)]
            assert {"results": [0, 1, 2, 3, 4][:most]} in came
            lost = client.receive()
            assert json.loads(lost.body)["exception"]["type"] == "amphora.StreamLost"
            # It stands behind whatever the client has.
            assert "x-amphora-seq" not in (lost.properties.headers or {})

    reading = [gevent.spawn(read, "count", 100, 1), gevent.spawn(read, "ending", 4, 2)]
    gevent.joinall(reading, raise_error=True)
    assert (source.yielded, ending.yielded) == (5, 4)
    wait_until(lambda: (source.ended, ending.ended) == (["closed"], ["ended"]))
    wait_until(lambda: open_streams(server) == 0)


def test_a_stream_does_not_end_well_whose_handler_ends_after_its_client_fell_silent(
    make_server: MakeServer, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amphora.rpc.contract import streams

    monkeypatch.setattr(streams, "SILENCE", 0.5)

    def stubborn() -> Iterator[str]:
        for _ in range(3):
            yield "x" * 1_200_000
        wait_until(lambda: amphora.current().cancelled)

    server = make_server()
    server.add_function(stubborn, cancellable=False)
    with RawClient(broker, namespace) as client:
        client.request("stubborn", headers={"x-amphora-allowed": 5}, message_type="stream")
        came = [client.receive() for _ in range(4)]
    types = [message.properties.message_type for message in came]
    # The third item waits until the others have come.
    assert sorted(map(str, types)) == ["None", "item", "item", "started"]
    end = came[types.index(None)]
    assert json.loads(end.body)["exception"]["type"] == "amphora.StreamLost"
    wait_until(lambda: open_streams(server) == 0)


def test_an_item_that_comes_at_the_deadline_is_taken(
    make_server: MakeServer,
    make_client: MakeClient,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_server(source.count)
    client = make_client()
    monkeypatch.setattr("amphora.rpc.client.streams.stream.Event", TooLate)
    assert list(client.stream(idle_timeout=20).count(3)) == [0, 1, 2]


def test_a_client_that_is_gone_is_told_nothing_more_of_a_stream_that_goes_on(
    make_server: MakeServer, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amphora.rpc.contract import streams

    monkeypatch.setattr(streams, "SILENCE", 0.5)
    gate, calls = Event(), []

    def stubborn() -> Iterator[int]:
        calls.append(amphora.current())
        gate.wait()
        yield from ()

    server = make_server()
    server.add_function(stubborn, cancellable=False)
    with RawClient(broker, namespace) as client:
        client.request("stubborn", headers={"x-amphora-allowed": 5}, message_type="stream")
        assert client.receive().properties.message_type == "started"
        wait_until(lambda: calls and calls[0].cancelled)
        (outlet,) = server._worker.outlets._open.values()
        told = outlet._note
        assert outlet.look(clock.monotonic() + 10 * streams.DOUBT, 0.0) is False
        assert outlet._note is told
    gate.set()
    wait_until(lambda: open_streams(server) == 0)


@pytest.mark.parametrize("most", [0, 3, 100])
def test_a_client_reads_a_stream_of_which_all_but_the_end_is_lost_at_first(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    # As when the broker restarts: neither the note of the beginning nor items are persistent.
    from amphora.rpc.contract import streams

    monkeypatch.setattr(streams, "DOUBT", 0.5)
    server = make_server(source.count)
    client = make_client()
    assert list(client.stream.count(1)) == [0]
    taken: list[Message[Deliver]] = []

    def types() -> set[str | None]:
        return {message.properties.message_type for message in taken}

    with broker.channel() as channel:
        queue = f"rpc_{client.namespace}_{client.client_id}_response"
        first = {"x-priority": 1000}
        channel.consume(queue, taken.append, "first", no_ack=True, arguments=first)
        stream = client.stream(timeout=30).count(most)
        wait_until(lambda: types() >= {"started", None if most < WINDOW else "item"})
        channel.cancel("first")
        for message in taken:
            if message.properties.message_type is None:
                channel.publish("", queue, message.properties, message.body)
    assert list(stream) == list(range(most))
    assert stream.result == "the end"
    wait_until(lambda: open_streams(server) == 0)


def test_a_client_without_a_queue_of_its_own_reads_a_stream(
    make_server: MakeServer, broker: Broker, namespace: str, source: Source
) -> None:
    server = make_server(source.count)
    direct = "amq.rabbitmq.reply-to"
    with RawClient(broker, namespace) as client:
        client.consume(direct)
        asked = client.request(
            "count", 5, headers={"x-amphora-allowed": 3}, message_type="stream", reply_to=direct
        )
        started = client.receive().properties
        assert (started.message_type, started.correlation_id) == ("started", asked)
        run = (started.headers or {})["x-amphora-run"]
        assert json.loads(client.receive().body) == {"results": [0, 1, 2]}
        # The broker puts the address of the channel in place of this name.
        properties = Properties(message_type="credit", reply_to=direct)
        body = json.dumps([[asked, run, 8, 3]]).encode()
        client.channel.publish(f"rpc_{namespace}_control", server.worker_id, properties, body)
        came = [json.loads(client.receive().body) for _ in range(2)]
        assert {"results": [3, 4]} in came
        assert {"result": "the end"} in came


def test_a_caller_that_could_not_say_anything_learns_that_its_stream_has_ended(
    make_server: MakeServer,
    make_client: MakeClient,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As that of a process which was stopped for a while, or of a machine that slept.
    from amphora.rpc.contract import streams

    monkeypatch.setattr(streams, "SILENCE", 1.0)
    monkeypatch.setattr(streams, "CREDIT_INTERVAL", 60.0)
    server = make_server(source.count)
    stream = make_client().stream(credit=4).count(100)
    wait_until(lambda: source.ended == ["closed"])
    with pytest.raises(StreamLost, match="has not heard from the client of the stream") as caught:
        list(stream)
    assert (caught.value.received, caught.value.executed) == (4, None)
    wait_until(lambda: open_streams(server) == 0 and server.running == 0)


# RabbitMQ takes longer to come back; F-03 of the catalogue of faults waits for it.
@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_server_that_cannot_hear_its_clients_does_not_take_them_for_gone(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from amphora.rpc.contract import streams

    # More than it takes to connect again after such a while.
    monkeypatch.setattr(streams, "SILENCE", 8.0)
    server = make_server(source.count)
    stream = make_client().stream(credit=4).count(20)
    assert next(stream) == 0
    managed_broker.stop()
    gevent.sleep(9.5)
    managed_broker.start()
    assert list(stream) == list(range(1, 20))
    assert source.ended == ["ended"]
    wait_until(lambda: open_streams(server) == 0)


def test_a_stream_begins_although_its_server_has_just_lost_the_broker(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate, began = Event(), []

    def hold(number: int) -> Iterator[int]:
        began.append(number)
        gate.wait()
        yield from ()

    server = make_server()
    server.add_function(hold, concurrency=1)
    client = make_client()
    both = [client.stream.hold(number) for number in range(2)]
    wait_until(lambda: (began, server.running) == ([0], 2))
    managed_broker.stop()
    wait_until(lambda: server.session.consuming.connection is None)
    gate.set()
    wait_until(lambda: server.running <= 1)
    managed_broker.start()
    assert [list(stream) for stream in both] == [[], []]
    assert began == [0, 1]


def test_a_server_that_is_held_does_not_take_its_clients_for_gone(
    make_server: MakeServer,
    make_client: MakeClient,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from amphora.rpc.contract import streams

    monkeypatch.setattr(streams, "SILENCE", 4.0)
    make_server(source.count)
    stream = make_client().stream(credit=4).count(20)
    assert next(stream) == 0
    # What the client says is there, but nothing has read it.
    time.sleep(6.0)
    assert list(stream) == list(range(1, 20))
    assert source.ended == ["ended"]


def test_a_stream_goes_on_at_another_server_when_its_own_stops(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def numbers(most: int) -> Iterator[int]:
        for number in range(amphora.current().after, most):
            gevent.sleep(0.01)
            yield number

    servers = [make_server(), make_server()]
    for each in servers:
        each.add_function(numbers, resumable=True)
    stream = make_client().stream.numbers(100)
    assert next(stream) == 0
    (first,) = [each for each in servers if each.running]
    stopping = gevent.spawn(first.stop, timeout=0)
    assert list(stream) == list(range(1, 100))
    assert stream.received == 100
    stopping.get()


def test_a_stream_whose_rest_nobody_begins_is_lost_in_time(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def numbers() -> Iterator[int]:
        yield from range(amphora.current().after, 5)
        gevent.sleep(60)

    server = make_server()
    server.add_function(numbers, resumable=True)
    client = make_client(timeout=8.0)
    stream = client.stream.numbers()
    assert next(stream) == 0
    wait_until(lambda: stream._call.seen == 5)
    server.stop(timeout=0)
    with pytest.raises(StreamLost, match=r"no result of .*numbers within 8 s") as caught:
        list(stream)
    assert caught.value.received == 5
    assert client.pending == 0


def test_a_stream_ends_with_the_worker_whose_run_it_takes(
    make_client: MakeClient, broker: Broker, namespace: str
) -> None:
    client = make_client()
    client.session.endpoint.__dict__["heartbeat"] = 0.2
    with RawServer(broker, namespace) as raw:
        client._calls.streams._known = True
        there = f"rpc_{namespace}_one_control"
        raw.channel.exchange_declare(f"rpc_{namespace}_control")
        raw.channel.queue_declare(there, exclusive=True)
        raw.consume(there)
        stream = client.stream.two()
        request = receive_stream(raw)
        for worker in ("one", "two"):
            raw.respond(
                request,
                b"",
                headers={"x-amphora-run": worker},
                message_type="started",
                app_id=worker,
                reply_to=f"rpc_{namespace}_{worker}_control",
            )
        with pytest.raises(StreamLost, match="is gone") as caught:
            next(stream)
        assert caught.value.received == 0


def test_a_request_that_comes_twice_has_two_runs_of_which_one_can_be_ended(
    make_server: MakeServer, broker: Broker, namespace: str, source: Source
) -> None:
    server = make_server(source.count)
    with RawClient(broker, namespace) as client:
        asked = {"headers": {"x-amphora-allowed": 3}, "message_type": "stream", "message_id": "it"}
        client.request("count", 5, **asked)
        client.request("count", 5, **asked)
        wait_until(lambda: client.received == 4)
        said = [client.receive().properties for _ in range(4)]
        runs = [(each.headers or {})["x-amphora-run"] for each in said]
        assert len(set(runs)) == 2

        def tell(kind: str, body: bytes) -> None:
            values = {"message_type": kind, "reply_to": client.client_id}
            exchange = f"rpc_{namespace}_control"
            client.channel.publish(exchange, server.worker_id, Properties(**values), body)

        tell("cancel", encode_cancels([Unwanted("it", 60.0, runs[0])]))
        wait_until(lambda: source.ended == ["closed"])
        (other,) = set(runs) - {runs[0]}
        tell("credit", encode_credits([Credit("it", other, 9, 3, 3)]))
        # The end is numbered, and may come before the items.
        last = [client.receive(), client.receive()]
        items, end = sorted(last, key=lambda each: b"results" not in each.body)
        assert json.loads(items.body) == {"results": [3, 4]}
        assert json.loads(end.body) == {"result": "the end"}
        assert (end.properties.headers or {})["x-amphora-run"] == other
        tell("credit", encode_credits([Credit("it", other, 9, 5, 5)]))
        # A run that is not there is no request that is not to be begun.
        tell("cancel", encode_cancels([Unwanted("it", 60.0, "gone")]))
        client.request("count", 0, **asked)
        assert client.receive().properties.message_type == "started"
    wait_until(lambda: open_streams(server) == 0)


def test_a_second_run_that_is_ended_at_once_leaves_no_mark_of_an_attempt(
    make_server: MakeServer,
    broker: Broker,
    namespace: str,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, go, removed = Event(), Event(), []
    remove = Attempts._remove

    def slow(self: Attempts, queue: str) -> None:
        entered.set()
        go.wait()
        remove(self, queue)
        removed.append(queue)

    monkeypatch.setattr(Attempts, "_remove", slow)
    server = make_server(source.count, serve=False)
    with RawClient(broker, namespace) as client:
        asked = client.request("count", 5, message_type="stream")
        came: list[Any] = []
        with broker.channel() as channel:
            # Its channel ends, and the request goes back.
            channel.consume(client.requests, came.append, "first", no_ack=False)
            wait_until(lambda: came)
        server.serve()
        entered.wait()
        properties = Properties(message_type="cancel", reply_to=client.client_id)
        body = encode_cancels([Unwanted(asked, 60.0)])
        client.channel.publish(f"rpc_{namespace}_control", server.worker_id, properties, body)
        wait_until(lambda: next(iter(server._worker.outlets._open.values()))._call.cancelled)
        gevent.sleep(0)
        go.set()
        wait_until(lambda: open_streams(server) == 0 and server.running == 0)
        assert len(removed) == 1
        assert source.ended == []


def test_a_stream_that_ignores_its_request_says_so_and_is_over(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def ignoring() -> Iterator[int]:
        yield 1
        raise amphora.IgnoreRequest

    server = make_server(ignoring)
    stream = make_client().stream.ignoring()
    assert next(stream) == 1
    with pytest.raises(WrongResult, match="has ignored the request"):
        next(stream)
    wait_until(lambda: open_streams(server) == 0 and server.running == 0)


def test_the_end_of_a_stream_does_not_travel_with_other_answers(
    make_server: MakeServer, broker: Broker, namespace: str, source: Source
) -> None:
    make_server(source.count, add)
    with RawClient(broker, namespace) as client:
        takes = {"x-amphora-takes": "batch"}
        client.request("count", 0, headers=takes, message_type="stream")
        client.request("count", 0, headers=takes, message_type="stream")
        kinds = [client.receive().properties for _ in range(4)]
        ends = [each for each in kinds if each.message_type is None]
        assert [(each.headers or {})["x-amphora-seq"] for each in ends] == [1, 1]


def test_strangers_cannot_grow_memory_cross_streams_or_keep_one_alive(
    make_server: MakeServer, broker: Broker, namespace: str, source: Source
) -> None:
    server = make_server(source.count)
    with RawClient(broker, namespace) as reader, RawClient(broker, namespace) as stranger:
        asked = reader.request(
            "count", 1000, headers={"x-amphora-allowed": 3}, message_type="stream"
        )
        started = reader.receive()
        run = (started.properties.headers or {})["x-amphora-run"]
        assert json.loads(reader.receive().body) == {"results": [0, 1, 2]}
        exchange = f"rpc_{namespace}_control"

        def say(who: RawClient, *credits: Any, body: bytes | None = None) -> None:
            values = {"message_type": "credit", "reply_to": who.client_id}
            encoded = encode_credits(credits) if body is None else body
            who.channel.publish(exchange, server.worker_id, Properties(**values), encoded)

        say(stranger, Credit(asked, run, 100, 3))
        say(reader, Credit(asked, "another run", 100, 3))
        say(reader, Credit("another", run, 100, 3))
        say(reader, Credit(asked, run, -5, -5))
        say(reader, Credit(asked, run, 3, 1000))
        say(reader, body=b'[["x"]]')
        say(reader, body=b"\xff")
        say(reader, *[Credit(asked, run, 3, 0)] * 501)
        gevent.sleep(0.2)
        assert source.yielded == 3
        say(reader, Credit(asked, run, 5, 3))
        # The first ones were sent again meanwhile: the count stood still.
        while (came := json.loads(reader.receive().body)) == {"results": [0, 1, 2]}:
            pass
        assert came == {"results": [3, 4]}
        # What was not taken is sent again when the count stands still.
        say(reader, Credit(asked, run, 5, 3))
        say(reader, Credit(asked, run, 5, 3))
        again = reader.receive()
        assert json.loads(again.body) == {"results": [3, 4]}
        assert (again.properties.headers or {})["x-amphora-seq"] == 4


def test_what_cannot_be_read_in_items_of_another_run_ends_no_stream(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, source: Source
) -> None:
    make_server(source.count)
    client = make_client()
    stream = client.stream(credit=1).count(3)
    assert next(stream) == 0
    asked = stream._call.outgoing.message_id
    with RawClient(broker, namespace) as stranger:
        for run in ("", "another run"):
            properties = Properties(
                message_id=asked,
                correlation_id=asked,
                message_type="item",
                headers={"x-amphora-run": run, "x-amphora-seq": 2},
            )
            exchange = f"rpc_{namespace}_response"
            stranger.channel.publish(exchange, client.client_id, properties, b'{"results":[')
    # What comes behind it in the same queue.
    with RawClient(broker, namespace) as stranger:
        stranger.channel.publish(
            f"rpc_{namespace}_response", client.client_id, Properties(message_id="none"), b"{}"
        )
    wait_until(lambda: client.unexpected_responses)
    assert list(stream) == [1, 2]


def test_a_stream_that_is_left_behind_its_end_is_over_and_leaves_no_mark(
    make_server: MakeServer, broker: Broker, namespace: str, source: Source
) -> None:
    server = make_server(source.count)
    with RawClient(broker, namespace) as reader:
        asked = reader.request("count", 3, message_type="stream")
        kinds = {reader.receive().properties.message_type for _ in range(3)}
        assert kinds == {"started", "item", None}
        # The request is done, but its client has not said that it has the items.
        wait_until(lambda: not list(server._worker.requests._in_progress))
        assert open_streams(server) == 1
        told = Properties(message_type="cancel", reply_to=reader.client_id)
        exchange = f"rpc_{namespace}_control"
        reader.channel.publish(
            exchange, server.worker_id, told, encode_cancels([Unwanted(asked, 600.0)])
        )
        # Long before it would be missed.
        wait_until(lambda: not open_streams(server), timeout=20)
        assert not server._worker.requests.admission.cancelled.until


def test_of_thousands_of_streams_that_end_together_each_is_looked_for_once(
    make_server: MakeServer,
    make_client: MakeClient,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = make_server(source.count)
    requests, passes = server._worker.outlets.requests, []

    def counted() -> Iterator[Any]:
        passes.append(len(server._worker.outlets))
        return requests()

    monkeypatch.setattr(server._worker.outlets, "requests", counted)
    client = make_client()
    streams = [client.stream.count(1000) for _ in range(1000)]
    for stream in streams:
        next(stream)
    client.close()
    wait_until(lambda: not open_streams(server))
    # As many as there are messages that cancel them.
    assert 0 < len(passes) < 100


@pytest.mark.parametrize("serializer", [JSON, MSGPACK])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 100])
def test_items_that_travel_together_are_read_one_by_one(serializer: Serializer, count: int) -> None:
    from amphora.rpc.contract.bodies import Response

    values = [{"n": [number, None, "x" * number]} for number in range(count)]
    encoded = [serializer.encode(Response(result=value)) for value in values]
    assert split_items(serializer, join_items(serializer, encoded)) == values


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"results": 5}', b"\x81"])
def test_items_that_cannot_be_read_are_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        split_items(JSON, body)


def test_describe_and_the_counters_know_streams(
    make_server: MakeServer, make_client: MakeClient, source: Source, url: str, namespace: str
) -> None:
    server = make_server(source.count)
    client: AmqpRpcClient = make_client()
    assert list(client.stream.count(3)) == [0, 1, 2]
    wait_until(lambda: server.processed == 1 and server.streams == 0)
    assert server.statistics.functions["count"].count == 1
    with ManagementClient(url=url, timeout=10.0) as management, client.stream.count(1000) as stream:
        assert next(stream) == 0
        (reply,) = management.ask(namespace, "stats", worker=server.worker_id)
        assert (reply.value["streams"], reply.value["in_flight"]) == (1, 1)
        (reply,) = management.ask(namespace, "describe", worker=server.worker_id)
        (function,) = reply.value["functions"]
        assert (function["name"], function["stream"]) == ("count", True)
    wait_until(lambda: server.streams == 0)
    assert server.statistics.cancelled == 1
