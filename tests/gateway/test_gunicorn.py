"""A gateway under gunicorn, whose workers are greenlets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_server import Ended, connected, head, read_all
from tests.support.ports import claimed_port
from tests.support.processes import PythonProcess
from tests.support.rpc import MakeServer, add
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("broker", ["embedded"], indirect=True)]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def port() -> Iterator[int]:
    """Where gunicorn is to listen."""
    with claimed_port() as number:
        yield number


def test_a_client_of_gunicorn_that_leaves_cancels_its_call(
    url: str, make_server: MakeServer, namespace: str, port: int, tmp_path: Path
) -> None:
    ended = Ended()
    server = make_server(add)
    server.add_function(ended.hold, cancellable=True)
    server.add_function(ended.silent, cancellable=True)
    options = ("--worker-class", "gevent", "--bind", f"127.0.0.1:{port}", "--chdir", str(PROGRAMS))
    home = str(tmp_path)
    environment = {
        "AMQP_URL": url,
        "SERVICE_NAMESPACE": namespace,
        "HOME": home,
        "XDG_RUNTIME_DIR": home,
    }
    words = ("-m", "gunicorn", *options, "gateway_app")
    with PythonProcess(*words, ready="Booting worker", env=environment):
        good = head(f"/{namespace}/add", 5, "Connection: close") + b"[1,2]"
        with connected(port, good) as connection:
            assert read_all(connection).endswith(b"3")
        with connected(port, head(f"/{namespace}/hold", 2) + b"[]"):
            wait_until(lambda: ended.begun == 1)
        wait_until(lambda: ended.by == ["Cancel"])
        with connected(port, head(f"/{namespace}/silent", 2) + b"[]") as connection:
            assert b" 200 OK" in connection.recv(100)
            wait_until(lambda: ended.begun == 2)
        wait_until(lambda: len(ended.by) == 2)
