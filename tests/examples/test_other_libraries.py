"""The programs of Celery and zerorpc that the manual shows print what their comments say.

amphora's clients call the same functions, which the programs offer to them as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent.socket
import pytest

from tests.examples.test_snippets import PRINT, SNIPPETS
from tests.support.brokers import Broker
from tests.support.ports import claimed_port
from tests.support.processes import PythonProcess
from tests.support.rabbitmq import ExternalBroker, RabbitNode
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

WITH_CELERY = SNIPPETS / "with_celery"
WITH_ZERORPC = SNIPPETS / "with_zerorpc"


@pytest.fixture(params=["real", "embedded"])
def url(request: pytest.FixtureRequest, embedded: str) -> Iterator[str]:
    """The URL of RabbitMQ, from which everything is removed afterwards, or of `embedded`."""
    if request.param == "embedded":
        yield embedded
        return
    rabbit: RabbitNode | ExternalBroker = request.getfixturevalue("rabbit")
    yield rabbit.url
    broker = Broker(rabbit.url)
    broker.forget("shop")
    broker.delete_queue("celery")
    with broker.channel() as channel:
        for exchange in ("celery", "celeryev", "celery.pidbox", "reply.celery.pidbox"):
            channel.exchange_delete(exchange)


@pytest.fixture
def port() -> Iterator[int]:
    """The port of zerorpc's server, which nobody else is given meanwhile."""
    with claimed_port() as number:
        yield number


@pytest.fixture
def programs(port: int, tmp_path: Path) -> Path:
    """A copy of the programs of zerorpc, with `port` instead of theirs."""
    for program in WITH_ZERORPC.glob("*.py"):
        text = program.read_text(encoding="utf-8")
        assert text.count(":4242") == 1
        (tmp_path / program.name).write_text(text.replace("4242", str(port)), encoding="utf-8")
    return tmp_path


def listens(port: int) -> bool:
    """Return whether a server takes connections."""
    try:
        gevent.socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def check_output(client: Path, env: dict[str, str] | None = None) -> None:
    """Run a client to its end, and compare what it prints with its comments."""
    with PythonProcess(client, env=env) as process:
        assert process.wait() == 0, process.output
    assert process.printed == PRINT.findall(client.read_text(encoding="utf-8"))


def test_tasks_of_celery_are_offered_by_amphora_as_well(url: str) -> None:
    env = {"AMQP_URL": url, "CELERY_BROKER_URL": url}
    # Celery warns of root, and does not close its sockets.
    command = ("-W", "default", "-m", "celery", "-A", "tasks", "worker", "-P", "solo", "-l", "INFO")
    with (
        PythonProcess(*command, ready=" ready.", env=env, cwd=WITH_CELERY),
        PythonProcess(WITH_CELERY / "server.py", ready=" as shop-", env=env),
    ):
        check_output(WITH_CELERY / "client.py", env)
        check_output(SNIPPETS / "from_celery" / "client.py", env)


def test_a_client_of_zerorpc_calls_its_server(programs: Path, port: int) -> None:
    with PythonProcess(programs / "server.py"):
        wait_until(lambda: listens(port))
        check_output(programs / "client.py")


def test_one_process_serves_clients_of_zerorpc_and_of_amphora(
    programs: Path, port: int, embedded: str
) -> None:
    env = {"AMQP_URL": embedded}
    with PythonProcess(programs / "both.py", env=env):
        wait_until(lambda: listens(port))
        check_output(programs / "client.py")
        check_output(SNIPPETS / "from_zerorpc" / "client.py", env)
