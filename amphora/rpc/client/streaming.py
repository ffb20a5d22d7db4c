"""Asking for streams: `client.stream.f(x)`."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

from amphora.net import clock
from amphora.rpc.client.caller import CallerSettings
from amphora.rpc.client.calling import WENT_THROUGH, FunctionCaller, note
from amphora.rpc.client.calls import Calls
from amphora.rpc.client.requests import Route
from amphora.rpc.client.streams.stream import PendingStream, Stream
from amphora.rpc.context.call import adopt, here
from amphora.rpc.contract import naming, streams
from amphora.rpc.contract.checks import check_timeout
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.checks import check_count
from amphora.transport.publishing.outgoing import Outgoing

# Seconds between two questions whether the worker of a stream is still there, at most.
LIVENESS = 5.0


class StreamCaller(FunctionCaller):
    """A client that calls functions, and asks for streams."""

    def __init__(self, namespace: str, route: Route, /, **settings: Unpack[CallerSettings]) -> None:
        super().__init__(namespace, route, **settings)
        # Without the client, which could not be dropped otherwise.
        mailbox = self._mailbox
        self._calls.streams.remake = partial(_ask_for_the_rest, self._calls)
        self._calls.streams.client_id = lambda: mailbox.client_id

    def _stream(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        if self._middleware and WENT_THROUGH not in options:
            return self._through("stream", self._stream, name, args, kwargs, options)
        if name in self._tuning.functions:
            options = self._tuning.options(name, args, kwargs, options)
        credit = check_count("credit", options.get("credit", streams.WINDOW), streams.MOST_WINDOW)
        idle = options.get("idle_timeout")
        idle_timeout = None if idle is None else check_timeout(idle, "idle_timeout")
        scope = here.get()
        inherits = scope is not None and options.get("inherit_deadline", True)
        ends_at = scope.ends_at if scope is not None and inherits else None
        endless = "timeout" not in options and ends_at is None
        timeout, deadline = self._requests.time_for(name, options, scope)
        check_can_wait()
        self._calls.streams.check(timeout)
        key = options.get("routing_key")
        if "wait_for_server" in options:
            self._calls.presence.wait(name, key, options["wait_for_server"], deadline)
        # In a frame of its own: an error that was caught above, and is kept somewhere, keeps this
        # frame, and would keep the stream, which ends when it is dropped.
        return self._begin(
            name, args, kwargs, options, credit, endless, idle_timeout, timeout, deadline
        )

    def _begin(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        credit: int,
        endless: bool,
        idle_timeout: float | None,
        timeout: float,
        deadline: float,
    ) -> Any:
        scope, key = here.get(), options.get("routing_key")
        own: dict[str, Any] = {streams.ALLOWED: credit}
        if endless:
            own[streams.ENDLESS] = True
        template = self._requests.template(self.client_id, streams.STREAM).with_headers(own)
        outgoing = self._requests.make(
            name, args, kwargs, key, template, deadline, options.get("headers")
        )
        pending = PendingStream(
            self._calls, self._calls.streams, name, timeout, outgoing, credit, endless
        )
        self._calls.watch(pending, min(self.session.endpoint.heartbeat or LIVENESS, LIVENESS))
        stream = Stream(
            pending, None if endless else deadline, idle_timeout, f"{self.namespace}.{name}"
        )
        note(options, pending)
        self._calls.publish(pending, deadline)
        if scope is not None:
            adopt(scope, stream)
        return stream


def _ask_for_the_rest(calls: Calls, pending: PendingStream) -> None:
    """Send another request for a stream whose worker is gone."""
    before = pending.outgoing
    after = pending.before + pending.seen
    deadline = before.expires_at
    if pending.endless or deadline is None:
        deadline = clock.monotonic() + pending.timeout
    again = Outgoing(
        before.exchange,
        before.routing_key,
        before.template.with_headers({streams.AFTER: after}),
        naming.new_id(),
        pending.body,
        needs=before.needs,
        expires_at=deadline,
        confirm=before.confirm,
    )
    calls.publish_again(pending, again, deadline)
