"""On what terms a function is offered, beside its name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal, TypedDict, get_args

from amphora.errors import repr_of
from amphora.rpc.contract.checks import check_timeout
from amphora.transport.checks import check_count, check_flag
from amphora.transport.options import unknown_options

# When the requests of a function are acknowledged.
Ack = Literal["done", "early"]
# The terms that are True or False.
FLAGS = frozenset({"idempotent", "resumable", "threadpool"})


class Terms(TypedDict, total=False):
    """The terms of one function.

    Attributes:
        threadpool: run it in one of the server's threads, for a function that computes for long or
            blocks.  It must be thread-safe, and cannot be killed: when `stop(timeout)` runs out of
            time, it is left running.
        allow: the logins at the broker that may call it; all others get `Denied`.  Clients say who
            they are with `identify=True`.
        cancellable: raise `amphora.Cancel` in it, where it waits, when its caller has gone away or
            its time is over.  Without it the server's `cancellable` counts.  A function in a
            thread cannot be ended, and looks at `amphora.current().cancelled`.  A stream can, if
            it does not say otherwise.
        resumable: a stream that can go on behind any item, `amphora.current().after`: its client
            asks another worker for the rest when this one is gone.
        idempotent: say that running it twice does what running it once does.  `describe` tells, and
            `client.call(retries=...)` makes calls again that may have run.
        ack: when a request is acknowledged: "done", when its answer is confirmed, or "early",
            before the function begins.  Then it runs at most once: a request that may have been
            begun before is not begun, and its caller gets `ServerLost`.
        expected: exceptions that are answers rather than faults, such as a NotFound.  They reach
            the caller without a traceback, are logged in one line, and are counted apart from
            errors; `on_error` is not called.
        timeout: seconds for which it may run.  Then `amphora.Cancel` is raised in it, where it
            waits, and its caller gets `TimedOut`.  A function in a thread goes on; it looks at
            `amphora.current().cancelled`.
        concurrency: how many of its runs there are at once in this worker.  More of them wait for
            their turn, as long as that leaves half of the server's places to other functions; then
            their callers get `Busy`.
    """

    threadpool: bool
    allow: Collection[str]
    cancellable: bool
    resumable: bool
    idempotent: bool
    ack: Ack
    expected: type[Exception] | tuple[type[Exception], ...]
    timeout: float | None
    concurrency: int | None


def checked_terms(terms: Terms) -> Terms:
    """Return the terms of a function, if they are valid.

    Raises:
        TypeError: there is no such term, or it is of another type.
        ValueError: it has no such value.
    """
    unknown = terms.keys() - Terms.__optional_keys__
    if unknown:
        raise unknown_options("add_function", unknown, Terms.__optional_keys__)
    ack = terms.get("ack", "done")
    if ack not in get_args(Ack):
        raise ValueError(f'ack must be "done" or "early", not {repr_of(ack)}')
    timeout = terms.get("timeout")
    if timeout is not None:
        check_timeout(timeout)
    for flag in FLAGS & terms.keys():
        check_flag(flag, terms.get(flag))
    cancellable = terms.get("cancellable")
    if cancellable is not None:
        check_flag("cancellable", cancellable)
    concurrency = terms.get("concurrency")
    if concurrency is not None:
        check_count("concurrency", concurrency, 65535)
    checked = terms.copy()
    allow: Any = terms.get("allow")
    if allow is not None:
        if not _are_logins(allow):
            raise TypeError(f"allow must be a set of logins, not {repr_of(allow)}")
        checked["allow"] = frozenset(allow)
    if "expected" in terms:
        checked["expected"] = _exceptions(terms["expected"])
    return checked


def _are_logins(allow: Any) -> bool:
    # A text has letters, and nobody means those.
    is_set = isinstance(allow, Iterable) and not isinstance(allow, str)
    return is_set and all(isinstance(login, str) for login in allow)


def _exceptions(expected: Any) -> tuple[type[Exception], ...]:
    types: tuple[Any, ...] = expected if isinstance(expected, tuple) else (expected,)
    for each in types:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(
                f"expected must be a class of exceptions or a tuple of them, not {repr_of(each)}"
            )
    return types
