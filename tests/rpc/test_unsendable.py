"""A handler whose result cannot be sent has failed, and everybody is told so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any
from unittest.mock import Mock

import pytest
from gevent.event import Event

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.client.management import ManagementClient
from amphora.transport.publishing import publisher
from tests.support.brokers import ManagedBroker
from tests.support.rpc import MakeClient, MakeServer
from tests.support.waiting import wait_until


class Foo:
    pass


def report() -> Any:
    return {"rows": [1, {"owner": Foo()}]}


def large() -> str:
    return "x" * 20_000


NOT_CALLED = "if it was meant to be called, send what the call returns"
PLACE = 'result["rows"][1]["owner"]: type Foo cannot be sent'


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_the_caller_is_told_which_function_and_where(
    make_server: MakeServer, make_client: MakeClient, namespace: str, serializer: str
) -> None:
    make_server(report)
    with pytest.raises(WrongResult) as caught:
        make_client(serializer=serializer).call.report()
    assert str(caught.value) == f"the result of {namespace}.report cannot be sent: {PLACE}"
    assert caught.value.executed is True


def test_it_is_counted_as_an_exception_and_not_as_processed(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(report, large, max_message_size=10_000)
    client = make_client()
    for call in (client.call.report, client.call.large, client.call.report):
        with pytest.raises(WrongResult):
            call()
    assert (server.processed, server.exceptions) == (0, 3)
    functions = server.statistics.summary()["functions"]
    assert (functions["report"]["count"], functions["report"]["errors"]) == (2, 2)
    assert (functions["large"]["count"], functions["large"]["errors"]) == (1, 1)


def test_it_is_logged_with_the_worker_the_function_and_the_place(
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server(report)
    with caplog.at_level(logging.WARNING, "amphora.rpc"), pytest.raises(WrongResult):
        make_client().call.report()
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if PLACE in line]
    assert line.startswith(f"{server.worker_id}: report ")


def test_a_result_that_is_too_large_is_told_with_both_sizes(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    make_server(large, max_message_size=10_000)
    with pytest.raises(WrongResult, match=r"large cannot be sent: it has 20\d\d\d bytes.*10000"):
        make_client().call.large()


def test_the_program_is_told_of_it_as_of_an_error_of_its_handler(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    told: list[tuple[str, BaseException]] = []
    make_server(report).on_error(lambda name, error: told.append((name, error)))
    with pytest.raises(WrongResult):
        make_client().call.report()
    ((name, error),) = told
    assert name == "report"
    assert isinstance(error, WrongResult)
    assert PLACE in str(error)


def test_a_cast_whose_result_nobody_wants_is_processed(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(report)
    make_client().cast.report()
    wait_until(lambda: server.processed + server.exceptions == 1)
    assert server.processed == 1


def test_answers_of_many_servers_and_of_the_management_name_the_place(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server(report, kind=AmqpRpcFanoutServer)
    server.add_command(report)
    wait_until(lambda: server.ready)
    client = make_client(AmqpRpcFanoutClient)
    (reply,) = client.gather.report()
    assert PLACE in str(reply.error)
    with ManagementClient(session=client.session) as management:
        (reply,) = management.ask(namespace, "report")
    assert PLACE in str(reply.error)


def test_arguments_that_cannot_be_sent_are_named_with_their_place(make_client: MakeClient) -> None:
    client = make_client()
    for call, text in (
        (lambda: client.call.f(1, [Foo()]), "args[1][0]: type Foo cannot be sent"),
        (lambda: client.defer.f(a=1, b={"c": Foo()}), 'b["c"]: type Foo cannot be sent'),
        (lambda: client.cast.f(Foo()), "args[0]: type Foo cannot be sent"),
        (lambda: client.call.f(Foo), "args[0]: type type cannot be sent"),
        (lambda: client.call.f(date), "args[0]: type type cannot be sent"),
        (lambda: client.call.f(Mock()), f"args[0]: type Mock cannot be sent; {NOT_CALLED}"),
        (lambda: client.call.f(report), f"args[0]: type function cannot be sent; {NOT_CALLED}"),
        # Looking for what it can be sent as calls nothing.
        (lambda: client.call.f(client.call.g), f"args[0]: type Step cannot be sent; {NOT_CALLED}"),
    ):
        with pytest.raises(WrongRequest) as caught:
            call()
        assert str(caught.value).endswith(f".f cannot be sent: {text}")
        assert caught.value.executed is False


def test_an_error_is_told_where_messages_must_be_small(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def fail() -> None:
        raise ValueError("short", "x" * 5000)

    make_server(fail, max_message_size=1000)
    with pytest.raises(Exception, match=r"ValueError: .*short"):
        make_client(timeout=5).call.fail()


def test_a_log_or_a_hook_that_fails_costs_the_caller_nothing(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("no log for you")

    def hook(name: str, error: BaseException) -> None:
        runs.append(name)
        raise RuntimeError("no hook for you")

    runs: list[str] = []
    make_server(report).on_error(hook)
    logger, broken = logging.getLogger("amphora.rpc"), Broken()
    logger.addFilter(broken)
    try:
        with pytest.raises(WrongResult):
            make_client().call.report()
    finally:
        logger.removeFilter(broken)
    assert runs == ["report"]


# -- what only the broker finds too large ---------------------------------------------------------


def large_item() -> Iterator[str]:
    yield "x" * 20_000


def large_end() -> Any:
    yield "small"
    return "x" * 20_000


def large_error() -> None:
    raise ValueError("x" * 20_000)


@pytest.fixture
def narrow(managed_broker: ManagedBroker) -> Iterator[None]:
    """The broker takes messages of 9,000 bytes at most, and servers and clients do not know."""
    with managed_broker.messages_up_to(9000):
        yield


LARGE = "larger than .*max size 9000; raise max_message_size in the broker"


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.call.large(),
        lambda client: client.call.large_error(),
        lambda client: list(client.stream.large_end()),
        lambda client: list(client.stream.large_item()),
    ],
    ids=["a result", "an error", "the end of a stream", "an item of a stream"],
)
def test_an_answer_that_is_too_large_for_the_broker_is_replaced_by_the_reason(
    make_server: MakeServer, make_client: MakeClient, ask: Callable[[AmqpRpcClient], Any]
) -> None:
    make_server(large, large_error, large_item, large_end)
    client = make_client()
    with pytest.raises(WrongResult, match=LARGE) as caught:
        ask(client)
    assert caught.value.executed is True


@pytest.mark.usefixtures("narrow")
def test_an_item_that_is_too_large_for_the_broker_ends_a_handler_that_goes_on(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    ended: list[bool] = []

    def items() -> Iterator[str]:
        try:
            while True:
                yield "x" * 20_000
        finally:
            ended.append(True)

    server = make_server(items)
    with pytest.raises(WrongResult, match=LARGE):
        next(make_client().stream.items())
    wait_until(lambda: ended == [True] and server.running == 0)


@pytest.mark.usefixtures("narrow")
def test_an_item_that_is_found_too_large_for_the_broker_before_its_handler_ends_is_not_left_out(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    found = Event()

    def last_item() -> Iterator[str]:
        yield "x" * 20_000
        assert found.wait(80)

    server = make_server(last_item)
    stream = make_client().stream.last_item()
    wait_until(lambda: any(outlet.refused for outlet in server._worker.outlets._open.values()))
    found.set()
    with pytest.raises(WrongResult, match=LARGE):
        list(stream)


@pytest.mark.usefixtures("narrow")
def test_each_server_tells_a_gather_that_its_answer_is_too_large_for_the_broker(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(large, kind=AmqpRpcFanoutServer)
    (reply,) = make_client(AmqpRpcFanoutClient).gather.large()
    assert reply.worker == server.worker_id
    with pytest.raises(WrongResult, match=LARGE):
        reply.get()


@pytest.mark.usefixtures("narrow")
def test_what_is_sent_without_a_confirm_and_is_too_large_for_the_broker_is_logged(
    make_server: MakeServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher.log, "_last", {})
    make_server(large)
    result = make_client(durable=False).defer.large()
    wait_until(lambda: "without a confirm just now may be lost" in caplog.text)
    result.cancel()
