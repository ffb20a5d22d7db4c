"""AmqpRpcClient: calling functions of servers that share a queue, or serve the queue of a key."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, ClassVar, TypeVar, Unpack

import gevent

from amphora.errors import AmphoraError, ConnectionLost
from amphora.net.log import Log
from amphora.rpc.client.announcer import Announcer
from amphora.rpc.client.binding import Bound, Ways
from amphora.rpc.client.caller import DEFAULT_MAX_PENDING, DEFAULT_TIMEOUT
from amphora.rpc.client.calls import WhenFull
from amphora.rpc.client.proxy import CallWay, RepeatOptions, RepeatWay, StreamWay
from amphora.rpc.client.requests import Route
from amphora.rpc.client.streaming import StreamCaller
from amphora.rpc.client.streams.stream import Stream
from amphora.rpc.client.waiting.result import Result
from amphora.rpc.contract import legacy, naming
from amphora.rpc.contract.checks import check_expiry
from amphora.rpc.contract.naming import QueueType
from amphora.rpc.contract.serializers import SerializerName
from amphora.transport.channels.attendant import check_can_wait
from amphora.transport.connections.endpoint import ConnectionSettings
from amphora.transport.links.topology import Binding, Exchange, Queue, Topology
from amphora.transport.session import Session

log = Log("amphora.rpc")

A = TypeVar("A")


class AmqpRpcClient(StreamCaller):
    """Call the functions of the servers of a namespace.

    It can be used at once: the first call connects.  One client serves any number of greenlets;
    each thread needs its own.

    Args:
        namespace: the servers' namespace.
        url: the broker, `amqp://user:password@host:port/vhost`.  Without it, `AMQP_URL` in the
            environment, else a broker on this machine.
        session: a session to share with other clients and servers, instead of `url`.
        timeout: seconds until a call fails with NoResult, unless the call says otherwise.
        serializer: "json" or "msgpack".
        durable: with False, requests and responses are kept only in the broker's memory and are
            not confirmed: that is faster, but they are lost with a connection or the broker.  A
            call whose request or response was lost fails with NoResult at its deadline.
        max_pending: how many calls may be pending at once.
        when_full: what another call does then: "wait" for its turn until its deadline, or "fail"
            at once with Overloaded.
        queue_type: the type of the request queues for keys, "classic" or "quorum".  It is also the
            type of the queue that all servers share, if a client makes it before any server ran.
        uuid: an id instead of a random one, as in amphora 0.1.  No other client may have the same
            at the same time: they would take each other's answers.
        identify: name the client's login in its requests, for `amphora.current().user`.  The broker
            refuses a request with another login.  Text is the login itself, where it is not the
            user in the URL.
        connection: the other settings of `Session`, such as `amqp_host`.

    Raises:
        TypeError: there is no such setting.
        ValueError: a setting cannot be understood.

    Attributes:
        call: `call.f(x)` waits for the answer and returns it.
        defer: `defer.f(x)` returns a `Result` at once.
        cast: `cast.f(x)` asks for no answer and returns None.
        stream: `stream.f(x)` returns a `Stream` of what a generator function yields.
    """

    _absent: ClassVar = {"gather": "an AmqpRpcFanoutClient gathers the answers of all servers"}

    @legacy.also_takes(legacy.SERVICE_NAME, positions=legacy.CLIENT_POSITIONS, unused=legacy.UNUSED)
    def __init__(
        self,
        namespace: str,
        *,
        url: str | None = None,
        session: Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        serializer: SerializerName = "json",
        durable: bool = True,
        max_pending: int = DEFAULT_MAX_PENDING,
        when_full: WhenFull = "wait",
        queue_type: QueueType = "classic",
        uuid: str | None = None,
        identify: bool | str = False,
        **connection: Unpack[ConnectionSettings],
    ) -> None:
        exchange = naming.request_exchange(naming.check_namespace(namespace))
        queue = naming.request_queue(namespace)
        self._queue_arguments = naming.queue_arguments(queue_type)
        # With the queue, in which requests wait if no server was ever started.  Servers choose the
        # type of the queue.
        topology = Topology(
            Exchange(exchange),
            Queue(queue, arguments=self._queue_arguments, as_found=True),
            Binding(queue, exchange),
        )
        super().__init__(
            namespace,
            Route(exchange, topology),
            url=url,
            session=session,
            timeout=timeout,
            serializer=serializer,
            durable=durable,
            max_pending=max_pending,
            when_full=when_full,
            uuid=uuid,
            identify=identify,
            **connection,
        )
        self.call: RepeatWay[Any] = RepeatWay("call", self._call)
        self.defer: CallWay[Result] = CallWay("defer", self._defer)
        self.cast: CallWay[None] = CallWay("cast", self._cast)
        self.stream: StreamWay[Stream] = StreamWay("stream", self._stream)
        self._operations: set[gevent.Greenlet[..., None]] = set()
        self._announcer = Announcer(self.session, namespace)

    def bind(
        self,
        api: Callable[..., A],
        *,
        name: str = "",
        check: bool = False,
        **options: Unpack[RepeatOptions],
    ) -> Bound[A]:
        """Return the functions of a class that says what the servers offer, for typed calls.

            class MathAPI(Protocol):
                def sum_numbers(self, *numbers: float) -> float: ...

            math = client.bind(MathAPI)
            math.call.sum_numbers(1, 2)
            math.defer(MathAPI.sum_numbers)(1, 2)

        Arguments are checked against the method's parameters, and results are converted to the
        types of the hints: a text becomes a date, a dict a dataclass.  Where one does not fit, the
        call fails with WrongResult.  Never switches greenlets.

        Args:
            api: the class, a Protocol or any other.  It is not instantiated.
            name: put before the names of the functions, with a dot.
            check: compare the class with what the servers say that they offer, before the first
                call.  If they differ, calls fail with WrongRequest, which names each difference.
            options: the options of all calls; see `Bound.options`.

        Raises:
            TypeError: it is not a class or has no methods; a hint of a result cannot be used; or
                there is no such option.
        """
        ways: Ways = {
            "call": self.call,
            "defer": self.defer,
            "cast": self.cast,
            "stream": self.stream,
        }
        return Bound(self._bound(api, name, ways, options, check))

    @legacy.also_takes({"queue": "label"})
    def create_new_request_queue(
        self,
        label: str,
        routing_key: str | None = None,
        x_expires: float | None = None,
        nowait: bool = False,
    ) -> None:
        """Create the request queue for a key, so that calls with that routing key wait in it.

        A server takes them with `receive_from_queue(label)`.  If the queue exists with the same
        settings, nothing changes.  Switches greenlets.

        Args:
            label: the label of the queue, such as a user's name.
            routing_key: the key of the calls; the label if None.
            x_expires: seconds without a receiver after which the broker deletes the queue and the
                requests in it, at most ten years; None keeps it until it is removed.
            nowait: return at once; a failure is logged.

        Raises:
            ValueError: the label or the key cannot be a name, or `x_expires` is no such number.
            ChannelClosed: the broker refuses, as when the queue exists with another x_expires.
            ConnectionLost: the broker cannot be reached within the client's timeout.
        """
        queue = naming.labelled_queue(self.namespace, label)
        key = naming.routing_key_for(label if routing_key is None else routing_key)
        arguments = dict(self._queue_arguments)
        if x_expires is not None:
            arguments["x-expires"] = ceil(check_expiry(x_expires) * 1000)
        topology = Topology(
            Exchange(self._route.exchange),
            Queue(queue, arguments=arguments),
            Binding(queue, self._route.exchange, key),
        )

        def create() -> None:
            self.session.operate(topology.declare, self.timeout)
            self._announcer.announce(queue)

        self._operate(create, nowait)

    @legacy.also_takes({"queue": "label"})
    def remove_request_queue(self, label: str, nowait: bool = False) -> None:
        """Delete the request queue for a key and the requests in it.  Switches greenlets.

        If there is no such queue, nothing happens.

        Raises:
            ValueError: the label cannot be a name.
            ConnectionLost: the broker cannot be reached within the client's timeout.
        """
        queue = naming.labelled_queue(self.namespace, label)

        def remove() -> None:
            self.session.operate(lambda channel: channel.queue_delete(queue), self.timeout)

        self._operate(remove, nowait)

    def _operate(self, operation: Callable[[], None], nowait: bool) -> None:
        if self._closed:
            raise ConnectionLost(f"{self!r} is closed", executed=False)
        if nowait:
            greenlet = gevent.spawn(self._operate_in_background, operation)
            self._operations.add(greenlet)
            greenlet.link(self._operations.discard)
        else:
            check_can_wait()
            operation()

    def _operate_in_background(self, operation: Callable[[], None]) -> None:
        try:
            operation()
        except AmphoraError as error:
            log.warning("%s: %s", self, error)

    def _release(self) -> None:
        gevent.killall(list(self._operations), block=False)
        self._announcer.close()
