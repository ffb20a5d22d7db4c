"""The web program of `examples/messages`, used by browsers and by what browsers send."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from amphora.rpc.contract import naming
from tests.examples.conftest import on_one_broker
from tests.support.brokers import Broker
from tests.support.browser import Browser
from tests.support.http import Answer, ask, asking
from tests.support.ports import claimed_port, claimed_ports
from tests.support.processes import ROOT, PythonProcess
from tests.support.waiting import wait_until

PROGRAM = ROOT / "examples" / "messages"


@dataclass
class Api:
    """An API server, asked as its page asks it."""

    process: PythonProcess
    port: int
    page: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def sign_in(self, username: str) -> None:
        assert ask(self.port, "/sign-in", {"username": username}).status == 200

    def send(self, username: str, text: str) -> dict[str, Any]:
        asked = {"username": "Bob", "to": username, "text": text, "id": secrets.token_hex(8)}
        answer: dict[str, Any] = ask(self.port, "/send", asked).json
        return answer

    def poll(self, username: str, seen: str | None = None) -> dict[str, Any]:
        """Return the next message for a user, waiting for it."""
        answer = ask(self.port, "/poll", self.polled(username, seen))
        message: dict[str, Any] = answer.json["message"]
        return message

    def polled(self, username: str, seen: str | None) -> dict[str, Any]:
        """Return what its page asks then."""
        return {"username": username, "page": self.page, "seen": seen}


@pytest.fixture(scope="module")
def url(broker_url: str) -> Iterator[str]:
    """The broker's URL; what the example keeps there is removed in the end."""
    yield broker_url
    for namespace in ("core", "messages"):
        Broker(broker_url).forget(namespace)


@pytest.fixture(scope="module")
def start_api(url: str) -> Iterator[Callable[[], Api]]:
    """Start API servers."""
    with ExitStack() as running:

        def start() -> Api:
            script = PROGRAM / "api.py"
            process = PythonProcess(
                script, "--port", "0", ready="API server", env={"AMQP_URL": url}
            )
            running.enter_context(process)
            return Api(process, int(process.wait_for("API server").rpartition(":")[2]))

        yield start


@pytest.fixture(scope="module")
def core(url: str) -> Iterator[PythonProcess]:
    """Core, which runs."""
    with PythonProcess(PROGRAM / "core.py", ready="serving ", env={"AMQP_URL": url}) as process:
        yield process


@pytest.fixture(scope="module")
def apis(core: PythonProcess, start_api: Callable[[], Api]) -> tuple[Api, Api]:
    """Two API servers, beside Core."""
    return start_api(), start_api()


@pytest.fixture
def new_user(url: str) -> Iterator[Callable[[str], str]]:
    """Make up names that nobody else has; what waits for them is removed."""
    names = []

    def make(name: str) -> str:
        names.append(f"{name} {secrets.token_hex(3)}")
        return names[-1]

    yield make
    for name in names:
        Broker(url).delete_queue(naming.labelled_queue("messages", name))


@pytest.fixture
def alice(new_user: Callable[[str], str]) -> str:
    return new_user("Alice")


@pytest.fixture
def bob(new_user: Callable[[str], str]) -> str:
    return new_user("Bob")


@contextmanager
def polling(api: Api, username: str, seen: str) -> Iterator[None]:
    """Poll; at the end of the block the browser hangs up."""
    with asking(api.port, "/poll", api.polled(username, seen), "POST"):
        yield


def ready_and_consumers(url: str, username: str) -> tuple[int, int]:
    """Return how many messages wait for a user in the broker, and how many pages for them."""
    broker, queue = Broker(url), naming.labelled_queue("messages", username)
    return broker.ready_messages(queue), broker.consumers(queue)


# -- in a browser -------------------------------------------------------------------------------


@pytest.mark.slow
@on_one_broker
def test_users_on_different_servers_write_to_each_other(
    browser: Browser, apis: tuple[Api, Api], alice: str, bob: str
) -> None:
    pages = [browser.open(api.url) for api in apis]
    for page, name in zip(pages, (alice, bob), strict=True):
        page.type("#name", f"{name}\n")
        page.wait_for_text("#messages", f"Hello, {name}!")
    hers, his = pages

    hers.type("#to", bob)
    hers.type("#text", "Are you there?\n")
    his.wait_for_text("#messages", "Are you there?")
    # He answers: to whom is filled in.
    his.type("#text", "Yes, <b>Alice</b>!\n")
    hers.wait_for_text("#messages", "Yes, <b>Alice</b>!")
    for page in pages:
        page.close()


