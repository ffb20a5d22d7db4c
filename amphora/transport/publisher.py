"""Publishing that does not forget.

A message is held here until the broker has confirmed it.  It is in one of two places: among the
waiting, because there is no connection, what it needs is not set up, or the broker reads nothing;
or with the channel, sent and unconfirmed.  When the connection ends, the unconfirmed go back to
the head of the waiting and are sent again: they may then arrive twice, never not at all.

A broker closes a channel for a single message that it does not like, and does not say for which.
So what was unconfirmed then is sent again one by one, each when the one before is confirmed; if
the channel is closed again, the message that was alone on it is to blame, and fails.

A message for which its sender wants no confirm goes over a second channel, and is settled as soon
as it is sent.  Of those, only what no queue takes is heard of again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

import gevent

from amphora.errors import (
    AmphoraError,
    AuthenticationError,
    ConnectionLost,
    NoResult,
    Rejected,
    Unroutable,
)
from amphora.transport.channel import Channel
from amphora.transport.confirms import Returned
from amphora.transport.connection import Connection
from amphora.transport.deadline import Deadline
from amphora.transport.link import Link, Part
from amphora.wire.properties import PropertiesTemplate


class Outgoing:
    """A message on its way to the broker.

    Args:
        template: the message's properties.
        message_id: its id, which no other message has.
        needs: the parts that must be ready before the message may leave.
        expires_at: the point on the monotonic clock when the message is worth nothing any more;
            the broker is told how much is left when it is sent.
        on_settled: called once with the message when the broker has it for good (`error` is
            None) or it failed; must not block.

    Attributes:
        error: why it failed.
        settled: True when `on_settled` was called or the message was withdrawn.
        attempts: how often it was sent; an unsettled message that was sent may have arrived.
    """

    __slots__ = (
        "attempts",
        "body",
        "confirm",
        "error",
        "exchange",
        "expires_at",
        "mandatory",
        "message_id",
        "needs",
        "on_settled",
        "routing_key",
        "settled",
        "template",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        template: PropertiesTemplate,
        message_id: str,
        body: bytes,
        *,
        needs: tuple[Part, ...],
        on_settled: Callable[[Outgoing], None] | None,
        expires_at: float | None = None,
        mandatory: bool = True,
        confirm: bool = True,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.template = template
        self.message_id = message_id
        self.body = body
        self.needs = needs
        self.on_settled = on_settled
        self.expires_at = expires_at
        self.mandatory = mandatory
        self.confirm = confirm
        self.error: AmphoraError | None = None
        self.settled = False
        self.attempts = 0

    @property
    def executed(self) -> bool | None:
        """False while no broker can have the message, None as soon as one may."""
        return None if self.attempts else False

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        """Take the broker's verdict."""
        if not accepted:
            self.fail(Rejected("the broker refused the message: the queue is full"))
        elif returned is not None:
            self.fail(
                Unroutable(
                    f"no queue takes the routing key {self.routing_key!r} of the exchange"
                    f" {self.exchange!r}: {returned.text}"
                )
            )
        else:
            self._settle()

    def fail(self, error: AmphoraError) -> None:
        """Settle the message with an error."""
        if self.settled:
            return
        if self.attempts > 1:
            # An earlier attempt may have arrived, whatever became of this one.
            error.executed = None
        self.error = error
        self._settle()

    def _settle(self) -> None:
        if self.settled:
            return
        self.settled = True
        # Whoever waits for an answer holds on to this message, but needs no body any more.
        self.body = b""
        if self.on_settled is not None:
            self.on_settled(self)


class _Suspect:
    """A message that is alone on its channel, because the broker may close the channel for it."""

    def __init__(self, outgoing: Outgoing, on_confirmed: Callable[[Outgoing], None]) -> None:
        self.outgoing = outgoing
        self.message_id = outgoing.message_id
        self._on_confirmed = on_confirmed

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        """Take the broker's verdict."""
        self.outgoing.confirmed(accepted, returned)
        self._on_confirmed(self.outgoing)


