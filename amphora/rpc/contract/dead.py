"""Requests that were given up, as they are kept in the queue for those."""

from __future__ import annotations

import time
from typing import Any, NotRequired, TypedDict, cast

from amphora.rpc.contract import headers, streams
from amphora.rpc.contract.serializers import serializer_for
from amphora.wire.properties import Properties, encode_properties

# Why it was given up, how often it was begun, and when it was given up, in milliseconds since 1970.
REASON = "x-amphora-reason"
ATTEMPTS = "x-amphora-attempts"
DIED = "x-amphora-died"
# Where it was published to, and by whom.
EXCHANGE = "x-amphora-exchange"
ROUTING_KEY = "x-amphora-routing-key"
USER = "x-amphora-user"
_OF_THE_DEAD = (REASON, ATTEMPTS, DIED, EXCHANGE, ROUTING_KEY, USER)

# A body that cannot be read is shown up to this many characters.
MOST_TEXT = 10_000


class DeadRequest(TypedDict):
    """A request that was given up.

    `died` is when, in seconds since 1970; it and what else is unknown of one that an older amphora
    has kept are None.  `user` is its caller's login, None if it does not say.
    """

    id: str
    function: str
    reason: str
    attempts: int | None
    died: float | None
    user: str | None
    client: str
    routing_key: str | None
    size: int
    stream: bool


class DeadContents(DeadRequest):
    """A request that was given up, with its contents.

    `text` is there in place of `args` and `kwargs` if its body cannot be read.
    """

    headers: dict[str, Any]
    content_type: str | None
    args: NotRequired[list[Any]]
    kwargs: NotRequired[dict[str, Any]]
    text: NotRequired[str]


def buried(
    properties: Properties, begun: int, exchange: str, routing_key: str, frame_max: int
) -> Properties:
    """Return the properties with which a request is kept that was begun `begun` times.

    Headers that cannot be sent again are left out.

    Args:
        frame_max: the most bytes of a frame.
    """
    kept = Properties(**dict(properties))
    # It stays until an operator looks at it.
    kept.expiration = None
    # The broker refuses a message with the user id of another login.
    kept.user_id = None
    kept.headers = of_the_dead = {
        REASON: "poison",
        ATTEMPTS: begun,
        DIED: int(time.time() * 1000),
        EXCHANGE: exchange,
        ROUTING_KEY: routing_key,
    }
    if properties.user_id:
        of_the_dead[USER] = properties.user_id
    came = {
        name: value for name, value in (properties.headers or {}).items() if name not in of_the_dead
    }
    room = frame_max - headers.ROOM - len(encode_properties(kept))
    kept.headers = {**headers.sendable(came, room), **of_the_dead}
    return kept


def raised(properties: Properties) -> Properties:
    """Return the properties with which a request that was kept is sent again.

    No caller waits for its answer: its own was told when it was given up.
    """
    again = Properties(**dict(properties))
    without = (*_OF_THE_DEAD, headers.SENT, headers.TAKES)
    again.headers = {
        name: value for name, value in (properties.headers or {}).items() if name not in without
    } or None
    again.reply_to = None
    return again


def told(properties: Properties, body: bytes) -> DeadRequest:
    """Return what is to be said of a request that was kept."""
    of_it = properties.headers or {}
    died, attempts, key = of_it.get(DIED), of_it.get(ATTEMPTS), of_it.get(ROUTING_KEY)
    user = of_it.get(USER)
    return {
        "id": id_of(properties),
        "function": function_of(properties, body),
        "reason": headers.text_in(str(of_it.get(REASON, ""))),
        "attempts": attempts if type(attempts) is int else None,
        "died": died / 1000 if type(died) is int else None,
        "user": headers.text_in(user) if isinstance(user, str) else None,
        "client": properties.reply_to or "",
        "routing_key": headers.text_in(key) if isinstance(key, str) else None,
        "size": len(body),
        "stream": properties.message_type == streams.STREAM,
    }


def contents(properties: Properties, body: bytes) -> DeadContents:
    """Return all there is to be said of a request that was kept."""
    shown = cast(DeadContents, told(properties, body))
    shown["headers"] = headers.text_in(headers.of_program(properties.headers))
    shown["content_type"] = properties.content_type
    serializer = serializer_for(properties.content_type)
    try:
        if serializer is None:
            raise ValueError("a content type that is not known here")
        request = serializer.decode_request(body)
    except ValueError:
        shown["text"] = body[:MOST_TEXT].decode("utf-8", "backslashreplace")
    else:
        shown["args"], shown["kwargs"] = request.args, request.kwargs
    return shown


def id_of(properties: Properties) -> str:
    """Return the id of a request, "" if it has none."""
    return properties.message_id or properties.correlation_id or ""


def function_of(properties: Properties, body: bytes) -> str:
    """Return the name of the function that a request is for, "" if it cannot be read."""
    serializer = serializer_for(properties.content_type)
    try:
        return "" if serializer is None else serializer.decode_request(body).func
    except ValueError:
        return ""