@pytest.mark.slow
@on_one_broker
def test_what_is_sent_to_a_user_whose_tab_is_closed_is_there_when_she_returns(
    browser: Browser, apis: tuple[Api, Api], alice: str
) -> None:
    here, there = apis
    page = browser.open(here.url)
    page.type("#name", f"{alice}\n")
    page.wait_for_text("#messages", f"Hello, {alice}!")
    page.close()
    # At once: whether the server has noticed is not to matter.
    assert there.send(alice, "Dinner is ready.") == {"known": True}
    assert there.send(alice, "It gets cold.") == {"known": True}

    again = browser.open(there.url)
    again.type("#name", f"{alice}\n")
    again.wait_for_text("#messages", "It gets cold.")
    shown = again.text("#messages")
    assert shown.index("Dinner is ready.") < shown.index("It gets cold.")
    again.close()


@pytest.mark.slow
@on_one_broker
def test_a_page_says_that_nobody_has_that_name(
    browser: Browser, apis: tuple[Api, Api], alice: str
) -> None:
    page = browser.open(apis[0].url)
    page.type("#name", f"{alice}\n")
    page.wait_for_text("#messages", f"Hello, {alice}!")
    page.type("#to", "Bbo")
    page.type("#text", "Hello?\n")
    page.wait_for_text("#messages .failed", "nobody has signed in as Bbo yet")
    page.close()


@pytest.mark.slow
@on_one_broker
def test_a_page_that_is_loaded_again_is_still_signed_in(
    browser: Browser, apis: tuple[Api, Api], alice: str
) -> None:
    here, there = apis
    page = browser.open(here.url)
    page.type("#name", f"{alice}\n")
    page.wait_for_text("#messages", f"Hello, {alice}!")
    page.go(here.url)
    there.send(alice, "Still there?")
    page.wait_for_text("#messages", "Still there?")
    page.close()


@pytest.mark.slow
@on_one_broker
def test_a_page_goes_on_at_the_other_server_when_its_own_is_killed(
    browser: Browser, url: str, alice: str, bob: str
) -> None:
    with everything(url) as (program, (here, there)):
        hers, his = browser.open(here.url), browser.open(there.url)
        for page, name in ((hers, alice), (his, bob)):
            page.type("#name", f"{name}\n")
            page.wait_for_text("#messages", f"Hello, {name}!")
        hers.wait_for_text("#state", f"on API server 127.0.0.1:{here.port}")
        os.kill(api_process(program, here), signal.SIGKILL)
        hers.wait_for_text("#state", f"on API server 127.0.0.1:{there.port}")
        his.type("#to", alice)
        his.type("#text", "Are you still there?\n")
        hers.wait_for_text("#messages", "Are you still there?")
        hers.type("#text", "I noticed nothing.\n")
        his.wait_for_text("#messages", "I noticed nothing.")
        assert hers.text("#messages").count(f"Hello, {alice}!") == 1
        assert hers.text("#messages .failed") == ""
        for page in (hers, his):
            page.close()


# -- as the page does it ------------------------------------------------------------------------


def test_a_message_that_was_seen_does_not_come_again(
    apis: tuple[Api, Api], alice: str, url: str
) -> None:
    here, there = apis
    here.sign_in(alice)
    here.send(alice, "the second")
    greeting = here.poll(alice)
    second = here.poll(alice, seen=greeting["id"])
    assert second["text"] == "the second"
    with polling(here, alice, seen=second["id"]):
        wait_until(lambda: ready_and_consumers(url, alice) == (0, 1))
    wait_until(lambda: ready_and_consumers(url, alice) == (0, 0))
    here.send(alice, "the third")
    assert there.poll(alice)["text"] == "the third"


def test_a_message_that_is_not_seen_is_given_again(apis: tuple[Api, Api], alice: str) -> None:
    here, _ = apis
    here.sign_in(alice)
    assert here.poll(alice) == here.poll(alice)


def test_a_browser_that_hangs_up_leaves_its_messages_in_the_queue(
    apis: tuple[Api, Api], alice: str, url: str
) -> None:
    here, there = apis
    here.sign_in(alice)
    greeting = here.poll(alice)
    with polling(here, alice, seen=greeting["id"]):
        wait_until(lambda: ready_and_consumers(url, alice) == (0, 1))
    wait_until(lambda: ready_and_consumers(url, alice) == (0, 0))
    there.send(alice, "while she is away")
    assert ready_and_consumers(url, alice) == (1, 0)
    assert there.poll(alice)["text"] == "while she is away"


