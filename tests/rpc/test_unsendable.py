"""A handler whose result cannot be sent has failed, and everybody is told so."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any
from unittest.mock import Mock

import pytest

from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, WrongRequest, WrongResult
from amphora.rpc.client.management import ManagementClient
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
