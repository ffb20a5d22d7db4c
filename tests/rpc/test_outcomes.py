"""What has become of a call, as those who watch both sides are told."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer
from amphora.errors import IgnoreRequest, RemoteException, WrongRequest
from amphora.wire.properties import Properties
from tests.support.brokers import Broker
from tests.support.raw import JSON_TYPE, RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until


class Watch:
    """Watches both sides: what middleware asks for, and what observers are told."""

    def __init__(self) -> None:
        self.begun: Queue[str] = Queue()
        self.told: Queue[tuple[str, amphora.Outcome]] = Queue()

    def calls(self, call: Any, proceed: Callable[[], Any]) -> Any:
        """Be middleware of either side."""
        self.begun.put(call.function)
        call.when_done(lambda outcome: self.told.put((call.function, outcome)))
        return proceed()

    def requests(self, call: amphora.CallContext, outcome: amphora.Outcome) -> None:
        """Be an observer of a server."""
        self.told.put((call.function, outcome))

    def next(self) -> tuple[str, str, str]:
        """Return the next function, status and error that was told."""
        function, outcome = self.told.get(timeout=20)
        return function, outcome.status, type(outcome.error).__name__


@pytest.fixture
def watch() -> Watch:
    return Watch()


def observed(server: AmqpRpcServer) -> Watch:
    """Watch all requests of a server."""
    watch = Watch()
    server.on_done(watch.requests)
    return watch


# -- servers --------------------------------------------------------------------------------------


def test_a_server_tells_what_has_become_of_each_request(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    def ignore() -> None:
        raise IgnoreRequest

    server = make_server(add, serve=False)
    server.add_function(lambda: 1 // 0, name="fail")
    server.add_function(object, name="unsendable")
    server.add_function(add, name="secret", allow={"nobody"})
    server.add_function(ignore)
    server.middleware(watch.calls)
    seen = observed(server)
    server.serve()
    client = make_client()
    for function, args, status, error in (
        ("add", (1, 2), "OK", "NoneType"),
        ("add", (1,), "WrongRequest", "WrongRequest"),
        ("nothing", (), "WrongRequest", "WrongRequest"),
        ("fail", (), "RemoteException", "ZeroDivisionError"),
        ("unsendable", (), "WrongResult", "WrongResult"),
        ("secret", (1, 2), "Denied", "Denied"),
    ):
        result = getattr(client.defer, function)(*args)
        result.wait()
        assert status in ("OK", type(result.exception).__name__)
        assert watch.next() == seen.next() == (function, status, error)
    ignored = client.defer.ignore()
    assert watch.next() == seen.next() == ("ignore", "Ignored", "NoneType")
    ignored.cancel()


def test_the_one_who_asked_last_is_told_first_and_may_raise(
    make_server: MakeServer, make_client: MakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_server(add)
    told: Queue[str] = Queue()

    def middleware(name: str) -> None:
        @server.middleware
        def ask(call: amphora.CallContext, proceed: Any) -> Any:
            call.when_done(lambda outcome: told.put(name))
            call.when_done(lambda outcome: 1 // 0)
            return proceed()

    middleware("outer")
    middleware("inner")
    server.on_done(lambda call, outcome: 1 // 0)
    server.on_done(lambda call, outcome: told.put("observer"))
    assert make_client().call.add(1, 2) == 3
    assert [told.get(timeout=20) for _ in range(3)] == ["observer", "inner", "outer"]
    assert capsys.readouterr().err.count("ZeroDivisionError") == 3


def test_a_timeout_of_one_who_is_told_keeps_it_from_nobody(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    told: list[str] = []

    def fail(*_: object) -> None:
        raise gevent.Timeout(0.5)

    @client.use
    def ask(call: amphora.OutgoingCall, proceed: Any) -> Any:
        for callback in (fail, lambda outcome: told.append("client"), fail):
            call.when_done(callback)
        return proceed()

    # It may be the caller's.
    with pytest.raises(gevent.Timeout):
        client.call.add(1, 2)
    observers = [lambda call, outcome: told.append("first"), fail]
    observers.append(lambda call, outcome: told.append("last"))
    served = amphora.CallContext(Properties(), "math", "w", observers=observers)
    served.when_done(lambda outcome: told.append("when done"))
    served.ended("OK")
    with pytest.raises(gevent.Timeout):
        served.tell_ended()
    assert told == ["client", "first", "last", "when done"]


def test_middleware_sees_what_cannot_be_read(
    make_server: MakeServer, make_client: MakeClient, broker: Broker, namespace: str, watch: Watch
) -> None:
    server = make_server(add)
    server.middleware(watch.calls)
    with RawClient(broker, namespace) as stranger:
        stranger.send(b"{", content_type=JSON_TYPE)
        assert "cannot read" in stranger.answer()["exception"]["args"][0]
    assert watch.next() == ("", "WrongRequest", "WrongRequest")
    assert server.exceptions == 1


def test_a_request_whose_time_is_over_is_told_though_it_is_not_begun(
    make_server: MakeServer, broker: Broker, namespace: str, watch: Watch
) -> None:
    server = make_server(add)
    server.middleware(watch.calls)
    seen = observed(server)
    wait_until(lambda: server.ready)
    with RawClient(broker, namespace) as stranger:
        # A broker hands it over at once or never.
        stranger.request("add", 1, 2, expiration="0")
        assert seen.next() == ("add", "Expired", "NoneType")
    assert server.statistics.expired == 1
    assert watch.begun.empty()


def test_a_request_that_is_cancelled_in_the_queue_is_told_though_it_is_not_begun(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    server = make_server(gate.hold, add, concurrency=1)
    seen = observed(server)
    client = make_client()
    first = client.defer.hold(1)
    wait_until(lambda: gate.entered)
    client.defer.add(5, 6).cancel()
    wait_until(lambda: server._worker.requests.admission.cancelled.until)
    gate.open()
    assert first.get() == 1
    assert {seen.next(), seen.next()} == {
        ("hold", "OK", "NoneType"),
        ("add", "Cancelled", "NoneType"),
    }


def test_a_handler_that_is_ended_has_an_outcome(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    entered = Event()

    def wait() -> None:
        entered.set()
        gevent.sleep(60)

    server = make_server(serve=False)
    server.add_function(wait, cancellable=True)
    server.add_function(wait, name="stay")
    seen = observed(server)
    server.serve()
    client = make_client()
    result = client.defer.wait()
    entered.wait(20)
    result.cancel()
    assert seen.next() == ("wait", "Cancelled", "NoneType")
    entered.clear()
    client.defer.stay()
    entered.wait(20)
    server.stop(timeout=0)
    assert seen.next()[:2] == ("stay", "Aborted")


def test_a_stream_has_ended_behind_its_last_item(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    last = Event()

    def count() -> Iterator[int]:
        yield 1
        last.wait()
        yield 2

    server = make_server(count)
    server.middleware(watch.calls)
    client = make_client()
    mine = Watch()
    client.use(mine.calls)
    stream = client.stream.count()
    assert next(stream) == 1
    assert (watch.told.empty(), mine.told.empty()) == (True, True)
    last.set()
    assert list(stream) == [2]
    assert watch.next() == mine.next() == ("count", "OK", "NoneType")


def test_a_receiver_of_the_programs_own_tells_too(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    server = make_server(add)
    server.middleware(watch.calls)
    client = make_client()
    client.create_new_request_queue("key")
    result = client.defer(routing_key="key").add(1, 2)
    assert server.receive_from_queue("key", max_calls=1, timeout=20) == 1
    assert result.get() == 3
    assert watch.next() == ("add", "OK", "NoneType")


def test_an_outcome_says_how_long_it_took_and_what_was_raised(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    server = make_server()
    server.add_function({}.__getitem__, name="find", expected=KeyError)
    server.add_function(gevent.sleep, name="sleep")
    seen = observed(server)
    client = make_client()
    client.use(watch.calls)
    with pytest.raises(RemoteException):
        client.call.find("it")
    client.defer.sleep(0.05).get()
    there, here = ([each.told.get(timeout=20)[1] for _ in range(2)] for each in (seen, watch))
    assert [outcome.error_type for outcome in (*there, *here)] == ["KeyError", None] * 2
    assert [outcome.expected for outcome in (*there, *here)] == [True, False, False, False]
    assert 0.05 <= (there[1].seconds or 0.0) <= (here[1].seconds or 0.0)


# -- clients --------------------------------------------------------------------------------------


def test_a_client_tells_how_calls_of_each_kind_end(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    server = make_server(add)
    server.add_function(lambda: 1 // 0, name="fail")
    client = make_client()
    client.use(watch.calls)
    assert client.call.add(1, 2) == 3
    assert watch.next() == ("add", "OK", "NoneType")
    with pytest.raises(RemoteException):
        client.call.fail()
    assert watch.next() == ("fail", "RemoteException", "RemoteException")
    with pytest.raises(WrongRequest):
        client.defer.add(object(), 1)
    assert watch.next() == ("add", "WrongRequest", "WrongRequest")
    with pytest.raises(ValueError, match="timeout"):
        client.call(timeout=-1).add(1, 2)
    assert watch.next() == ("add", "_OTHER", "ValueError")
    result = client.defer.add(1, 2)
    assert result.get() == 3
    assert watch.next() == ("add", "OK", "NoneType")
    assert client.cast.add(1, 2) is None
    assert watch.next() == ("add", "OK", "NoneType")


def test_a_caller_that_is_killed_has_cancelled_its_call(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    client.use(watch.calls)
    caller = gevent.spawn(client.call.hold)
    wait_until(lambda: gate.entered)
    caller.kill()
    assert watch.next() == ("hold", "Cancelled", "GreenletExit")
    result = client.defer.hold()
    result.cancel()
    assert watch.next() == ("hold", "Cancelled", "Cancelled")
    gate.open()


def test_a_result_that_is_dropped_is_told_and_not_kept(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    client.use(watch.calls)
    client.defer.hold()
    gc.collect()
    assert watch.next() == ("hold", "Dropped", "NoneType")
    assert client.pending == 0
    gate.open()


def test_a_stream_that_its_caller_leaves_is_told(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1
            gevent.sleep(0.01)

    def silent() -> Iterator[int]:
        yield 1
        gevent.sleep(60)

    make_server(endless, silent)
    client = make_client()
    client.use(watch.calls)
    for _ in client.stream.endless():
        break
    gc.collect()
    assert watch.next() == ("endless", "Dropped", "NoneType")
    with pytest.raises(amphora.NoResult, match="no item"):
        list(client.stream(idle_timeout=0.2).silent())
    assert watch.next() == ("silent", "NoResult", "NoResult")


def test_a_gather_ends_with_its_last_answer(
    make_server: MakeServer, make_client: MakeClient, watch: Watch
) -> None:
    gate = Gate()
    make_server(add, gate.hold, kind=AmqpRpcFanoutServer)
    client = make_client(kind=AmqpRpcFanoutClient)
    client.use(watch.calls)
    assert client.gather(timeout=20).add(1, 2).values() == [3]
    assert watch.next() == ("add", "OK", "NoneType")
    assert client.gather(timeout=4.0).hold().values() == []
    assert watch.next() == ("hold", "NoResult", "NoResult")
    client.gather(timeout=20).hold()
    gc.collect()
    assert watch.next() == ("hold", "Dropped", "NoneType")
    gate.open()


def test_middleware_that_answers_itself_ends_the_call(
    make_client: MakeClient, watch: Watch
) -> None:
    client = make_client()
    client.use(watch.calls)
    client.use(lambda call, proceed: "from the cache")
    answer: Any = client.defer.add(1, 2)
    assert answer == "from the cache"
    assert watch.next() == ("add", "OK", "NoneType")


def test_one_who_asks_too_late_is_told_at_once_and_knows_the_id(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    ids: Queue[str] = Queue()
    make_server().add_function(lambda: ids.put(amphora.current().id), name="tell")
    client = make_client()
    calls: list[amphora.OutgoingCall] = []

    @client.use
    def keep(call: amphora.OutgoingCall, proceed: Any) -> Any:
        calls.append(call)
        return proceed()

    client.call.tell()
    client.cast.tell()
    client.defer.tell().get()
    told: list[str] = []
    for call in calls:
        call.when_done(lambda outcome: told.append(outcome.status))
        assert call.id == ids.get(timeout=20)
    assert told == ["OK"] * 3
    assert repr(amphora.Outcome()) == "<Outcome OK>"
