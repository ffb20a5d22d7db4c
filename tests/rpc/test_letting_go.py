"""What an error keeps alive: nothing of who has handled it, as soon as that is done."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from amphora import (
    AmphoraError,
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    Session,
)
from amphora.transport.links.topology import find_queue
from tests.support.rpc import MakeClient, MakeServer, MakeSession
from tests.support.waiting import wait_until


class Thing:
    """Something that a program has while it calls."""


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Have only those objects go to which nothing refers any more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def session(make_session: MakeSession) -> Session:
    """The session of all clients here."""
    return make_session()


def broken() -> None:
    """Raise an error."""
    raise ValueError("it is broken")


def is_let_go(fail: Callable[[], object]) -> bool:
    """Return whether what a program has is gone when it has handled an error."""
    things = []

    def handle() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        try:
            fail()
        except AmphoraError:
            return
        raise AssertionError("it does not fail")

    handle()
    # What other greenlets have of the call goes with their end.
    wait_until(lambda: things[0]() is None, "nothing is kept", 20.0)
    return True


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("way", ["call", "call again", "defer", "stream"])
def test_the_error_of_a_call_keeps_nothing_of_its_caller(
    make_server: MakeServer, make_client: MakeClient, way: str
) -> None:
    make_server(broken)
    client: AmqpRpcClient = make_client()
    ways: dict[str, Callable[[], object]] = {
        "call": client.call.broken,
        "call again": client.call(retries=1).broken,
        "defer": lambda: client.defer.broken().get(),
        "stream": lambda: list(client.stream.broken()),
    }
    assert is_let_go(ways[way])


@pytest.mark.usefixtures("without_collector")
def test_the_errors_of_a_gather_keep_nothing_of_who_reads_them(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(broken, kind=AmqpRpcFanoutServer)
    client: AmqpRpcFanoutClient = make_client(kind=AmqpRpcFanoutClient)
    assert is_let_go(client.gather.broken().values)
    [reply] = client.gather.broken()
    assert is_let_go(reply.get)


@pytest.mark.usefixtures("without_collector")
def test_the_error_of_a_request_that_nobody_takes_keeps_nothing_of_its_caller(
    make_client: MakeClient,
) -> None:
    client: AmqpRpcClient = make_client()
    assert is_let_go(client.call(timeout=0.1).broken)
    everybody: AmqpRpcFanoutClient = make_client(kind=AmqpRpcFanoutClient)
    assert is_let_go(everybody.cast(wait_publish=True).broken)


@pytest.mark.usefixtures("without_collector")
def test_what_the_broker_refuses_keeps_nothing_of_who_asked(session: Session) -> None:
    def declare() -> None:
        with session.channel() as channel:
            channel.queue_declare("no such queue", passive=True)

    assert is_let_go(declare)

    def look() -> None:
        # The error is handled there.
        session.operate(lambda channel: find_queue(channel, "no such queue"), 40.0)
        raise AmphoraError

    assert is_let_go(look)
