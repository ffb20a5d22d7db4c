"""The dashboard as people see it: in a browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer

from amphora.web.access import Access, Environ
from amphora.web.app import Application, StartResponse
from amphora.web.collecting import Collector
from amphora.web.serving import Server, listen
from tests.support.brokers import Broker
from tests.support.browser import Browser, Tab
from tests.support.dead import bury
from tests.support.ports import claimed_port
from tests.support.rpc import Gate, MakeClient, MakeServer, RunProgram, add
from tests.support.waiting import wait_until
from tests.web.conftest import MakeDashboard

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("broker", ["embedded"], indirect=True)]
PATIENCE = 30.0


def cell(tab: Tab, panel: str, row: str, column: int) -> str:
    """Return what a table shows in the row whose name has `row` in it."""
    script = """
    const [panel, row, column] = arguments;
    for (const line of document.querySelectorAll(`#panel-${panel} tbody tr`))
      if (line.cells[0].innerText.includes(row)) return line.cells[column].innerText;
    return '';
    """
    return str(tab.run(script, panel, row, column))


def state_of(tab: Tab, worker: str) -> str | None:
    """Return the class of a worker's row, None if there is none."""
    script = """
    for (const line of document.querySelectorAll('#panel-workers tbody tr'))
      if (line.textContent.includes(arguments[0])) return line.className;
    return null;
    """
    found: str | None = tab.run(script, worker)
    return found


@contextmanager
def serving(port: int, application: Callable[..., Iterable[bytes]]) -> Iterator[None]:
    """Serve an application at a port, for a while."""
    server = Server(listen("127.0.0.1", port), application)
    server.start()
    try:
        yield
    finally:
        server.stop(0)


