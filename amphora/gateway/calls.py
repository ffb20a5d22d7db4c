"""Calls for HTTP clients: they have the clients' deadlines, and end if the clients disconnect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import gevent

from amphora.errors import AmphoraError, WrongRequest
from amphora.gateway.directory import Directory, find
from amphora.gateway.leaving import Leaving
from amphora.gateway.problems import RETRY_AFTER, Problem, problem_of
from amphora.gateway.requests import Arguments, headers_of, timeout_of
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.client.streams.stream import Stream
from amphora.transport.session import Session
from amphora.web.access import Environ

# Seconds to wait for a stream to begin before the headers are sent to its client.
FIRST_ITEM = 2.0


@dataclass
class Limits:
    """The limits of calls: their duration and their number.

    Attributes:
        timeout: seconds for a call that sets no timeout.
        longest_timeout: the most seconds that a client may ask for.
        wait_for_server: seconds to wait for a worker if there is none; None does not check for one.
        max_pending: how many calls of a namespace may be pending.
        max_streams: how many streams may be open.
        statuses: the status codes of exceptions of the functions, by class name.
    """

    timeout: float
    longest_timeout: float
    wait_for_server: float | None
    max_pending: int
    max_streams: int
    statuses: Mapping[str, int] = field(default_factory=dict)


class Calls:
    """Makes calls.

    Args:
        session: the session for the calls.
        directory: knows which functions may be called.
        limits: the limits of calls.
    """

    def __init__(self, session: Session, directory: Directory, limits: Limits) -> None:
        self.directory = directory
        self._limits = limits
        self._clients = {
            namespace: AmqpRpcClient(
                namespace,
                session=session,
                timeout=limits.timeout,
                max_pending=limits.max_pending,
                when_full="fail",
            )
            for namespace in directory.namespaces
        }
        self._streams = 0
        self._closed = False

    def close(self) -> None:
        """Cancel the calls that are left, whose clients are told, and make no more."""
        self._closed = True
        for client in self._clients.values():
            client.close(cancel=True)

    def call(self, environ: Environ, namespace: str, function: str, given: Arguments) -> Any:
        """Make a call and return its result.  Switches greenlets.

        Raises:
            Problem: it failed, or the client has gone away.
            IsStream: the function is a stream.
        """
        client = self._find(namespace, function)
        options = self._options(environ, self._limits.timeout)
        with self._problems(namespace, function, wants_stream=False):
            result = client.defer(function_name=function, **options)(*given.args, **given.kwargs)
            try:
                with Leaving(environ, result.cancel) as leaving, _gone(leaving):
                    return result.get()
            finally:
                # The server is stopping, or the program has a timeout of its own.
                result.cancel()

    def cast(self, environ: Environ, namespace: str, function: str, given: Arguments) -> None:
        """Make a call without an answer.  May switch greenlets.

        Raises:
            Problem: it cannot be sent.
        """
        client = self._find(namespace, function)
        headers = headers_of(environ)
        with self._problems(namespace, function, wants_stream=False):
            client.cast(function_name=function, headers=headers)(*given.args, **given.kwargs)

    def stream(
        self, environ: Environ, namespace: str, function: str, given: Arguments
    ) -> OpenStream:
        """Start a stream.  Switches greenlets until it has begun.

        Raises:
            Problem: it could not be started, or the client has gone away.
        """
        client = self._find(namespace, function)
        if self._streams >= self._limits.max_streams:
            wait = (("Retry-After", "1"),)
            raise Problem(503, "Too many streams are open at this gateway.", headers=wait)
        options = self._options(environ, None)
        with ExitStack() as opened, self._problems(namespace, function, wants_stream=True):
            self._streams += 1
            opened.callback(self._stream_ended)
            stream = client.stream(function_name=function, **options)(*given.args, **given.kwargs)
            opened.callback(stream.close)
            leaving = opened.enter_context(Leaving(environ, stream.close))
            with _gone(leaving):
                first, _ = take(stream, FIRST_ITEM)
            return OpenStream(stream, first, leaving, opened.pop_all(), self._limits.statuses)

    def _stream_ended(self) -> None:
        self._streams -= 1

    def _find(self, namespace: str, function: str) -> AmqpRpcClient:
        if not self.directory.allows(namespace, function):
            raise not_found(namespace, function)
        return self._clients[namespace]

    def _options(self, environ: Environ, by_default: float | None) -> dict[str, Any]:
        timeout = timeout_of(environ, self._limits.longest_timeout)
        options: dict[str, Any] = {"headers": headers_of(environ), "inherit_deadline": False}
        if timeout is not None or by_default is not None:
            options["timeout"] = timeout if timeout is not None else by_default
        if self._limits.wait_for_server is not None:
            options["wait_for_server"] = self._limits.wait_for_server
        return options

    @contextmanager
    def _problems(self, namespace: str, function: str, *, wants_stream: bool) -> Iterator[None]:
        """Turn the error of a call into a Problem."""
        try:
            yield
        except WrongRequest as error:
            offer = self.directory.offer(namespace)
            there = find(offer, function)
            if there is None and offer is not None and offer.functions:
                raise not_found(namespace, function) from error
            if there is not None and bool(there.get("stream")) is not wants_stream:
                if not wants_stream:
                    raise IsStream from error
                raise Problem(
                    406, f"{namespace}.{function} is not a stream.", "WrongRequest"
                ) from error
            raise problem_of(error, self._limits.statuses) from error
        except AmphoraError as error:
            if self._closed:
                wait = (("Retry-After", str(RETRY_AFTER)),)
                raise Problem(
                    503, "The gateway is stopping.", executed=error.executed, headers=wait
                ) from error
            raise problem_of(error, self._limits.statuses) from error


class IsStream(Exception):
    """The called function is a stream.  It has not run."""


class OpenStream:
    """A stream that has begun.

    Args:
        stream: the stream.
        first: the items that have already arrived.
        leaving: watches the client.
        opened: the context that ends with the stream.
        statuses: as in `Limits`.
    """

    def __init__(
        self,
        stream: Stream[Any],
        first: list[Any],
        leaving: Leaving,
        opened: ExitStack,
        statuses: Mapping[str, int],
    ) -> None:
        self._stream = stream
        self._first = first
        self._leaving = leaving
        self._opened = opened
        self._statuses = statuses

    def close(self) -> None:
        """End it.  Closing twice is fine."""
        self._opened.close()

    @property
    def left(self) -> bool:
        """Whether the client has gone away."""
        return self._leaving.left

    @property
    def result(self) -> Any:
        """The result behind the last item."""
        return self._stream.result

    def items(self, interval: float) -> Iterator[list[Any]]:
        """Yield lists of one item, and an empty list for each interval without an item.

        Raises:
            Problem: the stream failed.
        """
        for item in self._first:
            yield [item]
        ended = False
        while not (ended or self.left):
            try:
                items, ended = take(self._stream, interval)
            except AmphoraError as error:
                raise problem_of(error, self._statuses) from error
            if not ended:
                yield items


def take(stream: Stream[Any], seconds: float) -> tuple[list[Any], bool]:
    """Return the next item of a stream, none if it takes too long; and whether the stream is over.

    Switches greenlets.
    """
    found: tuple[list[Any], bool] = gevent.with_timeout(
        seconds, _next, stream, timeout_value=([], False)
    )
    return found


def _next(stream: Stream[Any]) -> tuple[list[Any], bool]:
    try:
        return [next(stream)], False
    except StopIteration:
        return [], True


@contextmanager
def _gone(leaving: Leaving) -> Iterator[None]:
    """Turn the outcome of a call whose client has gone away into a Problem that is never read."""
    try:
        yield
    except AmphoraError as error:
        if not leaving.left:
            raise
        raise Problem(499, "The client has gone away.", executed=error.executed) from error


def not_found(namespace: str, function: str) -> Problem:
    """Return the problem of a function that does not exist or may not be called."""
    return Problem(404, f"There is no function {namespace}.{function} here."[:300])
