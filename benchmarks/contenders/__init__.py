"""The programs that are compared: each a client and a server of one function, in a process each.

A module here has `serve(url, ready)`, which offers a function that returns its argument, calls
`ready` when it takes requests, and serves until it is killed; and a class `Client(url)` with
`callers(count, seconds, body)`: `count` callers make one call after the other for so long, and it
returns how long each call took.
"""

from __future__ import annotations

import importlib
from typing import Any

# The name, what tables call it, and its module.
CONTENDERS = {
    "bare": ("bare loop", "bare"),
    "amphora": ("amphora", "durable"),
    "amphora-transient": ("amphora, durable=False", "transient"),
    "aio-pika": ("aio-pika RPC", "aiopika"),
    "nameko": ("nameko", "nameko_rpc"),
    "pika": ("pika, as RabbitMQ's tutorial", "pika_blocking"),
}
PEERS = ("aio-pika", "nameko", "pika")


def load(name: str) -> Any:
    """Return the module of a contender.

    Raises:
        ImportError: what it needs is not installed.
    """
    return importlib.import_module(f"benchmarks.contenders.{CONTENDERS[name][1]}")
