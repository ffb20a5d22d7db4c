"""The programs in `examples/`, run as their readers run them."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import pytest
from gevent import subprocess

import amphora
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

EXAMPLES = ROOT / "examples"


@pytest.fixture
def broker_env(broker_url: str) -> Iterator[dict[str, str]]:
    """The environment of programs that use the tests' broker; the math example is removed."""
    yield {"AMQP_URL": broker_url}
    Broker(broker_url).forget("math")


# -- examples/math ------------------------------------------------------------------------------


def test_the_math_client_gets_its_answers_from_the_math_server(broker_env: dict[str, str]) -> None:
    with (
        PythonProcess(EXAMPLES / "math/server.py", env=broker_env) as server,
        PythonProcess(EXAMPLES / "math/client.py", env=broker_env) as client,
    ):
        status = client.wait()
        ready = server.wait_for("serving math at ")
    assert client.printed == ["10", "5.0"]
    # Behind it there is where it was raised in the server.
    told = r"\bRemoteException: TypeError: unsupported operand(?s:.*)^TypeError: unsupported"
    assert re.search(told, "\n".join(client.told), re.MULTILINE)
    assert status == 1
    (shown,) = transcript("quickstart", "python examples/math/server.py")
    assert normal(ready) == normal(shown)
    shown = "\n".join(transcript("quickstart", "python examples/math/client.py"))
    seen = "\n".join(map(str.strip, client.printed + client.told))
    assert re.fullmatch(re.escape(shown).replace(r"\.\.\.", "(.*\n)*.*"), seen), seen


def transcript(page: str, command: str) -> list[str]:
    """Return what a page of `docs/start/` shows below a command; "..." is any number of lines."""
    text = (ROOT / "docs" / "start" / f"{page}.rst").read_text(encoding="utf-8")
    (found,) = re.findall(
        rf"^    \$ {re.escape(command)}\n((?:    (?!\$ ).*\n)*)", text, re.MULTILINE
    )
    return [line.strip() for line in found.splitlines()]


def normal(line: str) -> str:
    """Return a line without what is another one each time: the broker and the worker's id."""
    return re.sub(r"amqp://\S+|\b[0-9a-f]{10}\b", "-", line)


def test_the_math_client_may_be_started_before_the_math_server(broker_env: dict[str, str]) -> None:
    with PythonProcess(EXAMPLES / "math/client.py", env=broker_env) as client:
        wait_until(lambda: waiting_requests(broker_env["AMQP_URL"]) == 1, "a request in the queue")
        with PythonProcess(EXAMPLES / "math/server.py", env=broker_env):
            client.wait_for("5.0")


def waiting_requests(url: str) -> int:
    broker = Broker(url)
    queue = "rpc_math_request"
    return broker.ready_messages(queue) if broker.queue_exists(queue) else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_math_server_ends_with_status_0_on_ctrl_c_and_sigterm(
    broker_env: dict[str, str], number: signal.Signals
) -> None:
    with (
        PythonProcess(EXAMPLES / "math/server.py", env=broker_env) as server,
        PythonProcess(EXAMPLES / "math/client.py", env=broker_env) as client,
    ):
        client.wait_for("5.0")
        server.signal(number)
        assert server.wait() == 0


@pytest.mark.parametrize(
    "name",
    [
        "broadcast/price.py",
        "broadcast/server.py",
        "broadcast/set_price.py",
        "chain/service.py",
        "messages/send.py",
        "orders/order.py",
        "orders/postgres_server.py",
        "orders/server.py",
        "site_checker/as_they_come.py",
        "site_checker/client.py",
    ],
)
def test_a_program_that_needs_arguments_says_which(name: str) -> None:
    with PythonProcess(EXAMPLES / name) as program:
        assert program.wait() == 1
    assert f"python examples/{name} " in program.output
    assert "Traceback" not in program.output


def test_the_tutorial_makes_the_prices_that_its_servers_read(tmp_path: Path) -> None:
    tutorial = (ROOT / "docs" / "start" / "tutorial.rst").read_text(encoding="utf-8")
    (made,) = re.findall(r"^    \$ (echo .* > prices\.json)$", tutorial, re.MULTILINE)
    subprocess.run(made, shell=True, cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "prices.json").read_text())["tea"] == 3.5
    assert tutorial.index(made) < tutorial.index("server.py prices.json")


@pytest.mark.parametrize("name", ["server.py", "client.py"])
def test_the_readme_shows_the_math_example(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    program = (EXAMPLES / "math" / name).read_text(encoding="utf-8")
    assert f"```python\n# {name}\n{program}```\n" in readme


def test_the_readme_adds_a_function_and_makes_mistakes_as_it_says(
    broker_env: dict[str, str], tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (function,) = re.findall(r"^(    @server\.add_function\n(?:    .*\n)+)", readme, re.MULTILINE)
    server = (EXAMPLES / "math" / "server.py").read_text(encoding="utf-8")
    server, last = server.rsplit("\n\n", 1)
    (tmp_path / "server.py").write_text(f"{server}\n\n{dedent(function)}\n\n{last}")
    told = re.findall(r"^    \$ env/bin/(amphora call .*)\n    (.*)$", readme, re.MULTILINE)
    assert len(told) == 3
    with ExitStack() as running:
        running.enter_context(PythonProcess(tmp_path / "server.py", env=broker_env))
        # It is known by then, and a request would wait for it in any case.
        wait_until(lambda: Broker(broker_env["AMQP_URL"]).queue_exists("rpc_math_request"))
        commands = [
            running.enter_context(PythonProcess("-m", *command.split(), env=broker_env))
            for command, _ in told
        ]
        for command, (_, line) in zip(commands, told, strict=True):
            command.wait()
            # On a slow machine it also says that it waits.
            assert line in command.lines


def test_nothing_tells_to_install_amphora_by_name_before_it_is_released() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.rst")):
        for line in page.read_text(encoding="utf-8").splitlines():
            told = re.match(r"^\s+(RUN |\$ )?(\S*/)?pip3? install .*\bamphora\b", line)
            assert not told or "/amphora" in line, f"{page}: {line}"


def test_the_documentation_names_errors_as_tracebacks_do() -> None:
    shown = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.rst")):
        text = page.read_text(encoding="utf-8")
        shown |= set(re.findall(r"^ +(amphora(?:\.\w+)+): ", text, re.MULTILINE))
    assert shown
    for name in shown:
        error = getattr(amphora, name.rpartition(".")[2])
        assert name == f"{error.__module__}.{error.__qualname__}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_to_a_file_leads_to_one(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link).is_file()] == []


# -- examples/demo.py ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo_is_the_command_of_that_name() -> None:
    programs: list[list[str | Path]] = [["-m", "amphora", "demo"], [EXAMPLES / "demo.py"]]
    with ExitStack() as running:
        demos = [
            running.enter_context(PythonProcess(*program, env={"AMQP_URL": ""}))
            for program in programs
        ]
        assert [demo.wait() for demo in demos] == [0, 0]
    ours, theirs = [[re.sub(r"\d+", "N", line) for line in demo.printed] for demo in demos]
    assert ours == theirs
