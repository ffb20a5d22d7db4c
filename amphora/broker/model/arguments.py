"""The arguments of queues and consumers: validation, meaning and comparison.

The checks, their order and their texts are those of RabbitMQ 3.10
(https://www.rabbitmq.com/docs/queues, https://www.rabbitmq.com/docs/quorum-queues).  A feature that
RabbitMQ has and this broker lacks is refused with 540, so that no test passes without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amphora.broker.model.errors import Refusal
from amphora.broker.model.messages import MAX_MILLISECONDS
from amphora.broker.model.values import equal, is_integer, shown, type_name
from amphora.wire.codes import ReplyCode

Arguments = Mapping[str, Any]
# Returns what is wrong with a value, as RabbitMQ prints it, or None.
_Check = Callable[[Any], str | None]

DROP_HEAD = "drop-head"
REJECT_PUBLISH = "reject-publish"
REJECT_PUBLISH_DLX = "reject-publish-dlx"


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """The decoded arguments of a queue.  Durations are in seconds, sizes in bytes."""

    quorum: bool = False
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int | None = None
    single_active_consumer: bool = False
    delivery_limit: int | None = None

    @property
    def limited(self) -> bool:
        """True if the length or the size of the queue is limited."""
        return self.max_length is not None or self.max_bytes is not None

    def exceeded(self, length: int, size: int) -> bool:
        """Return whether this number of ready messages, or their bytes, exceed a limit."""
        too_long = self.max_length is not None and length > self.max_length
        return too_long or (self.max_bytes is not None and size > self.max_bytes)

    def shorten(self, time_to_live: float | None) -> float | None:
        """Return how long a message with a time to live of its own may stay in the queue."""
        if time_to_live is None or self.message_ttl is None:
            return self.message_ttl if time_to_live is None else time_to_live
        return min(time_to_live, self.message_ttl)


def queue_options(label: str, arguments: Arguments) -> QueueOptions:
    """Check the arguments of a new queue and return what they mean.

    Args:
        label: how reply texts name the queue.
        arguments: its arguments.

    Raises:
        Refusal: 406, an argument is not valid for this type of queue; 540, it is not supported.
    """
    _check_values(label, arguments, {"x-queue-type": _queue_type})
    kind = arguments.get("x-queue-type", "classic")
    if kind == "stream":
        raise Refusal(ReplyCode.NOT_IMPLEMENTED, f"{label}: this broker has no streams")
    quorum = kind == "quorum"
    known = _QUORUM_ARGUMENTS if quorum else _CLASSIC_ARGUMENTS
    _check_values(label, arguments, {key: _CHECKS[key] for key in known if key in _CHECKS})
    key = "x-dead-letter-routing-key"
    if key in arguments and "x-dead-letter-exchange" not in arguments:
        raise _invalid(label, key, "routing_key_but_no_dlx_defined")
    _refuse_foreign(label, arguments, _QUEUE_ARGUMENTS.difference(known), quorum)
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        raise Refusal(
            ReplyCode.NOT_IMPLEMENTED,
            f"{label}: this broker dead-letters at most once, not at least",
        )
    limit = arguments.get("x-delivery-limit")
    overflow = arguments.get("x-overflow", DROP_HEAD)
    return QueueOptions(
        quorum=quorum,
        expires=_seconds(arguments.get("x-expires")),
        message_ttl=_seconds(arguments.get("x-message-ttl")),
        max_length=arguments.get("x-max-length"),
        max_bytes=arguments.get("x-max-length-bytes"),
        # A quorum queue replaces an unknown value with its default.
        overflow=DROP_HEAD if quorum and overflow == REJECT_PUBLISH_DLX else overflow,
        dead_letter_exchange=arguments.get("x-dead-letter-exchange"),
        dead_letter_routing_key=arguments.get("x-dead-letter-routing-key"),
        max_priority=arguments.get("x-max-priority") or None,
        single_active_consumer=arguments.get("x-single-active-consumer", False),
        delivery_limit=limit if is_integer(limit) else None,
    )


def check_same_arguments(label: str, current: Arguments, received: Arguments, quorum: bool) -> None:
    """Check that a queue is redeclared with the arguments that it has.

    Raises:
        Refusal: 406, one of the arguments that are compared differs.
    """
    for key in _QUORUM_ARGUMENTS if quorum else _CLASSIC_ARGUMENTS:
        check_same_argument(label, key, current, received)


def check_same_argument(label: str, key: str, current: Arguments, received: Arguments) -> None:
    """Check that an argument is the same in a second declaration.

    Raises:
        Refusal: 406, it differs.
    """
    if key in current and key in received:
        if not equal(current[key], received[key]):
            raise inequivalent(label, key, f"'{shown(received[key])}'", f"'{shown(current[key])}'")
    elif key in current or key in received:
        only = current.get(key, received.get(key))
        if key == "x-queue-type" and only == "classic":
            return
        there = f"the value '{shown(only)}' of type '{type_name(only)}'"
        if key in current:
            raise inequivalent(label, key, "none", there)
        raise inequivalent(label, key, there, "none")


def check_same_field(label: str, field: str, current: object, received: object) -> None:
    """Check that a property such as `durable` is the same in a second declaration.

    Raises:
        Refusal: 406, it differs.
    """
    if current != received:
        raise inequivalent(label, field, f"'{shown(received)}'", f"'{shown(current)}'")


def inequivalent(label: str, key: str, received: str, current: str) -> Refusal:
    """Return the refusal of a second declaration that differs from the first."""
    text = f"inequivalent arg '{key}' for {label}: received {received} but current is {current}"
    return Refusal(ReplyCode.PRECONDITION_FAILED, text)


def check_consume_arguments(label: str, arguments: Arguments, quorum: bool) -> int:
    """Check the arguments of a consumer and return its priority.

    Raises:
        Refusal: 406, an argument is not valid; 540, it is not supported.
    """
    checks: dict[str, _Check] = {"x-priority": _integer}
    if not quorum:
        checks["x-cancel-on-ha-failover"] = _boolean
    _check_values(label, arguments, checks)
    _refuse_foreign(label, arguments, _CONSUMER_ARGUMENTS.difference(checks), quorum)
    if "x-credit" in arguments:
        raise Refusal(
            ReplyCode.NOT_IMPLEMENTED, f"{label}: this broker has no credit flow (x-credit)"
        )
    priority: int = arguments.get("x-priority", 0)
    return priority


def _check_values(label: str, arguments: Arguments, checks: Mapping[str, _Check]) -> None:
    for key, check in checks.items():
        if key in arguments:
            fault = check(arguments[key])
            if fault is not None:
                raise _invalid(label, key, fault)


def _refuse_foreign(
    label: str, arguments: Arguments, foreign: frozenset[str], quorum: bool
) -> None:
    """Refuse arguments that are meant only for another type of queue."""
    kind = "rabbit_quorum_queue" if quorum else "rabbit_classic_queue"
    for key in arguments:
        if key in foreign:
            text = f"invalid arg '{key}' for {label} of queue type {kind}"
            raise Refusal(ReplyCode.PRECONDITION_FAILED, text)


def _invalid(label: str, key: str, fault: str) -> Refusal:
    return Refusal(ReplyCode.PRECONDITION_FAILED, f"invalid arg '{key}' for {label}: {fault}")


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _integer(value: Any) -> str | None:
    return None if is_integer(value) else f'"expected integer, got {type_name(value)}"'


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else _unacceptable(value)


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else _unacceptable(value)


def _unacceptable(value: Any) -> str:
    return f"{{unacceptable_type,{type_name(value)}}}"


def _natural(value: Any) -> str | None:
    return _integer(value) or (f"{{value_negative,{value}}}" if value < 0 else None)


def _positive(value: Any) -> str | None:
    return _natural(value) or (f"{{value_zero,{value}}}" if value == 0 else None)


def _milliseconds(value: Any) -> str | None:
    too_large = f"{{value_too_large,{value}}}"
    return _natural(value) or (too_large if value > MAX_MILLISECONDS else None)


def _expires(value: Any) -> str | None:
    return _milliseconds(value) or _positive(value)


def _max_priority(value: Any) -> str | None:
    return _natural(value) or (f"{{max_value_exceeded,{value}}}" if value > 255 else None)


def _queue_version(value: Any) -> str | None:
    unsupported = f"\"unsupported queue version '{value}'\""
    return _natural(value) or (None if value in (1, 2) else unsupported)


def _one_of(allowed: tuple[str, ...], fault: str) -> _Check:
    """Return a check for one of a few texts; `fault` may name the value that was given."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return _unacceptable(value)
        return None if value in allowed else fault.format(value)

    return check


