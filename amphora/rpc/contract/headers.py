"""The headers of requests: those of the program, and amphora's own.

The names of the program's headers are its own; those that begin with `x-amphora-` are reserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amphora.errors import WrongRequest, printable, repr_of
from amphora.net import clock
from amphora.wire.fields import MISFITS, Table, count_values, encode_table

RESERVED = "x-amphora-"
# What the client takes besides single answers: notes, separated by commas.
TAKES = "x-amphora-takes"
# The client's clock when the request was sent, in microseconds, together with its expiration.
SENT = "x-amphora-sent"
# True in a request that is sent again: an earlier attempt may have arrived.
AGAIN = "x-amphora-again"
# What names the work that is asked for: requests for the same work have the same.
KEY = "x-amphora-key"

# In an answer: what the client is asked to tell its worker.  That is its clock, today.
TELL = "x-amphora-tell"
CLOCK = "clock"
# How a client asks for the times of its request, in what it takes; and in the answer, in
# microseconds: how long it waited in the queue, if that is known, and how long its worker had it.
TIMES = "times"
WAITED = "x-amphora-waited"
TOOK = "x-amphora-took"

# Tells the runs of a request apart, in what a worker says of it.
RUN = "x-amphora-run"

# The most bytes of a program's headers, and how much room they leave in a frame at least.
MOST_BYTES = 8 * 1024
ROOM = 1024
# The most values in them.  A server reads no more than 1,000, with those of amphora and the broker.
MOST_VALUES = 900
# The most bytes of a key.
MOST_KEY = 255


def now() -> int:
    """Return this machine's time since some moment in the past, in microseconds, as it is sent."""
    return clock.since_boot() // 1000


def check_headers(headers: Mapping[str, Any], frame_max: int) -> Table:
    """Return a program's headers as they are sent.

    Args:
        frame_max: the most bytes of a frame.

    Raises:
        WrongRequest: they cannot be sent.
    """
    if not isinstance(headers, Mapping):
        raise WrongRequest(f"headers must be a mapping of names to values, not {repr_of(headers)}")
    table = dict(headers)
    for name in table:
        if not isinstance(name, str):
            raise WrongRequest(f"the name of a header must be text, not {repr_of(name)}")
        if name.lower().startswith(RESERVED):
            raise WrongRequest(f"the header {printable(name, 100)!r} is reserved for amphora")
    try:
        size = len(encode_table(table))
    except MISFITS as error:
        raise WrongRequest(f"the headers cannot be sent: {error}") from None
    most = min(MOST_BYTES, frame_max - ROOM)
    if size > most:
        raise WrongRequest(
            f"the headers cannot be sent: they have {size} bytes, and may have {most}"
        )
    values = sum(map(count_values, table.values()))
    if values > MOST_VALUES:
        raise WrongRequest(
            f"the headers cannot be sent: they have {values} values, and may have {MOST_VALUES}"
        )
    return table


def check_key(key: Any) -> str:
    """Return the key of a request.

    Raises:
        ValueError: it cannot be one.
    """
    try:
        # Databases take no NUL.
        if isinstance(key, str) and 0 < len(key.encode()) <= MOST_KEY and "\0" not in key:
            return key
    except UnicodeEncodeError:
        pass
    raise ValueError(f"a key must be text of 1 to {MOST_KEY} bytes, not {repr_of(key)}")


def key_of(headers: Table | None) -> str | None:
    """Return the key of a request with these headers, None if it has none.

    Raises:
        WrongRequest: it cannot be one.
    """
    key = None if headers is None else headers.get(KEY)
    if key is None:
        return None
    try:
        return check_key(key)
    except ValueError as error:
        raise WrongRequest(printable(error)) from None


def of_program(headers: Table | None) -> Table:
    """Return the headers of a request without amphora's own."""
    if not headers:
        return {}
    return {name: value for name, value in headers.items() if not name.startswith(RESERVED)}


def takes(headers: Table | None, note: str) -> bool:
    """Return whether the client of a request with these headers takes a kind of notes."""
    if not headers:
        return False
    taken = headers.get(TAKES)
    return taken == note or (isinstance(taken, str) and note in taken.split(","))


def text_in(value: Any) -> Any:
    """Return a header's value with texts that can be sent as JSON.

    Bytes that are no UTF-8 are lone surrogates in a header; here they are escaped.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {name: text_in(each) for name, each in value.items()}
    if isinstance(value, list):
        return [text_in(each) for each in value]
    return value


def run_of(headers: Table | None) -> str:
    """Return the id of the run that a message with these headers tells of, "" for none."""
    run_id = None if headers is None else headers.get(RUN)
    return text_in(str(run_id)) if run_id else ""


def sendable(headers: Table, room: int) -> Table:
    """Return those of a message's headers that can be sent again.

    Brokers relay what closes the connection of whoever sends it, such as a number that is none.

    Args:
        room: the bytes that there are for them.
    """
    kept: Table = {}
    values = MOST_VALUES
    for name, value in headers.items():
        try:
            size = len(encode_table({name: value}))
        except MISFITS:
            continue
        count = count_values(value)
        if size <= room and count <= values:
            kept[name] = value
            room, values = room - size, values - count
    return kept
