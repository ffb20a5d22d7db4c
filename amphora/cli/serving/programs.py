"""The server of a user's program, found by its name."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from types import ModuleType, TracebackType
from typing import Any

import gevent

import amphora
from amphora.arpc.mq import JSONServer
from amphora.cli.failures import Exit, exit_code_of
from amphora.cli.serving.guard import Left
from amphora.errors import (
    AmphoraError,
    Busy,
    ConnectionLost,
    NoResult,
    NoServer,
    Overloaded,
    Rejected,
    ServerLost,
    StreamLost,
    Unroutable,
    is_a,
    repr_of,
)
from amphora.rpc.server.blocking import never_blocking
from amphora.rpc.server.server import AmqpRpcServer, start_failed
from amphora.rpc.server.worker import State

DEFAULT_NAME = "server"
# Advice for code that only a script should run.
AS_A_SCRIPT = "What the program does as a script belongs below if __name__ == '__main__'"

# What a call raises while the broker, or who is called, is away or has too much to do.
AWAY = (
    Busy,
    ConnectionLost,
    NoResult,
    NoServer,
    Overloaded,
    Rejected,
    ServerLost,
    StreamLost,
    Unroutable,
)

_SERVERS = (AmqpRpcServer, JSONServer)
_AMPHORA = os.path.join(os.path.dirname(amphora.__file__), "")
_TARGET = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::([^\W\d]\w*(?:\.[^\W\d]\w*)*))?")


class CannotLoad(Exception):
    """The program has no server to run; the text says why, with any traceback of the program.

    Attributes:
        code: the exit code of its worker.
    """

    code = Exit.USAGE


class CannotStart(CannotLoad):
    """A function of `on_start` has raised, or the program could not reach another service.

    What it lacks may come, such as a database or the broker, so another worker may be luckier.
    """

    code = Exit.FAILED


class NotAllowed(CannotLoad):
    """The program could not use the broker, which refuses the login, or something to this user."""

    code = Exit.NOT_ALLOWED


def parse_target(target: str) -> tuple[str, str]:
    """Return the module and the attribute that `package.module:server` names.

    Raises:
        ValueError: the target does not have this form.
    """
    found = _TARGET.fullmatch(target)
    if found is None or found[1].endswith(".py"):
        name = os.path.splitext(target.partition(":")[0])[0].strip("./").replace("/", ".")
        raise ValueError(
            f"{repr_of(target)} is not written package.module:server"
            + (f"; try {name}:{DEFAULT_NAME}" if _TARGET.fullmatch(name) else "")
        )
    return found[1], found[2] or DEFAULT_NAME


def load_server(target: str) -> AmqpRpcServer:
    """Import a program and return its server.

    The current directory is searched first.  This runs the program's own code, which may do
    anything; only `serve` does not block meanwhile.

    Args:
        target: `package.module:name`, where the name is that of a server (or of one that arpc's
            make_json_server has made), or of a callable without arguments that returns one;
            `server` if only a module is named.

    Raises:
        CannotLoad: there is no such module or name, or the program raised.
        ValueError: the target does not have this form.
    """
    module_name, attribute = parse_target(target)
    try:
        here = os.getcwd()
    except OSError as error:
        raise CannotLoad(f"the current directory was deleted: {error}") from error
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    with never_blocking():
        server = _load(module_name, attribute, target)
    if server.state in (State.STOPPING, State.STOPPED):
        raise CannotLoad(
            f"the server of {target} was stopped by its own program: run() returns"
            f" at once in a worker of amphora serve. {AS_A_SCRIPT}"
        )
    return server


def _load(module_name: str, attribute: str, target: str) -> AmqpRpcServer:
    module = _import(module_name)
    found: Any = module
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CannotLoad(_nothing_there(module, attribute)) from None
        except Left:
            raise
        except BaseException as error:
            raise _failed(f"{target} cannot be had: {name} raised", error) from error
    server = _as_server(found)
    if server is None and callable(found):
        try:
            found = found()
        except Left:
            raise
        except SystemExit as error:
            raise CannotLoad(f"{target}() {_exits(error)}") from error
        except BaseException as error:
            raise _failed(f"{target}() raised", error) from error
        server = _as_server(found)
        if server is None:
            raise CannotLoad(f"{target}() returns {repr_of(found, 200)}, and no server")
    if server is None:
        raise CannotLoad(f"{target} is not a server and returns none; it is {repr_of(found, 200)}")
    return server


def _as_server(value: object) -> AmqpRpcServer | None:
    if isinstance(value, JSONServer):
        return value.server
    return value if isinstance(value, AmqpRpcServer) else None


def _import(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except Left:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CannotLoad(
                f"there is no module {error.name!r}, neither in {os.getcwd()} nor on Python's path"
                f"{_hidden(name)}"
            ) from error
        raise CannotLoad(f"{name} cannot be imported\n{_own_traceback(error)}") from error
    except SystemExit as error:
        raise CannotLoad(f"{name} cannot be imported: it {_exits(error)}") from error
    except BaseException as error:
        # This includes more than Exception, such as gevent's Timeout.
        raise _failed(f"{name} cannot be imported", error) from error
    return module


def start(server: AmqpRpcServer) -> None:
    """Have a program's server take requests.

    Raises:
        CannotStart: a function of `on_start` has raised.
        CannotLoad: the program has stopped it.
    """
    try:
        server.serve()
    except (Exception, gevent.Timeout) as error:
        raise _failed(f"{server.namespace} cannot start", error) from error


def _failed(what: str, error: BaseException) -> CannotLoad:
    # The program may serve while it is being loaded, or call another service.
    kind = CannotLoad
    if start_failed() or is_a(error, AWAY):
        kind = CannotStart
    elif is_a(error, AmphoraError) and exit_code_of(error) is Exit.NOT_ALLOWED:
        kind = NotAllowed
    return kind(f"{what}\n{_own_traceback(error)}")


def _exits(error: SystemExit) -> str:
    """Return a text that says that a program ends its process, and where."""
    return f"exits with {repr_of(error.code, 200)}. {AS_A_SCRIPT}\n{_own_traceback(error)}"


def _hidden(name: str) -> str:
    """Return a hint if a module is not found because Python has a module of its name."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names and (os.path.exists(f"{top}.py") or os.path.isdir(top)):
        return f"; {top} is a module of Python's own library, so the program needs another name"
    return ""


def _nothing_there(module: ModuleType, attribute: str) -> str:
    # A directory without an __init__.py has no file.
    paths = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    where = next(filter(None, paths), "a part of Python")
    # Not isinstance(): that asks the value itself, which may raise if it is made when needed.
    servers = [name for name, value in vars(module).items() if issubclass(type(value), _SERVERS)]
    hint = "; a server is made in its first lines: server = AmqpRpcServer(...)"
    if servers:
        hint = f"; its servers are called {', '.join(servers)}"
    if not where.startswith(os.path.join(os.getcwd(), "")):
        hint += _hidden(module.__name__)
    return f"the module {module.__name__} ({where}) has no {attribute!r}{hint}"


def _own_traceback(error: BaseException) -> str:
    """Return a traceback from the program's first line on, without the machinery before it."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def _is_machinery(filename: str) -> bool:
    return filename.startswith((_AMPHORA, importlib.__file__, "<frozen importlib"))
