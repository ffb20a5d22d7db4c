"""A server in a script ends warmly on SIGTERM and ctrl-C: nothing that it has taken is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import gevent
import pytest

from amphora.rpc.server.stop_signals import ONE_SIGNAL
from tests.support.brokers import Broker, on_embedded
from tests.support.rpc import MakeClient, RunProgram
from tests.support.waiting import wait_until

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@on_embedded
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_an_idle_server(
    run_program: RunProgram, make_client: MakeClient, number: signal.Signals
) -> None:
    server = run_program("server")
    assert make_client().call.pid() == server.pid
    server.signal(number)
    assert server.wait() == 0
    assert "the program goes on" in server.printed
    assert f"{number.name}, stopping" in server.output


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_running_handlers_finish_and_takes_nothing_new(
    run_program: RunProgram,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    release = tmp_path / "release"
    server = run_program("server")
    client = make_client()
    old = [client.defer.wait_for_file(str(release)) for _ in range(3)]
    wait_until(lambda: server.output.count("waiting for") == 3)
    server.signal(number)
    wait_until(lambda: broker.consumers(f"rpc_{namespace}_request") == 0)
    new = client.defer(wait_publish=True).pid()
    release.touch()
    assert [result.get() for result in old] == [server.pid] * 3
    assert server.wait() == 0

    other = run_program("server")
    assert new.get() == other.pid


def test_signals_that_come_together_are_one(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    server = run_program("server")
    result = make_client().defer.wait_for_file(str(release))
    server.wait_for("waiting for")
    # As ctrl-C and then a SIGTERM of the program's parent, which got the ctrl-C, too.
    server.signal_together(signal.SIGINT, signal.SIGTERM)
    server.wait_for(", stopping")
    release.touch()
    assert result.get() == server.pid
    assert server.wait() == 0
    assert "at once" not in server.output


def test_a_second_signal_gives_running_handlers_up_to_another_server(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    server = run_program("server")
    result = make_client().defer.wait_for_file(str(release))
    server.wait_for("waiting for")
    server.terminate()
    server.wait_for("SIGTERM, stopping")
    gevent.sleep(ONE_SIGNAL + 0.1)
    server.terminate()
    assert server.wait() == 0
    assert "SIGTERM again, stopping at once" in server.output

    release.touch()
    other = run_program("server")
    assert result.get() == other.pid


@on_embedded
def test_a_second_signal_gives_up_what_never_ends_of_on_stop(run_program: RunProgram) -> None:
    server = run_program("never_closed", ready="serving")
    server.terminate()
    server.wait_for("closing the database")
    gevent.sleep(ONE_SIGNAL + 0.1)
    server.terminate()
    assert server.wait() == 0
    assert "the program goes on" in server.printed
    assert "close_database of on_stop has not ended, and was given up" in server.output


def test_a_second_signal_ends_a_server_whose_handler_never_gives_way(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    server = run_program("server")
    result = make_client().defer.hold_processor_until_file(str(release))
    server.wait_for("holding the processor")
    server.terminate()
    server.wait_for("a handler does not give way; another signal ends it")
    server.terminate()
    # As the shell says it: 128 + the number of the signal.
    assert server.wait() == 128 + signal.SIGTERM
    release.touch()
    other = run_program("server")
    assert result.get() == other.pid


def test_signals_that_come_together_do_not_end_a_handler_that_never_gives_way(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    server = run_program("server")
    result = make_client().defer.hold_processor_until_file(str(release))
    server.wait_for("holding the processor")
    server.signal_together(signal.SIGINT, signal.SIGTERM)
    server.wait_for("a handler does not give way; another signal ends it")
    release.touch()
    assert result.get() == server.pid
    assert server.wait() == 0


def test_children_that_a_program_forks_while_it_serves_have_the_signals_of_the_program(
    run_program: RunProgram, make_client: MakeClient
) -> None:
    run_program("server")
    client = make_client()
    child = client.call.fork()
    assert client.call.end_child(child) == -signal.SIGTERM


@on_embedded
def test_signals_reach_all_servers_of_a_program(run_program: RunProgram) -> None:
    program = run_program("two_servers", ready="both serve")
    program.terminate()
    assert program.wait() == 0
    assert program.printed == ["both serve", "one has stopped", "both have stopped"]


@on_embedded
def test_a_signal_stops_a_server_that_was_prepared_to_stop(
    run_program: RunProgram, make_client: MakeClient, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    server = run_program("server")
    client = make_client()
    result = client.defer.wait_for_file(str(release))
    server.wait_for("waiting for")
    client.call.prepare_stop()
    server.terminate()
    server.wait_for("SIGTERM, stopping")
    release.touch()
    assert result.get() == server.pid
    assert server.wait() == 0


def test_a_signal_stops_a_server_that_never_found_its_broker(
    run_program: RunProgram, namespace: str
) -> None:
    server = run_program("server_without_broker", ready="connecting again")
    server.terminate()
    assert server.wait() == 0


@on_embedded
def test_the_program_has_its_own_signals_back_after_serving(run_program: RunProgram) -> None:
    program = run_program("interrupted")
    assert program.wait() == 0
    assert program.printed == [
        "stopped, 0 signals of its own",
        "then own handler",
        "then KeyboardInterrupt",
    ]


@on_embedded
def test_a_program_may_keep_its_own_signals_while_it_serves(run_program: RunProgram) -> None:
    program = run_program("own_signals", ready="serving")
    program.terminate()
    assert program.wait() == 0
    assert program.printed == ["serving", "stopping it myself", "stopped"]
