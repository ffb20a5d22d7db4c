"""`amphora call`: what is sent, what is printed, and how it fails."""

from __future__ import annotations

import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import gevent
import pytest

from amphora import AmqpRpcFanoutServer, IgnoreRequest, Session
from amphora.cli import advice
from amphora.cli.calling.target import parse_arguments
from tests.cli.conftest import Amphora
from tests.support.brokers import Broker, on_embedded
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


def say(text: str) -> str:
    return text


def fail(text: str) -> None:
    raise KeyError(text)


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("2.5e3", 2500.0),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": []}}', {"a": {"b": []}}),
        ('"1"', "1"),
        ('"a=1"', "a=1"),
        ("text", "text"),
        ("", ""),
        ("007", "007"),
        ("True", "True"),
        ("[1,", "[1,"),
        ("2026-01-31", "2026-01-31"),
        ("Zoë", "Zoë"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_an_argument_is_json_or_a_text(word: str, value: Any) -> None:
    assert parse_arguments((word,)) == ([value], {})
    assert parse_arguments((f"name={word}",)) == ([], {"name": value})


def test_arguments_reach_the_function(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(echo)
    call = f"{namespace}.echo"
    assert amphora("call", call, 1, "two", "a=3", "b=four", "--json").json == {
        "result": [[1, "two"], {"a": 3, "b": "four"}]
    }
    assert amphora("call", "--json", call, -1, "-2.5").json == {"result": [[-1, -2.5], {}]}
    assert amphora("call", "--json", call, "-1", "--", "-x", "--json").json == {
        "result": [[-1, "-x", "--json"], {}]
    }
    # A parameter may have any name.
    assert amphora("call", "--json", call, "self=1").json == {"result": [[], {"self": 1}]}


@pytest.mark.parametrize(
    "text", ["a\x1b[31mb\x1b[0m", "\x1b[2J", "a\rb\tc\x07", "\x1b]8;;x\x1b\\y"]
)
def test_a_program_that_reads_a_text_gets_it_as_it_is(
    amphora: Amphora, make_server: MakeServer, namespace: str, text: str
) -> None:
    make_server().add_function(lambda: text, name="told")
    assert amphora("call", f"{namespace}.told").out == f"{text}\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Missing argument 'NAMESPACE.FUNCTION'"),
        (["math"], "NAMESPACE.FUNCTION, such as"),
        (["math."], "NAMESPACE.FUNCTION, such as"),
        ([".add"], "NAMESPACE.FUNCTION, such as"),
        (["a b.add"], "namespace 'a b' must be"),
        (["mgt.ping"], "reserved for management"),
        (["math.add", "--timout", "5"], "No such option: --timout"),
        (["math.add", "--timout=5"], "No such option: --timout"),
        (["math.add", "-x"], "No such option: -x"),
        (["--timout", "5", "math.add"], "No such option: --timout; did you mean '--timeout'?"),
        (["math.add", "a=1", "a=2"], "The argument a is given twice"),
        (["math.add", "--timeout", "soon"], "'soon' is not a valid number."),
        (["math.add", "--fanout", "--cast"], "--fanout goes with neither"),
        (["math.count", "--stream", "--cast"], "--stream goes with neither"),
        (["math.count", "--stream", "--fanout"], "--stream goes with neither"),
    ],
)
def test_wrong_usage_is_explained(
    amphora_anywhere: Amphora, words: list[str], complaint: str
) -> None:
    outcome = amphora_anywhere("call", *words)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert "Usage: amphora call" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("timeout", "complaint"),
    [
        ("0", "a timeout must be more than 0"),
        ("-1", "a timeout must be more than 0"),
        ("1e9", "a timeout must be more than 0"),
        ("nan", "'nan' is not a number"),
    ],
)
def test_an_impossible_timeout_is_wrong_usage(
    amphora: Amphora, make_server: MakeServer, namespace: str, timeout: str, complaint: str
) -> None:
    make_server(echo)
    outcome = amphora("call", f"{namespace}.echo", "--timeout", timeout)
    assert (outcome.code, outcome.out) == (2, "")
    assert complaint in outcome.err


# -- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("6", "6\n"),
        ("text", "text\n"),
        ('"two\\nlines"', "two\nlines\n"),
        ("null", "null\n"),
        ('{"a": [1]}', '{\n  "a": [\n    1\n  ]\n}\n'),
    ],
)
def test_a_result_is_printed_alone(
    amphora: Amphora, make_server: MakeServer, namespace: str, value: str, printed: str
) -> None:
    server = make_server()
    server.add_function(lambda it: it, "it")
    outcome = amphora("call", f"{namespace}.it", value)
    assert outcome == (0, printed, "")


