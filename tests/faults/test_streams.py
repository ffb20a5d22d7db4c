"""Streams under faults (F-01 to F-08): each item comes once and in order, or it is said how many.

A stream counts as one call in the ledger: it is ok when all its items came in their order, and
what its function returned behind them.  It is executed when its function begins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

import gevent
import pytest

from amphora import AmqpRpcClient, Stream, StreamLost
from amphora.rpc.client import streaming
from amphora.rpc.contract.streams import SILENCE, WINDOW
from tests.faults import whole
from tests.faults.ledger import Ended, answer_to
from tests.faults.proxy import CUT, PASS
from tests.faults.rig import HEARTBEAT, Rig
from tests.faults.test_load import consumer_timeout
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

# Seconds between two items.
PAUSE = 0.005
# More items than any case waits for.
ENDLESS = 10**9
# Seconds in which a caller has to know that its worker is gone, and some for a busy machine.
KNOWN_IN = 2 * HEARTBEAT + 1.0 + 0.5
# The same for a worker that is told that its stream is not wanted, and whose caller was killed.
LEFT_IN = 0.2
MISSED_IN = SILENCE + 5.0
# Seconds that a case may read.
LONG = 150.0
# What a client says when it has taken a delivery.
BASIC_ACK = (60, 80)

# Called with the stream and the number of its items so far; returns True to leave it there.
Each = Callable[[Stream, int], bool]


def read(
    rig: Rig,
    client: AmqpRpcClient,
    most: int,
    path: str | None = None,
    each: Each = lambda stream, count: False,
    function: str = "items",
) -> Ended:
    """Read a stream in this greenlet, note it in the ledger, and return how it ended."""
    call_id = rig.begin_here()
    ended = Ended(0.0, "hung")
    count = 0
    try:
        with gevent.Timeout(LONG, False):  # type: ignore[arg-type]
            stream: Stream = getattr(client.stream, function)(call_id, most, PAUSE, path)
            left = False
            for item in stream:
                assert item == count
                count += 1
                if each(stream, count):
                    left = True
                    break
            assert left or (count, stream.result) == (most, answer_to(call_id))
            ended = Ended(0.0, "ok")
    except AssertionError as error:
        ended = Ended(0.0, "wrong", None, str(error))
    except gevent.GreenletExit:
        ended = Ended(0.0, "ok")
    except StreamLost as error:
        true = error.received == count and error.executed is None
        ended = Ended(0.0, "StreamLost" if true else "wrong", error.executed, str(error))
    ended.at = monotonic()
    rig.ledger.ended[call_id] = ended
    return ended


def how_it_ended(worker: PythonProcess, call_id: str = "") -> tuple[str, int, float]:
    """Wait until a stream has ended at its worker; return how, how many items it made, and when."""
    how, made, at = worker.wait_for(f"ended {call_id}", 2 * MISSED_IN).split()[-3:]
    return how, int(made), float(at)


@pytest.mark.case("F-01", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_each_item_comes_once_and_in_order_when_all_connections_are_reset(rig: Rig) -> None:
    cuts, step = whole(20, 3), whole(100, 30)
    proxies = [rig.proxy(), rig.proxy()]
    rig.serve(1, url=proxies[0].url)
    client = rig.client_here(url=proxies[1].url, timeout=LONG)
    cut = 0

    def each(stream: Stream, count: int) -> bool:
        nonlocal cut
        if count % step == 0 and cut < cuts:
            cut += 1
            rig.fault("all connections are reset")
            assert sum(proxy.reset() for proxy in proxies) > 0
        return False

    assert read(rig, client, step * (cuts + 1), each=each).outcome == "ok"
    assert cut == cuts
    rig.settle()


@pytest.mark.case("F-02", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("begun", ["with items", "without items"])
def test_of_two_workers_that_have_a_request_one_reaches_the_caller_and_the_other_ends(
    rig: Rig, begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that hears nothing for some seconds shall not count as gone here.
    monkeypatch.setattr(streaming, "LIVENESS", 60.0)
    proxy = rig.proxy()

    def cut(name: tuple[int, int] | None) -> str:
        if name != BASIC_ACK or proxy.faults:
            return PASS
        # The worker hears nothing of the broker now, and still publishes.
        rig.fault("the connection is cut before the request is acknowledged")
        proxy.refuse()
        return CUT

    proxy.up.judge = cut
    rig.serve(1, url=proxy.url)
    client = rig.client_here(timeout=LONG, heartbeat=60)
    go, came = tmp_path / "go", gevent.event.Event()
    if begun == "with items":
        go.touch()

    def each(stream: Stream, count: int) -> bool:
        came.set()
        return False

    reading = gevent.spawn(read, rig, client, 100, str(go), each)
    rig.wait_for_executions(1)
    wait_until(lambda: proxy.faults)
    if begun == "with items":
        came.wait()
    # The request has come back, and has its second run there.
    rig.serve(1)
    first, second = rig.servers
    second.wait_for("amphora publish: connected")
    if begun == "without items":
        rig.wait_for_executions(2)
        proxy.listen()
        assert how_it_ended(first)[0] == "closed"
        go.touch()
    else:
        proxy.listen()
    assert reading.get().outcome == "ok"
    rig.settle(duplicates=1)
    # That of the other was ended, maybe before its first line.
    done = [any(" done " in line for line in worker.lines) for worker in rig.servers]
    assert done == [begun == "with items", begun == "without items"]


@pytest.mark.case("F-03")
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_stream_goes_on_when_the_broker_is_back(rig: Rig, node: RabbitNode, how: str) -> None:
    rig.serve(1)
    client = rig.client_here(timeout=LONG)
    outages, step = whole(3, 1), 200
    done = 0

    def each(stream: Stream, count: int) -> bool:
        nonlocal done
        if count % step == 0 and done < outages:
            done += 1
            rig.fault(f"{how} of the broker")
            if how == "kill":
                node.kill()
                node.start()
            else:
                node.restart()
        return False

    reading = [gevent.spawn(read, rig, client, step * (outages + 1)) for _ in range(10)]
    read(rig, client, step * (outages + 1), each=each)
    gevent.joinall(reading)
    # Where a queue was away for too long, what came of the stream is counted.
    rig.settle(errors=("StreamLost",))


@pytest.mark.case("F-04")
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("function", ["items", "resumable_items"])
def test_a_stream_of_a_killed_worker_is_soon_lost_or_goes_on_at_another_worker(
    rig: Rig, function: str
) -> None:
    kills = whole(3, 1)
    rig.serve(1)
    client = rig.client_here(timeout=LONG)
    streams = [gevent.spawn(read, rig, client, 3_000, function=function) for _ in range(5)]
    killed_at: list[float] = []
    for number in range(kills):
        rig.wait_for_executions(5 * (number + 1))
        # Some items of each come.
        gevent.sleep(100 * PAUSE)
        rig.serve(1)
        rig.fault("kill -9 of the worker of all streams")
        killed_at.append(monotonic())
        rig.servers[number].kill()
        if function == "items":
            gevent.joinall(streams)
            took = max(stream.get().at for stream in streams) - killed_at[-1]
            rig.ledger.figures["s to know"] = round(
                max(took, float(rig.ledger.figures.get("s to know", 0))), 2
            )
            assert {stream.get().outcome for stream in streams} == {"StreamLost"}
            assert took < KNOWN_IN
            streams = [gevent.spawn(read, rig, client, 3_000) for _ in range(5)]
    gevent.joinall(streams)
    assert {stream.get().outcome for stream in streams} == {"ok"}
    rig.settle(errors=("StreamLost",), duplicates=5 * kills, slower=True)


@pytest.mark.case("F-05")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_a_stream_whose_caller_is_killed_ends_when_it_is_missed(rig: Rig) -> None:
    rig.serve(1)
    caller = rig.call(5, callers=5, kind="stream", size=ENDLESS, pause=PAUSE, expires=2.0)
    other = rig.client_here(timeout=LONG)
    rig.wait_for_executions(5)
    gevent.sleep(1.0)
    reading = gevent.spawn(read, rig, other, ENDLESS, each=lambda stream, count: bool(left))
    left: list[int] = []
    rig.fault("kill -9 of a caller with 5 streams")
    killed_at = monotonic()
    rig.forsake(caller)
    ends = [how_it_ended(rig.servers[0], f"client0-{number} ") for number in range(5)]
    left.append(1)
    assert reading.get().outcome == "ok"
    took = max(at for _, _, at in ends) - killed_at
    rig.ledger.figures["s to miss it"] = round(took, 1)
    assert {how for how, _, _ in ends} == {"closed"}
    assert took < MISSED_IN
    wait_until(lambda: not [name for name in rig.queues() if name.endswith("_response")][1:])
    rig.settle()


@pytest.mark.case("F-06")
@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "dropped", "killed"])
def test_a_stream_that_is_left_ends_at_once_and_makes_no_more_than_its_credit(
    rig: Rig, how: str
) -> None:
    rig.serve(1)
    client = rig.client_here()
    times = whole(20, 3)
    slowest, furthest = 0.0, 0
    for number in range(1, times + 1):
        left_at: list[float] = []
        counts: list[int] = []

        def each(stream: Stream, count: int, at: list[float], counts: list[int]) -> bool:
            counts.append(count)
            if count < 50:
                return False
            if how == "killed":
                return False
            at.append(monotonic())
            if how == "closed":
                stream.close()
            return True

        leave = partial(each, at=left_at, counts=counts)
        reading = gevent.spawn(read, rig, client, ENDLESS, each=leave)
        if how == "killed":
            wait_until(lambda counts=counts: len(counts) >= 50)
            left_at.append(monotonic())
            reading.kill()
        rig.fault(f"a stream is {how}")
        assert reading.get().outcome == "ok"
        ended, made, at = how_it_ended(rig.servers[0], f"here-{number} ")
        assert ended == "closed"
        slowest = max(slowest, at - left_at[0])
        furthest = max(furthest, made - len(counts))
    rig.ledger.figures.update({"s to end": round(slowest, 3), "items made too many": furthest})
    assert furthest <= WINDOW
    assert slowest < LEFT_IN
    rig.settle()


@pytest.mark.case("F-07")
@pytest.mark.slow
def test_a_stream_that_lasts_longer_than_the_consumer_timeout_goes_on(
    rig: Rig, node: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    with consumer_timeout(node, 2.0):
        rig.serve(1)
        client = rig.client_here()
        rig.fault("a stream of seven seconds, and one that nobody reads, where two are allowed")
        with client.stream.items(rig.begin_here(), ENDLESS, PAUSE) as unread:
            assert next(unread) == 0
            assert read(rig, client, round(7.0 / PAUSE)).outcome == "ok"
            assert next(unread) == 1
        rig.ledger.ended["here-1"] = Ended(monotonic(), "ok")
        assert client.session.consuming.connects == 1
    assert "406" not in caplog.text
    assert "406" not in rig.servers[0].output
    rig.settle()


@pytest.mark.case("F-08")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_hundreds_of_streams_go_on_when_the_broker_closes_all_connections(
    rig: Rig, node: RabbitNode
) -> None:
    streams, kills = whole(300, 30), whole(5, 2)
    rig.serve()
    caller = rig.call(streams, callers=streams, kind="stream", size=1_000, pause=0.02, timeout=LONG)
    rig.wait_for_executions(streams)
    for _ in range(kills):
        gevent.sleep(rig.random.uniform(0.5, 1.5))
        rig.fault("close_all_connections")
        node.ctl("close_all_connections", "by the test")
    caller.wait(LONG)
    # Both workers may have begun one that was about to be acknowledged.
    rig.settle(duplicates=kills * streams)
    assert len(rig.ledger.of("ok")) == streams
