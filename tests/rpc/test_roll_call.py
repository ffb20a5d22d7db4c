"""Who is there, as the broker tells of queues."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from amphora.errors import AmphoraError, ChannelClosed
from amphora.net.backoff import LONGEST_PAUSE
from amphora.rpc.client.workers.roll_call import SETTLING, OneWorker, RollCall
from amphora.rpc.contract import naming
from tests.support.passive import AskedSession, away, silent

REFUSED = ChannelClosed(403, "ACCESS_REFUSED")


def roll(session: Any) -> RollCall:
    return RollCall(session, "n")


def counting(found: Any) -> RollCall:
    return roll(AskedSession(rpc_n_rollcall=found))


def test_as_many_are_there_as_consume_the_queue_of_the_roll_call() -> None:
    assert counting((0, 3)).count() == 3
    assert not counting((0, 3)).nobody()
    assert counting((0, 0)).count() == 0
    assert counting((0, 0)).nobody()


def test_where_there_is_no_such_queue_nobody_can_be_counted_and_nobody_is_there() -> None:
    # Of amphora 0.1 there may be servers, but what no queue took is not with them.
    assert roll(AskedSession()).count() is None
    assert roll(AskedSession()).nobody()


@pytest.mark.parametrize("answer", [away(), silent(), REFUSED])
def test_what_is_not_told_is_not_known(answer: AmphoraError) -> None:
    assert counting(answer).count() is None
    assert not counting(answer).nobody()
    session = AskedSession()
    session.queues[naming.management_queue("w2")] = answer
    assert roll(session).gone(["w1", "w2", "w3"], {}) is None


def test_who_has_no_queue_or_does_not_consume_it_is_gone() -> None:
    there = {naming.management_queue(f"w{number}"): (0, number % 2) for number in range(8)}
    session = AskedSession(**there)
    workers = [f"w{number}" for number in range(10)]
    assert roll(session).gone(workers, {}) == frozenset({"w0", "w2", "w4", "w6", "w8", "w9"})
    assert sorted(session.asked) == sorted(map(naming.management_queue, workers))
    # Those without a queue have cost a channel each; all others share one.
    assert session.channels == 3


def test_an_id_that_can_be_no_worker_s_is_gone() -> None:
    session = AskedSession()
    session.queues[naming.management_queue("w1")] = (0, 1)
    assert roll(session).gone(["w1", "x" * 300], {}) == frozenset({"x" * 300})


def test_nobody_is_asked_for_nobody() -> None:
    session = AskedSession()
    assert roll(session).gone([], {}) == frozenset()
    assert session.channels == 0


def test_after_an_outage_servers_have_the_time_that_they_need_to_come_back() -> None:
    session = AskedSession()
    for seconds, pause in ((8.0, 1.0), (10_000.0, LONGEST_PAUSE)):
        session.consuming = SimpleNamespace(
            connection=object(), lost_at=500.0, restored_at=500.0 + seconds
        )
        assert roll(session).back_at() == 500.0 + seconds + pause + SETTLING
    session.consuming.connection = None
    assert roll(session).back_at() == inf


def test_servers_may_have_lost_the_node_of_either_connection_of_a_client() -> None:
    session = AskedSession()
    session.publishing = SimpleNamespace(lost_at=500.0, restored_at=508.0)
    assert roll(session).back_at() == 508.0 + 1.0 + SETTLING
    session.publishing.lost_at = 600.0
    assert roll(session).back_at() == inf


def test_one_worker_is_there_whoever_asks() -> None:
    one = OneWorker()
    assert one.count() == 1
    assert one.nobody()
    assert one.gone(["w"], {}) == frozenset()
    assert one.back_at() == 0.0