def test_a_function_and_a_namespace_may_have_dots(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server()
    server.add_function(say, "texts.say")
    assert amphora("call", f"{namespace}.texts.say", "hi").out == "hi\n"
    assert amphora("call", "-n", namespace, "texts.say", "hi").out == "hi\n"


def test_a_cast_is_sent_and_nothing_is_waited_for(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    came: list[str] = []
    server = make_server()
    server.add_function(came.append, "note")
    outcome = amphora("call", f"{namespace}.note", "this", "--cast")
    assert (outcome.code, outcome.out) == (0, "")
    assert f"{namespace}.note is in the queue" in outcome.err
    assert amphora("call", f"{namespace}.note", "that", "--cast", "--json").json == {"sent": True}
    wait_until(lambda: came == ["this", "that"])


def test_a_routing_key_leads_to_the_queue_of_the_key(
    amphora: Amphora, make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server(say)
    make_client().create_new_request_queue("Alice", x_expires=60)
    receiving = server.receive_from_queue("Alice", max_calls=1, block=False)
    assert amphora("call", f"{namespace}.say", "hi", "--routing-key", "Alice").out == "hi\n"
    assert receiving.wait(30) == 1
    make_client().remove_request_queue("Alice")


def test_all_servers_of_a_fanout_namespace_answer(
    amphora: Amphora, url: str, namespace: str
) -> None:
    with (
        AmqpRpcFanoutServer(namespace, url=url) as one,
        AmqpRpcFanoutServer(namespace, url=url) as other,
    ):
        for server in (one, other):
            server.add_function(lambda server=server: server.worker_id, "who")
            server.serve()
        wait_until(lambda: one.ready and other.ready)
        outcome = amphora("call", f"{namespace}.who", "--fanout", "--json")
        ids = sorted([one.worker_id, other.worker_id])
        assert outcome.code == 0
        assert sorted(line["worker"] for line in outcome.json_lines) == ids
        assert all(line["worker"] == line["result"] for line in outcome.json_lines)
        table = amphora("call", f"{namespace}.who", "--fanout").out.splitlines()
        assert [line.split() for line in table] == [["worker", "result"], *([it, it] for it in ids)]
        # Without the option it would wait for a server that does not exist.
        outcome = amphora("call", f"{namespace}.who")
        assert outcome.code == 7
        assert "call it with --fanout" in outcome.err
    outcome = amphora("call", f"{namespace}.who", "--fanout")
    assert (outcome.code, outcome.out) == (6, "")


def test_servers_that_all_ignore_a_request_have_all_answered(
    amphora: Amphora, url: str, namespace: str
) -> None:
    def ignore() -> None:
        raise IgnoreRequest

    with AmqpRpcFanoutServer(namespace, url=url) as server:
        server.add_function(ignore, "f")
        server.serve()
        wait_until(lambda: server.ready)
        assert amphora("call", f"{namespace}.f", "--fanout", "--json") == (0, "", "")


def test_a_fanout_server_that_goes_without_an_answer_is_told(
    amphora: Amphora, url: str, namespace: str
) -> None:
    session = Session(url)

    def go() -> None:
        gevent.sleep(3.0)  # it is counted meanwhile
        gevent.spawn(session.close).join()

    with AmqpRpcFanoutServer(namespace, session=session) as server:
        server.add_function(go)
        server.serve()
        wait_until(lambda: server.ready)
        outcome = amphora("call", f"{namespace}.go", "--fanout")
        assert outcome.code == 5
        assert f"1 of 1 workers of {namespace} did not answer: they are gone, or" in outcome.err
        outcome = amphora("call", f"{namespace}.go", "--fanout")
        assert outcome == (6, "", f"amphora: error: no worker of {namespace} is running\n")


# -- failures -------------------------------------------------------------------------------------


def test_what_the_function_raised_is_one_line(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(fail)
    outcome = amphora("call", f"{namespace}.fail", "a\nb\x1b[31m")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "amphora: error: the function raised KeyError: a\\nb\\x1b[31m\n"


def test_the_remote_traceback_is_shown_on_request(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(fail)
    outcome = amphora("call", f"{namespace}.fail", "a\x1b[31m", "--traceback")
    lines = outcome.err.splitlines()
    assert outcome.code == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert "in fail" in lines[1]
    assert lines[-1].startswith("amphora: error: the function raised KeyError")
    assert "\x1b" not in outcome.err


def test_a_failure_is_an_object_for_programs(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(fail)
    outcome = amphora("call", f"{namespace}.fail", "x", "--json")
    assert (outcome.code, outcome.err) == (1, "")
    error = outcome.json["error"]
    assert "in fail" in error.pop("traceback")
    assert error == {
        "type": "RemoteException",
        "message": "the function raised KeyError: x",
        "exit_code": 1,
        "executed": True,
        "remote_type": "KeyError",
    }


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nope"], "has no function 'nope'"),
        (["add", "1"], "missing a required argument: 'b'"),
        (["add", "1", "2", "c=3"], "unexpected keyword argument 'c'"),
    ],
)
def test_a_refused_request_leads_to_the_list_of_functions(
    amphora: Amphora, make_server: MakeServer, namespace: str, words: list[str], complaint: str
) -> None:
    make_server(add)
    outcome = amphora("call", f"{namespace}.{words[0]}", *words[1:])
    assert (outcome.code, outcome.out) == (7, "")
    assert complaint in outcome.err
    assert f"amphora describe {namespace}" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, workers have the time to tell what they offer."""
    monkeypatch.setattr(advice, "TIMEOUT", 30.0)
    monkeypatch.setattr(advice, "PATIENCE", 60.0)


def divide(dividend: int, divisor: int = 1) -> float:
    return dividend / divisor


@pytest.mark.usefixtures("_patience")
@on_embedded
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["divid", "1"], "has no function 'divid'; did you mean 'divide'? (what"),
        (["divide"], "'dividend'; it takes (dividend: int, divisor: int = 1) (what"),
        (["divide", "a"], "got `str`; it takes (dividend: int, divisor: int = 1) (what"),
        (["multiply", "1"], "has no function 'multiply'; it has divide (what"),
    ],
)
def test_a_refused_request_says_what_would_be_taken(
    amphora: Amphora, make_server: MakeServer, namespace: str, words: list[str], told: str
) -> None:
    make_server(divide)
    outcome = amphora("call", f"{namespace}.{words[0]}", *words[1:])
    assert outcome.code == 7
    assert told in outcome.err


@pytest.mark.usefixtures("_patience")
@on_embedded
def test_two_services_of_one_namespace_are_told_apart(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(divide)
    make_server(add)
    # Each of them gets one of the two.
    outcomes = [amphora("call", f"{namespace}.divide", "6", "3") for _ in range(2)]
    assert sorted(outcome.code for outcome in outcomes) == [0, 7]
    said = "".join(outcome.err for outcome in outcomes)
    assert "has no function 'divide'; it has add; another of its workers has it (what" in said


@pytest.mark.usefixtures("_patience")
@on_embedded
@pytest.mark.parametrize("options", [[], ["--routing-key", "Bob"]])
def test_a_misspelled_namespace_is_compared_with_those_that_are_there(
    amphora: Amphora, make_server: MakeServer, namespace: str, options: list[str]
) -> None:
    make_server(add)
    outcome = amphora("call", f"{namespace}x.add", 1, 2, *options)
    assert outcome.code == 6
    assert f"; did you mean '{namespace}'?" in outcome.err


@pytest.mark.usefixtures("_patience")
@on_embedded
def test_a_namespace_whose_first_server_starts_meanwhile_is_not_called_misspelled(
    amphora: Amphora, make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    call = gevent.spawn(amphora, "call", f"{namespace}.add", 1, 2)
    # It has not found the namespace, and asks on another connection what else there is.
    wait_until(lambda: broker.connections_from_here() == 2)
    make_server(add)
    outcome = call.get()
    assert outcome.code == 6
    assert outcome.err.endswith("; its first server has started just now: try again\n")


# -- arguments from elsewhere ---------------------------------------------------------------------


@on_embedded
def test_arguments_are_read_from_files_and_standard_input(
    amphora: Amphora,
    make_server: MakeServer,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_server(echo)
    file = tmp_path / "alice.json"
    file.write_text('{"name": "Alice"}\n')
    text = tmp_path / "text"
    text.write_bytes("naïve\n\n".encode())
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"[1, 2]\n")))
    words = (f"@{file}", f"other=@{text}", "-", '"-"', '"@alice"', "@")
    assert amphora("call", f"{namespace}.echo", "--json", "--", *words).json == {
        "result": [[{"name": "Alice"}, [1, 2], "-", "@alice", "@"], {"other": "naïve\n"}]
    }


@on_embedded
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["@nowhere"], "nowhere cannot be read: No such file or directory  (the text? Write"),
        (["@\0"], "cannot be read: embedded null byte"),
        (["-", "a=-"], "Standard input can be one argument only."),
        (["-"], "standard input is not text in UTF-8."),
    ],
)
def test_arguments_that_cannot_be_read_are_wrong_usage(
    amphora: Amphora,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    complaint: str,
) -> None:
    content = b"1" if len(words) == 2 else b"\xff"
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))
    outcome = amphora("call", f"{namespace}.echo", *words)
    assert outcome.code == 2
    assert complaint in outcome.err


# -- words that are being typed -------------------------------------------------------------------


@pytest.mark.usefixtures("_patience")
@on_embedded
def test_functions_and_namespaces_of_running_services_are_completed(
    amphora: Amphora,
    make_server: MakeServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = make_server(add, divide)
    server.add_function(add, "send message")
    server.add_function(add, "admin.add")

    def completed(*words: str) -> list[str]:
        monkeypatch.setenv("_AMPHORA_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["amphora", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit):
            amphora()
        out, err = capsys.readouterr()
        assert err == ""
        return [line.partition(",")[2] for line in out.splitlines() if line]

    assert completed("call", f"{namespace}.a") == [f"{namespace}.add", f"{namespace}.admin.add"]
    assert completed("call", namespace) == [
        f"{namespace}.{each}" for each in ("add", "admin.add", "divide")
    ]
    assert completed("call", "-n", namespace, "ad") == ["add", "admin.add"]
    assert completed("stats", namespace[:3]) == [namespace]
    assert completed("call", "nobody.") == []


def test_without_a_broker_nothing_is_completed(
    amphora_anywhere: Amphora,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AMQP_URL", f"amqp://127.0.0.1:{closed_port}")
    monkeypatch.setenv("_AMPHORA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "amphora stats ")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        amphora_anywhere()
    assert capsys.readouterr() == ("\n", "")


@pytest.mark.parametrize("options", [[], ["--cast"], ["--routing-key", "Bob"], ["--fanout"]])
def test_a_misspelled_namespace_is_noticed_at_once_and_leaves_nothing(
    amphora: Amphora, broker: Broker, namespace: str, options: list[str]
) -> None:
    with gevent.Timeout(50):  # and not the 60 s of a call
        outcome = amphora("call", f"{namespace}.add", *options)
    assert (outcome.code, outcome.out) == (6, "")
    assert namespace in outcome.err
    assert not broker.queue_exists(f"rpc_{namespace}_request")


def test_a_request_that_waits_for_a_worker_says_so(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add).stop()
    outcome = amphora("call", f"{namespace}.add", 1, 2, "--timeout", 8)
    assert (outcome.code, outcome.out) == (5, "")
    note, error = outcome.err.splitlines()
    assert note.startswith(f"amphora: no worker of {namespace} is running")
    assert "within 8 s" in error


def test_workers_that_are_paused_are_not_said_to_be_away(
    amphora: Amphora, make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add).pause()
    wait_until(lambda: broker.consumers(f"rpc_{namespace}_request") == 0)
    outcome = amphora("call", f"{namespace}.add", 1, 2, "--timeout", 8)
    assert outcome.code == 5
    assert outcome.err.startswith(f"amphora: no worker of {namespace} takes requests; the request")


def test_a_namespace_that_is_no_fanout_is_told_apart(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    outcome = amphora("call", f"{namespace}.add", 1, 2, "--fanout")
    assert (outcome.code, outcome.out) == (7, "")
    assert "call it without --fanout" in outcome.err
    assert "PRECONDITION_FAILED" not in outcome.err


def test_a_request_that_waits_is_answered_by_the_worker_that_comes(
    amphora: Amphora, make_server: MakeServer, broker: Broker, namespace: str
) -> None:
    make_server(add).stop()
    calling = gevent.spawn(amphora, "call", f"{namespace}.add", 1, 2)
    wait_until(lambda: broker.ready_messages(f"rpc_{namespace}_request") == 1)
    make_server(add)
    outcome = calling.get(timeout=40)
    assert (outcome.code, outcome.out) == (0, "3\n")


def test_a_key_without_a_queue_is_an_error_that_tells_how_to_make_one(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add)
    outcome = amphora("call", f"{namespace}.add", 1, 2, "--routing-key", "Bob")
    assert (outcome.code, outcome.out) == (6, "")
    assert f"amphora queue create {namespace} Bob" in outcome.err


# -- what a function says when it raises ----------------------------------------------------------


def missing() -> None:
    open("/no/such/file")  # noqa: SIM115 (it is not there)


def long() -> None:
    raise RuntimeError("x" * 5000)


def test_what_an_exception_says_is_printed(
    make_server: MakeServer, amphora: Amphora, namespace: str
) -> None:
    make_server(missing, long, tracebacks=False)
    text = "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"
    done = amphora("call", f"{namespace}.missing")
    assert (done.code, done.err) == (1, f"amphora: error: the function raised {text}\n")
    done = amphora("call", f"{namespace}.missing", "--json")
    assert done.json["error"]["message"] == f"the function raised {text}"
    # People get a line, programs all of it.
    assert len(amphora("call", f"{namespace}.long").err) < 1100
    assert "x" * 5000 in amphora("call", f"{namespace}.long", "--json").json["error"]["message"]
