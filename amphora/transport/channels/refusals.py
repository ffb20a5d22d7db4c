"""The exception for a broker's channel.close.

The texts are RabbitMQ's (https://www.rabbitmq.com/docs/access-control).  Older releases do not say
which permission is missing, so it is worked out from the refused method.  All releases say which
setting differs when something is declared again; the advice comes from here.
"""

from __future__ import annotations

import re

from amphora.errors import AccessRefused, ChannelClosed, Inequivalent
from amphora.wire.codec import methods
from amphora.wire.codes import ReplyCode

CONFIGURE, WRITE, READ = "configure", "write", "read"

# A text is cut at 255 bytes, even in the middle of a word.
_MISSING = re.compile(
    r"(?:(?P<permission>configure|write|read) )?access to"
    r" (?P<kind>queue|exchange|topic) '(?P<name>.*?)(?:'|$)"
    r"(?: in exchange '(?P<exchange>.*?)')?"
    r"(?: in vhost '(?P<vhost>.*?)')?(?: refused for user '(?P<user>.*?)')?"
)

# A value is given as 'quorum', as "the value 'quorum' of type 'longstr'", or as none.
_DIFFERS = re.compile(
    r"inequivalent arg '(?P<setting>.*?)' for (?P<kind>queue|exchange) '(?P<name>.*?)(?:'|$)"
    r"(?:.* but current is (?:the value )?(?P<current>'.*?'|none))?"
)
# What to do about other refusals (406), by words of their texts.
_ADVICE = {
    "delivery acknowledgement on channel": (
        "a request ran, or waited for its turn in this process, for longer than the broker's"
        " consumer_timeout: raise that, or acknowledge earlier, as with ack='early' or a stream"
    ),
    "is larger than": (
        "raise max_message_size in the broker's rabbitmq.conf, or send less in one message"
    ),
    "queue limit in vhost": "delete queues, or raise the limit (rabbitmqctl set_vhost_limits)",
}
# The values of `queue_type`.
_QUEUE_TYPES = ("classic", "quorum")
# Who declares an exchange of a type, and who may have tried.
_SHARERS = {"'direct'": ("ordinary", "fanout"), "'fanout'": ("fanout", "ordinary")}

# By the method, and by the kind of thing that access to was refused.
_PERMISSIONS: dict[type[object], dict[str, str]] = {
    methods.Exchange.Declare: {"exchange": CONFIGURE},
    methods.Exchange.Delete: {"exchange": CONFIGURE},
    # Of a dead letter exchange, which is written to.
    methods.Queue.Declare: {"queue": CONFIGURE, "exchange": WRITE},
    methods.Queue.Delete: {"queue": CONFIGURE},
    methods.Queue.Bind: {"queue": WRITE, "exchange": READ, "topic": READ},
    methods.Queue.Unbind: {"queue": WRITE, "exchange": READ, "topic": READ},
    methods.Queue.Purge: {"queue": READ},
    methods.Basic.Consume: {"queue": READ},
    methods.Basic.Get: {"queue": READ},
    methods.Basic.Publish: {"exchange": WRITE, "topic": WRITE},
}
_BY_NUMBER = {
    divmod(getattr(method, "index", 0), 1 << 16): permissions
    for method, permissions in _PERMISSIONS.items()
}


def refusal(close: methods.Channel.Close) -> ChannelClosed:
    """Return the exception for the broker's channel.close."""
    code, text = close.reply_code or 0, str(close.reply_text)
    if code == ReplyCode.ACCESS_REFUSED and (missing := _MISSING.search(text)):
        told = missing.groupdict()
        number = close.class_id or 0, close.method_id or 0
        permission = told["permission"] or _BY_NUMBER.get(number, {}).get(told["kind"], "")
        return AccessRefused(code, text, _who_needs(permission, told), permission)
    if code == ReplyCode.PRECONDITION_FAILED and (differs := _DIFFERS.search(text)):
        return Inequivalent(code, text, _how_to_agree(differs), differs["setting"])
    advice = (advice for words, advice in _ADVICE.items() if words in text)
    return ChannelClosed(code, text, next(advice, ""))


def _who_needs(permission: str, told: dict[str, str | None]) -> str:
    command = "set_topic_permissions" if told["kind"] == "topic" else "set_permissions"
    user = f"user '{told['user']}'" if told["user"] else "its user"
    what = f"the permission to {permission}" if permission else "a permission for"
    on = f" in vhost '{told['vhost']}'" if told["vhost"] else ""
    return f"{user} needs {what} {told['kind']} '{told['name']}'{on} (rabbitmqctl {command})"


def _how_to_agree(differs: re.Match[str]) -> str:
    setting, kind, name, current = differs.group("setting", "kind", "name", "current")
    if kind == "exchange" and setting == "type" and current in _SHARERS:
        theirs, others = _SHARERS[current]
        return (
            f"exchange '{name}' belongs to {theirs} clients and servers: {others} ones need another"
            " namespace; delete it if none of the former is left"
        )
    if kind == "exchange":
        return f"exchange '{name}' was made with another {setting}: delete it"
    # Not `if-empty`, which RabbitMQ does not support for quorum queues.
    delete = "delete it when it is empty (rabbitmqctl delete_queue)"
    if setting == "x-delivery-limit":
        return (
            f"queue '{name}' was made with another {setting}, or none, and RabbitMQ drops what it"
            f" has delivered more often (20 times if none is set, from RabbitMQ 4 on): {delete}"
        )
    if setting != "x-queue-type":
        return f"queue '{name}' was made with another {setting}: {delete}"
    # RabbitMQ 3 gives no type for a queue that was made without one.
    current = "classic" if current == "none" else (current or "").strip("'")
    if current not in _QUEUE_TYPES:
        return f"queue '{name}' is of another type: {delete}"
    return f"queue '{name}' is a {current} queue: give queue_type='{current}', or {delete}"
