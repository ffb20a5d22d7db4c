"""How the broker says no: with the reply codes and texts of RabbitMQ."""

from __future__ import annotations

from amphora.errors import AmphoraError
from amphora.wire.codes import ReplyCode

# A reply text is a short string, and RabbitMQ cuts longer ones like this.
_MAX_TEXT = 255


class Refusal(AmphoraError):
    """The broker does not do what a client asked, and closes its channel or connection for it.

    `code` and `text` are what the client is told; `closes_connection` says which of the two
    ends.  The connection adds the ids of the method.

    Args:
        reply: the reply code.
        explanation: what is wrong, without the code's name.
    """

    def __init__(self, reply: ReplyCode, explanation: str) -> None:
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
