"""Names that the tests of remote calls share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

from gevent.event import Event

from amphora import AmphoraError, AmqpRpcClient, AmqpRpcServer, Result, Session
from tests.support.processes import PythonProcess
from tests.support.waiting import wait_until

# What the fixtures of these names are.
MakeServer = Callable[..., AmqpRpcServer]
C = TypeVar("C")


class Waitable(Protocol):
    """A result, or the greenlet that waits for one."""

    def ready(self) -> bool: ...


W = TypeVar("W", bound=Waitable)


class MakeClient(Protocol):
    """Make clients of the test's namespace on its broker, of another class than usual or not."""

    @overload
    def __call__(self, kind: type[C], **settings: Any) -> C: ...

    @overload
    def __call__(self, **settings: Any) -> AmqpRpcClient: ...


MakeSession = Callable[..., Session]
RunProgram = Callable[..., PythonProcess]


def begun_in_time(
    defer: Callable[[float], W], begun: Callable[[], object], timeout: float = 0.5
) -> W:
    """Return a call that has begun, and whose time is soon over.

    On a busy machine a call may end before it has begun. Then it is made again with twice the time.

    Args:
        defer: makes the call with a timeout, and does not wait for it.
        begun: returns whether it has begun.
        timeout: the first timeout.
    """
    call = defer(timeout)
    wait_until(lambda: begun() or call.ready())
    return call if begun() else begun_in_time(defer, begun, 2 * timeout)


def add(a: Any, b: Any) -> Any:
    """Return a + b: the function that most tests call."""
    return a + b


def outcome(result: Result) -> Any:
    """Return what a call returns, or the error with which it fails."""
    try:
        return result.get()
    except AmphoraError as error:
        return error


def unsettled(server: AmqpRpcServer) -> int:
    """Return how many requests the broker waits for the end of."""
    channel = server._worker.intake.consumer.channel
    assert channel is not None
    return channel.unsettled_count


def make_room(server: AmqpRpcServer) -> None:
    """Wait until the broker knows that a server is done with all that it was sent.

    Only then it hands over a message that expires at once.
    """
    wait_until(lambda: not unsettled(server))
    channel = server._worker.intake.consumer.channel
    assert channel is not None
    # The answer comes behind the acknowledgements.
    channel.exchange_declare("amq.direct", passive=True)


def answer_with(server: AmqpRpcServer, command: str, answer: Any) -> None:
    """Have a worker answer one of amphora's own commands with something else, as none does."""
    del server._worker.management.commands.by_name[command]
    server.add_command(lambda: answer, command)


class Gate:
    """A handler that holds its callers until the test opens the gate.

    `entered` has what each caller passed, in the order of their coming.
    """

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.passed: list[Any] = []
        self.most_inside = 0
        self._inside = 0
        self._open = Event()

    def hold(self, name: Any = None) -> Any:
        """Wait for the gate and return `name`."""
        self.entered.append(name)
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        try:
            self._open.wait()
        finally:
            self._inside -= 1
        self.passed.append(name)
        return name

    def open(self) -> None:
        """Let everybody go."""
        self._open.set()
