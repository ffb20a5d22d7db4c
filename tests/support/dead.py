"""Requests that are given up, with no process that dies of them."""

from __future__ import annotations

from typing import Any

from amphora import AmqpRpcServer, PoisonRequest
from tests.support.brokers import Broker
from tests.support.rpc import MakeClient, MakeServer
from tests.support.waiting import wait_until


def bury(
    broker: Broker,
    make_server: MakeServer,
    make_client: MakeClient,
    *calls: tuple[str, Any],
    **settings: Any,
) -> AmqpRpcServer:
    """Have a new server give up one request for each function and argument; return the server.

    A server that begins a request only once gives it up if it was delivered before.
    """
    client = make_client(identify=True)
    # So that there is a queue for the requests, and nobody who takes them.
    make_server().stop()
    queue = f"rpc_{client.namespace}_request"
    results = [getattr(client.defer, name)(argument) for name, argument in calls]
    wait_until(lambda: broker.ready_messages(queue) == len(calls))
    with broker.channel() as channel:
        for _ in calls:
            assert channel.get(queue) is not None
    server = make_server(max_attempts=1, dead_letter=True, **settings)
    for result in results:
        result.wait(20)
        assert isinstance(result.exception, PoisonRequest)
    return server
