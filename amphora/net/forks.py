"""What a forked child does with the sockets of its parent.

Both processes have the same connection: what the child sends or shuts down is sent and shut down
for the parent, and as long as the child has its copy open, the end of the connection does not reach
the peer.  So the child closes its copies, at once, and does no more.
"""

from __future__ import annotations

import os

from gevent.socket import SHUT_RDWR, socket


def close_copy(sock: socket) -> None:
    """Close a forked child's copy of a socket, which the parent goes on using.

    gevent keeps a socket open that a greenlet waits for until the event loop runs again, which that
    of a thread never does in a child.  So its number is given to something else first.
    """
    try:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, sock.fileno(), inheritable=False)
        finally:
            os.close(nothing)
    except OSError:
        pass  # it is closed already
    sock.close()


def close_for_all(sock: socket) -> None:
    """Close a socket, also if another process has a copy: one just forked, or by other means."""
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError:
        pass  # there is nothing at the other end, or there the system shuts down no listener
    sock.close()
