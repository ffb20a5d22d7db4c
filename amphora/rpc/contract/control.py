"""What clients tell workers of requests that they have sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec

# The types of these messages.  Their `reply_to` is the client's id, as in the requests.
CANCEL = "cancel"
CREDIT = "credit"
# The client's clock: it is in the headers, as in requests, and there is no body.
CLOCK = "clock"
CONTENT_TYPE = "application/json"
# Seconds after which the broker drops such a message.
EXPIRES = 30.0
# How many requests one message is about at most.
MOST = 500
# The most characters of an id.  No request has a longer one, and workers keep them in mind.
_MOST_ID = 255
_Id = Annotated[str, msgspec.Meta(max_length=_MOST_ID)]


class Unwanted(NamedTuple):
    """A request that is not wanted any more.

    Attributes:
        request_id: the request's id.
        left: the seconds for which it would be of use.
        run_id: the only run of it that is meant, "" for the request itself.
    """

    request_id: _Id
    left: float
    run_id: _Id = ""


class Credit(NamedTuple):
    """How far a stream may go.

    Attributes:
        request_id: the request's id.
        run_id: which run of the request.
        allowed: items up to this number may come.
        received: all items up to this number have been taken; the server need not keep them.
        came: all items up to this number have come; the server need not send them again.
    """

    request_id: _Id
    run_id: _Id
    allowed: int
    received: int
    came: int = 0


_encoder = msgspec.json.Encoder()
_credits = msgspec.json.Decoder(list[Credit])
_decoder = msgspec.json.Decoder(list[Unwanted])


def encode_cancels(cancels: Iterable[Unwanted]) -> bytes:
    """Return the body of a message that cancels requests."""
    # Workers of before there were streams know no runs.
    return _encoder.encode([each if each.run_id else each[:2] for each in cancels])


def decode_cancels(body: bytes) -> list[Unwanted]:
    """Return what a message cancels.

    Raises:
        ValueError: it cannot be read.
    """
    cancels = _decoder.decode(body)
    if len(cancels) > MOST:
        raise ValueError(f"it cancels {len(cancels)} requests, and may cancel {MOST}")
    return cancels


def encode_credits(credits: Iterable[Credit]) -> bytes:
    """Return the body of a message with the credit of streams."""
    return _encoder.encode(list(credits))


def decode_credits(body: bytes) -> list[Credit]:
    """Return the credit in a message.

    Raises:
        ValueError: it cannot be read.
    """
    credits = _credits.decode(body)
    if len(credits) > MOST:
        raise ValueError(f"it is about {len(credits)} streams, and may be about {MOST}")
    return credits
