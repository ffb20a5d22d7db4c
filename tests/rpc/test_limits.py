"""Calls that are refused at once, and loops that make them again and again."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent
import pytest

from amphora import AmphoraError, Overloaded
from amphora.rpc import naming
from tests.support.rpc import Gate, MakeClient, MakeServer, MakeSession, add
from tests.support.waiting import wait_until

PATIENCE = 20.0


def call_until_it_works(client: Any) -> int:
    """Call without ever pausing; return how many calls failed."""
    failures = 0
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        try:
            assert client.call.add(1, 2) == 3
        except AmphoraError:
            failures += 1
        else:
            return failures
    raise TimeoutError(f"{failures} calls have failed")


def test_one_call_too_many_is_refused_and_the_next_may_be_taken(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    make_server(gate.hold, add)
    client = make_client(max_pending=1, when_full="fail")
    waiting = client.defer.hold(1)
    wait_until(lambda: gate.entered)

    with pytest.raises(Overloaded, match="1 calls are pending"):
        client.call.add(1, 2)

    gate.open()
    assert waiting.get() == 1
    assert client.call.add(1, 2) == 3


def test_a_loop_of_refused_calls_does_not_keep_the_answers_out(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    make_server(add)
    client = make_client(max_pending=1, when_full="fail")
    first = client.defer.add(3, 4)

    assert call_until_it_works(client) > 0
    assert first.get() == 7


def test_a_loop_of_calls_that_cannot_be_sent_does_not_keep_out_who_could_help(
    make_server: MakeServer, make_client: MakeClient, make_session: MakeSession, namespace: str
) -> None:
    exchange = naming.request_exchange(namespace)
    channel = make_session().channel()
    channel.exchange_declare(exchange, "fanout")
    client = make_client()
    with pytest.raises(AmphoraError, match="406"):
        client.call.add(1, 2)

    helper = gevent.spawn(channel.exchange_delete, exchange)
    gevent.spawn(make_server, add)

    assert call_until_it_works(client) > 0
    helper.get()
    channel.close()
