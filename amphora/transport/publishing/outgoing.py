"""A message on its way to the broker, from its sender to the broker's verdict."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from amphora.errors import AmphoraError, ChannelClosed, Rejected, Unroutable
from amphora.net import clock
from amphora.transport.channels.confirms import Returned
from amphora.transport.links.restoring import Restorable
from amphora.wire.templates import PropertiesTemplate

# Seconds for which a refused message is sent again, if it has no expiry.
REFUSED_PATIENCE = 5.0
# From so many bytes on, it is worth while that a message lets others pass.
BULK = 256 * 1024


class Outgoing:
    """A message on its way to the broker.

    Args:
        template: the message's properties.
        message_id: its unique id.
        needs: what must be set up before the message may leave.
        expires_at: when the message becomes worthless, on the monotonic clock; the broker is told
            the time left when it is sent.
        on_done: called once with the message when the broker has confirmed it (`error` is
            None) or it failed; must not block.
        on_failed: called once with the message if it failed; must not block.
        spread: the message goes to any number of queues.  A refusal by one says nothing of the
            others, so it counts as a confirm.
        patience: seconds for which it is sent again after a refusal, if it has no expiry.
        answers: the message answers a request, which the broker keeps until the answer is
            confirmed, or it belongs to an answer.  So it waits while the login is refused: its
            sender can do nothing about that, and who waits for it is not to lose it.
        queue_for: returns the one queue that a routing key stands for, or None.  If the exchange
            does not lead there, or takes nothing, the message goes straight to that queue.

    Attributes:
        bulk: True for what those that are sent later may overtake: a large message, or one that
            goes to any number of queues.
        went_straight: why it did not go by its exchange, None if it did.
        error: why it failed.
        unfit: True if the broker does not take what is in it, by any way: it is too large.
        done: True when it was confirmed, failed or withdrawn.
        attempts: how often it was sent; an unconfirmed message that was sent may have arrived.
    """

    __slots__ = (
        "_event",
        "answers",
        "attempts",
        "body",
        "bulk",
        "confirm",
        "done",
        "error",
        "exchange",
        "expires_at",
        "mandatory",
        "message_id",
        "needs",
        "on_done",
        "on_failed",
        "on_refused",
        "on_rerouted",
        "patience",
        "queue_for",
        "refused",
        "routing_key",
        "spread",
        "template",
        "unfit",
        "went_straight",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        template: PropertiesTemplate,
        message_id: str,
        body: bytes,
        *,
        needs: tuple[Restorable, ...],
        on_done: Callable[[Outgoing], None] | None = None,
        on_failed: Callable[[Outgoing], None] | None = None,
        expires_at: float | None = None,
        mandatory: bool = True,
        confirm: bool = True,
        spread: bool = False,
        patience: float = REFUSED_PATIENCE,
        answers: bool = False,
        queue_for: Callable[[str], str | None] | None = None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.template = template
        self.message_id = message_id
        self.body = body
        self.needs = needs
        self.on_done = on_done
        self.on_failed = on_failed
        self.expires_at = expires_at
        self.mandatory = mandatory
        self.confirm = confirm
        self.spread = spread
        self.patience = patience
        self.answers = answers
        self.queue_for = queue_for
        self.bulk = False
        # When it was first refused, and the callback that sends it again.
        self.refused: float | None = None
        self.on_refused: Callable[[Outgoing], None] | None = None
        # Sends it by its other way.
        self.on_rerouted: Callable[[Outgoing], None] | None = None
        self.went_straight: AmphoraError | None = None
        self.error: AmphoraError | None = None
        self.unfit = False
        self.done = False
        self.attempts = 0
        self._event: Event | None = None

    @property
    def event(self) -> Event:
        """Set when the message is done."""
        if self._event is None:
            self._event = Event()
            if self.done:
                self._event.set()
        return self._event

    @property
    def executed(self) -> bool | None:
        """False if no broker can have the message, None if one may."""
        return None if self.attempts else False

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        """Take the broker's verdict."""
        if accepted and returned is None and self._event is None and not self.done:
            # As in `_finish`: nearly all messages end so.
            self.done = True
            self.body = b""
            if self.on_done is not None:
                self.on_done(self)
        elif not accepted and not self.spread:
            self._refuse()
        elif returned is not None:
            if self.exchange:
                where = f"takes the routing key {self.routing_key!r} of the exchange"
                self.fail(Unroutable(f"no queue {where} {self.exchange!r}: {returned.text}"))
            else:
                self.fail(Unroutable(f"there is no queue {self.routing_key!r}: {returned.text}"))
        else:
            self._finish()

    def _refuse(self) -> None:
        now = clock.monotonic()
        if self.refused is None:
            self.refused = now
        until = self.expires_at if self.expires_at is not None else self.refused + self.patience
        if self.on_refused is not None and now < until and not self.done:
            self.on_refused(self)
            return
        self.fail(
            Rejected(
                f"the broker refused the message for {now - self.refused:.1f} s: the queue is full,"
                " or its node is away"
            )
        )

    def fail(self, error: AmphoraError) -> None:
        """End with an error, unless there is another way."""
        if self.done or self._goes_straight(error):
            return
        if self.attempts > 1 or self.refused is not None:
            # An earlier attempt may have arrived.
            error.executed = None
        self.error = error
        self._finish()

    def _goes_straight(self, error: AmphoraError) -> bool:
        """Send it to its queue, if it is the exchange that the error is about."""
        if self.queue_for is None or self.on_rerouted is None or not self.exchange:
            return False
        if not isinstance(error, (Unroutable, ChannelClosed)):
            return False
        queue = self.queue_for(self.routing_key)
        if queue is None:
            return False
        self.exchange, self.routing_key, self.needs = "", queue, ()
        self.went_straight = error
        try:
            self.on_rerouted(self)
        except (AmphoraError, ValueError):
            # The session was closed, or no queue can have this name.
            return False
        return True

    def _finish(self) -> None:
        if self.done:
            return
        self.done = True
        # A pending call holds this message until its answer comes, and needs no body any more.
        self.body = b""
        if self._event is not None:
            self._event.set()
        if self.error is not None and self.on_failed is not None:
            self.on_failed(self)
        if self.on_done is not None:
            self.on_done(self)

    def withdraw(self) -> None:
        """End without a verdict and without a callback: the sender has given up."""
        self.done = True
        if self._event is not None:
            self._event.set()
