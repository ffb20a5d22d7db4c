"""The broker's refusals, with the reply codes and texts of RabbitMQ."""

from __future__ import annotations

from amphora.errors import AmphoraError
from amphora.wire.codes import ReplyCode

# A reply text is a short string; RabbitMQ cuts longer ones in this way.
_MAX_TEXT = 255


class Refusal(AmphoraError):
    """The broker refuses a request, and closes the client's channel or connection.

    `code` and `text` are sent to the client; `closes_connection` says which of the two closes.
    The connection adds the ids of the method.

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
