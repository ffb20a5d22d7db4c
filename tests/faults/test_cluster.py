"""A cluster of three nodes that are killed, stopped, frozen, lost and cut off (D-01 to D-14).

What holds work is replicated here, as with `queue_type="quorum"`.  The wanted times are seconds; a
machine that is busy may need a few more, and a client that waited for a node would need as long as
the node is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import gevent
import pytest

from amphora import (
    AmphoraError,
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    ManagementClient,
    NoResult,
    Session,
)
from tests.faults import whole
from tests.faults.conftest import TICK
from tests.faults.partitions import DivisibleCluster
from tests.faults.rig import HEARTBEAT, PREFETCH, Rig
from tests.support.cluster import Cluster
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until

CLIENTS = whole(3, 2)
SERVERS = whole(3, 2)
# How many calls a client makes at a time, and in a second.
CALLERS = 10
RATE = whole(30, 10)
# Seconds that a handler takes, so that some are at work when a node dies.
PAUSE = 0.05
TIMEOUT = 12.0
# How long a node is away: longer than anybody may be without an answer.  In a short run it is away
# until there were answers for a while.
AWAY = whole(30.0, 0.0)
# What somebody may be without an answer when a node dies, on a machine that is busy.
SILENCE = 8.0
# What the smaller side of a partition may cost: it is given up at TICK and a quarter of it.
CUT_OFF_SILENCE = 1.25 * TICK + SILENCE
# What a frozen node may cost: its clients give it up after two heartbeats.  On RabbitMQ 3 no queue
# can be declared before the other nodes have given it up, too.
FROZEN_SILENCE = max(2 * HEARTBEAT + SILENCE, CUT_OFF_SILENCE)
# The share of calls that may fail when a node dies; in a short run, few are most of those at work.
FEW = whole(0.005, 0.05)
# What may run again for each node that goes.
IN_FLIGHT = SERVERS * PREFETCH + CLIENTS * CALLERS
WORKERS = 3


def start(rig: Rig, cluster: Cluster) -> None:
    """Start servers and clients, and wait until everybody has had answers."""
    rig.serve(SERVERS, queue_type="quorum")
    for _ in range(CLIENTS):
        rig.call(rate=RATE, callers=CALLERS, timeout=TIMEOUT, pause=PAUSE, queue_type="quorum")
    rig.wait_for_answers(CLIENTS * whole(50, 10))
    wait_until(lambda: len(response_queues(rig)) == CLIENTS, "the clients' queues")


def response_queues(rig: Rig) -> list[str]:
    return [name for name in rig.queues() if name.endswith("_response")]


def node_of_a_client(rig: Rig, cluster: Cluster) -> RabbitNode:
    """Return the node that some client's answers wait on."""
    return cluster.home_of(response_queues(rig)[0])


@contextmanager
def node_away(rig: Rig, cluster: Cluster, node: RabbitNode, seconds: float) -> Iterator[None]:
    """Kill a node, and start it again after at least some seconds."""
    rig.fault(f"kill -9 of {node.name}")
    node.kill()
    began = monotonic()
    yield
    gevent.sleep(max(0.0, seconds - (monotonic() - began)))
    cluster.recover()


def go_on(rig: Rig, cluster: Cluster) -> None:
    """Wait until there were answers for a while."""
    rig.wait_for_answers(rig.answered + CLIENTS * RATE * 3)