class Publisher(Part):
    """Send messages over a link and hold each until it is confirmed.

    Attributes:
        on_returned: each is called with the id of a message that no queue took, if it was sent
            without a confirm; must not block.
    """

    def __init__(self, link: Link) -> None:
        self.on_returned: list[Callable[[str], None]] = []
        self._link = link
        self._channel: Channel | None = None
        self._unconfirming: Channel | None = None
        # Of the two channels, the one that the broker did not close; to be closed by the keeper.
        self._left_over: list[Channel] = []
        # Ordered by arrival; a dict, so that a withdrawn message goes without a search.
        self._waiting: dict[Outgoing, None] = {}
        # What was unconfirmed when the broker closed the channel, and the one that is sent now.
        self._suspects: dict[Outgoing, None] = {}
        self._alone: Outgoing | None = None

    def __repr__(self) -> str:
        return f"<Publisher [{self.unsettled} unsettled]>"

    @property
    def unsettled(self) -> int:
        """How many messages the broker has not confirmed."""
        sent = 0 if self._channel is None else self._channel.unconfirmed_count
        return len(self._waiting) + sent

    def publish(self, outgoing: Outgoing) -> None:
        """Send a message now or as soon as it can be.  Never switches greenlets.

        Raises:
            ConnectionLost: the session is closed.
            ValueError: a name or property cannot be sent.
        """
        channel = self._channel
        # What waits cannot be sent now, or it would have been: nothing is overtaken.
        if channel is not None and self._can_send(outgoing):
            self._send(outgoing, channel)
            return
        self._link.start()
        self._waiting[outgoing] = None
        self._fail_hopeless((outgoing,))

    def withdraw(self, outgoing: Outgoing) -> None:
        """Forget a message whose sender has given up; if it is unsent, it is never sent."""
        outgoing.settled = True
        self._waiting.pop(outgoing, None)
        if outgoing in self._suspects and outgoing is not self._alone:
            self._acquit(outgoing)

    def flush(self) -> None:
        """Send what can be sent of what waits.  Never switches greenlets."""
        if not self._waiting:
            return
        self._fail_hopeless(list(self._waiting))
        for outgoing in list(self._waiting):
            channel = self._channel
            if channel is None or self._held():
                return
            # Settling one message may withdraw another.
            if outgoing in self._waiting and self._can_send(outgoing):
                del self._waiting[outgoing]
                if outgoing.expires_at is not None and outgoing.expires_at <= monotonic():
                    self._suspects.pop(outgoing, None)
                    outgoing.fail(
                        NoResult("it expired before it could be sent", executed=outgoing.executed)
                    )
                    continue
                try:
                    self._send(outgoing, channel)
                except ValueError as error:
                    self._suspects.pop(outgoing, None)
                    outgoing.fail(Rejected(f"the message cannot be sent: {error}"))

    def wait_settled(self, timeout: float) -> bool:
        """Wait until the broker has confirmed everything; False if it has not in time.

        Switches greenlets.
        """
        deadline = Deadline(timeout)
        while self.unsettled:
            if deadline.passed:
                return False
            gevent.sleep(0.01)
        return True

    def close(self) -> None:
        """Fail everything that is not confirmed."""
        self.lost()
        waiting, self._waiting = self._waiting, {}
        for outgoing in waiting:
            outgoing.fail(ConnectionLost("the session was closed", executed=outgoing.executed))

    def forget(self) -> None:
        """Forget everything, in a forked child: the messages are the parent's."""
        self._channel = self._unconfirming = self._alone = None
        self._left_over.clear()
        self._waiting.clear()
        self._suspects.clear()

    def restore(self, connection: Connection) -> None:
        """Open a channel that confirms, and one that does not."""
        while self._left_over:
            self._left_over.pop().close()
        unconfirming = connection.channel()
        unconfirming.on_closed = self._channel_closed
        unconfirming.on_returned = self._returned
        channel = connection.channel()
        channel.confirm_select()
        channel.on_closed = self._channel_closed
        self._unconfirming = unconfirming
        self._channel = channel

    def lost(self) -> None:
        """Take the unconfirmed back; they are sent again on the next connection."""
        self._left_over.clear()
        self._take_back()

    def _take_back(self) -> list[Outgoing]:
        """Put the unconfirmed in front of what waits, and return them."""
        self.ready = False
        channel, self._channel = self._channel, None
        self._unconfirming = self._alone = None
        if channel is None:
            return []
        again = []
        for item in channel.take_unconfirmed():
            outgoing = item.outgoing if isinstance(item, _Suspect) else item
            if isinstance(outgoing, Outgoing) and not outgoing.settled:
                again.append(outgoing)
        waiting = [outgoing for outgoing in self._waiting if not outgoing.settled]
        self._waiting = dict.fromkeys((*again, *waiting))
        self._suspects = {outgoing: None for outgoing in self._suspects if not outgoing.settled}
        return again

    def _channel_closed(self, channel: Channel) -> None:
        ours = (self._channel, self._unconfirming)
        if channel not in ours or channel.connection.error is not None:
            return
        for other in ours:
            if other is not None:
                other.on_closed = None
                if other is not channel:
                    self._left_over.append(other)
        confirming, alone = channel is self._channel, self._alone
        again = self._take_back()
        if confirming and alone is not None:
            self._blame(alone, channel.error)
        elif confirming:
            self._suspects = dict.fromkeys((*again, *self._suspects))
        # Also what the messages need: an exchange that is gone is one of the reasons.
        self._link.restore_all_soon()

    def _blame(self, outgoing: Outgoing, error: AmphoraError | None) -> None:
        self._suspects.pop(outgoing, None)
        self._waiting.pop(outgoing, None)
        outgoing.fail(Rejected(f"the message was not taken: {error}"))

    def _acquit(self, outgoing: Outgoing) -> None:
        self._suspects.pop(outgoing, None)
        if outgoing is self._alone:
            self._alone = None
        self.flush()

    def _returned(self, message_id: str, _: Returned) -> None:
        for callback in self.on_returned:
            callback(message_id)

    def _held(self) -> bool:
        channel = self._channel
        return (
            channel is None
            or channel.error is not None
            or channel.connection.blocked is not None
            or channel.connection.congested
        )

    def _can_send(self, outgoing: Outgoing) -> bool:
        if self._held():
            return False
        if self._suspects and (self._alone is not None or outgoing not in self._suspects):
            return False
        for part in outgoing.needs:  # noqa: SIM110 (each message comes here; all() costs thrice)
            if not part.ready:
                return False
        return True

    def _send(self, outgoing: Outgoing, channel: Channel) -> None:
        expiration = None
        if outgoing.expires_at is not None:
            left = int((outgoing.expires_at - monotonic()) * 1000)
            expiration = str(left) if left > 0 else "0"
        if not outgoing.confirm and self._unconfirming is not None:
            channel = self._unconfirming
        suspect = bool(self._suspects) and outgoing in self._suspects
        channel.publish_encoded(
            outgoing.exchange,
            outgoing.routing_key,
            outgoing.template.encode(outgoing.message_id, expiration),
            outgoing.body,
            outgoing.mandatory,
            _Suspect(outgoing, self._acquit) if suspect else outgoing,
        )
        if suspect:
            self._alone = outgoing
        outgoing.attempts += 1
        if not outgoing.confirm:
            outgoing.confirmed(True, None)

    def _fail_hopeless(self, candidates: Iterable[Outgoing]) -> None:
        """Fail what cannot be helped by waiting: a refused login, a refused declaration."""
        login = self._link.error
        for outgoing in candidates:
            errors = [part.error for part in outgoing.needs if part.error is not None]
            error = login if isinstance(login, AuthenticationError) else next(iter(errors), None)
            if error is not None:
                self._waiting.pop(outgoing, None)
                self._suspects.pop(outgoing, None)
                outgoing.fail(_again(error, outgoing.executed))


def _again(error: AmphoraError, executed: bool | None) -> AmphoraError:
    """Return an exception of the same kind: one object raised twice mixes up tracebacks."""
    kind = AuthenticationError if isinstance(error, AuthenticationError) else AmphoraError
    again = kind(str(error))
    again.executed = executed
    again.__cause__ = error
    return again
