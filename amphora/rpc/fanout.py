"""Requests that every server gets.

Each fanout server has a queue of its own, bound to a fanout exchange.  It joins the roll call (see
`roll_call`) after that queue is bound and before it takes a request from it, so whoever answers
was counted, and whoever was counted gets the request.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from amphora.rpc import naming
from amphora.rpc.client import CALL_OPTIONS, AmqpRpcClient
from amphora.rpc.deliveries import Delivery
from amphora.rpc.gather import Gathered
from amphora.rpc.messages import GATHER, IGNORED, Response
from amphora.rpc.proxy import Proxy
from amphora.rpc.roll_call import RollCall
from amphora.rpc.server import AmqpRpcServer
from amphora.rpc.timeouts import check_timeout
from amphora.transport.link import Part
from amphora.transport.topology import Binding, Exchange, Queue, Topology

# A server's queue is gone so long after the server.
FANOUT_QUEUE_EXPIRES_MS = 5 * 60 * 1000

_GATHER_OPTIONS = frozenset(("timeout", "function_name"))


class AmqpRpcFanoutServer(AmqpRpcServer):
    """A server that gets every request of its namespace, as do all others.

    A handler that raises IgnoreRequest sends no answer.  Everything else is as in
    `AmqpRpcServer`.
    """

    def _request_parts(self) -> list[Part]:
        exchange = Exchange(naming.request_exchange(self.namespace), "fanout")
        queue = Queue(
            naming.fanout_queue(self.namespace, self.worker_id),
            arguments={"x-expires": FANOUT_QUEUE_EXPIRES_MS},
        )
        binding = Binding(queue.name, exchange.name)
        self._own = self._consumer(queue.name, exchange, queue, binding)
        # Bound before the roll call of the management, consumed after it.
        return [Topology(exchange, queue, binding), *self._management.parts, self._own]

    def _close_parts(self) -> None:
        # Requests for a server that is gone are for nobody.
        self._own.remove()
        super()._close_parts()

    def _ignore(self, delivery: Delivery) -> None:
        properties = delivery.message.properties
        if properties.message_type == GATHER and properties.reply_to:
            body, content_type = self._executor.encode(
                Response(result=None), properties.content_type
            )
            self._responder.respond(delivery, body, content_type, IGNORED)
        else:
            delivery.ack()


class AmqpRpcFanoutClient(AmqpRpcClient):
    """Call a function in all servers of a namespace.

    `call.f(x)` and `defer.f(x)` take the first answer that comes.  `gather(timeout=1.0).f(x)`
    returns the answers of all servers as a `Gathered`.  Everything else is as in
    `AmqpRpcClient`, but there are no request queues for keys.
    """

    _call_options = CALL_OPTIONS - {"routing_key"}

    def __init__(self, namespace: str, **settings: Any) -> None:
        super().__init__(namespace, **settings)
        self.gather: Proxy[Gathered] = Proxy("gather", self._gather, _GATHER_OPTIONS)
        self._roll_call = RollCall(self.session, namespace)

    def _request_topology(self) -> Topology:
        return Topology(Exchange(self._exchange, "fanout"))

    def create_new_request_queue(self, *args: Any, **settings: Any) -> None:
        """Refuse: every server gets every request, whatever its key is.

        Raises:
            TypeError: always.
        """
        raise TypeError("every server gets every request of a fanout client: it has no keys")

    remove_request_queue = create_new_request_queue

    def _gather(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Gathered:
        timeout = check_timeout(options["timeout"]) if "timeout" in options else self.timeout
        deadline = monotonic() + timeout
        template = self._template(reply_to=self.client_id, message_type=GATHER)
        outgoing = self._outgoing(name, args, kwargs, options, template, deadline)
        gathered = Gathered(self._calls.forget, name, timeout, outgoing, self._roll_call)
        self._calls.publish(gathered, deadline)
        return gathered
