"""Greenlets that belong to the call in which they are started."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

import gevent

P = ParamSpec("P")
R = TypeVar("R")


def spawn(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> gevent.Greenlet[P, R]:
    """Start a greenlet that knows what its starter knows, and return it.

    gevent's own `spawn` copies no context variables: `current()`, deadlines, traces and the
    program's own context variables would end at the first greenlet.
    """
    greenlet = gevent.Greenlet(function, *args, **kwargs)
    greenlet.gr_context = copy_context()
    greenlet.start()
    return greenlet
