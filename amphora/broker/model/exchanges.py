"""The exchanges of a virtual host, their bindings, and the routing of messages through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amphora.broker.model.arguments import Arguments, check_same_argument, check_same_field
from amphora.broker.model.bindings import Binding, Destination
from amphora.broker.model.errors import Refusal, resource
from amphora.broker.model.limits import Limits, check_limit
from amphora.broker.model.matching import MATCHERS
from amphora.broker.model.messages import Message
from amphora.broker.model.queues import Queue
from amphora.broker.model.values import type_name
from amphora.wire.codes import ReplyCode

_PREDECLARED = (
    ("", "direct"),
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.topic", "topic"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
)
_ALTERNATE = "alternate-exchange"
_NO_HEADERS: Mapping[str, Any] = {}


class Exchange:
    """One exchange: its properties and its bindings, from it (outbound) and to it (inbound)."""

    def __init__(
        self,
        name: str,
        vhost: str,
        kind: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        self.name = name
        self.label = resource("exchange", name, vhost)
        self.kind = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments or {}
        self.alternate: str | None = self.arguments.get(_ALTERNATE)
        self.matcher = MATCHERS[kind]()
        self.inbound: dict[Binding, None] = {}
        self.outbound: dict[Binding, None] = {}

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} ({self.kind})>"


class Exchanges:
    """The exchanges of a virtual host; `by_name` has them all.

    Args:
        vhost: the name of the virtual host.
        limits: what it may hold.
    """

    def __init__(self, vhost: str, limits: Limits) -> None:
        self.by_name: dict[str, Exchange] = {}
        self._vhost = vhost
        self._limits = limits
        self._binding_count = 0
        for name, kind in _PREDECLARED:
            self.by_name[name] = Exchange(name, vhost, kind, durable=True)
        trace = "amq.rabbitmq.trace"
        self.by_name[trace] = Exchange(trace, vhost, "topic", durable=True, internal=True)

    def get(self, name: str) -> Exchange:
        """Return an exchange.

        Raises:
            Refusal: 404, it does not exist.
        """
        exchange = self.by_name.get(name)
        if exchange is None:
            label = resource("exchange", name, self._vhost)
            raise Refusal(ReplyCode.NOT_FOUND, f"no {label}")
        return exchange

    def declare(
        self,
        name: str,
        kind: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        """Create an exchange, or check that it is there as described (exchange.declare).

        Raises:
            Refusal: 403, the name is reserved; 404, it is not there (passive); 406, it is there
                and differs; 503, there is no such type.
        """
        if not passive and kind not in MATCHERS:
            raise Refusal(ReplyCode.COMMAND_INVALID, f"unknown exchange type '{kind}'")
        name = without_line_ends(name)
        refuse_default_exchange(name)
        if passive:
            self.get(name)
            return
        arguments = arguments or {}
        exchange = self.by_name.get(name)
        if exchange is None:
            refuse_reserved_name("exchange", name)
            label = resource("exchange", name, self._vhost)
            check_exchange_argument(label, _ALTERNATE, arguments)
            check_limit(
                f"declare exchange '{name}'",
                "exchange",
                self._vhost,
                len(self.by_name),
                self._limits.exchanges,
            )
            self.by_name[name] = Exchange(
                name,
                self._vhost,
                kind,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
            )
            return
        check_same_field(exchange.label, "type", exchange.kind, kind)
        check_same_field(exchange.label, "durable", exchange.durable, durable)
        check_same_field(exchange.label, "auto_delete", exchange.auto_delete, auto_delete)
        check_same_field(exchange.label, "internal", exchange.internal, internal)
        check_same_argument(exchange.label, _ALTERNATE, exchange.arguments, arguments)

    def delete(self, name: str, if_unused: bool = False) -> None:
        """Delete an exchange and its bindings, if it is there (exchange.delete).

        Raises:
            Refusal: 403, it is one of the broker's own; 406, it has bindings (if_unused).
        """
        name = without_line_ends(name)
        refuse_default_exchange(name)
        if name.startswith("amq."):
            label = resource("exchange", name, self._vhost)
            raise Refusal(ReplyCode.ACCESS_REFUSED, f"deletion of system {label} not allowed")
        exchange = self.by_name.get(name)
        if exchange is None:
            return
        if if_unused and exchange.outbound:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, f"{exchange.label} in use")
        self.remove(exchange)

    def remove(self, exchange: Exchange) -> None:
        """Delete an exchange and its bindings unconditionally."""
        if self.by_name.pop(exchange.name, None) is not None:
            for binding in list(exchange.outbound):
                self._take_out(exchange, binding)
            self.unbind_all(exchange)

    def bind(
        self, source: str, destination: Destination, routing_key: str, arguments: Arguments
    ) -> None:
        """Bind a queue or an exchange to the exchange `source`.  Binding twice has no effect.

        Raises:
            Refusal: 404, there is no such exchange; 406, its type does not allow the arguments.
        """
        exchange = self.get(source)
        exchange.matcher.check(arguments)
        binding = Binding(exchange.name, destination, routing_key, arguments)
        if binding in exchange.outbound:
            return
        check_limit(
            f"bind {destination.label}",
            "binding",
            self._vhost,
            self._binding_count,
            self._limits.bindings,
        )
        self._binding_count += 1
        exchange.outbound[binding] = None
        exchange.matcher.add(binding)
        destination.inbound[binding] = None

    def binding(
        self, source: str, destination: Destination, routing_key: str, arguments: Arguments
    ) -> Binding | None:
        """Return a binding, None if it is not there."""
        exchange = self.by_name.get(source)
        if exchange is None:
            return None
        binding = Binding(exchange.name, destination, routing_key, arguments)
        return binding if binding in exchange.outbound else None

    def unbind_all(self, destination: Destination) -> None:
        """Remove all bindings that lead to a queue or an exchange."""
        for binding in list(destination.inbound):
            self.unbind(binding)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, and with its last one an auto-delete exchange."""
        source = self.by_name.get(binding.source)
        if source is None or binding not in source.outbound:
            return
        self._take_out(source, binding)
        if source.auto_delete and not source.outbound:
            self.remove(source)

    def _take_out(self, source: Exchange, binding: Binding) -> None:
        self._binding_count -= 1
        del source.outbound[binding]
        del binding.destination.inbound[binding]
        source.matcher.remove(binding)

    def route(self, exchange: Exchange, message: Message) -> list[Queue]:
        """Return the queues that a message reaches through bindings, each once.

        An exchange with an alternate passes on messages that match none of its bindings.  No
        exchange is visited twice.
        """
        keys = message.routing_keys
        headers = message.properties.headers or _NO_HEADERS
        queues: dict[Queue, None] = {}
        to_visit = [exchange]
        visited = {exchange}
        while to_visit:
            current = to_visit.pop()
            destinations = current.matcher.match(keys, headers)
            if not destinations and current.alternate is not None:
                alternate = self.by_name.get(current.alternate)
                destinations = [] if alternate is None else [alternate]
            for destination in destinations:
                if isinstance(destination, Queue):
                    queues[destination] = None
                elif isinstance(destination, Exchange) and destination not in visited:
                    visited.add(destination)
                    to_visit.append(destination)
        return list(queues)


def without_line_ends(name: str) -> str:
    """Return the name of an exchange or queue as RabbitMQ reads it."""
    return name.replace("\n", "").replace("\r", "")


def refuse_default_exchange(name: str) -> None:
    """Refuse to alter the default exchange, which has no name.

    Raises:
        Refusal: 403, it is the default exchange.
    """
    if not name:
        text = "operation not permitted on the default exchange"
        raise Refusal(ReplyCode.ACCESS_REFUSED, text)


def refuse_reserved_name(kind: str, name: str) -> None:
    """Refuse a name that is reserved for the broker.

    Raises:
        Refusal: 403, it begins with `amq.`.
    """
    if name.startswith("amq."):
        text = f"{kind} name '{name}' contains reserved prefix 'amq.*'"
        raise Refusal(ReplyCode.ACCESS_REFUSED, text)


def check_exchange_argument(label: str, key: str, arguments: Arguments) -> None:
    """Check an argument that names an exchange.

    Raises:
        Refusal: 406, it is not a text.
    """
    if key in arguments and not isinstance(arguments[key], str):
        text = f"invalid type '{type_name(arguments[key])}' for arg '{key}' in {label}"
        raise Refusal(ReplyCode.PRECONDITION_FAILED, text)
