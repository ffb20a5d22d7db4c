"""A project that `amphora new` has made: its tests, its programs, its checks and its image."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gevent import subprocess

from amphora import AmqpRpcClient
from amphora.cli.root import run
from amphora.transport.connections.endpoint import endpoint
from tests.cli.test_health import port_of
from tests.examples.test_deploy import settings_of
from tests.support.brokers import Broker
from tests.support.processes import ROOT, PythonProcess

# A name that is not that of its package.
NAME, PACKAGE = "New-project", "new_project"
BRIEF_CODES = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects") / NAME
    assert run(["new", str(folder)]) == 0
    return folder


@pytest.fixture
def environment(broker_url: str) -> Iterator[dict[str, str]]:
    yield {"AMQP_URL": broker_url}
    Broker(broker_url).forget(NAME)


def in_project(folder: Path, *words: str, **environment: str) -> str:
    """Run a program in a project's folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **BRIEF_CODES, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_its_tests_pass(made: Path) -> None:
    plugin = ("-p", "no:amphora", "-p", "pytest_amphora", "-p", "no:cacheprovider")
    printed = in_project(made, "-m", "pytest", "-W", "error", *plugin, PYTEST_ADDOPTS="")
    assert "3 passed" in printed


def test_its_server_answers_its_client(made: Path, environment: dict[str, str]) -> None:
    with (
        PythonProcess("-m", f"{PACKAGE}.server", ready="serving", env=environment, cwd=made),
        PythonProcess("-m", f"{PACKAGE}.client", env=environment, cwd=made) as client,
    ):
        assert client.wait() == 0
    assert client.printed == ["Hello, Alice!", "3.0"]


@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_its_style_and_its_types_are_right(made: Path) -> None:
    for words in (("check",), ("format", "--check")):
        in_project(made, "-m", "ruff", *words, "--no-cache")
    # With what is known of amphora's own modules, which it would check again.
    in_project(made, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), MYPYPATH=str(ROOT))


