"""The command as tests run it: inside their own process, where nothing else matters."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from amphora import AmqpRpcServer
from amphora.cli.root import HOMES, commands, run
from tests.rpc.conftest import (  # noqa: F401 (fixtures)
    broker,
    closed_port,
    make_client,
    managed_broker,
    url,
)
from tests.rpc.conftest import make_server as begin_to_serve  # noqa: F401
from tests.support.processes import ROOT, PythonProcess
from tests.support.rpc import MakeServer
from tests.support.waiting import wait_until

PROGRAMS = Path(__file__).parent / "programs"

# A program that is written in some version.
TEXT = """
import os
from amphora import AmqpRpcServer
server = AmqpRpcServer(os.environ["SERVICE_NAMESPACE"])
server.add_function(lambda: {version!r}, "version")
"""

# Workers of a busy machine may need longer than a user likes to wait. A test that has to wait for
# one that does not answer says for how long.
PATIENT = {name: {"timeout": 40.0} for name, home in HOMES.items() if home.startswith("operating.")}

# How workers are looked after has nothing to do with the kind of broker; that no call is lost has.
on_rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)

# What runs the command where no rich is installed.
WITHOUT_RICH = """
import sys
sys.modules["rich"] = None
from amphora.cli import main
main()
"""


@pytest.fixture
def make_server(begin_to_serve: MakeServer) -> MakeServer:  # noqa: F811
    """Make servers of the test's namespace, with some functions, and wait until they serve."""

    def make(*functions: Callable[..., Any], **settings: Any) -> AmqpRpcServer:
        server = begin_to_serve(*functions, **settings)
        wait_until(lambda: server.ready)
        return server

    return make


class Outcome(NamedTuple):
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed as one JSON object."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def json_lines(self) -> list[Any]:
        """What was printed, a JSON object per line."""
        return [json.loads(line) for line in self.out.splitlines()]


Amphora = Callable[..., Outcome]
Serve = Callable[..., PythonProcess]


@pytest.fixture
def amphora_anywhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Amphora]:
    """Run a command line in this process."""
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setitem(commands.context_settings, "default_map", PATIENT)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def amphora(*words: object) -> Outcome:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    yield amphora
    root.handlers[:], root.level = before


@pytest.fixture
def amphora(amphora_anywhere: Amphora, url: str, monkeypatch: pytest.MonkeyPatch) -> Amphora:  # noqa: F811
    """Run a command line in this process, with the test's broker."""
    monkeypatch.setenv("AMQP_URL", url)
    return amphora_anywhere


@pytest.fixture
def serve(url: str, namespace: str, tmp_path: Path) -> Iterator[Serve]:  # noqa: F811
    """Run `amphora serve` with a program of `programs/`, or with another one, in a process.

    It is ended, and its workers with it, at the end of the test.
    """
    with ExitStack() as running:

        def serve(*words: object, program: str = "service", **settings: Any) -> PythonProcess:
            settings.setdefault("cwd", PROGRAMS)
            env = {
                "AMQP_URL": url,
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": "error",
                "SERVICE_NAMESPACE": namespace,
                **settings.pop("env", {}),
            }
            before = settings.pop("before", [])
            arguments = [*before, "-m", "amphora", "serve", program, *map(str, words)]
            return running.enter_context(PythonProcess(*arguments, env=env, **settings))

        yield serve


def workers(process: PythonProcess) -> list[int]:
    """Return the process ids of the workers that take requests, the oldest first."""
    found = []
    for line in process.lines:
        words = line.partition(" worker ")[2].split()
        if words[1:3] == ["takes", "requests"]:
            found.append(int(words[0]))
        elif (
            words
            and words[1] in ("has", "was", "stops:")
            and words[2] != "not"
            and int(words[0]) in found
        ):
            found.remove(int(words[0]))
    return found


def wait_for_workers(
    pool: PythonProcess, count: int, *without: int, timeout: float = 80.0
) -> list[int]:
    """Wait until `count` workers take requests and none of `without` is among them."""

    def there() -> list[int]:
        found = workers(pool)
        return found if len(found) == count and not set(found) & set(without) else []

    try:
        return wait_until(there, f"{count} workers", timeout)
    except TimeoutError as error:
        error.add_note(pool.output)
        raise


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
