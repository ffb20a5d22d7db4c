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
    "bare-batched": ("bare loop, answers in batches", "bare_batched"),
    "bare-json": ("bare loop, with JSON", "bare_json"),
    "amphora": ("amphora", "durable"),
    "amphora-transient": ("amphora, durable=False", "transient"),
    "aio-pika": ("aio-pika RPC", "aiopika"),
    "nameko": ("nameko", "nameko_rpc"),
    "pika": ("pika, as RabbitMQ's tutorial", "pika_blocking"),
}
PEERS = ("aio-pika", "nameko", "pika")


def check(name: str) -> str:
    """Return the name of a contender.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in CONTENDERS:
        raise ValueError(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
    return name


def load(name: str) -> Any:
    """Return the module of a contender.

    Raises:
        ValueError: there is none of that name.
        ImportError: what it needs is not installed.
    """
    return importlib.import_module(f"benchmarks.contenders.{CONTENDERS[check(name)][1]}")
