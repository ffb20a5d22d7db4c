"""A connection of amphora's that talks to a scripted peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import gevent
from gevent.event import AsyncResult

from amphora.transport.channels.channel import Channel
from amphora.transport.connections.connection import Connection
from amphora.transport.connections.endpoint import endpoint
from amphora.wire.codec import methods
from tests.support.peer import Conversation, Script, ScriptedPeer


def connect(peer: ScriptedPeer, **settings: Any) -> Connection:
    """Connect to the peer; `settings` are those of an endpoint."""
    where = replace(endpoint(peer.url), **settings)
    return Connection.open(where, peer.host, peer.port)


@contextmanager
def connected(script: Script, **settings: Any) -> Iterator[Connection]:
    """Give a connection to a peer that follows `script` after the handshake.

    A script that wants no other end has `peer.answer_close()` last.
    """

    def whole(peer: Conversation) -> None:
        peer.handshake()
        script(peer)

    with ScriptedPeer(whole) as peer:
        connection = connect(peer, **settings)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def channel_of(script: Script, **settings: Any) -> Iterator[Channel]:
    """Give an open channel, number 1; the script goes on from there."""

    def whole(peer: Conversation) -> None:
        peer.open_channel(1)
        script(peer)

    with connected(whole, **settings) as connection:
        yield connection.channel()


@contextmanager
def confirming(script: Script, **settings: Any) -> Iterator[Channel]:
    """Give an open channel, number 1, whose publishes are confirmed."""

    def whole(peer: Conversation) -> None:
        peer.expect(methods.Confirm.Select, channel=1)
        peer.send(1, methods.Confirm.SelectOk())
        script(peer)

    with channel_of(whole, **settings) as channel:
        channel.confirm_select()
        yield channel


def in_background(function: Callable[..., Any], *arguments: Any) -> AsyncResult[Any]:
    """Run `function` beside the test; `get()` gives what it returns or raises."""
    result: AsyncResult[Any] = AsyncResult()

    def run() -> None:
        try:
            result.set(function(*arguments))
        except Exception as error:  # noqa: BLE001 (raised by get)
            result.set_exception(error)

    gevent.spawn(run)
    return result


def next_turn() -> None:
    """Let happen what is scheduled for this turn of the event loop, such as acks."""
    gevent.sleep(0)
