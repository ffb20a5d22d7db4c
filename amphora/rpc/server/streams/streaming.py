"""Streams: handlers that are generators, and whose items their clients take one after the other.

The client of a stream says up to which item the server may go on, up to which it has taken them,
and up to which they have come: all as numbers of items, so that a message with credit that is
repeated, late or lost does no harm.  What is not taken is kept here, and what has not come is sent
again after a lost connection, or when the client's counts stand still; see `window`.  Items are
neither persistent nor confirmed.

The note that it has begun is not persistent either: a client that has said nothing yet is told
again after a lost connection, and when it stays silent.  All are told again when the worker has
another control queue, by which they see whether it is still there.

The end is sent once, and may get lost all the same: the client's queue was unbound, or a policy has
dropped it.  A client that gives credit for a stream which has ended is told that it has.

The request is acknowledged as soon as its client knows that it is begun: a stream of hours meets no
time limit of the broker, and is not begun again from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import gevent
from gevent.event import Event

from amphora.errors import AmphoraError, Unroutable, WrongRequest
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext
from amphora.rpc.contract import headers, streams
from amphora.rpc.contract.bodies import Response
from amphora.rpc.contract.control import Credit
from amphora.rpc.contract.serializers import JSON, Serializer, serializer_for
from amphora.rpc.contract.unsendable import refused_part
from amphora.rpc.server.answers.responder import Responder
from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.statistics import Statistics
from amphora.rpc.server.streams.window import Window
from amphora.transport.connections.connection import Connection
from amphora.transport.links.link import Link
from amphora.transport.publishing.outgoing import Outgoing
from amphora.transport.session import Session
from amphora.wire.properties import DIRECT_REPLY_TO, TRANSIENT, Properties
from amphora.wire.templates import PropertiesTemplate

log = Log("amphora.rpc")

# Seconds to wait for the broker's confirm that the client is told of the beginning.
START_TIMEOUT = 60.0
# Seconds between two looks at which clients have fallen silent.
LOOK = 1.0
# For so many seconds after a request, large items leave room for the answers to others.
BESIDE = 1.0
# For so many seconds a client may give credit for a stream that has ended here, as its end may
# still be on its way.
END_ON_ITS_WAY = 5.0
# And so many heartbeats longer: the broker may have given the end to a connection that the client
# has lost, and gives it to the next one when it has noticed that.
HEARTBEATS = 3
# How many such streams are kept in mind; and seconds after which a client that says nothing has the
# end.
MOST_ENDED = 1000
CONTENT = 3.0


class Unsendable(Exception):
    """An item of a stream cannot be sent."""

    def __init__(self, why: str, cause: BaseException | None) -> None:
        super().__init__(why)
        self.cause = cause


class Outlet:
    """What one stream has sent and is still to send.

    Args:
        outlets: where its client's credit arrives.
        request: the request for it.
        call: what its handler knows.
        allowed: up to which item it may go at once.

    Attributes:
        request: the request for it.
        opened: True when the client was told of its beginning.
        cancellable: True if its handler may be ended where it waits.
        forsaken: True if it was ended because its client has said nothing for too long.
        refused: why the broker does not take an item, "" while it does.
        resumable: True if it can be begun again behind any item.
        waiting: True while it cannot go on before its client takes items.
    """

    def __init__(
        self, outlets: Outlets, request: RequestInProgress, call: CallContext, allowed: int
    ) -> None:
        properties = request.properties
        self.opened = self.waiting = False
        self.cancellable = self.resumable = self.forsaken = False
        self.refused = ""
        # Called when the request is acknowledged; may switch greenlets.
        self.on_opened: Callable[[], None] = lambda: None
        self._outlets = outlets
        self.request = request
        self._call = call
        self._serializer: Serializer = serializer_for(properties.content_type) or JSON
        self._window = Window(allowed)
        # What tells the client of the beginning; and whether it has said anything since.
        self._note: Outgoing | None = None
        self._answered = False
        self._heard = self._told = clock.monotonic()
        # When its own request arrived, as statistics know it.
        self._began: float | None = None
        self._changed = Event()
        self._template = PropertiesTemplate(
            Properties(
                content_type=self._serializer.content_type,
                delivery_mode=TRANSIENT,
                app_id=call.worker_id,
                message_type=streams.ITEM,
            )
        )

    @property
    def key(self) -> tuple[str, str, str]:
        """The client, its request and which run of it."""
        return self.request.properties.reply_to or "", self.request.request_id, self._call.run_id

    @property
    def cut_short(self) -> bool:
        """Whether some items may never come to its client."""
        return self.forsaken or self.refused != "" or self.request.revoked

    @property
    def end_headers(self) -> dict[str, Any]:
        """The headers of the answer that ends the stream.

        Without a number it ends at once, and not behind the last item.
        """
        if self.cut_short:
            return {headers.RUN: self._call.run_id}
        return {headers.RUN: self._call.run_id, streams.SEQ: self._window.seq + 1}

    @property
    def _most_under_way(self) -> int:
        """While so many bytes are under way, no more are sent."""
        last = self._outlets.statistics.last_request
        beside = last is not None and last != self._began and clock.monotonic() - last < BESIDE
        return streams.BESIDE_BYTES if beside else streams.UNDER_WAY_BYTES

    # -- the handler's side -----------------------------------------------------------------------

    def drain(self, items: Any) -> Any:
        """Send all items that a handler yields; return what it returns in the end.

        Switches greenlets.

        Raises:
            Cancel: the client has gone away, or says nothing any more.
            Unsendable: an item cannot be sent.
            BaseException: what the handler raises.
        """
        self._open()
        iterator: Iterator[Any] = iter(items)
        close = getattr(iterator, "close", None)
        try:
            while True:
                self._wait_for_room(0)
                try:
                    item = next(iterator)
                except StopIteration as end:
                    return end.value
                self._add(item)
        finally:
            if close is not None:
                close()

    def _open(self) -> None:
        """Tell the client that the stream begins, and acknowledge its request."""
        note = self.tell_beginning()
        self._outlets.add(self)
        self.opened = True
        self._began = self._outlets.statistics.last_request
        note.event.wait(START_TIMEOUT)
        if note.error is not None and not isinstance(note.error, Unroutable):
            # It cannot reach its client, so no item can.  One without a queue may have it again.
            self.request.cancel()
        self.request.ack_now()
        # Not to be left half done by a client that has gone away.
        with self._call.to_cancel().shielded():
            self.on_opened()

    def tell_beginning(self) -> Outgoing:
        """Tell the client that the stream begins, or has begun; return the note.

        Never switches greenlets.
        """
        extra = {streams.RESUMABLE: True} if self.resumable else {}
        self._told = clock.monotonic()
        self._note = self._outlets.responder.started(self.request, self._call.run_id, extra)
        return self._note

    def _tell_again(self) -> None:
        """Tell the client once more if it may not know, and nothing is on its way to it."""
        if not self._answered and self._note is not None and self._note.done:
            self.tell_beginning()

    def _add(self, item: Any) -> None:
        encode = self._serializer.encode
        try:
            encoded = encode(Response(result=item))
        except ValueError as error:
            part = refused_part([("item", item)], lambda part: encode(Response(result=part)), error)
            raise Unsendable(part, error.__cause__) from error
        most = self._outlets.max_size
        if len(encoded) > most:
            raise Unsendable(f"it has {len(encoded)} bytes, and a message can have {most}", None)
        self._wait_for_room(len(encoded))
        if not self._call.cancelled:
            self._window.add(encoded)
            self._outlets.send_soon(self)

    def _wait_for_room(self, size: int) -> None:
        """Wait until the client takes another item, of `size` bytes, or wants no more."""
        while True:
            self._call.to_cancel().end_if_cancelled()
            if self.refused:
                raise Unsendable(self.refused, None)
            # A handler in a shield goes on to its end, although no client reads it.
            if self._call.cancelled or self._window.has_room(size):
                return
            self._wait()

    def _wait(self) -> None:
        """Wait for the client."""
        self._changed.clear()
        self.waiting = True
        try:
            self._changed.wait()
        finally:
            self.waiting = False

    def wait_taken(self) -> bool:
        """Wait until the client has all items or wants no more.  Switches greenlets.

        Returns:
            False if it may never have some of them; see `cut_short`.
        """
        try:
            while self._window.received < self._window.seq and not self._call.cancelled:
                if self.refused:
                    break
                self._wait()
        finally:
            self._outlets.discard(self)
        return not self.cut_short

    # -- the client's side ------------------------------------------------------------------------

    def credit(self, credit: Credit) -> None:
        """Take the client's counts.  Never switches greenlets."""
        self._answered = True
        self._heard = clock.monotonic()
        self._window.credit(credit.allowed, credit.received, credit.came)
        if self._window.due(self._most_under_way):
            self._outlets.send_soon(self)
        self._changed.set()

    def send_again(self) -> None:
        """Send again what has not come to the client.  Never switches greenlets."""
        # It takes no items of a stream of which it does not know that it has begun.
        self._tell_again()
        self._window.send_again()
        self._outlets.send_soon(self)

    def _item_done(self, outgoing: Outgoing) -> None:
        """Note what became of a message with items that was sent again."""
        self._outlets.responder.ways.tell(outgoing)
        if outgoing.unfit:
            self.refused = str(outgoing.error)
            self._changed.set()

    def wake(self) -> None:
        """Have the handler's side look at what has changed."""
        self._changed.set()

    def look(self, now: float, deaf: float) -> bool:
        """Cancel the stream if its client has said nothing for too long.

        Args:
            deaf: seconds for which nobody could be heard before, which do not count.

        Returns:
            Whether the way by which it says something is in doubt.
        """
        self._heard = min(self._heard + deaf, now)
        if self._call.cancelled:
            # Nothing more is awaited of its client, however long its handler goes on.
            return False
        if now - self._heard > streams.SILENCE:
            self.forsaken = True
            self.request.cancel()
        in_doubt = now - self._heard > streams.DOUBT
        if in_doubt and now - self._told > streams.DOUBT:
            self._tell_again()
        return in_doubt

    def messages(self) -> Iterator[Outgoing]:
        """Yield the messages with the items that are to be sent."""
        reply_to, request_id, run_id = self.key
        direct = reply_to.startswith(DIRECT_REPLY_TO)
        ways = self._outlets.responder.ways
        # The exchange may not lead to the client any more.
        in_doubt = self._window.stalled and not direct
        while self._window.due(self._most_under_way):
            first, items = self._window.next_items()
            numbers = {headers.RUN: run_id, streams.SEQ: first}
            yield Outgoing(
                "" if direct else ways.exchange,
                reply_to,
                self._template.with_headers(numbers),
                request_id,
                streams.join_items(self._serializer, items),
                needs=(),
                on_done=self._item_done if in_doubt else None,
                mandatory=in_doubt,
                confirm=in_doubt,
                answers=True,
                queue_for=ways.queue_for if in_doubt else None,
            )


