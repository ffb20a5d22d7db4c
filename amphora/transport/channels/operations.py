"""The synchronous methods of AMQP by name: declaring, binding, deleting."""

from __future__ import annotations

from typing import Any, TypeVar

from amphora.wire.codec import Method, methods

R = TypeVar("R")


class Operations:
    """The methods of a channel that the broker answers.  Each switches greenlets.

    Each raises ChannelClosed if the broker refuses, which also ends the channel, and ConnectionLost
    if there is no answer.
    """

    def call(self, method: Method, *replies: type[R], timeout: float | None = None) -> R:
        """Send a synchronous method and return the broker's answer."""
        raise NotImplementedError

    def exchange_declare(
        self, exchange: str, type: str = "direct", *, durable: bool = True, **options: Any
    ) -> None:
        """Declare an exchange; `options` are `passive`, `auto_delete`, `internal`, `arguments`."""
        self.call(
            methods.Exchange.Declare(
                exchange=exchange, exchange_type=type, durable=durable, **options
            ),
            methods.Exchange.DeclareOk,
        )

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> None:
        """Delete an exchange."""
        self.call(
            methods.Exchange.Delete(exchange=exchange, if_unused=if_unused),
            methods.Exchange.DeleteOk,
        )

    def queue_declare(
        self, queue: str = "", *, durable: bool = True, **options: Any
    ) -> methods.Queue.DeclareOk:
        """Declare a queue; return its name and how many messages and consumers it has.

        `options` are `passive`, `exclusive`, `auto_delete` and `arguments`.
        """
        return self.call(
            methods.Queue.Declare(queue=queue, durable=durable, **options),
            methods.Queue.DeclareOk,
        )

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Bind a queue to an exchange."""
        self.call(
            methods.Queue.Bind(
                queue=queue, exchange=exchange, routing_key=routing_key, arguments=arguments
            ),
            methods.Queue.BindOk,
        )

    def queue_unbind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Remove a binding."""
        self.call(
            methods.Queue.Unbind(queue=queue, exchange=exchange, routing_key=routing_key),
            methods.Queue.UnbindOk,
        )

    def queue_purge(self, queue: str) -> int:
        """Drop the messages that wait in a queue; return how many there were."""
        purged = self.call(methods.Queue.Purge(queue=queue), methods.Queue.PurgeOk)
        return purged.message_count or 0

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue; return how many messages were in it."""
        method = methods.Queue.Delete(queue=queue, if_unused=if_unused, if_empty=if_empty)
        return self.call(method, methods.Queue.DeleteOk).message_count or 0

    def qos(self, prefetch: int) -> None:
        """Limit the unacknowledged deliveries of each consumer made from now on."""
        self.call(methods.Basic.Qos(0, prefetch, False), methods.Basic.QosOk)
