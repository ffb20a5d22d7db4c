"""A web server that slow or greedy clients cannot block: gevent's own, with limits.

When all connections are taken, the one that has kept the server waiting longest is closed: it is
idle, or sends a head or a body slowly.  Requests that are being served are left alone.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import pywsgi
from gevent.pool import Pool

from amphora.gateway.streams import BrokenStream
from amphora.net.log import Log
from amphora.web import serving

log = Log("amphora.gateway")

# Seconds for the next request of a connection to begin, and then for its head to arrive.
IDLE_TIMEOUT = 60.0
HEAD_TIMEOUT = 10.0
# Seconds for which a client may read nothing, or send nothing of a body.
SOCKET_TIMEOUT = 30.0
# So much of an answer has this time, and then the next part.
_PART = 64 * 1024
# How much of an unwanted body is read, so that its client sees the answer.
MOST_IGNORED = 1024 * 1024
IGNORING_TIMEOUT = 2.0
MAX_CONNECTIONS = 1000
_READ = 16 * 1024


class _Input(pywsgi.Input):
    """The body of a request; only a limited part of an unwanted body is read.

    Attributes:
        unread: True if there may be more of it.
        broken: True if a read has failed: nobody knows what the next bytes are.
        handler: the handler of the request.
    """

    __slots__ = ("broken", "handler", "unread")

    unread: bool
    broken: bool
    handler: Handler

    def read(self, length: int | None = None) -> bytes:
        """Return a part of the body."""
        with self.handler.waiting():
            self.broken = True
            data: bytes = super().read(length)
            self.broken = False
            return data

    def _discard(self) -> None:
        self.send_100_continue_enabled = False
        self.unread = self.broken or gevent.with_timeout(
            IGNORING_TIMEOUT, self._ignore, timeout_value=True
        )

    def _ignore(self) -> bool:
        """Read and drop a part of the body; return whether there is more."""
        ignored = 0
        while ignored < MOST_IGNORED:
            if not self.chunked_input and self.position >= (self.content_length or 0):
                return False
            try:
                data = self.read(_READ)
            except OSError:
                return True
            if not data:
                return False
            ignored += len(data)
        return True


class Handler(serving.Handler):
    """Serve the requests of a connection: the `handler_class` of a `gevent.pywsgi.WSGIServer`.

    Beside what its base does, it limits the time for heads, bodies and answers, and passes the
    client's socket to a `Gateway`, so that a client that disconnects cancels its call.
    """

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        sock.settimeout(SOCKET_TIMEOUT)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # gevent writes head and body separately; a client may acknowledge the head after 40 ms
            # only.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, address, server)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Tell the server that this client keeps it waiting."""
        waiting = getattr(self.server, "waiting", {})
        waiting[self] = None
        try:
            yield
        finally:
            waiting.pop(self, None)

    def make_room(self) -> None:
        """Close the connection.  Never switches greenlets."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The connection has just ended.
            pass

    def read_requestline(self) -> str:
        """Return the first line of a request; "" if none comes."""
        read = super().read_requestline
        with self.waiting():
            line: str = gevent.with_timeout(IDLE_TIMEOUT, read, timeout_value="")
            return line

    def read_request(self, raw_requestline: str) -> Any:
        """Read the head of a request.

        Raises:
            ValueError: it is malformed or too slow.
        """
        read = super().read_request
        with self.waiting():
            done = gevent.with_timeout(HEAD_TIMEOUT, read, raw_requestline, timeout_value=None)
        if done is None:
            raise ValueError("its head did not come in time")
        return done

    def get_environ(self) -> dict[str, Any]:
        """Return the environment of the request."""
        environ: dict[str, Any] = super().get_environ()
        environ["amphora.socket"] = self.socket
        read: Any = self.wsgi_input
        bounded = _Input(read.rfile, read.content_length, read.socket, read.chunked_input)
        bounded.handler = self
        bounded.broken = False
        if environ["wsgi.input"] is read:
            environ["wsgi.input"] = bounded
        self.wsgi_input = bounded
        return environ

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Begin an answer; while the server stops, it is the last one of its connection."""
        if self.server.closed:
            headers = [*headers, ("Connection", "close")]
        return super().start_response(status, headers, exc_info)

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        # gevent's limit is for all that it is given at once: on a slow line a large answer would
        # not arrive, however steadily it is read.
        for start in range(0, len(data) or 1, _PART):
            super().write(data[start : start + _PART])

    def handle_one_response(self) -> None:
        """Serve a request."""
        super().handle_one_response()
        if getattr(self.wsgi_input, "unread", True):
            self.close_connection = True

    def handle_error(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close the connection after an error, silently if a stream ends with it."""
        if isinstance(error, BrokenStream):
            self.close_connection = True
        else:
            super().handle_error(kind, error, traceback)

    def log_error(self, message: str, *args: Any) -> None:
        """Log what is wrong with a request, for debugging."""
        log.debug(message, *args)


class Server(pywsgi.WSGIServer):
    """A web server.  Connections above its limit wait for their turn.

    Args:
        listener: the socket that listens.
        application: what it serves.
        connections: the most connections that it accepts.

    Attributes:
        waiting: the connections whose clients keep it waiting, the longest first.
    """

    def __init__(self, listener: Any, application: Any, connections: int = MAX_CONNECTIONS) -> None:
        self._places = Pool(connections)
        super().__init__(
            listener,
            application,
            log=None,
            error_log=None,
            spawn=self._places,
            handler_class=Handler,
        )
        self.waiting: dict[Handler, None] = {}

    def drain(self, timeout: float) -> None:
        """Take no more connections, and wait for the end of those that there are.

        Switches greenlets for at most `timeout` seconds.
        """
        self.close()
        self._places.join(timeout)

    def handle(self, sock: Any, address: Any) -> None:
        """Serve a connection."""
        if self._places.full() and self.waiting:
            next(iter(self.waiting)).make_room()
        super().handle(sock, address)
