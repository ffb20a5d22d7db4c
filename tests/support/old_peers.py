"""A client and a server of amphora 0.1, as far as the broker sees them.

What they declare and send was recorded from amphora 0.1.3 itself (with amqp 1.4.9 and 2.6.1, which
send the same), run under Python 2.7.
"""

from __future__ import annotations

import json
from typing import Any, Self

from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import Properties
from tests.support.raw import RawPeer


class OldClient(RawPeer):
    """A client of 0.1.3: its id, its queue that never expires, and its requests."""

    client_id = "7f7896c8-f9f5-4b67-9144-54fa070da3c0"
    request_id = "ad527fcd-c6be-4373-b5aa-21ff6b635232"

    def __enter__(self) -> Self:
        super().__enter__()
        self.queue = f"rpc_{self.namespace}_{self.client_id}_response"
        self.channel.queue_declare(self.queue, durable=True)
        self.channel.queue_bind(self.queue, f"rpc_{self.namespace}_response", self.client_id)
        self.consume(self.queue)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.channel.queue_delete(self.queue)
        super().__exit__(*exc_info)

    def send(self, body: bytes, key: str = "", **properties: Any) -> None:
        """Publish a request with the properties that 0.1.3 gives it."""
        values = {
            "delivery_mode": 2,
            "reply_to": self.client_id,
            "message_id": self.request_id,
            **properties,
        }
        self.channel.publish(f"rpc_{self.namespace}_request", key, Properties(**values), body)

    def read(self) -> tuple[str, Any]:
        """Return what a client of 0.1.3 makes of the next answer; see `read_by_0_1`."""
        answer = self.receive()
        assert answer.properties.message_id == self.request_id
        return read_by_0_1(answer)


def read_by_0_1(answer: Message[Deliver]) -> tuple[str, Any]:
    """Return the class that a client of 0.1.3 raises, or "result", and what it is made of.

    That client expects an object with a result, or else with an exception that has both its type
    and a list of arguments.  Anything else ended its consumer for good, and is an error here.
    """
    body = json.loads(answer.body)
    assert isinstance(body, dict)
    if "result" in body:
        return "result", body["result"]
    error = body["exception"]
    assert isinstance(error["args"], list)
    if error["type"] == "WrongRequest":
        return "WrongRequest", error["args"]
    return f"RemoteException {error['type']}", error["args"]


class OldServer(RawPeer):
    """A server of 0.1.3: it answers with the bytes that the test gives it."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.consume(self.requests)
        return self

    def respond(self, request: Message[Deliver], body: bytes) -> None:
        """Publish an answer with the properties that 0.1.3 gives it."""
        asked = request.properties
        self.channel.publish(
            f"rpc_{self.namespace}_response",
            asked.reply_to or "",
            Properties(delivery_mode=2, message_id=asked.message_id),
            body,
        )
