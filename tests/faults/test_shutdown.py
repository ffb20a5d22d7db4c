"""Closing, in whatever state the broker is (B-90 to B-92)."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent
import pytest

from tests.faults import whole
from tests.faults.rig import Rig
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until


def nothing(node: RabbitNode) -> None:
    pass


def kill(node: RabbitNode) -> None:
    node.kill()


def freeze(node: RabbitNode) -> None:
    node.freeze()


def alarm(node: RabbitNode) -> None:
    node.ctl("set_vm_memory_high_watermark", "absolute", "1000000")


@pytest.mark.case("B-91")
@pytest.mark.slow
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("harm", [nothing, kill, freeze, alarm])
def test_closing_a_client_ends_its_calls_and_takes_two_seconds_at_most(
    rig: Rig, node: RabbitNode, harm: Callable[[RabbitNode], None]
) -> None:
    count = whole(50, 10)
    server = rig.server_here(concurrency=count)
    clients = [rig.client_here() for _ in range(count)]
    for client in clients:
        assert rig.one_here(client).outcome == "ok"
    pending = [rig.many_here(client, 1, 60.0)[0] for client in clients]
    wait_until(lambda: server.running == count)
    rig.fault(harm.__name__)
    harm(node)
    pending += [rig.many_here(client, 1, 60.0)[0] for client in clients]
    gevent.sleep(0.2)
    began = monotonic()
    gevent.joinall([gevent.spawn(client.close) for client in clients])
    took = monotonic() - began
    rig.ledger.figures["s to close"] = round(took, 2)
    gevent.joinall(pending)
    ends = [greenlet.get() for greenlet in pending]
    assert {end.outcome for end in ends} == {"ConnectionLost"}
    assert all("was closed" in end.text for end in ends)
    assert {end.executed for end in ends[:count]} == {None}
    assert took < 2.0 + 1.0
    server.stop(timeout=0)
    node.recover()
    node.ctl("set_vm_memory_high_watermark", "0.4")
    rig.settle(errors=("ConnectionLost",), remains=True, duplicates=2 * count)


@pytest.mark.case("B-92")
@pytest.mark.slow
def test_closing_is_fine_twice_and_from_anywhere(rig: Rig, node: RabbitNode) -> None:
    client = rig.client_here()

    def close() -> str:
        client.close()
        return "closed"

    server = rig.server_here(close)
    assert rig.one_here(client).outcome == "ok"
    rig.fault("closing from a handler, from two greenlets, and during a recovery")
    result = client.defer.close()
    with pytest.raises(Exception, match="closed"):
        result.get(timeout=10)
    client.close()
    other = rig.client_here()
    assert rig.one_here(other).outcome == "ok"
    node.close_all_connections("while it is closed")
    gevent.joinall([gevent.spawn(other.close) for _ in range(3)], raise_error=True)
    gevent.joinall([gevent.spawn(server.stop, 1.0) for _ in range(3)], raise_error=True)
    rig.settle(remains=True)
