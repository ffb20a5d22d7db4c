"""A request's way through a server: from its delivery to its ack.

It is read, handed to a greenlet, its handler runs, the response is published, the broker confirms
the response, and only then the request is acknowledged.  If anything breaks on the way, the broker
still has the request and delivers it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import gevent

from amphora.errors import AmphoraError, PoisonRequest
from amphora.rpc.attempts import Attempts
from amphora.rpc.deliveries import Deliveries, Delivery
from amphora.rpc.execution import Executor
from amphora.rpc.messages import Response, error_body
from amphora.rpc.pool import HandlerPool
from amphora.rpc.responder import Responder
from amphora.transport.channel import Channel
from amphora.wire.codec import Deliver
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")

# A request whose earlier attempts cannot be looked up rests so long, in seconds.
FAILED_PAUSE = 0.5
# Nothing is counted before a request comes again.
FIRST_ATTEMPT = nullcontext()


class RequestHandling:
    """The requests that one server has in work.

    Args:
        worker_id: the server's, for logs.
        executor: runs handlers.
        responder: sends responses.
        attempts: counts how often a request was begun.
        ignore: settles a request that its handler ignored; may switch greenlets.
        on_quiet: called when a request is done with; must not block.
    """

    def __init__(
        self,
        worker_id: str,
        executor: Executor,
        responder: Responder,
        attempts: Attempts,
        ignore: Callable[[Delivery], None],
        on_quiet: Callable[[], None],
    ) -> None:
        self._worker_id = worker_id
        self._executor = executor
        self._responder = responder
        self._attempts = attempts
        self._ignore = ignore
        self._on_quiet = on_quiet
        self._deliveries = Deliveries()
        self._pool = HandlerPool(self._process, on_quiet)
        # The program's own greenlets in which receive_from_queue handles a request now.
        self._here: dict[Delivery, Any] = {}
        self._leaving: set[gevent.Greenlet[..., None]] = set()
        self._given_up = False

    def __len__(self) -> int:
        """How many requests are in work."""
        return len(self._pool) + len(self._here)

    def __contains__(self, greenlet: object) -> bool:
        """True for a greenlet that handles a request."""
        return greenlet in self._pool or greenlet in self._here.values()

    @property
    def pooled(self) -> int:
        """How many requests are in work in greenlets of the pool."""
        return len(self._pool)

    def give_up(self) -> None:
        """Give up on the handlers that still run; their requests go back to the queue."""
        self._given_up = True
        self._pool.give_up()
        self._on_quiet()

    def close(self) -> None:
        """End the greenlets that are left."""
        self._pool.close()
        gevent.killall(list(self._leaving), block=False)

    def join(self, message: Message[Deliver], channel: Channel) -> bool:
        """Add a delivery to the request in work that it repeats; False if there is none."""
        return self._deliveries.join(message, channel)

    def take(self, message: Message[Deliver], channel: Channel) -> None:
        """Have a request handled in a greenlet of the pool.  Never switches greenlets."""
        if self._given_up:
            # It goes back when the channel is closed; sent back now, it could come here again.
            return
        delivery = self._deliveries.add(message, channel)
        if delivery is not None:
            self._pool.submit(delivery)

    def handle_here(
        self,
        message: Message[Deliver],
        channel: Channel,
        give_up: Callable[[], list[tuple[Message[Deliver], Channel]]],
    ) -> None:
        """Handle a request to its end, in a greenlet of the program's.

        Args:
            give_up: called if that greenlet is killed; returns requests that were delivered
                after this one, and go back after it.
        """
        delivery = self._deliveries.add(message, channel)
        if delivery is None:
            return
        self._here[delivery] = gevent.getcurrent()
        try:
            self._process(delivery, here=True)
        except BaseException:
            # Killed, or timed out by the program.
            self._leave(delivery, give_up())
            raise
        finally:
            del self._here[delivery]
            self._on_quiet()

    def _leave(self, delivery: Delivery, rest: list[tuple[Message[Deliver], Channel]]) -> None:
        """Give back the request of a receiver that went away, unless it was answered, and the rest.

        Never switches greenlets.
        """
        # At once, or what is still in the queue would overtake it.
        self._give_back(delivery)
        for message, channel in rest:
            channel.nack(message.method.delivery_tag)
        if delivery.again:
            # It did not end this server.
            greenlet = gevent.spawn(self._attempts.forget, delivery.message)
            self._leaving.add(greenlet)
            greenlet.link(self._leaving.discard)

    def _give_back(self, delivery: Delivery) -> None:
        if not delivery.answered:
            delivery.nack()

    def _process(self, delivery: Delivery, *, here: bool = False) -> None:
        message = delivery.message
        try:
            with self._attempts.attempt(message) if delivery.again else FIRST_ATTEMPT:
                response = self._executor.execute(message, here=here)
                if response is not None and (here or gevent.getcurrent() in self._pool):
                    # Before the attempt is forgotten, which takes a while: who is killed then has
                    # answered.
                    self._respond(delivery, response)
        except PoisonRequest as error:
            logger.error("%s: %s", self._worker_id, error)
            self._respond(delivery, Response(exception=error_body(error)))
        except AmphoraError as error:
            # The broker could not be asked about earlier attempts.
            logger.warning("%s: a request goes back to its queue: %s", self._worker_id, error)
            gevent.sleep(FAILED_PAUSE)
            delivery.nack()
        except BaseException:
            # Killed: unanswered, it goes back.
            if not here:
                self._give_back(delivery)
            raise
        else:
            if response is None and (here or gevent.getcurrent() in self._pool):
                self._ignore(delivery)
            elif not delivery.answered:
                # Given up by stop() while it ended.
                delivery.nack()

    def _respond(self, delivery: Delivery, response: Response) -> None:
        delivery.answered = True
        properties = delivery.message.properties
        if properties.reply_to:
            body, content_type = self._executor.encode(response, properties.content_type)
            self._responder.respond(delivery, body, content_type)
        else:
            delivery.ack()
