"""The gateway as a WSGI application: access checks and routing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Self

from amphora.errors import AmphoraError, repr_of
from amphora.export.openapi import openapi
from amphora.export.openrpc import openrpc
from amphora.gateway.calls import Calls, IsStream, Limits
from amphora.gateway.directory import Directory, split
from amphora.gateway.jsonrpc import JsonRpc, parse_error
from amphora.gateway.problems import CONTENT_TYPE, Problem
from amphora.gateway.requests import (
    Arguments,
    Tokens,
    arguments_of,
    decode,
    read_body,
    stream_type,
)
from amphora.gateway.streams import StreamBody, encode
from amphora.net.log import Log
from amphora.rpc.contract.checks import check_names, check_timeout, check_wait
from amphora.rpc.contract.naming import check_namespace
from amphora.transport.checks import check_count
from amphora.transport.session import Session
from amphora.web.access import Environ, checked_names, has_own_origin, knows_host
from amphora.web.pages import AT_ONCE, HEADERS, static_files, type_of

log = Log("amphora.gateway")

StartResponse = Callable[[str, list[tuple[str, str]]], object]

DEFAULT_TIMEOUT = 60.0
LONGEST_TIMEOUT = 3600.0
MAX_BODY = 1024 * 1024
MAX_PENDING = 1000
MAX_STREAMS = 100
# Files of the dashboard that this page uses, too.
SHARED = ("dom.js", "icon.svg")
# The headers that pages of allowed origins may send and read.
_ALLOWED_HEADERS = "Authorization, Content-Type, Traceparent, Tracestate, X-Request-Timeout"
_EXPOSED_HEADERS = "Retry-After, WWW-Authenticate"
_ORIGIN = re.compile(r"(https?)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_ANSWER_HEADERS = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))


class Gateway:
    """Functions of services over HTTP: a WSGI application.

        application = Gateway("math", "users", url="amphora://...")

    It serves the functions at `/math/sum_numbers`, JSON-RPC at `/rpc`, an OpenAPI document at
    `/openapi.json` and a page to try them at `/`.  The web server has to run it in greenlets.  A
    server other than that of `amphora gateway` has to limit request heads, connections and slow
    readers itself.

    Args:
        namespaces: the services.
        url: the broker, as for `Session`.
        session: a session to share, instead of `url`.
        functions: the only functions that may be called, as `namespace.function`; None for all.
        tokens: clients need one of them, as `Authorization: Bearer`; None if anyone may call, or
            if the program wraps the application in middleware that checks access.
        cors_origins: pages of these origins may call, such as "https://shop.example.org"; "*" for
            any.
        host_names: the only names under which it may be reached; None for any.  Without tokens, on
            a machine with a browser, they keep pages of other sites away.
        timeout: seconds for a call that sets no timeout.
        longest_timeout: the most seconds that a client may ask for.
        wait_for_server: seconds to wait for a worker if there is none; None sends the call
            anyway, and it waits in the queue.
        max_body: the most bytes of a request's body.
        max_pending: how many calls of a service may be pending at once.
        max_streams: how many streams may be open at once.
        statuses: status codes for exceptions of the functions, by class name; others are 500.
        title: the title of the documents.

    Raises:
        ValueError: an argument is not valid.
    """

    def __init__(
        self,
        *namespaces: str,
        url: str | None = None,
        session: Session | None = None,
        functions: Collection[str] | None = None,
        tokens: Iterable[str] | None = None,
        cors_origins: Collection[str] = (),
        host_names: Collection[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        longest_timeout: float = LONGEST_TIMEOUT,
        wait_for_server: float | None = None,
        max_body: int = MAX_BODY,
        max_pending: int = MAX_PENDING,
        max_streams: int = MAX_STREAMS,
        statuses: Mapping[str, int] | None = None,
        title: str = "amphora gateway",
    ) -> None:
        if functions is not None:
            functions = check_names("functions", functions, "math.add")
        _check_functions(namespaces, functions)
        self._tokens = _checked_tokens(tokens)
        self._origins = _checked_origins(
            check_names("cors_origins", cors_origins, "https://shop.example.org")
        )
        self._host_names = (
            None
            if host_names is None
            else checked_names(check_names("host_names", host_names, "shop.example.org"))
        )
        self._max_body = check_count("max_body", max_body)
        self._title = title
        limits = Limits(
            check_timeout(timeout),
            check_timeout(longest_timeout, "longest_timeout"),
            None if wait_for_server is None else check_wait(wait_for_server),
            check_count("max_pending", max_pending),
            check_count("max_streams", max_streams),
            _checked_statuses(statuses or {}),
        )
        self._static = {
            **{name: static_files("amphora.web")[name] for name in SHARED},
            **static_files("amphora.gateway"),
        }
        shared = Session(url) if session is None else session
        self._own_session = shared if session is None else None
        allowed = None if functions is None else frozenset(functions)
        self._directory = Directory(shared, namespaces, allowed)
        self._calls = Calls(shared, self._directory, limits)
        self._rpc = JsonRpc(self._calls, self._openrpc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End its calls and, if it made the session itself, the session.  Switches greenlets."""
        self._calls.close()
        if self._own_session is not None:
            self._own_session.close()

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Serve a request.  Switches greenlets."""
        headers = [*_ANSWER_HEADERS, *self._cors(environ)]
        try:
            return self._serve(environ, start, headers)
        except Problem as problem:
            failed = problem
        except AmphoraError as error:
            # An error outside of any call.
            log.throttled("a request could not be served: %s", error)
            failed = Problem(500, "The request could not be served.", executed=None)
        start(failed.line, [*headers, ("Content-Type", CONTENT_TYPE), *failed.headers])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [failed.body()]

    def _serve(
        self, environ: Environ, start: StartResponse, headers: list[tuple[str, str]]
    ) -> Iterable[bytes]:
        if self._host_names is not None and not knows_host(environ, self._host_names):
            raise Problem(421, "This host name is not known here.")
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO") or "/"
        name = "index.html" if path == "/" else path.removeprefix("/static/")
        if path in ("/", f"/static/{name}") and method in ("GET", "HEAD"):
            return self._file(name, method, start)
        allowed = self._methods_for(path)
        if method == "OPTIONS":
            return self._options(allowed, start, headers)
        if not (has_own_origin(environ) or self._is_allowed_origin(environ)):
            raise Problem(403, "Pages of this origin may not call.")
        self._tokens.check(environ)
        if method not in allowed:
            raise Problem(405, f"Only {', '.join(allowed)} is possible.", headers=_allow(allowed))
        if path == "/openapi.json":
            return _answer(start, headers, method, self._openapi(environ))
        if path == "/rpc":
            return self._serve_rpc(environ, start, headers)
        return self._serve_function(environ, start, headers, path)

    def _methods_for(self, path: str) -> tuple[str, ...]:
        """Return the methods of a path.

        Raises:
            Problem: there is no such path.
        """
        if path == "/" or path == "/openapi.json":
            return ("GET", "HEAD")
        if path.startswith("/static/"):
            # A service of that name shares it with the page's files, which are never posted to.
            served = "static" in self._directory.namespaces
            return ("GET", "HEAD", "POST") if served else ("GET", "HEAD")
        namespace, _, function = path[1:].partition("/")
        if path == "/rpc" or (namespace and function):
            return ("POST",)
        raise Problem(404, "There is no such address here.")

    def _serve_function(
        self, environ: Environ, start: StartResponse, headers: list[tuple[str, str]], path: str
    ) -> Iterable[bytes]:
        namespace, _, function = _text(path[1:]).partition("/")
        if not self._directory.allows(namespace, function):
            raise Problem(404, "There is no such function here.")
        body = read_body(environ, self._max_body)
        given = arguments_of(decode(body)) if body else Arguments([], {})
        kind, only_streams = stream_type(environ)
        if not only_streams and not self._directory.known_stream(namespace, function):
            try:
                value = self._calls.call(environ, namespace, function, given)
            except IsStream:
                pass
            else:
                return _answer(start, headers, "POST", value)
        stream = self._calls.stream(environ, namespace, function, given)
        start("200 OK", [*headers, ("Content-Type", kind), AT_ONCE])
        return StreamBody(stream, kind)

    def _serve_rpc(
        self, environ: Environ, start: StartResponse, headers: list[tuple[str, str]]
    ) -> Iterable[bytes]:
        body = read_body(environ, self._max_body)
        try:
            asked = decode(body)
        except Problem as problem:
            return _answer(start, headers, "POST", parse_error(str(problem)))
        answer = self._rpc.serve(environ, asked)
        if answer is None:
            start("204 No Content", headers)
            return []
        return _answer(start, headers, "POST", answer)

    # -- documents and pages ----------------------------------------------------------------------

    def _openrpc(self) -> dict[str, Any]:
        return openrpc(self._directory.offers(), self._title)

    def _openapi(self, environ: Environ) -> dict[str, Any]:
        document = openapi(self._directory.offers(), self._title)
        document["servers"] = [{"url": environ.get("SCRIPT_NAME") or "/"}]
        if self._tokens:
            document["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"}
            }
            document["security"] = [{"token": []}]
        return document

    def _file(self, name: str, method: str, start: StartResponse) -> Iterable[bytes]:
        """Serve a file of the page; none of them is secret."""
        if name not in self._static:
            raise Problem(404, "There is no such page here.")
        body = self._static[name]
        start(
            "200 OK",
            [*HEADERS, ("Content-Type", type_of(name)), ("Content-Length", str(len(body)))],
        )
        return [] if method == "HEAD" else [body]

    # -- pages of other hosts ---------------------------------------------------------------------

    def _is_allowed_origin(self, environ: Environ) -> bool:
        origin = environ.get("HTTP_ORIGIN", "")
        return bool(origin) and ("*" in self._origins or origin in self._origins)

    def _cors(self, environ: Environ) -> list[tuple[str, str]]:
        if not self._origins:
            return []
        vary = [("Vary", "Origin")]
        if not self._is_allowed_origin(environ):
            return vary
        origin = "*" if "*" in self._origins else environ["HTTP_ORIGIN"]
        return [
            *vary,
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED_HEADERS),
        ]

    def _options(
        self, allowed: tuple[str, ...], start: StartResponse, headers: list[tuple[str, str]]
    ) -> Iterable[bytes]:
        if any(name == "Access-Control-Allow-Origin" for name, _ in headers):
            headers = [
                *headers,
                ("Access-Control-Allow-Methods", ", ".join(allowed)),
                ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
                ("Access-Control-Max-Age", "600"),
            ]
        start("204 No Content", [*headers, *_allow(allowed)])
        return []


def _allow(methods: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return (("Allow", ", ".join((*methods, "OPTIONS"))),)


def _answer(
    start: StartResponse, headers: list[tuple[str, str]], method: str, value: Any
) -> Iterable[bytes]:
    body = encode(value)
    start(
        "200 OK",
        [*headers, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    return [] if method == "HEAD" else [body]


def _text(path: str) -> str:
    """Return a WSGI path as text; see PEP 3333."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _check_functions(namespaces: tuple[str, ...], functions: Collection[str] | None) -> None:
    """Raise ValueError for namespaces that cannot be served, or of which no function would be."""
    if not namespaces:
        raise ValueError("a gateway needs a namespace")
    for namespace in namespaces:
        check_namespace(namespace)
        if namespaces.count(namespace) > 1:
            raise ValueError(f"{namespace} is given twice")
    if functions is None:
        return
    served = set()
    for name in functions:
        namespace, function = split(name, namespaces)
        if not function:
            raise ValueError(
                f"{repr_of(name)} is not a function of {', '.join(namespaces)}:"
                " write namespace.function"
            )
        served.add(namespace)
    for namespace in namespaces:
        if namespace not in served:
            raise ValueError(f"no function of {namespace} is among those that may be called")


def _checked_tokens(tokens: Iterable[str] | None) -> Tokens:
    if tokens is None:
        return Tokens(())
    given = check_names("tokens", tokens, "a long random text")
    if not given:
        # As where a variable is empty: nobody means that everybody may call.
        raise ValueError("there are no tokens in tokens: give one, or None if anyone may call")
    return Tokens(given)


def _checked_origins(origins: Collection[str]) -> frozenset[str]:
    """Return origins as browsers write them: in lower case, and without the default port."""
    found = set()
    for origin in origins:
        if origin == "*":
            found.add(origin)
            continue
        parts = _ORIGIN.fullmatch(origin.lower())
        if parts is None:
            raise ValueError(
                f"{repr_of(origin)} is not an origin: write it as https://host, without a path,"
                " or *"
            )
        scheme, host, port = parts.groups("")
        found.add(f"{scheme}://{host}{'' if port == _DEFAULT_PORTS[scheme] else port}")
    return frozenset(found)


def _checked_statuses(statuses: Mapping[str, int]) -> dict[str, int]:
    for name, status in statuses.items():
        if not 400 <= status <= 599:
            raise ValueError(f"the status of {name} has to be from 400 to 599, not {status}")
    return dict(statuses)
