"""What servers and clients count, and what Prometheus reads of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from prometheus_client.parser import text_string_to_metric_families

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, errors
from amphora.observe import metrics as module
from amphora.observe.exposition import exposition
from amphora.observe.metrics import Metrics
from amphora.observe.pool import Pool, decode, encode
from amphora.wire.properties import Properties
from tests.support.brokers import ManagedBroker
from tests.support.processes import PythonProcess
from tests.support.raw import RawClient
from tests.support.rpc import Gate, MakeClient, MakeServer, add, make_room
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)

SERVER = "rpc_server_call_duration_seconds_count"
CLIENT = "rpc_client_call_duration_seconds_count"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of one metric, by those of its labels but for the system's name."""
    text = exposition(decode(encode(metrics.snapshot()))).decode()
    return {
        tuple(
            sample.labels[label]
            for label in ("namespace", "rpc_method", "rpc_status_code", "le")
            if label in sample.labels
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def calls(metrics: Metrics, name: str = SERVER) -> dict[str, float]:
    """Return how many calls there were, as "function status"."""
    return {" ".join(labels): value for labels, value in samples(metrics, name).items()}


def test_both_sides_count_calls_by_function_and_status(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    def count() -> Iterator[int]:
        yield from range(3)

    server = make_server(add, count)
    server.add_function(lambda: 1 // 0, name="fail")
    server.add_function({}.__getitem__, name="find", expected=KeyError)
    server.add_function(object, name="unsendable")
    client = make_client()
    for watched in (server, client, server, client):
        metrics.watch(watched)
    for _ in range(3):
        client.call.add(1, 2)
    client.cast(wait_publish=True).add(1, 2)
    assert client.defer.add(1, 2).get() == 3
    assert list(client.stream.count()) == [0, 1, 2]
    for function, args in (("fail", ()), ("find", (1,)), ("unsendable", ()), ("add", (1,))):
        with pytest.raises(errors.AmphoraError):
            getattr(client.call, function)(*args)
    with pytest.raises(errors.WrongRequest):
        client.call.made_up()
    wait_until(lambda: sum(calls(metrics).values()) == 11)
    assert calls(metrics) == {
        f"{namespace}/add OK": 5,
        f"{namespace}/count OK": 1,
        f"{namespace}/fail RemoteException": 1,
        f"{namespace}/find Expected": 1,
        f"{namespace}/unsendable WrongResult": 1,
        f"{namespace}/add WrongRequest": 1,
        "_OTHER WrongRequest": 1,
    }
    wait_until(lambda: sum(calls(metrics, CLIENT).values()) == 10)
    assert calls(metrics, CLIENT) == {
        f"{namespace}/add OK": 4,
        f"{namespace}/count OK": 1,
        f"{namespace}/fail RemoteException": 1,
        f"{namespace}/find RemoteException": 1,
        f"{namespace}/unsendable WrongResult": 1,
        f"{namespace}/add WrongRequest": 1,
        "_OTHER WrongRequest": 1,
    }


def test_names_that_strangers_make_up_are_no_labels(
    make_server: MakeServer,
    broker: Any,
    namespace: str,
    metrics: Metrics,
) -> None:
    metrics.watch(make_server(add))
    with RawClient(broker, namespace) as stranger:
        for number in range(50):
            stranger.request(f"made up {number}")
        stranger.send(b"no request")
        for _ in range(51):
            stranger.answer()
    wait_until(lambda: calls(metrics) == {"_OTHER WrongRequest": 51})
    # Where nobody answers, nobody knows which functions there are.
    with amphora.AmqpRpcClient(f"{namespace}.nobody", url=broker.url) as client:
        metrics.watch(client)
        for number in range(3):
            with pytest.raises(errors.NoResult):
                getattr(client.call(timeout=0.01), f"name{number}")()
    assert calls(metrics, CLIENT) == {"_OTHER NoResult": 3}


def test_a_duration_is_counted_in_its_bucket(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    server = make_server()
    server.add_function(gevent.sleep, name="sleep")
    metrics.watch(server)
    client = make_client()
    client.call.sleep(0.03)
    wait_until(lambda: calls(metrics))
    method, status = f"{namespace}/sleep", "OK"
    buckets = samples(metrics, "rpc_server_call_duration_seconds_bucket")
    assert (buckets[method, status, "0.025"], buckets[method, status, "+Inf"]) == (0, 1)
    (total,) = samples(metrics, "rpc_server_call_duration_seconds_sum").values()
    assert total >= 0.03


def test_what_is_now_is_a_gauge(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    gate = Gate()
    server = make_server(gate.hold, concurrency=2)
    client = make_client()
    metrics.watch(server)
    metrics.watch(client)
    results = [client.defer.hold(number) for number in range(5)]
    wait_until(lambda: len(gate.entered) == 2)

    def gauges() -> dict[str, float]:
        values = {}
        for name in ("in_flight", "concurrency", "pending", "queue_messages"):
            values[name] = samples(metrics, f"amphora_{name}").get((namespace,), 0)
        for name in ("connected", "sessions"):
            values[name] = samples(metrics, f"amphora_{name}").get((), 0)
        return values

    wait_until(lambda: gauges()["queue_messages"] == 3)
    assert gauges() == {
        "in_flight": 2,
        "concurrency": 2,
        "pending": 5,
        "queue_messages": 3,
        "connected": 2,
        "sessions": 2,
    }
    wait_until(lambda: samples(metrics, "amphora_unconfirmed") == {(): 0})
    gate.open()
    assert [result.get() for result in results] == [0, 1, 2, 3, 4]
    wait_until(lambda: gauges()["in_flight"] == 0)
    assert gauges()["pending"] == 0
    client.close()
    server.stop()
    assert samples(metrics, "amphora_sessions") == {}
    assert samples(metrics, "amphora_in_flight") == {}


def test_requests_that_are_not_begun_are_counted_apart(
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    metrics: Metrics,
    broker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    server = make_server(add, gate.hold, concurrency=1)
    metrics.watch(server)
    for name in ("expired", "cancelled", "redelivered", "poison", "queue_wait_unknown"):
        # There from the start, so that the first one is an increase.
        assert samples(metrics, f"amphora_{name}_total") == {(namespace,): 0}
    client = make_client()
    held = client.defer.hold()
    wait_until(lambda: gate.entered)
    client.defer.add(1, 2).cancel()
    wait_until(lambda: len(server._worker.requests.admission.cancelled))
    gate.open()
    held.get()
    wait_until(lambda: samples(metrics, "amphora_cancelled_total") == {(namespace,): 1})
    make_room(server)
    with RawClient(broker, namespace) as stranger:
        stranger.request("add", 1, 2, expiration="0")
        wait_until(lambda: samples(metrics, "amphora_expired_total") == {(namespace,): 1})
    assert calls(metrics) == {f"{namespace}/hold OK": 1}


def test_requests_that_are_turned_away_are_counted(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    gate = Gate()
    server = make_server(serve=False, concurrency=4)
    server.add_function(gate.hold, concurrency=1)
    server.serve()
    metrics.watch(server)
    client = make_client()
    results = [client.defer.hold(number) for number in range(4)]
    wait_until(lambda: samples(metrics, "amphora_busy_total") == {(namespace,): 1})
    gate.open()
    assert [result.get() for result in results[:3]] == [0, 1, 2]
    with pytest.raises(errors.Busy):
        results[3].get()


def test_waits_in_the_queue_are_counted_where_they_are_known(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    metrics.watch(make_server(add))
    client = make_client()
    client.call.add(1, 2)
    gevent.sleep(0.1)
    client.call.add(1, 2)
    client.cast(wait_publish=True).add(1, 2)
    wait_until(lambda: sum(calls(metrics).values()) == 3)
    known = samples(metrics, "amphora_queue_wait_seconds_count").get((namespace,), 0)
    unknown = samples(metrics, "amphora_queue_wait_unknown_total")[(namespace,)]
    assert (known >= 1, unknown >= 1, known + unknown) == (True, True, 3)


def test_a_request_that_comes_again_is_counted(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    gate = Gate()
    first = make_server(gate.hold)
    metrics.watch(first)
    result = make_client().defer.hold()
    wait_until(lambda: gate.entered)
    first.stop(timeout=0)
    wait_until(lambda: calls(metrics) == {f"{namespace}/hold Aborted": 1})
    gate.open()
    metrics.watch(make_server(gate.hold))
    result.get()
    wait_until(lambda: samples(metrics, "amphora_redelivered_total") == {(namespace,): 1})


def test_a_request_that_is_given_up_is_counted(
    make_server: MakeServer, namespace: str, metrics: Metrics
) -> None:
    server = make_server(add, serve=False)
    metrics.watch(server)
    poison = amphora.Outcome("PoisonRequest", errors.PoisonRequest("given up"))
    call = amphora.CallContext(Properties(), namespace, server.worker_id)
    for observer in server._settings.on_done:
        observer(call, poison)
    assert samples(metrics, "amphora_poison_total") == {(namespace,): 1}
    assert calls(metrics) == {}


def test_connections_that_are_made_anew_are_counted_and_never_forgotten(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    metrics: Metrics,
) -> None:
    make_server(add)
    client = make_client()
    metrics.watch(client)
    client.call.add(1, 2)
    assert samples(metrics, "amphora_reconnects_total") == {(): 0}
    managed_broker.close_all_connections()
    assert client.call.add(1, 2) == 3
    wait_until(lambda: samples(metrics, "amphora_reconnects_total") == {(): 2})
    client.close()
    del client
    gc.collect()
    assert samples(metrics, "amphora_reconnects_total") == {(): 2}


def test_answers_of_all_servers_are_one_call(
    make_server: MakeServer, make_client: MakeClient, namespace: str, metrics: Metrics
) -> None:
    for _ in range(2):
        metrics.watch(make_server(add, kind=AmqpRpcFanoutServer))
    client = make_client(kind=AmqpRpcFanoutClient)
    metrics.watch(client)
    assert client.gather(timeout=20).add(1, 2).values() == [3, 3]
    wait_until(lambda: calls(metrics) == {f"{namespace}/add OK": 2})
    wait_until(lambda: calls(metrics, CLIENT) == {f"{namespace}/add OK": 1})
    # Each has a queue of its own.
    assert samples(metrics, "amphora_queue_messages") == {}


def test_metrics_keep_nothing_alive(make_client: MakeClient, metrics: Metrics, url: str) -> None:
    client = amphora.AmqpRpcClient("nothing", url=url)
    metrics.watch(client)
    gone = weakref.ref(client)
    client.close()
    del client
    gc.collect()
    assert gone() is None
    assert samples(metrics, "amphora_pending") == {}


def test_a_broker_that_cannot_be_asked_leaves_the_length_unknown(
    make_server: MakeServer, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(add)
    metrics.watch(server)
    wait_until(lambda: server.ready)
    asked = Event()

    def operate(*_: object) -> None:
        asked.set()
        raise errors.ConnectionLost("away")

    monkeypatch.setattr(server.session, "operate", operate)
    metrics.snapshot()
    assert asked.wait(20)
    monkeypatch.undo()
    monkeypatch.setattr(module, "ASK_EVERY", 0.0)
    assert samples(metrics, "amphora_queue_messages") == {}
    wait_until(lambda: list(samples(metrics, "amphora_queue_messages").values()) == [0])
    monkeypatch.setattr(module, "KNOWN_FOR", 0.0)
    assert samples(metrics, "amphora_queue_messages") == {}


def test_a_forked_child_begins_anew(broker: Any) -> None:
    program = """
import os
import amphora
from amphora.observe.metrics import Metrics

metrics = Metrics()
server = amphora.AmqpRpcServer("math")
metrics.watch(server)
call = amphora.CallContext(amphora.Properties(), "math", "worker")
for observer in server._settings.on_done:
    observer(call, amphora.Outcome("Expired"))
child = os.fork()
if child:
    os.waitpid(child, 0)
print("parent" if child else "child", metrics.snapshot()["amphora_expired_total"])
"""
    with PythonProcess("-c", program) as process:
        assert process.wait() == 0
    assert process.printed == ["child [(['math'], [0.0])]", "parent [(['math'], [1.0])]"]


def test_a_child_counts_connections_of_its_own(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
    metrics: Metrics,
) -> None:
    make_server(add)
    client = make_client()
    metrics.watch(client)
    client.call.add(1, 2)
    managed_broker.close_all_connections()
    client.call.add(1, 2)
    wait_until(lambda: samples(metrics, "amphora_reconnects_total") == {(): 2})
    # As in a child, whose first two connections are none that are made anew.
    module._after_fork_in_child()
    assert samples(metrics, "amphora_reconnects_total") == {(): 0}
    for reconnects in (0, 2):
        managed_broker.close_all_connections()
        client.call.add(1, 2)
        wait_until(
            lambda count=reconnects: samples(metrics, "amphora_reconnects_total") == {(): count}
        )


def test_workers_that_are_killed_have_counted_all_the_same(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    pool = Pool()
    client = make_client()
    for life in range(3):
        metrics = Metrics()
        server = make_server(add)
        metrics.watch(server)
        for _ in range(2):
            client.call.add(1, 2)
        wait_until(lambda metrics=metrics: sum(calls(metrics).values()) == 2)
        pool.report(life, decode(encode(metrics.snapshot())))
        server.stop()
        pool.gone(life)
    name = "rpc_server_call_duration_seconds"
    ((labels, numbers),) = pool.snapshot()[name]
    assert (labels, sum(numbers[:-1])) == ([f"{namespace}/add", "OK"], 6)
    assert "amphora_in_flight" not in pool.snapshot()
