"""Errors as answers of HTTP: a status, and problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec

from amphora.errors import (
    AccessRefused,
    AmphoraError,
    AuthenticationError,
    Busy,
    Cancelled,
    ChannelClosed,
    ConnectionLost,
    Denied,
    FrameError,
    Inequivalent,
    MessageError,
    NoResult,
    NoServer,
    Overloaded,
    PoisonRequest,
    Rejected,
    RemoteException,
    ServerLost,
    StreamLost,
    TimedOut,
    Unroutable,
    WrongRequest,
    WrongResult,
    printable,
)
from amphora.net.log import Log

log = Log("amphora.gateway")

CONTENT_TYPE = "application/problem+json"
# The page that explains the kinds of problems.
DOCS = "https://amphora.readthedocs.io/en/latest/how-to/gateway.html#"
# Seconds after which to try again, unless the server says otherwise.
RETRY_AFTER = 1
# The longest text of an error.
MAX_DETAIL = 2000

# The status of each error and the text for it, None for the error's own text.  Where an error's own
# text describes the broker, strangers must not see it.
ERRORS: dict[type[AmphoraError], tuple[int, str | None]] = {
    AmphoraError: (500, "The call failed."),
    WrongRequest: (422, None),
    Denied: (403, "The server does not let this gateway call the function."),
    Cancelled: (409, "The call was ended by an operator."),
    Overloaded: (429, "Too many calls are pending at this gateway."),
    RemoteException: (500, None),
    PoisonRequest: (500, "The call has ended its server again and again, and is not tried again."),
    WrongResult: (502, None),
    ServerLost: (502, "The server that ran the function is gone."),
    StreamLost: (502, "The stream broke off before its end."),
    ConnectionLost: (502, "The gateway has lost its connection to the broker."),
    ChannelClosed: (502, "The broker refuses what the gateway asks for."),
    FrameError: (502, "The gateway cannot understand its broker."),
    MessageError: (502, "The gateway cannot understand an answer."),
    Busy: (503, "The server has too much to do."),
    NoServer: (503, "No server is running."),
    Unroutable: (503, "No server takes the call."),
    Rejected: (503, "The broker has no room for the call."),
    NoResult: (504, "There was no result in time."),
    TimedOut: (504, None),
    AuthenticationError: (500, "The broker refuses the gateway's login."),
    AccessRefused: (500, "The gateway's login lacks a permission at the broker."),
    Inequivalent: (500, "A queue or an exchange has other settings than the gateway needs."),
}
# Errors that need an operator.
_LOGGED = (ChannelClosed, ConnectionLost, AuthenticationError, FrameError, MessageError)
_PHRASES = {422: "Unprocessable Content", 413: "Content Too Large", 499: "Client Closed Request"}


class Problem(Exception):
    """An answer other than a result.

    Args:
        status: the status code.
        detail: a sentence for people.
        kind: the class of the error, "" if the status is enough.
        executed: whether the function ran; None if it may have run.
        headers: further headers of the answer.
        members: further members of the details.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str = "",
        *,
        executed: bool | None = False,
        headers: tuple[tuple[str, str], ...] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.executed = executed
        self.headers = headers
        self.members = dict(members or {})

    @property
    def line(self) -> str:
        """The status code and its phrase."""
        return f"{self.status} {phrase_of(self.status)}"

    def details(self) -> dict[str, Any]:
        """Return the problem details."""
        return {
            "type": f"{DOCS}{self.kind.lower()}" if self.kind else "about:blank",
            "title": self.kind or phrase_of(self.status),
            "status": self.status,
            "detail": str(self),
            "executed": self.executed,
            **self.members,
        }

    def body(self) -> bytes:
        """Return the details as JSON."""
        return msgspec.json.encode(self.details(), enc_hook=str)


def phrase_of(status: int) -> str:
    """Return the phrase of a status code."""
    # Python's phrases for some codes differ between releases.
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def problem_of(error: AmphoraError, statuses: Mapping[str, int]) -> Problem:
    """Return the answer to the error of a call.

    Args:
        statuses: the status codes of exceptions of the functions, by class name.
    """
    kind = next(each for each in type(error).__mro__ if each in ERRORS)
    status, detail = ERRORS[kind]
    if status == HTTPStatus.BAD_GATEWAY and error.executed is False:
        # Nothing was sent: the client can try again.
        status = 503
    members: dict[str, Any] = {}
    if isinstance(error, RemoteException):
        status = statuses.get(error.error_type, status)
        members["exception"] = printable(error.error_type)
    if isinstance(error, StreamLost):
        members["received"] = error.received
    if isinstance(error, _LOGGED):
        log.throttled("a call failed: %s", error)
    headers: tuple[tuple[str, str], ...] = ()
    if status in (429, 503):
        after = error.retry_after if isinstance(error, Busy) else None
        headers = (("Retry-After", str(max(ceil(after or RETRY_AFTER), 1))),)
    return Problem(
        status,
        printable(error, MAX_DETAIL) if detail is None else detail,
        kind.__name__,
        executed=error.executed,
        headers=headers,
        members=members,
    )
