"""The gateway of `examples/gateway`, behind its own login."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent import subprocess

from tests.examples.conftest import on_one_broker
from tests.support.brokers import Broker
from tests.support.ports import claimed_port
from tests.support.processes import ROOT, PythonProcess

pytestmark = on_one_broker

PROGRAM = ROOT / "examples" / "gateway" / "web.py"
SERVER = ROOT / "examples" / "math" / "server.py"


@pytest.fixture
def port(broker_url: str) -> Iterator[int]:
    """The port of the gateway, which runs with a worker."""
    with claimed_port() as free:
        env = {"AMQP_URL": broker_url, "PORT": str(free)}
        with PythonProcess(SERVER, env=env), PythonProcess(PROGRAM, ready="ready", env=env):
            yield free
    Broker(broker_url).forget("math")


def test_who_may_call_what_is_up_to_the_program(port: int) -> None:
    def curl(path: str, key: str, body: str) -> tuple[str, str]:
        headers = ("-H", "Content-Type: application/json", "-H", f"X-Api-Key: {key}")
        words = ["curl", "-sS", "-w", " %{http_code}", *headers, "-d", body]
        ran = subprocess.run([*words, f"http://127.0.0.1:{port}{path}"], capture_output=True)
        said, _, status = ran.stdout.decode().rpartition(" ")
        return status, said

    assert curl("/math/sum_numbers", "k1", "[1, 2]") == ("200", "3")
    assert curl("/math/hypotenuse", "k1", '{"cathetus1": 3, "cathetus2": 4}') == ("200", "5.0")
    assert curl("/math/sum_numbers", "k2", "[1, 2]") == ("200", "3")
    assert curl("/math/hypotenuse", "k2", "[3, 4]") == ("403", "no\n")
    assert curl("/math/sum_numbers", "k3", "[1, 2]") == ("403", "no\n")
    assert curl("/math/nothing", "k1", "[]")[0] == "404"
