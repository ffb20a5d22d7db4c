"""A clock that tests turn: what is due rings at once, in its order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent.event import Event

import amphora
from amphora import AmqpRpcClient, AmqpRpcServer, Busy, NoResult, Properties, Session, TimedOut
from amphora.net import clock as net_clock
from amphora.testing import Broker, Clock
from tests.support.rpc import Gate, add
from tests.support.waiting import wait_until

MINUTE = 60.0

# The tests' own limit is one of gevent's, and so by the clock.
pytestmark = pytest.mark.time_limit(1_000_000)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock
    assert net_clock.monotonic is monotonic


@pytest.fixture
def broker(clock: Clock) -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def server(broker: Broker) -> Iterator[AmqpRpcServer]:
    with AmqpRpcServer("math", url=broker.url) as server:
        server.add_function(add)
        yield server
        server.stop(timeout=0)


@pytest.fixture
def client(broker: Broker) -> Iterator[AmqpRpcClient]:
    with AmqpRpcClient("math", url=broker.url, timeout=MINUTE) as client:
        yield client


def test_a_call_without_an_answer_ends_when_its_time_is_over(
    clock: Clock, server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server.add_function(gate.hold)
    server.serve()
    began = monotonic()
    result = client.defer.hold(1)
    clock.advance(MINUTE / 2)
    assert gate.entered == [1]
    assert not result.ready()
    clock.advance(MINUTE / 2)
    assert result.ready()
    with pytest.raises(NoResult, match="within 60 s"):
        result.get()
    assert monotonic() - began < MINUTE
    gate.open()


def test_a_caller_that_blocks_is_woken(
    clock: Clock, server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    gate = Gate()
    server.add_function(gate.hold)
    server.serve()
    advancing = gevent.spawn(clock.advance, MINUTE)
    with pytest.raises(NoResult):
        client.call.hold(1)
    gate.open()
    advancing.get()


def test_a_clock_that_ends_is_not_advanced_any_more() -> None:
    with Clock() as clock:
        began = Event()
        gevent.spawn_later(MINUTE / 2, began.set)
        advancing = gevent.spawn(clock.advance, 1000 * MINUTE)
        began.wait()
    advancing.get()
    assert clock.ahead < 1000 * MINUTE
    with pytest.raises(RuntimeError, match="use the clock with `with`"):
        clock.advance(1)


def test_what_follows_from_another_wait_is_in_time(clock: Clock) -> None:
    rang: list[tuple[str, float]] = []

    def wait(name: str, *seconds: float) -> None:
        for each in seconds:
            gevent.sleep(each)
            rang.append((name, clock.monotonic() - began))

    began = clock.monotonic()
    greenlets = [gevent.spawn(wait, "a", 10, 20, 20), gevent.spawn(wait, "b", 25, 10)]
    clock.advance(50)
    assert [name for name, _ in rang] == ["a", "b", "a", "b", "a"]
    # The clock also runs by itself, and a busy machine takes its time.
    assert [after for _, after in rang] == pytest.approx([10, 25, 30, 35, 50], abs=3)
    gevent.joinall(greenlets)


@pytest.mark.parametrize("every", [0.1, 1.0, MINUTE])
def test_what_repeats_happens_as_often_as_it_is_due(
    clock: Clock, server: AmqpRpcServer, client: AmqpRpcClient, every: float
) -> None:
    slept: list[float] = []
    items: list[float] = []

    def ticks() -> Iterator[float]:
        while True:
            gevent.sleep(every)
            yield every

    def sleep() -> None:
        for each in ticks():
            slept.append(each)

    server.add_function(ticks)
    server.serve()

    def read() -> None:
        for item in client.stream.ticks():
            items.append(item)

    began = clock.monotonic()
    greenlets = [gevent.spawn(sleep), gevent.spawn(read)]
    clock.advance(60 * every)
    gevent.killall(greenlets)
    # On a busy machine the clock may get further by itself.
    due = int((clock.monotonic() - began) / every)
    assert 60 <= len(items) <= due
    assert 60 <= len(slept) <= due


def test_what_is_sent_before_begins_before_time_goes_on(
    clock: Clock, server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    began: list[float] = []

    @server.add_function
    def begin() -> None:
        began.append(clock.monotonic())

    # Neither of them has a connection yet.
    server.serve()
    result = client.defer.begin()
    sent = clock.monotonic()
    clock.advance(MINUTE)
    result.get(timeout=0)
    assert began[0] - sent < 0.1


def test_an_advance_that_is_broken_off_leaves_each_wait_what_is_left_of_it(clock: Clock) -> None:
    waiting = gevent.spawn_later(MINUTE, str)
    gevent.sleep(0)
    with pytest.raises(gevent.Timeout), gevent.Timeout(MINUTE - 1.0):
        clock.advance(2 * MINUTE)
    assert clock.ahead < MINUTE
    assert not waiting.ready()
    waiting.join(20)
    assert waiting.ready()


def test_two_greenlets_advance_one_clock(clock: Clock) -> None:
    waiting = gevent.spawn_later(MINUTE, str)
    began = clock.monotonic()
    advancing = [gevent.spawn(clock.advance, MINUTE), gevent.spawn(clock.advance, 2 * MINUTE)]
    gevent.joinall(advancing, raise_error=True)
    assert waiting.ready()
    assert 2 * MINUTE <= clock.monotonic() - began < 3 * MINUTE
    before = clock.monotonic()
    wait_until(lambda: clock.monotonic() > before)


def test_time_never_goes_back_at_the_next_clock(broker: Broker, clock: Clock) -> None:
    clock.__exit__()
    later = Clock()
    try:
        with clock:
            clock.advance(MINUTE)
        before = net_clock.monotonic()
        with later:
            assert net_clock.monotonic() >= before
    finally:
        clock.__enter__()


def test_what_is_not_due_waits_for_what_is_left(clock: Clock) -> None:
    late = gevent.spawn_later(MINUTE, str)
    clock.advance(MINUTE - 6.0)
    assert not late.ready()
    late.join(20)  # by the system's clock
    assert late.ready()


def _wait_a_minute() -> None:
    with gevent.Timeout(MINUTE, False):  # type: ignore[arg-type]
        Event().wait()


@pytest.mark.parametrize("ends", ["Event", "Timeout", "repeat", "stopped"])
def test_gevent_waits_by_it(clock: Clock, ends: str) -> None:
    rang: list[float] = []
    if ends == "Event":
        waiting = gevent.spawn(Event().wait, MINUTE)
        clock.advance(MINUTE)
        assert waiting.ready()
    elif ends == "Timeout":
        limited = gevent.spawn(_wait_a_minute)
        clock.advance(MINUTE)
        assert limited.ready()
    else:
        loop: Any = gevent.get_hub().loop
        with loop.timer(20.0, 20.0) as timer:
            timer.start(lambda: rang.append(clock.monotonic()))
            if ends == "stopped":
                timer.stop()
            clock.advance(MINUTE)
        assert len(rang) == (0 if ends == "stopped" else 3)


def test_a_wait_that_ended_by_itself_is_not_ended_again(clock: Clock) -> None:
    event = Event()

    def wait() -> bool:
        woken = event.wait(MINUTE)
        gevent.sleep(2 * MINUTE)
        return woken

    greenlet = gevent.spawn(wait)
    gevent.spawn_later(MINUTE, event.set)
    clock.advance(MINUTE)
    clock.advance(MINUTE)
    assert not greenlet.ready()
    clock.advance(MINUTE)
    assert greenlet.ready()


def test_the_time_of_a_handler_is_over(
    clock: Clock, server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    left: list[float | None] = []

    @server.add_function(timeout=MINUTE / 2)
    def wait() -> None:
        left.append(amphora.current().remaining())
        gevent.sleep(10)
        left.append(amphora.current().remaining())
        Event().wait()

    server.serve()
    result = client.defer.wait()
    clock.advance(MINUTE / 2)
    with pytest.raises(TimedOut):
        result.get()
    before, after = left
    assert before is not None
    assert after is not None
    assert 45 < after <= before - 10 + 0.1


def test_a_call_that_has_waited_for_too_long_is_turned_away(clock: Clock, broker: Broker) -> None:
    gate = Gate()
    with (
        AmqpRpcServer("math", url=broker.url, concurrency=1, max_wait=MINUTE) as server,
        AmqpRpcClient("math", url=broker.url, timeout=10 * MINUTE) as client,
    ):
        server.add_function(gate.hold)
        server.add_function(add)
        server.serve()
        assert client.call.add(1, 2) == 3
        # By now the server knows the client's clock.
        broker.wait_until_served()
        first, second = client.defer.hold(1), client.defer.hold(2)
        wait_until(lambda: gate.entered == [1])
        clock.advance(2 * MINUTE)
        gate.open()
        assert first.get() == 1
        with pytest.raises(Busy):
            second.get()


def test_messages_in_the_broker_expire(clock: Clock, broker: Broker) -> None:
    with Session(broker.url) as session:
        channel = session.channel()
        channel.confirm_select()
        channel.queue_declare("q", arguments={"x-message-ttl": 60_000})
        channel.publish("", "q", Properties(), b"x")
        broker.wait_until_served()
        clock.advance(MINUTE / 2)
        assert channel.queue_declare("q", passive=True).message_count == 1
        clock.advance(MINUTE / 2)
        assert channel.queue_declare("q", passive=True).message_count == 0


def test_connections_live_on(clock: Clock, server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    server.serve()
    assert client.call.add(1, 2) == 3
    before = client.session.consuming.connects
    clock.advance(30 * MINUTE)
    assert client.call.add(1, 2) == 3
    assert client.session.consuming.connects == before


def test_a_program_that_never_rests_can_be_turned(clock: Clock) -> None:
    def spin() -> None:
        while True:
            gevent.sleep(0)

    spinning = gevent.spawn(spin)
    late = gevent.spawn_later(2.0, str)
    clock.advance(2.0)
    assert late.ready()
    spinning.kill()


def test_what_was_there_before_is_turned_too() -> None:
    rang: list[float] = []
    late, stopped = gevent.spawn_later(MINUTE, str), gevent.spawn_later(MINUTE, str)
    later = gevent.spawn_later(2 * MINUTE + 1.0, str)
    loop: Any = gevent.get_hub().loop
    with (
        Broker() as broker,
        AmqpRpcServer("math", url=broker.url) as server,
        AmqpRpcClient("math", url=broker.url) as client,
        loop.timer(20.0, 0.05) as repeating,
    ):
        server.add_function(add)
        server.serve()
        assert client.call.add(1, 2) == 3
        broker.lose_answers()
        waiting = client.defer(timeout=MINUTE).add(1, 2)
        broker.wait_until_served()
        repeating.start(lambda: rang.append(monotonic()))
        with Clock() as clock:
            stopped.kill()
            clock.advance(MINUTE)
            assert late.ready()
            assert waiting.ready()
            wait_until(lambda: len(rang) > 2)
            clock.advance(MINUTE)
            later.join(20)
            assert later.ready()
            assert client.call.add(1, 2) == 3
        ahead = net_clock.monotonic() - monotonic()
        # For those that go on, time never goes back.
        assert ahead == pytest.approx(clock.ahead, abs=1.0)
        assert ahead > MINUTE
        with Clock() as clock:
            assert clock.ahead == pytest.approx(ahead, abs=1.0)
            assert client.call.add(1, 2) == 3
    with Clock():
        pass
    assert net_clock.monotonic is monotonic


def test_what_a_clock_refuses() -> None:
    with Clock() as clock, pytest.raises(RuntimeError, match="already"):
        Clock().__enter__()
    with pytest.raises(RuntimeError, match="with `with`"):
        Clock().advance(1)
    for seconds in (-1, float("inf"), float("nan")):
        with clock, pytest.raises(ValueError, match="0 or more seconds"):
            clock.advance(seconds)


def test_a_clock_leaves_no_more_timers_than_it_has_found() -> None:
    # Like the limit of a test, this one outlives many clocks.
    lasting = gevent.spawn_later(100 * MINUTE, str)
    gevent.sleep(0)
    for _ in range(30):
        with Clock() as clock:
            clock.advance(1)
            running = len(list(clock._timers))
    assert running < 20
    with Clock() as clock:
        clock.advance(100 * MINUTE)
        assert lasting.ready()


def test_a_process_has_one_clock_at_a_time(clock: Clock) -> None:
    refused: list[str] = []

    def enter() -> None:
        try:
            Clock().__enter__()
        except RuntimeError as error:
            refused.append(str(error))

    clock.advance(MINUTE)
    before = clock.monotonic()
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert refused == ["another thread already has a clock, and all threads have one time"]
    assert clock.monotonic() >= before
