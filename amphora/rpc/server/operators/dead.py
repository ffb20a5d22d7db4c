"""Requests that were given up: trying them again, or dropping them.

A request goes back to where its client had sent it.  It is confirmed there before it is removed
from the queue for those that were given up: so it is in one of the two, or for a moment in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import gevent

from amphora.errors import ChannelClosed, WrongRequest, printable
from amphora.net.deadline import Deadline
from amphora.rpc.contract import dead, naming, streams
from amphora.rpc.functions.functions import Functions
from amphora.transport.channels.channel import Channel
from amphora.transport.links.topology import find_queue
from amphora.transport.publishing.confirmed import publish_confirmed
from amphora.transport.session import Session
from amphora.wire.codec import Method
from amphora.wire.codes import ReplyCode
from amphora.wire.content import Message

TIMEOUT = 10.0
# How many are looked through, at most.
MOST = 10_000
# An operator who looks at them holds them for a moment.
HELD = 2.0
PAUSE = 0.1


class Dead:
    """The requests of one namespace that were given up.

    Args:
        functions: what can be called.
    """

    def __init__(self, session: Session, namespace: str, functions: Functions) -> None:
        self._session = session
        self._namespace = namespace
        self._functions = functions
        self._queue = naming.dead_queue(namespace)

    def retry(self, ids: Collection[str] | None) -> int:
        """Try requests again; return how many.  Switches greenlets.

        Args:
            ids: which; None for all.

        Raises:
            ValueError: one cannot be tried again.  Those before it were.
            Unroutable: the queue that it came from is gone.
            ConnectionLost: the broker did not confirm one; it stays where it is.
            ChannelClosed, Rejected: the broker refused one; it stays where it is.
        """

        def again(channel: Channel, message: Message[Method]) -> None:
            properties, body = message.properties, message.body
            self._check(message)
            of_it = properties.headers or {}
            exchange = of_it.get(dead.EXCHANGE)
            key = of_it.get(dead.ROUTING_KEY)
            if not isinstance(exchange, str) or not isinstance(key, str):
                exchange, key = naming.request_exchange(self._namespace), ""
            publish_confirmed(channel, exchange, key, dead.raised(properties), body, mandatory=True)

        return self._each(ids, again)

    def drop(self, ids: Collection[str] | None) -> int:
        """Drop requests; return how many.  Switches greenlets.

        Args:
            ids: which; None for all.
        """
        return self._each(ids, lambda channel, message: None)

    def purge(self, label: str | None) -> tuple[str, int]:
        """Drop what waits in a request queue; return its name and how many there were.

        Switches greenlets.

        Args:
            label: the queue's label; None for that of all workers.
        """
        name = (
            naming.request_queue(self._namespace)
            if label is None
            else naming.labelled_queue(self._namespace, label)
        )
        return name, self._session.operate(lambda channel: channel.queue_purge(name), TIMEOUT)

    def _check(self, message: Message[Method]) -> None:
        properties = message.properties
        request_id = printable(dead.id_of(message.properties), 100)
        if properties.message_type == streams.STREAM:
            raise ValueError(f"the request {request_id} is for a stream, and has no reader")
        name = dead.function_of(properties, message.body)
        try:
            function = self._functions.find(name)
        except WrongRequest:
            return  # of another worker, or a caller's mistake, which is answered as such
        if function.allow is not None:
            raise ValueError(
                f"the request {request_id} is for {name}, which only some may call: its caller has"
                " to send it again"
            )

    def _each(
        self, ids: Collection[str] | None, do: Callable[[Channel, Message[Method]], None]
    ) -> int:
        found = self._session.operate(
            lambda channel: find_queue(channel, self._queue, TIMEOUT), TIMEOUT
        )
        deadline = Deadline(HELD)
        done = self._once(ids, do, found.messages)
        while ids and not done and not deadline.passed:
            gevent.sleep(PAUSE)
            done = self._once(ids, do, MOST)
        return done

    def _once(
        self,
        ids: Collection[str] | None,
        do: Callable[[Channel, Message[Method]], None],
        most: int,
    ) -> int:
        done = 0
        # On the connection that publishes: a broker that takes none leaves all as it is.
        channel = self._session.publishing.wait_connected(TIMEOUT).channel()
        try:
            for _ in range(min(most, MOST)):
                try:
                    message = channel.get(self._queue)
                except ChannelClosed as error:
                    if error.code != ReplyCode.NOT_FOUND:
                        raise
                    # Nothing was ever kept.
                    break
                if message is None:
                    break
                if ids is None or dead.id_of(message.properties) in ids:
                    do(channel, message)
                    method: Any = message.method
                    channel.ack(method.delivery_tag)
                    done += 1
        finally:
            # What is not acknowledged goes back to its place.
            channel.close()
        return done