def make(folder: Path, *words: str) -> str:
    """Return what make prints."""
    # The tests may have been started by a make of their own.
    without = ("AMPHORA", "MAKEFLAGS", "MAKELEVEL", "PYTHON")
    env = {name: value for name, value in os.environ.items() if name not in without}
    done = subprocess.run(["make", *words], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    printed: str = done.stdout
    return printed


def test_make_installs_the_amphora_that_is_named(made: Path) -> None:
    assert f'pip install --quiet "{ROOT}" --editable' in make(made, "-n", "test")
    assert 'pip install --quiet "../x.whl" --editable' in make(
        made, "-n", "test", "AMPHORA=../x.whl"
    )
    # That of the package index.
    assert "pip install --quiet  --editable" in make(made, "-n", "test", "AMPHORA=")
    assert f'--wheel-dir wheels "{ROOT}"' in make(made, "-n", "image")
    assert "pip wheel" not in make(made, "-n", "image", "AMPHORA=")


def test_the_commands_that_are_told_are_those_of_make(made: Path) -> None:
    there = set(re.findall(r"^make (\w+)", make(made, "help"), re.MULTILINE))
    readme = (made / "README.md").read_text()
    page = (ROOT / "docs" / "start" / "new-project.rst").read_text()
    assert set(re.findall(r"^    make (\w+)", readme, re.MULTILINE)) <= there
    assert set(re.findall(r"^``make (\w+)``$", page, re.MULTILINE)) == there - {"help", "clean"}


# -- its image ------------------------------------------------------------------------------------


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile: a name, and what follows it."""
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [
        (name, rest.strip()) for name, _, rest in (x.partition(" ") for x in joined.split("\n"))
    ]


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Return whether a .dockerignore of these patterns keeps a file out: the last one counts."""
    ways = [path, *map(str, Path(path).parents)]
    ignored = False
    for pattern in patterns:
        text = pattern.removeprefix("!")
        if text.startswith("**/"):
            hit = fnmatch.fnmatch(f"/{path}/", f"*/{text[3:]}/*")
        else:
            hit = any(fnmatch.fnmatch(way, text) for way in ways)
        if hit:
            ignored = not pattern.startswith("!")
    return ignored


def test_its_containers_fit_together(made: Path) -> None:
    steps = dict(instructions((made / "Dockerfile").read_text()))
    settings = settings_of(json.loads(steps["CMD"]))
    assert settings["programs"] == (f"{PACKAGE}.server",)
    assert steps["EXPOSE"] == str(settings["http"][1])
    compose = yaml.safe_load((made / "compose.yaml").read_text())["services"]
    service, rabbit = compose[PACKAGE], compose["rabbit"]
    assert int(service["stop_grace_period"].removesuffix("s")) > settings["grace"]
    url = endpoint(without_variables(service["environment"]["AMQP_URL"]))
    assert url.hosts == (("rabbit", 5672),)
    assert url.user == rabbit["environment"]["RABBITMQ_DEFAULT_USER"]
    assert url.password == without_variables(rabbit["environment"]["RABBITMQ_DEFAULT_PASS"])
    # It waits for what the health check of the other says.
    assert service["depends_on"] == {"rabbit": {"condition": "service_healthy"}}
    assert rabbit["healthcheck"]["test"]


def without_variables(text: str) -> str:
    """Return a text of a Compose file as it is where no variable is set."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


@pytest.fixture(scope="module")
def image(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the steps of the Dockerfile make, run one by one, and how it is started."""
    root = tmp_path_factory.mktemp("image")
    work, told = root, dict[str, Any](site=root / "site")
    context = root / "context"
    shutil.copytree(made, context)
    patterns = [
        line
        for line in (made / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    # What a developer's directory has beside what was made.
    for path in (".venv/bin/python", f"{PACKAGE}/__pycache__/x.pyc", "wheels/amphora.txt"):
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).touch()
    # No package is needed that is not here already, and none is asked for.
    pip = {
        "PIP_TARGET": str(told["site"]),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # 0 is: no isolation
    }
    (root / "bin").mkdir()
    (root / "bin" / "pip").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip "$@"\n')
    (root / "bin" / "pip").chmod(0o755)
    for name, rest in instructions((context / "Dockerfile").read_text()):
        if name == "WORKDIR":
            work = root / rest.lstrip("/")
            work.mkdir(parents=True)
        elif name == "COPY":
            assert rest == ". ."
            files = (path for path in context.rglob("*") if path.is_file())
            copied = {path.relative_to(context).as_posix() for path in files}
            told[name] = {path for path in copied if not is_ignored(path, patterns)}
            for path in told[name]:
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(context / path, work / path)
        elif name == "RUN":
            done = subprocess.run(
                rest,
                shell=True,
                cwd=work,
                env={**os.environ, **pip, "PATH": f"{root / 'bin'}:{os.environ['PATH']}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, done.stdout
        else:
            told[name] = rest
    return {**told, "work": work}


@pytest.mark.slow
def test_its_image_has_what_the_service_needs_and_nothing_else(image: dict[str, Any]) -> None:
    sources = {f"{PACKAGE}/{name}.py" for name in ("__init__", "client", "server")}
    assert image["COPY"] == {"pyproject.toml", "wheels/amphora.txt", *sources}
    assert (image["site"] / PACKAGE / "server.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("broker_url", ["embedded"], indirect=True)
def test_its_container_serves_is_healthy_and_stops(
    image: dict[str, Any], environment: dict[str, str]
) -> None:
    words = json.loads(image["CMD"])
    (program, *entry) = json.loads(image["ENTRYPOINT"])
    assert program == "amphora"
    words = [word.replace("0.0.0.0:9100", "127.0.0.1:0") for word in words]
    container = {**environment, "PYTHONPATH": f"{image['site']}:{ROOT}"}
    with PythonProcess("-m", "amphora", *entry, *words, env=container, cwd=image["work"]) as pool:
        port = port_of(pool)
        check = re.search(r"CMD (\[.*\])$", image["HEALTHCHECK"])
        assert check
        python, *checked = json.loads(check[1])
        assert python == "python"
        with AmqpRpcClient(NAME, url=environment["AMQP_URL"]) as client:
            assert client.call.greet("Bob") == "Hello, Bob!"
        for number, code in ((port, 0), (1, 1)):
            with PythonProcess(*(word.replace("9100", str(number)) for word in checked)) as asking:
                assert asking.wait() == code
        pool.terminate()
        assert pool.wait() == 0
