"""Connections that are lost (B-01 to B-10)."""

from __future__ import annotations

import gevent
import pytest

from tests.faults import whole
from tests.faults.rig import PREFETCH, Rig
from tests.support.rabbitmq import RabbitNode


@pytest.mark.case("B-01")
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_no_call_is_lost_when_the_broker_closes_all_connections_again_and_again(
    rig: Rig, node: RabbitNode, queue_type: str
) -> None:
    kills = whole(20, 2)
    rig.serve(queue_type=queue_type)
    rig.call(rate=whole(400, 100), queue_type=queue_type)
    rig.wait_for_answers(50)
    for _ in range(kills):
        gevent.sleep(rig.random.uniform(0.2, whole(3.0, 0.5)))
        with rig.outage("close_all_connections"):
            node.ctl("close_all_connections", "by the test")
    rig.wait_for_answers(whole(10_000, 500), 100.0)
    rig.settle(duplicates=kills * PREFETCH * 2)
