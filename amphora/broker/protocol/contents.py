"""The frames of methods that carry a message.

The header of a message is passed on as received, so that nothing in it is lost or altered, and
nothing is encoded twice.
"""

from __future__ import annotations

from amphora.broker.model.effects import Delivery, Returned
from amphora.broker.model.messages import Message, replaced
from amphora.wire.codec import encode_deliver_payload, encode_method_payload, methods, unchecked
from amphora.wire.content import content_frames, content_header
from amphora.wire.properties import encode_properties


def deliver(number: int, delivery: Delivery, max_frame_size: int) -> bytes:
    """Return the frames of a basic.deliver on the channel `number`."""
    message = delivery.message
    payload = encode_deliver_payload(
        delivery.consumer_tag,
        delivery.delivery_tag,
        delivery.redelivered,
        message.exchange,
        message.routing_key,
    )
    return _with_content(number, payload, message, max_frame_size)


def get_ok(number: int, delivery: Delivery, left: int, max_frame_size: int) -> bytes:
    """Return the frames of a basic.get-ok; `left` is how many messages are still in the queue."""
    message = delivery.message
    method = unchecked(
        methods.Basic.GetOk,
        delivery_tag=delivery.delivery_tag,
        redelivered=delivery.redelivered,
        exchange=message.exchange,
        routing_key=message.routing_key,
        message_count=left,
    )
    return _with_content(number, encode_method_payload(method), message, max_frame_size)


def give_back(number: int, returned: Returned, max_frame_size: int) -> bytes:
    """Return the frames of a basic.return."""
    message = returned.message
    method = unchecked(
        methods.Basic.Return,
        reply_code=returned.code,
        reply_text=returned.text,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
    return _with_content(number, encode_method_payload(method), message, max_frame_size)


def _with_content(number: int, payload: bytes, message: Message, max_frame_size: int) -> bytes:
    header = message.header or _new_header(message)
    return content_frames(number, payload, header, message.body, max_frame_size)


def _new_header(message: Message) -> bytes:
    """Return the header of a message whose properties the broker has altered."""
    try:
        properties = encode_properties(message.properties)
    except ValueError:
        # What the broker adds may exceed its type when a client has forged the x-death
        # that it adds to.
        properties = encode_properties(replaced(message.properties, headers=None))
    return content_header(len(message.body), properties)
