"""Functions that run at most once, under the faults of the other cases (E-01 to E-20).

Each of these cases is another one with a handler that is `ack="early"`: nothing is executed twice,
and each caller gets its answer or an error.
"""

from __future__ import annotations

import gevent
import pytest

from amphora.rpc.functions.terms import Ack
from tests.faults import (
    test_alarms,
    test_broker_process,
    test_cluster,
    test_connections_lost,
    test_load,
    test_messages,
    test_processes_die,
    test_silence,
    whole,
)
from tests.faults.ledger import SLACK
from tests.faults.rig import PREFETCH, Rig
from tests.support.cluster import Cluster
from tests.support.rabbitmq import RabbitNode

# Seconds between two questions whether a worker is there.
LIVENESS = 1.0
# Seconds in which a caller has to know that its worker is gone, and some for a busy machine.
KNOWN_IN = 2 * LIVENESS + 1.5


@pytest.fixture
def once(rig: Rig) -> Rig:
    """A rig whose handler runs at most once."""
    rig.ack = "early"
    return rig


@pytest.fixture
def once_on_a_cluster(cluster_rig: Rig) -> Rig:
    """The same on a cluster."""
    cluster_rig.ack = "early"
    return cluster_rig


@pytest.mark.case("E-01", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_nothing_runs_twice_when_the_broker_closes_all_connections(
    once: Rig, node: RabbitNode, queue_type: str
) -> None:
    test_connections_lost.test_no_call_is_lost_when_the_broker_closes_all_connections_again_and_again(
        once, node, queue_type
    )


@pytest.mark.case("E-02")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_runs_twice_when_connections_are_reset(once: Rig) -> None:
    test_connections_lost.test_no_call_is_lost_when_connections_are_reset(once)


@pytest.mark.case("E-03")
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_nothing_runs_twice_when_one_of_two_connections_is_lost(once: Rig) -> None:
    test_connections_lost.test_losing_one_of_two_connections_costs_the_other_nothing(once)


@pytest.mark.case("E-04")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_nothing_runs_twice_when_a_broker_is_frozen(once: Rig, node: RabbitNode) -> None:
    test_silence.test_a_frozen_broker_is_noticed_and_its_late_frames_are_ignored(once, node)


@pytest.mark.case("E-05")
@pytest.mark.slow
@pytest.mark.time_limit(240)
@pytest.mark.parametrize("cut_off", ["client", "server"])
def test_nothing_runs_twice_when_the_broker_hears_nothing_any_more(once: Rig, cut_off: str) -> None:
    test_silence.test_nothing_is_lost_when_the_broker_hears_nothing_any_more(once, cut_off)


@pytest.mark.case("E-06")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_nothing_runs_twice_when_nothing_comes_through_to_a_server(once: Rig) -> None:
    test_silence.test_a_server_to_which_nothing_comes_through_any_more_loses_no_request(once)


@pytest.mark.case("E-07")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_nothing_runs_twice_when_a_server_is_half_open(once: Rig) -> None:
    test_silence.test_requests_of_a_half_open_server_are_served_when_the_broker_notices(once)


@pytest.mark.case("E-08")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_runs_twice_when_the_broker_is_stopped_and_started(
    once: Rig, node: RabbitNode
) -> None:
    test_broker_process.test_nothing_is_lost_when_the_broker_is_stopped_and_started_again_and_again(
        once, node
    )


@pytest.mark.case("E-09")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_runs_twice_when_the_broker_is_killed(once: Rig, node: RabbitNode) -> None:
    test_broker_process.test_what_a_killed_broker_has_confirmed_is_executed(once, node, "call")


@pytest.mark.case("E-10")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_nothing_runs_twice_when_the_broker_comes_back_empty(once: Rig, node: RabbitNode) -> None:
    test_broker_process.test_a_broker_that_comes_back_empty_is_furnished_again(once, node)


@pytest.mark.case("E-11")
@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_nothing_runs_twice_in_an_alarm(once: Rig, node: RabbitNode) -> None:
    test_alarms.test_calls_wait_while_the_broker_is_low_on_memory_and_none_is_lost(once, node)


@pytest.mark.case("E-12")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_nothing_runs_twice_when_the_confirms_of_requests_are_lost(once: Rig) -> None:
    ledger = test_messages.requests_whose_confirms_are_lost(once, "call")
    # What was sent again was refused, behind the answer or before it.
    assert ledger.unexpected or ledger.errors


@pytest.mark.case("E-13")
@pytest.mark.slow
@pytest.mark.time_limit(120)
def test_nothing_runs_twice_when_a_server_is_halted(once: Rig) -> None:
    test_processes_die.test_a_server_that_was_halted_sends_no_stale_acks(once)


@pytest.mark.case("E-14")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_runs_twice_while_servers_are_replaced(once: Rig) -> None:
    test_processes_die.test_nothing_is_lost_or_run_twice_while_servers_are_replaced(once)
    assert not once.ledger.errors


@pytest.mark.case("E-15")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_nothing_runs_twice_when_many_clients_come_back_after_a_restart(
    once: Rig, node: RabbitNode
) -> None:
    test_load.test_many_clients_come_back_after_a_restart(once, node)


@pytest.mark.case("E-16")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_nothing_runs_twice_when_a_node_of_a_cluster_is_killed(
    once_on_a_cluster: Rig, cluster: Cluster
) -> None:
    test_cluster.test_clients_whose_node_is_killed_get_their_answers_through_another(
        once_on_a_cluster, cluster
    )


@pytest.mark.case("E-17")
@pytest.mark.slow
@pytest.mark.time_limit(240)
def test_nothing_runs_twice_when_the_node_that_leads_the_queue_is_killed(
    once_on_a_cluster: Rig, cluster: Cluster
) -> None:
    test_cluster.test_the_death_of_the_node_that_leads_the_request_queue_is_hardly_felt(
        once_on_a_cluster, cluster
    )


@pytest.mark.case("E-18")
@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_nothing_runs_twice_when_a_node_of_a_cluster_is_frozen(
    once_on_a_cluster: Rig, cluster: Cluster
) -> None:
    test_cluster.freeze_a_node(once_on_a_cluster, cluster)
    # How soon others are answered is the business of D-04.
    once_on_a_cluster.settle(errors=("NoResult",))


@pytest.mark.case("E-20", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("ack", ["early", "done"])
def test_the_caller_of_a_killed_worker_soon_knows_it_or_another_worker_serves_it(
    rig: Rig, ack: Ack
) -> None:
    kills = whole(20, 1)
    rig.ack = ack
    rig.serve()
    rig.call(rate=100, pause=0.3, liveness=LIVENESS)
    rig.wait_for_answers(50)
    for number in range(kills):
        gevent.sleep(rig.random.uniform(0.0, 0.5))
        with rig.outage("kill -9 of a worker"):
            rig.servers[number].kill()
        rig.serve(1)
        # So that it is known which kill a call has suffered.
        gevent.sleep(KNOWN_IN)
    ledger = rig.settle(duplicates=kills * PREFETCH)
    lost = [(i, end) for i, end in ledger.ended.items() if end.outcome == "ServerLost"]
    killed_at = [at for at, _ in ledger.faults]
    took = [end.at - max([at for at in killed_at if at < end.at]) for _, end in lost]
    ledger.figures["s to know"] = round(max(took, default=0.0), 2)
    assert max(took, default=0.0) < whole(1.0, SLACK) * KNOWN_IN
    assert all(end.executed is None for _, end in lost)
    assert bool(lost) == (ack == "early")
