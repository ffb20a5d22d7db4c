"""Messages and their confirms (B-50 to B-58)."""

from __future__ import annotations

import ast
from pathlib import Path

import gevent
import pytest

import amphora
from tests.faults import whole
from tests.faults.ledger import Ledger
from tests.faults.proxy import EAT, PASS
from tests.faults.rig import CALLERS, Rig
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

BASIC_ACK = (60, 80)


def eat_acks(name: tuple[int, int] | None) -> str:
    return EAT if name == BASIC_ACK else PASS


@pytest.mark.case("B-50")
@pytest.mark.slow
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("kind", ["call", "cast"])
def test_requests_whose_confirms_are_lost_are_sent_again(rig: Rig, kind: str) -> None:
    assert requests_whose_confirms_are_lost(rig, kind).duplicated


def requests_whose_confirms_are_lost(rig: Rig, kind: str) -> Ledger:
    """Have many requests sent again that have arrived; return the ledger."""
    proxy = rig.proxy()
    rig.serve()
    # Only for connections to come.
    proxy.down.judge = eat_acks
    rig.call(url=proxy.url, rate=200, kind=kind)
    wait_until(lambda: rig.executed >= CALLERS, "executions", 30.0)
    with rig.outage("confirms are eaten, and the connection is lost"):
        proxy.heal()
        proxy.reset()
    rig.wait_for_answers(whole(2_000, 300))
    return rig.settle(duplicates=2_000 if kind == "call" else 2 * CALLERS)


@pytest.mark.case("B-51", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("who", ["the same server", "another server"])
def test_requests_whose_acks_are_lost_are_answered_once_and_run_again_by_strangers_alone(
    rig: Rig, who: str
) -> None:
    calls = whole(500, 100)
    proxy = rig.proxy()
    proxy.up.judge = eat_acks
    [server] = rig.serve(1, url=proxy.url, concurrency=calls)
    client = rig.call(calls, linger=True)
    rig.wait_for_answers(calls)
    with rig.outage(f"acks are eaten, the connection is lost, and {who} gets the requests"):
        if who == "another server":
            rig.serve(1)
            server.kill()
        proxy.heal()
        proxy.reset()
    again = calls if who == "another server" else 0
    rig.wait_for_executions(calls + again)
    wait_until(lambda: rig.queues()[rig.request_queue][0] == 0, "no requests", 30.0)
    client.terminate()
    ledger = rig.settle(duplicates=again, recovery=None)
    assert ledger.duplicated == ledger.unexpected == again


def length(text: str) -> int:
    return len(text)


@pytest.mark.case("B-55", short=True)
@pytest.mark.slow
def test_a_request_that_is_too_large_for_the_broker_fails_alone(rig: Rig, node: RabbitNode) -> None:
    with node.messages_up_to(100_000):
        rig.server_here(length, concurrency=200)
        client = rig.client_here(timeout=10.0)
        assert rig.one_here(client).outcome == "ok"
        rig.fault("a message larger than the broker takes")
        good = rig.many_here(client, 50)
        bad = gevent.spawn(client.call.length, "x" * 200_000)
        good += rig.many_here(client, 50)
        gevent.joinall([*good, bad])
        assert {greenlet.get().outcome for greenlet in good} == {"ok"}
        assert isinstance(bad.exception, amphora.Rejected)
        assert "larger than" in str(bad.exception)
        assert client.session.publishing.connects == 1
        rig.settle(duplicates=100)


@pytest.mark.case("B-55")
@pytest.mark.slow
def test_bodies_of_all_sizes_make_the_round(rig: Rig) -> None:
    client = rig.client_here()
    server = rig.server_here()
    server.add_function(lambda text: text, name="same")
    rig.fault("sizes around the edges of frames")
    assert rig.one_here(client).outcome == "ok"
    frame_max = client.session.publishing.wait_connected(40).frame_max
    around = len('{"func":"same","args":[""],"kwargs":{}}')
    edges = range(frame_max - around - 9, frame_max - around + 2)
    for size in (0, 1, *edges, 1 << 20, 15 << 20):
        assert client.call.same("x" * size) == "x" * size
    with pytest.raises(amphora.WrongRequest, match="a message can have") as told:
        client.call.same("x" * (17 << 20))
    assert told.value.executed is False
    assert client.session.publishing.connects == client.session.consuming.connects == 1
    rig.settle()


@pytest.mark.case("B-56")
@pytest.mark.slow
def test_late_answers_are_counted_and_dropped(rig: Rig) -> None:
    server = rig.server_here(concurrency=100)
    # Long enough for all of them to begin.
    client = rig.client_here(timeout=2.0)
    pending = rig.many_here(client, 100, 4.0)
    rig.fault("answers that come after the deadline")
    gevent.joinall(pending)
    wait_until(lambda: client.unexpected_responses == 100)
    assert client.pending == 0
    assert server.lost_responses == 0
    rig.settle(errors=("NoResult",))


@pytest.mark.case("B-57")
@pytest.mark.slow
def test_no_request_is_begun_after_its_deadline(rig: Rig) -> None:
    client = rig.client_here(timeout=1.5)
    pending = rig.many_here(client, 100)
    rig.fault("no server until the deadline")
    gevent.joinall(pending)
    rig.server_here()
    rig.ledger.timeout = 10.0
    assert rig.one_here(client, timeout=10.0).outcome == "ok"
    ledger = rig.settle(errors=("NoResult",))
    assert len(ledger.executions) == 1


@pytest.mark.case("B-58", short=True)
def test_no_deadline_is_on_a_clock_that_can_be_set() -> None:
    package = Path(amphora.__file__).parent
    for path in [*(package / "rpc").glob("*.py"), *(package / "transport").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                assert {alias.name for alias in node.names} <= {"monotonic", "perf_counter"}, path
            elif isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"time", "datetime"}, path
