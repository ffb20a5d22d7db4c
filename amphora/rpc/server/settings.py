"""A server's settings, shared by its workers: each forked child is another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from amphora.rpc.context.call import CallContext, Observer
from amphora.rpc.context.middleware import Middleware
from amphora.rpc.contract.types.signatures import Handler
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.threads import Threads
from amphora.transport.session import Session

# A function of `on_start` or of `on_stop`.
Hook = tuple[Literal["start", "stop"], Callable[[], object]]


@dataclass
class Settings:
    """The settings of a server; see `AmqpRpcServer`.

    Attributes:
        version: the version of the service, "" for none.
        owns_session: whether the session ends with the server.
        worker_prefix: the beginning of worker ids.
        enabled: the management commands that are switched on.
        queue_arguments: the arguments of queues that hold requests.
        commands: the management commands of the program's own, with their names.
        middleware: called around each request.
        on_done: told what has become of each request.
        hooks: the functions of `on_start` and of `on_stop`, in the order in which they were added.
        on_error: called with the function's name and what it raised.
    """

    namespace: str
    version: str
    session: Session
    owns_session: bool
    worker_prefix: str
    functions: Functions
    threads: Threads
    concurrency: int
    tracebacks: bool
    enabled: tuple[str, ...]
    max_attempts: int
    dead_letter: bool
    queue_arguments: dict[str, Any]
    cancellable: bool
    max_wait: float | None
    commands: list[tuple[Handler, str | None]] = field(default_factory=list)
    middleware: list[Middleware[CallContext]] = field(default_factory=list)
    on_done: list[Observer] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    on_error: Callable[[str, BaseException], None] | None = None


@dataclass
class Overrides:
    """What an operator says of a program's servers, whatever the program says.

    Attributes:
        concurrency: how many requests each server handles at once, None for what the program says.
        access_log: True for a line for each request.
    """

    concurrency: int | None = None
    access_log: bool = False


# Of this process.  Counts for servers that are made from then on.
overrides = Overrides()