def test_rows_appear_and_numbers_move_under_load(
    make_dashboard: MakeDashboard, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    dashboard = make_dashboard()
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/")
        tab.wait_for_text("#main", "No worker has answered yet", PATIENCE)
        server = make_server(add)
        tab.wait_for_text("#main table", namespace, PATIENCE)
        tab.wait_for_text("#services", namespace, PATIENCE)
        tab.click("#main table a")
        tab.wait_for_text("h1", namespace, PATIENCE)
        tab.wait_for_text(".said", "1 worker", PATIENCE)
        tab.wait_for_text("#live-text", "live", PATIENCE)
        client = make_client()
        client.call.add(1, 2)
        wait_until(lambda: cell(tab, "functions", "add", 3) == "1")
        # The rows stay the same elements while their numbers change.
        tab.run("document.querySelector('#panel-functions tbody tr').id = 'mine'")
        for _ in range(40):
            client.call.add(1, 2)
        wait_until(lambda: cell(tab, "functions", "add", 3) == "41")
        assert tab.run("return document.getElementById('mine').cells[0].innerText") == "add"
        drawn = "return document.querySelector('.card .line').getAttribute('d')?.length ?? 0"
        wait_until(lambda: tab.run(drawn) > 20)
        tab.click("#tab-callers")
        tab.wait_for_text("#panel-callers tbody", client.client_id[-10:], PATIENCE)
        assert cell(tab, "callers", client.client_id[-10:], 3) == "100 %"
        tab.click("#tab-workers")
        tab.wait_for_text("#panel-workers", server.worker_id, PATIENCE)
        assert tab.run("return location.hash") == f"#/{namespace}/workers"
        assert tab.run("return document.getElementById('panel-functions').hidden")
        # Nothing may be done that is not allowed.
        assert tab.run("return document.querySelectorAll('tbody button').length") == 0


def test_charts_go_on_when_the_clock_is_set_back(
    make_dashboard: MakeDashboard,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dashboard = make_dashboard()
    make_server(add)
    # Where the line of the first chart ends, in parts of its width; null until it is drawn.
    end = """
    const line = document.querySelector('.card .line');
    const places = line?.getAttribute('d')?.match(/[\\d.]+,/g);
    return places && parseFloat(places.at(-1)) / line.ownerSVGElement.viewBox.baseVal.width;
    """
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/#/{namespace}")
        wait_until(lambda: tab.run(end) == 1)
        now = time.time
        monkeypatch.setattr("time.time", lambda: now() - 3600.0)
        rounds = dashboard.collector.rounds + 3
        wait_until(lambda: dashboard.collector.rounds > rounds)
        wait_until(lambda: tab.run(end) == 1)


def test_a_killed_worker_greys_out_and_goes(
    make_dashboard: MakeDashboard, make_server: MakeServer, run_program: RunProgram, namespace: str
) -> None:
    stays = make_server(add, version="2.1.0")
    process = run_program("server")
    dashboard = make_dashboard()
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/#/{namespace}/workers")
        tab.wait_for_text(".said", "2 workers of 2.1.0", PATIENCE)
        assert cell(tab, "workers", stays.worker_id, 1).endswith("2.1.0")
        shown = dashboard.collector._watched[namespace].shown["workers"]
        (goes,) = {each["worker"] for each in shown} - {stays.worker_id}
        wait_until(lambda: state_of(tab, goes) == "serving")
        process.kill()
        wait_until(lambda: state_of(tab, goes) == "silent")
        wait_until(lambda: "silent" in cell(tab, "workers", goes, 0))
        wait_until(lambda: state_of(tab, goes) is None)
        wait_until(lambda: state_of(tab, stays.worker_id) == "serving")


def test_a_dead_request_is_shown_and_retried_with_the_keyboard(
    make_dashboard: MakeDashboard,
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
) -> None:
    markup = "<img src=x onerror=alert(1)>"
    server = bury(broker, make_server, make_client, ("run", markup), management={"retry"})
    done: list[Any] = []
    server.add_function(done.append, "run")
    dashboard = make_dashboard("retry")
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/#/{namespace}")
        tab.wait_for_text("#tab-dead .badge", "1", PATIENCE)
        tab.type("body", "5")
        tab.wait_for_text("#panel-dead tbody", "run", PATIENCE)
        tab.type("#panel-dead .opener", "\n")
        tab.wait_for_text("#panel-dead .details", markup, PATIENCE)
        assert tab.run("return document.querySelectorAll('main img').length") == 0
        tab.type("#panel-dead .actions button", "\n")
        tab.wait_for_text("#confirm-text", "Put run back into its queue?", PATIENCE)
        assert not done
        tab.type("#confirm-yes", "\n")
        tab.wait_for_text("#toasts", "run is back in its queue", PATIENCE)
        wait_until(lambda: done == [markup])
        tab.wait_for_text("#panel-dead", "No request has been given up.", PATIENCE)


def test_what_runs_is_shown_and_why_it_cannot_be_ended(
    make_dashboard: MakeDashboard, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    make_server(gate.hold)
    result = make_client(identify=True).defer.hold()
    dashboard = make_dashboard("cancel")
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/#/{namespace}/active")
        tab.wait_for_text("#panel-active tbody", "guest", PATIENCE)
        tab.click("#panel-active .actions button")
        tab.wait_for_text("#confirm-text", "Cancel hold?", PATIENCE)
        tab.click("#confirm-no")
        tab.click("#panel-active .actions button")
        tab.click("#confirm-yes")
        tab.wait_for_text("#toasts", "cancel is off; make the server with", PATIENCE)
        tab.type("#filter", "nothing like it")
        tab.wait_for_text("#panel-active", "Nothing contains", PATIENCE)
        tab.type("#filter", "\ue00c")
        tab.wait_for_text("#panel-active tbody", "hold", PATIENCE)
        gate.open()
        result.wait(20)
        tab.wait_for_text("#panel-active", "Nothing is running.", PATIENCE)


def test_the_picture_can_be_held_and_be_dark(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    dashboard = make_dashboard()
    ground = "return getComputedStyle(document.body).backgroundColor"
    with Browser(1280, 900) as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/#/{namespace}")
        tab.wait_for_text(".said", "1 worker", PATIENCE)
        before = tab.run(ground)
        tab.click("#theme")
        assert tab.run(ground) != before
        tab.go(f"http://127.0.0.1:{dashboard.port}/")
        assert tab.run(ground) != before
        tab.click("#pause")
        tab.wait_for_text("#live-text", "paused", PATIENCE)
        rounds = dashboard.collector.rounds
        make_server(add)
        wait_until(lambda: dashboard.collector.rounds > rounds + 3)
        assert tab.text("#live-text") == "paused"
        tab.click("#pause")
        tab.wait_for_text("#live-text", "live", PATIENCE)


def test_a_service_that_is_entered_during_a_pause_is_shown_and_stands_still(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    dashboard = make_dashboard()
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/#/{namespace}")
        tab.wait_for_text(".said", "1 worker", PATIENCE)
        tab.type("body", " ")
        tab.wait_for_text("#live-text", "paused", PATIENCE)
        tab.run("location.hash = '#/'")
        tab.wait_for_text("#main tbody", namespace, PATIENCE)
        tab.run(f"location.hash = '#/{namespace}'")
        tab.wait_for_text(".said", "1 worker", PATIENCE)
        rounds = dashboard.collector.rounds
        make_server(add)
        wait_until(lambda: dashboard.collector.rounds > rounds + 3)
        assert tab.text(".said") == "1 worker"
        # A place that somebody has written by hand.
        tab.type("body", " ")
        tab.run("location.hash = '#/100%/workers'")
        tab.wait_for_text("h1", "100%", PATIENCE)
        tab.wait_for_text(".said", "No worker of this service has answered.", PATIENCE)


def test_a_page_whose_server_refuses_it_says_why_and_comes_back(
    collector: Collector, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)

    def refuse(_: Environ, start: StartResponse) -> Iterable[bytes]:
        start("401 Unauthorized", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Open the other address.\n"]

    def fail(_: Environ, start: StartResponse) -> Iterable[bytes]:
        start("502 Bad Gateway", [("Content-Type", "text/html")])
        return [b"<h1>a proxy</h1>"]

    with claimed_port() as port, Browser() as browser:
        dashboard = Application(collector, Access("127.0.0.1", port), (), "the.test:1")
        with serving(port, dashboard):
            tab = browser.open(f"http://127.0.0.1:{port}/#/{namespace}")
            tab.wait_for_text(".said", "1 worker", PATIENCE)
        with serving(port, refuse):
            tab.wait_for_text("#trouble", "Open the other address.", PATIENCE)
            assert tab.text("#live-text") == "connecting again"
        with serving(port, fail):
            tab.wait_for_text("#trouble", "the server answers 502", PATIENCE)
        with serving(port, dashboard):
            tab.wait_for_text("#live-text", "live", PATIENCE)
            assert not tab.text("#trouble")


def test_no_width_is_too_narrow_and_the_policy_is_kept(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    dashboard = make_dashboard("kill", "pause")
    with Browser() as browser:
        tab = browser.open("about:blank")
        narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": narrow}
        browser.tell("POST", "/goog/cdp/execute", command)
        for page in ("", f"{namespace}/functions", f"{namespace}/workers", f"{namespace}/dead"):
            tab.go(f"http://127.0.0.1:{dashboard.port}/#/{page}")
            tab.wait_for_text("#live-text", "live", PATIENCE)
            assert tab.run("return document.documentElement.scrollWidth") == 400
        tab.run(
            "document.addEventListener('securitypolicyviolation', () => (document.title = 'oh'));"
            "const script = document.createElement('script');"
            "script.textContent = 'document.title = \"run\"';"
            "document.body.append(script);"
        )
        wait_until(lambda: tab.run("return document.title") == "oh")


def test_the_printed_address_may_be_a_link_on_a_page_of_another_site(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    access = Access("10.0.0.5", 8765)
    dashboard = make_dashboard(access=access)
    address = f"http://127.0.0.1:{dashboard.port}/?token={access.token}"

    def chat(environ: Environ, start: StartResponse) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/html")])
        return [f"<a href='{address}'>Look here</a>".encode()]

    elsewhere = WSGIServer(("127.0.0.1", 0), chat, log=None)
    elsewhere.start()
    try:
        with Browser() as browser:
            # To a browser, this name is another site than the address.
            tab = browser.open(f"http://localhost:{elsewhere.server_port}/")
            tab.click("a")
            tab.wait_for_text("#main", namespace, PATIENCE)
    finally:
        elsewhere.stop(0)


def test_elsewhere_the_printed_address_opens_it_once_and_for_all(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    access = Access("10.0.0.5", 8765)
    dashboard = make_dashboard(access=access)
    with Browser() as browser:
        tab = browser.open(f"http://127.0.0.1:{dashboard.port}/")
        tab.wait_for_text("body", "Open the address that `amphora web` has printed.", PATIENCE)
        tab.go(f"http://127.0.0.1:{dashboard.port}/?token={access.token}")
        tab.wait_for_text("#main", namespace, PATIENCE)
        assert "token" not in tab.run("return location.href")
        tab.go(f"http://127.0.0.1:{dashboard.port}/#/{namespace}")
        tab.wait_for_text(".said", "1 worker", PATIENCE)
