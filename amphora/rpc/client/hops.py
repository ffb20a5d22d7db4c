"""One call, with the time that each of its hops takes.

The request asks its worker to say how long it had waited and how long it took.  What is left of the
time between sending and answer was spent on the way.  No two clocks are compared, except for the
wait in the queue, which is unknown where a worker cannot know it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gevent.event import AsyncResult

from amphora.errors import AmphoraError, ConnectionLost, NoResult, Unroutable, WrongResult
from amphora.net import clock
from amphora.net.deadline import Deadline
from amphora.rpc.contract import headers, naming
from amphora.rpc.contract.bodies import ErrorBody, Request, exception_of
from amphora.rpc.contract.checks import check_timeout
from amphora.rpc.contract.serializers import JSON
from amphora.transport.channels.channel import Channel
from amphora.transport.channels.confirms import Returned
from amphora.transport.session import Session
from amphora.wire.codec import Deliver
from amphora.wire.content import Message
from amphora.wire.properties import DIRECT_REPLY_TO, PERSISTENT, Properties

MICROSECONDS = 1_000_000


class Hops(NamedTuple):
    """How long the hops of one call took, in seconds.

    Attributes:
        worker: the worker that answered.
        result: what the function returned, None if it raised.
        error: what it raised, None if it returned.
        confirmed: until the broker had the request, and on its disk; beside all others.
        waited: in the queue; None if that is unknown.
        took: at the worker, from the request's arrival to its answer; None of an older worker.
        on_the_way: all the rest; None if one of the others is.
        in_all: from sending to the answer.
    """

    worker: str
    result: Any
    error: AmphoraError | None
    confirmed: float | None
    waited: float | None
    took: float | None
    on_the_way: float | None
    in_all: float


class _Sent:
    """The request; it is returned if no queue takes it."""

    def __init__(self, message_id: str, answer: AsyncResult[Any]) -> None:
        self.message_id = message_id
        self.at: float | None = None
        self._answer = answer

    def confirmed(self, accepted: bool, returned: Returned | None) -> None:
        self.at = clock.monotonic()
        if returned is not None or not accepted:
            self._answer.set_exception(Unroutable("no queue takes the request"))


def trace_call(
    session: Session,
    namespace: str,
    function: str,
    args: list[Any],
    kwargs: dict[str, Any],
    *,
    timeout: float,
    routing_key: str | None = None,
) -> Hops:
    """Call a function, and return how long each hop took.  Switches greenlets.

    Args:
        timeout: seconds to wait for the answer.
        routing_key: for the request queue of a key.

    Raises:
        NoResult: no answer came in time.
        Unroutable: no queue took the request.
        AmphoraError: the broker cannot be reached, or refuses.
        ValueError: the arguments cannot be sent.
    """
    timeout = check_timeout(timeout)
    body = JSON.encode(Request(function, args, kwargs))
    answer: AsyncResult[tuple[float, Message[Deliver]]] = AsyncResult()
    sent = _Sent(naming.new_id(), answer)
    channel: Channel = session.publishing.wait_connected(timeout).channel()
    channel.until = Deadline(timeout)

    def closed(channel: Channel) -> None:
        answer.set_exception(channel.error or ConnectionLost("the channel has ended"))

    channel.on_closed = closed
    try:
        channel.confirm_select()
        channel.consume(
            DIRECT_REPLY_TO,
            lambda message: answer.set((clock.monotonic(), message)),
            naming.new_id(),
            no_ack=True,
        )
        properties = Properties(
            content_type=JSON.content_type,
            delivery_mode=PERSISTENT,
            message_id=sent.message_id,
            correlation_id=sent.message_id,
            reply_to=DIRECT_REPLY_TO,
            expiration=str(round(timeout * 1000)),
            headers={
                headers.TAKES: headers.TIMES,
                headers.SENT: headers.now(),
            },
        )
        began = clock.monotonic()
        channel.publish(
            naming.request_exchange(namespace),
            "" if routing_key is None else naming.routing_key_for(routing_key),
            properties,
            body,
            mandatory=True,
            unconfirmed=sent,
        )
        if not answer.wait(timeout) and not answer.ready():
            raise NoResult(f"{namespace}.{function} did not answer within {timeout:g} s")
        at, message = answer.get(block=False)  # type: ignore[misc] # it is there, or an error
    finally:
        channel.on_closed = None
        channel.close()
    return _hops(message, began, sent.at, at)


def _hops(message: Message[Deliver], began: float, confirmed: float | None, ended: float) -> Hops:
    """Return the hops of a call that is answered.

    Args:
        message: the answer.
        began, confirmed, ended: when the request was sent, the broker had it, and the answer came,
            on the monotonic clock.
    """
    in_all = ended - began
    told = message.properties.headers or {}
    waited, took = _seconds(told.get(headers.WAITED)), _seconds(told.get(headers.TOOK))
    result, error = _outcome(message)
    return Hops(
        message.properties.app_id or "",
        result,
        error,
        None if confirmed is None else confirmed - began,
        waited,
        took,
        None if took is None else max(in_all - took - (waited or 0.0), 0.0),
        in_all,
    )


def _outcome(message: Message[Deliver]) -> tuple[Any, AmphoraError | None]:
    """Return what a function has returned or raised."""
    try:
        response = JSON.decode_response(message.body)
    except ValueError as error:
        return None, WrongResult(f"the answer cannot be read: {error}")
    if isinstance(response.exception, ErrorBody):
        return None, exception_of(response.exception)
    return response.result, None


def _seconds(microseconds: object) -> float | None:
    return microseconds / MICROSECONDS if type(microseconds) is int else None
