"""Publishing that does not forget.

A message is held here until the broker has confirmed it.  It is in one of two places.  It waits
while there is no connection, something that it needs is not set up, or the broker reads nothing.
Once sent, it is with its channel, unconfirmed.  When the connection ends, unconfirmed messages go
back to the head of the waiting ones and are sent again: they may arrive twice, but are never lost.

A broker closes a channel because of a single message, and does not say which.  So the messages that
were unconfirmed then are sent again one by one, each after the confirm of the one before.  If the
channel is closed again, the message that was alone on it is to blame, and fails.

A broker also refuses (nacks) a message without closing anything: the queue is full, or the node or
the leader of the queue is away.  Such a message is sent again after a pause, until it expires.  The
channel is renewed meanwhile: after the death of a quorum queue's leader, RabbitMQ 3.10 refuses
everything on an older channel.  A refused message may have arrived all the same: some of several
queues may have taken it.

A broker may also hold a channel up.  For the first message of a channel to some queue, RabbitMQ
asks the node of that queue, and waits for an answer until the node is given up: for 60 seconds, if
the node fell silent.  All that time it takes nothing from that channel, for whichever queue.  So
the connection is left then (see `vantage`): a new channel asks the queue's new leader, and RabbitMQ
drops what is behind that message on the old one.  The message that holds a channel up may do so
again, so what goes to other queues is sent before it: queue by queue, those last that were first.

A message that is meant for one queue goes straight to it, through the broker's default exchange,
if its own exchange was deleted, does not lead there, or may not be used.

A message that its sender wants no confirm for goes over a second channel, and is done as soon as it
is sent.  The broker returns those that no queue takes, and reports nothing else.

A large message that may be overtaken goes over channels of another publisher, whose frames let
others pass on the same connection.  They are opened for the first such message.  A request to all
servers goes there, too: with the queue of each, one that is away would hold other requests up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import gevent

from amphora.errors import (
    AccessRefused,
    AmphoraError,
    AuthenticationError,
    ChannelClosed,
    ConnectionLost,
    NoResult,
    Rejected,
)
from amphora.net import clock
from amphora.net.backoff import doubled, share_of
from amphora.net.deadline import Deadline
from amphora.net.log import Log
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import FIRST_NUMBER, Returned
from amphora.transport.connections.connection import Connection
from amphora.transport.links.link import Link
from amphora.transport.links.restoring import Restorable
from amphora.transport.publishing.outgoing import Outgoing
from amphora.wire.codec import Method, methods
from amphora.wire.codes import ReplyCode
from amphora.wire.properties import DIRECT_REPLY_TO

log = Log("amphora.transport")

# The bounds of the growing pauses in which a refused message waits to be sent again.
SHORTEST_REST = 0.05
LONGEST_REST = 0.5
# Least seconds between two renewals of the channel.
RENEW_INTERVAL = 1.0
# Seconds for which a channel may leave a question unanswered: at first, and when one channel after
# the other has confirmed nothing at all, so that leaving them does not help.
HELD_UP_AFTER = 3.0
HELD_UP_AFTER_LONGEST = 30.0


class _Suspect:
    """A message that is sent alone on its channel, to see if the broker closes the channel."""

    def __init__(self, outgoing: Outgoing, on_confirmed: Callable[[Outgoing], None]) -> None:
        self.outgoing = outgoing
        self.message_id = outgoing.message_id
        self._on_confirmed = on_confirmed

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        """Take the broker's verdict."""
        self.outgoing.confirmed(accepted, returned)
        self._on_confirmed(self.outgoing)


