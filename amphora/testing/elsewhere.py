"""A broker elsewhere in place of the one in memory: the same tests on RabbitMQ.

Tests cannot look into it and do not harm it.  The request queues of the namespaces that tests use
are deleted, because RabbitMQ would keep what waits there from one test to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amphora.errors import ChannelClosed
from amphora.rpc.client.calling import FunctionCaller
from amphora.rpc.context import made
from amphora.rpc.contract import naming
from amphora.rpc.server.server import AmqpRpcServer
from amphora.rpc.server.worker import State
from amphora.testing.served import moving_streams, wait_until_none
from amphora.transport.session import Session, all_sessions
from amphora.wire.codes import ReplyCode

# Everything must be served in this many checks in a row, with pauses of this many seconds.
LOOKS = 3
PAUSE = 0.02


class BrokerElsewhere:
    """A broker that the option --amphora-url names.

    A test that asks for what only a `Broker` can do is skipped.

    Args:
        url: its URL.
    """

    left_to_parent = False

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = Session(url)
        self._used: set[str] = set()

    def __repr__(self) -> str:
        return f"<BrokerElsewhere {self._session.endpoint}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        pytest.skip(f"{name} is for the broker in memory, and this is one elsewhere")

    def start(self) -> None:
        """Connect, so that a broker that is not there is the one error of a test.

        Raises:
            AmphoraError: it cannot be connected to, or refuses the login.
        """
        self._session.channel().close()

    def heal(self) -> None:
        """Do nothing: this broker is never harmed."""

    def use(self, namespace: str) -> None:
        """Delete what waits for a namespace when a test first uses it."""
        if namespace not in self._used:
            self._used.add(namespace)
            self._forget(namespace)

    def close(self) -> None:
        """Delete what waits for the namespaces that were used."""
        try:
            for namespace in self._used:
                self._forget(namespace)
        finally:
            self._session.close()

    def wait_until_served(self, timeout: float = 5.0, *, streams: bool = True) -> None:
        """Wait until everything that this process's clients and servers know of is served.

        Args:
            timeout: seconds to wait.
            streams: wait for streams, too, as `Broker.wait_until_served` does.

        Raises:
            TimeoutError: something was not served in time; the text says what.
        """
        wait_until_none(lambda: self._unserved(streams), timeout, LOOKS, PAUSE)

    def _unserved(self, streams: bool) -> Iterator[str]:
        for session in all_sessions():
            if session.endpoint.hosts == self._session.endpoint.hosts and not session.settled:
                yield f"{session.publisher.unconfirmed} messages on the way in {session!r}"
        serving = set()
        for each in made.everything():
            if isinstance(each, AmqpRpcServer) and each.state is State.SERVING:
                serving.add(each.namespace)
                moving = moving_streams(each) if streams else 0
                if each.running - each.streams + moving:
                    yield f"{each.running} in progress in {each!r}"
        for namespace in sorted(serving):
            if waiting := self._waiting(namespace):
                yield f"{waiting} waiting for {namespace}"
        for each in made.everything():
            if isinstance(each, FunctionCaller) and each.namespace in serving and each.pending:
                yield f"{each.pending} pending in {each!r}"

    def _waiting(self, namespace: str) -> int:
        channel = self._session.channel()
        try:
            queue = naming.request_queue(namespace)
            return channel.queue_declare(queue, passive=True).message_count or 0
        except ChannelClosed as error:
            if error.code != ReplyCode.NOT_FOUND:
                raise
            return 0  # as with servers of a fanout
        finally:
            channel.close()

    def _forget(self, namespace: str) -> None:
        channel = self._session.channel()
        channel.queue_delete(naming.request_queue(namespace))
        channel.close()
