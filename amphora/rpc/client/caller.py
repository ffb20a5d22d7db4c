"""What all clients have: a session, requests, pending calls, a mailbox, and an end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, Unpack

import gevent

from amphora.errors import repr_of
from amphora.net.deadline import Deadline
from amphora.net.script import program_ends
from amphora.rpc.client.calls import Calls, WhenFull
from amphora.rpc.client.requests import Requests, Route
from amphora.rpc.contract import naming
from amphora.rpc.contract.checks import check_timeout
from amphora.rpc.contract.serializers import SerializerName, serializer_named
from amphora.transport.checks import check_flag, check_patience
from amphora.transport.connections.endpoint import ConnectionSettings
from amphora.transport.links.link import LinkState
from amphora.transport.session import (
    Session,
    cannot_leave,
    dropped,
    left_to_another,
    register,
    session_for,
)
from amphora.wire.fields import encode_shortstr

DEFAULT_TIMEOUT = 60.0
DEFAULT_MAX_PENDING = 50_000
# Seconds between two looks whether a dropped client still has pending results.
DROPPED_PAUSE = 0.2


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
        timeout = check_timeout(timeout)
        self.serializer = serializer_named(serializer)
        client_id = None if uuid is None else naming.check_client_id(uuid)
        self._owns_session = session is None
        self.session = session_for(session, url, connection, type(self))
        self._durable = check_flag("durable", durable)
        user = _login(identify, self.session)
        self._calls = Calls(namespace, self.session, route.topology, max_pending, when_full)
        self._closed = False
        self._route = route
        self.session.publishing.add(route.topology)
        self._requests = Requests(
            self.session,
            self._calls,
            route,
            timeout=timeout,
            serializer=self.serializer,
            durable=durable,
            user=user,
            client_id=client_id,
        )
        self._mailbox = self._requests.mailbox
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

    def __del__(self, program_ends: Callable[[], bool] = program_ends) -> None:
        session = None if program_ends() else self.__dict__.get("session")
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
    def timeout(self) -> float:
        """The seconds until a call fails with NoResult, unless the call says otherwise."""
        return self._requests.timeout

    @timeout.setter
    def timeout(self, timeout: float) -> None:
        self._requests.timeout = check_timeout(timeout)

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

        Raises:
            ValueError: `timeout` is no number of seconds, or `cancel` is neither True nor False;
                the client stays open.
        """
        check_patience(timeout)
        check_flag("cancel", cancel)
        close = partial(self.close, timeout, cancel=cancel)
        if self._closed or left_to_another(self.session, close):
            return
        self._closed = True
        self._requests.closed = True
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


def _login(identify: bool | str, session: Session) -> str | None:
    """Return the login that requests name as their sender, None if they name none.

    Raises:
        ValueError: there can be no such login.
    """
    # Not "" either, as from an empty variable: such a client would be denied, and not know why.
    if not isinstance(identify, bool | str) or identify == "":
        raise ValueError(f"identify must be True, or a login as text, not {repr_of(identify)}")
    login = session.endpoint.user if identify is True else identify or None
    if login is not None:
        try:
            encode_shortstr(login)
        except ValueError as error:
            raise ValueError(f"identify cannot name the login {login!a:.100}: {error}") from None
    return login
