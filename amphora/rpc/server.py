"""Serving functions.

A request's way: it is read, a greenlet is spawned for it, the handler runs, the response is
published, the broker confirms the response, and only then the request is acknowledged.  If
anything breaks on the way, the broker still has the request and delivers it again.  There are
never more greenlets than `concurrency`, because the broker sends no more unacknowledged requests.
"""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, overload

import gevent
from gevent.event import Event

from amphora.errors import (
    AmphoraError,
    AuthenticationError,
    ConnectionLost,
    IgnoreRequest,
    WrongRequest,
    WrongResult,
    printable,
)
from amphora.rpc import naming
from amphora.rpc.functions import Functions, Handler
from amphora.rpc.messages import Response, error_body, plain_args
from amphora.rpc.request_queues import Receiving, RequestQueues
from amphora.rpc.serializers import JSON, Serializer, serializer_for
from amphora.transport.channel import Channel
from amphora.transport.consumer import Consumer
from amphora.transport.deadline import Deadline
from amphora.transport.link import Link, Part
from amphora.transport.publisher import Outgoing
from amphora.transport.session import Session
from amphora.transport.topology import Binding, Entity, Exchange, Queue, Topology
from amphora.wire.codec import Deliver, Properties
from amphora.wire.content import Message

logger = logging.getLogger("amphora.rpc")

DEFAULT_CONCURRENCY = 100
PERSISTENT = 2
# An answer goes to this pseudo queue of RabbitMQ through the default exchange
# (https://www.rabbitmq.com/docs/direct-reply-to).
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
# A request that its handler ignored rests this long before another server may get it, so that
# one that nobody wants does not run in circles.
IGNORE_PAUSE = 0.5
# After its handlers are done, a server waits this long for the confirms of the last responses.
CONFIRM_TIMEOUT = 5.0

# The modules between a request and its handler.
_OURS = ("amphora.rpc.",)

H = TypeVar("H", bound=Handler)


