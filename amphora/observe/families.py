"""The metrics: their names, kinds and labels, and how to add up those of several processes."""

from __future__ import annotations

from typing import Literal, NamedTuple

# The label for unknown functions: strangers can invent any number of names.
OTHER = "_OTHER"

# The server's status for an exception that its function declares: `add_function(expected=)`.
EXPECTED = "Expected"

# The upper bounds of the buckets of durations, in seconds.  They contain those of OpenTelemetry
# (https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/), and go on up to a call's default
# timeout.  Calls in one data centre take a millisecond or two.
BUCKETS = (
    *(0.0005, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0),
)


class Family(NamedTuple):
    """One metric.

    Attributes:
        kind: "counter" and "histogram" only grow, and outlive their process; a "gauge" is a
            current value.
        help: its meaning, in one line.
        labels: the names of its labels.
        largest: combine the values of several processes as their largest, not as their sum.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ("namespace",)
    largest: bool = False

    @property
    def numbers(self) -> int:
        """The number of numbers in one value.

        A histogram has the number of values in each bucket, the number above all buckets, and the
        sum of the values.
        """
        return len(BUCKETS) + 2 if self.kind == "histogram" else 1


_CALL = ("rpc_method", "rpc_status_code")

FAMILIES = {
    "rpc_server_call_duration_seconds": Family(
        "histogram", "How long servers took for a call, from its beginning to its answer", _CALL
    ),
    "rpc_client_call_duration_seconds": Family(
        "histogram", "How long a call took for its caller, from the call to its result", _CALL
    ),
    "amphora_queue_wait_seconds": Family(
        "histogram", "How long requests waited in their queue, where that is known"
    ),
    "amphora_queue_wait_unknown_total": Family(
        "counter", "Requests whose time in the queue is not known"
    ),
    "amphora_redelivered_total": Family(
        "counter", "Requests that were delivered to a server again"
    ),
    "amphora_expired_total": Family(
        "counter", "Requests that were not begun because their time was over"
    ),
    "amphora_cancelled_total": Family(
        "counter", "Requests that were not begun, or ended, because their caller had gone away"
    ),
    "amphora_busy_total": Family(
        "counter", "Requests that were turned away because a server had too much to do"
    ),
    "amphora_poison_total": Family(
        "counter", "Requests that were given up because they ended their worker each time"
    ),
    "amphora_reconnects_total": Family("counter", "Reconnections to the broker", ()),
    "amphora_in_flight": Family("gauge", "Requests that servers have in progress"),
    "amphora_concurrency": Family("gauge", "Requests that servers handle at once, at most"),
    "amphora_pending": Family("gauge", "Calls of clients that have not ended"),
    "amphora_unconfirmed": Family("gauge", "Messages that the broker has not confirmed", ()),
    "amphora_connected": Family("gauge", "Sessions that are connected to the broker", ()),
    "amphora_sessions": Family("gauge", "Sessions that are in use", ()),
    # What the supervisor of a pool reports about its workers.
    "amphora_workers": Family("gauge", "Workers of a pool", ("state",)),
    "amphora_workers_started_total": Family("counter", "Workers that a pool has started", ()),
    # All processes ask about the same queue.
    "amphora_queue_messages": Family(
        "gauge", "Requests that wait in the queue of a namespace", largest=True
    ),
}
