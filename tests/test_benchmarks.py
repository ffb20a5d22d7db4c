"""The benchmarks run again after a run that was cut off, and name what they do not know.

And how many functions of amphora a call goes through, in what they measure without a broker.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest
from gevent import subprocess

import amphora
from amphora.rpc.client.waiting import waking
from amphora.rpc.server.requests import pool
from amphora.transport.links.topology import Binding, Exchange, Queue, Topology
from amphora.wire.properties import Properties
from benchmarks import hot_path
from benchmarks.contenders import bare
from benchmarks.runner import Pair, Scenario
from tests.support.brokers import Broker
from tests.support.processes import ROOT
from tests.support.rabbitmq import ExternalBroker, RabbitNode

HOME = str(Path(amphora.__file__).parent)
BENCHMARKS = [sys.executable, "-m", "benchmarks"]


@pytest.mark.parametrize("names", ["amphorae", "bare,amphorae", ""])
def test_an_unknown_contender_is_told_with_those_that_there_are(names: str) -> None:
    done = subprocess.run(
        [*BENCHMARKS, "--only", names], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    unknown = names.rpartition(",")[2]
    known = "there are bare, bare-batched, bare-json, amphora, "
    assert f"there is no contender {unknown!r}; {known}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_bare_loop_is_not_disturbed_by_what_an_earlier_run_has_left(
    rabbit: RabbitNode | ExternalBroker,
) -> None:
    url = f"{rabbit.url}?heartbeat=0"
    with Broker(rabbit.url).channel() as channel:
        # As a run leaves it whose server was killed first: requests of a client that is gone.
        exchange = Exchange(bare.REQUESTS)
        queue = Queue(bare.REQUESTS, arguments={"x-expires": 300000})
        Topology(exchange, queue, Binding(queue.name, exchange.name, queue.name)).declare(channel)
        nobody = Properties(correlation_id="1" * bare.ID_SIZE, reply_to="0" * bare.ID_SIZE)
        for _ in range(10):
            channel.publish(exchange.name, queue.name, nobody, b"{}")
    pair = Pair("bare", url)
    try:
        for _ in range(2):
            assert pair.measure(Scenario("few", 5, 16), 0.2)["calls"] > 0
    finally:
        pair.close()
        with Broker(rabbit.url).channel() as channel:
            channel.queue_delete(bare.REQUESTS)
            for name in (bare.REQUESTS, bare.RESPONSES):
                channel.exchange_delete(name)


class Steps:
    """How often functions of amphora are called between two looks at the clock."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._counting = False

    def process_time(self) -> float:
        """Begin to count, or end it: the clock is looked at in front of what counts and behind."""
        self._counting = not self._counting
        sys.setprofile(self._count if self._counting else None)
        return 0.0

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HOME):
            self.counted[code.co_qualname] += 1


@pytest.mark.parametrize(
    ("single", "most"), [(False, 85), (True, 110)], ids=["in batches", "answered singly"]
)
def test_a_call_goes_through_few_functions_in_client_and_server(
    single: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 10 * hot_path.BURST
    steps = Steps()
    # As hot_path does for itself: turns are not cut under the profiler.
    monkeypatch.setattr(waking, "LONGEST_TURN", 60.0)
    monkeypatch.setattr(pool, "LONGEST_TURN", 60.0)
    for make in (hot_path.ClientSide, hot_path.ServerSide):
        side = make(single=single)
        try:
            # What is done once is not counted.
            side.run(calls)
            with monkeypatch.context() as patch:
                patch.setattr(hot_path, "process_time", steps.process_time)
                side.run(calls)
        finally:
            sys.setprofile(None)
            side.close()

    assert steps.counted.total() / calls <= most, steps.counted.most_common(100)
