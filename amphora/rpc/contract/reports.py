"""The answers of workers to `ping`, `stats`, `describe` and `kill`; durations are seconds."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Ping(TypedDict):
    """A worker's id, host and process id."""

    wid: str
    host: str
    pid: int


class FunctionNumbers(TypedDict):
    """The calls of one function: how many, how many failed, how long the latest took.

    What failed as its function declares (`expected`) is counted apart.
    The percentiles are None for a function that was never called.
    """

    count: int
    errors: int
    # Older workers do not tell.
    expected: NotRequired[int]
    p50: float | None
    p95: float | None
    p99: float | None


class WaitNumbers(TypedDict):
    """How long requests waited in the queue: of how many that is known, and of the latest of them.

    Requests that do not say when they were sent, such as casts, are in neither number.  The
    percentiles are None if no wait is known.
    """

    known: int
    unknown: int
    p50: float | None
    p95: float | None
    p99: float | None


class Numbers(TypedDict):
    """A worker's counters; `wait_times` are the pauses between its latest requests."""

    processed: int
    exceptions: int
    ignored: int
    # Older workers do not tell.
    expected: NotRequired[int]
    cancelled: NotRequired[int]
    expired: NotRequired[int]
    queue_wait: NotRequired[WaitNumbers]
    wait_times: list[float]
    uptime: float
    functions: dict[str, FunctionNumbers]


class Stats(Ping, Numbers):
    """A worker's counters and its present state."""

    namespace: str
    state: str
    in_flight: int
    concurrency: int
    lost_responses: int


class ParameterDescription(TypedDict):
    """One parameter of a function; `type` and `default` are source text."""

    name: str
    kind: str
    type: NotRequired[str]
    default: NotRequired[str]


class FunctionDescription(TypedDict):
    """One function that clients may call; `ack` is there if it runs at most once."""

    name: str
    signature: str
    parameters: list[ParameterDescription]
    doc: str
    # True for a function that is safe to repeat; absent for all others.
    idempotent: NotRequired[bool]
    ack: NotRequired[Literal["early"]]
    # True for a generator function, whose items are read with `client.stream`; and for one that can
    # go on behind any item.
    stream: NotRequired[bool]
    resumable: NotRequired[bool]


class Description(Ping):
    """What a worker offers: its functions, and the names of its management commands."""

    namespace: str
    functions: list[FunctionDescription]
    commands: list[str]


class Stopping(Ping):
    """A worker that was told to stop."""

    stopping: bool
