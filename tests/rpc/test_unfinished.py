"""Functions that return work which is yet to be done: refused when added, told when they ran."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult

from amphora import AmphoraError, RemoteException, WrongResult
from amphora.rpc.functions.functions import Function
from amphora.rpc.functions.unfinished import Unfinished
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

ran: list[Any] = []


async def coroutine(x: int = 1) -> int:
    ran.append(x)
    return x


async def async_generator(x: int = 1) -> AsyncIterator[int]:
    ran.append(x)
    yield x


def generator(x: int = 1) -> Iterator[int]:
    ran.append(x)
    yield x


class Service:
    async def c_coroutine(self) -> None:
        ran.append(1)

    def c_rows(self) -> Iterator[int]:
        yield 1

    @classmethod
    async def of_class(cls) -> None:
        ran.append(1)

    @staticmethod
    def static() -> Iterator[int]:
        yield 1

    def fine(self) -> int:
        return 1


class Callable_:
    async def __call__(self) -> None:
        ran.append(1)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (coroutine, "an async def function"),
        (async_generator, "an async generator function"),
        (functools.partial(coroutine, 1), "an async def function"),
        (functools.partial(functools.partial(async_generator), 1), "an async generator function"),
        (Service().c_coroutine, "an async def function"),
        (Service.of_class, "an async def function"),
        (staticmethod(async_generator), "an async generator function"),
        (Callable_(), "an async def function"),
        (functools.partial(Callable_()), "an async def function"),
    ],
)
def test_a_function_whose_body_does_not_run_when_it_is_called_is_refused(
    function: Callable[..., Any], what: str
) -> None:
    with pytest.raises(TypeError, match=rf"^work is {what}, and a call .* not run its body: \w"):
        Function("work", function)


@pytest.mark.parametrize(
    "function",
    [
        generator,
        functools.partial(functools.partial(generator), 1),
        functools.partial(Service().c_rows),
        Service.static,
        staticmethod(generator),
    ],
)
def test_a_generator_function_is_a_stream(function: Callable[..., Any]) -> None:
    assert Function("work", function).is_stream
    assert not Function("work", lambda: 1).is_stream


def test_it_is_refused_in_every_way_of_adding(make_server: MakeServer) -> None:
    server = make_server(serve=False)
    with pytest.raises(TypeError, match="async def"):
        server.add_function(coroutine)
    with pytest.raises(TypeError, match="async generator"):
        server.add_function("rows")(async_generator)
    with pytest.raises(TypeError, match="generator"):
        server.add_function(threadpool=True)(generator)
    with pytest.raises(TypeError, match="a command answers once"):
        server.add_command(generator)
    with pytest.raises(TypeError, match=r"^coroutine is an async def"):
        server.add_service(Service())
    with pytest.raises(TypeError, match="async def"):
        server.add_command(coroutine)


def test_a_decorator_that_runs_it_to_its_end_makes_it_a_function() -> None:
    @functools.wraps(coroutine)
    def to_the_end(*args: Any) -> Any:
        return asyncio.run(coroutine(*args))

    @functools.wraps(generator)
    def collected(*args: Any) -> Any:
        return list(generator(*args))

    assert Function("f", to_the_end).call([5], {}) == 5
    assert Function("f", collected).call([5], {}) == [5]


class Awaitable:
    def __await__(self) -> Any:
        yield


UNFINISHED = {
    "a coroutine": coroutine,
    "an async generator": async_generator,
    "a generator": generator,
    "an object of type map": lambda: map(ran.append, [1]),
    "an object of type filter": lambda: filter(ran.append, [1]),
    "an object of type Future": Future,
    "an object of type AsyncResult": AsyncResult,
    "an object of type Greenlet": gevent.Greenlet,
    "an object of type Awaitable": Awaitable,
}


@pytest.mark.parametrize("what", UNFINISHED)
def test_work_that_is_yet_to_be_done_is_no_result(what: str) -> None:
    ran.clear()
    make = UNFINISHED[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Unfinished, match=f"^work returned {what}: "):
            Function("work", lambda: make()).call([], {})  # type: ignore[operator]
        gc.collect()
    assert not ran


def test_a_generator_that_has_begun_is_closed() -> None:
    closed = []

    def begun() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)
            raise ValueError("of the user's")

    def work() -> Any:
        rows = begun()
        next(rows)
        return rows

    with pytest.raises(Unfinished):
        Function("work", work).call([], {})
    assert closed


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


@pytest.mark.parametrize("threadpool", [False, True])
def test_the_caller_is_told_and_the_server_counts_a_failure(
    make_server: MakeServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    threadpool: bool,
) -> None:
    ran.clear()
    server = make_server(add)
    server.add_function(lambda x: coroutine(x), name="work", threadpool=threadpool)
    client = make_client()
    with no_warnings():
        with pytest.raises(WrongResult, match="work returned a coroutine") as caught:
            client.call.work(1)
        client.cast.work(2)
        wait_until(lambda: server.exceptions == 2)
    assert caught.value.executed is None
    assert not ran
    assert server.processed == 0
    lines = [each for each in caplog.records if "work returned a coroutine" in each.getMessage()]
    assert [each.levelno for each in lines] == [logging.WARNING] * 2
    assert client.call.add(1, 2) == 3


def test_an_error_of_that_kind_in_a_call_of_the_function_is_its_own(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.add_function
    def fails() -> None:
        raise WrongResult("of another server")

    with pytest.raises(RemoteException, match="of another server") as caught:
        make_client().call.fails()
    assert caught.value.executed is True


def test_a_command_that_returns_a_coroutine_has_failed(
    make_server: MakeServer, namespace: str, url: str
) -> None:
    from amphora import ManagementClient

    server = make_server(serve=False)
    server.add_command(lambda: coroutine(), "work")
    server.serve()
    wait_until(lambda: server.ready)
    with no_warnings(), ManagementClient(url=url) as management:
        (answer,) = management.ask(namespace, "work")
    assert isinstance(answer.error, AmphoraError)
    assert "returned a coroutine" in str(answer.error)