_queue_type = _one_of(("classic", "quorum", "stream"), "\"unsupported queue type '{}'\"")

_CHECKS: dict[str, _Check] = {
    "x-expires": _expires,
    "x-message-ttl": _milliseconds,
    "x-dead-letter-exchange": _text,
    "x-dead-letter-routing-key": _text,
    "x-dead-letter-strategy": _one_of(("at-most-once", "at-least-once"), "invalid_dlx_strategy"),
    "x-max-length": _natural,
    "x-max-length-bytes": _natural,
    "x-max-in-memory-length": _natural,
    "x-max-in-memory-bytes": _natural,
    "x-max-priority": _max_priority,
    "x-overflow": _one_of((DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX), "invalid_overflow"),
    "x-queue-mode": _one_of(("default", "lazy"), "\"unsupported queue mode '{}'\""),
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _boolean,
    "x-quorum-initial-group-size": _positive,
    "x-queue-leader-locator": _one_of(
        ("client-local", "balanced", "random", "least-leaders"), "invalid_queue_locator_arg"
    ),
}
_CLASSIC_ARGUMENTS = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
)
_QUORUM_ARGUMENTS = (
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
)
_STREAM_ARGUMENTS = ("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size")
_QUEUE_ARGUMENTS = frozenset(_CLASSIC_ARGUMENTS + _QUORUM_ARGUMENTS + _STREAM_ARGUMENTS)
# Arguments that are meant only for some types of queue; x-credit has a refusal of its own.
_CONSUMER_ARGUMENTS = frozenset(("x-priority", "x-cancel-on-ha-failover", "x-stream-offset"))
