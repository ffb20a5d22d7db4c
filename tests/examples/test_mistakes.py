"""The first mistakes of newcomers are told of as the manual says, in the process that makes them.

What a program prints in the end, its comments say, as in `test_snippets.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.examples.test_snippets import PRINT
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess

MISTAKES = ROOT / "docs" / "snippets" / "mistakes"


@pytest.fixture
def env(broker_url: str) -> Iterator[dict[str, str]]:
    """The environment of programs that use the tests' broker; what they leave there is removed."""
    yield {"AMQP_URL": broker_url}
    for namespace in ("mistakes", "mistake"):
        Broker(broker_url).forget(namespace)


@pytest.fixture
def server(env: dict[str, str]) -> Iterator[PythonProcess]:
    """The server that the programs call."""
    with PythonProcess(MISTAKES / "server.py", env=env, ready="serving mistakes at") as process:
        yield process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ends_at_once", "the program ends before its server of mistakes could take a request"),
        ("never_served", "the program ends, and its server of mistakes has never served"),
    ],
)
def test_a_script_whose_server_does_not_serve_is_told_so(
    env: dict[str, str], name: str, told: str
) -> None:
    with PythonProcess(MISTAKES / f"{name}.py", env=env) as program:
        assert program.wait() == 0
    assert told in program.output
    assert "end the script with server.run()" in program.output


@pytest.mark.slow
def test_mistakes_of_callers_are_told_of(env: dict[str, str], server: PythonProcess) -> None:
    names = (
        "misspelt_namespace",
        "misspelt_function",
        "not_the_answer",
        "from_asyncio",
        "from_threads",
    )
    programs = [PythonProcess(MISTAKES / f"{name}.py", env=env) for name in names]
    with ExitStack() as running:
        misspelt, *_ = [running.enter_context(program) for program in programs]
        line = misspelt.wait_for("no server of mistake is running")
        assert "mistake.add waits for one at amqp://" in line
        assert "until its deadline: start one, or correct the name or the URL" in line
        assert [program.wait() for program in programs] == [0] * len(programs)
    for name, program in zip(names, programs, strict=True):
        expected = PRINT.findall((MISTAKES / f"{name}.py").read_text(encoding="utf-8"))
        assert [line for line in program.lines if line in expected] == expected, program.output


@pytest.mark.slow
def test_what_gives_no_way_is_told_of_while_it_does_not(
    env: dict[str, str], server: PythonProcess
) -> None:
    with (
        PythonProcess(MISTAKES / "never_gives_way.py", env=env) as never,
        PythonProcess(MISTAKES / "holds.py", env=env) as caller,
    ):
        server.wait_for("nap has held the processor for 3 s, and nothing else runs; let it give")
        caller.wait_for("no worker of mistakes answers: mistakes.nap waits until its deadline")
        never.wait_for("takes no requests: the program has not given way to it for 3 s")
