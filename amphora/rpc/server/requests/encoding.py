"""The answer to a call as bytes: its result, or the error that is sent in its place.

Exceptions are described by their own classes, which may raise, wait or lie; and what cannot be sent
becomes an error that says why.
"""

from __future__ import annotations

import traceback
from typing import NamedTuple

import gevent
import msgspec
from gevent import GreenletExit

from amphora.errors import AmphoraError, WrongResult, is_a, printable
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext
from amphora.rpc.contract import legacy
from amphora.rpc.contract.bodies import (
    MAX_ERROR_SIZE,
    MAX_ERROR_TEXT,
    ErrorBody,
    Response,
    bare_body,
    error_body,
    exception_of,
    plain_body,
    raised_body,
    short_body,
)
from amphora.rpc.contract.serializers import JSON, Serializer, serializer_for
from amphora.rpc.contract.unsendable import refused_part
from amphora.rpc.server.streams.streaming import Unsendable
from amphora.wire.properties import Properties

log = Log("amphora.rpc")

# The modules between a request and its handler.
_OURS = ("amphora.rpc.", "amphora.arpc.")
# The longest text of an error in the log.
LONGEST_WHY = 500
# Seconds for the class of a user's exception to return its text.
DESCRIBE_TIMEOUT = 1.0


class Failure(NamedTuple):
    """A failed call, to be reported to the program and its log."""

    function: str
    what: str
    error: BaseException
    # False if its class failed to give a text, so that log handlers do not try again.
    legible: bool = True
    # True if the function declares that it raises such.
    expected: bool = False


class Answer(msgspec.Struct, frozen=True):
    """An encoded response.

    `failure` is to be reported when the answer is on its way.
    """

    body: bytes
    content_type: str
    failure: Failure | None = None
    # True if it is not wanted.
    unsent: bool = False
    # True if the call has failed.
    failed: bool = False


# The answer to a cast or to a cancelled request, which is not sent.
UNWANTED = Answer(b"", "", unsent=True)


class Encoding:
    """Turn what becomes of the calls of one server into answers.

    Args:
        owner: the worker id, for logs.
        namespace: the namespace of the functions, for errors.
        tracebacks: send the text of a handler's traceback to the caller.
        max_size: the largest response that can be sent, in bytes.
    """

    def __init__(self, owner: str, namespace: str, *, tracebacks: bool, max_size: int) -> None:
        self._owner = owner
        self._namespace = namespace
        self._tracebacks = tracebacks
        self._max_size = max_size

    def answer(
        self,
        call: CallContext,
        response: Response,
        failure: Failure | None,
        properties: Properties,
    ) -> Answer:
        """Return the answer to a call.

        A result that cannot be sent is a failure, unless the request was a cast.
        """
        function, exception = call.function, response.exception
        if not properties.reply_to:
            failed = isinstance(exception, ErrorBody)
            if isinstance(exception, ErrorBody) and failure is None and not call.begun:
                # Nobody else is told that it has not run.
                why = printable(exception_of(exception), LONGEST_WHY)
                log.throttled("%s: a cast was refused: %s", self._owner, why)
            return Answer(b"", "", failure, unsent=True, failed=failed)
        serializer = serializer_for(properties.content_type) or JSON
        if not isinstance(exception, ErrorBody):
            try:
                body = serializer.encode(response)
                if len(body) > self._max_size:
                    raise _TooLarge(
                        f"it has {len(body)} bytes, and a message can have {self._max_size}"
                    )
                return Answer(body, serializer.content_type)
            except ValueError as error:
                unsendable = self._unsendable(function, response, serializer, error)
                exception = error_body(unsendable)
                failure = Failure(function, f"has run, but {unsendable}", unsendable)
        return self._encode_error(exception, properties, failure)

    def refuse(self, error: AmphoraError, properties: Properties) -> Answer:
        """Return the answer to a request that amphora itself refuses."""
        return self._encode_error(error_body(error), properties)

    def describe(self, error: BaseException, raises: bool, traced: bool) -> tuple[ErrorBody, bool]:
        """Return a handler's exception as it is sent, and whether its class gave a text."""
        patience = gevent.Timeout(DESCRIBE_TIMEOUT)
        try:
            with patience:
                body = raised_body(error)
                if self._tracebacks and traced:
                    # After the text: in a traceback Python hides what is raised for a text, as when
                    # it takes too long.
                    body.traceback = _remote_traceback(error)
                return body, True
        except (GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as trouble:
            if raises and trouble is not patience and not is_a(trouble, Exception):
                raise
            return bare_body(error), False

    def unsendable_item(self, function: str, error: Unsendable) -> tuple[Response, Failure]:
        """Return the end of a stream with an item that cannot be sent."""
        name = f"{self._namespace}.{function}"
        unsendable = WrongResult(f"an item of {name} cannot be sent: {error}")
        unsendable.__cause__ = error.cause
        failure = Failure(function, f"has yielded, but {unsendable}", unsendable)
        return Response(exception=error_body(unsendable)), failure

    def _unsendable(
        self, function: str, response: Response, serializer: Serializer, error: ValueError
    ) -> WrongResult:
        """Return the error for a result that cannot be sent."""
        why = str(error)
        if not isinstance(error, _TooLarge):  # no single part of the result is to blame for that
            why = refused_part(
                [("result", response.result)],
                lambda value: serializer.encode(Response(result=value)),
                error,
            )
        name = f"{self._namespace}.{function}"
        unsendable = WrongResult(f"the result of {name} cannot be sent: {why}")
        unsendable.__cause__ = error.__cause__
        return unsendable

    def _encode_error(
        self, error: ErrorBody, properties: Properties, failure: Failure | None = None
    ) -> Answer:
        serializer = serializer_for(properties.content_type) or JSON
        if legacy.is_request(properties):
            legacy.address(error)
        try:
            body = serializer.encode(Response(exception=error))
        except ValueError:
            body = b""
        if not body or len(body) > MAX_ERROR_SIZE:
            body = serializer.encode(Response(exception=plain_body(error)))
        if len(body) > self._max_size:
            body = serializer.encode(Response(exception=short_body(plain_body(error))))
        return Answer(body, serializer.content_type, failure, failed=True)


class _TooLarge(ValueError):
    """A result is larger than a message may be."""


def no_answer(properties: Properties) -> Answer:
    """Return the answer that says, by its message type, that no answer will come."""
    serializer = serializer_for(properties.content_type) or JSON
    return Answer(serializer.encode(Response(result=None)), serializer.content_type)


def _remote_traceback(error: BaseException) -> str:
    """Return the text of a traceback from the handler on, without amphora's own frames."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    # The end shows where it was raised.
    return text if len(text) <= MAX_ERROR_TEXT else f"...\n{text[4 - MAX_ERROR_TEXT :]}"
