"""A TCP or TLS stream on gevent's sockets, or a pipe to a broker in this very process.

gevent's own socket classes are used by name, so that it makes no difference whether the program
is monkey-patched.  Errors of the operating system and of TLS become `ConnectionLost` here and
nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
from gevent.hub import Waiter

from amphora.errors import ConnectionLost
from amphora.net.address import IN_MEMORY, address, socket_addresses
from amphora.net.forks import close_copy, in_child, notice

# From 128 KiB on the C library may give the memory of each read back to the system and take it
# again; see `memory`.
RECEIVE_SIZE = 64 * 1024
# After so many bytes in one go, other greenlets have a turn.
TURN_SIZE = 256 * 1024
# An event of gevent's loop, which has no name for it.
READ = 1

# How OpenSSL calls what the other side says of the certificate that it was shown, or was not.
_REFUSED = re.compile("_ALERT_(.*CERTIFICATE.*|UNKNOWN_CA)$")
# How OpenSSL calls an answer that is no TLS, by its releases.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")

# The brokers in this process, by the names in their URLs `memory://name`.  Each takes the
# descriptor of a connected socket.  With the process's id: a forked child has them not.
_in_memory: dict[str, tuple[Callable[[int], None], int]] = {}

# All sockets, from the moment they begin to connect.
_sockets: weakref.WeakSet[gevent.socket.socket] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # Those of unfinished handshakes too: their greenlets came along, and would go on with them on
    # the parent's connection.
    for sock in list(_sockets):
        close_copy(sock)


in_child(_after_fork_in_child)


def listen_in_memory(name: str, take: Callable[[int], None]) -> None:
    """Let clients in this process connect to `memory://name`.

    Args:
        take: given the descriptor of a connected socket for each client; it owns it.  It may be
            called from any thread.
    """
    _in_memory[name] = take, os.getpid()


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
        # How many bytes were received since the last wait.
        self._in_one_go = 0
        _sockets.add(sock)

    def receive(self, size: int = RECEIVE_SIZE) -> bytes:
        """Return the bytes that are there, waiting for the first; b"" at the end.

        Switches greenlets.

        Args:
            size: the most bytes to return.

        Raises:
            ConnectionLost: the connection broke.
        """
        try:
            if self._drained and self._readable is not None:
                # Trying and failing first, as the socket does, takes longer than all the rest.
                self._wait()
                self._in_one_go = 0
                notice()
            elif self._in_one_go >= TURN_SIZE:
                gevent.sleep(0)
                self._in_one_go = 0
            data = self._socket.recv(size)
        except OSError as error:
            raise self._broke(error) from error
        received = len(data)
        self._drained = received < size
        self._in_one_go += received
        return data

    def _wait(self) -> None:
        """Wait for bytes, or for the end.  As `Hub.wait`, but `forget` can stop the watcher."""
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
        notice()
        try:
            # sendall() asks for the size of the socket's buffer each time; mostly all fits.
            sent = self._socket.send(data)
            if sent < len(data):
                self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise self._broke(error) from error

    def send_now(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write what the socket takes of some parts at once; return how many bytes.

        Never switches greenlets.  If that is nothing, as always over TLS or after the end, `send`
        knows whether to wait or what to raise.
        """
        notice()
        if self._readable is None:
            return 0
        try:
            if len(parts) == 1:
                return os.write(self._socket.fileno(), parts[0])
            return os.writev(self._socket.fileno(), parts)
        except OSError:
            return 0

    def _broke(self, error: OSError) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self.peer} broke: {_reason(error)}")

    def end_writing(self) -> None:
        """Let the peer read the end of the stream behind all that was written.

        Raises:
            ConnectionLost: the connection broke.
        """
        try:
            self._socket.shutdown(gevent.socket.SHUT_WR)
        except OSError as error:
            raise self._broke(error) from error

    def close(self) -> None:
        """Close at once.  Greenlets that wait in `receive` or `send` get ConnectionLost."""
        try:
            # close() alone would leave the connection open if a fork holds a copy.
            gevent.socket.socket.shutdown(self._socket, gevent.socket.SHUT_RDWR)
        except OSError:
            pass
        self.forget()

    def forget(self) -> None:
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
    notice()
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
                _sockets.add(sock)
                sock.do_handshake()
            stream, sock = Stream(sock, peer), None
            return stream
    except (OSError, UnicodeError) as error:
        raise ConnectionLost(f"no connection to {peer}: {_reason(error)}") from error
    finally:
        if sock is not None:
            sock.close()


def _connect_in_memory(name: str, peer: str) -> Stream:
    take, process = _in_memory.get(name, (None, 0))
    if take is None:
        raise ConnectionLost(f"no connection to {peer}: no such broker is in this process")
    if process != os.getpid():
        raise ConnectionLost(
            f"no connection to {peer}: that broker is in the process from which this one was"
            " forked, and only one with a port can be reached from here"
        )
    ours, theirs = gevent.socket.socketpair()
    take(theirs.detach())
    return Stream(ours, peer)


def _connected_socket(host: str, port: int) -> gevent.socket.socket:
    failure = OSError("it has no address")
    try:
        for family, where in socket_addresses(host, port):
            try:
                return _connected_to(family, where)
            except OSError as error:
                failure = error
        raise failure
    finally:
        del failure  # its traceback has this frame


def _connected_to(family: Any, where: Any) -> gevent.socket.socket:
    sock = gevent.socket.socket(family, gevent.socket.SOCK_STREAM)
    _sockets.add(sock)
    try:
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: Exception) -> str:
    if isinstance(error, gevent.ssl.SSLCertVerificationError):
        return f"its certificate does not verify: {error.verify_message}"
    if isinstance(error, gevent.ssl.SSLError):
        reason = error.reason or ""
        if reason in _NO_TLS:
            return (
                "what listens there does not speak TLS, without which the URL begins with amqp://"
            )
        if refused := _REFUSED.search(reason):
            why = refused[1].lower().replace("_", " ")
            return f"it does not accept this program's certificate (certfile in the URL): {why}"
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
