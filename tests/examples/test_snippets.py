"""The programs that the documentation shows do what their comments say.

The programs in a folder of `docs/snippets/` are run one by one, beside the folder's `server.py` if
there is one: on RabbitMQ and, at the same time, on the broker that comes with amphora.  In a
program, the comment after a `print` says what it prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

import amphora
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess
from tests.support.rabbitmq import ExternalBroker, RabbitNode

SNIPPETS = ROOT / "docs" / "snippets"
PROGRAMS = sorted(path for path in SNIPPETS.glob("*/*.py") if path.name != "server.py")
# The mistakes end in other ways, and other libraries' servers begin in other ways: see
# test_mistakes.py and test_other_libraries.py.
ELSEWHERE = {SNIPPETS / name for name in ("mistakes", "with_celery", "with_zerorpc")}
FOLDERS = sorted({path.parent for path in SNIPPETS.glob("*/*.py")} - ELSEWHERE)
# Programs after which their server ends: the next ones need a new one.
LAST_FOR_THEIR_SERVER = {SNIPPETS / "management/ask.py", SNIPPETS / "streams/errors.py"}
RUN = Path(__file__).parent / "programs" / "run_snippets.py"

# The comment stands behind the print or in the line below it.
PRINT = re.compile(r"^ *print\(.*\)(?:  |\n *)# (.+)$", re.MULTILINE)
PEER = re.compile(r'AmqpRpc(?:Server|Client)\("([^"]+)"')


@pytest.fixture
def urls(rabbit: RabbitNode | ExternalBroker, embedded: str, folder: Path) -> Iterator[list[str]]:
    """The URLs of both brokers.  What a folder's programs leave in RabbitMQ is removed."""
    yield [rabbit.url, embedded]
    for path in folder.glob("*.py"):
        for namespace in PEER.findall(path.read_text(encoding="utf-8")):
            Broker(rabbit.url).forget(namespace)


def run_folder(folder: Path, url: str, cwd: Path) -> None:
    """Run all programs of a folder on a broker, and compare what they print."""
    programs = [path for path in PROGRAMS if path.parent == folder]
    names = [f"{path.name}!" if path in LAST_FOR_THEIR_SERVER else path.name for path in programs]
    with PythonProcess(RUN, folder, *names, env={"AMQP_URL": url}, cwd=cwd) as process:
        status = process.wait(timeout=220)
    ended = [json.loads(line) for line in process.lines if line.startswith('{"program"')]
    for program, told in zip(programs, ended, strict=False):
        assert told["status"] == 0, f"{program} on {url}: {told['errors']}"
        expected = PRINT.findall(program.read_text(encoding="utf-8"))
        assert told["output"] == expected, f"{program} on {url}"
    assert (status, len(ended)) == (0, len(programs)), process.output


@pytest.mark.slow
@pytest.mark.time_limit(240)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_programs_of_the_documentation_print_what_they_say(
    folder: Path, urls: list[str], tmp_path: Path
) -> None:
    places = [tmp_path / "rabbitmq", tmp_path / "embedded"]
    for place in places:
        place.mkdir()
    running = [
        gevent.spawn(run_folder, folder, url, place)
        for url, place in zip(urls, places, strict=True)
    ]
    try:
        gevent.joinall(running, raise_error=True)
    finally:
        gevent.killall(running)


@pytest.mark.slow
def test_the_client_that_is_shown_is_what_the_service_is_asked_for(embedded: str) -> None:
    folder, env = SNIPPETS / "typed", {"AMQP_URL": embedded}
    with (
        PythonProcess(folder / "server.py", ready=" as typed-people-", env=env),
        PythonProcess("-m", "amphora", "stubs", "typed-people", env=env) as stubs,
    ):
        assert stubs.wait() == 0, stubs.output
    assert f"{stubs.output}\n" == (folder / "people_client.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_programs_for_amphora_serve_are_served(embedded: str) -> None:
    shown = ("mathserver", "factory:make_server")
    arguments, cwd = ("-m", "amphora", "serve", *shown), SNIPPETS / "workers"
    with PythonProcess(*arguments, env={"AMQP_URL": embedded}, cwd=cwd) as process:
        process.wait_for("takes requests")


def test_each_print_of_the_documentation_has_a_comment() -> None:
    for program in PROGRAMS:
        text = program.read_text(encoding="utf-8")
        assert len(PRINT.findall(text)) == text.count("print("), program


def test_each_program_is_shown_in_the_documentation() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.rst"))
    for program in PROGRAMS:
        assert f"snippets/{program.relative_to(SNIPPETS)}" in pages


def test_each_public_name_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "reference" / "api.rst").read_text(encoding="utf-8")
    documented = re.findall(r"^.. auto\w+:: ([\w.]+)(?:\(\))?$", page, re.MULTILINE)
    assert set(amphora.__all__) <= set(documented)
