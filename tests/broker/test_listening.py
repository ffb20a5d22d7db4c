"""Where the broker listens: a name may have several addresses, and they share a port."""

from __future__ import annotations

import socket

import gevent.socket
import pytest

from amphora import Session
from amphora.broker.listening import is_this_machine
from amphora.testing import Broker


def addresses_of_localhost() -> list[str]:
    """Return 127.0.0.1, and ::1 where the machine has it."""
    found = ["127.0.0.1"]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        found.append("::1")
    except OSError:
        pass
    return found


def use(host: str, port: int | None) -> None:
    """Log in as guest, who may only do so on the machine itself, and open a channel."""
    host = f"[{host}]" if ":" in host else host
    with Session(f"amqp://guest:guest@{host}:{port}/") as session:
        session.channel().close()


@pytest.mark.parametrize("name", ["localhost", "LocalHost"])
def test_localhost_is_all_its_addresses_on_one_port(name: str) -> None:
    with Broker(host=name) as broker:
        for host in addresses_of_localhost():
            use(host, broker.port)
        with Session(broker.url) as session:
            session.channel().close()
        port = broker.port
        broker.close()
        for host in addresses_of_localhost():
            with pytest.raises(OSError, match="refused"):
                gevent.socket.create_connection((host, port))
        broker.start()
        assert broker.port == port
        for host in addresses_of_localhost():
            use(host, port)


def test_free_ports_are_free_at_all_addresses() -> None:
    brokers = [Broker(host="localhost") for _ in range(20)]
    try:
        for broker in brokers:
            broker.start()
        for broker in brokers:
            names = [each.getsockname()[:2] for each in broker._listeners]
            assert names == [(host, broker.port) for host in addresses_of_localhost()]
    finally:
        for broker in brokers:
            broker.close()


def test_an_address_alone_is_that_address_alone() -> None:
    for host in addresses_of_localhost():
        with Broker(host=host) as broker:
            use(host, broker.port)
            for other in addresses_of_localhost():
                if other != host:
                    with pytest.raises(OSError, match="refused"):
                        gevent.socket.create_connection((other, broker.port))


def test_all_addresses_of_ipv6_are_those_of_ipv4_as_well() -> None:
    for host in addresses_of_localhost()[1:]:
        with Broker(host="::") as broker:
            use(host, broker.port)
            use("127.0.0.1", broker.port)


def test_the_address_that_is_taken_is_named_and_the_others_are_free_again() -> None:
    for host in addresses_of_localhost():
        with Broker(host=host) as taken:
            with pytest.raises(OSError, match="in use") as caught:
                Broker(taken.port, host="localhost").start()
            where = f"[{host}]" if ":" in host else host
            assert caught.value.filename == f"{where}:{taken.port}"
            for other in addresses_of_localhost():
                if other != host:
                    Broker(taken.port, host=other).__enter__().close()


@pytest.mark.parametrize("host", ["nobody.invalid", "192.0.2.7"])
def test_a_place_that_is_not_here_is_named(host: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the words are the system's)
        Broker(5672, host=host).start()
    assert caught.value.filename == f"{host}:5672"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.7", False),
        ("192.0.2.7", False),
        ("fe80::1%eth0", False),
    ],
)
def test_who_is_on_this_machine(host: str, local: bool) -> None:
    assert is_this_machine(host) is local
