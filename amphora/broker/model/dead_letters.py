"""Dead letters: the headers that a message takes along when it leaves a queue for good.

Source: https://www.rabbitmq.com/docs/3.10/dlx; checked against RabbitMQ 3.10.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from amphora.broker.model.agenda import Scheduled
from amphora.broker.model.messages import Message, replaced, text_list
from amphora.broker.model.values import is_integer

Death = dict[str, Any]


def dead_letter(message: Message, reason: str, queue: Scheduled, died_at: float) -> Message:
    """Return the message that goes to the dead letter exchange of `queue`.

    Args:
        message: the message that ended.
        reason: why it ended: `rejected`, `expired`, `maxlen` or `delivery_limit`.
        queue: the queue where it ended, which has a dead letter exchange.
        died_at: when it ended, in seconds since 1970.
    """
    exchange = queue.options.dead_letter_exchange or ""
    routing_key = queue.options.dead_letter_routing_key
    old_headers = message.properties.headers or {}
    death: Death = {
        "count": 1,
        "reason": reason,
        "queue": queue.name,
        "time": datetime.fromtimestamp(int(died_at), UTC),
        "exchange": message.exchange,
        "routing-keys": [message.routing_key, *text_list(old_headers, "CC")],
    }
    if message.properties.expiration is not None:
        death["original-expiration"] = message.properties.expiration
    headers = {**old_headers, "x-death": _with_death(old_headers.get("x-death"), death)}
    if "x-death" not in old_headers:
        headers["x-first-death-reason"] = reason
        headers["x-first-death-queue"] = queue.name
        headers["x-first-death-exchange"] = message.exchange
    if routing_key is not None:
        headers.pop("CC", None)
    properties = replaced(message.properties, headers=headers, expiration=None)
    letter = Message(exchange, message.routing_key, properties, message.body)
    letter.routing_keys = message.routing_keys
    if routing_key is not None:
        letter.routing_key = routing_key
        letter.routing_keys = (routing_key,)
    return letter


def _with_death(deaths: Any, death: Death) -> list[Death]:
    """Return the value of x-death after one more death.

    Deaths of the same queue and reason are counted in one entry, which moves to the front.  The
    others change their order each time, as they do with RabbitMQ 3.10.
    """
    others = list(reversed(_grouped(deaths)))
    for other in others:
        if _place(other) == _place(death):
            others.remove(other)
            return [{**other, "count": other["count"] + 1}, *others]
    return [death, *others]


def _grouped(deaths: Any) -> list[Death]:
    """Return the deaths in an untrusted header, one counted entry for each place."""
    if not isinstance(deaths, list):
        return []
    groups: dict[tuple[str, str], Death] = {}
    for death in deaths:
        if not isinstance(death, dict):
            continue
        counted = is_integer(death.get("count"))
        group = groups.setdefault(
            _place(death), {**death, "count": death["count"] if counted else 0}
        )
        if not counted:
            group["count"] += 1
    return list(groups.values())


def _place(death: Death) -> tuple[str, str]:
    return str(death.get("queue")), str(death.get("reason"))


def is_cycle(name: str, letter: Message) -> bool:
    """Return whether a dead letter would return to a queue that it has already left by itself.

    Such a letter would circulate for ever.  One that a consumer rejected on the way is allowed.
    """
    deaths = [
        death for death in (letter.properties.headers or {})["x-death"] if isinstance(death, dict)
    ]
    for position, death in enumerate(deaths):
        if death.get("queue") == name:
            return all(passed.get("reason") != "rejected" for passed in deaths[: position + 1])
    return False
