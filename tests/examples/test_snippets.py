"""The programs that the documentation shows do what their comments say.

The programs in a folder of `docs/snippets/` are run one by one, beside the folder's `server.py` if
there is one.  In a program, the comment after a `print` says what it prints.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gevent import subprocess

import amphora
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess

SNIPPETS = ROOT / "docs" / "snippets"
PROGRAMS = sorted(path for path in SNIPPETS.glob("*/*.py") if path.name != "server.py")
# Newcomers begin with the broker that comes with amphora: what they are shown runs on both.
FIRST = {
    folder
    for room in ("start", "coming-from")
    for page in (ROOT / "docs" / room).glob("*.rst")
    for folder in re.findall(r"/snippets/(\w+)/", page.read_text(encoding="utf-8"))
}
CASES = [
    *(("rabbitmq", program) for program in PROGRAMS),
    *(("embedded", program) for program in PROGRAMS if program.parent.name in FIRST),
]

# The comment stands behind the print or in the line below it.
PRINT = re.compile(r"^ *print\(.*\)(?:  |\n *)# (.+)$", re.MULTILINE)
PEER = re.compile(r'AmqpRpc(?:Server|Client)\("([^"]+)"')


@pytest.fixture
def environment(broker_url: str, program: Path) -> Iterator[dict[str, str]]:
    """The environment of programs that use the tests' broker.  Their namespaces are removed."""
    yield {**os.environ, "AMQP_URL": broker_url, "PYTHONPATH": str(ROOT)}
    for path in program.parent.glob("*.py"):
        for namespace in PEER.findall(path.read_text(encoding="utf-8")):
            Broker(broker_url).forget(namespace)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broker_url", "program"),
    CASES,
    indirect=["broker_url"],
    ids=[f"{program.relative_to(SNIPPETS)}-{broker}" for broker, program in CASES],
)
def test_a_program_of_the_documentation_prints_what_it_says(
    program: Path, environment: dict[str, str]
) -> None:
    expected = PRINT.findall(program.read_text(encoding="utf-8"))
    server = program.parent / "server.py"
    with ExitStack() as stack:
        if server.exists():
            stack.enter_context(PythonProcess(server, env=environment))
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=30,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


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
