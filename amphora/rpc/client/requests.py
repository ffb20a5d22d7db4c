"""What the requests of a client are made of: its terms, a name and arguments.

This has no `__getattr__`, as clients have: each call looks up most of what is here, and where there
is one that takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from amphora.errors import ConnectionLost, NoResult, WrongRequest, printable
from amphora.net import clock
from amphora.rpc.client.calls import Calls
from amphora.rpc.client.mailbox import Mailbox
from amphora.rpc.context.call import CallContext, Scope
from amphora.rpc.contract import batches, headers, naming
from amphora.rpc.contract.bodies import Request
from amphora.rpc.contract.checks import check_timeout
from amphora.rpc.contract.serializers import Serializer
from amphora.rpc.contract.unsendable import named_arguments, refused_part
from amphora.transport.links.topology import Topology
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import Session
from amphora.wire.properties import PERSISTENT, TRANSIENT, Properties
from amphora.wire.templates import PropertiesTemplate


@dataclass(frozen=True)
class Route:
    """Where the requests of a client go.

    Attributes:
        exchange: the exchange that they are published to.
        topology: what must be declared before they leave.
        spread: whether a request goes to any number of queues.
    """

    exchange: str
    topology: Topology
    spread: bool = False


class Requests:
    """Make the requests of a client.

    Args:
        session: what they leave by.
        calls: the pending calls of the client.
        route: where they go.
        timeout: seconds that a call has, unless it says otherwise.
        serializer: encodes arguments.
        durable: the broker keeps them on disk, and confirms them.
        user: the login that they name as their sender, None for none.
        client_id: an id that the program has chosen to be answered to; None for a random one.

    Attributes:
        calls: the pending calls of the client.
        mailbox: where the answers come.
        template: returns the properties of requests that are answered to a client id.
        casts: the properties of those that are not answered.
        closed: True when the client makes no more requests.
    """

    def __init__(
        self,
        session: Session,
        calls: Calls,
        route: Route,
        *,
        timeout: float,
        serializer: Serializer,
        durable: bool,
        user: str | None,
        client_id: str | None,
    ) -> None:
        self.namespace = calls.namespace
        self.timeout = timeout
        self.calls = calls
        self.closed = False
        self._endpoint = session.endpoint
        self._route = route
        self._serializer = serializer
        self._durable = durable
        self.template = partial(_template, serializer.content_type, durable, user)
        self.casts = self.template(None)
        self.mailbox = Mailbox(session, calls, route.topology, self.template, client_id)

    def time_for(
        self, name: str, options: dict[str, Any], scope: CallContext | Scope | None
    ) -> tuple[float, float]:
        """Return a call's timeout, and when it ends, on the monotonic clock.

        Args:
            scope: where the call is made.

        Raises:
            NoResult: the time for it is over: that of a call which is served here, or of a block.
        """
        timeout = check_timeout(options["timeout"]) if "timeout" in options else self.timeout
        now = clock.monotonic()
        if scope is None:
            return timeout, now + timeout
        end = scope.ends_at
        if end is None or end >= now + timeout or not options.get("inherit_deadline", True):
            return timeout, now + timeout
        if end <= now:
            raise NoResult(
                f"{self.namespace}.{printable(name, 100)} was not called: the deadline that it"
                " inherits has passed",
                executed=False,
            )
        return end - now, end

    def make(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        routing_key: str | None,
        template: PropertiesTemplate,
        deadline: float | None,
        own_headers: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> Outgoing:
        """Return a request that is ready to leave.

        Args:
            template: its properties.
            deadline: when it expires, on the monotonic clock; None for never.
            own_headers: the headers that the program has given.
            body: its encoded name and arguments, if they are encoded.

        Raises:
            ConnectionLost: the client is closed.
            WrongRequest: the arguments cannot be sent.
            ValueError: the headers or the routing key cannot be sent.
        """
        if self.closed:
            raise ConnectionLost(f"the client of {self.namespace} is closed", executed=False)
        if body is None:
            try:
                body = self._serializer.encode(Request(name, list(args), kwargs))
            except ValueError as error:
                why = self._why_not(args, kwargs, error)
                raise self._unsendable(name, why) from error.__cause__
            limit = self._endpoint.max_message_size
            if len(body) > limit:
                raise self._unsendable(
                    name, f"they have {len(body)} bytes, and a message can have {limit}"
                )
        route = self._route
        needs = (route.topology,) if template is self.casts else self.mailbox.needs
        if own_headers:
            frame_max = self._endpoint.frame_max
            template = template.with_headers(headers.check_headers(own_headers, frame_max))
        outgoing = Outgoing(
            route.exchange,
            "" if routing_key is None else naming.routing_key_for(routing_key),
            template,
            naming.new_id(),
            body,
            needs=needs,
            expires_at=deadline,
            confirm=self._durable,
            spread=route.spread,
        )
        outgoing.bulk = route.spread
        return outgoing

    def _unsendable(self, name: str, why: str) -> WrongRequest:
        return WrongRequest(
            f"the arguments of {self.namespace}.{printable(name, 100)} cannot be sent: {why}"
        )

    def _why_not(self, args: tuple[Any, ...], kwargs: dict[str, Any], error: ValueError) -> str:
        return refused_part(
            named_arguments(args, kwargs),
            lambda value: self._serializer.encode(Request("", [value])),
            error,
        )


def _template(
    content_type: str,
    durable: bool,
    user: str | None,
    reply_to: str | None,
    message_type: str | None = None,
) -> PropertiesTemplate:
    """Return the properties of requests; without `reply_to` they are casts."""
    takes_batches = reply_to is not None and message_type is None
    return PropertiesTemplate(
        Properties(
            content_type=content_type,
            delivery_mode=PERSISTENT if durable else TRANSIENT,
            reply_to=reply_to,
            message_type=message_type,
            user_id=user,
            headers={headers.TAKES: batches.BATCH} if takes_batches else None,
        ),
        # A cast has no answer, so nothing is known of the clock that it came from.
        stamp=None if reply_to is None else (headers.SENT, clock.since_boot),
        repeated=headers.AGAIN,
    )
