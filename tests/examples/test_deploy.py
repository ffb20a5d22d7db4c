"""The files in `examples/deploy/`: parsed by whoever reads them, where that is possible here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from amphora.cli.failures import Exit
from amphora.cli.root import commands
from amphora.cli.serving.serve import serve as command
from amphora.transport.connections.endpoint import endpoint
from tests.cli.conftest import Serve, serve  # noqa: F401
from tests.cli.test_health import port_of
from tests.rpc.conftest import broker, managed_broker, url  # noqa: F401
from tests.support.http import ask
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

FOLDER = ROOT / "examples" / "deploy"
UNIT = FOLDER / "systemd" / "amphora@.service"
DOCKERFILE = (FOLDER / "docker" / "Dockerfile").read_text()


def settings_of(words: list[str], config: str | None = None, tmp_path: Path | None = None) -> Any:
    """Return the settings of a command line of `amphora serve`, which must be valid."""
    if config is not None:
        assert tmp_path is not None
        file = tmp_path / "amphora.toml"
        file.write_text(config)
        words = [str(file) if word.endswith(".toml") else word for word in words]
    # A command keeps the names of its help option from the first context that it is in.
    parent = click.Context(commands, **commands.context_settings)
    with command.make_context("serve", words, parent) as context:
        return context.params


# -- systemd --------------------------------------------------------------------------------------


@pytest.fixture
def unit() -> ConfigParser:
    """The unit.  A key that is there twice has its last value, which is enough here."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # It looks for the command, too.
    text = UNIT.read_text().replace("/srv/%i/venv/bin/amphora", sys.executable)
    copy = tmp_path / "amphora@math.service"
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_gives_a_pool_its_grace_and_its_signals(
    unit: ConfigParser, tmp_path: Path
) -> None:
    service = unit["Service"]
    program, name, *words = service["ExecStart"].split()
    assert (program, name) == ("/srv/%i/venv/bin/amphora", "serve")
    settings = settings_of(words, (FOLDER / "amphora.toml").read_text(), tmp_path)
    assert float(service["TimeoutStopSec"]) > settings["grace"]
    # The directory of the pidfile is there, and is the service's own.
    assert settings["pidfile"] == f"/run/{service['RuntimeDirectory']}/pid"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) > 30
    assert service["RestartPreventExitStatus"].split() == [
        str(int(code)) for code in (Exit.USAGE, Exit.NOT_ALLOWED)
    ]


# -- docker ---------------------------------------------------------------------------------------


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "docker" / "compose.yaml").read_text())
    return loaded


def instructions(name: str) -> list[str]:
    """Return what follows an instruction of the Dockerfile, each time that it is there."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.M)


def test_the_image_has_all_that_is_installed() -> None:
    copied = {word for line in instructions("COPY") for word in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules = {f"{name}.py" for name in project["tool"]["setuptools"]["py-modules"]}
    assert {"amphora", "pyproject.toml", "setup.py", "README.md", *modules} <= copied


def test_process_1_of_the_image_gets_the_signals() -> None:
    (entry,), (words,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["amphora", "serve"]
    settings = settings_of(json.loads(words))
    assert settings["programs"] == ("mathserver",)
    assert str(settings["http"][1]) in instructions("EXPOSE")


def test_the_services_of_compose_fit_together(compose: dict[str, Any]) -> None:
    rabbit, math = (compose["services"][name] for name in ("rabbit", "math"))
    file = FOLDER / "docker" / math["build"]["context"] / math["build"]["dockerfile"]
    assert file.read_text() == DOCKERFILE
    settings = settings_of(math["command"])
    assert int(math["stop_grace_period"].removesuffix("s")) > settings["grace"]
    given = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", math["environment"]["AMQP_URL"])
    broker_ = endpoint(given)
    assert broker_.hosts == (("rabbit", 5672),)
    assert broker_.user == rabbit["environment"]["RABBITMQ_DEFAULT_USER"]
    password = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", rabbit["environment"]["RABBITMQ_DEFAULT_PASS"])
    assert broker_.password == password
    # Nothing is there for other machines.
    assert all(
        port.startswith("127.0.0.1:")
        for service in compose["services"].values()
        for port in service["ports"]
    )


# -- kubernetes -----------------------------------------------------------------------------------


@pytest.fixture
def manifests() -> dict[str, Any]:
    """What is applied, by its kind."""
    text = (FOLDER / "kubernetes" / "math.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture
def container(manifests: dict[str, Any]) -> dict[str, Any]:
    (found,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def settings(manifests: dict[str, Any], container: dict[str, Any], tmp_path: Path) -> Any:
    """The settings of the pool in a pod."""
    config = manifests["ConfigMap"]["data"]["amphora.toml"]
    return settings_of(container["args"], config, tmp_path)


def test_a_pod_has_time_and_room_for_what_its_pool_may_take(
    manifests: dict[str, Any], container: dict[str, Any], settings: Any
) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > settings["grace"]
    limit = container["resources"]["limits"]["memory"]
    assert limit == "1Gi"
    assert (settings["workers"] + 1) * settings["max_memory"] < 1024**3


def test_the_probes_ask_for_what_is_answered(container: dict[str, Any], settings: Any) -> None:
    (port,) = container["ports"]
    assert port["containerPort"] == settings["http"][1]
    asked = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert asked == {
        "livenessProbe": {"path": "/livez", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
    }
    (mount,) = container["volumeMounts"]
    assert container["args"] == ["--config", f"{mount['mountPath']}/amphora.toml"]


def test_everything_is_about_the_same_pods(manifests: dict[str, Any]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert manifests[kind]["spec"]["selector"]["matchLabels"] == labels
    (volume,) = manifests["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]


# -- all of them run ------------------------------------------------------------------------------


@pytest.fixture
def pool(serve: Serve, compose: dict[str, Any], tmp_path: Path) -> PythonProcess:  # noqa: F811
    """The pool of the containers, on this machine and with a port of its own."""
    shutil.copy(ROOT / "examples" / "math" / "server.py", tmp_path / "mathserver.py")
    words = [
        word.replace("0.0.0.0:9100", "127.0.0.1:0")
        for word in compose["services"]["math"]["command"]
    ]
    return serve(*words[1:], program=words[0], cwd=tmp_path)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_the_probes_are_answered(
    pool: PythonProcess, compose: dict[str, Any], container: dict[str, Any]
) -> None:
    port = port_of(pool)
    wait_until(lambda: ask(port, container["readinessProbe"]["httpGet"]["path"]).status == 200)
    assert ask(port, container["livenessProbe"]["httpGet"]["path"]).status == 200
    kind, program, *words = compose["services"]["math"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    for number, code in ((port, 0), (1, 1)):
        check = [word.replace("9100", str(number)) for word in words]
        with PythonProcess(*check) as checking:
            assert checking.wait() == code
