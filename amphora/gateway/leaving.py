"""Noticing that a client disconnects while a greenlet waits for its answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Self

import gevent
from gevent import monkey

# Where web servers put a client's socket: the gateway's own, and gunicorn.
SOCKETS = ("amphora.socket", "gunicorn.socket")
_READABLE = 1
# The original function, even in a patched program: the event loop must not wait.
_Socket = monkey.get_original("socket", "socket")


class Leaving:
    """Watches a client's socket within a `with` block.

    Watching ends when the client sends more data, which might be anything.

    Args:
        environ: the environment of the request; without a socket in it nothing is noticed.
        leave: called in the event loop, once, when the client has gone.  Must not switch greenlets.

    Attributes:
        left: True if the client has gone.
    """

    def __init__(self, environ: Mapping[str, Any], leave: Callable[[], object]) -> None:
        connection = next((environ[name] for name in SOCKETS if name in environ), None)
        self._descriptor = -1 if connection is None else connection.fileno()
        self._leave = leave
        self._watcher: Any = None
        self.left = False

    def __enter__(self) -> Self:
        if self._descriptor >= 0:
            self._watcher = gevent.get_hub().loop.io(self._descriptor, _READABLE)
            self._watcher.start(self._readable)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching.  Closing twice is fine."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _readable(self) -> None:
        probe = _Socket(fileno=self._descriptor)
        try:
            self.left = not probe.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.left = True
        finally:
            probe.detach()
        self.close()
        if self.left:
            self._leave()
