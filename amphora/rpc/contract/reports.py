"""The answers of workers to `ping`, `stats`, `describe` and `kill`; durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from amphora.errors import WrongResult
from amphora.rpc.contract import naming


class Ping(TypedDict):
    """A worker's id, host and process id."""

    wid: str
    host: str
    pid: int


class FunctionNumbers(TypedDict):
    """The calls of one function: how many, how many failed, how long the latest took.

    What failed as its function declares (`expected`) is counted apart.
    The percentiles are None for a function that was never called.  `durations` are those of all
    calls, as counts that can be added up: see `sketches`.
    """

    count: int
    errors: int
    # Older workers do not tell.
    expected: NotRequired[int]
    p50: float | None
    p95: float | None
    p99: float | None
    # Older workers do not tell.
    durations: NotRequired[list[int]]


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
    # As in `FunctionNumbers`.
    durations: NotRequired[list[int]]


class Caller(TypedDict):
    """How many of a worker's latest requests one caller has sent, to one function.

    `user` is its login, None if it does not say; `client` the id of the client that has sent most
    of them, "" if they are casts; `clients` how many clients they come from, 1 without a login.
    `function` is "" if there is none of that name, or if the requests were turned away unread.
    """

    user: str | None
    client: str
    clients: int
    function: str
    calls: int


class CallerNumbers(TypedDict):
    """The senders of a worker's latest requests: how many there are, in how many seconds they came.

    `most` are the callers that have sent most, 20 at most.
    """

    calls: int
    seconds: float
    most: list[Caller]


class Numbers(TypedDict):
    """A worker's counters; `wait_times` are the pauses between its latest requests."""

    processed: int
    exceptions: int
    ignored: int
    # Older workers do not tell.
    expected: NotRequired[int]
    cancelled: NotRequired[int]
    expired: NotRequired[int]
    redelivered: NotRequired[int]
    shed: NotRequired[int]
    queue_wait: NotRequired[WaitNumbers]
    wait_times: list[float]
    uptime: float
    functions: dict[str, FunctionNumbers]


class Stats(Ping, Numbers):
    """A worker's counters and its present state.

    `pending` is how many calls of clients in its process wait for an answer; `streams` how many of
    those in flight are open streams, which take no place.
    """

    namespace: str
    # "" for a service without one; older workers do not tell.
    version: NotRequired[str]
    state: str
    in_flight: int
    concurrency: int
    lost_responses: int
    # Older workers do not tell.
    streams: NotRequired[int]
    pending: NotRequired[int]
    callers: NotRequired[CallerNumbers]


class ParameterDescription(TypedDict):
    """One parameter of a function; `type` and `default` are source text.

    What older workers do not tell: `schema` is the JSON Schema of its values, absent where any
    value fits, and of each value for `*args` and `**kwargs`; `unpacked` is True where it is that of
    all `**kwargs` together.  `value` is the default as it would arrive, if it can be sent.
    """

    name: str
    kind: str
    type: NotRequired[str]
    default: NotRequired[str]
    schema: NotRequired[dict[str, Any]]
    unpacked: NotRequired[bool]
    value: NotRequired[Any]


class ResultDescription(TypedDict, total=False):
    """What a function returns: `result_type` is source text, `result` a JSON Schema.

    Of a stream, `item` is the schema of its items, and `result` that of what comes behind them.
    """

    result_type: str
    result: dict[str, Any]
    item: dict[str, Any]


class ErrorDescription(TypedDict):
    """An exception that a function declares."""

    type: str
    doc: str


class FunctionDescription(ResultDescription):
    """One function that clients may call; `ack` is there if it runs at most once."""

    name: str
    signature: str
    parameters: list[ParameterDescription]
    doc: str
    # True for a function that is safe to repeat; absent for all others.
    idempotent: NotRequired[bool]
    ack: NotRequired[Literal["early"]]
    # How many of its runs there are at once in a worker, and seconds for which it may run.
    concurrency: NotRequired[int]
    timeout: NotRequired[float]
    # True for a generator function, whose items are read with `client.stream`; and for one that can
    # go on behind any item.
    stream: NotRequired[bool]
    resumable: NotRequired[bool]
    # Older workers do not tell: True if it is ended when its caller has gone away; what to do
    # instead of calling it; the exceptions that are answers.
    cancellable: NotRequired[bool]
    deprecated: NotRequired[str]
    errors: NotRequired[list[ErrorDescription]]


class Description(Ping):
    """What a worker offers: its functions, and the names of its management commands.

    Schemas refer to `definitions` as `#/$defs/...`.
    """

    namespace: str
    # Older workers do not tell.
    version: NotRequired[str]
    functions: list[FunctionDescription]
    definitions: NotRequired[dict[str, dict[str, Any]]]
    commands: list[str]


class Active(TypedDict):
    """A request in progress.

    `seconds` is how long ago it came; `queue_wait` how long it had waited before, None if that is
    unknown.  `user` is the login of its caller, None if it does not say; `client` its client's id,
    "" for a cast.  `begun` is False for one that waits in the worker for its turn.
    """

    id: str
    function: str
    seconds: float
    queue_wait: float | None
    user: str | None
    client: str
    redelivered: bool
    begun: bool
    stream: bool


class Activity(Ping):
    """The requests that a worker has in progress; the longest first, and `count` of all."""

    count: int
    requests: list[Active]


class CancelledRequest(TypedDict):
    """A request in progress that was cancelled.

    `ended` is False if its function may not be interrupted: it goes on.
    """

    function: str
    ended: bool


class Pausing(Ping):
    """A worker's state after it was paused or resumed, and how many requests it still runs."""

    state: str
    in_flight: int


class Purged(TypedDict):
    """A request queue that was emptied, and how many requests were in it."""

    queue: str
    purged: int


class Stack(TypedDict):
    """Where greenlets or a thread are: `count` have the same stack, the outermost frame first.

    `requests` are the ids and functions of the requests that they handle, if any.
    """

    kind: Literal["thread", "greenlet"]
    name: str
    count: int
    requests: list[str]
    frames: list[str]


class Stopping(Ping):
    """A worker that was told to stop."""

    stopping: bool


# What is answered to the commands that every worker has.
ALWAYS: Mapping[str, Any] = {
    "ping": Ping,
    "stats": Stats,
    "describe": Description,
    "active": Activity,
}
# And to those that are switched on.  Where one is not, a program may have its own of that name.
SWITCHED: Mapping[str, Any] = {
    "cancel": list[CancelledRequest],
    "kill": Stopping,
    "pause": Pausing,
    "resume": Pausing,
    "threads": list[Stack],
}
# The word of a server's `management=` that switches a command on.
SWITCHED_ON_BY: Mapping[str, str] = {
    "cancel": "cancel",
    "drop": "purge",
    "eval": "eval",
    "kill": "kill",
    "pause": "pause",
    "purge": "purge",
    "resume": "pause",
    "retry": "retry",
    "threads": "threads",
}


def checked(command: str, kind: Any, answer: Any) -> Any:
    """Return what a worker has answered to a command.

    Args:
        kind: what is answered to it.

    Raises:
        WrongResult: it is something else, so those who read it would stumble.
    """
    try:
        msgspec.convert(answer, kind)
        if "namespace" in answer:
            naming.check_namespace(answer["namespace"])
    except ValueError as error:
        raise WrongResult(
            f"the worker's answer to {command} cannot be understood: {error}"
        ) from error
    return answer
