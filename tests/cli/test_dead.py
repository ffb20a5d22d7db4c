"""`amphora dead`, and `amphora queue purge`."""

from __future__ import annotations

import io
from collections.abc import Iterator

import gevent
import pytest

from amphora.wire.properties import Properties
from tests.cli.conftest import Amphora
from tests.support.brokers import Broker
from tests.support.dead import bury
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
ON = {"retry", "purge"}


@pytest.fixture(autouse=True)
def _tidy(broker: Broker, namespace: str) -> Iterator[None]:
    yield
    broker.delete_queue(f"rpc_{namespace}_dead")


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    keyboard = io.StringIO(answer)
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", keyboard)


def test_dead_requests_are_listed_shown_retried_and_dropped(
    amphora: Amphora,
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
) -> None:
    calls = [("run", {"file": "a\x1b[2J"}), ("run", {"file": "b"})]
    server = bury(broker, make_server, make_client, *calls, management=ON)
    done: list[object] = []
    server.add_function(done.append, "run")
    outcome = amphora("dead", "list", namespace)
    head, one, _ = outcome.out.splitlines()
    assert head.split() == ["id", "function", "reason", "attempts", "ago", "caller", "bytes"]
    assert one.split()[1:4] == ["run", "poison", "1"]
    assert f"2 requests of {namespace} given up" in outcome.err
    first, second = amphora("dead", "list", namespace, "--json").json_lines
    assert first["function"] == "run"

    shown = [amphora("dead", "show", namespace, each["id"]).out for each in (first, second)]
    assert all("reason:       poison\n" in text and "died:         20" in text for text in shown)
    assert any('args:         [{"file":"a\\u001b[2J"}]' in text for text in shown)
    found = amphora("dead", "show", namespace, first["id"], "--json").json
    assert found["args"][0].keys() == {"file"}

    assert amphora("dead", "retry", namespace, first["id"]) == (0, "1 request tried again\n", "")
    wait_until(lambda: done)
    outcome = amphora("dead", "drop", namespace, first["id"], second["id"])
    assert (outcome.code, outcome.out) == (6, "1 request dropped\n")
    assert "no request with the other IDs was given up" in outcome.err
    assert amphora("dead", "retry", namespace, "--all", "--json").json == {"retried": 0}
    outcome = amphora("dead", "show", namespace, first["id"])
    assert outcome.code == 6
    assert f"no request {first['id']} of {namespace} was given up" in outcome.err
    assert amphora("dead", "list", namespace).out == ""
    assert len(done) == 1


def test_a_namespace_that_there_never_was_is_told(amphora: Amphora, namespace: str) -> None:
    for words in (["list", namespace], ["show", namespace, "1"]):
        outcome = amphora("dead", *words)
        assert (outcome.code, outcome.out) == (6, "")
        assert f"there is no namespace '{namespace}' on this broker" in outcome.err


def test_a_body_that_nobody_can_read_is_shown_as_text(
    amphora: Amphora, broker: Broker, namespace: str
) -> None:
    with broker.channel() as channel:
        channel.queue_declare(f"rpc_{namespace}_dead")
        kept = Properties(message_id="1", headers={"mine": "\x1b[2J"})
        channel.publish("", f"rpc_{namespace}_dead", kept, b"\xff\x1b[2J")
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_dead"))
    _, line = amphora("dead", "list", namespace).out.splitlines()
    assert line.split()[:2] == ["1", "?"]
    shown = amphora("dead", "show", namespace, "1").out
    assert "\x1b" not in shown
    assert "text:         \\xff\\x1b[2J\n" in shown


@pytest.mark.parametrize("words", [[], ["--all", "1"]])
@pytest.mark.parametrize("command", ["retry", "drop"])
def test_either_ids_or_all_are_wanted(
    amphora: Amphora, namespace: str, command: str, words: list[str]
) -> None:
    assert amphora("dead", command, namespace, *words).code == 2


@pytest.mark.parametrize(
    ("words", "word"),
    [(["dead", "retry"], "retry"), (["dead", "drop"], "purge"), (["queue", "purge"], "purge")],
)
def test_what_is_off_says_how_to_switch_it_on(
    amphora: Amphora, make_server: MakeServer, namespace: str, words: list[str], word: str
) -> None:
    make_server(add)
    more = ["--all"] if words[0] == "dead" else []
    outcome = amphora(*words, namespace, *more)
    assert outcome.code == 7
    assert f'off unless the server is made with management={{"{word}"}}' in outcome.err


def test_one_worker_of_several_does_it(
    amphora: Amphora, broker: Broker, make_server: MakeServer, namespace: str
) -> None:
    servers = [make_server(gevent.sleep, management=on) for on in ((), ON)]
    queue = f"rpc_{namespace}_request"
    for server in servers:
        server.pause()
    wait_until(lambda: not broker.consumers(queue))
    with broker.channel() as channel:
        channel.publish("", queue, Properties(), b"")
    wait_until(lambda: broker.ready_messages(queue) == 1)
    assert amphora("queue", "purge", namespace).out == f"1 request dropped from {queue}\n"
    assert amphora("queue", "purge", namespace, "--json").json == {"queue": queue, "purged": 0}


def test_who_does_not_answer_in_time_may_have_done_it(
    amphora: Amphora,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = make_server(add)

    @server.add_command("retry")
    def retry(ids: list[str] | None) -> None:
        gevent.sleep(60)

    monkeypatch.setattr("amphora.cli.operating.dead.TIMEOUT", 6.0)
    outcome = amphora("dead", "retry", namespace, "--all")
    assert outcome.code == 5
    assert f"{server.worker_id} did not answer within 6 s" in outcome.err


@pytest.mark.parametrize("words", [["dead", "drop", "--all"], ["queue", "purge"]])
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_on_a_terminal_what_loses_requests_asks_before(
    amphora: Amphora,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    answer: str,
    code: int,
) -> None:
    make_server(add, management=ON)
    at_a_terminal(monkeypatch, answer)
    outcome = amphora(*words[:2], namespace, *words[2:])
    assert outcome.code == code
    assert "[y/N]" in outcome.err
    assert ("nothing was dropped" in outcome.err) is bool(code)
