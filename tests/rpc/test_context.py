"""What a handler knows of its call: `amphora.current()`, headers, and who calls."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from datetime import datetime
from math import nan
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer
from amphora.errors import Denied, Rejected, RemoteException, WrongRequest
from amphora.rpc.context import middleware
from amphora.rpc.server import stop_hooks
from amphora.rpc.server.requests.handling import ROOM_FOR
from tests.support.brokers import Broker
from tests.support.raw import JSON_TYPE, RawClient
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

asked: ContextVar[str] = ContextVar("asked", default="nothing")


def about() -> dict[str, Any]:
    call = amphora.current()
    return {
        "id": call.id,
        "function": call.function,
        "namespace": call.namespace,
        "worker": call.worker_id,
        "headers": dict(call.headers),
        "user": call.user,
        "redelivered": call.redelivered,
        "queue_wait": call.queue_wait,
        "remaining": call.remaining(),
        "cancelled": call.cancelled,
        "args": call.args,
    }


def test_a_handler_knows_its_call(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server(about)
    client = make_client()
    headers = {"traceparent": "00-1-2-03", "nested": {"n": [1, None, True]}}
    told = client.call(timeout=40, headers=headers).about()
    assert told["function"] == "about"
    assert told["namespace"] == namespace
    assert told["worker"] == server.worker_id
    assert told["headers"] == headers
    assert told["user"] is None
    assert told["redelivered"] is False
    assert told["cancelled"] is False
    assert 0 < told["remaining"] <= 40
    assert client.call.about()["headers"] == {}
    assert client.call.about()["id"] != told["id"]


def test_a_request_to_a_server_that_has_room_has_not_waited(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(about, concurrency=1)
    client = make_client()
    client.call.about()
    wait_until(lambda: not len(server._worker.underway))
    gevent.sleep(2 * ROOM_FOR)
    assert client.call.about()["queue_wait"] == 0.0


def test_a_cast_has_headers_and_no_limit(make_server: MakeServer, make_client: MakeClient) -> None:
    told: Queue[Any] = Queue()
    make_server().add_function(lambda: told.put(about()), name="tell")
    make_client().cast(headers={"a": 1}).tell()
    came = told.get(timeout=20)
    assert came["headers"] == {"a": 1}
    assert came["remaining"] is None
    assert came["queue_wait"] is None


def test_every_server_of_a_gather_has_the_headers(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(about, kind=AmqpRpcFanoutServer)
    client = make_client(kind=AmqpRpcFanoutClient)
    (reply,) = client.gather(headers={"a": "b"}, timeout=40).about()
    assert reply.get()["headers"] == {"a": "b"}


def test_headers_that_cannot_be_sent_fail_the_call_and_nothing_else(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client()
    for headers in (
        {"x-amphora-again": True},
        {"a": object()},
        {"a": "x" * 9000},
        {"a": [None] * 1000},
        {"a": nan},
    ):
        with pytest.raises(WrongRequest, match="header"):
            client.call(headers=headers).add(1, 2)
    assert client.call(headers={"a": "x" * 8000}).add(1, 2) == 3
    assert client.call(headers={"a": [None] * 899}).add(1, 2) == 3
    assert client.call(headers={"a": datetime.max}).add(1, 2) == 3


def test_outside_a_handler_there_is_no_call() -> None:
    with pytest.raises(LookupError, match="no call is served here"):
        amphora.current()


def test_what_one_request_leaves_in_its_context_is_not_there_in_the_next(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def leave() -> str:
        before = asked.get()
        asked.set("left")
        return before

    make_server(leave)
    client = make_client()
    assert [client.call.leave() for _ in range(3)] == ["nothing"] * 3


def test_a_spawned_greenlet_and_a_thread_know_the_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def spawned() -> list[Any]:
        asked.set("for more")
        return [
            amphora.spawn(about).get()["headers"],
            amphora.spawn(asked.get).get(),
            gevent.spawn(asked.get).get(),
        ]

    def in_a_thread() -> tuple[bool, Any, Any]:
        is_main = threading.current_thread() is threading.main_thread()
        return is_main, about()["headers"], asked.get()

    server = make_server(spawned)
    server.add_function(in_a_thread, threadpool=True)
    client = make_client()
    assert client.call(headers={"a": 1}).spawned() == [{"a": 1}, "for more", "nothing"]
    assert client.call(headers={"a": 2}).in_a_thread() == [False, {"a": 2}, "nothing"]


def test_a_receiver_knows_the_call_while_it_serves_it(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(about, serve=False)
    client = make_client()
    client.create_new_request_queue("key")
    result = client.defer(routing_key="key", headers={"a": 1}).about()
    server.receive_from_queue("key", max_calls=1)
    assert result.get()["headers"] == {"a": 1}
    with pytest.raises(LookupError):
        amphora.current()


# -- who calls ------------------------------------------------------------------------------------


def test_a_client_says_who_it_is_when_it_is_asked_to(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(about)
    assert make_client(identify=True).call.about()["user"] == "guest"
    assert make_client().call.about()["user"] is None


def test_a_forged_name_is_one_plain_error_and_leaves_its_neighbours_alone(
    make_server: MakeServer, make_client: MakeClient, make_session: Any
) -> None:
    make_server(about)
    session = make_session()
    forger = make_client(session=session, url=None, identify="root")
    honest = make_client(session=session, url=None)
    calls = [honest.defer.about() for _ in range(20)]
    forged = forger.defer.about()
    calls += [honest.defer.about() for _ in range(20)]
    with pytest.raises(Rejected, match="user_id"):
        forged.get()
    assert [call.get()["user"] for call in calls] == [None] * 40


def test_a_function_is_called_by_those_who_are_allowed(
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server()
    server.add_function(add, name="ours", allow={"guest", "billing"})
    server.add_function(add, name="theirs", allow=["billing"])
    known, unknown = make_client(identify=True), make_client()
    assert known.call.ours(1, 2) == 3
    for client, who in ((known, "guest"), (unknown, "does not name its login")):
        with pytest.raises(Denied, match=f"{who}.* may not call {namespace}.theirs") as caught:
            client.call.theirs(1, 2)
        assert caught.value.executed is False
    audited = [record.getMessage() for record in caplog.records if record.name == "amphora.audit"]
    assert audited == [f"{server.worker_id}: guest may not call {namespace}.theirs"]
    with pytest.raises(Denied):
        unknown.call.ours(1, 2)
    # The function comes first.
    with pytest.raises(WrongRequest, match="has no function"):
        unknown.call.nothing()


def test_who_may_call_is_checked_when_a_function_is_added(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    with pytest.raises(TypeError, match="allow must be a set of logins, not 'billing'"):
        server.add_function(add, allow="billing")
    with pytest.raises(TypeError, match="alow"):
        server.add_function(add, alow={"billing"})  # type: ignore[call-overload]


# -- around calls ---------------------------------------------------------------------------------


def test_middleware_of_a_server_sees_every_request(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)
    seen: list[Any] = []

    @server.middleware
    def outer(call: amphora.CallContext, proceed: Any) -> Any:
        seen.append(("outer", call.function, dict(call.headers)))
        try:
            result = proceed()
        except Exception as error:
            seen.append((call.function, type(error).__name__))
            raise
        seen.append((call.function, result))
        return result

    @server.middleware
    def inner(call: amphora.CallContext, proceed: Any) -> Any:
        seen.append(("inner", call.args, dict(call.kwargs)))
        if call.kwargs.get("b") == 7:
            call.kwargs["b"] = 8
        return proceed() * 10

    server.add_function(lambda: 1 // 0, name="fail")
    client = make_client()
    assert client.call(headers={"a": 1}).add(1, b=7) == 90
    assert seen == [("outer", "add", {"a": 1}), ("inner", [1], {"b": 7}), ("add", 90)]
    seen.clear()
    with pytest.raises(WrongRequest, match="has no function 'nothing'") as caught:
        client.call.nothing(5)
    assert caught.value.executed is False
    with pytest.raises(WrongRequest, match="missing"):
        client.call.add(1)
    with pytest.raises(RemoteException, match="ZeroDivisionError"):
        client.call.fail()
    assert [each for each in seen if each[0] not in ("outer", "inner")] == [
        ("nothing", "WrongRequest"),
        ("add", "WrongRequest"),
        ("fail", "ZeroDivisionError"),
    ]
    assert server.exceptions == 3


def test_middleware_of_a_server_may_refuse_and_answer(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(add)

    @server.middleware
    def guard(call: amphora.CallContext, proceed: Any) -> Any:
        if call.headers.get("token") != "secret":
            raise Denied("a token is needed")
        if call.headers.get("cached"):
            return "from the cache"
        proceed()
        raise WrongRequest("too late to refuse")

    client = make_client()
    with pytest.raises(Denied, match="a token is needed"):
        client.call.add(1, 2)
    assert client.call(headers={"token": "secret", "cached": True}).add(1, 2) == "from the cache"
    # The function has run, so this cannot be an error that says it has not.
    with pytest.raises(RemoteException, match="WrongRequest: too late") as caught:
        client.call(headers={"token": "secret"}).add(1, 2)
    assert caught.value.executed is True


@pytest.mark.parametrize(("before", "executed"), [(True, False), (False, True)])
def test_an_exception_of_middleware_says_whether_the_function_has_run(
    make_server: MakeServer, make_client: MakeClient, before: bool, executed: bool
) -> None:
    server = make_server(add, serve=False)

    @server.middleware
    def broken(_: amphora.CallContext, proceed: Any) -> Any:
        if not before:
            proceed()
        raise LookupError("no tenant")

    server.serve()
    with pytest.raises(RemoteException, match="LookupError: no tenant") as caught:
        make_client().call.add(1, 2)
    assert caught.value.executed is executed


def test_middleware_that_forgets_its_return_is_told_of_once(
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(middleware, "_told", set())
    server, client = make_server(add), make_client()

    @server.middleware
    def at_the_server(_: amphora.CallContext, proceed: Any) -> Any:
        value = proceed()
        return None if value == 3 else value

    for _ in range(2):
        assert client.call.add(1, 2) is None
        assert client.call.add(1, 1) == 2

    @client.use
    def at_the_client(_: amphora.OutgoingCall, proceed: Any) -> None:
        proceed()

    client.cast.add(5, 6)
    assert client.call.add(5, 6) is None
    wait_until(lambda: ".at_the_client returned None where" in caplog.text)
    assert caplog.text.count("at_the_server returned None where") == 1
    assert (
        f"returned None where {namespace}.add had a result, so its caller gets None: let it end"
        " with return proceed()"
    ) in caplog.text


def test_middleware_of_a_client_sees_every_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(about, add)
    client = make_client()
    seen: list[Any] = []

    @client.use
    def trace(call: amphora.OutgoingCall, proceed: Any) -> Any:
        call.headers["trace"] = "1"
        seen.append((call.mode, call.function, list(call.args)))
        return proceed()

    @client.use
    def change(call: amphora.OutgoingCall, proceed: Any) -> Any:
        if call.function == "add":
            call.args[0] += 100
        return proceed()

    assert client.call(headers={"mine": 2}).about()["headers"] == {"mine": 2, "trace": "1"}
    assert client.defer.add(1, 2).get() == 103
    assert client.cast.add(5, 6) is None
    assert seen == [("call", "about", []), ("defer", "add", [1, 2]), ("cast", "add", [5, 6])]


def test_a_server_starts_and_stops_with_its_hooks(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    done: list[str] = []
    server = make_server(add, serve=False)
    for name in ("first", "second"):
        server.on_start(lambda name=name: done.append(f"start {name}"))
        server.on_stop(lambda name=name: done.append(f"stop {name}"))
    server.on_stop(lambda: 1 // 0)
    server.serve()
    assert done == ["start first", "start second"]
    assert make_client().call.add(1, 2) == 3
    server.stop()
    assert done[2:] == ["stop second", "stop first"]


def test_a_server_is_closed_whatever_its_hooks_raise(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    done: list[str] = []
    server = make_server(add, serve=False)
    server.on_stop(lambda: done.append("first"))

    @server.on_stop
    def hasty() -> None:
        done.append("hasty")
        with gevent.Timeout(0.01):
            gevent.sleep(10)

    server.serve()
    assert make_client().call.add(1, 2) == 3
    with pytest.raises(gevent.Timeout):
        server.stop()
    assert done == ["hasty", "first"]
    assert server.session.state == "closed"
    # It is over.
    server.stop()
    assert done == ["hasty", "first"]


def test_what_is_called_when_a_server_stops_is_called_once_and_after_what_it_ends(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    done: list[str] = []

    def slow() -> None:
        begun.set()
        try:
            Event().wait()
        finally:
            # As one that gives something back over a network.
            gevent.sleep(0.05)
            done.append("cleaned up")

    begun = Event()
    server = make_server(slow, serve=False)
    server.on_done(lambda call, outcome: done.append(outcome.status))
    server.on_stop(lambda: done.append("stop"))
    server.serve()
    make_client().cast.slow()
    assert begun.wait(20)
    warm = gevent.spawn(server.stop)
    wait_until(lambda: server.state == "stopping")
    # As `amphora serve` does at the end of --grace.
    server.stop(timeout=0)
    warm.get(timeout=20)
    assert done == ["cleaned up", "Aborted", "stop"]


@pytest.mark.parametrize("how", ["its own timeout", "another stop", "at once"])
def test_a_stop_gives_up_what_never_ends_of_on_stop(
    make_server: MakeServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    monkeypatch.setattr(stop_hooks, "LEAST_TIME", 0.1)
    done: list[str] = []
    begun = Event()
    server = make_server(add, serve=False)
    server.on_stop(lambda: done.append("first"))

    @server.on_stop
    def hangs() -> None:
        try:
            begun.set()
            Event().wait()
        finally:
            done.append("cleaned up")

    server.serve()
    stopping = gevent.spawn(server.stop, 0 if how == "its own timeout" else None)
    assert begun.wait(20)
    if how == "another stop":
        server.stop(timeout=0)
    elif how == "at once":
        # As a second signal does.
        server._worker.abort()
    stopping.get(timeout=20)
    assert done == ["cleaned up", "first"]
    assert server.session.state == "closed"
    (line,) = [record.getMessage() for record in caplog.records if "on_stop" in record.getMessage()]
    assert "hangs of on_stop has not ended, and was given up" in line


def test_a_server_whose_start_fails_does_not_serve(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)

    @server.on_start
    def connect() -> None:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        server.serve()
    assert server.state == "idle"


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_start_that_fails_ends_what_was_started_before_it(
    make_server: MakeServer, failing: int
) -> None:
    server = make_server(add, serve=False)
    done: list[str] = []
    fails = [OSError("no cache")]

    for number in (1, 2, 3):

        @server.on_start
        def connect(number: int = number) -> None:
            if number == failing and fails:
                raise fails.pop()
            done.append(f"start {number}")

        server.on_stop(lambda number=number: done.append(f"stop {number}"))

    with pytest.raises(OSError, match="no cache"):
        server.serve()
    before = range(1, failing)
    started, ended = [f"start {n}" for n in before], [f"stop {n}" for n in reversed(before)]
    assert done == started + ended
    done.clear()
    server.serve()
    server.stop()
    assert done == ["start 1", "start 2", "start 3", "stop 3", "stop 2", "stop 1"]


def test_what_a_start_has_to_end_it_may_add_itself(make_server: MakeServer) -> None:
    server = make_server(add, serve=False)
    done: list[str] = []

    @server.on_start
    def connect() -> None:
        server.on_stop(lambda: done.append("closed"))

    @server.on_start
    def fail() -> None:
        raise OSError("no cache")

    with pytest.raises(OSError, match="no cache"):
        server.serve()
    assert done == ["closed"]


@pytest.mark.parametrize("stopped_in", [1, 2])
def test_a_server_that_is_stopped_while_it_starts_ends_what_was_started(
    make_server: MakeServer, stopped_in: int
) -> None:
    server = make_server(add, serve=False)
    done: list[str] = []

    for number in (1, 2):

        @server.on_start
        def connect(number: int = number) -> None:
            if number == stopped_in:
                server.stop()
            done.append(f"start {number}")

        server.on_stop(lambda number=number: done.append(f"stop {number}"))

    server.serve()
    assert server.state == "stopped"
    numbers = range(1, stopped_in + 1)
    assert done == [f"start {n}" for n in numbers] + [f"stop {n}" for n in reversed(numbers)]


def test_a_strangers_headers_are_shown_as_they_are(
    make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(about)
    with RawClient(broker, namespace) as stranger:
        odd = {"x-amphora-sent": "yesterday", "x-amphora-new": [1], "theirs": 1}
        stranger.request("about", headers=odd, content_type=JSON_TYPE)
        told = stranger.answer()["result"]
    assert told["headers"] == {"theirs": 1}
    assert told["queue_wait"] is None
