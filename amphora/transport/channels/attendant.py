"""The greenlets that a connection cannot do without, and who therefore may not wait for it.

A program's code runs in them at times: the callbacks of a raw channel, and signal handlers, which
run in whichever greenlet they interrupt.
"""

from __future__ import annotations

from typing import Any

import gevent


class Attendant(gevent.Greenlet):  # type: ignore[type-arg] # the connection's own take none
    """A greenlet that a connection cannot do without: what waits in it waits for itself."""


def is_waited_for() -> bool:
    """Return whether this is the event loop, or a greenlet that a connection cannot do without."""
    current: Any = gevent.getcurrent()
    return current is gevent.get_hub() or isinstance(current, Attendant)


def check_can_wait() -> None:
    """Check that the present greenlet can wait for something that comes from the broker.

    Raises:
        RuntimeError: it is the event loop, or it is needed by the connection: a signal handler that
            has interrupted it would wait for itself, and all others for that.
    """
    if is_waited_for():
        raise cannot_wait()


def cannot_wait() -> RuntimeError:
    """Return the error for the event loop, or a greenlet of a connection, that is about to wait."""
    return RuntimeError(
        "a signal handler or another callback of the event loop cannot wait for an answer: let it"
        " start a greenlet that does, with gevent.spawn()"
    )
