"""What a worker has begun and not ended: a stop waits for it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent
import pytest

from amphora.rpc.server.progress.underway import Underway

Waiting = Callable[[Underway, float | None], None]
TIMEOUT = 40.0


def test_it_counts_requests_wherever_they_are_handled() -> None:
    underway = Underway()
    assert len(underway) == 0
    pooled, own = object(), object()
    underway.handlers.add(pooled)
    underway.own["request"] = own
    assert len(underway) == 2
    assert pooled in underway
    assert own in underway
    assert gevent.getcurrent() not in underway
    underway.handled(pooled)
    underway.handled(pooled)
    assert len(underway) == 1


@pytest.mark.parametrize("wait", [Underway.wait_handled, Underway.wait_responses])
def test_nobody_waits_for_nothing(wait: Waiting) -> None:
    wait(Underway(), None)


def test_whoever_waits_is_told_of_the_last_request() -> None:
    underway = Underway()
    handlers = [object() for _ in range(3)]
    underway.handlers.update(handlers)
    underway.own["request"] = object()
    waiting = gevent.spawn(underway.wait_handled, TIMEOUT)
    for handler in handlers:
        gevent.sleep(0)
        underway.handled(handler)
    gevent.sleep(0.01)
    assert not waiting.ready()
    del underway.own["request"]
    underway.changed()
    waiting.get(timeout=TIMEOUT)


def test_whoever_waits_is_told_of_the_last_verdict() -> None:
    underway = Underway()
    underway.unconfirmed = 2
    waiting = [gevent.spawn(underway.wait_responses, TIMEOUT) for _ in range(2)]
    gevent.sleep(0)
    underway.response_done()
    gevent.sleep(0.01)
    assert not any(each.ready() for each in waiting)
    underway.response_done()
    gevent.joinall(waiting, timeout=TIMEOUT, raise_error=True)
    assert all(each.ready() for each in waiting)


@pytest.mark.parametrize("wait", [Underway.wait_handled, Underway.wait_responses])
def test_there_is_an_end_to_waiting(wait: Waiting) -> None:
    underway = Underway()
    underway.handlers.add(object())
    underway.unconfirmed = 1
    began = monotonic()
    wait(underway, 0.05)
    assert 0.05 <= monotonic() - began < TIMEOUT


def test_who_is_killed_while_it_waits_waits_no_more() -> None:
    underway = Underway()
    underway.unconfirmed = 1
    waiting = gevent.spawn(underway.wait_responses, None)
    gevent.sleep(0)
    waiting.kill()
    assert underway._waiting == 0
