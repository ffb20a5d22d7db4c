"""Connections that are lost (B-01 to B-10)."""

from __future__ import annotations

from contextlib import closing

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from amphora import AmqpRpcClient, AmqpRpcServer, Session, testing
from tests.faults import whole
from tests.faults.proxy import CUT, PASS
from tests.faults.rig import CALLERS, PREFETCH, PROGRAMS, Rig
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import RabbitNode
from tests.support.waiting import wait_until


@pytest.mark.case("B-01", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_no_call_is_lost_when_the_broker_closes_all_connections_again_and_again(
    rig: Rig, node: RabbitNode, queue_type: str
) -> None:
    kills = whole(20, 2)
    rig.serve(queue_type=queue_type)
    rig.call(rate=whole(400, 100), queue_type=queue_type)
    rig.wait_for_answers(50)
    for _ in range(kills):
        gevent.sleep(rig.random.uniform(0.2, whole(3.0, 0.5)))
        with rig.outage("close_all_connections"):
            node.close_all_connections()
    rig.wait_for_answers(whole(10_000, 500), 100.0)
    rig.settle(duplicates=kills * PREFETCH * 2)


@pytest.mark.case("B-02")
@pytest.mark.slow
@pytest.mark.time_limit(230)
def test_no_call_is_lost_when_connections_are_reset(rig: Rig) -> None:
    resets = whole(50, 5)
    proxy = rig.proxy()
    rig.serve(url=proxy.url)
    rig.call(rate=whole(300, 100), url=proxy.url)
    rig.wait_for_answers(100)
    for _ in range(resets):
        gevent.sleep(rig.random.uniform(0.1, 0.8))
        if proxy.connections:
            with rig.outage("all connections are reset"):
                proxy.reset()
    rig.wait_for_answers(whole(10_000, 500), 90.0)
    # Connections that last for a moment are one long outage, with pauses of up to 5 s in it.
    rig.settle(duplicates=resets * (2 * PREFETCH + CALLERS), recovery=12.0)


# What the broker says to a client on its way in, by class and method.
STEPS = {
    "start": (10, 10),
    "tune": (10, 30),
    "open-ok": (10, 41),
    "channel.open-ok": (20, 11),
    "exchange.declare-ok": (40, 11),
    "queue.declare-ok": (50, 11),
    "bind-ok": (50, 21),
    "qos-ok": (60, 11),
    "consume-ok": (60, 21),
    "select-ok": (85, 11),
}


@pytest.mark.case("B-03", short=True)
@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_connection_that_is_cut_while_it_is_set_up_is_made_again(rig: Rig, step: str) -> None:
    cuts = whole(20, 2)
    proxy = rig.proxy()
    rig.server_here()
    client = rig.client_here(url=proxy.url)

    def cut(name: tuple[int, int] | None) -> str:
        if name == STEPS[step] and proxy.faults < cuts:
            return CUT
        return PASS

    proxy.down.judge = cut
    with rig.outage(f"cut at {step}"):
        pending = rig.many_here(client, 10)
        wait_until(lambda: proxy.faults == cuts, timeout=30.0)
    gevent.joinall(pending)
    assert {greenlet.get().outcome for greenlet in pending} == {"ok"}
    assert proxy.connections == 2
    rig.settle(duplicates=10 * cuts)


@pytest.mark.case("B-04")
@pytest.mark.slow
@pytest.mark.time_limit(230)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_connection_that_is_cut_in_the_middle_of_a_frame_is_made_again(
    rig: Rig, direction: str
) -> None:
    proxy = rig.proxy()
    rig.server_here()
    for size in range(1, 1_400, whole(7, 150)):
        client = rig.client_here(url=proxy.url)
        before = proxy.faults
        getattr(proxy, direction).cut_after = size
        rig.fault(f"cut after {size} bytes")
        pending = rig.many_here(client, 10)
        wait_until(lambda before=before: proxy.faults > before)
        getattr(proxy, direction).cut_after = None
        gevent.joinall(pending)
        assert {greenlet.get().outcome for greenlet in pending} == {"ok"}
        client.close()
    # A client whose connection is cut while it closes leaves its queue to expire.
    rig.settle(duplicates=10 * len(rig.ledger.faults), remains=True)


@pytest.mark.case("B-05")
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_losing_one_of_two_connections_costs_the_other_nothing(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.serve(url=proxy.url)
    rig.call(rate=whole(150, 80), url=proxy.url)
    rig.wait_for_answers(100)
    for _ in range(whole(40, 5)):
        gevent.sleep(rig.random.uniform(0.1, 0.5))
        with rig.outage("one connection is reset"):
            assert proxy.reset(1) == 1
    rig.wait_for_answers(whole(5_000, 500))
    rig.settle(duplicates=whole(40, 5) * max(PREFETCH, CALLERS))


@pytest.mark.case("B-06", short=True)
@pytest.mark.slow
@pytest.mark.time_limit(200)
def test_a_channel_that_is_closed_is_opened_again_and_costs_its_neighbours_nothing(
    embedded_rig: Rig, embedded: testing.Broker
) -> None:
    rig = embedded_rig
    with Session(embedded.url) as session:
        server = rig.server_here(session=session)
        client = rig.client_here(session=session)
        other = AmqpRpcServer(f"{rig.namespace}-other", session=session)
        other.add_function(abs)
        other.serve()
        with AmqpRpcClient(f"{rig.namespace}-other", session=session) as neighbour:
            assert neighbour.call.abs(-1) == 1
            for _ in range(whole(50, 5)):
                pending = rig.many_here(client, 2)
                with rig.outage("the channel of a queue is closed (406)"):
                    assert embedded.close_channel(rig.request_queue) == 1
                assert neighbour.call.abs(-2) == 2
                gevent.joinall(pending)
                wait_until(lambda: rig.queues()[rig.request_queue][0] == 0)
        assert session.publishing.connects == session.consuming.connects == 1
        client.close()
        server.stop()
        other.stop()
    rig.settle(duplicates=100, recovery=None)


@pytest.mark.case("B-07")
@pytest.mark.slow
def test_what_is_refused_after_a_reconnect_costs_the_rest_nothing(rig: Rig) -> None:
    proxy = rig.proxy()
    with Session(proxy.url, heartbeat=4) as session, Session(rig.broker.url) as operator:
        server = rig.server_here(session=session)
        other = AmqpRpcServer(f"{rig.namespace}-other", session=session)
        other.add_function(abs)
        other.serve()
        client = AmqpRpcClient(f"{rig.namespace}-other", session=session)
        assert client.call.abs(-1) == 1
        with rig.outage("the request queue comes back with other settings"):
            proxy.refuse()
            proxy.reset()
            operator.operate(lambda channel: channel.queue_delete(rig.request_queue), 10.0)
            operator.operate(
                lambda channel: channel.queue_declare(
                    rig.request_queue, arguments={"x-max-priority": 3}
                ),
                10.0,
            )
            proxy.listen()
        assert client.call.abs(-2) == 2
        part = server._worker.intake.consumer
        wait_until(lambda: part.error is not None)
        assert "x-max-priority" in str(part.error)
        before = proxy.up.passed
        gevent.sleep(3.0)
        rig.ledger.figures["bytes said in 3 s"] = proxy.up.passed - before
        assert proxy.up.passed - before < 20_000
        assert session.consuming.connects == 2
        operator.operate(lambda channel: channel.queue_delete(rig.request_queue), 10.0)
        wait_until(lambda: server.ready)
        own = rig.client_here(session=session)
        assert rig.one_here(own).outcome == "ok"
        own.close()
        client.close()
        server.stop()
        other.stop()
    rig.settle(recovery=None)


@pytest.mark.case("B-37", short=True)
def test_a_client_without_file_descriptors_says_so_and_goes_on_when_it_has_some(
    rig: Rig, node: RabbitNode
) -> None:
    rig.server_here()
    client = PythonProcess(PROGRAMS / "descriptors.py", rig.namespace, rig.broker.url)
    with client:
        client.wait_for("first answer: ok")
        rig.fault("no file descriptors")
        node.close_all_connections("while the client has no descriptors")
        client.wait_for("Too many open files")
        client.wait_for("second answer: ok")
        assert client.wait(20.0) == 0
    own = rig.client_here()
    assert rig.one_here(own).outcome == "ok"
    rig.ledger.begun |= {"first": 0.0, "second": 0.0}
    rig.ledger.forsaken += ["first", "second"]
    rig.settle(recovery=None)


@pytest.mark.case("B-08")
@pytest.mark.slow
def test_connections_that_are_lost_while_they_are_set_up_end_as_two(rig: Rig) -> None:
    proxy = rig.proxy()
    rig.server_here(url=proxy.url)
    client = rig.client_here(url=proxy.url)
    assert rig.one_here(client).outcome == "ok"
    pending = rig.many_here(client, 10)
    with rig.outage("ten resets 50 ms apart"):
        for _ in range(10):
            proxy.reset()
            gevent.sleep(0.05)
    gevent.joinall(pending)
    assert rig.one_here(client).outcome == "ok"
    wait_until(lambda: proxy.connections == 4, f"{proxy.connections} connections")
    rig.settle(duplicates=100)


@pytest.mark.case("B-09")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1:{closed}", "refused"),
        ("no-such-host.invalid:5672", "no connection to no-such-host.invalid"),
        ("127.0.0.1:{http}", "does not speak AMQP"),
        ("127.0.0.1:{silent}", "does not finish the AMQP handshake"),
    ],
)
def test_without_a_broker_a_call_ends_by_its_deadline_and_says_why(
    rig: Rig, host: str, words: str
) -> None:
    rig.fault("no broker")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        closing(StreamServer(("127.0.0.1", 0), speak_http)) as http,
        closing(socket.socket()) as closed,
    ):
        http.start()
        closed.bind(("127.0.0.1", 0))
        place = host.format(
            closed=closed.getsockname()[1],
            http=http.server_port,
            silent=silent.getsockname()[1],
        )
        client = rig.client_here(
            url=f"amqp://guest:secret-word@{place}/", timeout=3.0, connect_timeout=1.0
        )
        told = rig.one_here(client)
        assert (told.outcome, told.executed) == ("NoResult", False)
        assert words in told.text
        assert "secret-word" not in told.text
        client.close()
    rig.settle(errors=("NoResult",))


def speak_http(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.recv(100)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.case("B-10")
@pytest.mark.slow
def test_of_several_hosts_the_one_that_works_is_found(rig: Rig) -> None:
    rig.server_here()
    rig.fault("two of three hosts are dead")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        closing(socket.socket()) as closed,
    ):
        closed.bind(("127.0.0.1", 0))
        hosts = ",".join(
            f"127.0.0.1:{port}"
            for port in (silent.getsockname()[1], closed.getsockname()[1], rig.port)
        )
        for _ in range(5):
            client = rig.client_here(url=f"amqp://{hosts}/", connect_timeout=0.5)
            end = rig.one_here(client)
            assert end.outcome == "ok"
            client.close()
    rig.settle()
