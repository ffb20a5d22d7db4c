"""What a forked child does before it uses anything: let go of what is its parent's.

Both processes have the same connection: what the child sends or shuts down is sent and shut down
for the parent, and as long as the child has its copy open, the end of the connection does not reach
the peer.  So the child closes its copies, at once, and does no more.

They also have the same ids: two processes that ask under one would get each other's answers.

Python tells of its own forks.  A server written in C, such as uWSGI, forks without Python.  So
whoever is about to give its id away, or to use a socket, calls `notice` first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from gevent import monkey
from gevent.socket import SHUT_RDWR, socket

# The process that has let go of its parent's, or that is nobody's child; and the one that began to.
_process = _begun = os.getpid()
_let_go: list[Callable[[], object]] = []
# Threads of a child that come at the same time wait for the first.
_lock = monkey.get_original("threading", "RLock")()


def in_child(let_go: Callable[[], object]) -> None:
    """Have a function called in each forked child.  It may not switch greenlets, or raise."""
    _let_go.append(let_go)


def notice() -> None:
    """Let go of what is the parent's, if this is a child that was told nothing of the fork."""
    if os.getpid() != _process:
        with _lock:
            _after_fork_in_child()


def _after_fork_in_child() -> None:
    global _process, _begun
    process = os.getpid()
    if _begun == process:
        return
    _begun = process
    try:
        with ExitStack() as letting_go:
            # From the first to the last, also those behind one that is interrupted.
            for let_go in reversed(_let_go):
                letting_go.callback(let_go)
    finally:
        _process = process


os.register_at_fork(after_in_child=_after_fork_in_child)


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
