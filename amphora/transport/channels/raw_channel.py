"""A channel as programs have it: for what amphora does not do, and AMQP does.

What amphora itself needs of a channel is in `channel`, and may change with any release.

The callbacks that a program gives are called by the reader of a connection that others share, in
the middle of its work.  So what they raise is shown, and costs nobody anything.

What is given here is checked before anything is sent, because the broker answers to many mistakes
by closing the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

import gevent

from amphora.errors import AmphoraError
from amphora.net.forks import notice
from amphora.net.log import show_failure, tell
from amphora.transport.channels.attendant import check_can_wait, is_waited_for
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import Returned, Unconfirmed
from amphora.transport.channels.operations import Operations
from amphora.wire.codec import Deliver, Method
from amphora.wire.content import Message
from amphora.wire.properties import Properties

R = TypeVar("R")

# What the channel has a method of its own for: it keeps state of them.
_OWN_METHODS = {
    "Basic.Consume": "consume",
    "Basic.Get": "get",
    "Channel.Close": "close",
    "Confirm.Select": "confirm_select",
}


def _tell(callback: Callable[..., object], *args: object) -> None:
    """Call a callback of the program's; what it raises is shown."""
    try:
        tell(callback, *args)
    except gevent.Timeout:
        # Nothing that is needed by the connection has a timeout there: it is the callback's own.
        # Only a channel that the program closes ends in a greenlet of the program.
        if not is_waited_for():
            raise
        show_failure()


class _Published:
    """A message that waits for its confirm; the verdict goes to what the program gave with it."""

    def __init__(self, unconfirmed: Unconfirmed) -> None:
        self.unconfirmed = unconfirmed
        self.message_id = unconfirmed.message_id

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        _tell(self.unconfirmed.confirmed, accepted, returned)


