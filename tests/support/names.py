"""Tell Erlang nodes each other's ports, as epmd does, and each node what it should hear.

Erlang's nodes ask for one another's ports by name.  With a directory of its own, each node of a
cluster can be told another port than the real one: that of a proxy, which can be made to pass
nothing on.  So the network between nodes of one machine can be cut, and nobody need be root.

The protocol: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html#epmd-protocol
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import gevent
from gevent import socket

REGISTER, REGISTERED = 120, 118
ASK_PORT, PORT = 122, 119
LIST = 110
VISIBLE, TCP, VERSION = 77, 0, 6


class Directory:
    """A directory of nodes on a port of the loopback, used as a context manager.

    Args:
        ports: the ports of the nodes that are there, by their names before the @.  Directories
            that are given the same know each other's nodes.
        told: the ports that are told instead.

    Attributes:
        port: where it listens.
    """

    def __init__(self, ports: dict[str, int], told: Mapping[str, int]) -> None:
        self._ports = ports
        self._told = told
        self._creation = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self._greenlets: list[gevent.Greenlet] = []

    def __enter__(self) -> Self:
        self._greenlets.append(gevent.spawn(self._accept))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gevent.killall(self._greenlets)
        for sock in (self._listener, *self._open):
            sock.close()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            self._open.add(sock)
            self._greenlets = [each for each in self._greenlets if not each.dead]
            self._greenlets.append(gevent.spawn(self._talk, sock))

    def _talk(self, sock: socket.socket) -> None:
        try:
            with sock.makefile("rb") as incoming:
                while len(head := incoming.read(2)) == 2:
                    request = incoming.read(*struct.unpack(">H", head))
                    if request[0] == REGISTER:
                        self._register(sock, request)
                        # For as long as the node holds the connection, it is there.
                        incoming.read(1)
                        del self._ports[name_in(request)]
                        return
                    sock.sendall(self._answer(request))
                    return
        except OSError:
            pass
        finally:
            self._open.discard(sock)
            sock.close()

    def _register(self, sock: socket.socket, request: bytes) -> None:
        self._ports[name_in(request)] = struct.unpack_from(">H", request, 1)[0]
        self._creation += 1
        sock.sendall(struct.pack(">BBI", REGISTERED, 0, self._creation))

    def _answer(self, request: bytes) -> bytes:
        if request[0] == LIST:
            lines = [f"name {name} at port {port}\n" for name, port in self._ports.items()]
            return struct.pack(">I", self.port) + "".join(lines).encode()
        name = request[1:].decode()
        if request[0] != ASK_PORT or name not in self._ports:
            return struct.pack(">BB", PORT, 1)
        port = self._told.get(name, self._ports[name])
        return struct.pack(
            f">BBHBBHHH{len(name)}sH",
            *(PORT, 0, port, VISIBLE, TCP, VERSION, VERSION - 1),
            *(len(name), name.encode(), 0),
        )


def name_in(request: bytes) -> str:
    """Return the name in a request to be registered."""
    (size,) = struct.unpack_from(">H", request, 9)
    return request[11 : 11 + size].decode()
