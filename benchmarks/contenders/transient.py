"""amphora with `durable=False`: transient messages, no confirms."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contenders import durable

# Another than that of the durable contender, whose server would take half of the requests.
NAMESPACE = "benchmark_transient"


def serve(url: str, ready: Callable[[], None]) -> None:
    """Offer `echo`."""
    durable.serve(url, ready, NAMESPACE)


class Client(durable.Client):
    """Call `echo`, and do not have the request confirmed; nor is the response then."""

    namespace = NAMESPACE
    durable = False
