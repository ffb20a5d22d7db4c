"""Threads for functions that block or compute for long.

They are the server's own, because gevent's thread pool also resolves host names: ten busy functions
there would keep the server from finding its broker again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import gevent
from gevent.threadpool import ThreadPool

from amphora.errors import repr_of

DEFAULT_THREADS = 10


class Threads:
    """The threads of one server, started when they are first needed.

    Args:
        size: how many functions run at once; the next one waits until a thread is free.

    Raises:
        ValueError: it is not a number of threads.
    """

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"threads must be a number of at least 1, not {repr_of(size)}")
        self._size = size
        self._pool: ThreadPool | None = None
        # What goes on in threads although the greenlet that waited for it does not.
        self._left: dict[Any, Any] = {}

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Any,
        *,
        keep: bool = False,
    ) -> Any:
        """Run a function in a thread; return its result or raise its exception.

        Switches greenlets.  If the greenlet is killed meanwhile, the thread goes on.

        Args:
            keep: then `left_running` is called.
        """
        if self._pool is None:
            self._pool = ThreadPool(self._size, gevent.get_hub())
        # It may ask for the call that it serves, and for the program's own context variables.
        context = copy_context()
        outcome: Any = self._pool.spawn(context.run, _attempt, function, args, kwargs)
        try:
            value, error = outcome.get()
        except BaseException:
            if keep and not outcome.ready():
                self._left[gevent.getcurrent()] = outcome
            raise
        if error is not None:
            raise error
        return value

    def left_running(self) -> Any:
        """Return what the present greenlet has left running in a thread, None if nothing."""
        return self._left.pop(gevent.getcurrent(), None)

    def close(self) -> None:
        """End the threads: idle ones now, the others when they are done."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.maxsize = 0

    def forget(self) -> None:
        """Let go of the threads in a forked child: they are the parent's."""
        self._pool = None
        self._left.clear()


def _attempt(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
) -> tuple[Any, BaseException | None]:
    # An exception is handed over like a value: gevent would print it, and end the program for a
    # SystemExit.
    try:
        return function(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001 (it is raised in the greenlet that waits)
        return None, error