def test_a_message_in_the_hands_of_a_killed_server_goes_to_another(
    apis: tuple[Api, Api], start_api: Callable[[], Api], alice: str
) -> None:
    other, _ = apis
    doomed = start_api()
    doomed.sign_in(alice)
    in_hand = doomed.poll(alice)
    doomed.process.kill()
    assert other.poll(alice) == in_hand


def test_a_server_that_is_stopped_gives_back_what_was_not_seen(
    apis: tuple[Api, Api], start_api: Callable[[], Api], alice: str
) -> None:
    other, _ = apis
    stopping = start_api()
    stopping.sign_in(alice)
    in_hand = stopping.poll(alice)
    stopping.process.terminate()
    assert stopping.process.wait() == 0
    assert other.poll(alice) == in_hand


def test_nobody_can_be_written_to_who_never_signed_in(apis: tuple[Api, Api]) -> None:
    assert apis[0].send("Nobody at all", "Hello?") == {"known": False}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/sign-in", {}),
        ("/sign-in", {"username": " "}),
        ("/sign-in", {"username": "x" * 41}),
        ("/sign-in", ["Alice"]),
        ("/poll", {"username": "Alice", "page": 1}),
        ("/send", {"username": "Alice", "to": "Bob", "text": "", "id": "1"}),
        ("/send", {"text": "x" * 100_000}),
    ],
)
def test_what_no_page_sends_is_refused(apis: tuple[Api, Api], path: str, asked: Any) -> None:
    answer = ask(apis[0].port, path, asked)
    assert answer.status == 400
    assert answer.json["error"]


def test_other_paths_are_not_found(apis: tuple[Api, Api]) -> None:
    answers: list[Answer] = [ask(apis[0].port, "/handlers.py"), ask(apis[0].port, "/other", {})]
    assert [answer.status for answer in answers] == [404, 404]


# -- as a person starts it ----------------------------------------------------------------------


@contextmanager
def everything(url: str) -> Iterator[tuple[PythonProcess, tuple[Api, Api]]]:
    """Run `run.py`, and its two API servers."""
    with claimed_ports(2) as (one, other):
        arguments = PROGRAM / "run.py", str(one), str(other)
        with PythonProcess(*arguments, ready="serving ", env={"AMQP_URL": url}) as program:
            apis = Api(program, one), Api(program, other)
            for api in apis:
                program.wait_for(api.url.rstrip("/"))
            yield program, apis


def api_process(program: PythonProcess, api: Api) -> int:
    """Return the id of an API server's process, as `run.py` tells it."""
    return int(program.wait_for(f"on port {api.port}: kill -9").split()[-1])


def test_one_command_starts_all_of_it_and_ends_all_of_it(url: str, alice: str) -> None:
    with everything(url) as (program, (here, there)):
        here.sign_in(alice)
        greeting = there.poll(alice)
        sending = PythonProcess(PROGRAM / "send.py", alice, "from afar", env={"AMQP_URL": url})
        with sending:
            assert sending.wait() == 0
        assert there.poll(alice, seen=greeting["id"])["text"] == "from afar"
        program.terminate()
        assert program.wait() == 0
        for api in (here, there):
            with pytest.raises(ConnectionRefusedError):
                ask(api.port, "/")


def test_it_goes_on_as_long_as_an_api_server_is_there(url: str, alice: str) -> None:
    with everything(url) as (program, (here, there)):
        here.sign_in(alice)
        in_hand = here.poll(alice)
        os.kill(api_process(program, here), signal.SIGKILL)
        assert there.poll(alice) == in_hand
        program.wait_for(f"The API server on port {here.port} has ended; on with {there.port}.")
        assert there.send(alice, "still here") == {"known": True}
        os.kill(api_process(program, there), signal.SIGTERM)
        assert program.wait() == 0


def test_it_ends_when_a_part_cannot_run(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, claimed_port() as free:
        arguments = PROGRAM / "run.py", str(free), str(taken.getsockname()[1])
        with PythonProcess(*arguments, env={"AMQP_URL": url}) as program:
            program.wait_for("cannot listen on port")
            program.wait()


def test_without_a_broker_it_says_so() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = {"AMQP_URL": "amqp://{}:{}".format(*silent.getsockname())}
        with PythonProcess(PROGRAM / "run.py", env=nowhere) as program:
            assert program.wait() == 1
            assert "There is no broker to run with" in program.output
