"""The queues of a virtual host, and the clients' operations on queues, exchanges and bindings.

The checks, their order and their texts are RabbitMQ's.  `owner` represents the connection that
asks; it matters for exclusive queues.
"""

from __future__ import annotations

import secrets

from amphora.broker.model.agenda import Agenda
from amphora.broker.model.arguments import (
    Arguments,
    check_same_arguments,
    check_same_field,
    queue_options,
)
from amphora.broker.model.errors import Refusal, resource
from amphora.broker.model.exchanges import (
    Exchange,
    Exchanges,
    check_exchange_argument,
    refuse_default_exchange,
    refuse_reserved_name,
    without_line_ends,
)
from amphora.broker.model.limits import Limits, check_limit
from amphora.broker.model.messages import Message
from amphora.broker.model.queues import Queue
from amphora.broker.model.quorum import QuorumQueue
from amphora.wire.codes import ReplyCode


class Topology:
    """The exchanges and queues of a virtual host; `queues` has the latter by name.

    Args:
        vhost: the name of the virtual host.
        agenda: its agenda, for the queues.
        limits: what it may hold.
    """

    def __init__(self, vhost: str, agenda: Agenda, limits: Limits) -> None:
        self.exchanges = Exchanges(vhost, limits)
        self.queues: dict[str, Queue] = {}
        self._vhost = vhost
        self._agenda = agenda
        self._limits = limits

    def queue(self, name: str, owner: object) -> Queue:
        """Return a queue that `owner` may use.

        Raises:
            Refusal: 404, it does not exist; 405, it belongs to another connection.
        """
        queue = self._existing(name)
        if queue.owner is not None and queue.owner is not owner:
            raise _locked(queue)
        return queue

    def _existing(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            raise Refusal(ReplyCode.NOT_FOUND, f"no {resource('queue', name, self._vhost)}")
        return queue

    def declare_queue(
        self,
        name: str,
        owner: object,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments | None = None,
    ) -> Queue:
        """Create a queue, or check that it is there as described (queue.declare).

        If the name is empty, the broker chooses one.

        Raises:
            Refusal: 403, the name is reserved; 404, it is not there (passive); 405, it belongs
                to another connection; 406, it is there and differs, or an argument is not
                valid; 540, an argument is not supported.
        """
        name = without_line_ends(name)
        if passive:
            queue = self.queue(name, owner)
            queue.renew_lease()
            return queue
        arguments = arguments or {}
        durable = durable and not exclusive
        holder = owner if exclusive else None
        if name:
            refuse_reserved_name("queue", name)
        elif arguments.get("x-queue-type") == "quorum":
            text = "Cannot declare a server-named queue for type rabbit_quorum_queue"
            raise Refusal(ReplyCode.PRECONDITION_FAILED, text)
        else:
            name = "amq.gen-" + secrets.token_urlsafe(16)
        existing = self.queues.get(name)
        if existing is None:
            return self._create_queue(name, holder, durable, auto_delete, arguments)
        if existing.owner is not holder:
            raise _locked(existing)
        check_same_field(existing.label, "durable", existing.durable, durable)
        check_same_field(existing.label, "auto_delete", existing.auto_delete, auto_delete)
        quorum = existing.options.quorum
        check_same_arguments(existing.label, existing.arguments, arguments, quorum)
        existing.renew_lease()
        return existing

    def _create_queue(
        self, name: str, owner: object, durable: bool, auto_delete: bool, arguments: Arguments
    ) -> Queue:
        label = resource("queue", name, self._vhost)
        check_limit(
            f"declare queue '{name}'", "queue", self._vhost, len(self.queues), self._limits.queues
        )
        check_exchange_argument(label, "x-dead-letter-exchange", arguments)
        options = queue_options(label, arguments)
        if options.quorum:
            _refuse_properties(
                label,
                {
                    "auto-delete": auto_delete,
                    "exclusive-owner": owner is not None,
                    "non-durable": not durable,
                },
            )
        kind = QuorumQueue if options.quorum else Queue
        queue = kind(
            name,
            self._vhost,
            options,
            self._agenda,
            self.remove_queue,
            durable=durable,
            auto_delete=auto_delete,
            owner=owner,
            arguments=arguments,
        )
        self.queues[name] = queue
        return queue

    def delete_queue(
        self, name: str, owner: object, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Delete a queue, if it is there (queue.delete); return how many messages were ready.

        Raises:
            Refusal: 405, it belongs to another connection; 406, it has consumers or messages,
                against the condition; 540, quorum queues do not support such conditions.
        """
        name = without_line_ends(name)
        if name not in self.queues:
            return 0
        queue = self.queue(name, owner)
        if queue.options.quorum and (if_unused or if_empty):
            flag = "if-unused" if if_unused else "if-empty"
            raise Refusal(
                ReplyCode.NOT_IMPLEMENTED,
                f"cannot delete {queue.label}. queue.delete operations with {flag} flag set"
                " are not supported by quorum queues",
            )
        count = queue.message_count
        if if_empty and count:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, f"{queue.label} not empty")
        if if_unused and queue.consumer_count:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, f"{queue.label} in use")
        self.remove_queue(queue)
        return count

    def remove_queue(self, queue: Queue) -> None:
        """Delete a queue unconditionally."""
        if self.queues.pop(queue.name, None) is not None:
            queue.close()
            self.exchanges.unbind_all(queue)

    def bind_queue(
        self,
        name: str,
        owner: object,
        exchange: str,
        routing_key: str = "",
        arguments: Arguments | None = None,
    ) -> None:
        """Bind a queue to an exchange (queue.bind).

        Raises:
            Refusal: 403, it is the default exchange; 404, one of the two does not exist; 405,
                the queue belongs to another connection; 406, the arguments are not valid.
        """
        exchange = without_line_ends(exchange)
        refuse_default_exchange(exchange)
        self.exchanges.get(exchange)
        queue = self.queue(without_line_ends(name), owner)
        self.exchanges.bind(exchange, queue, routing_key, arguments or {})

    def unbind_queue(
        self,
        name: str,
        owner: object,
        exchange: str,
        routing_key: str = "",
        arguments: Arguments | None = None,
    ) -> None:
        """Remove a binding of a queue, if it is there (queue.unbind).

        Raises:
            Refusal: 403, it is the default exchange; 405, the queue belongs to another connection.
        """
        exchange = without_line_ends(exchange)
        name = without_line_ends(name)
        refuse_default_exchange(exchange)
        queue = self.queues.get(name)
        if queue is not None:
            binding = self.exchanges.binding(exchange, queue, routing_key, arguments or {})
            if binding is not None:
                self.queue(name, owner)
                self.exchanges.unbind(binding)

    def bind_exchange(
        self, destination: str, source: str, routing_key: str, arguments: Arguments | None = None
    ) -> None:
        """Bind an exchange to another (https://www.rabbitmq.com/docs/e2e).

        Raises:
            Refusal: 403, one of the two is the default exchange; 404, one of them does not
                exist; 406, the arguments are not valid.
        """
        destination, source = without_line_ends(destination), without_line_ends(source)
        refuse_default_exchange(destination)
        refuse_default_exchange(source)
        self.exchanges.get(source)
        target = self.exchanges.get(destination)
        self.exchanges.bind(source, target, routing_key, arguments or {})

    def unbind_exchange(
        self, destination: str, source: str, routing_key: str, arguments: Arguments | None = None
    ) -> None:
        """Remove the binding of an exchange to another, if it is there.

        Raises:
            Refusal: 403, one of the two is the default exchange.
        """
        destination, source = without_line_ends(destination), without_line_ends(source)
        refuse_default_exchange(destination)
        refuse_default_exchange(source)
        target = self.exchanges.by_name.get(destination)
        if target is not None:
            binding = self.exchanges.binding(source, target, routing_key, arguments or {})
            if binding is not None:
                self.exchanges.unbind(binding)

    def route(self, exchange: Exchange, message: Message) -> list[Queue]:
        """Return the queues that a message reaches, each once.

        Every queue is bound to the default exchange with its name.  As in RabbitMQ 3.10, this
        binding counts only for a message that was published to that exchange, and not for one
        that came there as an alternate.
        """
        if exchange.name:
            return self.exchanges.route(exchange, message)
        keys = message.routing_keys
        if len(keys) == 1:
            queue = self.queues.get(keys[0])
            return [] if queue is None else [queue]
        return list({self.queues[key]: None for key in keys if key in self.queues})


def _locked(queue: Queue) -> Refusal:
    return Refusal(
        ReplyCode.RESOURCE_LOCKED,
        f"cannot obtain exclusive access to locked {queue.label}. It could be originally declared"
        " on another connection or the exclusive property value does not match that of the"
        " original declaration.",
    )


def _refuse_properties(label: str, unfit: dict[str, bool]) -> None:
    for name, is_unfit in unfit.items():
        if is_unfit:
            raise Refusal(ReplyCode.PRECONDITION_FAILED, f"invalid property '{name}' for {label}")
