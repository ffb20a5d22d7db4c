"""The dashboard as a browser gets it: pages, events, actions, and what is refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from typing import Any

import gevent
import gevent.socket
import pytest

from amphora.web.access import Access
from tests.support.brokers import Broker, ManagedBroker
from tests.support.dead import bury
from tests.support.processes import ROOT
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until
from tests.web.conftest import Dashboard, MakeDashboard

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
STATIC = ROOT / "amphora" / "web" / "static"
OURS = {"X-Amphora": "1", "Content-Type": "application/json"}


class Answer:
    """What the dashboard answers to one request."""

    def __init__(
        self, port: int, method: str, path: str, headers: dict[str, str], body: str
    ) -> None:
        lines = {"Host": f"127.0.0.1:{port}", "Connection": "close", **headers}
        if body:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with gevent.socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n{body}".encode())
            with HTTPResponse(connection, method=method) as response:
                response.begin()
                self.status = response.status
                self.headers = dict(response.getheaders())
                self.body = response.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    dashboard: Dashboard, path: str, method: str = "GET", body: Any = None, **headers: str
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    return Answer(dashboard.port, method, path, named, text)


def act(dashboard: Dashboard, **action: Any) -> Answer:
    named = {name.replace("-", "_"): value for name, value in OURS.items()}
    return ask(dashboard, "/api/action", "POST", action, **named)


Next = Callable[[], Any]


@contextmanager
def watching(dashboard: Dashboard, namespace: str = "") -> Iterator[Next]:
    """Watch as a page does; yields a function that returns the next event."""
    with closing(gevent.socket.create_connection(("127.0.0.1", dashboard.port))) as connection:
        connection.sendall(
            f"GET /api/events?namespace={namespace} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        with HTTPResponse(connection) as response:
            response.begin()
            assert response.getheader("Content-Type") == "text/event-stream"
            # Or nginx would not pass it on at once.
            assert response.getheader("X-Accel-Buffering") == "no"

            def following() -> Any:
                line = response.readline()
                assert line.startswith(b"data: "), line
                assert response.readline() == b"\n"
                return json.loads(line[6:])

            yield following


def shown(following: Next, wanted: Callable[[Any], object]) -> Any:
    """Return the first state that is wanted."""
    with gevent.Timeout(40):
        while True:
            state = following()
            if state["kind"] == "state" and wanted(state):
                return state


@pytest.mark.parametrize("path", ["/", "/api/events", "/nowhere", "/api/action"])
def test_no_answer_to_head_has_a_body(make_dashboard: MakeDashboard, path: str) -> None:
    port = make_dashboard().port
    received = b""
    with closing(gevent.socket.create_connection(("127.0.0.1", port))) as connection:
        for connected in ("keep-alive", "close"):
            head = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connected}\r\n\r\n"
            connection.sendall(head.encode())
        while data := connection.recv(65536):
            received += data
    first, second, rest = received.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 ")
    assert second.startswith(b"HTTP/1.1 ")
    assert rest == b""


def test_the_page_and_its_parts_are_served_and_nothing_else(make_dashboard: MakeDashboard) -> None:
    dashboard = make_dashboard()
    page = ask(dashboard, "/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    parts = {path.name for path in STATIC.iterdir()}
    for name in parts:
        part = ask(dashboard, f"/static/{name}")
        assert (part.status, part.body) == (200, (STATIC / name).read_text())
    assert ask(dashboard, "/static/app.js").headers["Content-Type"].startswith("text/javascript")
    for path in ("/nothing", "/static/", "/static/../app.py", "/static/%2e%2e/app.py"):
        assert ask(dashboard, path).status == 404
    assert ask(dashboard, "/", "POST", {}).status == 405
    assert ask(dashboard, "/api/action").status == 405


def test_every_answer_has_a_strict_policy(make_dashboard: MakeDashboard) -> None:
    dashboard = make_dashboard()
    for answer in (
        ask(dashboard, "/"),
        ask(dashboard, "/nothing"),
        ask(dashboard, "/", Host="evil.example.org"),
        act(dashboard, command="kill", namespace="n"),
    ):
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_foreign_name_is_refused(make_dashboard: MakeDashboard) -> None:
    dashboard = make_dashboard("kill")
    assert ask(dashboard, "/", Host="evil.example.org").status == 421
    assert ask(dashboard, "/api/events", Host="evil.example.org").status == 421
    assert ask(dashboard, "/", Host=f"localhost:{dashboard.port}").status == 200


def test_elsewhere_only_who_has_the_token_sees_anything(make_dashboard: MakeDashboard) -> None:
    access = Access("10.0.0.5", 8765)
    dashboard = make_dashboard("kill", access=access)
    for path in ("/", "/static/app.js", "/api/events", "/?token=wrong", "/?token="):
        assert ask(dashboard, path).status == 401
    assert act(dashboard, command="kill", namespace="n").status == 401
    entry = ask(dashboard, f"/?token={access.token}")
    assert (entry.status, entry.headers["Location"]) == (303, "/")
    cookie = entry.headers["Set-Cookie"].partition(";")[0]
    page = ask(dashboard, "/", Cookie=cookie)
    assert page.status == 200
    assert access.token is not None
    assert access.token not in page.body


def test_a_viewer_sees_workers_and_numbers_move(
    make_dashboard: MakeDashboard, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server(add)
    dashboard = make_dashboard("kill", "cancel")
    client = make_client()
    with watching(dashboard, namespace) as following:
        assert following() == {
            "kind": "about",
            "allow": ["cancel", "kill"],
            "broker": "the.test:1",
        }
        assert following()["kind"] == "history"

        def serving(state: Any) -> bool:
            there = (state["selected"] or {}).get("workers", ())
            return [each["state"] for each in there] == ["serving"]

        state = shown(following, serving)
        assert state["selected"]["workers"][0]["worker"] == server.worker_id
        [summary] = state["namespaces"]
        assert (summary["namespace"], summary["workers"], summary["waiting"]) == (namespace, 1, 0)
        for _ in range(10):
            client.call.add(1, 2)
        state = shown(following, lambda state: state["selected"]["functions"])
        [function] = state["selected"]["functions"]
        assert function["function"] == "add"
        shown(following, lambda state: state["selected"]["functions"][0]["calls"] == 10)
    wait_until(lambda: not dashboard.collector.viewers)
    with watching(dashboard, namespace) as following:
        following()
        history = following()
        assert len(history["namespaces"][namespace]) > 1
        assert any(point["calls"] > 0 for _, point in history["functions"]["add"])
        assert server.worker_id in history["workers"]


def test_a_silent_worker_is_marked_and_then_gone(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    one, other = make_server(add), make_server(add)
    dashboard = make_dashboard()
    with watching(dashboard, namespace) as following:
        shown(following, lambda state: len((state["selected"] or {}).get("workers", ())) == 2)
        other.stop()

        def silent(state: Any) -> bool:
            states = {each["worker"]: each["state"] for each in state["selected"]["workers"]}
            return states.get(other.worker_id) == "silent"

        state = shown(following, silent)
        assert state["namespaces"][0]["silent"] >= 1
        state = shown(following, lambda state: len(state["selected"]["workers"]) == 1)
        assert state["selected"]["workers"][0]["worker"] == one.worker_id


def test_what_runs_is_shown_and_can_be_cancelled_if_that_is_allowed(
    make_dashboard: MakeDashboard, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(management={"cancel"})
    server.add_function(gate.hold, cancellable=True)
    result = make_client(identify=True).defer.hold()
    dashboard = make_dashboard("cancel")
    with watching(dashboard, namespace) as following:
        state = shown(following, lambda state: (state["selected"] or {}).get("active"))
        [request] = state["selected"]["active"]
        assert (request["function"], request["user"]) == ("hold", "guest")
        assert request["worker"] == server.worker_id
        assert state["selected"]["active_count"] == 1
        answer = act(dashboard, command="cancel", namespace=namespace, argument=request["id"])
        assert answer.json == {"result": {server.worker_id: [{"function": "hold", "ended": True}]}}
        result.wait(20)
        shown(following, lambda state: not state["selected"]["active"])


def test_what_one_worker_has_cancelled_is_told_also_if_another_has_no_such_command(
    make_dashboard: MakeDashboard, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(management={"cancel"})
    server.add_function(gate.hold, cancellable=True)
    result = make_client().defer.hold()
    wait_until(lambda: gate.entered)
    other = make_server(gate.hold)
    wait_until(lambda: other.ready)
    dashboard = make_dashboard("cancel")
    with watching(dashboard, namespace) as following:
        state = shown(following, lambda state: (state["selected"] or {}).get("active"))
        [request] = state["selected"]["active"]
    answer = act(dashboard, command="cancel", namespace=namespace, argument=request["id"])
    result.wait(20)
    assert answer.json == {"result": {server.worker_id: [{"function": "hold", "ended": True}]}}
    # The other one may run it.
    answer = act(dashboard, command="cancel", namespace=namespace, argument="unknown")
    assert "cancel is off" in answer.json["error"]


def test_a_request_that_was_given_up_is_shown_and_tried_again(
    make_dashboard: MakeDashboard,
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
) -> None:
    # The page shows the arguments as JSON: as numbers, JavaScript would round them.
    number = 2**53 + 1
    server = bury(broker, make_server, make_client, ("run", number), management={"retry", "purge"})
    done: list[object] = []
    server.add_function(done.append, "run")
    dashboard = make_dashboard("retry", "drop")
    with watching(dashboard, namespace) as following:
        state = shown(following, lambda state: (state["selected"] or {}).get("dead"))
        [request] = state["selected"]["dead"]
        assert (request["function"], request["args"]) == ("run", f"[\n  {number}\n]")
        assert (request["kwargs"], request["headers"]) == ("{}", "{}")
        assert state["namespaces"][0]["dead"] == 1
        ids = [request["id"]]
        answer = act(dashboard, command="retry", namespace=namespace, argument=ids)
        assert answer.json == {"result": {server.worker_id: 1}}
        wait_until(lambda: done == [number])
        shown(following, lambda state: not state["selected"]["dead"])
        answer = act(dashboard, command="drop", namespace=namespace, argument=ids)
        assert answer.json == {"result": {server.worker_id: 0}}


def test_a_worker_is_paused_and_stopped(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(add, management={"kill", "pause"})
    wait_until(lambda: server.ready)
    dashboard = make_dashboard("kill", "pause")
    about = {"namespace": namespace, "worker": server.worker_id}
    act(dashboard, command="pause", **about)
    assert server.paused
    with watching(dashboard, namespace) as following:

        def paused(state: Any) -> bool:
            return [each["state"] for each in (state["selected"] or {}).get("workers", ())] == [
                "paused"
            ]

        shown(following, paused)
    act(dashboard, command="resume", **about)
    assert not server.paused
    act(dashboard, command="kill", **about)
    wait_until(lambda: server.state == "stopped")


def test_what_is_not_allowed_or_not_ours_is_refused(
    make_dashboard: MakeDashboard, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(add, management={"kill"})
    dashboard = make_dashboard("cancel")
    about = {"namespace": namespace, "worker": server.worker_id}
    answer = act(dashboard, command="kill", **about)
    assert (answer.status, answer.body) == (
        403,
        "kill is not allowed here: see amphora web --allow\n",
    )
    for command in ("eval", "threads", "ping"):
        assert act(dashboard, command=command, **about).status == 403
    body = {"command": "cancel", "argument": "1", **about}
    assert ask(dashboard, "/api/action", "POST", body).status == 403
    foreign = ask(
        dashboard, "/api/action", "POST", body, X_Amphora="1", Origin="http://evil.example.org"
    )
    assert foreign.status == 403
    for wrong in ("", "{", "[]", '{"command": 7}', "x" * 70_000):
        assert ask(dashboard, "/api/action", "POST", wrong, X_Amphora="1").status == 400
    assert server.state == "serving"


def test_an_action_that_breaks_off_closes_its_connection_and_is_not_told_of(
    make_dashboard: MakeDashboard, capfd: pytest.CaptureFixture[str]
) -> None:
    port = make_dashboard("cancel").port
    head = f"POST /api/action HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Amphora: 1\r\n"
    with gevent.socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f'{head}Content-Length: 99\r\n\r\n{{"name'.encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ({"command": "cancel", "argument": "1"}, 'make the server with management={"cancel"}'),
        ({"command": "retry", "argument": ["1"]}, 'make the server with management={"retry"}'),
        ({"command": "drop", "argument": ["1"]}, 'make the server with management={"purge"}'),
        ({"command": "kill", "worker": "nobody"}, "no worker answered"),
        ({"command": "cancel", "namespace": "no such"}, "must be 1 to 100 letters"),
        ({"command": "kill"}, "kill is for one worker, and none is named"),
    ],
)
def test_what_cannot_be_done_is_told_why(
    make_dashboard: MakeDashboard,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    action: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.setattr("amphora.web.app.TIMEOUT", 6.0)
    server = make_server(add)
    wait_until(lambda: server.ready)
    dashboard = make_dashboard("cancel", "retry", "drop", "kill")
    answer = act(dashboard, **{"namespace": namespace, **action})
    assert answer.status == 200
    assert sentence in answer.json["error"]


def test_only_so_many_may_watch(
    make_dashboard: MakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amphora.web.app.MOST_VIEWERS", 1)
    dashboard = make_dashboard()
    with watching(dashboard) as following:
        following()
        wait_until(lambda: dashboard.collector.viewers)
        assert ask(dashboard, "/api/events").status == 503


def test_while_the_broker_is_away_viewers_are_told_and_see_what_was_known(
    make_dashboard: MakeDashboard, make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    assert isinstance(broker, ManagedBroker)
    server = make_server(add)
    dashboard = make_dashboard()
    with watching(dashboard, namespace) as following:
        known = shown(following, lambda state: state["selected"])
        broker.stop()
        state = shown(following, lambda state: state["trouble"])
        assert "no connection" in state["trouble"] or "lost" in state["trouble"], state["trouble"]
        assert state["selected"]["workers"][0]["worker"] == server.worker_id
        assert state["at"] >= known["at"]
        later = shown(following, lambda state: state["trouble"])
        assert later["at"] == state["at"]
        broker.start()
        state = shown(following, lambda state: not state["trouble"] and state["at"] > later["at"])
        shown(following, lambda state: state["selected"]["workers"][0]["state"] == "serving")


def test_what_fails_in_a_round_is_told_and_the_next_is_made(
    make_dashboard: MakeDashboard,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_server(add)
    dashboard = make_dashboard()
    with watching(dashboard, namespace) as following:
        shown(following, lambda state: state["selected"])

        def fail() -> None:
            raise ZeroDivisionError("as asked")

        with monkeypatch.context() as patched:
            patched.setattr(dashboard.collector, "_round", fail)
            state = shown(following, lambda state: state["trouble"])
            assert state["trouble"] == "ZeroDivisionError: as asked"
        shown(following, lambda state: not state["trouble"])
    assert "the dashboard could not ask the workers" in caplog.text
