"""What a caller is told when something goes wrong, and whether it is true."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from amphora import (
    AmphoraError,
    AmqpRpcClient,
    IgnoreRequest,
    NoResult,
    RemoteException,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.server.requests import encoding
from tests.support.brokers import Broker, ManagedBroker, on_embedded
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until


class Unsendable:
    def __repr__(self) -> str:
        return "<Unsendable>"


class WithoutRepr:
    def __repr__(self) -> str:
        raise ValueError("no repr for you")


class ExitsInRepr:
    def __repr__(self) -> str:
        raise SystemExit(3)


class FailsAsDate:
    """What looks like a date of another library, and is none."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def isoformat(self) -> str:
        raise self.error

    def __repr__(self) -> str:
        return "<FailsAsDate>"


class FailsInArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no arguments for you")


class FailsInStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def in_a_circle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


class OddError(Exception):
    """An exception whose arguments are not where they belong."""

    args = property(lambda self: None)  # type: ignore[assignment]


# -- exceptions of handlers -----------------------------------------------------------------------


def test_an_exception_of_the_handler_arrives_with_its_type_text_and_arguments(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def hypotenuse(a: Any, b: Any) -> Any:
        return (a**2 + b**2) ** 0.5

    @server.add_function
    def fail(*args: Any) -> None:
        raise LookupError(*args)

    client = make_client()
    with pytest.raises(RemoteException) as caught:
        client.call.hypotenuse("foo", "bar")
    text = "unsupported operand type(s) for ** or pow(): 'str' and 'int'"
    assert str(caught.value) == f"TypeError: {text}"
    assert caught.value.error_type == "TypeError"
    assert caught.value.args == (text,)
    assert caught.value.executed is True
    assert isinstance(caught.value, AmphoraError)

    with pytest.raises(RemoteException) as caught:
        client.call.fail("no", 1, None, [2.5])
    assert caught.value.args == ("no", 1, None, [2.5])
    assert str(caught.value) == "LookupError: ('no', 1, None, [2.5])"
    with pytest.raises(RemoteException) as caught:
        client.call.fail()
    assert str(caught.value) == "LookupError"


def test_the_remote_traceback_begins_at_the_handler(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    def helper() -> None:
        raise KeyError("deep")

    @server.add_function
    def fail() -> None:
        try:
            helper()
        except KeyError as error:
            raise ValueError("on top") from error

    with pytest.raises(RemoteException) as caught:
        make_client().call.fail()
    text = caught.value.traceback
    assert text.startswith("Traceback (most recent call last):\n")
    assert "raise KeyError" in text
    assert "The above exception was the direct cause" in text
    assert text.rstrip().endswith("ValueError: on top")
    assert "in call" not in text
    assert "amphora/rpc" not in text


def test_a_server_can_keep_its_tracebacks(make_server: MakeServer, make_client: MakeClient) -> None:
    make_server(add, tracebacks=False)
    with pytest.raises(RemoteException, match=r"^TypeError: ") as caught:
        make_client().call.add(1, "b")
    assert caught.value.traceback == ""


def test_a_remote_exception_can_be_pickled(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    with pytest.raises(RemoteException) as caught:
        make_client().call.add(1, "b")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.traceback == caught.value.traceback


@on_embedded
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (gevent.GreenletExit(), "GreenletExit"),
        (GeneratorExit(), "GeneratorExit"),
        (StopIteration("x"), "StopIteration: x"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "MemoryError"),
        (BaseException("base"), "BaseException: base"),
        (BaseExceptionGroup("group", [KeyboardInterrupt()]), "BaseExceptionGroup: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_no_exception_of_a_handler_ends_the_server(
    make_server: MakeServer, make_client: MakeClient, error: BaseException, text: str
) -> None:
    server = make_server(add)

    @server.add_function
    def fail() -> None:
        raise error

    client = make_client()
    with pytest.raises(RemoteException) as caught:
        client.call.fail()
    assert str(caught.value).startswith(text)
    assert client.call.add(1, 2) == 3
    assert server.state == "serving"


def test_a_gevent_timeout_of_the_handler_arrives_as_a_remote_exception(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def slow() -> None:
        with gevent.Timeout(0.01):
            gevent.sleep(5)

    with pytest.raises(RemoteException, match="Timeout"):
        make_client().call.slow()


def test_endless_recursion_arrives_as_a_remote_exception(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def forever(n: int) -> int:
        return forever(n + 1) + 1

    with pytest.raises(RemoteException, match="RecursionError"):
        make_client().call.forever(0)


@on_embedded
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ((Unsendable(),), "<Unsendable>"),
        ((WithoutRepr(),), "WithoutRepr"),
        (("a", Unsendable()), "('a', <Unsendable>)"),
        (("lone \ud800 surrogate",), r"lone \ud800 surrogate"),
        ((2**100,), str(2**100)),
    ],
    ids=["object", "no repr", "mixed", "surrogate", "large number"],
)
def test_an_exception_whose_arguments_cannot_be_sent_arrives_as_text(
    make_server: MakeServer,
    make_client: MakeClient,
    serializer: str,
    args: tuple[Any, ...],
    shown: str,
) -> None:
    server = make_server()

    @server.add_function
    def fail() -> None:
        raise ValueError(*args)

    with pytest.raises(RemoteException, match=r"^ValueError: ") as caught:
        make_client(serializer=serializer).call.fail()
    for part in shown.strip("()").replace("'", "").split(", "):
        assert part in str(caught.value)


def test_an_exception_whose_text_takes_too_long_arrives_without_it(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "DESCRIBE_TIMEOUT", 0.05)

    class Asks(Exception):
        def __str__(self) -> str:
            # As one that looks into a database which does not answer.
            Event().wait()
            raise AssertionError

    server = make_server()

    @server.add_function
    def fail() -> None:
        raise Asks

    call = make_client().defer.fail()
    with pytest.raises(RemoteException, match=r"^Asks$"):
        call.get(timeout=20)


def test_the_arguments_of_an_exception_are_cut_to_a_size_for_reading(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def fail(size: int) -> None:
        raise ValueError("x" * size)

    client = make_client()
    for size in (100_000, 20_000_000):
        with pytest.raises(RemoteException, match=r"^ValueError: xxx") as caught:
            client.call.fail(size)
        assert len(str(caught.value)) < 10_000


def test_a_deep_traceback_is_cut_and_keeps_its_end(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    def one(n: int) -> None:
        if not n:
            raise ValueError("at the bottom")
        two(n - 1)

    def two(n: int) -> None:
        one(n)

    server.add_function(one)
    with pytest.raises(RemoteException, match="at the bottom") as caught:
        make_client().call.one(200)
    assert len(caught.value.traceback) < 10_000
    assert caught.value.traceback.rstrip().endswith("ValueError: at the bottom")


def test_an_exception_with_strange_arguments_is_answered(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def fail() -> None:
        raise OddError

    with pytest.raises(RemoteException, match="OddError"):
        make_client().call(timeout=30).fail()


@on_embedded
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError(ExitsInRepr()), "<ExitsInRepr without a repr>"),
        (ValueError(FailsAsDate(KeyError("k"))), "<FailsAsDate>"),
        (ValueError(FailsAsDate(SystemExit(3))), "<FailsAsDate>"),
        (FailsInArgs(), "FailsInArgs"),
        (FailsInStr("told"), "FailsInStr"),
        (in_a_circle(), "first"),
    ],
    ids=["repr exits", "date fails", "date exits", "args fail", "str fails", "causes in a circle"],
)
def test_an_exception_that_fails_when_it_is_told_is_answered_once(
    make_server: MakeServer,
    make_client: MakeClient,
    serializer: str,
    error: Exception,
    shown: str,
) -> None:
    begun = []
    server = make_server(add)

    @server.add_function
    def fail() -> None:
        begun.append(1)
        raise error

    client = make_client(serializer=serializer)
    with pytest.raises(RemoteException, match=shown):
        client.call.fail()
    assert client.call.add(1, 2) == 3
    assert begun == [1]
    wait_until(lambda: server.running == 0)


def test_a_secret_in_a_variable_of_the_handler_stays_there(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    secret = secrets.token_hex(8)
    server = make_server()

    @server.add_function
    def fail() -> None:
        local = {"password": secret}
        raise LookupError(len(local))

    with pytest.raises(RemoteException) as caught:
        make_client().call.fail()
    assert "raise LookupError" in caught.value.traceback
    assert secret not in f"{caught.value!r} {caught.value} {caught.value.traceback}"


def test_errors_of_a_nested_call_are_not_taken_for_errors_of_the_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    inner = make_client()
    server = make_server(add)

    @server.add_function
    def outer(name: str) -> Any:
        return inner.call(function_name=name)(1, "b")

    @server.add_function
    def wrong() -> None:
        raise WrongResult("made by hand")

    client = make_client()
    # The outer handler has run: it must not look as if it had not.
    with pytest.raises(RemoteException, match=r"^WrongRequest: .*no function 'unknown'") as caught:
        client.call.outer("unknown")
    assert caught.value.executed is True
    with pytest.raises(RemoteException, match=r"^RemoteException: ") as caught:
        client.call.outer("add")
    with pytest.raises(RemoteException, match=r"^WrongResult: made by hand"):
        client.call.wrong()


# -- requests that do not fit ---------------------------------------------------------------------


@on_embedded
@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1,), {}, "missing a required argument: 'b'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1, 2), {"c": 3}, "unexpected keyword argument 'c'"),
        ((1, 2), {"a": 3}, "multiple values for argument 'a'"),
        ((), {"a": 1, "b": 2, "self": 3}, "unexpected keyword argument 'self'"),
    ],
)
def test_arguments_that_do_not_fit_are_told_and_the_handler_is_not_run(
    make_server: MakeServer,
    make_client: MakeClient,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    text: str,
) -> None:
    ran: list[Any] = []
    server = make_server()

    @server.add_function
    def pair(a: Any, b: Any) -> None:
        ran.append((a, b))

    with pytest.raises(WrongRequest, match=f"pair: .*{text}") as caught:
        make_client().call.pair(*args, **kwargs)
    assert caught.value.executed is False
    assert ran == []


def test_a_type_error_inside_the_handler_is_not_a_wrong_request(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def fail() -> None:
        add(1)  # type: ignore[call-arg]

    with pytest.raises(RemoteException, match=r"^TypeError: add\(\) missing 1 required"):
        make_client().call.fail()


@on_embedded
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("way", ["call", "defer", "cast"])
@pytest.mark.parametrize(
    "argument",
    [Unsendable(), "\ud800", {"a": [object()]}, {1j: 2}, "x" * 17_000_000],
    ids=["object", "surrogate", "nested", "key", "huge"],
)
def test_arguments_that_cannot_be_sent_are_told_before_anything_is_sent(
    make_client: MakeClient, serializer: str, way: str, argument: Any
) -> None:
    client = make_client(serializer=serializer)
    with pytest.raises(WrongRequest, match=r"the arguments of t\w+\.f cannot be sent") as caught:
        getattr(client, way).f(argument)
    assert caught.value.executed is False
    assert client.pending == 0
    assert client.state == "idle"


def test_a_name_that_cannot_be_sent_is_told_in_text_that_can_be_printed(
    make_client: MakeClient,
) -> None:
    with pytest.raises(WrongRequest, match="cannot be sent") as caught:
        make_client().call(function_name="\ud800\n")()
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


# -- results --------------------------------------------------------------------------------------


@on_embedded
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    "value",
    [Unsendable(), "\ud800", {"a": [object()]}, {1j: 2}, "x" * 17_000_000],
    ids=["object", "surrogate", "nested", "key", "huge"],
)
def test_a_result_that_cannot_be_sent_is_an_error_at_once(
    make_server: MakeServer, make_client: MakeClient, serializer: str, value: Any
) -> None:
    server = make_server(add)

    @server.add_function
    def odd() -> Any:
        return value

    client = make_client(serializer=serializer)
    with pytest.raises(WrongResult, match="cannot be sent") as caught:
        client.call.odd()
    assert caught.value.executed is True
    assert client.call.add(1, 2) == 3


@pytest.mark.parametrize("error", [KeyError("k"), SystemExit(3), OSError(5, "disk")], ids=repr)
def test_a_result_that_fails_when_it_is_sent_is_an_error_at_once(
    make_server: MakeServer,
    make_client: MakeClient,
    broker: Broker,
    namespace: str,
    error: BaseException,
) -> None:
    begun = []
    server = make_server(add)

    @server.add_function
    def odd() -> Any:
        begun.append(1)
        return FailsAsDate(error)

    client = make_client()
    with pytest.raises(WrongResult, match="cannot be sent"):
        client.call.odd()
    assert client.call.add(1, 2) == 3
    with pytest.raises(WrongRequest, match="cannot be sent"):
        client.call.add(FailsAsDate(error), 2)
    server.stop()
    assert begun == [1]
    # It was acknowledged: nothing went back when the server left.
    assert broker.ready_messages(f"rpc_{namespace}_request") == 0


def test_a_result_that_holds_itself_is_an_error(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def endless() -> Any:
        value: list[Any] = []
        value.append(value)
        return value

    with pytest.raises(WrongResult, match="cannot be sent"):
        make_client().call.endless()


# -- no result ------------------------------------------------------------------------------------


def test_no_result_says_that_there_is_no_broker(namespace: str, closed_port: int) -> None:
    with AmqpRpcClient(namespace, amqp_port=closed_port) as client:
        first = client.defer.add(1, 2)
        wait_until(lambda: client.session.publishing.error)
        with pytest.raises(NoResult) as caught:
            client.call(timeout=0.2).add(1, 2)
        assert not first.ready()
        assert str(caught.value) == (
            f"no result of {namespace}.add within 0.2 s: the request was not sent;"
            f" no connection to 127.0.0.1:{closed_port}: Connection refused;"
            f" `amphora broker --port {closed_port}` starts one here"
        )
        assert caught.value.executed is False


def test_no_result_says_that_the_broker_does_not_answer(
    make_client: MakeClient, managed_broker: ManagedBroker
) -> None:
    connected = make_client()
    connected.cast(wait_publish=True).add(1, 2)
    managed_broker.freeze()
    with pytest.raises(
        NoResult,
        match=r"the request was not sent; waiting for the broker at amqp://guest:\*\*\*@\S+$",
    ) as caught:
        make_client().call(timeout=1.0).add(1, 2)
    assert caught.value.executed is False
    with pytest.raises(NoResult, match="was not sent; waiting for the broker"):
        connected.call(timeout=1.0).add(1, 2)
    with pytest.raises(NoResult, match=r"within 1 s: the request was sent but"):
        connected.cast(timeout=1.0, wait_publish=True).add(1, 2)
    managed_broker.thaw()


# -- ignoring -------------------------------------------------------------------------------------


def test_an_ignored_request_goes_to_another_server(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    asked: list[str] = []
    picky = make_server()

    @picky.add_function
    def who() -> str:
        asked.append("picky")
        raise IgnoreRequest

    result = make_client().defer.who()
    wait_until(lambda: asked)
    willing = make_server()
    willing.add_function(lambda: "willing", name="who")
    assert result.get() == "willing"


class Secretive(Exception):
    """Whatever it is asked for, even its class, it fails."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("nothing for you")


class Leaves(Exception):
    """Whatever it is asked for, even its class, it ends the program."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(3)


@on_embedded
@pytest.mark.parametrize("error", [Secretive, Leaves])
@pytest.mark.parametrize("way", ["a call", "a stream", "a stream with items", "with a hook"])
def test_an_exception_that_fails_when_anything_is_asked_of_it_is_answered_once(
    make_server: MakeServer, make_client: MakeClient, error: type[Exception], way: str
) -> None:
    begun = []
    server = make_server(add)

    def fail() -> None:
        begun.append(1)
        raise error

    def fail_in_stream(items: int) -> Iterator[int]:
        begun.append(1)
        yield from range(items)
        raise error

    server.add_function(fail)
    server.add_function(fail_in_stream, expected=KeyError)
    outcomes = []
    if way == "with a hook":
        server.on_done(lambda call, outcome: outcomes.append((outcome.status, outcome.error_type)))
    client = make_client(timeout=20.0)
    ways: dict[str, Callable[[], Any]] = {
        "a stream": lambda: list(client.stream.fail_in_stream(0)),
        "a stream with items": lambda: list(client.stream.fail_in_stream(3)),
    }
    with pytest.raises(RemoteException, match=error.__name__):
        ways.get(way, client.call.fail)()
    assert client.call.add(1, 2) == 3
    assert begun == [1]
    wait_until(lambda: len(server._worker.outlets) == server.running == 0)
    if way == "with a hook":
        assert ("RemoteException", error.__name__) in outcomes
