"""From the bytes of a request to the bytes of its response: decode, call, encode.

Whatever is wrong, with the request, in the handler or with its result, becomes a response that
says so.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from time import monotonic

from gevent import GreenletExit
from msgspec import UNSET

from amphora.errors import IgnoreRequest, WrongRequest, WrongResult
from amphora.rpc.functions import Function, Functions, Misfit
from amphora.rpc.messages import (
    MAX_ERROR_SIZE,
    ErrorBody,
    Request,
    Response,
    error_body,
    plain_args,
    raised_body,
)
from amphora.rpc.serializers import JSON, serializer_for, serializer_of
from amphora.rpc.statistics import Statistics
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")

# The modules between a request and its handler.
_OURS = ("amphora.rpc.", "amphora.arpc.")


class Executor:
    """Run the handlers of one server.

    Args:
        owner: the worker id, for logs.
        functions: what can be called.
        statistics: counts what becomes of the calls.
        tracebacks: send the text of a handler's traceback to the caller.
        max_size: the largest response that can be sent, in bytes.
    """

    def __init__(
        self,
        owner: str,
        functions: Functions,
        statistics: Statistics,
        *,
        tracebacks: bool,
        max_size: int,
    ) -> None:
        self._owner = owner
        self._functions = functions
        self._statistics = statistics
        self._tracebacks = tracebacks
        self._max_size = max_size
        # Told the function's name and what its handler raised, in the handler's greenlet.
        self.on_error: Callable[[str, BaseException], None] | None = None

    def execute(self, message: Message[Deliver], *, here: bool = False) -> Response | None:
        """Run the handler of a request and return the response, None if it is ignored.

        Switches greenlets if the handler does.

        Args:
            here: the greenlet is the program's own; what is not an Exception was meant for it
                and is raised.
        """
        began = monotonic()
        self._statistics.arrived(began)
        try:
            request = self._read(message)
            function = self._functions.find(request.func)
        except WrongRequest as error:
            self._statistics.exceptions += 1
            return Response(exception=error_body(error))
        response = self.call(function, request, here)
        if response is None:
            self._statistics.ignored += 1
            return None
        failed = isinstance(response.exception, ErrorBody)
        if failed:
            self._statistics.exceptions += 1
        else:
            self._statistics.processed += 1
        self._statistics.finished(function.name, monotonic() - began, failed)
        return response

    def _read(self, message: Message[Deliver]) -> Request:
        namespace = self._functions.namespace
        try:
            return serializer_of(message.properties).decode_request(message.body)
        except ValueError as error:
            raise WrongRequest(f"{namespace} cannot read the request: {error}") from error

    def call(self, function: Function, request: Request, here: bool) -> Response | None:
        """Call a function and return the response, None if it is ignored; see `execute`."""
        try:
            return Response(result=function.call(request.args, request.kwargs))
        except IgnoreRequest:
            return None
        except Misfit as error:
            return Response(exception=error_body(WrongRequest(str(error))))
        except BaseException as error:
            # Also SystemExit, Timeout and the like: a handler cannot end the server.
            if here and not isinstance(error, Exception):
                raise
            if not isinstance(error, GreenletExit):
                kind = type(error).__name__
                logger.warning("%s: %s raised %s", self._owner, function.name, kind, exc_info=True)
                if self.on_error is not None:
                    self.on_error(function.name, error)
            text = _remote_traceback(error) if self._tracebacks else ""
            return Response(exception=raised_body(error, text))

    def encode(self, response: Response, content_type: str | None) -> tuple[bytes, str]:
        """Return the body and the content type of a response to a request of `content_type`."""
        serializer = serializer_for(content_type) or JSON
        limit = self._max_size if response.exception is UNSET else MAX_ERROR_SIZE
        try:
            body = serializer.encode(response)
            if len(body) > limit:
                raise ValueError(f"it has {len(body)} bytes, and a message can have {limit}")
        except ValueError as error:
            namespace = self._functions.namespace
            failed = response.exception
            if not isinstance(failed, ErrorBody):
                unsendable = WrongResult(f"the result of {namespace} cannot be sent: {error}")
                failed = error_body(unsendable)
            failed.args = plain_args(failed.args)
            failed.traceback = plain_args([failed.traceback])[0]
            failed.type = plain_args([failed.type])[0]
            body = serializer.encode(Response(exception=failed))
        return body, serializer.content_type


def _remote_traceback(error: BaseException) -> str:
    """Return the text of a traceback from the handler on: amphora's own frames help nobody."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
