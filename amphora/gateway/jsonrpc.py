"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification): methods are `namespace.function`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent

from amphora.gateway.calls import Calls, IsStream
from amphora.gateway.directory import split
from amphora.gateway.problems import Problem
from amphora.gateway.requests import Arguments, arguments_of
from amphora.rpc.context.spawning import spawn
from amphora.web.access import Environ

DISCOVER = "rpc.discover"
# The most requests in a batch, and the most of them that are served at once.
MOST_BATCH = 100
AT_ONCE = 20

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# The specification leaves these codes to servers; the problem has the details.
SERVER_ERROR = -32000
_CODES = {404: METHOD_NOT_FOUND, 422: INVALID_PARAMS}

Json = dict[str, Any]


class JsonRpc:
    """Serves JSON-RPC requests.

    Args:
        calls: makes the calls.
        discover: returns the OpenRPC document.
    """

    def __init__(self, calls: Calls, discover: Callable[[], Json]) -> None:
        self._calls = calls
        self._discover = discover

    def serve(self, environ: Environ, asked: Any) -> Json | list[Json] | None:
        """Return the answer to a request or a batch; None if there is none.  Switches greenlets.

        Raises:
            Problem: the client has gone away.
        """
        if not isinstance(asked, list):
            return self._one(environ, asked)
        if not asked:
            return _error(None, INVALID_REQUEST, "A batch needs a request.")
        if len(asked) > MOST_BATCH:
            why = f"A batch may have at most {MOST_BATCH} requests."
            return _error(None, INVALID_REQUEST, why)
        answers = self._all(environ, asked)
        return [answer for answer in answers if answer is not None] or None

    def _all(self, environ: Environ, asked: list[Any]) -> list[Json | None]:
        answers: list[Json | None] = [None] * len(asked)
        places = iter(range(len(asked)))

        def serve() -> None:
            try:
                for place in places:
                    answers[place] = self._one(environ, asked[place])
            except Problem:
                # The client has gone away: the rest has no reader.
                return

        workers = [spawn(serve) for _ in range(min(AT_ONCE, len(asked)))]
        try:
            gevent.joinall(workers, raise_error=True)
        finally:
            gevent.killall(workers)
        return answers

    def _one(self, environ: Environ, asked: Any) -> Json | None:
        try:
            id_, serve = self._read(environ, asked)
        except _Invalid as invalid:
            return invalid.answer
        is_notification = "id" not in asked
        try:
            result = serve(is_notification)
        except Problem as problem:
            if problem.status == 499:
                raise
            error = _error(
                id_, _CODES.get(problem.status, SERVER_ERROR), str(problem), problem.details()
            )
        except IsStream:
            why = "It is a stream: POST its arguments to its own address."
            details = Problem(406, why, "WrongRequest").details()
            error = _error(id_, SERVER_ERROR, why, details)
        else:
            error = {"jsonrpc": "2.0", "result": result, "id": id_}
        return None if is_notification else error

    def _read(self, environ: Environ, asked: Any) -> tuple[Any, Callable[[bool], Any]]:
        """Return the id of a request, and the function that serves it.

        Raises:
            _Invalid: it is not a valid request.
        """
        if not isinstance(asked, dict):
            raise _Invalid(None, INVALID_REQUEST, "A request is an object.")
        id_ = asked.get("id")
        if isinstance(id_, bool) or not isinstance(id_, str | int | float | None):
            raise _Invalid(None, INVALID_REQUEST, "An id is a text or a number.")
        method = asked.get("method")
        if asked.get("jsonrpc") != "2.0" or not isinstance(method, str):
            raise _Invalid(id_, INVALID_REQUEST, 'A request has "jsonrpc": "2.0" and a method.')
        if method == DISCOVER:
            return id_, lambda is_notification: self._discover()
        try:
            given = arguments_of(asked.get("params", []))
        except Problem as problem:
            raise _Invalid(id_, INVALID_PARAMS, str(problem)) from None
        namespace, function = split(method, self._calls.directory.namespaces)
        if not namespace:
            return id_, partial(_unknown, method)
        return id_, partial(self._call, environ, namespace, function, given)

    def _call(
        self,
        environ: Environ,
        namespace: str,
        function: str,
        given: Arguments,
        is_notification: bool,
    ) -> Any:
        if is_notification:
            self._calls.cast(environ, namespace, function, given)
            return None
        return self._calls.call(environ, namespace, function, given)


def _unknown(method: str, is_notification: bool) -> Any:
    raise Problem(404, f"There is no method {method:.200} here: write namespace.function.")


class _Invalid(Exception):
    """The client sent something that is not a request."""

    def __init__(self, id_: Any, code: int, message: str) -> None:
        super().__init__(message)
        self.answer = _error(id_, code, message)


def _error(id_: Any, code: int, message: str, data: Json | None = None) -> Json:
    error: Json = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": id_}


def parse_error(message: str) -> Json:
    """Return the answer to a body that is not JSON."""
    return _error(None, PARSE_ERROR, message)
