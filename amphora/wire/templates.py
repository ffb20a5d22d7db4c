"""The properties of messages of which a client or server sends many, encoded once."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from amphora.wire.fields import MISFITS, Table, encode_shortstr, encode_table
from amphora.wire.properties import (
    FLAGS,
    PROPERTY_NAMES,
    STAMP,
    Properties,
    encode_properties,
    flags_of,
)


class PropertiesTemplate:
    """The properties of messages that differ only in their id, their expiration and a time stamp.

    They are encoded once; for each message a few pieces are joined.  The id of a message is its
    `message_id` and its `correlation_id`.

    Args:
        properties: what the messages have in common.
        correlated: False for messages without a `correlation_id`.
        stamp: a header for the time at which a message is sent, in microseconds, and a clock in
            nanoseconds.
        repeated: a header that is true in messages that are sent again.

    Raises:
        ValueError: a property does not fit its AMQP type.
    """

    __slots__ = (
        "_again",
        "_back",
        "_clock",
        "_common",
        "_correlated",
        "_expiring",
        "_front",
        "_lasting",
        "_middle",
        "_rest",
        "_stamp",
        "repeated",
    )

    def __init__(
        self,
        properties: Properties,
        *,
        correlated: bool = True,
        stamp: tuple[str, Callable[[], int]] | None = None,
        repeated: str | None = None,
    ) -> None:
        self._common = dict(properties)
        if not self._common.keys().isdisjoint(("correlation_id", "expiration", "message_id")):
            raise ValueError("what differs from message to message is not in a template")
        self._correlated = correlated
        self._stamp = stamp
        self._clock = None if stamp is None else stamp[1]
        self.repeated = repeated
        self._middle = self._pieces("correlation_id", "expiration")
        self._back = self._pieces("message_id", None)
        self._rest = self._pieces("headers", "correlation_id")
        self._put_headers()

    def _pieces(self, first: str | None, last: str | None) -> bytes:
        """Return the encoded properties between two, without the flags."""
        begin = 0 if first is None else PROPERTY_NAMES.index(first) + 1
        end = None if last is None else PROPERTY_NAMES.index(last)
        common = self._common
        between = {name: common[name] for name in PROPERTY_NAMES[begin:end] if name in common}
        return encode_properties(Properties(**between))[FLAGS.size :]

    def _put_headers(self) -> None:
        """Encode what comes before the time stamp, and the flags."""
        common = self._common
        self._again: PropertiesTemplate | None = None
        if self._stamp is None:
            self._front = self._pieces(None, "delivery_mode")
            self._rest = self._pieces("headers", "correlation_id")
        else:
            # The stamp is the last header, and its value the last bytes of the table: the rest of
            # a table is the same in all messages, which helps its readers too.
            stamp = encode_shortstr(self._stamp[0]) + b"l"
            try:
                fields = encode_table(common.get("headers"))[4:] + stamp
            except MISFITS as error:
                raise ValueError(f"property headers cannot be sent: {error}") from error
            size = (len(fields) + STAMP.size).to_bytes(4)
            self._front = self._pieces(None, "headers") + size + fields
            common = common | {"headers": {}}
        common = common | {"message_id": ""}
        if self._correlated:
            common["correlation_id"] = ""
        self._lasting = flags_of(common)
        self._expiring = flags_of(common | {"expiration": ""})

    def with_headers(self, headers: Table) -> PropertiesTemplate:
        """Return a template whose messages have these headers besides.

        Raises:
            ValueError: they do not fit the types of AMQP.
        """
        other = copy(self)
        other._common = self._common | {"headers": (self._common.get("headers") or {}) | headers}
        other._put_headers()
        return other

    @property
    def reply_to(self) -> str | None:
        """The `reply_to` of the messages."""
        reply_to: str | None = self._common.get("reply_to")
        return reply_to

    @property
    def again(self) -> PropertiesTemplate:
        """The template for messages that are sent again."""
        if self.repeated is None:
            return self
        if self._again is None:
            self._again = self.with_headers({self.repeated: True})
        return self._again

    def encode(self, message_id: str, expiration: str | None = None) -> bytes:
        """Return the encoded properties of one message, as `encode_properties` would.

        Raises:
            ValueError: the id is longer than 255 bytes or cannot be UTF-8.
        """
        encoded = encode_shortstr(message_id)
        if expiration is None:
            flags, expires = self._lasting, b""
        else:
            flags, expires = self._expiring, encode_shortstr(expiration)
        correlation = encoded if self._correlated else b""
        clock = self._clock
        stamp = b"" if clock is None else STAMP.pack(clock() // 1000)
        return b"".join(
            (
                flags,
                self._front,
                stamp,
                self._rest,
                correlation,
                self._middle,
                expires,
                encoded,
                self._back,
            )
        )
