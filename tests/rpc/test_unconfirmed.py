"""Messages that the broker does not confirm: of responses, the node may be frozen or cut off."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    CallContext,
    RemoteException,
    testing,
)
from tests.support.rpc import add
from tests.support.waiting import wait_until


@pytest.fixture
def broker() -> Iterator[testing.Broker]:
    with testing.Broker() as broker:
        yield broker


@pytest.mark.parametrize(("nodes", "answers"), [(1, 1), (2, 2)])
def test_where_there_are_several_nodes_an_unconfirmed_response_is_sent_again(
    broker: testing.Broker, namespace: str, nodes: int, answers: int
) -> None:
    url = "amqp://" + ",".join([f"127.0.0.1:{broker.port}"] * nodes) + "/"
    with (
        AmqpRpcServer(namespace, url=url) as server,
        AmqpRpcClient(namespace, url=broker.url, timeout=20) as client,
    ):
        server.add_function(add)
        server.serve()
        assert client.call.add(1, 2) == 3
        wait_until(lambda: not server._worker.underway.unconfirmed)
        # The request's own, and that of the response.
        broker.eat_confirms(2)
        assert client.call.add(3, 4) == 7
        assert server._worker.underway.unconfirmed == 1
        wait_until(lambda: client.unexpected_responses == answers - 1)
        if nodes > 1:
            # The second one is confirmed, and settles the matter.
            wait_until(lambda: not server._worker.underway.unconfirmed)
            assert server.session.publisher.unconfirmed <= 1
        assert server.processed == 2


class Thing:
    """An argument whose end can be seen."""


@pytest.fixture
def _nothing_is_collected() -> Iterator[None]:
    """A cycle of references is kept."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_nothing_is_collected")
def test_the_arguments_of_a_request_are_not_kept_until_the_broker_confirms_its_answer(
    broker: testing.Broker, namespace: str
) -> None:
    things: list[weakref.ref[Thing]] = []

    def give(call: CallContext, proceed: Callable[[], Any]) -> Any:
        thing = Thing()
        things.append(weakref.ref(thing))
        call.args.append(thing)
        return proceed()

    with (
        AmqpRpcServer(namespace, url=broker.url) as server,
        AmqpRpcClient(namespace, url=broker.url, timeout=20) as client,
    ):
        server.add_function(lambda thing: type(thing).__name__, name="look")
        server.middleware(give)
        server.serve()
        # The request's own, and that of the response.
        broker.eat_confirms(2)
        assert client.call.look() == "Thing"
        assert server._worker.underway.unconfirmed == 1
        wait_until(lambda: things[0]() is None)
        assert server._worker.underway.unconfirmed == 1


@pytest.mark.parametrize("way", ["call", "gather", "a call that fails"])
def test_a_request_that_was_answered_is_not_sent_again_if_its_confirm_is_lost(
    broker: testing.Broker, namespace: str, way: str
) -> None:
    spread = way == "gather"
    runs: list[str] = []

    def run(what: str) -> int:
        runs.append(what)
        return len(runs)

    def run_badly(what: str) -> None:
        run(what)
        raise ValueError(what)

    with (
        (AmqpRpcFanoutServer if spread else AmqpRpcServer)(namespace, url=broker.url) as server,
        (AmqpRpcFanoutClient if spread else AmqpRpcClient)(namespace, url=broker.url) as client,
    ):
        for function in (run, run_badly):
            server.add_function(function)
        server.serve()
        assert client.call.run("before") == 1
        broker.eat_confirms(1)
        if isinstance(client, AmqpRpcFanoutClient):
            assert client.gather.run("once").values() == [2]
        elif way == "call":
            assert client.call.run("once") == 2
        else:
            with pytest.raises(RemoteException):
                client.call.run_badly("once")
        broker.kill_connections()
        # It would be sent behind what is sent again.
        assert client.call.run("after") == 3
        assert runs == ["before", "once", "after"]
