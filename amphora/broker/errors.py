"""How the broker says no: with the reply codes and texts of RabbitMQ."""

from __future__ import annotations

from enum import IntEnum

from amphora.errors import AmphoraError

# A reply text is a short string, and RabbitMQ cuts longer ones like this.
_MAX_TEXT = 255


class Reply(IntEnum):
    """The reply codes of AMQP 0-9-1 (specification section 1.8.4) that a broker sends."""

    NO_ROUTE = 312
    CONNECTION_FORCED = 320
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541

    @property
    def closes_connection(self) -> bool:
        """True if the whole connection ends with it, False if only the channel does."""
        return self >= 500 or self == Reply.CONNECTION_FORCED


class Refusal(AmphoraError):
    """The broker does not do what a client asked, and closes its channel or connection for it.

    `code` and `text` are what the client is told; `closes_connection` says which of the two
    ends.  Whoever knows the method in question adds its class and method id.

    Args:
        reply: the reply code.
        explanation: what is wrong, without the code's name.
    """

    def __init__(self, reply: Reply, explanation: str) -> None:
        text = f"{reply.name} - {explanation}"
        encoded = text.encode()
        if len(encoded) > _MAX_TEXT:
            text = encoded[: _MAX_TEXT - 3].decode(errors="ignore") + "..."
        super().__init__(text)
        self.code = int(reply)
        self.text = text
        self.closes_connection = reply.closes_connection


def resource(kind: str, name: str, vhost: str) -> str:
    """Return how RabbitMQ names an exchange or a queue in its reply texts."""
    return f"{kind} '{name}' in vhost '{vhost}'"
