"""The limit for large bodies: the bare loop, in which both sides read and write JSON.

Everything else is as in `bare`.  What a side has read it writes again, once for each call, as a
server does with an echo and a client with its next request.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from benchmarks.contenders import bare

REQUESTS = "benchmark_json_request"
RESPONSES = "benchmark_json_response"


def read_and_write(body: bytes) -> None:
    """Decode a body and encode it again."""
    msgspec.json.encode(msgspec.json.decode(body))


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer an echo."""
    pair = bare.serving(url, REQUESTS, RESPONSES)
    ready()
    bare.answer(pair, RESPONSES, read_and_write)


class Client(bare.Client):
    """Call the echo: as many calls under way at once as there are callers."""

    requests, responses = REQUESTS, RESPONSES
    read = staticmethod(read_and_write)
