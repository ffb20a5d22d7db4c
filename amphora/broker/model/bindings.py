"""Bindings: the routes from an exchange to queues and other exchanges."""

from __future__ import annotations

from typing import Protocol

from amphora.broker.model.arguments import Arguments


class Destination(Protocol):
    """The destination of a binding: a queue or an exchange.

    `label` names it in reply texts; `inbound` has the bindings that lead to it.
    """

    label: str
    inbound: dict[Binding, None]


class Binding:
    """A route from an exchange to a queue or another exchange.

    Two bindings are equal if their sources, destinations, routing keys and arguments are.

    Args:
        source: the name of the exchange.
        destination: the queue or exchange that it leads to.
        routing_key: its routing key; its meaning depends on the type of the exchange.
        arguments: its arguments.
    """

    __slots__ = ("_identity", "arguments", "destination", "routing_key", "source")

    def __init__(
        self, source: str, destination: Destination, routing_key: str, arguments: Arguments
    ) -> None:
        self.source = source
        self.destination = destination
        self.routing_key = routing_key
        self.arguments = arguments
        self._identity = (source, destination, routing_key, repr(sorted(arguments.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Binding) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)
