"""A recorder of the calls that a program's clients make and its servers serve."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Self
from unittest import mock

from amphora.rpc.client.calling import FunctionCaller
from amphora.rpc.client.waiting.outgoing_call import Mode, OutgoingCall
from amphora.rpc.context import made
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.outcome import Outcome
from amphora.rpc.server.server import AmqpRpcServer


class RecordedCall:
    """One call.

    Attributes:
        namespace: the namespace of the function.
        function: the function's name.
        args: the positional arguments.
        kwargs: the keyword arguments.
        mode: how it was called: "call", "defer", "cast", "gather" or "stream".  None for a served
            call, because the request does not tell.
        headers: the headers of the request.
        key: the key that names the requested work, None if there is none.
        result: the result of a `call` or of the function, if it returned one; None until then,
            and for a stream.
        outcome: the outcome of the call; None while it is open.
    """

    def __init__(
        self,
        namespace: str,
        function: str,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        mode: Mode | None,
        headers: Mapping[str, Any],
        key: str | None,
    ) -> None:
        self.namespace = namespace
        self.function = function
        self.args = tuple(_kept(each) for each in args)
        self.kwargs = {name: _kept(each) for name, each in kwargs.items()}
        self.mode = mode
        self.headers = headers
        self.key = key
        self.result: Any = None
        self.outcome: Outcome | None = None

    def __repr__(self) -> str:
        given = [repr(each) for each in self.args]
        given += [f"{name}={each!r}" for name, each in self.kwargs.items()]
        words = (self.mode, "open" if self.outcome is None else self.outcome.status)
        return f"{self.name}({', '.join(given)}) [{', '.join(filter(None, words))}]"

    @property
    def name(self) -> str:
        """The namespace and the function."""
        return f"{self.namespace}.{self.function}"

    @property
    def arguments(self) -> Any:
        """The arguments, to be compared with `unittest.mock.call(...)`."""
        return mock.call(*self.args, **self.kwargs)

    def _ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Calls:
    """Records the calls that this process makes and serves.  Use it with `with`.

    Clients and servers need not know of it, and may exist before it.  Iteration and `len` cover
    the calls that were made.

    Attributes:
        made: the calls that clients of this process have made.
        served: the requests that servers of this process have begun to serve.
    """

    def __init__(
        self, made: Iterable[RecordedCall] = (), served: Iterable[RecordedCall] = ()
    ) -> None:
        self.made = list(made)
        self.served = list(served)

    def __repr__(self) -> str:
        lines = [f"made:   {call}" for call in self.made]
        lines += [f"served: {call}" for call in self.served]
        return "\n".join(["<Calls", *(f"  {line}" for line in lines), ">"]) if lines else "<Calls>"

    def __enter__(self) -> Self:
        if not _recording:
            made.watch_all(_tap)
        _recording.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _recording.remove(self)
        if not _recording:
            made.unwatch_all(_tap)

    def __iter__(self) -> Iterator[RecordedCall]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, index: int) -> RecordedCall:
        return self.made[index]

    def of(self, name: str) -> Calls:
        """Return the calls of a namespace, as in `of("prices")`, or function, `of("prices.total")`.

        Later calls are not added to the list.
        """
        return Calls(_of(name, self.made), _of(name, self.served))

    def clear(self) -> None:
        """Forget all calls so far."""
        self.made.clear()
        self.served.clear()


_recording: list[Calls] = []
# The clients and servers that already report their calls.
_tapped: weakref.WeakSet[Any] = weakref.WeakSet()


def _tap(client_or_server: Any) -> None:
    if client_or_server in _tapped:
        return
    _tapped.add(client_or_server)
    if isinstance(client_or_server, AmqpRpcServer):
        client_or_server.middleware(_served)
    elif isinstance(client_or_server, FunctionCaller):
        client_or_server.use(_made)


def _made(call: OutgoingCall, proceed: Callable[[], Any]) -> Any:
    if not _recording:
        return proceed()
    record = RecordedCall(
        call.namespace, call.function, call.args, call.kwargs, call.mode, call.headers, call.key
    )
    for calls in _recording:
        calls.made.append(record)
    call.when_done(record._ended)
    result = proceed()
    if call.mode == "call":
        record.result = _kept(result)
    return result


def _served(call: CallContext, proceed: Callable[[], Any]) -> Any:
    if not _recording:
        return proceed()
    record = RecordedCall(
        call.namespace, call.function, call.args, call.kwargs, None, call.headers, call.key
    )
    for calls in _recording:
        calls.served.append(record)
    call.when_done(record._ended)
    result = proceed()
    if not isinstance(result, Iterator):  # the items of a stream, which are not the recorder's
        record.result = _kept(result)
    return result


def _of(name: str, calls: Iterable[RecordedCall]) -> list[RecordedCall]:
    return [call for call in calls if f"{call.name}.".startswith(f"{name}.")]


def _kept(value: Any) -> Any:
    """Return a copy of a value, or the value itself if it cannot be copied."""
    try:
        return deepcopy(value)
    except Exception:  # noqa: BLE001 (whatever copying it raises)
        return value
