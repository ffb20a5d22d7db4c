"""A client and a server made by hand on a raw channel, as amphora 0.1 or any AMQP program has them.

They know nothing of amphora but the names and the bodies on the wire.
"""

from __future__ import annotations

import json
import secrets
from types import TracebackType
from typing import Any, ClassVar, Self

from gevent.queue import Queue

from amphora.transport.channels.channel import Channel
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from tests.support.brokers import Broker

JSON_TYPE = "application/json"
# The type that a virtual host may have another default for.
CLASSIC = {"x-queue-type": "classic"}


class RawPeer:
    """A channel of its own, and the messages of the one queue that it consumes, acknowledged."""

    request_exchange_type = "direct"
    # What its queues are declared with; amphora 0.1 names no type.
    queue_arguments: ClassVar[dict[str, Any]] = CLASSIC

    def __init__(self, broker: Broker, namespace: str) -> None:
        self.broker = broker
        self.namespace = namespace
        self._received: Queue[Message[Deliver]] = Queue()

    def __enter__(self) -> Self:
        self._opened = self.broker.channel()
        self.channel: Channel = self._opened.__enter__()
        self.channel.exchange_declare(f"rpc_{self.namespace}_request", self.request_exchange_type)
        self.channel.exchange_declare(f"rpc_{self.namespace}_response")
        self.requests = f"rpc_{self.namespace}_request"
        self.channel.queue_declare(self.requests, durable=True, arguments=self.queue_arguments)
        self.channel.queue_bind(self.requests, self.requests, "")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    def consume(self, queue: str) -> None:
        """Consume a queue."""
        self.channel.consume(queue, self._received.put_nowait, secrets.token_hex(8), no_ack=True)

    def receive(self, timeout: float = 40.0) -> Message[Deliver]:
        """Return the next message; raises `gevent.queue.Empty` after `timeout` seconds."""
        return self._received.get(timeout=timeout)

    @property
    def received(self) -> int:
        """How many messages have come that nobody has asked for."""
        return self._received.qsize()


class RawClient(RawPeer):
    """A client: it has a response queue, and sends what the test gives it."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.client_id = secrets.token_hex(16)
        self.queue = f"rpc_{self.namespace}_{self.client_id}_response"
        arguments = {**self.queue_arguments, "x-expires": 300_000}
        self.channel.queue_declare(self.queue, durable=True, arguments=arguments)
        self.channel.queue_bind(self.queue, f"rpc_{self.namespace}_response", self.client_id)
        self.consume(self.queue)
        return self

    def send(self, body: bytes, **properties: Any) -> str:
        """Publish a request and return its id; properties that are None are left out."""
        request_id = secrets.token_hex(16)
        values = {
            "content_type": JSON_TYPE,
            "delivery_mode": 2,
            "message_id": request_id,
            "correlation_id": request_id,
            "reply_to": self.client_id,
            **properties,
        }
        self.channel.publish(f"rpc_{self.namespace}_request", "", Properties(**values), body)
        return request_id

    def request(self, func: str, *args: Any, **properties: Any) -> str:
        """Publish a request as JSON and return its id."""
        body = json.dumps({"func": func, "args": args, "kwargs": {}}).encode()
        return self.send(body, **properties)

    def answer(self) -> Any:
        """Return the next answer, read as JSON."""
        return json.loads(self.receive().body)


class RawServer(RawPeer):
    """A server: it consumes the request queue, and answers what the test gives it."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.consume(self.requests)
        return self

    def respond(self, request: Message[Deliver], body: bytes, **properties: Any) -> None:
        """Publish the answer to a request."""
        asked = request.properties
        values = {
            "content_type": JSON_TYPE,
            "message_id": asked.message_id,
            "correlation_id": asked.correlation_id,
            **properties,
        }
        exchange = f"rpc_{self.namespace}_response"
        self.channel.publish(exchange, asked.reply_to or "", Properties(**values), body)
