"""`amphora broker`."""

from __future__ import annotations

import signal

import pytest

from amphora import AuthenticationError, ChannelClosed, Properties, Session
from amphora.testing import Broker
from tests.broker.test_listening import addresses_of_localhost
from tests.cli.conftest import Amphora
from tests.support.processes import PythonProcess

BROKER = ("-m", "amphora", "broker", "--port", "0")
READY = "is ready; ctrl-C ends it"


def url_of(process: PythonProcess, login: str = "") -> str:
    url = process.wait_for(READY).split()[0]
    return url.replace("amqp://", f"amqp://{login}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_end(number: signal.Signals) -> None:
    with PythonProcess(*BROKER) as process:
        with Session(url_of(process)) as session:
            session.channel().queue_declare("q")
            process.signal(number)
            assert process.wait() == 0
        assert len(process.lines) == 1


def test_verbose_tells_who_comes_and_what_is_refused() -> None:
    with PythonProcess(*BROKER, "--verbose", "--user", "alice:secret") as process:
        with Session(url_of(process, "alice:secret@")) as session:
            session.channel().queue_declare("q")
        process.wait_for("user alice has logged in")
        wrong = url_of(process, "alice:wrong@")
        with Session(wrong) as session, pytest.raises(AuthenticationError, match="403"):
            session.channel()
        process.wait_for("ACCESS_REFUSED")
        assert "secret" not in process.output


def test_several_users_and_virtual_hosts_can_be_named() -> None:
    options = ("--user", "alice:a", "--user", "bob:b", "--vhost", "one", "--vhost", "two")
    with PythonProcess(*BROKER, *options) as process:
        for login, vhost in (("alice:a@", "one"), ("bob:b@", "two")):
            with Session(url_of(process, login) + vhost) as session:
                session.channel()


def test_a_port_that_is_taken_is_named(amphora_anywhere: Amphora) -> None:
    with Broker() as taken:
        outcome = amphora_anywhere("broker", "--port", taken.port)
    assert outcome.code == 1
    assert f"cannot listen on 127.0.0.1:{taken.port}: Address already in use" in outcome.err


def test_it_hears_all_addresses_of_this_machine_and_of_it_alone() -> None:
    with PythonProcess(*BROKER) as process:
        url = url_of(process)
        assert "127.0.0.1" in url
        for host in addresses_of_localhost():
            place = f"[{host}]" if ":" in host else host
            with Session(url.replace("127.0.0.1", place)) as session:
                session.channel().close()


def test_the_largest_message_can_be_named() -> None:
    with (
        PythonProcess(*BROKER, "--max-message-size", "100") as process,
        Session(url_of(process)) as session,
    ):
        channel = session.channel()
        channel.publish("", "q", Properties(), b"x" * 101)
        with pytest.raises(ChannelClosed, match="larger than configured max size 100"):
            channel.queue_declare("q")


@pytest.mark.parametrize("size", ["0", "-1", "16MB", "536870913"])
def test_a_largest_message_that_there_cannot_be_is_wrong_usage(
    amphora_anywhere: Amphora, size: str
) -> None:
    outcome = amphora_anywhere("broker", "--max-message-size", size)
    assert outcome.code == 2
    assert "--max-message-size" in outcome.err


def test_a_host_that_is_not_here_is_named(amphora_anywhere: Amphora) -> None:
    outcome = amphora_anywhere("broker", "--host", "192.0.2.7")
    assert outcome.code == 1
    assert "cannot listen on 192.0.2.7:5672" in outcome.err
    assert "--host names another address" in outcome.err


def test_a_user_without_a_password_is_wrong_usage(amphora_anywhere: Amphora) -> None:
    outcome = amphora_anywhere("broker", "--user", "alice")
    assert outcome.code == 2
    assert "a user is written NAME:PASSWORD" in outcome.err
