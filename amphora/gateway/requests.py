"""Reading a client's request: its deadline, its headers, its arguments."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gevent
import msgspec

from amphora.errors import printable, text_of
from amphora.gateway.problems import Problem
from amphora.rpc.contract.checks import check_timeout
from amphora.web.access import Environ

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
# Seconds within which a body must arrive.
BODY_TIMEOUT = 30.0
# The longest `tracestate` that is passed on (https://www.w3.org/TR/trace-context/).
MOST_TRACESTATE = 512

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,100})?")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
# The errors of unreadable JSON: see `msgspec.json.decode`.
_UNREADABLE = (ValueError, RecursionError, msgspec.MsgspecError)


@dataclass
class Arguments:
    """The arguments of a call."""

    args: list[Any]
    kwargs: dict[str, Any]


class Tokens:
    """The check of a client's token.

    Args:
        tokens: the accepted tokens; if there are none, clients need no token.

    Raises:
        ValueError: one of them cannot be sent.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        tokens = list(tokens)
        if not all(
            isinstance(each, str) and each and each.isascii() and each.isprintable()
            for each in tokens
        ):
            raise ValueError("a token must be text of printable ASCII characters")
        if any(each != each.strip() for each in tokens):
            raise ValueError("a token must not begin or end with a space: HTTP drops it")
        self._digests = [_digest(each.encode()) for each in tokens]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, environ: Environ) -> None:
        """Raise Problem for a request without a token.

        The time that this takes does not depend on how much of a token is right.
        """
        if not self._digests:
            return
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        digest = _digest(given.strip().encode("latin-1", "replace"))
        known = [hmac.compare_digest(digest, each) for each in self._digests]
        if scheme.lower() != "bearer" or not any(known):
            challenge = (("WWW-Authenticate", 'Bearer realm="amphora"'),)
            raise Problem(401, "A token is needed: Authorization: Bearer ...", headers=challenge)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def read_body(environ: Environ, most: int) -> bytes:
    """Return the body of a request, which has to be JSON.  Switches greenlets.

    Raises:
        Problem: it has another type, is too large or too slow, or broke off.
    """
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    # Checked even without a body: pages of other sites can send other types, or none.
    if kind != "application/json":
        accept = (("Accept", "application/json"),)
        raise Problem(415, "The body has to be application/json.", headers=accept)
    if environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
        raise Problem(415, "The body must not be compressed.", headers=(("Accept-Encoding", ""),))
    length = _length_of(environ)
    if length == 0:
        return b""
    too_large = Problem(413, f"The body may have at most {most} bytes.")
    if length is not None and length > most:
        raise too_large
    try:
        read = environ["wsgi.input"].read
        wanted = most + 1 if length is None else length
        body: bytes | None = gevent.with_timeout(BODY_TIMEOUT, read, wanted, timeout_value=None)
    except OSError:
        raise Problem(400, "The body broke off.") from None
    if body is None:
        raise Problem(408, "The body did not come in time.")
    if len(body) > most:
        raise too_large
    if length is not None and len(body) < length:
        raise Problem(400, "The body broke off.")
    return body


def _length_of(environ: Environ) -> int | None:
    """Return how many bytes a body has, None if it comes in chunks until its end.

    Raises:
        Problem: that is not said in a way that can be understood.
    """
    length = environ.get("CONTENT_LENGTH")
    if length:
        if not (length.isascii() and length.isdecimal()):
            raise Problem(400, "The Content-Length is not a number.")
        return int(length)
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    if not encoding:
        return 0
    if encoding.strip().lower() != "chunked":
        raise Problem(501, "The body may be transferred as chunks, and in no other encoding.")
    if not environ.get("wsgi.input_terminated"):
        raise Problem(411, "The body needs a Content-Length.")
    return None


def decode(body: bytes) -> Any:
    """Return the decoded body.

    Raises:
        Problem: it is not JSON.
    """
    try:
        return msgspec.json.decode(body)
    except _UNREADABLE as error:
        why = printable(text_of(error))
        raise Problem(400, f"The body cannot be read as JSON: {why}") from None


def arguments_of(value: Any) -> Arguments:
    """Return the arguments in a body: an array by position, an object by name.

    Raises:
        Problem: it is neither.
    """
    if isinstance(value, list):
        return Arguments(value, {})
    if isinstance(value, dict):
        return Arguments([], value)
    raise Problem(
        400,
        "The arguments have to be an array, by position, or an object, by name.",
        "WrongRequest",
    )


def timeout_of(environ: Environ, most: float) -> float | None:
    """Return the seconds in X-Request-Timeout, up to a limit; None if it is absent.

    Raises:
        Problem: it is not a valid timeout.
    """
    text = environ.get("HTTP_X_REQUEST_TIMEOUT")
    if text is None:
        return None
    try:
        if not _SECONDS.fullmatch(text.strip()):
            raise ValueError
        return check_timeout(min(float(text), most))
    except ValueError:
        raise Problem(
            400, "X-Request-Timeout has to be a number of seconds, more than 0, such as 2.5."
        ) from None


def headers_of(environ: Environ) -> dict[str, str]:
    """Return the headers that are passed on with a call: its place in a trace."""
    parent = environ.get("HTTP_TRACEPARENT", "").strip()
    if not _TRACEPARENT.fullmatch(parent):
        # As its specification asks, an invalid one is ignored.
        return {}
    headers = {"traceparent": parent}
    state = environ.get("HTTP_TRACESTATE", "").strip()
    if state and len(state) <= MOST_TRACESTATE and state.isascii() and state.isprintable():
        headers["tracestate"] = state
    return headers


def stream_type(environ: Environ) -> tuple[str, bool]:
    """Return the type in which a client takes streams, and whether it takes only streams."""
    accepted = [
        each.partition(";")[0].strip().lower() for each in environ.get("HTTP_ACCEPT", "").split(",")
    ]
    kind = next((each for each in accepted if each in (NDJSON, EVENTS)), None)
    takes_results = {"application/json", "application/*", "*/*"}.intersection(accepted)
    return kind or NDJSON, kind is not None and not takes_results