class AmqpRpcServer:
    """Offer functions to the clients of a namespace.

    Args:
        namespace: what clients name to reach this server and all others like it.
        url: the broker, `amqp://user:password@host:port/vhost`.  Without it, `AMQP_URL` in the
            environment, else a broker on this machine.
        session: a session to share with other clients and servers, instead of `url`.
        concurrency: how many requests are handled at once; the broker sends no more than that.
        tracebacks: send the text of a handler's traceback to the caller.
        connection: the other settings of `Session`, such as `amqp_host`.

    Raises:
        ValueError: a setting cannot be understood.

    Attributes:
        worker_id: names this server among all servers of the namespace.
        state: "idle", "serving", "stopping" or "stopped".
        processed: how many requests were answered with a result.
        exceptions: how many were answered with an exception.
        lost_responses: how many responses no client was there for any more.
    """

    def __init__(
        self,
        namespace: str,
        *,
        url: str | None = None,
        session: Session | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        tracebacks: bool = True,
        **connection: Any,
    ) -> None:
        self.namespace = naming.check_namespace(namespace)
        if isinstance(concurrency, bool) or not 1 <= concurrency <= 65535:
            raise ValueError(f"concurrency must be 1 to 65535, not {concurrency!r}")
        self.concurrency = concurrency
        self.tracebacks = tracebacks
        self.worker_id = naming.new_worker_id(namespace)
        self.functions = Functions(namespace)
        self.state = "idle"
        self.processed = 0
        self.exceptions = 0
        self.lost_responses = 0
        self._owns_session = session is None
        self.session = Session.of(session, url, connection)
        self._response_exchange = naming.response_exchange(namespace)
        self._responses = Topology(Exchange(self._response_exchange))
        self._parts = self._request_parts()
        self._queues = RequestQueues(self.session.consuming, self._handle_here)
        # The greenlets that handle requests, each with its request as (channel, delivery tag).
        self._running: dict[gevent.Greenlet[..., None], tuple[Channel, int]] = {}
        # How many requests are handled in greenlets of the program's, by receive_from_queue.
        self._received = 0
        self._unconfirmed = 0
        self._opened = False
        self._stop_begun = False
        self._quiet = Event()
        self._stopped = Event()
        self._failure: AmphoraError | None = None

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.namespace} [{len(self._running)} running, {self.state}]>"

    def __enter__(self) -> AmqpRpcServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # -- functions ------------------------------------------------------------------------------

    @overload
    def add_function(self, function: H, name: str | None = None) -> H: ...

    @overload
    def add_function(self, function: str) -> Callable[[H], H]: ...

    def add_function(self, function: Any, name: str | None = None) -> Any:
        """Offer a function to clients.

            @server.add_function            # under its own name
            @server.add_function("div")     # under another one
            server.add_function(f, name="math.sub")

        Args:
            function: a function, a bound method or anything that can be called.
            name: what clients call it; dots are part of the name.

        Returns:
            The function itself.

        Raises:
            TypeError: it cannot be called, or has no name of its own and none was given.
            ValueError: there is a function of that name already.
        """
        if isinstance(function, str):
            named = function

            def decorate(decorated: H) -> H:
                self.functions.add(decorated, named)
                return decorated

            return decorate
        self.functions.add(function, name)
        return function

    # -- serving --------------------------------------------------------------------------------

    def _request_parts(self) -> list[Part]:
        """Return what to set up on the connection that consumes, in this order."""
        exchange = naming.request_exchange(self.namespace)
        queue = naming.request_queue(self.namespace)
        return [
            self._consumer(queue, Exchange(exchange), Queue(queue), Binding(queue, exchange)),
        ]

    def _consumer(self, queue: str, *entities: Entity) -> Consumer:
        return Consumer(
            self.session.consuming,
            queue,
            self._on_request,
            topology=Topology(*entities),
            prefetch=self.concurrency,
        )

    def serve(self, nowait: bool = True) -> None:
        """Take requests.

        Args:
            nowait: return at once and serve in the background, while the program's greenlets
                run.  With False, block until the server is stopped; SIGTERM and ctrl-C then stop
                it warmly, and a second one at once.

        Raises:
            RuntimeError: the server was stopped; make a new one.
            AuthenticationError: the broker refuses the login or the vhost (not with `nowait`).
        """
        if self.state in ("stopping", "stopped"):
            raise RuntimeError(f"{self!r} was stopped and cannot serve again; make a new one")
        if self.state == "idle":
            self.state = "serving"
            self._open()
            for part in self._parts:
                self.session.consuming.add(part)
        if not nowait:
            self._serve_until_stopped()

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            self.session.publishing.add(self._responses)
            self.session.consuming.start()

    def receive_from_queue(
        self,
        label: str,
        max_calls: int | None = None,
        timeout: float | None = None,
        block: bool = True,
        block_until_closed: bool = True,
    ) -> Any:
        """Handle requests from the request queue of a key, one after the other.

        It waits silently while there is no such queue.  The handlers run in this greenlet: when
        it is killed, or a `gevent.Timeout` of the caller's goes off, the request in work goes
        back to the queue together with those that were not looked at.

        Args:
            label: the label that the queue was created with.
            max_calls: take so many requests and no more; None for no limit.
            timeout: seconds in which to wait for requests; None for no limit.
            block: with False, do it in the background and return a handle with `stop()` and
                `wait()` at once.
            block_until_closed: return only when the broker has taken note of the end.

        Returns:
            How many requests were handled; with `block=False` a `Receiving`.

        Raises:
            gevent.Timeout: the time ran out with fewer than `max_calls` requests.
            ValueError: the label cannot be a name, or `max_calls` is not at least 1.
            RuntimeError: the server was stopped.
        """
        if self.state in ("stopping", "stopped"):
            raise RuntimeError(f"{self!r} was stopped and receives no more")
        if max_calls is not None and max_calls < 1:
            raise ValueError(f"max_calls must be at least 1, not {max_calls!r}")
        queue = naming.labelled_queue(self.namespace, label)
        self._open()
        receiver = self._queues.open(queue, max_calls)
        if not block:
            return Receiving(self._queues, receiver, timeout)
        handled = self._queues.run(receiver, timeout)
        if block_until_closed:
            self._queues.wait_closed(receiver)
        return handled

    def _serve_until_stopped(self) -> None:
        link = self.session.consuming
        link.watch(self._link_changed)
        signals = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.getsignal(number) for number in signals}
        handlers = [gevent.signal_handler(number, self._on_signal, number) for number in signals]
        try:
            self._stopped.wait()
        finally:
            for handler in handlers:
                handler.cancel()
            for number, before in previous.items():
                # The event loop leaves the system's default behind, not what Python had.
                if before not in (None, signal.SIG_DFL):
                    signal.signal(number, before)
            link.unwatch(self._link_changed)
        if self._failure is not None:
            self.stop(timeout=0)
            raise self._failure

    def _link_changed(self, link: Link) -> None:
        if isinstance(link.error, AuthenticationError) and not link.connects:
            self._failure = AuthenticationError(str(link.error))
            self._stopped.set()

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self._stop_begun:
            logger.info("%s: %s, stopping", self.worker_id, name)
            gevent.spawn(self.stop)
        else:
            logger.warning("%s: %s again, stopping at once", self.worker_id, name)
            self._kill_running()

    def _on_request(self, message: Message[Deliver], channel: Channel) -> None:
        greenlet = gevent.Greenlet(self._handle, message, channel)
        self._running[greenlet] = (channel, message.method.delivery_tag)
        greenlet.start()

    def _handle(self, message: Message[Deliver], channel: Channel) -> None:
        """Handle a request to its end, in a greenlet made for it."""
        greenlet: Any = gevent.getcurrent()
        try:
            response = self._execute(message)
            # Otherwise given up by stop(): the request goes back to the queue, unanswered.
            if greenlet in self._running:
                self._respond(message, channel, response)
        finally:
            self._running.pop(greenlet, None)
            self._check_quiet()

    def _handle_here(self, message: Message[Deliver], channel: Channel) -> None:
        """Handle a request to its end, in a greenlet of the program's."""
        self._received += 1
        try:
            self._respond(message, channel, self._execute(message, here=True))
        finally:
            self._received -= 1
            self._check_quiet()

    def _execute(self, message: Message[Deliver], *, here: bool = False) -> Response | None:
        """Run the handler of a request and return the response, None if it is ignored.

        With `here`, what is not an Exception is raised: it was meant for the program's greenlet.
        """
        name = "a request"
        try:
            serializer = serializer_for(message.properties.content_type)
            if serializer is None:
                content_type = printable(message.properties.content_type, 100)
                raise WrongRequest(f"{self.namespace} does not read {content_type!r}")
            try:
                request = serializer.decode_request(message.body)
            except ValueError as error:
                raise WrongRequest(f"{self.namespace} cannot read the request: {error}") from error
            name = request.func
            function = self.functions.find(request.func)
            result = function.call(request.args, request.kwargs)
        except IgnoreRequest:
            return None
        except WrongRequest as error:
            self.exceptions += 1
            return Response(exception=error_body(error))
        except BaseException as error:
            # Also SystemExit, Timeout and the like: a handler cannot end the server.
            if here and not isinstance(error, Exception):
                raise
            self.exceptions += 1
            if here or gevent.getcurrent() in self._running:
                logger.warning(
                    "%s: %s raised %s",
                    self.worker_id,
                    printable(name, 100),
                    type(error).__name__,
                    exc_info=True,
                )
            text = _remote_traceback(error) if self.tracebacks else ""
            return Response(exception=error_body(error, text))
        self.processed += 1
        return Response(result=result)

    def _ignore(self, message: Message[Deliver], channel: Channel) -> None:
        """Give an ignored request to another server, after a pause. Switches greenlets."""
        gevent.sleep(IGNORE_PAUSE)
        channel.nack(message.method.delivery_tag)

    def _respond(
        self, message: Message[Deliver], channel: Channel, response: Response | None
    ) -> None:
        if response is None:
            self._ignore(message, channel)
        elif message.properties.reply_to:
            self._publish_response(message, channel, response)
        else:
            channel.ack(message.method.delivery_tag)

    def _publish_response(
        self,
        message: Message[Deliver],
        channel: Channel,
        response: Response,
        response_type: str | None = None,
    ) -> None:
        request = message.properties
        tag = message.method.delivery_tag
        serializer = serializer_for(request.content_type) or JSON
        request_id = request.correlation_id or request.message_id or ""
        properties = Properties(
            content_type=serializer.content_type,
            delivery_mode=PERSISTENT,
            correlation_id=request_id,
            message_id=request_id,
            app_id=self.worker_id,
        )
        if response_type is not None:
            properties.message_type = response_type
        reply_to = request.reply_to or ""
        direct = reply_to.startswith(DIRECT_REPLY_TO)
        outgoing = Outgoing(
            "" if direct else self._response_exchange,
            reply_to,
            properties,
            self._encode(response, serializer),
            needs=() if direct else (self._responses,),
            on_settled=lambda outgoing: self._response_settled(outgoing, channel, tag),
        )
        self._unconfirmed += 1
        try:
            self.session.publisher.publish(outgoing)
        except (AmphoraError, ValueError) as error:
            # Closed meanwhile, so the request goes back; or nothing that can be sent to.
            logger.warning("%s: a response cannot be sent: %s", self.worker_id, error)
            self._unconfirmed -= 1
            channel.nack(tag, requeue=isinstance(error, ConnectionLost))

    def _encode(self, response: Response, serializer: Serializer) -> bytes:
        try:
            return serializer.encode(response)
        except ValueError as error:
            failed = response.exception
            if not failed:
                unsendable = WrongResult(f"the result of {self.namespace} cannot be sent: {error}")
                return serializer.encode(Response(exception=error_body(unsendable)))
            failed.args = plain_args(failed.args)
            failed.traceback = plain_args([failed.traceback])[0]
            failed.type = plain_args([failed.type])[0]
            return serializer.encode(response)

    def _response_settled(self, outgoing: Outgoing, channel: Channel, delivery_tag: int) -> None:
        self._unconfirmed -= 1
        if isinstance(outgoing.error, ConnectionLost):
            # Unanswered, so unacknowledged: the request is delivered again, here or elsewhere.
            channel.nack(delivery_tag, requeue=True)
        else:
            if outgoing.error is not None:
                self.lost_responses += 1
                logger.warning(
                    "%s: the client of a response is gone: %s", self.worker_id, outgoing.error
                )
            channel.ack(delivery_tag)
        self._check_quiet()

    # -- stopping -------------------------------------------------------------------------------

    def prepare_stop(self) -> None:
        """Take no new requests; those that are here are finished.  Switches greenlets."""
        if self.state == "serving":
            self.state = "stopping"
            self._queues.stop()
            for part in self._parts:
                self.session.consuming.remove(part)
                if isinstance(part, Consumer):
                    try:
                        part.stop_deliveries()
                    except AmphoraError as error:
                        logger.warning("%s: %s", self.worker_id, error)

    def stop(self, timeout: float | None = None) -> None:
        """Finish what is running, send its responses, acknowledge, and close.

        Switches greenlets.  Requests that are unfinished at the end of the timeout go back to
        the queue for another server.  Stopping twice is fine: the shorter timeout counts.  Called
        by a handler it returns at once, and the server stops when that handler is done.

        Args:
            timeout: seconds to wait for running handlers; None waits for all of them.
        """
        if gevent.getcurrent() in self._running:
            # A handler cannot wait for its own end.
            gevent.spawn(self.stop, timeout)
            return
        if self._stop_begun and self._stopped.wait(timeout):
            return
        self._stop_begun = True
        self.prepare_stop()
        deadline = Deadline(timeout)
        self._wait_quiet(deadline.left(), lambda: not self._running and not self._received)
        self._kill_running()
        self._wait_quiet(CONFIRM_TIMEOUT, lambda: not self._unconfirmed)
        self.state = "stopped"
        self._close_parts()
        self._queues.close()
        self.session.publishing.remove(self._responses)
        if self._owns_session:
            self.session.close()
        self._stopped.set()

    def _close_parts(self) -> None:
        for part in self._parts:
            if isinstance(part, Consumer):
                part.close()

    def _check_quiet(self) -> None:
        self._quiet.set()

    def _wait_quiet(self, timeout: float | None, is_quiet: Callable[[], bool]) -> None:
        deadline = Deadline(timeout)
        while not is_quiet():
            self._quiet.clear()
            if not self._quiet.wait(deadline.left()):
                return

    def _kill_running(self) -> None:
        """Give up on the handlers that still run; their requests go back to the queue."""
        running, self._running = self._running, {}
        for greenlet in running:
            greenlet.kill(block=False)
        self._check_quiet()


def _remote_traceback(error: BaseException) -> str:
    """Return the text of a traceback from the handler on: amphora's own frames help nobody."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
