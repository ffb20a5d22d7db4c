"""What all clients have: a session, a mailbox for responses, pending calls, outgoing requests.

Requests begin here, and end in `calls`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, Unpack

import gevent

from amphora.errors import ConnectionLost, NoResult, WrongRequest, printable
from amphora.net import clock
from amphora.net.deadline import Deadline
from amphora.rpc.client.calls import Calls, WhenFull
from amphora.rpc.client.mailbox import Mailbox
from amphora.rpc.context.call import CallContext, Scope
from amphora.rpc.contract import batches, headers, naming
from amphora.rpc.contract.bodies import Request
from amphora.rpc.contract.checks import check_timeout
from amphora.rpc.contract.serializers import SerializerName, serializer_named
from amphora.rpc.contract.unsendable import refused_part
from amphora.transport.endpoint import ConnectionSettings
from amphora.transport.link import LinkState
from amphora.transport.outgoing import Outgoing
from amphora.transport.session import (
    Session,
    cannot_leave,
    dropped,
    left_to_another,
    register,
    session_for,
)
from amphora.transport.topology import Topology
from amphora.wire.properties import PERSISTENT, TRANSIENT, Properties, PropertiesTemplate

DEFAULT_TIMEOUT = 60.0
DEFAULT_MAX_PENDING = 50_000
# Seconds between two looks whether a dropped client still has pending results.
DROPPED_PAUSE = 0.2


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


class CommonSettings(ConnectionSettings, total=False):
    """The keywords of every client, except its timeout."""

    url: str | None
    session: Session | None
    serializer: SerializerName
    durable: bool
    max_pending: int
    when_full: WhenFull
    uuid: str | None
    identify: bool | str


class CallerSettings(CommonSettings, total=False):
    """The keywords of every client; see `AmqpRpcClient`."""

    timeout: float


class Caller:
    """The base of all clients, which has no way to call yet.

    Args:
        namespace: the namespace of the servers.
        route: where they go.
        url, session, timeout, serializer, durable, max_pending, when_full, uuid, identify,
            connection: as for `AmqpRpcClient`.
    """

    # The errors for missing attributes, by name, and the one for all others.
    _absent: ClassVar[dict[str, str]] = {}
    _absent_else = ""

    def __init__(
        self,
        namespace: str,
        route: Route,
        /,
        *,
        url: str | None = None,
        session: Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        serializer: SerializerName = "json",
        durable: bool = True,
        max_pending: int = DEFAULT_MAX_PENDING,
        when_full: WhenFull = "wait",
        uuid: str | None = None,
        identify: bool | str = False,
        **connection: Unpack[ConnectionSettings],
    ) -> None:
        self.namespace = namespace
        self.timeout = check_timeout(timeout)
        self.serializer = serializer_named(serializer)
        client_id = None if uuid is None else naming.check_client_id(uuid)
        self._owns_session = session is None
        self.session = session_for(session, url, connection, type(self))
        self._durable = durable
        self._calls = Calls(namespace, self.session, route.topology, max_pending, when_full)
        self._closed = False
        self._route = route
        self.session.publishing.add(route.topology)
        user = _login(identify, self.session)
        self._template = partial(_template, self.serializer.content_type, durable, user)
        self._casts = self._template(None)
        self._mailbox = Mailbox(
            self.session, self._calls, route.topology, self._template, client_id
        )
        if not durable:
            self.session.publisher.on_returned.append(self._calls.returned)
        register(self.session, self._mailbox)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.namespace} [{len(self._calls)} pending, {self.state}]>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            why = self._absent.get(name, self._absent_else).format(name=name)
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}{why and '; '}{why}"
            )

    def __reduce__(self) -> NoReturn:
        raise cannot_leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        session = self.__dict__.get("session")
        if session is not None:
            dropped(self, self._close_dropped, session)

    def _close_dropped(self) -> None:
        """Close once no result of this client can be waited for any more."""
        while len(self._calls) and self.state is not LinkState.CLOSED:
            gevent.sleep(DROPPED_PAUSE)
        self._calls.wait_for_casts(None)
        self.close()

    @property
    def state(self) -> LinkState:
        """One of "idle", "connecting", "connected", "blocked" and "closed"."""
        return LinkState.CLOSED if self._closed else self.session.state

    @property
    def client_id(self) -> str:
        """The id that the answers are addressed to."""
        return self._mailbox.client_id

    @property
    def unexpected_responses(self) -> int:
        """How many answers came for no pending call: late, duplicate or forged ones."""
        return self._mailbox.responses.unexpected

    @property
    def pending(self) -> int:
        """How many calls wait for an answer."""
        return len(self._calls)

    def close(self, timeout: float = 1.0, *, cancel: bool = False) -> None:
        """Close the client; pending calls fail with ConnectionLost, and streams with StreamLost.

        Waits for unconfirmed casts, up to the timeout, and until cancellations are sent.  Switches
        greenlets for at most about twice `timeout` seconds, whatever the state of the broker.  A
        session that was given stays open.  Closing twice is fine.  In a signal handler or another
        thread it returns at once, and closes a moment later.

        Args:
            timeout: seconds to wait for casts, and for the broker.
            cancel: cancel the pending calls; otherwise their requests are served all the same.
                Streams end at their servers in any case.
        """
        close = partial(self.close, timeout, cancel=cancel)
        if self._closed or left_to_another(self.session, close):
            return
        self._closed = True
        # An interrupted wait leaves no time for the others.  All the rest is done, because a client
        # cannot be closed again.
        patience = 0.0
        deadline = Deadline(timeout)
        try:
            if cancel:
                self._calls.cancel_all()
            self._calls.wait_for_casts(deadline.left())
            patience = timeout
        finally:
            self._let_go(patience, deadline)

    def _let_go(self, timeout: float, deadline: Deadline) -> None:
        patience = 0.0
        self._calls.fail_all("the client was closed while")
        self._mailbox.ended.set()
        try:
            self._calls.control.wait_sent(min(deadline.left() or 0.0, timeout))
            patience = timeout
        finally:
            self._calls.control.close()
            self._release()
            self.session.publishing.remove(self._route.topology)
            self._mailbox.close()
            if not self._durable:
                self.session.publisher.on_returned.remove(self._calls.returned)
            self._leave(patience)

    def _leave(self, timeout: float) -> None:
        patience = 0.0
        try:
            with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
                # It would expire by itself, but an orderly end leaves nothing behind.
                self._mailbox.consumer.delete()
            patience = timeout
        finally:
            if self._owns_session:
                self.session.close(patience)

    def _release(self) -> None:
        """Close what a subclass has besides.  Never switches greenlets."""

    # -- outgoing requests ------------------------------------------------------------------------

    def _time_for(
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

    def _outgoing(
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
        if self._closed:
            raise ConnectionLost(f"{self!r} is closed", executed=False)
        if body is None:
            try:
                body = self.serializer.encode(Request(name, list(args), kwargs))
            except ValueError as error:
                why = self._refused(args, kwargs, error)
                raise self._unsendable(name, why) from error.__cause__
            limit = self.session.endpoint.max_message_size
            if len(body) > limit:
                raise self._unsendable(
                    name, f"they have {len(body)} bytes, and a message can have {limit}"
                )
        needs = (self._route.topology,) if template is self._casts else self._mailbox.needs
        if own_headers:
            frame_max = self.session.endpoint.frame_max
            template = template.with_headers(headers.check_headers(own_headers, frame_max))
        route = self._route
        return Outgoing(
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

    def _unsendable(self, name: str, why: str) -> WrongRequest:
        return WrongRequest(
            f"the arguments of {self.namespace}.{printable(name, 100)} cannot be sent: {why}"
        )

    def _refused(self, args: tuple[Any, ...], kwargs: dict[str, Any], error: ValueError) -> str:
        named = [(f"args[{index}]", value) for index, value in enumerate(args)]
        return refused_part(
            [*named, *kwargs.items()],
            lambda value: self.serializer.encode(Request("", [value])),
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


def _login(identify: bool | str, session: Session) -> str | None:
    """Return the login that requests name as their sender, None if they name none."""
    if identify is True:
        return session.endpoint.user
    return identify or None
