"""A TCP or TLS stream on gevent's sockets, or a pipe to a broker in this very process.

gevent's own socket classes are used by name, so that it makes no difference whether the program
is monkey-patched.  Errors of the operating system and of TLS become `ConnectionLost` here and
nowhere else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
from gevent.hub import Waiter

from amphora.errors import ConnectionLost
from amphora.transport.endpoint import IN_MEMORY, address

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RECEIVE_SIZE = 256 * 1024
# An event of gevent's loop, which has no name for it.
READ = 1

# The brokers in this process, by the names in their URLs `memory://name`.  Each takes the
# descriptor of a connected socket.
_in_memory: dict[str, Callable[[int], None]] = {}


def listen_in_memory(name: str, take: Callable[[int], None]) -> None:
    """Let clients in this process connect to `memory://name`.

    Args:
        take: given the descriptor of a connected socket for each client; it owns it.  It may be
            called from any thread.
    """
    _in_memory[name] = take


def unlisten_in_memory(name: str) -> None:
    """Take no more connections to `memory://name`."""
    _in_memory.pop(name, None)


class Stream:
    """A connected byte stream.  One greenlet may read while another writes."""

    def __init__(self, sock: gevent.socket.socket, peer: str) -> None:
        self._socket = sock
        self.peer = peer
        self._hub: Any = gevent.get_hub()
        # TLS may hold bytes that the socket does not show any more.
        tls = isinstance(sock, gevent.ssl.SSLSocket)
        self._readable: Any = None if tls else self._hub.loop.io(sock.fileno(), READ)
        self._waiter: Any = None
        self._drained = False

    def receive(self) -> bytes:
        """Return the bytes that are there, waiting for the first; b"" at the end.

        Switches greenlets.

        Raises:
            ConnectionLost: the connection broke.
        """
        try:
            if self._drained and self._readable is not None:
                # Trying and failing first, as the socket does, takes longer than all the rest.
                self._wait()
            data = self._socket.recv(RECEIVE_SIZE)
        except OSError as error:
            raise ConnectionLost(
                f"the connection to {self.peer} broke: {_reason(error)}"
            ) from error
        self._drained = len(data) < RECEIVE_SIZE
        return data

    def _wait(self) -> None:
        """Wait for bytes, or for the end.  As `Hub.wait`, but `abandon` can stop the watcher."""
        self._waiter = Waiter(self._hub)
        self._readable.start(self._waiter.switch, None)
        try:
            self._waiter.get()
        finally:
            self._waiter = None
            if self._readable is not None:
                self._readable.stop()

    def send(self, data: bytes | memoryview) -> None:
        """Write all of `data`.  Switches greenlets when the peer is slow.

        Raises:
            ConnectionLost: the connection broke.
        """
        try:
            # sendall() asks for the size of the socket's buffer each time; mostly all fits.
            sent = self._socket.send(data)
            if sent < len(data):
                self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise ConnectionLost(
                f"the connection to {self.peer} broke: {_reason(error)}"
            ) from error

    def send_now(self, data: bytes) -> int:
        """Write what the socket takes at once; return how many bytes.  Never switches greenlets.

        If that is nothing, as always over TLS or after the end, `send` knows whether to wait or
        what to raise.
        """
        if self._readable is None:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    def close(self) -> None:
        """Close at once.  Greenlets that wait in `receive` or `send` get ConnectionLost."""
        try:
            # close() alone would leave the connection open if a fork holds a copy.
            gevent.socket.socket.shutdown(self._socket, gevent.socket.SHUT_RDWR)
        except OSError:
            pass
        self.abandon()

    def abandon(self) -> None:
        """Close this process's copy without a word to the peer, as a forked child must."""
        watcher, self._readable = self._readable, None
        if watcher is not None:
            # At once: gevent leaves a descriptor open that is still watched, until the loop runs
            # again, which that of a thread may never do.
            watcher.stop()
            watcher.close()
            if self._waiter is not None:
                closed = OSError(errno.EBADF, "it was closed on this side")
                self._hub.loop.run_callback(self._waiter.throw, closed)
        self._socket.close()


def connect(
    host: str,
    port: int,
    *,
    timeout: float,
    ssl_context: gevent.ssl.SSLContext | None = None,
) -> Stream:
    """Connect to a host and return the stream, after the TLS handshake if there is one.

    Switches greenlets; names are resolved by gevent's resolver, which does not block the hub.

    Args:
        timeout: seconds for all of it, whatever number of addresses the name has.

    Raises:
        ConnectionLost: the host cannot be found, refuses, does not answer in time, or its
            certificate does not verify.
    """
    peer = address(host, port)
    if port == IN_MEMORY:
        return _connect_in_memory(host, peer)
    expired = ConnectionLost(f"no connection to {peer}: no answer within {timeout:g} s")
    sock = None
    try:
        with gevent.Timeout(timeout, expired):
            sock = _connected_socket(host, port)
            sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            sock.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_KEEPALIVE, 1)
            if ssl_context is not None:
                # The handshake afterwards: if it fails, the socket to close is this one.
                sock = ssl_context.wrap_socket(
                    sock, server_hostname=host, do_handshake_on_connect=False
                )
                sock.do_handshake()
            stream, sock = Stream(sock, peer), None
            return stream
    except ConnectionRefusedError as error:
        hint = "; `amphora broker` starts one here" if host in LOOPBACK else ""
        raise ConnectionLost(f"no connection to {peer}: {_reason(error)}{hint}") from error
    except (OSError, UnicodeError) as error:
        raise ConnectionLost(f"no connection to {peer}: {_reason(error)}") from error
    finally:
        if sock is not None:
            sock.close()


def _connect_in_memory(name: str, peer: str) -> Stream:
    take = _in_memory.get(name)
    if take is None:
        raise ConnectionLost(f"no connection to {peer}: no such broker is in this process")
    ours, theirs = gevent.socket.socketpair()
    take(theirs.detach())
    return Stream(ours, peer)


def _connected_socket(host: str, port: int) -> gevent.socket.socket:
    try:
        version = ip_address(host).version
    except ValueError:
        return gevent.socket.create_connection((host, port))
    # An address needs no resolver, whose threads a process may do without.
    family = gevent.socket.AF_INET if version == 4 else gevent.socket.AF_INET6
    sock = gevent.socket.socket(family, gevent.socket.SOCK_STREAM)
    try:
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: Exception) -> str:
    if isinstance(error, gevent.ssl.SSLCertVerificationError):
        return f"its certificate does not verify: {error.verify_message}"
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
