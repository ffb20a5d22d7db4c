"""A server of orders that is lost between its commit and its answer: `orders_lost.py PROGRAM ...`.

It is the program as it is, but for a middleware around that of the program.
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

from gevent import monkey

monkey.patch_all()  # as the server with PostgreSQL does, before it imports anything

import amphora  # noqa: E402


class Lost(amphora.AmqpRpcServer):
    """A server that kills its process when a call has come to its end."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.middleware(die)


def die(call: object, proceed: Callable[[], Any]) -> None:
    """Run the call, and end as a machine does that loses its power."""
    proceed()
    os.kill(os.getpid(), signal.SIGKILL)


amphora.AmqpRpcServer = Lost  # type: ignore[assignment, misc]
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
