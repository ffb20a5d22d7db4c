"""The dashboard's web application: its page, its events and its actions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

import msgspec

from amphora.errors import AmphoraError, NoResult, RemoteException, WrongRequest, printable
from amphora.rpc.contract.reports import SWITCHED_ON_BY
from amphora.web.access import Access, Environ
from amphora.web.actions import ACTIONS, ANY_WORKER
from amphora.web.collecting import Collector
from amphora.web.pages import AT_ONCE, HEADERS, static_files, type_of

StartResponse = Callable[[str, list[tuple[str, str]]], object]

# The largest body of an action, in bytes, and the most viewers at once.
MOST_BODY = 64 * 1024
MOST_VIEWERS = 100
# Seconds for workers to carry out an action.
TIMEOUT = 10.0


class Refusal(Exception):
    """A request is refused."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Action(msgspec.Struct):
    """An action of a viewer: a command for one worker, with its argument.

    `cancel` is for all workers, and `retry` and `drop` for one that has the command.
    """

    command: str
    namespace: str
    worker: str | None = None
    argument: str | list[str] | None = None


class Application:
    """The dashboard as a WSGI application.

    Args:
        collector: collects what to show.
        access: the access rules.
        allow: the names of the allowed `ACTIONS`.
        broker: the broker's address, for display.
    """

    def __init__(
        self, collector: Collector, access: Access, allow: Collection[str], broker: str
    ) -> None:
        self._collector = collector
        self._access = access
        self._commands = {command for name in allow for command in ACTIONS[name]}
        self._about = {"allow": sorted(allow), "broker": broker}
        self._static = static_files("amphora.web")

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        body: Iterable[bytes]
        try:
            body = self._serve(environ, start)
        except Refusal as refusal:
            body = [str(refusal).encode()]
            start(refusal.status, [*HEADERS, ("Content-Type", "text/plain; charset=utf-8")])
        # The server would send it, and a client take it for the next answer.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def _serve(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        if not self._access.knows_host(environ):
            raise Refusal(
                "421 Misdirected Request",
                "This host name is not known here; start with --host-name to add it.\n",
            )
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if path == "/" and "token" in query and self._access.knows(query["token"][0]):
            # This keeps the token out of the address bar and the history.
            known = [("Location", "/"), ("Set-Cookie", self._access.cookie)]
            start("303 See Other", [*HEADERS, *known])
            return []
        if not self._access.is_allowed(environ):
            raise Refusal("401 Unauthorized", "Open the address that `amphora web` has printed.\n")
        if path == "/api/action":
            if method != "POST":
                raise Refusal("405 Method Not Allowed", "an action is a POST\n")
            return self._answer(start, self._act(environ))
        if method not in ("GET", "HEAD"):
            raise Refusal("405 Method Not Allowed", "only GET\n")
        if path == "/api/events":
            if self._collector.viewers >= MOST_VIEWERS:
                raise Refusal("503 Service Unavailable", "there are too many viewers\n")
            start("200 OK", [*HEADERS, ("Content-Type", "text/event-stream"), AT_ONCE])
            return self._events(query.get("namespace", [""])[0] or None)
        name = "index.html" if path == "/" else path.removeprefix("/static/")
        if name not in self._static:
            raise Refusal("404 Not Found", "there is no such page\n")
        body = self._static[name]
        start(
            "200 OK",
            [*HEADERS, ("Content-Type", type_of(name)), ("Content-Length", str(len(body)))],
        )
        return [body]

    def _answer(self, start: StartResponse, answer: Any) -> Iterable[bytes]:
        start("200 OK", [*HEADERS, ("Content-Type", "application/json")])
        return [msgspec.json.encode(answer, enc_hook=str)]

    def _events(self, namespace: str | None) -> Iterator[bytes]:
        yield _event({"kind": "about", **self._about})
        for event in self._collector.watch(namespace):
            yield _event(event)

    # -- actions ----------------------------------------------------------------------------------

    def _act(self, environ: Environ) -> dict[str, Any]:
        if not self._access.is_own(environ):
            raise Refusal("403 Forbidden", "an action has to come from the dashboard's own page\n")
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            if not 0 < length <= MOST_BODY:
                raise ValueError(f"its body has to have 1 to {MOST_BODY} bytes")
            action = msgspec.json.decode(environ["wsgi.input"].read(length), type=Action)
        except ValueError as error:
            raise Refusal("400 Bad Request", f"the action cannot be read: {error}\n") from error
        if action.command not in self._commands:
            raise Refusal(
                "403 Forbidden",
                f"{printable(action.command, 100)} is not allowed here: see amphora web --allow\n",
            )
        try:
            return {"result": self._ask(action)}
        except (AmphoraError, ValueError) as error:
            return {"error": printable(_sentence(action.command, error), 1000)}
        finally:
            self._collector.look_again()

    def _ask(self, action: Action) -> Any:
        """Have a command carried out, and return the answers by worker."""
        management = self._collector.management
        arguments = () if action.argument is None else (action.argument,)
        worker = action.worker
        if worker is None and action.command in ANY_WORKER:
            worker = self._able(action)
        elif worker is None and action.command != "cancel":
            raise ValueError(f"{action.command} is for one worker, and none is named")
        replies = list(
            management.ask(
                action.namespace, action.command, *arguments, worker=worker, timeout=TIMEOUT
            )
        )
        if not replies:
            raise NoResult(f"no worker answered within {TIMEOUT:g} s", executed=None)
        # Workers may differ, for example during a deployment: what one of them has done counts.
        done = {reply.worker: reply.get() for reply in replies if reply.error is None}
        refused = [reply for reply in replies if reply.error is not None]
        if refused and not any(done.values()):
            refused[0].get()
        return done

    def _able(self, action: Action) -> str:
        """Return a worker that has a command."""
        for reply in self._collector.management.ask(action.namespace, "describe", timeout=TIMEOUT):
            if reply.error is None and action.command in reply.value["commands"]:
                return reply.worker
        raise WrongRequest("")


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value, enc_hook=str) + b"\n\n"


def _sentence(command: str, error: Exception) -> str:
    """Return a text for the viewer that says why an action failed."""
    if isinstance(error, WrongRequest):
        word = SWITCHED_ON_BY.get(command, command)
        return f'{command} is off; make the server with management={{"{word}"}}'
    if isinstance(error, RemoteException):
        return str(error.args[0]) if error.args else str(error)
    return str(error)
