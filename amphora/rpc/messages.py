"""The bodies of requests and responses, the same in every serializer."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from amphora.errors import (
    AmphoraError,
    PoisonRequest,
    RemoteException,
    WrongRequest,
    WrongResult,
    printable,
)

# An exception's text, its traceback and each of its arguments are cut at this many characters.
MAX_ERROR_TEXT = 8192
# An error response that would be larger has its arguments cut, in bytes.
MAX_ERROR_SIZE = 64 * 1024


# The type of a response in which a server says that it has no answer, and of a request that
# wants to be told so.
IGNORED = "ignored"
GATHER = "gather"


class Request(msgspec.Struct):
    """What a client asks for: a function by its dotted name, and its arguments."""

    func: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """An exception on its way to the caller, as text and plain values."""

    type: str
    args: list[Any] = []
    traceback: str = ""


class Response(msgspec.Struct, omit_defaults=True):
    """Either a result or an exception."""

    result: Any = UNSET
    exception: ErrorBody | UnsetType = UNSET


# The errors of amphora itself that travel.  Only these names are ever turned into a class of
# their own; every other name stays text in a RemoteException.  The dot keeps them apart from
# the exceptions of handlers, whose names are class names.
_TRAVELLING: dict[str, type[AmphoraError]] = {
    "amphora.PoisonRequest": PoisonRequest,
    "amphora.WrongRequest": WrongRequest,
    "amphora.WrongResult": WrongResult,
}
_NAMES = {cls: name for name, cls in _TRAVELLING.items()}


def error_body(error: AmphoraError) -> ErrorBody:
    """Return an error of amphora's own that travels as the body of an error response."""
    return ErrorBody(_NAMES[type(error)], list(error.args))


def raised_body(error: BaseException, traceback: str = "") -> ErrorBody:
    """Return what a handler raised as the body of an error response.

    Also an error of amphora's own, as of a call that the handler made: it says nothing about the
    call that the handler was to answer.
    """
    name = type(error).__name__.replace(".", "_")
    if len(traceback) > MAX_ERROR_TEXT:
        # The end says where it happened.
        traceback = "...\n" + traceback[-MAX_ERROR_TEXT:]
    try:
        args: Any = error.args
    except (Exception, SystemExit):  # noqa: BLE001 (a class of the user's may have anything there)
        args = ()
    if not isinstance(args, tuple):
        args = (_text(error),)
    return ErrorBody(name[:200], list(args), traceback)


def plain_args(args: list[Any]) -> list[Any]:
    """Return an exception's arguments as texts, for when they cannot be sent as they are."""
    return [_text(arg) for arg in args[:20]]


def _text(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except (Exception, SystemExit):  # noqa: BLE001 (a repr of the user's may raise anything)
        text = f"<{type(value).__name__} without a repr>"
    # What JSON cannot carry (lone surrogates) is escaped, so that this always can be sent.
    return text[:MAX_ERROR_TEXT].encode("utf-8", "backslashreplace").decode()


def exception_of(body: ErrorBody) -> AmphoraError:
    """Return the exception that the caller of a failed request gets."""
    cls = _TRAVELLING.get(body.type)
    if cls is not None:
        return cls(*body.args)
    return RemoteException(printable(body.type), body.args, body.traceback)
