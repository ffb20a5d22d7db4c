"""Noticing that a client has gone, on sockets of a test."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import gevent.socket
import pytest

from amphora.gateway.leaving import SOCKETS, Leaving
from tests.support.waiting import wait_until

Pair = tuple[gevent.socket.socket, gevent.socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The two ends of a connection: the server's and the client's."""
    with gevent.socket.create_server(("127.0.0.1", 0)) as listener:
        client = gevent.socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with ours, client:
            yield ours, client


@pytest.mark.parametrize("name", SOCKETS)
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_goes_is_noticed_once(pair: Pair, name: str, reset: bool) -> None:
    ours, client = pair
    told: list[int] = []
    with Leaving({name: ours}, lambda: told.append(1)) as leaving:
        # The event loop may be wrong.
        leaving._readable()
        assert not leaving.left
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        wait_until(lambda: told)
        assert leaving.left
        gevent.sleep(0)
    assert told == [1]


def test_a_client_that_sends_more_is_there_and_its_bytes_are_left(pair: Pair) -> None:
    ours, client = pair
    told: list[int] = []
    client.sendall(b"more")
    with Leaving({SOCKETS[0]: ours}, lambda: told.append(1)) as leaving:
        wait_until(lambda: leaving._watcher is None)
        client.close()
        gevent.sleep(0)
        assert not leaving.left
    assert ours.recv(10) == b"more"
    assert not told


def test_without_a_socket_nothing_is_noticed(pair: Pair) -> None:
    ours, _ = pair
    with Leaving({}, pytest.fail) as leaving:
        assert not leaving.left
    ours.close()
    with Leaving({SOCKETS[0]: ours}, pytest.fail) as leaving:
        gevent.sleep(0)
        assert not leaving.left
