"""What one request leaves behind, and whom that does not reach: the next request, and memory."""

from __future__ import annotations

import contextvars
import gc
from collections.abc import Callable
from typing import Any

import gevent
import gevent.local
import pytest
from gevent.event import Event

from amphora.wire.content import Message
from tests.support.brokers import Broker
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer
from tests.support.waiting import wait_until

variable = contextvars.ContextVar("variable", default="none")
local = gevent.local.local()


def in_a_variable() -> str:
    found = variable.get()
    variable.set("left")
    return found


def in_a_local() -> str:
    found = str(getattr(local, "value", "none"))
    local.value = "left"
    return found


def on_the_greenlet() -> str:
    greenlet: Any = gevent.getcurrent()
    found = str(getattr(greenlet, "left", "none"))
    greenlet.left = "left"
    return found


@pytest.mark.parametrize("leave", [in_a_variable, in_a_local, on_the_greenlet])
def test_what_a_handler_leaves_the_next_request_does_not_find(
    make_server: MakeServer, make_client: MakeClient, leave: Callable[[], str]
) -> None:
    make_server(leave)
    client = make_client()
    assert [getattr(client.call, leave.__name__)() for _ in range(5)] == ["none"] * 5
    # Nor do those that come in the same moment.
    results = [getattr(client.defer, leave.__name__)() for _ in range(20)]
    assert [result.get() for result in results] == ["none"] * 20


def test_what_a_handler_set_off_ends_no_other_request(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    set_off = Event()

    def careless() -> str:
        gevent.Timeout.start_new(0.05)
        # Nobody may be there any more when this comes.
        gevent.spawn_later(0.05, gevent.getcurrent().kill)  # type: ignore[attr-defined,call-overload]
        gevent.spawn_later(0.1, set_off.set)
        return "done"

    def innocent() -> str:
        set_off.wait()
        gevent.sleep(0.05)
        return "done"

    make_server(careless, innocent)
    client = make_client()
    assert [r.get() for r in [client.defer.careless() for _ in range(20)]] == ["done"] * 20
    assert [r.get() for r in [client.defer.innocent() for _ in range(20)]] == ["done"] * 20


def test_nothing_of_a_request_is_kept_when_it_is_done(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold)
    client = make_client()
    results = [client.defer.hold("x" * 100_000) for _ in range(30)]
    wait_until(lambda: len(gate.entered) == 30)
    gate.entered.clear()
    gate.open()
    gevent.wait(results)
    gate.passed.clear()
    del results

    def kept() -> int:
        gc.collect()
        return sum(len(m.body) for m in gc.get_objects() if isinstance(m, Message))

    wait_until(lambda: kept() < 100_000)


def test_strangers_requests_with_the_same_id_are_all_run_also_when_one_comes_again(
    broker: Broker, make_server: MakeServer, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    body = b'{"func": "hold", "args": ["%s"]}'
    with RawClient(broker, namespace) as stranger, broker.channel() as other_server:
        stranger.send(body % b"of another server", correlation_id="1", message_id=None)
        wait_until(lambda: other_server.get(f"rpc_{namespace}_request"))
        server.serve()
        stranger.send(body % b"ours", correlation_id="1", message_id=None)
        wait_until(lambda: gate.entered == ["ours"])
        other_server.close()  # it has died: its request comes again, to us
        wait_until(lambda: gate.entered == ["ours", "of another server"])
        gate.open()
        answers: list[Any] = [stranger.receive().body for _ in range(2)]
        assert sorted(answers) == [b'{"result":"of another server"}', b'{"result":"ours"}']
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_request") == 0)


def test_a_harmless_request_does_not_answer_for_a_stranger_with_its_id(
    broker: Broker, make_server: MakeServer, namespace: str
) -> None:
    """What has ended servers is told from what has not, although both are called "1"."""
    from amphora.rpc.server.requests.attempts import _name_of
    from amphora.transport.channels.delivery import Delivery

    with RawClient(broker, namespace) as stranger, broker.channel() as channel:
        queue = f"rpc_{namespace}_request"
        for who in (b"guilty", b"innocent"):
            stranger.send(b'{"func": "echo", "args": ["%s"]}' % who, correlation_id="1")
        guilty, innocent = (wait_until(lambda: channel.get(queue)) for _ in range(2))
        names = [_name_of(Delivery.of(message, channel)) for message in (guilty, innocent)]  # type: ignore[arg-type]
        assert names[0] != names[1]