class Publisher(Restorable):
    """Send messages over a link and hold each until it is confirmed.

    Args:
        bulk: its channels are for large messages, which let others pass.

    Attributes:
        on_returned: called with the id of each message that was sent without a confirm and that no
            queue took; must not block.
    """

    def __init__(self, link: Link, *, bulk: bool = False) -> None:
        self.on_returned: list[Callable[[str], None]] = []
        self._link = link
        self._is_bulk = bulk
        # It is there from the beginning, and opens its channels for the first message.
        self._for_bulk = None if bulk else Publisher(link, bulk=True)
        self._has_bulk = False
        self._channel: Channel | None = None
        self._unconfirming: Channel | None = None
        # When the broker has closed one of the two channels: the other, for the keeper to close.
        self._left_over: list[Channel] = []
        # Ordered by arrival; a dict, so that a withdrawn message goes without a search.
        self._waiting: dict[Outgoing, None] = {}
        # What may be the reason why the broker closed the channel, or the connection; and the
        # message now sent alone.
        self._suspects: dict[Outgoing, None] = {}
        self._alone: Outgoing | None = None
        # Refused messages, each with the time to send it again; and replaced channels that still
        # have unconfirmed messages.
        self._refused: dict[Outgoing, float] = {}
        self._retiring: list[Channel] = []
        self._renewed = -RENEW_INTERVAL
        # The channel that the broker holds up, and how long one may take to answer.
        self._held_up: Channel | None = None
        self._patience = HELD_UP_AFTER
        self._timer: Any = None

    def __repr__(self) -> str:
        return f"<Publisher [{self.unconfirmed} unconfirmed]>"

    @property
    def unconfirmed(self) -> int:
        """How many messages the broker has not confirmed."""
        sent = sum(channel.unconfirmed_count for channel in self._confirming())
        bulk = 0 if self._for_bulk is None else self._for_bulk.unconfirmed
        return len(self._waiting) + len(self._refused) + sent + bulk

    @property
    def held(self) -> bool:
        """True while a message would have to wait: there is no room, or no connection."""
        return self._held()

    def oldest(self) -> object:
        """Return an object that identifies the message waiting longest, None if none waits.

        With large messages of their own, it is one of those if no other waits.
        """
        for channel in self._confirming():
            number = channel.oldest_unconfirmed
            if number is not None:
                return channel, number
        waiting = next(iter(self._waiting), None)
        if waiting is None and self._for_bulk is not None:
            return self._for_bulk.oldest()
        return waiting

    def is_held_up(self) -> bool:
        """Return whether the broker takes nothing more from a channel that it is to confirm on.

        Switches greenlets, for some seconds if it is.
        """
        if self._for_bulk is not None and self._for_bulk.is_held_up():
            return True
        channel, other = self._channel, self._unconfirming
        if channel is None or other is None or channel.connection.blocked is not None:
            return False
        # One that goes to many queues would only hold up the next channel, too.
        if all(outgoing.spread for outgoing in _sent_on(channel)):
            return False
        oldest = channel.oldest_unconfirmed
        # What is asked changes nothing.  The first question may wait behind a large message that is
        # still on its way, but has reached the broker when the other channel has answered one that
        # was asked later.  Asked again then, it waits for the first answer.
        for _ in range(2):
            patience = self._patience / 2
            if _answers(channel, methods.Confirm.Select(), methods.Confirm.SelectOk, patience):
                return False
            if not _answers(other, methods.Basic.Qos(), methods.Basic.QosOk, patience):
                return False
        if channel is not self._channel or channel.oldest_unconfirmed != oldest:
            return False
        if not channel.awaits_answer:
            # It came while this process was halted or busy, and is read only now.
            return False
        self._patience = (
            doubled(self._patience, HELD_UP_AFTER, HELD_UP_AFTER_LONGEST)
            if oldest == FIRST_NUMBER
            else HELD_UP_AFTER
        )
        self._held_up = channel
        return True

    def _confirming(self) -> list[Channel]:
        """Return the channels on which messages may be unconfirmed."""
        return self._retiring if self._channel is None else [*self._retiring, self._channel]

    def publish(self, outgoing: Outgoing) -> None:
        """Send a message as soon as possible.  Never switches greenlets.

        Raises:
            ConnectionLost: the session is closed.
            ValueError: a name or property cannot be sent.
        """
        if outgoing.bulk and self._for_bulk is not None:
            self._publish_bulk(self._for_bulk, outgoing)
            return
        outgoing.on_refused = self._send_again_later
        outgoing.on_rerouted = self.publish
        channel = self._channel
        # Messages that wait cannot be sent now, or they would have been: none is overtaken.
        if channel is not None and self._can_send(outgoing):
            self._send(outgoing, channel)
            return
        self._link.start()
        self._waiting[outgoing] = None
        self._fail_hopeless((outgoing,))
        if self._can_send(outgoing):
            # A signal handler has waited just now, and all that waited was sent meanwhile.
            self.flush()

    def _publish_bulk(self, bulk: Publisher, outgoing: Outgoing) -> None:
        if not self._has_bulk:
            # If a signal handler publishes another one meanwhile, it is set up twice, as after a
            # refusal.
            bulk.on_returned = self.on_returned
            self._link.add(bulk)
            self._has_bulk = True
        bulk.publish(outgoing)

    def withdraw(self, outgoing: Outgoing) -> None:
        """Drop a message whose sender has given up; if it is unsent, it is never sent."""
        if self._for_bulk is not None and outgoing.bulk:
            self._for_bulk.withdraw(outgoing)
            return
        outgoing.withdraw()
        if not (self._waiting or self._refused or self._suspects):
            return  # as nearly always: it was sent, and that is all
        self._waiting.pop(outgoing, None)
        self._refused.pop(outgoing, None)
        if outgoing in self._suspects and outgoing is not self._alone:
            self._acquit(outgoing)

    def flush(self) -> None:
        """Send all waiting messages that can be sent.  Never switches greenlets."""
        if self._for_bulk is not None:
            self._for_bulk.flush()
        if not self._waiting:
            return
        self._fail_hopeless(list(self._waiting))
        for outgoing in list(self._waiting):
            channel = self._channel
            if channel is None or self._held():
                return
            # The end of one message may withdraw another.
            if outgoing in self._waiting and self._can_send(outgoing):
                try:
                    self._send_waiting(outgoing, channel)
                except BaseException as error:
                    # It is unknown whether this message was sent.
                    channel.connection.interrupted(error)
                    raise

    def _send_waiting(self, outgoing: Outgoing, channel: Channel) -> None:
        if outgoing.done:
            # It was confirmed late, on its former channel.
            self._waiting.pop(outgoing, None)
            return
        if outgoing.expires_at is not None and outgoing.expires_at <= clock.monotonic():
            self._suspects.pop(outgoing, None)
            self._waiting.pop(outgoing, None)
            outgoing.fail(
                NoResult("it expired before it could be sent", executed=outgoing.executed)
            )
            return
        try:
            self._send(outgoing, channel)
        except ValueError as error:
            self._suspects.pop(outgoing, None)
            self._waiting.pop(outgoing, None)
            outgoing.fail(Rejected(f"the message cannot be sent: {error}"))
        else:
            # Only now: after an interruption it is sent again rather than lost.
            self._waiting.pop(outgoing, None)

    def wait_confirmed(self, timeout: float) -> bool:
        """Wait until the broker has confirmed everything; return False if time ran out.

        Switches greenlets.
        """
        deadline = Deadline(timeout)
        while self.unconfirmed:
            if deadline.passed:
                return False
            gevent.sleep(0.01)
        return True

    def close(self) -> None:
        """Fail all messages that are not confirmed."""
        if self._for_bulk is not None:
            self._for_bulk.close()
        self.lost()
        self._stop_timer()
        waiting = {**self._waiting, **self._refused}
        self._waiting, self._refused = {}, {}
        for outgoing in waiting:
            outgoing.fail(ConnectionLost("the session was closed", executed=outgoing.executed))

    def forget(self) -> None:
        """Let go of everything in a forked child: the messages are the parent's."""
        if self._for_bulk is not None:
            self._for_bulk.forget()
        self._channel = self._unconfirming = self._alone = self._held_up = None
        self._left_over.clear()
        self._waiting.clear()
        self._refused.clear()
        self._retiring.clear()
        self._stop_timer()
        self._suspects.clear()

    def restore(self, connection: Connection) -> None:
        """Open a channel that confirms, and one that does not."""
        while self._left_over:
            self._left_over.pop().close()
        for retired in [channel for channel in self._retiring if not channel.unconfirmed_count]:
            self._retiring.remove(retired)
            retired.close()
        opened: list[Channel] = []
        try:
            opened.append(connection.channel(bulk=self._is_bulk))
            opened.append(connection.channel(bulk=self._is_bulk))
            opened[1].confirm_select()
        except BaseException:
            for half_made in opened:
                half_made.close(0)
            raise
        unconfirming, channel = opened
        unconfirming.on_closed = channel.on_closed = self._channel_closed
        unconfirming.on_returned = self._returned
        before = self._unconfirming
        if self._channel is not None:
            # Renewed: the old channel stays open for the confirms that are still to come.
            self._retiring.append(self._channel)
        self._unconfirming = unconfirming
        self._channel = channel
        if before is not None:
            before.on_closed = None
            before.close()

    def lost(self) -> None:
        """Queue unconfirmed messages again, for the next connection."""
        channel, alone = self._channel, self._alone
        self._left_over.clear()
        again = self._take_back(
            *self._confirming(), held_up=channel is not None and channel is self._held_up
        )
        self._held_up = None
        self._retiring.clear()
        # RabbitMQ 3 closes the connection for a direct reply to an address that it cannot read: a
        # stranger made it up, or the node has another name now.  So these are sent one by one, and
        # what is alone when it happens again is given up.
        ended = None if channel is None else channel.connection
        if alone is not None and _is_direct(alone) and ended is not None and ended.internal_error:
            self._blame(alone, ended.error)
        self._suspects.update(
            dict.fromkeys(each for each in again if _is_direct(each) and not each.done)
        )

    def _take_back(self, *channels: Channel, held_up: bool = False) -> list[Outgoing]:
        """Put the unconfirmed messages of channels before the waiting ones; return them.

        If it is interrupted it can run again: the channel is dropped when all are back.

        Args:
            held_up: one of them held a channel up.
        """
        again = [outgoing for channel in channels for outgoing in _unconfirmed_on(channel)]
        waiting = [outgoing for outgoing in self._waiting if not outgoing.done]
        order = [*again, *waiting]
        self._waiting = dict.fromkeys(_by_queue(order) if held_up else order)
        self._suspects = {outgoing: None for outgoing in self._suspects if not outgoing.done}
        self.ready = False
        self._channel = self._unconfirming = self._alone = None
        return again

    # -- what was refused -----------------------------------------------------------------------

    def _send_again_later(self, outgoing: Outgoing) -> None:
        """Send a refused message again, after a growing pause."""
        now = clock.monotonic()
        if now - self._renewed >= RENEW_INTERVAL and self._channel is not None:
            self._renewed = now
            self._link.restore_soon(self)
        since = now - (outgoing.refused or now)
        pause = share_of(since, 4, SHORTEST_REST, LONGEST_REST)
        self._refused[outgoing] = now + pause * random.uniform(0.5, 1)  # noqa: S311 (no secret)
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(SHORTEST_REST / 2, SHORTEST_REST / 2)
            self._timer.start(self._look_at_refused)

    def _look_at_refused(self) -> None:
        now = clock.monotonic()
        for outgoing, due in list(self._refused.items()):
            if due <= now:
                self._waiting[outgoing] = None
                self._refused.pop(outgoing, None)
        if not self._refused:
            self._stop_timer()
        self.flush()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _channel_closed(self, channel: Channel) -> None:
        ours = (self._channel, self._unconfirming)
        if channel.connection.error is not None:
            return
        if channel in self._retiring:
            # A replaced channel, where no single message is to blame.
            self._retiring.remove(channel)
            self._waiting.update(dict.fromkeys(_unconfirmed_on(channel)))
            self.flush()
            return
        if channel not in ours:
            return
        for other in ours:
            if other is not None:
                other.on_closed = None
                if other is not channel:
                    self._left_over.append(other)
        confirming, alone = channel is self._channel, self._alone
        if not confirming:
            log.throttled(
                "%s: what was sent without a confirm just now may be lost: %s",
                self._link.name,
                channel.error,
            )
        again = [] if self._channel is None else self._take_back(self._channel)
        if confirming and alone is not None:
            self._blame(alone, channel.error)
        elif confirming:
            self._suspects = dict.fromkeys((*again, *self._suspects))
        # With what the messages need: a missing exchange is one of the reasons.
        self._link.restore_all_soon()

    def _blame(self, outgoing: Outgoing, error: AmphoraError | None) -> None:
        self._suspects.pop(outgoing, None)
        self._waiting.pop(outgoing, None)
        if isinstance(error, AccessRefused):
            refused = error.during("the message was not taken")
            refused.executed = False
            outgoing.fail(refused)
            return
        outgoing.unfit = (
            isinstance(error, ChannelClosed) and error.code == ReplyCode.PRECONDITION_FAILED
        )
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
        if channel is None or channel.error is not None:
            return True
        connection = channel.connection
        congested = connection.bulk_congested if self._is_bulk else connection.congested
        return connection.blocked is not None or congested

    def _can_send(self, outgoing: Outgoing) -> bool:
        channel = self._channel
        # As `_held`, but inlined for speed.
        if channel is None or channel.error is not None:
            return False
        connection = channel.connection
        if connection.blocked is not None or (
            connection.bulk_congested if self._is_bulk else connection.congested
        ):
            return False
        if self._suspects and (self._alone is not None or outgoing not in self._suspects):
            return False
        for need in outgoing.needs:  # noqa: SIM110 (each message comes here; all() costs thrice)
            if not need.ready:
                return False
        return True

    def _send(self, outgoing: Outgoing, channel: Channel) -> None:
        expiration = None
        if outgoing.expires_at is not None:
            left = int((outgoing.expires_at - clock.monotonic()) * 1000)
            expiration = str(left) if left > 0 else "0"
        if not outgoing.confirm and self._unconfirming is not None:
            channel = self._unconfirming
        template = outgoing.template.again if outgoing.attempts else outgoing.template
        suspect = bool(self._suspects) and outgoing in self._suspects
        channel.publish_encoded(
            outgoing.exchange,
            outgoing.routing_key,
            template.encode(outgoing.message_id, expiration),
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
        """Fail messages that waiting cannot help: the login or a declaration was refused."""
        login = self._link.error
        refused = login if isinstance(login, AuthenticationError) else None
        for outgoing in candidates:
            errors = [need.error for need in outgoing.needs if need.error is not None]
            error = next(iter(errors), None)
            if refused is not None and not outgoing.answers:
                error = refused
            if error is not None:
                self._waiting.pop(outgoing, None)
                self._suspects.pop(outgoing, None)
                outgoing.fail(error.again(executed=outgoing.executed))


def _is_direct(outgoing: Outgoing) -> bool:
    """Return whether a message is a direct reply, which goes to no queue."""
    return not outgoing.exchange and outgoing.routing_key.startswith(DIRECT_REPLY_TO)


def _sent_on(channel: Channel) -> list[Outgoing]:
    """Return the messages of a channel that the broker has not confirmed, in their order.

    Those that were withdrawn are among them.
    """
    items = (item.outgoing if isinstance(item, _Suspect) else item for item in channel.unconfirmed)
    return [item for item in items if isinstance(item, Outgoing)]


def _unconfirmed_on(channel: Channel) -> list[Outgoing]:
    """Return the messages of a channel that are to be sent again if it ends, in their order."""
    return [outgoing for outgoing in _sent_on(channel) if not outgoing.done]


def _answers(channel: Channel, question: Method, answer: type[Method], timeout: float) -> bool:
    """Return whether the broker answers a question on a channel.  Switches greenlets."""
    try:
        channel.call(question, answer, timeout=timeout)
    except AmphoraError:
        return False
    return True


def _by_queue(messages: Iterable[Outgoing]) -> list[Outgoing]:
    """Return messages queue by queue, those to the queue of the first one last."""
    by_queue: dict[tuple[str, str], list[Outgoing]] = {}
    for outgoing in messages:
        by_queue.setdefault((outgoing.exchange, outgoing.routing_key), []).append(outgoing)
    return [outgoing for alike in reversed(by_queue.values()) for outgoing in alike]
