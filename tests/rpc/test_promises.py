"""What users rely on most: no call is lost, and none hangs, whatever happens to whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult

from amphora import AmqpRpcClient, ConnectionLost, NoResult
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import Returned
from amphora.wire.properties import Properties
from tests.support.brokers import Broker, ManagedBroker
from tests.support.processes import PythonProcess
from tests.support.rpc import Gate, MakeClient, MakeServer, RunProgram, add
from tests.support.waiting import wait_until

# A call ends by its deadline and one second; the rest is for a machine that is busy.
GRACE = 1.0 + 9.0


def processed(server: PythonProcess) -> int:
    """Stop a server and return how many requests it has answered."""
    server.terminate()
    assert server.wait() == 0
    return int(server.wait_for("processed").split()[1])


def result(caller: PythonProcess) -> dict[str, int]:
    """Return how many calls of a caller that is done ended in which way."""
    found: dict[str, int] = json.loads(caller.wait_for("result").partition(" ")[2])
    return found


def test_10_000_calls_of_200_greenlets_to_two_servers_are_all_answered(
    run_program: RunProgram,
) -> None:
    servers = [run_program("server") for _ in range(2)]
    caller = run_program("caller", "10000", "200")
    assert caller.wait() == 0
    assert result(caller) == {"right": 10_000}
    assert "connects 1 1" in caller.lines
    counts = [processed(server) for server in servers]
    assert sum(counts) == 10_000
    assert min(counts) > 0


def test_no_call_is_lost_or_hangs_when_all_connections_are_closed_again_and_again(
    run_program: RunProgram, managed_broker: ManagedBroker, tmp_path: Path
) -> None:
    servers = [run_program("server") for _ in range(2)]
    enough = tmp_path / "enough"
    caller = run_program("caller", "10000", "200", "0.02", enough)
    ended = 0
    for turn in range(1, 5):
        ended += 1000
        caller.wait_for(f"ended {ended}")
        managed_broker.close_all_connections()
        # Both of its connections: what it has printed so far may be from before.
        wait_until(lambda turn=turn: caller.output.count("connected again") == 2 * turn)
        ended = max(int(line.split()[1]) for line in caller.lines if line.startswith("ended"))
    enough.touch()
    assert caller.wait() == 0
    assert "pending 0" in caller.lines
    (kind, count), *others = result(caller).items()
    assert (kind, others) == ("right", [])
    assert count >= 10_000
    assert caller.wait_for("connects") == "connects 5 5"
    # Some may have run twice, none not at all.
    assert sum(processed(server) for server in servers) >= count


def test_a_client_may_be_started_before_any_server_and_before_the_broker(
    run_program: RunProgram, managed_broker: ManagedBroker
) -> None:
    managed_broker.stop()
    caller = run_program("caller", "100", "20", ready="calling")
    caller.wait_for("connecting again")
    managed_broker.start()
    server = run_program("server")
    assert caller.wait() == 0
    assert result(caller) == {"right": 100}
    assert processed(server) == 100


def test_a_call_ends_by_its_deadline_while_the_broker_is_down_and_works_when_it_is_back(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    client = make_client(timeout=60)
    accepted = client.defer(wait_publish=True).add(1, 2)
    managed_broker.stop()
    wait_until(lambda: client.state == "connecting")
    wait_until(lambda: client.session.publishing.connection is None)
    patient = client.defer.add(3, 4)
    assert_calls_end_unsent(client)
    managed_broker.start()
    assert not accepted.ready()
    make_server(add)
    # The broker kept the one that it had confirmed, and the client the one that it could not send.
    assert accepted.get() == 3
    assert patient.get() == 7
    assert client.call.add(5, 6) == 11
    assert client.state == "connected"


def test_a_call_ends_by_its_deadline_while_the_broker_is_frozen(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    make_server(add)
    client, fresh = make_client(), make_client()
    assert client.call.add(1, 2) == 3
    managed_broker.freeze()
    assert_calls_end(client, executed=None)
    assert_calls_end_unsent(fresh)
    managed_broker.thaw()
    assert client.call.add(3, 4) == 7
    assert fresh.call.add(5, 6) == 11


def test_closing_and_stopping_end_though_the_broker_is_frozen(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    gate = Gate()
    server, client = make_server(gate.hold), make_client()
    result = client.defer.hold()
    wait_until(lambda: gate.entered)
    managed_broker.freeze()
    ending: list[gevent.Greenlet] = [
        gevent.spawn(client.close),
        gevent.spawn(server.stop, timeout=0),
    ]
    with gevent.Timeout(20):
        gevent.joinall(ending, raise_error=True)
    assert (client.state, server.state) == ("closed", "stopped")
    assert isinstance(result.exception, ConnectionLost)
    managed_broker.thaw()


def assert_calls_end_unsent(client: AmqpRpcClient) -> None:
    assert_calls_end(client, executed=False)


def assert_calls_end(client: AmqpRpcClient, executed: bool | None) -> None:
    """Calls in every way end by their deadline, and tell whether the handler may have run."""
    ways: list[Any] = [
        client.call(timeout=0.5).add,
        client.defer(timeout=0.5, wait_publish=True).add,
        client.cast(timeout=0.5, wait_publish=True).add,
        lambda *args: client.defer(timeout=0.5).add(*args).get(),
    ]
    pending = client.pending
    calls = [gevent.spawn(way, 1, 2) for way in ways for _ in range(10)]
    with gevent.Timeout(0.5 + GRACE):
        gevent.joinall(calls)
    for call in calls:
        assert isinstance(call.exception, NoResult)
        assert call.exception.executed is executed
    assert client.pending == pending


def test_the_requests_of_a_killed_server_are_answered_by_another(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    client = make_client()
    victim = run_program("server")
    results = [client.defer.wait_for_file(str(release)) for _ in range(10)]
    wait_until(lambda: len([line for line in victim.lines if "waiting for" in line]) == 10)
    heir = run_program("server")
    victim.kill()
    release.touch()
    assert [result.get() for result in results] == [heir.pid] * 10


class Verdict:
    """What the broker says of one message: whether a queue took it."""

    message_id = "probe"

    def __init__(self) -> None:
        self._taken: AsyncResult[bool] = AsyncResult()

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self._taken.set(returned is None)

    def get(self) -> bool:
        return bool(self._taken.get(timeout=40))


def is_bound(channel: Channel, exchange: str, key: str) -> bool:
    """Return whether a message would reach a queue; unlike a declaration it renews no lease."""
    verdict = Verdict()
    properties = Properties(message_id=verdict.message_id)
    channel.publish(exchange, key, properties, b"", mandatory=True, unconfirmed=verdict)
    return verdict.get()


def test_the_response_queue_of_a_killed_client_expires(
    make_server: MakeServer, run_program: RunProgram, broker: Broker, namespace: str
) -> None:
    gate = Gate()
    server = make_server(add, gate.hold)
    client = run_program("short_lived_client", ready="client")
    client_id = client.wait_for("client").split()[1]
    exchange = f"rpc_{namespace}_response"
    with broker.channel() as channel:
        channel.confirm_select()
        assert is_bound(channel, exchange, client_id)
        client.kill()
        wait_until(lambda: not is_bound(channel, exchange, client_id))
        assert not broker.queue_exists(f"rpc_{namespace}_{client_id}_response")
    # The answer that comes for it now is counted, and the server goes on.
    gate.open()
    wait_until(lambda: server.lost_responses == 1)
    with AmqpRpcClient(namespace, url=broker.url) as other:
        assert other.call.add(1, 2) == 3


def test_requests_that_pile_up_before_a_slow_broker_all_leave(
    make_server: MakeServer, make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    make_server(len)
    client = make_client()
    assert client.call.len("abc") == 3
    managed_broker.freeze()
    results = []
    for _ in range(6):
        results += [client.defer.len("x" * 300_000) for _ in range(12)]
        for _ in range(3):
            gevent.sleep(0)  # the writer writes until nobody takes any more
    managed_broker.thaw()
    assert [result.get() for result in results] == [300_000] * 72


def test_what_waits_for_a_confirm_is_sent_again_and_answered_once(
    make_server: MakeServer,
    make_client: MakeClient,
    managed_broker: ManagedBroker,
) -> None:
    server = make_server(add)
    client = make_client()
    client.call.add(0, 0)
    results = []
    for _ in range(3):
        results += [client.defer.add(n, n) for n in range(100)]
        closing = gevent.spawn(managed_broker.close_all_connections)
        while not closing.ready():
            results.append(client.defer.add(len(results), 0))
            gevent.sleep(0.005)
        closing.get()
    gevent.wait(results)
    assert all(result.successful() for result in results)
    assert client.pending == 0
    assert server.processed >= len(results)
