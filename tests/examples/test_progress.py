"""The page of `examples/progress`, in browsers and as what they send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from gevent import socket as gevent_socket

from tests.examples.conftest import on_one_broker
from tests.support.brokers import Broker
from tests.support.browser import Browser
from tests.support.http import ask
from tests.support.processes import ROOT, PythonProcess

PROGRAM = ROOT / "examples" / "progress"


@pytest.fixture(scope="module")
def url(broker_url: str) -> Iterator[str]:
    """The broker's URL; what the example keeps there is removed in the end."""
    yield broker_url
    Broker(broker_url).forget("progress")


@pytest.fixture
def worker(url: str) -> Iterator[PythonProcess]:
    """A worker, which runs."""
    script = PROGRAM / "worker.py"
    with PythonProcess(script, ready="serving ", env={"AMQP_URL": url}) as process:
        yield process


@pytest.fixture(scope="module")
def port(url: str) -> Iterator[int]:
    """The port of the web server, which runs."""
    script = PROGRAM / "web.py"
    # It soon knows that a worker is gone.
    env = {"AMQP_URL": f"{url}?heartbeat=2"}
    with PythonProcess(script, "--port", "0", ready="The page is on", env=env) as web:
        yield int(web.wait_for("The page is on").rpartition(":")[2])
        web.terminate()
        assert web.wait() == 0


class Events:
    """A browser's connection on which the events of one job come."""

    def __init__(self, port: int, title: str, pages: int) -> None:
        self._socket = gevent_socket.create_connection(("127.0.0.1", port))
        request = f"GET /copy?title={title}&pages={pages} HTTP/1.0\r\n\r\n"
        self._socket.sendall(request.encode())
        self._lines = self._socket.makefile("r", encoding="utf-8")
        while self._lines.readline().strip():
            pass

    def next(self) -> tuple[str, Any]:
        """Return the kind and the value of the next event."""
        kind = self._lines.readline().removeprefix("event: ").strip()
        value = json.loads(self._lines.readline().removeprefix("data: "))
        assert self._lines.readline() == "\n"
        return kind, value

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def copy_in(browser: Browser, port: int, title: str, pages: int) -> Any:
    """Open the page and have a book copied; return the tab."""
    tab = browser.open(f"http://127.0.0.1:{port}/")
    script = "for (const id of ['title', 'pages']) document.getElementById(id).value = ''"
    tab.run(script)
    tab.type("#title", title)
    tab.type("#pages", f"{pages}\n")
    return tab


@pytest.mark.slow
@on_one_broker
def test_two_browsers_see_their_jobs_and_one_is_closed_in_the_middle(
    browser: Browser, worker: PythonProcess, port: int
) -> None:
    with Browser() as hers:
        emma = copy_in(hers, port, "Emma", 10_000)
        dracula = copy_in(browser, port, "Dracula", 80)
        emma.wait_for_text("article pre", "page 3 has")
        emma.wait_for_text("article .state", "of 10000")
        dracula.wait_for_text("article pre", "page 3 has")
    # The browser is closed.
    worker.wait_for("Emma: given up on page")
    dracula.wait_for_text("article .state", "done:", timeout=40)
    assert "page 80 has" in dracula.text("article pre")
    assert dracula.text("article button") == ""
    dracula.close()
    worker.wait_for("Dracula: done")


@pytest.mark.slow
@on_one_broker
def test_a_page_that_gives_up_ends_its_job_and_has_others(
    browser: Browser, worker: PythonProcess, port: int
) -> None:
    tab = copy_in(browser, port, "Emma", 10_000)
    tab.wait_for_text("article pre", "page 3 has")
    tab.click("article button")
    tab.wait_for_text("article .state", "given up")
    worker.wait_for("Emma: given up")
    tab.type("#pages", "\ue003" * 5 + "4\n")
    tab.wait_for_text("article .state", "done:")
    worker.wait_for("Emma: done")
    tab.close()


@pytest.mark.slow
@on_one_broker
def test_a_page_says_what_has_gone_wrong(
    browser: Browser, worker: PythonProcess, port: int
) -> None:
    tab = copy_in(browser, port, "Emma", 10_000)
    tab.wait_for_text("article pre", "page 3 has")
    worker.kill()
    # Two heartbeats, and a second.
    tab.wait_for_text("article.failed .state", "copy_book is gone", timeout=40)
    tab.click("form button")
    tab.wait_for_text("article .state", "no server of progress is running")
    tab.close()


@pytest.mark.usefixtures("worker")
def test_a_job_is_told_step_by_step(port: int) -> None:
    with closing(Events(port, "Emma", 3)) as events:
        steps = [events.next() for _ in range(3)]
        assert [step["page"] for kind, step in steps if kind == "step"] == [1, 2, 3]
        kind, words = events.next()
        assert kind == "end"
        assert 600 <= words <= 1200


def test_a_browser_that_hangs_up_ends_its_job(worker: PythonProcess, port: int) -> None:
    events = Events(port, "Emma", 10_000)
    assert events.next()[0] == "step"
    events.close()
    worker.wait_for("Emma: given up on page")


@pytest.mark.usefixtures("worker")
def test_what_cannot_be_done_is_said(port: int) -> None:
    assert ask(port, "/copy?title=Emma").status == 400
    assert ask(port, "/copy?title=Emma&pages=many").status == 400
    assert ask(port, "/other").status == 404
    with closing(Events(port, "Emma", 100_000)) as events:
        kind, why = events.next()
        assert kind == "failed"
        assert "10000" in why
