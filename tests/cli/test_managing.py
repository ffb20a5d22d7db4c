"""Commands that ask workers."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator

import gevent
import pytest

from amphora import AmqpRpcServer, Session
from amphora.cli import advice
from amphora.cli.operating.managing import MOST_OF_A_NAME, caller_row, worker_row
from amphora.rpc.server.requests.handling import ROOM_FOR
from tests.cli.conftest import Amphora
from tests.support.brokers import Broker
from tests.support.rpc import Gate, MakeClient, MakeServer, add
from tests.support.waiting import wait_until


def test_ping_shows_all_workers(amphora: Amphora, make_server: MakeServer, namespace: str) -> None:
    ids = sorted(make_server(add).worker_id for _ in range(3))
    lines = amphora("ping", namespace, "--timeout", 30).out.splitlines()
    here = [socket.gethostname(), str(os.getpid())]
    assert [line.split() for line in lines] == [
        ["worker", "host", "pid"],
        *([worker, *here] for worker in ids),
    ]
    answers = amphora("ping", namespace, "--timeout", 30, "--json").json_lines
    assert sorted(answer["worker"] for answer in answers) == ids
    for answer in answers:
        assert answer["result"] == {
            "wid": answer["worker"],
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }


def test_one_worker_can_be_asked(amphora: Amphora, make_server: MakeServer, namespace: str) -> None:
    one, _ = make_server(add), make_server(add)
    answer = amphora("ping", namespace, "--timeout", 30, "--worker", one.worker_id, "--json").json
    assert answer["worker"] == one.worker_id


def test_stats_show_workers_and_functions(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server(add, concurrency=7)
    client = make_client()
    for number in range(3):
        client.call.add(number, 1)
    gevent.sleep(2 * ROOM_FOR)
    result = client.defer.add(1, "one")
    result.wait()
    wait_until(lambda: not len(server._worker.underway))
    shown = amphora("stats", namespace, "--timeout", 30).out
    workers, waits, functions, callers = shown.split("\n\n")
    assert workers.split("\n")[1].split()[0] == server.worker_id
    assert " 0/7 " in workers
    name, known, unknown, *_ = waits.split("\n")[1].split()
    assert (name, int(known) + int(unknown)) == (server.worker_id, 4)
    # Only before the last one the server certainly had room.
    assert int(known) >= 1
    name, function, calls, errors, *_ = functions.split("\n")[1].split()
    assert (name, function, calls, errors) == (server.worker_id, "add", "4", "1")
    caller, sender, *numbers = callers.splitlines()[1].split()
    assert (caller, sender) == ("-", client.client_id)
    assert (numbers[:3], numbers[-1]) == (["1", "add", "4"], "100%")
    told = amphora("stats", namespace, "--timeout", 30, "--json").json["result"]
    assert (told["processed"], told["exceptions"]) == (3, 1)
    assert (told["cancelled"], told["expired"], told["shed"]) == (0, 0, 0)
    assert told["queue_wait"]["p50"] == 0.0
    assert told["functions"]["add"]["count"] == 4
    assert told["callers"]["most"][0]["calls"] == 4


def test_what_callers_choose_cannot_harm_a_terminal() -> None:
    odd = {"user": None, "client": "\x1b[2J" + "x" * 300, "clients": 1, "function": "", "calls": 1}
    _, client, _, function, *_ = caller_row({**odd, "calls_per_second": 1.0, "share": 1.0})
    assert "\x1b" not in str(client)
    assert len(str(client)) == MOST_OF_A_NAME
    assert function == "-"


def test_stats_of_workers_that_were_never_called_have_one_table(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    outcome = amphora("stats", namespace)
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 2


def test_older_workers_do_not_tell_what_was_cancelled() -> None:
    numbers = {"processed": 2, "exceptions": 1, "uptime": 5.0, "wait_times": []}
    about = {"wid": "math-1", "host": "web1", "pid": 7, "in_flight": 0, "concurrency": 100}
    row = worker_row({**about, **numbers})
    assert row == ("math-1", "web1", 7, "5 s", "0/100", 3, 1, "-", "-", "-", "-", "-")


def test_describe_shows_the_same_offers_once(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    alike = sorted(make_server(add).worker_id for _ in range(2))
    other = make_server(add, gevent.sleep).worker_id
    shown = amphora("describe", namespace, "--timeout", 30).out
    assert shown.count("add(a: ") == 2
    assert shown.count("Return a + b: the function that most tests call.") == 2
    assert f"({', '.join(alike)})" in shown
    assert f"({other})" in shown
    lines = amphora("describe", namespace, "--timeout", 30, "--json").json_lines
    assert {line["worker"]: len(line["result"]["functions"]) for line in lines} == {
        alike[0]: 1,
        alike[1]: 1,
        other: 2,
    }


def test_describe_tells_on_what_terms_functions_are_offered(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    def count(after: int) -> Iterator[int]:
        yield after

    server = make_server(add, count)
    server.add_function(count, "again", resumable=True, idempotent=True)
    server.add_function(add, "slow", concurrency=4, timeout=30)
    described = amphora("describe", namespace, "--timeout", 30, "--json").json["result"]
    terms = {
        function["name"]: function.keys()
        & {"stream", "resumable", "idempotent", "concurrency", "timeout", "ack"}
        for function in described["functions"]
    }
    assert terms == {
        "add": set(),
        "count": {"stream"},
        "again": {"stream", "resumable", "idempotent"},
        "slow": {"concurrency", "timeout"},
    }
    shown = amphora("describe", namespace, "--timeout", 30).out
    told = [line.partition("  (")[2] for line in shown.splitlines() if " -> " in line]
    assert told == [
        "",
        "a stream)",
        "a stream, goes on at another worker, safe to repeat)",
        "4 at once, for 30 s at most)",
    ]


def test_describe_tells_what_else_callers_should_know(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    def old() -> None:
        pass

    old.__deprecated__ = "call add"  # type: ignore[attr-defined]
    server = make_server(version="2.1.0", cancellable=True)
    server.add_function(old, expected=(LookupError, ValueError))
    shown = amphora("describe", namespace, "--timeout", 30).out
    assert shown.startswith(f"{namespace} 2.1.0  ({server.worker_id})\n")
    assert (
        "  old() -> None  (can be cancelled, deprecated: call add, raises LookupError, ValueError)"
        in shown
    )
    assert " 2.1.0 " in amphora("stats", namespace, "--timeout", 30).out


def test_kill_stops_workers_warmly(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    gate = Gate()
    server = make_server(gate.hold, management={"kill"})
    other = make_server(management={"kill"})
    other.stop()
    result = make_client().defer.hold("done")
    wait_until(lambda: gate.entered)
    outcome = amphora("kill", namespace)
    assert outcome == (0, f"{server.worker_id} (pid {os.getpid()}) is stopping\n", "")
    wait_until(lambda: server.state == "stopping")
    gate.open()
    assert result.get() == "done"
    wait_until(lambda: server.state == "stopped")
    outcome = amphora("kill", namespace)
    assert outcome.code == 6
    assert outcome.err == f"amphora: error: no worker of {namespace} is running\n"


@pytest.mark.parametrize("command", ["ping", "stats", "describe"])
def test_a_worker_that_comes_while_it_is_asked_is_asked_again(
    amphora: Amphora, make_server: MakeServer, namespace: str, command: str
) -> None:
    first, leaving = make_server(add), make_server(add)
    # It is there, and takes nothing any more: so is a worker in its last moments.
    leaving._worker.management.consumer.stop()
    asked = first._worker.management._executor._statistics

    def replace() -> None:
        wait_until(lambda: asked.processed)
        coming.append(make_server(add))
        leaving.stop()

    coming: list[AmqpRpcServer] = []
    replacing = gevent.spawn(replace)
    outcome = amphora(command, namespace, "--json")
    replacing.get()
    assert outcome.code == 0, outcome
    answered = {line["worker"] for line in outcome.json_lines}
    assert answered == {first.worker_id, coming[0].worker_id}


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_on_a_terminal_kill_asks_before_it_stops_all(
    amphora: Amphora,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    server = make_server(management={"kill"})
    keyboard = io.StringIO(answer)
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", keyboard)
    outcome = amphora("kill", namespace)
    assert outcome.code == code
    assert f"Stop 1 worker of {namespace}? [y/N]:" in outcome.err
    if code:
        assert "nothing was stopped" in outcome.err
        assert server.state == "serving"
    else:
        wait_until(lambda: server.state == "stopped")


def test_kill_asks_as_well_when_its_workers_are_away_for_a_moment(
    amphora: Amphora,
    make_server: MakeServer,
    url: str,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(url)
    server = make_server(session=session, management={"kill"})
    wait_until(lambda: server.ready)
    session.close()
    keyboard = io.StringIO("n\n")
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", keyboard)
    outcome = amphora("kill", namespace)
    assert outcome.code == 1
    assert f"Stop all workers of {namespace}? [y/N]:" in outcome.err


def test_eval_evaluates_in_each_worker(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    ids = sorted(make_server(management={"eval"}).worker_id for _ in range(2))
    lines = amphora("eval", namespace, "--timeout", 30, "server.worker_id").out.splitlines()
    assert [line.split() for line in lines[1:]] == [[it, it] for it in ids]
    outcome = amphora("eval", namespace, "--timeout", 30, "1/0", "--worker", ids[0])
    assert outcome.code == 1
    assert outcome.err == (
        f"amphora: error: {ids[0]}: the function raised ZeroDivisionError: division by zero\n"
    )
    answer = amphora("eval", namespace, "--timeout", 30, "1/0", "--worker", ids[0], "--json").json
    assert (answer["worker"], answer["error"]["remote_type"]) == (ids[0], "ZeroDivisionError")


@pytest.mark.parametrize("words", [["kill", "--yes"], ["eval", "1"]])
def test_what_is_switched_off_says_how_it_is_switched_on(
    amphora: Amphora, make_server: MakeServer, namespace: str, words: list[str]
) -> None:
    make_server(add)
    outcome = amphora(words[0], namespace, *words[1:])
    assert (outcome.code, outcome.out) == (7, "")
    assert f'management={{"{words[0]}"}}' in outcome.err


def test_ask_sends_commands_of_ones_own(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server()
    server.add_command(lambda *args: list(args), "echo")
    line = amphora("ask", namespace, "--timeout", 30, "echo", "1", "two").out.splitlines()[1]
    assert line.split() == [server.worker_id, '[1,"two"]']
    outcome = amphora("ask", namespace, "--timeout", 30, "nope")
    assert outcome.code == 7
    assert f"{server.worker_id}: the management of {namespace} has no" in outcome.err


@pytest.mark.parametrize(
    "words", [["ping"], ["top"], ["describe"], ["queue", "list"], ["dead", "list"]]
)
def test_a_misspelt_namespace_is_told_with_the_one_that_was_meant(
    amphora: Amphora,
    make_server: MakeServer,
    namespace: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(advice, "TIMEOUT", 30.0)
    server = make_server(add)
    wait_until(lambda: server.ready)
    outcome = amphora(*words, f"{namespace}x")
    assert (outcome.code, outcome.out) == (6, "")
    assert f"there is no namespace '{namespace}x' on this broker" in outcome.err
    assert outcome.err.endswith(f"; did you mean '{namespace}'?\n")


@pytest.mark.parametrize("command", ["ping", "stats", "describe", "top", "kill"])
def test_an_unknown_namespace_is_noticed_at_once_and_leaves_nothing(
    amphora: Amphora, broker: Broker, namespace: str, command: str
) -> None:
    outcome = amphora(command, namespace, *(["--timeout", 600] if command != "top" else []))
    assert (outcome.code, outcome.out) == (6, "")
    assert f"there is no namespace '{namespace}'" in outcome.err
    assert not broker.queue_exists(f"rpc_{namespace}_request")
    assert not broker.queue_exists(f"rpc_{namespace}_rollcall")


def test_an_unknown_worker_is_noticed_at_once(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    outcome = amphora("ping", namespace, "--worker", "nobody", "--timeout", 600)
    assert outcome == (6, "", "amphora: error: there is no worker 'nobody'\n")


def test_workers_that_do_not_answer_are_counted(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    quiet, loud = make_server(), make_server()
    quiet.add_command(lambda: gevent.sleep(60), "greet")
    loud.add_command(lambda: "hello", "greet")
    outcome = amphora("ask", namespace, "greet", "--timeout", 6)
    assert outcome.code == 5
    assert outcome.out.splitlines()[1].split() == [loud.worker_id, "hello"]
    assert f"1 of 2 workers of {namespace} did not answer within 6 s" in outcome.err
    outcome = amphora("ask", namespace, "greet", "--timeout", 6, "--worker", quiet.worker_id)
    assert (outcome.code, outcome.out) == (5, "")
    assert f"{quiet.worker_id} did not answer within 6 s" in outcome.err


def test_what_workers_answer_cannot_steer_the_terminal(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server()
    server.add_command(lambda: "\x1b[2J[red]gone", "evil")
    server.functions.add(lambda: None, "f\x1b[2J")
    assert "\\x1b[2J[red]gone" in amphora("ask", namespace, "--timeout", 30, "evil").out
    assert "\x1b" not in amphora("describe", namespace, "--timeout", 30).out
