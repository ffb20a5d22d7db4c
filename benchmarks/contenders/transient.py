"""amphora with `durable=False`: transient messages, no confirms."""

from __future__ import annotations

from benchmarks.contenders import durable
from benchmarks.contenders.durable import serve

__all__ = ["Client", "serve"]


class Client(durable.Client):
    """Call `echo`, and do not have the request confirmed; nor is the response then."""

    durable = False