class RawChannel(Operations):
    """A channel of a session's connection, open until `error` is set.  Made by `Session.channel`.

    At the end of a `with` block it is closed.

    What a callback raises is shown on the standard error stream; the channel goes on.

    Another thread of the operating system cannot use it: each method raises a RuntimeError there.

    Methods that wait for the broker's answer switch greenlets.  They raise ChannelClosed if the
    broker refuses, which ends the channel; ConnectionLost if there is no answer; and a RuntimeError
    in a callback, which would keep its own answer from being read.

    Attributes:
        on_closed: called once with the channel when it has ended; must not block.
        on_returned: called on a channel without confirms with the id of a message that no queue
            took, and the broker's reason; must not block.
    """

    def __init__(self, channel: Channel) -> None:
        self.on_closed: Callable[[RawChannel], None] | None = None
        self.on_returned: Callable[[str, Returned], None] | None = None
        self._channel = channel
        self._hub = gevent.get_hub()
        channel.on_closed = self._closed
        channel.on_returned = self._returned

    def __repr__(self) -> str:
        return repr(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def error(self) -> AmphoraError | None:
        """Why the channel ended; None while it is open."""
        return self._channel.error

    @property
    def is_open(self) -> bool:
        """False once it has ended, or is being closed on this side."""
        return self._channel.is_open

    @property
    def stale_acks(self) -> int:
        """How many acks came after the end of the channel."""
        return self._channel.stale_acks

    @property
    def unconfirmed(self) -> list[Unconfirmed]:
        """What the broker has not confirmed, in the order of publishing."""
        return [
            message.unconfirmed
            for message in self._channel.unconfirmed
            if isinstance(message, _Published)
        ]

    def call(self, method: Method, *replies: type[R], timeout: float | None = None) -> R:
        """Send a synchronous method and return the broker's answer.  Switches greenlets.

        Args:
            method: the method, such as `methods.Queue.Declare("q")`.
            replies: the classes that answer it.
            timeout: seconds to wait; the endpoint's method timeout if None.

        Raises:
            ChannelClosed: the broker refused; the channel cannot be used any more.
            ConnectionLost: the connection ended or the broker did not answer in time.
            ValueError: an argument does not fit its AMQP type, or other classes than `replies`
                answer the method; nothing was sent.
            RuntimeError: a callback asks for it, and would keep its own answer from being read.
        """
        self._check_can_wait()
        _check_replies(method, replies)
        return self._channel.call(method, *replies, timeout=timeout)

    def confirm_select(self) -> None:
        """Ask the broker to confirm every publish (https://www.rabbitmq.com/docs/confirms)."""
        self._check_can_wait()
        self._channel.confirm_select()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes | bytearray | memoryview,
        *,
        mandatory: bool = False,
        unconfirmed: Unconfirmed | None = None,
    ) -> None:
        """Queue a message for the writer.  Never switches greenlets.

        Args:
            unconfirmed: told the broker's verdict, if the channel is in confirm mode.  If the
                message is mandatory, its `message_id` is that of `properties`.

        Raises:
            ValueError: a name or a property does not fit; nothing was sent.
            TypeError: the body is not bytes; nothing was sent.
            ConnectionLost, ChannelClosed: the channel has ended; nothing was sent.
        """
        self._check_caller()
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"the body of a message is bytes, not {type(body).__name__}")
        published = None if unconfirmed is None else _Published(unconfirmed)
        if mandatory and published is not None and published.message_id != properties.message_id:
            raise ValueError(
                "a return names a message by its message_id alone: `properties` and `unconfirmed`"
                " must have the same"
            )
        self._channel.publish(
            exchange,
            routing_key,
            properties,
            # A copy of what the program may change while it waits for the writer.
            bytes(body),
            mandatory=mandatory,
            unconfirmed=published,
        )

    def consume(
        self,
        queue: str,
        callback: Callable[[Message[Deliver]], None],
        consumer_tag: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        on_cancel: Callable[[str], None] | None = None,
    ) -> None:
        """Have the messages of a queue delivered to `callback`.  Switches greenlets.

        Args:
            callback: called with each message, in the reader greenlet; must not block.  A message
                for which it raises stays unacknowledged.
            consumer_tag: chosen by the caller, new for every consume: the broker closes the
                connection if a tag is used twice on a channel.
            on_cancel: called with the tag when the broker ends the consumer, as when the queue is
                deleted (https://www.rabbitmq.com/docs/consumer-cancel).

        Raises:
            ValueError: the tag is in use on this channel; nothing was sent.
        """
        self._check_can_wait()
        self._channel.consume(
            queue,
            partial(_tell, callback),
            consumer_tag,
            no_ack=no_ack,
            exclusive=exclusive,
            arguments=arguments,
            on_cancel=None if on_cancel is None else partial(_tell, on_cancel),
        )

    def cancel(self, consumer_tag: str, timeout: float | None = None) -> None:
        """End a consumer; its deliveries stay unacknowledged.  Switches greenlets."""
        self._check_can_wait()
        self._channel.cancel(consumer_tag, timeout)

    def get(self, queue: str, no_ack: bool = False) -> Message[Method] | None:
        """Fetch one message; return None if the queue is empty.  Switches greenlets."""
        self._check_can_wait()
        return self._channel.get(queue, no_ack)

    def ack(self, delivery_tag: int) -> None:
        """Acknowledge a delivery, together with others of this turn of the event loop.

        Never switches greenlets.  Does nothing if the delivery is settled already.  On a closed
        channel the ack is counted and dropped; the broker delivers the message again.
        """
        self._check_caller()
        _check_tag(delivery_tag)
        self._channel.ack(delivery_tag)

    def nack(self, delivery_tag: int, *, requeue: bool = True) -> None:
        """Refuse a delivery: requeue it, or drop it.  Like `ack`, but sent at once."""
        self._check_caller()
        _check_tag(delivery_tag)
        self._channel.nack(delivery_tag, requeue=requeue)

    def close(self, timeout: float = 1.0) -> None:
        """Close the channel; unacknowledged deliveries go back to their queues.

        Switches greenlets for at most `timeout` seconds.  Closing twice is fine.  A callback may
        close it, too, and does not wait for the broker.
        """
        self._check_caller()
        self._channel.close(0 if is_waited_for() else timeout)

    def _check_caller(self) -> None:
        notice()
        # The writer would lose what another thread queues at the wrong moment.
        if gevent.get_hub() is not self._hub:
            raise RuntimeError(
                f"{self!r} is used by another thread; greenlets of one thread can share a channel,"
                " threads need a session each: open one in the thread that uses it"
            )

    def _check_can_wait(self) -> None:
        self._check_caller()
        check_can_wait()

    def _closed(self, _: Channel) -> None:
        if self.on_closed is not None:
            _tell(self.on_closed, self)

    def _returned(self, message_id: str, returned: Returned) -> None:
        if self.on_returned is not None:
            _tell(self.on_returned, message_id, returned)


def _check_replies(method: Method, replies: tuple[type[Any], ...]) -> None:
    """Check that a method has an answer, and that it is one of these classes.

    If not, the answer would look like one that the broker gives unasked.
    """
    own = _OWN_METHODS.get(method.name)
    if own is not None:
        raise ValueError(f"{method.name} is not for call(): use {own}()")
    answers = [] if getattr(method, "nowait", False) else getattr(method, "valid_responses", [])
    if not answers:
        raise ValueError(f"{method.name} has no answer that call() could wait for")
    if [getattr(reply, "name", None) for reply in replies] != answers:
        raise ValueError(f"{method.name} is answered by {answers[0]}: give call() that class, too")


def _check_tag(delivery_tag: object) -> None:
    # A message in its place would be taken for one that is settled already.
    if not isinstance(delivery_tag, int):
        raise TypeError(
            f"a delivery tag is a number, message.method.delivery_tag, not"
            f" {type(delivery_tag).__name__}"
        )
