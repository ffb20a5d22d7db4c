"""What every command says when it cannot reach the broker, and when it fails otherwise."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

import pytest
from gevent import subprocess

from amphora.cli import failures, lookup
from amphora.cli.failures import MEANINGS, Exit, exit_code_of, sentence_of
from amphora.cli.operating import dead, queues
from amphora.errors import (
    AmphoraError,
    ChannelClosed,
    ConnectionLost,
    NoResult,
    NoServer,
    Overloaded,
    RemoteException,
    WrongRequest,
)
from tests.cli.conftest import Amphora, Outcome
from tests.support.brokers import Broker
from tests.support.peer import Conversation, PeerFailure, ScriptedPeer
from tests.support.processes import ROOT, PythonProcess

COMMANDS = [
    ["call", "math.add", "1", "2"],
    ["ping", "math"],
    ["top", "math", "--once"],
    ["queue", "list", "math"],
    ["queue", "create", "math", "Alice"],
]


def assert_one_line(outcome: Outcome, code: Exit, *texts: str) -> None:
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("amphora: error: ")
    assert outcome.err.count("\n") == 1
    for text in texts:
        assert text in outcome.err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_refused_connection_names_the_address(
    amphora_anywhere: Amphora, closed_port: int, words: list[str]
) -> None:
    outcome = amphora_anywhere(*words, "--url", f"amqp://127.0.0.1:{closed_port}")
    assert_one_line(outcome, Exit.NO_BROKER, f"127.0.0.1:{closed_port}: Connection refused")


@pytest.mark.parametrize("output", [[], ["--json"]], ids=str)
@pytest.mark.parametrize("option", ["--timeout", "--no-such"])
def test_a_url_that_is_given_to_another_option_is_shown_without_its_password(
    amphora_anywhere: Amphora, option: str, output: list[str]
) -> None:
    wrong = f"{option}=amqp://shop:s3cret@nowhere.invalid/%25"
    outcome = amphora_anywhere(*output, "ping", "math", wrong)
    assert outcome.code == Exit.USAGE
    assert "s3cret" not in outcome.out + outcome.err


def test_the_address_may_come_from_the_environment(
    amphora_anywhere: Amphora, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQP_URL", f"amqp://127.0.0.1:{closed_port}")
    outcome = amphora_anywhere("ping", "math")
    assert_one_line(outcome, Exit.NO_BROKER, f"127.0.0.1:{closed_port}", "AMQP_URL")


def test_all_hosts_of_a_url_are_tried(amphora_anywhere: Amphora, closed_port: int) -> None:
    hosts = f"127.0.0.1:{closed_port},[::1]:{closed_port}"
    outcome = amphora_anywhere("ping", "math", "--url", f"amqp://{hosts}")
    assert_one_line(outcome, Exit.NO_BROKER, f"127.0.0.1:{closed_port}", f"[::1]:{closed_port}")


def test_options_may_stand_before_the_command_and_the_latter_wins(
    amphora_anywhere: Amphora, broker: Broker, closed_port: int
) -> None:
    closed = f"amqp://127.0.0.1:{closed_port}"
    assert amphora_anywhere("--url", closed, "ping", "math").code == Exit.NO_BROKER
    assert amphora_anywhere("--url", closed, "queue", "list", "math").code == Exit.NO_BROKER
    outcome = amphora_anywhere("--url", closed, "ping", "no-such", "--url", broker.url)
    assert outcome.code == Exit.NOBODY
    outcome = amphora_anywhere("--url", broker.url, "queue", "--url", closed, "list", "math")
    assert outcome.code == Exit.NO_BROKER


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_wrong_password_is_told_and_not_shown(
    amphora_anywhere: Amphora, broker: Broker, words: list[str]
) -> None:
    url = f"amqp://guest:sesame@{broker.host}:{broker.port}/"
    outcome = amphora_anywhere(*words, "--url", url)
    assert_one_line(outcome, Exit.NOT_ALLOWED, "user 'guest'")
    assert "sesame" not in outcome.err


def test_a_missing_vhost_is_named(amphora_anywhere: Amphora, broker: Broker) -> None:
    url = f"amqp://guest:guest@{broker.host}:{broker.port}/nowhere"
    outcome = amphora_anywhere("ping", "math", "--url", url)
    assert_one_line(outcome, Exit.NOT_ALLOWED, "vhost 'nowhere'")


@pytest.mark.parametrize("url", ["http://example.org", "amqp://h:sesame", "amqp://h/a/b", "x"])
def test_a_url_that_cannot_be_understood_is_wrong_usage(
    amphora_anywhere: Amphora, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = amphora_anywhere("ping", "math", "--url", url)
    assert (outcome.code, outcome.out) == (Exit.USAGE, "")
    assert "Usage: amphora ping" in outcome.err
    monkeypatch.setenv("AMQP_URL", url)
    again = amphora_anywhere("ping", "math")
    assert again.code == Exit.USAGE
    assert again.err.count("AMQP_URL") == 1
    assert "sesame" not in outcome.err + again.err


def test_a_failure_of_any_command_is_an_object_for_programs(
    amphora_anywhere: Amphora, closed_port: int
) -> None:
    outcome = amphora_anywhere("ping", "math", "--url", f"amqp://127.0.0.1:{closed_port}", "--json")
    assert (outcome.code, outcome.err) == (3, "")
    error = outcome.json["error"]
    assert error.pop("message").startswith(f"no connection to 127.0.0.1:{closed_port}")
    assert error == {"type": "ConnectionLost", "exit_code": 3, "executed": False}


def test_debug_adds_the_traceback(amphora_anywhere: Amphora, closed_port: int) -> None:
    words = ["ping", "math", "--url", f"amqp://127.0.0.1:{closed_port}"]
    assert "Traceback" not in amphora_anywhere(*words).err
    assert "Traceback (most recent call last)" in amphora_anywhere(*words, "--debug").err


def test_an_error_of_amphora_itself_is_told_from_others(
    amphora_anywhere: Amphora, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("amphora.cli.operating.managing.ManagementClient")
    monkeypatch.setattr("amphora.cli.settings.connect", lambda *_: None)
    outcome = amphora_anywhere("ping", "math")
    assert_one_line(outcome, Exit.BUG, "internal error, NameError", "--debug")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RemoteException("KeyError"), Exit.FAILED),
        (AmphoraError("something"), Exit.FAILED),
        (Overloaded("too much"), Exit.FAILED),
        (ConnectionLost("gone"), Exit.NO_BROKER),
        (NoResult("late"), Exit.NO_ANSWER),
        (NoServer("nobody"), Exit.NOBODY),
        (WrongRequest("what?"), Exit.REFUSED),
        (ChannelClosed(403, "ACCESS_REFUSED"), Exit.NOT_ALLOWED),
        (ChannelClosed(404, "NOT_FOUND"), Exit.NOBODY),
        (ChannelClosed(406, "PRECONDITION_FAILED"), Exit.REFUSED),
        (ChannelClosed(541, "INTERNAL_ERROR"), Exit.FAILED),
        (ZeroDivisionError(), Exit.BUG),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: Exit) -> None:
    assert exit_code_of(error) == code


def test_what_the_broker_refused_to_declare_has_the_code_of_its_reason() -> None:
    error = AmphoraError("the queue is there with other settings")
    error.__cause__ = ChannelClosed(406, "PRECONDITION_FAILED")
    assert exit_code_of(error) == Exit.REFUSED


def test_a_sentence_is_one_line_whatever_is_in_it() -> None:
    assert "\n" not in sentence_of(AmphoraError("two\nlines\x1b[2J"))
    assert "\x1b" not in sentence_of(AmphoraError("two\nlines\x1b[2J"))


def test_every_exit_code_is_in_the_help_and_in_the_documentation(
    amphora_anywhere: Amphora,
) -> None:
    shown = amphora_anywhere("--help").out
    page = (ROOT / "docs" / "reference" / "cli.rst").read_text()
    table = dict(re.findall(r"^   \* - (\d+)\n     - (.*)\.$", page, re.MULTILINE))
    assert set(MEANINGS) == set(Exit)
    for code, meaning in MEANINGS.items():
        assert f"  {code.value:>3}  {meaning}\n" in shown
        assert table.pop(str(code.value)) == meaning
    assert not table


def test_ctrl_c_is_quiet(closed_port: int, broker: Broker, namespace: str) -> None:
    code = (
        "import os, signal, gevent, amphora.cli.lookup as lookup\n"
        "lookup.find_queue = lambda *_: (os.kill(os.getpid(), signal.SIGINT), gevent.sleep(30))\n"
        "from amphora.cli import main\n"
        f"main(['queue', 'list', {namespace!r}])"
    )
    with PythonProcess("-c", code, env={"AMQP_URL": broker.url}) as process:
        assert process.wait() == Exit.INTERRUPTED
        assert process.output.strip() == ""


def test_a_reader_that_has_seen_enough_is_no_reason_to_complain() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "amphora", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=80) == Exit.FAILED


def test_no_code_is_used_for_two_things() -> None:
    assert len(set(failures.Exit)) == len(failures.Exit.__members__)


TIMED = [
    ["call", "math.add", "1", "2"],
    ["call", "math.add", "1", "2", "--fanout"],
    ["send", "math", '{"c": "add"}'],
    ["trace", "math.add", "1", "2"],
    ["bench", "math.add", "1", "2"],
    ["services"],
    ["ping", "math"],
    ["kill", "math"],
    ["kill", "math", "--worker", "math-0123456789"],
    ["pause", "math"],
    ["stubs", "math"],
]
UNTIMED = [
    ["queue", "list", "math", "Alice", "Bob"],
    ["queue", "create", "math", "Alice"],
    ["queue", "remove", "math", "Alice"],
    ["queue", "purge", "math"],
    ["dead", "list", "math"],
    ["dead", "retry", "math", "--all"],
]


def shake_hands_and_be_silent(peer: Conversation) -> None:
    """Fall silent behind the handshake, or in it, if the client's time is over before."""
    with suppress(PeerFailure):
        peer.handshake()
        peer.silent()


SILENCE = {
    "before the handshake": Conversation.silent,
    "behind the handshake": shake_hands_and_be_silent,
}


@pytest.mark.parametrize("words", TIMED + UNTIMED, ids=" ".join)
@pytest.mark.parametrize("when", SILENCE)
def test_a_broker_that_falls_silent_is_given_up_within_the_timeout(
    amphora_anywhere: Amphora, monkeypatch: pytest.MonkeyPatch, when: str, words: list[str]
) -> None:
    limit = 0.5
    monkeypatch.setattr(lookup, "LAST_LOOK", 0.1)
    for module in (lookup, queues, dead):
        monkeypatch.setattr(module, "TIMEOUT", limit)
    timeout = ["--timeout", str(limit)] if words in TIMED else []
    with ScriptedPeer(SILENCE[when]) as peer:
        outcome = amphora_anywhere(*words, *timeout, "--url", peer.url)
    code = outcome.code
    assert code in (Exit.NO_BROKER, Exit.NO_ANSWER)
    assert_one_line(outcome, Exit(code))
    # Not 0.499993 s.
    waited = re.search(r"within (\d(\.\d{1,3})?) s", outcome.err)
    assert waited is not None
    assert float(waited[1]) <= limit
