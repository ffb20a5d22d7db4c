"""TLS in front of a broker that has none, with certificates made for the tests."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import gevent
import gevent.ssl
from gevent import socket
from gevent.server import StreamServer

DEFAULT_PORT = 5672


class TlsProxy:
    """Ends TLS on a port of its own, and passes what comes on to a broker.

        with TlsProxy(broker.url, context) as proxy:
            client = AmqpRpcClient("math", url=proxy.url)

    Attributes:
        port: its port on the loopback.
        handshakes: how many clients have finished the TLS handshake.
        refused: why the other ones have not.
        heard: what clients have said inside TLS.
    """

    def __init__(self, broker_url: str, context: gevent.ssl.SSLContext) -> None:
        self.handshakes = 0
        self.refused: list[str] = []
        self.heard = bytearray()
        self._broker = urlsplit(broker_url)
        self._context = context
        self._sockets: set[socket.socket] = set()
        self._server = StreamServer(("127.0.0.1", 0), self._serve)

    def __enter__(self) -> Self:
        self._server.start()
        self.port = int(self._server.server_port or 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()
        self.cut()

    @property
    def url(self) -> str:
        """The URL for clients of the broker behind it."""
        login, _, _ = self._broker.netloc.rpartition("@")
        here = self._broker._replace(scheme="amqps", netloc=f"{login}@127.0.0.1:{self.port}")
        return here.geturl()

    def cut(self) -> None:
        """Cut every connection, in both directions."""
        for sock in list(self._sockets):
            _shut(sock)

    def _serve(self, raw: socket.socket, address: object) -> None:
        try:
            client = self._context.wrap_socket(raw, server_side=True)
        except OSError as error:
            self.refused.append(str(error))
            raw.close()
            return
        self.handshakes += 1
        where = (self._broker.hostname, self._broker.port or DEFAULT_PORT)
        with client, socket.create_connection(where) as broker:
            self._sockets |= {client, broker}
            down = gevent.spawn(self._pass_on, broker, client, lambda data: None)
            self._pass_on(client, broker, self.heard.extend)
            down.join()
            self._sockets -= {client, broker}

    def _pass_on(
        self, source: socket.socket, target: socket.socket, tell: Callable[[bytes], object]
    ) -> None:
        try:
            while data := source.recv(65536):
                tell(data)
                target.sendall(data)
        except OSError:
            pass  # the other direction has ended
        _shut(source)
        _shut(target)


def _shut(sock: socket.socket) -> None:
    try:
        # Of the TCP connection: a goodbye of TLS would wait for the other side's.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass
