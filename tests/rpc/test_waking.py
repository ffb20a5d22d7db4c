"""Greenlets that wait for results, and are woken together."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent
import greenlet
import pytest

from amphora.errors import NoResult
from amphora.rpc.client.waiting.result import PendingCall, Result
from amphora.rpc.client.waiting.waking import LONGEST_TURN, Waker
from tests.rpc.test_pending import Waiting, outgoing
from tests.support.waiting import wait_until


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def pending(waiting: Waiting) -> tuple[PendingCall, Result]:
    call = PendingCall(waiting, "f", 5.0, outgoing())
    return call, Result(call)


def test_callers_are_woken_in_the_order_of_their_answers(waiting: Waiting) -> None:
    got: list[Any] = []
    calls = [pending(waiting) for _ in range(5)]

    def take(result: Result) -> None:
        got.append(result.get())

    callers = [gevent.spawn(take, result) for _, result in calls]
    gevent.sleep(0)
    for number, (call, _) in reversed(list(enumerate(calls))):
        call.answered("worker", number, None)

    gevent.joinall(callers, timeout=40, raise_error=True)
    assert got == [4, 3, 2, 1, 0]


def test_several_greenlets_wait_for_one_result_and_each_gets_it(waiting: Waiting) -> None:
    call, result = pending(waiting)
    callers = [gevent.spawn(result.get) for _ in range(3)]
    callers.append(gevent.spawn(result.get, timeout=40))
    gevent.sleep(0)
    call.answered("worker", 7, None)

    gevent.joinall(callers, timeout=40, raise_error=True)
    assert [caller.value for caller in callers] == [7] * 4


def test_an_error_is_raised_in_the_greenlet_that_waits(waiting: Waiting) -> None:
    call, result = pending(waiting)
    caller = gevent.spawn(pytest.raises, NoResult, result.get)
    gevent.sleep(0)
    call.fail(NoResult("too late"))

    caller.get(timeout=40)


@pytest.mark.parametrize("end", ["killed", "timed out"])
def test_a_greenlet_that_has_gone_is_not_woken_somewhere_else(waiting: Waiting, end: str) -> None:
    call, result = pending(waiting)
    steps: list[str] = []

    def caller() -> None:
        try:
            with gevent.Timeout(0.01 if end == "timed out" else None, False):  # type: ignore[arg-type]
                result.get()
        except gevent.GreenletExit:
            pass
        steps.append("gone")
        before = monotonic()
        gevent.sleep(0.05)
        assert monotonic() - before > 0.04
        steps.append("slept")

    waits = gevent.spawn(caller)
    gevent.sleep(0)
    if end == "killed":
        waits.kill(block=False)
        call.answered("worker", 7, None)
    else:
        while not steps:
            gevent.sleep(0.001)
        call.answered("worker", 7, None)

    waits.get(timeout=40)
    assert steps == ["gone", "slept"]
    assert result.get() == 7


def test_a_greenlet_that_is_switched_to_by_mistake_waits_on(waiting: Waiting) -> None:
    call, result = pending(waiting)
    caller = gevent.spawn(result.get)
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(caller.switch)
    gevent.sleep(0)
    assert not caller.ready()
    call.answered("worker", 7, None)

    assert caller.get(timeout=40) == 7


def test_a_result_that_is_there_is_got_in_the_event_loop_too(waiting: Waiting) -> None:
    call, result = pending(waiting)
    got: list[Any] = []
    call.answered("worker", 7, None)
    gevent.get_hub().loop.run_callback(lambda: got.append(result.get()))
    gevent.sleep(0)
    assert got == [7]


class Asleep:
    """A greenlet that waits, and what it does then."""

    def __init__(self, then: Any) -> None:
        def run() -> None:
            gevent.get_hub().switch()
            then()

        self._greenlet = greenlet.greenlet(run, gevent.get_hub())
        gevent.get_hub().loop.run_callback(self._greenlet.switch)
        gevent.sleep(0)


def test_callers_that_compute_for_long_let_others_have_a_turn() -> None:
    waker = Waker()
    steps: list[str] = []

    def compute() -> None:
        steps.append("computed")
        until = monotonic() + 1.5 * LONGEST_TURN
        while monotonic() < until:
            pass

    for sleeper in [Asleep(compute) for _ in range(3)]:
        waker.wake(sleeper)
    gevent.sleep(0)
    steps.append("another")
    while len(steps) < 4:
        gevent.sleep(0)

    assert steps.index("another") < 3


def test_a_raw_greenlet_that_raises_keeps_no_other_asleep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    waker = Waker()
    woken: list[str] = []

    def fail() -> None:
        raise NoResult("in a raw greenlet")

    for sleeper in (Asleep(fail), Asleep(lambda: woken.append("the other"))):
        waker.wake(sleeper)
    wait_until(lambda: woken == ["the other"])
    assert "in a raw greenlet" in capsys.readouterr().err
