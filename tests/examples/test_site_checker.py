"""The site checker, with sites of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from tests.support.brokers import Broker
from tests.support.ports import claimed_port
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

EXAMPLE = ROOT / "examples" / "site_checker"


class Sites:
    """Web sites of this machine: each path is one, and answers when it is released."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: set[str] = set()
        self._released: dict[str, Event] = {}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def release(self, *names: str) -> None:
        for name in names:
            self._event(name).set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        name = environ["PATH_INFO"].strip("/")
        self.asked.add(name)
        self._event(name).wait()
        start_response("500 Oh dear" if name == "broken" else "200 OK", [])
        return [b""]

    def _event(self, name: str) -> Event:
        return self._released.setdefault(name, Event())


@pytest.fixture
def sites() -> Iterator[Sites]:
    """Sites, which take connections."""
    application = Sites(0)
    server = WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    application.port = int(server.server_port or 0)
    yield application
    server.stop(timeout=0)


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where there is no site."""
    with claimed_port() as port:
        yield port


@pytest.fixture
def environment(broker_url: str) -> Iterator[dict[str, str]]:
    """What the programs need; what they keep in the broker is removed in the end."""
    yield {"AMQP_URL": broker_url}
    Broker(broker_url).forget("sites")


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[PythonProcess]:
    """A server that checks."""
    with PythonProcess(EXAMPLE / "server.py", env=environment) as process:
        yield process


@pytest.mark.usefixtures("server")
def test_sites_are_checked_at_the_same_time_and_told_in_order(
    environment: dict[str, str], sites: Sites, nobody: int
) -> None:
    names = ["first", "second", "broken", "third"]
    urls = [*map(sites.url, names), f"http://127.0.0.1:{nobody}/"]
    with PythonProcess(EXAMPLE / "client.py", *urls, env=environment) as client:
        client.wait_for("Checking 5 sites")
        # No site answers before all of them were asked.
        wait_until(lambda: sites.asked == set(names))
        sites.release(*names)
        assert client.wait() == 0
    up, also_up, broken, up_too, down = client.printed[1:]
    assert up == f"{urls[0]} is up"
    assert also_up == f"{urls[1]} is up"
    assert broken == f"{urls[2]} is down: HTTP Error 500: Oh dear"
    assert up_too == f"{urls[3]} is up"
    assert down.startswith(f"{urls[4]} is down: ")
    assert "refused" in down


@pytest.mark.usefixtures("server")
def test_sites_are_told_as_they_come(environment: dict[str, str], sites: Sites) -> None:
    urls = [sites.url("slow"), sites.url("fast"), "no site"]
    with PythonProcess(EXAMPLE / "as_they_come.py", *urls, env=environment) as client:
        client.wait_for("not checked: ValueError: no site is not the address of a site")
        sites.release("fast")
        client.wait_for(f"{urls[1]} is up")
        sites.release("slow")
        assert client.wait() == 0
    assert client.printed[2] == f"{urls[0]} is up"