class Outlets:
    """The streams of one worker.

    Args:
        responder: tells clients that a stream has begun, and knows the ways to them.
        statistics: tells whether there are calls beside.
        max_size: the largest item that can be sent, in bytes.

    Attributes:
        on_doubt: called when a client says nothing, as if the queue that it is heard by was
            unbound, or when there is no such queue; must not block.
    """

    def __init__(
        self,
        session: Session,
        responder: Responder,
        statistics: Statistics,
        max_size: int,
    ) -> None:
        self.responder = responder
        self.max_size = max_size
        self.statistics = statistics
        self.on_doubt: Callable[[], None] = lambda: None
        # Whether clients can be heard now.
        self.listening: Callable[[], bool] = lambda: True
        self._session = session
        self._open: dict[tuple[str, str, str], Outlet] = {}
        # Since when there is credit for streams that are not open, or never were; and the latest.
        self._ended: dict[tuple[str, str, str], tuple[float, float]] = {}
        self._unsent: dict[Outlet, None] = {}
        self._callback: Any = None
        self._timer: Any = None
        self._looked = 0.0
        self._connection: Connection | None = None

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._open)

    @property
    def moving(self) -> int:
        """How many of them do not wait for their clients."""
        return sum(not outlet.waiting for outlet in self._open.values())

    def requests(self) -> Iterator[RequestInProgress]:
        """Yield the requests of the open streams, answered or not."""
        for outlet in self._open.values():
            yield outlet.request

    def outlet_for(self, request: RequestInProgress, call: CallContext) -> Outlet:
        """Return the outlet of a request for a stream.

        Raises:
            WrongRequest: there can be none.
        """
        allowed = (request.properties.headers or {}).get(streams.ALLOWED)
        if not request.properties.reply_to:
            raise WrongRequest("a stream needs a client that takes its items")
        if self.responder.control_queue() is None:
            # It may be permitted by now, and the next stream is not to wait half a minute for it.
            self.on_doubt()
            raise WrongRequest(
                "this worker cannot send streams: it has no control queue, which takes a permission"
                " at the broker"
            )
        count = allowed if type(allowed) is int else streams.WINDOW
        return Outlet(self, request, call, count)

    def add(self, outlet: Outlet) -> None:
        """Take credit for a stream that begins.  Never switches greenlets."""
        if not self._open:
            link = self._session.publishing
            self._connection = link.connection
            link.watch(self._link_changed)
            self._looked = clock.monotonic()
            self._timer = gevent.get_hub().loop.timer(LOOK, LOOK, ref=False)
            self._timer.start(self._look)
        self._open[outlet.key] = outlet

    def tell_again(self) -> None:
        """Tell all clients once more that their streams have begun.  Never switches greenlets."""
        for outlet in list(self._open.values()):
            outlet.tell_beginning()

    def discard(self, outlet: Outlet) -> None:
        """Forget a stream that has ended.  Never switches greenlets."""
        self._unsent.pop(outlet, None)
        if self._open.pop(outlet.key, None) is not None and not self._open:
            self._stop()

    def close(self) -> None:
        """Forget all streams.  Never switches greenlets."""
        self._unsent.clear()
        if self._open:
            self._open.clear()
            self._stop()

    def _stop(self) -> None:
        self._session.publishing.unwatch(self._link_changed)
        self._connection = None
        self._timer.close()
        self._timer = None

    def credit(self, client: str, credit: Credit) -> None:
        """Take a client's counts for one stream.  Never switches greenlets."""
        key = client, credit.request_id, credit.run_id
        outlet = self._open.get(key)
        if outlet is not None:
            outlet.credit(credit)
            return
        now = clock.monotonic()
        since, _ = self._ended.get(key, (now, now))
        self._ended[key] = since, now
        if now - since > END_ON_ITS_WAY + HEARTBEATS * self._session.endpoint.heartbeat:
            del self._ended[key]
            self.responder.end_again(*key)
        elif len(self._ended) > MOST_ENDED:
            self._forget_ended(now)

    def _forget_ended(self, now: float) -> None:
        waiting = {
            key: (since, last) for key, (since, last) in self._ended.items() if now - last < CONTENT
        }
        self._ended = waiting if len(waiting) < MOST_ENDED else {}

    def send_soon(self, outlet: Outlet) -> None:
        """Send what an outlet has at the end of this turn.  Never switches greenlets."""
        if outlet.key not in self._open:
            return  # it was left to the parent of a forked child
        self._unsent[outlet] = None
        if self._callback is None or not self._callback.pending:
            self._callback = gevent.get_hub().loop.run_callback(self.send_now)

    def send_now(self) -> None:
        """Send what all outlets have and there is room for.  Never switches greenlets."""
        publisher = self._session.publisher
        for outlet in list(self._unsent):
            for message in outlet.messages():
                try:
                    publisher.publish(message)
                except (AmphoraError, ValueError) as error:
                    log.throttled("an item of a stream cannot be sent: %s", error)
                if publisher.held:
                    # The rest when there is room: the socket is full, or there is no connection.
                    return
            self._unsent.pop(outlet, None)

    def _link_changed(self, link: Link) -> None:
        if link.connection is not None and link.connection is not self._connection:
            if not self._session.publisher.ready:
                return
            # What was on its way is lost.
            self._connection = link.connection
            for outlet in self._open.values():
                outlet.send_again()
        if self._unsent and not self._session.publisher.held:
            self.send_now()

    def _look(self) -> None:
        now = clock.monotonic()
        passed, self._looked = now - self._looked, now
        # If this comes late, the processor was held: what clients said meanwhile is still unread.
        deaf = max(passed - LOOK, 0.0) if self.listening() else inf
        in_doubt = [outlet.look(now, deaf) for outlet in list(self._open.values())]
        if any(in_doubt):
            self.on_doubt()
