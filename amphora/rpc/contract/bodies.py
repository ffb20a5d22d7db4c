"""The bodies of requests and responses, the same in every serializer."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, TypeGuard

import msgspec
from msgspec import UNSET, UnsetType

from amphora.errors import (
    MAX_TEXT,
    AmphoraError,
    Busy,
    Cancelled,
    Denied,
    PoisonRequest,
    RemoteException,
    ServerLost,
    StreamLost,
    TimedOut,
    WrongRequest,
    WrongResult,
    printable,
    shown,
    text_of,
)

# An exception's text, its traceback and each of its arguments are cut at this many characters.
MAX_ERROR_TEXT = MAX_TEXT
# An error response that would be larger has its arguments cut, in bytes.
MAX_ERROR_SIZE = 64 * 1024


# The type of a response by a server that ignores the request, and of a request that asks for such
# responses.
IGNORED = "ignored"
GATHER = "gather"
# The type of the note that a worker has begun a request, without a body; and how its client asks
# for it, in the header that says what it takes.
STARTED = "started"

# Values of these classes arrive unchanged with every serializer.
_PLAIN = frozenset((str, int, float, bool, type(None)))


class Request(msgspec.Struct):
    """What a client asks for: a function by its dotted name, and its arguments."""

    func: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class ErrorBody(msgspec.Struct):
    """An exception on its way to the caller, as text and plain values.

    `text` is its `str`, absent if `args` show the same.  `args` and `traceback` are always sent: a
    client of amphora 0.1 stops reading for good after an error without `args`.
    """

    type: str
    args: list[Any] = []
    traceback: str = ""
    text: str | UnsetType = UNSET
    # If it differs from the default of the class that the caller gets.
    executed: bool | UnsetType | None = UNSET
    # Its class, if older peers do not know it; `type` is then the nearest that they know.
    kind: str | UnsetType = UNSET
    # Seconds, of a server that is busy.
    retry_after: float | UnsetType | None = UNSET


class Response(msgspec.Struct, omit_defaults=True):
    """Either a result or an exception."""

    result: Any = UNSET
    exception: ErrorBody | UnsetType = UNSET


# The amphora errors that travel.  Only these names become classes again; every other name is text
# in a RemoteException.  The dot tells them from the exceptions of handlers, which are sent under
# their class names.
_NAMES: dict[type[AmphoraError], str] = {
    cls: f"amphora.{cls.__name__}"
    for cls in (Cancelled, Denied, PoisonRequest, ServerLost, StreamLost, WrongRequest, WrongResult)
}
# Those that came later, each with the nearest that every amphora knows.
_LATER: dict[type[AmphoraError], type[AmphoraError]] = {
    Busy: ServerLost,
    TimedOut: WrongResult,
}
_CLASSES = {name: cls for cls, name in _NAMES.items()}
_KINDS = {f"amphora.{cls.__name__}": cls for cls in _LATER}


def travels(error: BaseException) -> TypeGuard[AmphoraError]:
    """Return whether the caller gets an error as the same class, which is one of amphora's."""
    return type(error) in _NAMES or type(error) in _LATER


def error_body(error: AmphoraError) -> ErrorBody:
    """Return the body of an error response for an amphora error that travels."""
    cls = type(error)
    known = _LATER.get(cls, cls)
    body = ErrorBody(_NAMES[known], list(error.args))
    if known is not cls:
        body.kind = f"amphora.{cls.__name__}"
    if error.executed is not cls.executed or cls.executed is not known.executed:
        body.executed = error.executed
    if isinstance(error, Busy):
        body.retry_after = error.retry_after
    return body


def raised_body(error: BaseException) -> ErrorBody:
    """Return the body of an error response for an exception of a handler.

    That may be an amphora error, of a call that the handler made.  It is sent like any other
    exception, because it says nothing of the call to this handler.
    """
    name = type(error).__name__.replace(".", "_")
    try:
        args: Any = error.args
    except (Exception, SystemExit):  # noqa: BLE001 (a user's class may have anything there)
        args = ()
    if not isinstance(args, tuple):
        args = (_text(error),)
    text = text_of(error, MAX_ERROR_TEXT)
    return ErrorBody(name[:200], list(args), text=UNSET if _show(args, text) else text)


def bare_body(error: BaseException) -> ErrorBody:
    """Return the body for an exception of which only the class is known."""
    return ErrorBody(type(error).__name__[:200])


def short_body(body: ErrorBody) -> ErrorBody:
    """Return the shortest form of an error response, for a small limit on messages."""
    return _like(body, ErrorBody(body.type, [printable(body.text or shown(body.args))]))


def _show(args: tuple[Any, ...], text: str) -> bool:
    """Return whether the arguments, as the caller gets them, show all of a text."""
    if not _travels(args):
        return False
    told = shown(args)
    # The text of a KeyError is repr(key), which shows no more.
    return text == told[:MAX_ERROR_TEXT] or (len(args) == 1 and text == repr(args[0]))


def _travels(args: Sequence[Any], depth: int = 3) -> bool:
    """Return whether values arrive unchanged: they have plain classes and are not too deep."""
    for value in args:
        kind = type(value)
        if kind is list and depth and len(value) < 1000:
            if not _travels(value, depth - 1):
                return False
        elif kind not in _PLAIN:
            return False
    return True


def plain_body(body: ErrorBody) -> ErrorBody:
    """Return an error response with texts only, for one that cannot be sent unchanged."""
    return _like(
        body,
        ErrorBody(
            _text(body.type),
            [_text(arg) for arg in body.args[:20]],
            _text(body.traceback),
            _text(body.text) if body.text else UNSET,
        ),
    )


def _like(body: ErrorBody, other: ErrorBody) -> ErrorBody:
    """Return another form of an error response, which says the same of the call."""
    other.executed, other.kind, other.retry_after = body.executed, body.kind, body.retry_after
    return other


def _text(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
        text = str.__getitem__(text, slice(MAX_ERROR_TEXT))
    except (Exception, SystemExit):  # noqa: BLE001 (a repr of the user's may raise anything)
        text = f"<{type(value).__name__} without a repr>"
    # Lone surrogates, which JSON cannot carry, are escaped, so that the text can always be sent.
    return text.encode("utf-8", "backslashreplace").decode()


def exception_of(body: ErrorBody) -> AmphoraError:
    """Return the exception that the caller of a failed request gets."""
    cls = _KINDS.get(body.kind or "") or _CLASSES.get(body.type)
    error: AmphoraError
    if cls is not None:
        error = cls(*body.args)
        if isinstance(error, Busy):
            error.retry_after = _seconds(body.retry_after)
    else:
        error = RemoteException(printable(body.type), body.args, body.traceback, body.text or "")
    if body.executed is not UNSET:
        error.executed = body.executed
    return error


def _seconds(value: float | UnsetType | None) -> float | None:
    """Return a number of seconds that a peer sent, None if it is none."""
    if value is UNSET or value is None or not isfinite(value) or value < 0:
        return None
    return value
