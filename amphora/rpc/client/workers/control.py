"""Telling workers what has become of requests: that they are cancelled, or how far streams may go.

And what time it is here, if a worker asks: then it knows how long requests have waited.

What is to be said is collected for the rest of a turn of the event loop, and sent on a channel of
its own, once, without a confirm: it is of use at once or not at all.  Where no server has declared
the exchange, or the login may not publish there, the broker closes that channel; then nothing is
said for some seconds.  A server that has the exchange may come at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from amphora.errors import AmphoraError
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.contract import control, headers, naming
from amphora.transport.channels.channel import Channel
from amphora.transport.connections.connection import Connection
from amphora.transport.links.restoring import Restorable
from amphora.transport.session import Session
from amphora.wire.fields import Table
from amphora.wire.properties import TRANSIENT, Properties, encode_properties

log = Log("amphora.rpc")

# How many messages wait at most while there is no channel.
MOST_WAITING = 10_000
# Seconds for which nothing is said after the broker has refused it.
REFUSED_FOR = 5.0


class Control(Restorable):
    """What one client says of the requests that it has sent."""

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._namespace = namespace
        self._exchange = naming.control_exchange(namespace)
        self._channel: Channel | None = None
        # Called with the reason when the broker refuses what is said; must not block.
        self.on_refused: Callable[[AmphoraError | None], None] = lambda _: None
        self._begun = False
        self._closed = False
        # Until when nothing is said; and whether that was logged for this connection.
        self._refused_until = 0.0
        self._reported = False
        # By the client's id and the worker's, "" for all workers.
        self._waiting: dict[tuple[str, str], list[control.Unwanted]] = {}
        # The same for the latest credit of streams, by request and run.
        self._credits: dict[tuple[str, str], dict[tuple[str, str], control.Credit]] = {}
        # By the client's id and the worker's: which workers want to know the time.
        self._clocks: set[tuple[str, str]] = set()
        self._count = 0
        self._callback: Any = None

    def __repr__(self) -> str:
        return f"<Control of {self._namespace}>"

    def cancel(
        self, client_id: str, request_id: str, left: float, worker: str = "", run_id: str = ""
    ) -> None:
        """Tell that a request is cancelled.  Never switches greenlets.

        Args:
            left: for how many seconds the request would be of use.
            worker: the worker that runs it, "" if that is unknown.
            run_id: the only run that is meant; the worker may have another one.
        """
        if self.refused or left <= 0 or self._count >= MOST_WAITING:
            return
        self._waiting.setdefault((client_id, worker), []).append(
            control.Unwanted(request_id, left, run_id)
        )
        self._count += 1
        self._flush_soon()

    def credit(self, client_id: str, worker: str, credit: control.Credit) -> None:
        """Tell how far a stream may go.  Never switches greenlets.

        Args:
            worker: the worker whose stream it is.
        """
        if self.refused:
            return
        of_worker = self._credits.setdefault((client_id, worker), {})
        of_worker[credit.request_id, credit.run_id] = credit
        self._flush_soon()

    def clock(self, client_id: str, worker: str) -> None:
        """Tell a worker what time it is by this client's clock.  Never switches greenlets."""
        if self.refused or len(self._clocks) >= MOST_WAITING:
            return
        self._clocks.add((client_id, worker))
        self._flush_soon()

    @property
    def refused(self) -> bool:
        """True while nothing is said, because the broker has just refused it, or for good."""
        return self._closed or clock.monotonic() < self._refused_until

    def open(self) -> None:
        """Open the channel soon, for what is going to be said.  Never switches greenlets.

        It is no longer known to be refused.
        """
        if self._closed:
            return
        self._refused_until = 0.0
        if not self._begun:
            self._begun = True
            self._session.publishing.add(self)
        elif self._channel is None and self.ready:
            self._session.publishing.restore_soon(self)

    def _flush_soon(self) -> None:
        self.open()
        if self._channel is not None and (self._callback is None or not self._callback.pending):
            self._callback = gevent.get_hub().loop.run_callback(self._flush)

    def wait_sent(self, timeout: float) -> None:
        """Wait until all is sent, for at most `timeout` seconds.  Switches greenlets."""
        if self._unsaid and not self.refused:
            self._flush()
            self._session.publishing.wait_until(lambda: not self._unsaid, timeout)

    @property
    def _unsaid(self) -> bool:
        """Whether anything waits to be said."""
        return bool(self._waiting or self._credits)

    def close(self) -> None:
        """Say nothing any more.  Never switches greenlets."""
        self._closed = True
        self._forget_waiting()
        self._session.publishing.remove(self)
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.on_closed = None
            channel.close(0)

    def forget(self) -> None:
        """Let go of everything in a forked child: it is the parent's."""
        self._channel = None
        self._forget_waiting()

    def restore(self, connection: Connection) -> None:
        """Open the channel."""
        channel = connection.channel()
        if self._closed:
            # Meanwhile.
            channel.close()
            return
        channel.on_closed = self._channel_closed
        self._channel = channel
        self._flush()

    def lost(self) -> None:
        """Called when the connection is gone."""
        self.ready = False
        self._channel = None
        self._refused_until = 0.0
        self._reported = False

    def _channel_closed(self, channel: Channel) -> None:
        if channel is not self._channel or channel.connection.error is not None:
            return
        self._channel = None
        self._refused_until = clock.monotonic() + REFUSED_FOR
        self._forget_waiting()
        if not self._reported:
            self._reported = True
            log.info(
                "%s: cancelled calls are not ended at the servers, which are not there yet, run an"
                " older amphora, or may not be told by this client: %s",
                self._namespace,
                channel.error,
            )
        self.on_refused(channel.error)

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._credits.clear()
        self._clocks.clear()
        self._count = 0

    def _flush(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        waiting, self._waiting, self._count = self._waiting, {}, 0
        credits, self._credits = self._credits, {}
        clocks, self._clocks = self._clocks, set()
        for client_id, worker in clocks:
            properties = _properties(control.CLOCK, client_id, {headers.SENT: headers.now()})
            channel.publish_encoded(self._exchange, worker, properties, b"", False, None)
        for (client_id, worker), cancels in waiting.items():
            properties = _properties(control.CANCEL, client_id)
            for start in range(0, len(cancels), control.MOST):
                body = control.encode_cancels(cancels[start : start + control.MOST])
                channel.publish_encoded(self._exchange, worker, properties, body, False, None)
        for (client_id, worker), by_run in credits.items():
            properties = _properties(control.CREDIT, client_id)
            granted = list(by_run.values())
            for start in range(0, len(granted), control.MOST):
                body = control.encode_credits(granted[start : start + control.MOST])
                channel.publish_encoded(self._exchange, worker, properties, body, False, None)


def _properties(kind: str, client_id: str, table: Table | None = None) -> bytes:
    """Return the encoded properties of a message of some kind, with these headers."""
    return encode_properties(
        Properties(
            content_type=control.CONTENT_TYPE,
            delivery_mode=TRANSIENT,
            reply_to=client_id,
            expiration=str(int(control.EXPIRES * 1000)),
            message_type=kind,
            headers=table,
        )
    )
