"""The check for leaks sees what it is there to see."""

from __future__ import annotations

import gevent
import gevent.socket
from gevent.event import Event

from tests.support.leaks import Baseline


def wait_for_ever() -> None:
    Event().wait()


def test_a_waiting_greenlet_is_a_leak_and_is_named_with_its_line() -> None:
    baseline = Baseline()
    left = gevent.spawn(wait_for_ever)
    gevent.sleep(0)
    try:
        (leak,) = baseline.leaks(timeout=0.0)
        assert "wait_for_ever" in leak
        assert " at " in leak
    finally:
        left.kill()
    assert baseline.leaks() == []


def test_a_greenlet_that_has_not_begun_is_a_leak() -> None:
    baseline = Baseline()
    left = gevent.spawn_later(600, wait_for_ever)
    try:
        assert len(baseline.leaks(timeout=0.0)) == 1
    finally:
        left.kill()


def test_a_greenlet_that_is_about_to_end_is_no_leak() -> None:
    baseline = Baseline()
    gevent.spawn(gevent.sleep, 0.05)
    assert baseline.leaks() == []


def test_a_greenlet_of_before_is_no_leak() -> None:
    left = gevent.spawn(wait_for_ever)
    try:
        assert Baseline().leaks(timeout=0.0) == []
    finally:
        left.kill()


def test_a_pool_of_native_threads_is_no_leak() -> None:
    baseline = Baseline()
    assert gevent.get_hub().threadpool.apply(abs, (-1,)) == 1
    assert baseline.leaks(timeout=0.0) == []


def test_an_open_socket_is_a_leak_and_is_named_with_its_address() -> None:
    baseline = Baseline()
    with gevent.socket.socket() as left:
        left.bind(("127.0.0.1", 0))
        left.listen()
        (leak,) = baseline.leaks(timeout=0.0)
        assert str(left.getsockname()) in leak
    assert baseline.leaks() == []
