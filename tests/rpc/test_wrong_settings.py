"""Settings and callbacks that cannot be meant are told of where they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any
from unittest.mock import MagicMock

import pytest

from amphora import AmqpRpcClient, AmqpRpcServer, OutgoingCall, Session
from amphora.rpc.context.call import CallContext
from amphora.transport.connections.endpoint import endpoint
from amphora.wire.properties import Properties

SERVER_FLAGS = ["tracebacks", "dead_letter", "cancellable", "access_log"]
TERM_FLAGS = ["threadpool", "idempotent", "cancellable", "resumable"]
OPTION_FLAGS = ["idempotent", "inherit_deadline", "wait_publish"]


@pytest.fixture
def server() -> Iterator[AmqpRpcServer]:
    with AmqpRpcServer("shop") as made:
        yield made


@pytest.fixture
def client() -> Iterator[AmqpRpcClient]:
    with AmqpRpcClient("shop") as made:
        yield made


async def coroutine(*arguments: object) -> None:
    """Would not run."""


def generator(*arguments: object) -> Iterator[None]:
    """Would not run either."""
    yield


class Awaited:
    async def __call__(self, *arguments: object) -> None:
        """Would not run either."""


BODIES_THAT_WOULD_NOT_RUN = [coroutine, generator, Awaited(), partial(coroutine, 1)]


def takers(server: AmqpRpcServer, client: AmqpRpcClient) -> list[Callable[[Any], object]]:
    call = OutgoingCall("shop", "find", "call", (), {}, {}, None)
    served = CallContext(Properties(), "shop", "worker", False, None, None, ())
    return [
        server.on_start,
        server.on_stop,
        server.on_done,
        server.on_error,
        server.middleware,
        client.use,
        client.tune_function("find"),
        call.when_done,
        served.when_done,
    ]


def test_a_callback_that_cannot_be_called_is_refused(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    for take in takers(server, client):
        with pytest.raises(TypeError, match="takes a function, not 5"):
            take(5)


@pytest.mark.parametrize("callback", BODIES_THAT_WOULD_NOT_RUN, ids=lambda each: repr(each)[:20])
def test_a_callback_whose_body_would_not_run_is_refused(
    callback: Any, server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    for take in takers(server, client):
        with pytest.raises(TypeError, match="would not run its body"):
            take(callback)


def test_a_callback_that_takes_something_else_is_refused(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    def odd(one: int, two: int, three: int) -> None:
        """Nothing is called with three arguments."""

    for take, called in (
        (server.on_start, "on_start calls its function as odd()"),
        (server.on_stop, "on_stop calls its function as odd()"),
        (server.on_done, "on_done calls its function as odd(call, outcome)"),
        (server.on_error, "on_error calls its function as odd(name, error)"),
        (server.middleware, "middleware calls its function as odd(call, proceed)"),
        (client.use, "use calls its function as odd(call, proceed)"),
        (client.tune_function("f"), "tune_function calls its function as odd(args, kwargs)"),
    ):
        with pytest.raises(TypeError) as caught:
            take(odd)  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"{called}, which takes (one: ")


def test_a_callback_may_take_more_than_it_gets(
    server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    def open_minded(*arguments: Any, more: int = 0) -> Any:
        """Takes anything."""

    @wraps(open_minded)
    def narrow(call: Any, proceed: Any) -> Any:
        """Takes less than the function that it wraps."""

    for take in takers(server, client):
        take(open_minded)
        take(partial(open_minded, more=1))
    server.middleware(narrow)
    client.use(narrow)
    with pytest.raises(TypeError, match="on_start calls its function as open_minded"):
        server.on_start(narrow)  # type: ignore[type-var]


def test_any_other_callback_is_taken(server: AmqpRpcServer, client: AmqpRpcClient) -> None:
    for take in takers(server, client):
        take(MagicMock())
        take(print)


@pytest.mark.parametrize("value", ["false", 0, None, []])
@pytest.mark.parametrize("flag", SERVER_FLAGS)
def test_a_setting_of_a_server_is_on_or_off(flag: str, value: object) -> None:
    settings: Any = {flag: value}
    with pytest.raises(ValueError, match=f"{flag} must be True or False, not"):
        AmqpRpcServer("shop", **settings)


@pytest.mark.parametrize("flag", TERM_FLAGS)
def test_a_term_of_a_function_is_on_or_off(flag: str, server: AmqpRpcServer) -> None:
    terms: Any = {flag: "false"}
    with pytest.raises(ValueError, match=f"{flag} must be True or False, not 'false'"):
        server.add_function(print, **terms)


@pytest.mark.parametrize("flag", OPTION_FLAGS)
def test_an_option_of_a_call_is_on_or_off(flag: str, client: AmqpRpcClient) -> None:
    options: Any = {flag: "false"}
    with pytest.raises(ValueError, match=f"{flag} must be True or False, not 'false'"):
        client.call(**options)


@pytest.mark.parametrize("timeout", ["5", [1], float("nan"), True])
def test_nothing_is_half_ended_with_a_timeout_that_is_no_number(
    timeout: Any, server: AmqpRpcServer, client: AmqpRpcClient
) -> None:
    with Session() as session:
        for end in (server.stop, client.close, session.close):
            with pytest.raises(ValueError, match="a timeout must be a number of seconds, not"):
                end(timeout)
        with pytest.raises(ValueError, match="cancel must be True or False, not 'yes'"):
            client.close(cancel="yes")  # type: ignore[arg-type]
        assert (server.state, client.state, session.state) == ("idle", "idle", "idle")
        client.close(0)
        assert client.state == "closed"


def test_whether_a_client_is_durable_is_on_or_off() -> None:
    with pytest.raises(ValueError, match="durable must be True or False, not 'no'"):
        AmqpRpcClient("shop", durable="no")  # type: ignore[arg-type]


def test_certificates_are_verified_unless_it_is_true_that_they_are_not() -> None:
    with pytest.raises(ValueError, match="insecure_skip_tls_verification must be True or False"):
        endpoint("amqps://localhost", insecure_skip_tls_verification="false")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"identify": 5}, "identify must be True, or a login as text, not 5"),
        ({"identify": ""}, "identify must be True, or a login as text, not ''"),
        ({"identify": "x" * 256}, "identify cannot name the login 'xx.*does not fit into AMQP's"),
        ({"identify": "\ud800"}, "identify cannot name the login .*surrogates not allowed"),
        ({"serializer": []}, "no serializer is called"),
        ({"queue_type": []}, "queue_type must be one of"),
    ],
)
def test_a_setting_of_another_type_is_named(settings: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AmqpRpcClient("shop", **settings)


@pytest.mark.parametrize(
    "settings", [{"identify": "x" * 256}, {"max_pending": 0}, {"when_full": "no"}, {"uuid": "?"}]
)
def test_a_client_that_cannot_be_made_leaves_nothing_on_a_shared_session(settings: Any) -> None:
    with Session() as session:
        with pytest.raises(ValueError, match=next(iter(settings))):
            AmqpRpcClient("shop", session=session, **settings)
        for link in (session.publishing, session.consuming):
            assert list(link._restoring._restorables) in ([], [session.publisher])


def test_management_takes_names() -> None:
    with pytest.raises(ValueError, match="management takes texts, such as"):
        AmqpRpcServer("shop", management=True)  # type: ignore[arg-type]


def test_logins_are_a_set_of_texts(server: AmqpRpcServer) -> None:
    terms: Any = {"allow": 5}
    with pytest.raises(TypeError, match="allow must be a set of logins, not 5"):
        server.add_function(print, **terms)