@pytest.mark.case("D-01", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_clients_whose_node_is_killed_get_their_answers_through_another(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    with node_away(rig, cluster, node_of_a_client(rig, cluster), AWAY):
        go_on(rig, cluster)
    go_on(rig, cluster)
    rig.settle(duplicates=IN_FLIGHT, failures=FEW, silence=SILENCE)


@pytest.mark.case("D-02")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_the_death_of_the_node_that_leads_the_request_queue_is_hardly_felt(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    with node_away(rig, cluster, cluster.home_of(rig.request_queue), AWAY):
        pass
    go_on(rig, cluster)
    rig.settle(duplicates=IN_FLIGHT, failures=FEW, silence=SILENCE)


@pytest.mark.case("D-03")
@pytest.mark.slow
@pytest.mark.time_limit(400)
def test_nothing_fails_while_one_node_after_the_other_is_restarted(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    for node in cluster.nodes:
        rig.fault(f"{node.name} is stopped")
        node.stop()
        gevent.sleep(5.0)
        cluster.recover()
        go_on(rig, cluster)
    rig.settle(duplicates=len(cluster.nodes) * IN_FLIGHT, silence=SILENCE)


@pytest.mark.case("D-04")
@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_a_node_that_is_frozen_costs_two_heartbeats_and_a_tick(
    cluster_rig: Rig, watchful: Cluster
) -> None:
    freeze_a_node(cluster_rig, watchful)
    cluster_rig.settle(duplicates=IN_FLIGHT, failures=2 * FEW, silence=FROZEN_SILENCE)


def freeze_a_node(rig: Rig, cluster: Cluster) -> None:
    """Freeze a node under load for a while."""
    start(rig, cluster)
    node = node_of_a_client(rig, cluster)
    rig.fault(f"SIGSTOP of {node.name}")
    node.freeze()
    gevent.sleep(40.0)
    cluster.recover()
    go_on(rig, cluster)


@pytest.mark.case("D-05")
@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_nobody_waits_for_a_node_that_is_lost_for_ever(cluster_rig: Rig, cluster: Cluster) -> None:
    rig = cluster_rig
    start(rig, cluster)
    node = node_of_a_client(rig, cluster)
    rig.fault(f"{node.name} is lost")
    node.kill()
    gevent.sleep(20.0)
    rig.fault("and forgotten")
    cluster.forget(node)
    gevent.sleep(10.0)
    go_on(rig, cluster)
    rig.settle(duplicates=IN_FLIGHT, failures=FEW, silence=SILENCE)


@pytest.mark.case("D-06")
@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_without_a_majority_calls_end_by_their_deadlines_and_with_it_they_are_answered(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    with rig.outage("kill -9 of two nodes of three"):
        for node in cluster.nodes[1:]:
            node.kill()
        gevent.sleep(AWAY)
        cluster.recover()
    go_on(rig, cluster)
    rig.settle(duplicates=2 * IN_FLIGHT, errors=("NoResult", "Rejected"), recovery=5.0)


@pytest.mark.case("D-07")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_a_server_that_starts_while_a_node_is_down_serves_at_once(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    home = cluster.home_of(f"rpc_{rig.namespace}_rollcall")
    with node_away(rig, cluster, home, AWAY):
        # The others have come to terms with it, or not.
        gevent.sleep(3.0)
        began = monotonic()
        rig.serve(1, queue_type="quorum")
        took = monotonic() - began
    rig.ledger.figures["s to start"] = round(took, 1)
    go_on(rig, cluster)
    rig.settle(duplicates=IN_FLIGHT, failures=FEW, silence=SILENCE)
    assert took <= SILENCE


@pytest.mark.case("D-11")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_a_server_serves_while_the_roll_call_is_on_a_node_that_was_stopped_in_good_order(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    home, *others = cluster.nodes
    namespace = f"{rig.namespace}_late"
    settings: dict[str, Any] = {"heartbeat": HEARTBEAT, "queue_type": "quorum"}
    with AmqpRpcServer(namespace, url=home.url, **settings) as first:
        first.serve()
        wait_until(lambda: first.ready)
    assert cluster.home_of(f"rpc_{namespace}_rollcall") is home
    rig.fault(f"{home.name} is stopped")
    home.stop()
    url = cluster.url_of(others)
    with (
        AmqpRpcServer(namespace, url=url, **settings) as server,
        AmqpRpcClient(namespace, url=url, **settings) as client,
    ):
        server.add_function(pow)
        server.serve()
        for number in range(100):
            assert client.call(timeout=5.0).pow(number, 2) == number**2
            gevent.sleep(0.1)
        connects = server.session.consuming.connects
    cluster.recover()
    go_on(rig, cluster)
    rig.settle(duplicates=IN_FLIGHT, failures=FEW, silence=SILENCE)
    assert connects == 1


class Fanout:
    """Workers that get every request, those who call them, and what was heard of both."""

    def __init__(self, rig: Rig) -> None:
        self.namespace = f"{rig.namespace}_all"
        self.ran: set[int] = set()
        self.calls = 0
        self.failed: list[str] = []
        self.workers = [self._worker(rig) for _ in range(WORKERS)]
        self.client = AmqpRpcFanoutClient(self.namespace, **settings_of(rig))
        self.management = ManagementClient(**settings_of(rig))

    def _worker(self, rig: Rig) -> AmqpRpcFanoutServer:
        worker = AmqpRpcFanoutServer(self.namespace, **settings_of(rig))
        worker.add_function(self.note)
        worker.serve()
        return worker

    def note(self, number: int) -> int:
        self.ran.add(number)
        return number

    def close(self) -> None:
        self.management.close()
        self.client.close()
        for worker in self.workers:
            worker.stop(timeout=0)

    def queue_of(self, worker: AmqpRpcFanoutServer) -> str:
        return f"rpc_{self.namespace}_{worker.worker_id}_request"

    def heard(self) -> int:
        """Return how many workers answer to both a call and a command; 0 if one fails."""
        self.calls += 1
        try:
            gathered = self.client.gather(timeout=3.0).note(self.calls)
            answers = [reply.get() for reply in gathered]
            pings = [reply.get() for reply in self.management.ask(self.namespace, "ping")]
        except AmphoraError as error:
            untrue = error.executed is False and self.calls in self.ran
            self.failed.append(f"{'untrue: ' if untrue else ''}{type(error).__name__}: {error}")
            return 0
        return min(len(answers), len(pings))


def settings_of(rig: Rig) -> dict[str, Any]:
    return {"url": rig.broker.url, "heartbeat": HEARTBEAT}


@pytest.mark.case("D-08")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_everybody_is_asked_and_counted_while_the_node_of_one_workers_queue_is_down(
    cluster_rig: Rig, cluster: Cluster
) -> None:
    rig = cluster_rig
    start(rig, cluster)
    fanout = Fanout(rig)
    try:
        wait_until(lambda: fanout.heard() == WORKERS, "all workers are heard")
        fanout.failed.clear()
        home = cluster.home_of(fanout.queue_of(fanout.workers[0]))
        with node_away(rig, cluster, home, AWAY):
            began = monotonic()
            try:
                wait_until(lambda: fanout.heard() == WORKERS, "all are heard again", AWAY)
            finally:
                rig.ledger.figures["s until all were heard"] = round(monotonic() - began, 1)
            assert [fanout.heard() for _ in range(5)] == [WORKERS] * 5, fanout.failed
            took = float(rig.ledger.figures["s until all were heard"])
        assert [fanout.heard() for _ in range(5)] == [WORKERS] * 5, fanout.failed
    finally:
        fanout.close()
    assert not [text for text in fanout.failed if text.startswith("untrue")]
    assert took <= SILENCE, fanout.failed
    rig.settle(duplicates=IN_FLIGHT, failures=FEW, silence=SILENCE)


@pytest.mark.case("D-09")
@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_the_larger_side_of_a_network_that_is_cut_goes_on(
    cluster_rig: Rig, divisible: DivisibleCluster
) -> None:
    rig, cluster = cluster_rig, divisible
    start(rig, cluster)
    node = node_of_a_client(rig, cluster)
    rig.fault(f"{node.name} is cut off from the other nodes, not from clients")
    cluster.cut_off(node)
    gevent.sleep(50.0)
    cluster.heal(node)
    cluster.recover()
    go_on(rig, cluster)
    rig.settle(duplicates=IN_FLIGHT, failures=2 * FEW, silence=CUT_OFF_SILENCE)


@pytest.mark.case("D-10")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_while_the_node_of_a_queue_is_down_it_is_not_said_that_nobody_is_there(
    cluster: Cluster, namespace: str
) -> None:
    home, here = cluster.nodes[:2]
    with ExitStack() as made:
        # Classic queues, and servers that know no other node: both are gone with theirs.
        server = AmqpRpcServer(namespace, url=cluster.url_of([home]))
        fanout_server = AmqpRpcFanoutServer(f"{namespace}_all", url=cluster.url_of([home]))
        for each in (server, fanout_server):
            made.callback(each.stop, timeout=0)
            each.add_function(abs)
            each.serve()
        wait_until(lambda: server.ready and fanout_server.ready)
        url = cluster.url_of([here])
        client = made.enter_context(AmqpRpcClient(namespace, url=url, timeout=3.0))
        fanout = made.enter_context(AmqpRpcFanoutClient(f"{namespace}_all", url=url, timeout=3.0))
        assert client.call.abs(-1) == 1
        assert [reply.get() for reply in fanout.gather().abs(-2)] == [2]

        home.kill()
        wait_until(lambda: cluster.running_beside(here) == {*cluster.nodes} - {home})
        gathered = fanout.gather().abs(-3)
        assert list(gathered) == []
        assert not gathered.complete
        for call in (client.call, client.cast(wait_publish=True), fanout.call):
            with pytest.raises(AmphoraError) as caught:
                call.abs(-4)
            assert caught.value.executed is not True
            assert "no server is there" not in str(caught.value)
            assert "away" in str(caught.value) or isinstance(caught.value, NoResult)


@contextmanager
def led_by(home: RabbitNode, cluster: Cluster, namespace: str) -> Iterator[AmqpRpcServer]:
    """Give a server at the other nodes, of a request queue that one node leads."""
    settings: dict[str, Any] = {"heartbeat": HEARTBEAT, "queue_type": "quorum"}
    with AmqpRpcServer(namespace, url=home.url, **settings) as first:
        first.serve()
        wait_until(lambda: first.ready)
    assert cluster.home_of(f"rpc_{namespace}_request") is home
    others = cluster.url_of(cluster.others(home))
    with AmqpRpcServer(namespace, url=others, **settings) as server:
        server.add_function(pow)
        yield server


@pytest.fixture
def unwarned(cluster: Cluster) -> Cluster:
    """A cluster that declares queues before it gives a silent node up, after 60 seconds."""
    if tuple(map(int, cluster.version.split(".")[:2])) < (4, 3):
        pytest.skip("before RabbitMQ 4.3 all wait until a silent node is given up")
    return cluster


@pytest.mark.case("D-12")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_a_client_that_calls_before_a_frozen_leader_is_replaced_is_answered_soon_after(
    unwarned: Cluster, namespace: str
) -> None:
    home, *others = unwarned.nodes
    with (
        led_by(home, unwarned, namespace) as server,
        AmqpRpcClient(
            namespace, url=unwarned.url_of(others), heartbeat=HEARTBEAT, queue_type="quorum"
        ) as client,
    ):
        server.serve()
        for link in (client.session.publishing, client.session.consuming):
            link.wait_connected(40)
        wait_until(lambda: server.ready and client.session.settled)
        home.freeze()
        assert client.call(timeout=45.0).pow(2, 3) == 8


@pytest.mark.case("D-13")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_a_server_whose_first_answer_goes_to_a_frozen_node_soon_answers_other_clients(
    unwarned: Cluster, namespace: str
) -> None:
    home, *others = unwarned.nodes
    settings: dict[str, Any] = {"heartbeat": HEARTBEAT, "queue_type": "quorum"}
    with (
        led_by(home, unwarned, namespace) as server,
        AmqpRpcClient(namespace, url=home.url, **settings) as away,
        AmqpRpcClient(namespace, url=unwarned.url_of(others), **settings) as client,
    ):
        results = [away.defer(timeout=200.0).pow(number, 2) for number in range(5)]
        wait_until(lambda: not away.session.publisher.unconfirmed)
        home.freeze()
        server.serve()
        wait_until(lambda: server.ready)
        assert client.call(timeout=30.0).pow(2, 3) == 8
        home.thaw()
        assert [result.get() for result in results] == [0, 1, 4, 9, 16]


@pytest.mark.case("D-14")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_a_request_to_all_of_whom_one_is_on_a_frozen_node_delays_no_call(
    unwarned: Cluster, namespace: str
) -> None:
    home, *others = unwarned.nodes
    with ExitStack() as made:
        server = made.enter_context(led_by(home, unwarned, namespace))
        server.serve()
        everybody = [
            AmqpRpcFanoutServer(f"{namespace}_all", url=node.url) for node in unwarned.nodes
        ]
        for each in everybody:
            made.callback(each.stop, timeout=0)
            each.add_function(abs)
            each.serve()
        session = made.enter_context(Session(unwarned.url_of(others), heartbeat=HEARTBEAT))
        client = made.enter_context(AmqpRpcClient(namespace, session=session, queue_type="quorum"))
        fanout = made.enter_context(AmqpRpcFanoutClient(f"{namespace}_all", session=session))
        wait_until(lambda: server.ready and all(each.ready for each in everybody))
        assert client.call.pow(2, 3) == 8
        home.freeze()
        # By now the request queue has another leader.
        assert client.call(timeout=45.0).pow(3, 3) == 27
        with pytest.raises(NoResult):
            list(fanout.gather(timeout=2.0).abs(-1))
        assert client.call(timeout=10.0).pow(4, 3) == 64
