"""Which functions their servers have declared to be safe to repeat."""

from __future__ import annotations

from time import monotonic

from amphora.errors import AmphoraError
from amphora.net.log import Log
from amphora.rpc.client.management import ManagementClient
from amphora.transport.session import Session

log = Log("amphora.rpc")

# Seconds to wait for the workers' descriptions, and for which they are remembered.
TIMEOUT = 2.0
REMEMBERED = 60.0
# Seconds to take leave of the broker.
CLOSING = 0.5


class Declared:
    """The functions of a namespace that are declared `idempotent=True`.

    The workers are asked for their descriptions when it matters: after a failure that leaves open
    whether a function ran.
    """

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._namespace = namespace
        self._names: frozenset[str] = frozenset()
        self._until = 0.0

    def idempotent(self, function: str, timeout: float) -> bool:
        """Return whether all workers that answer say that a function is safe to repeat.

        Switches greenlets if they have to be asked, for about `timeout` seconds at most.
        """
        if monotonic() >= self._until:
            self._names = self._ask(min(timeout, TIMEOUT))
            self._until = monotonic() + REMEMBERED
        return function in self._names

    def _ask(self, timeout: float) -> frozenset[str]:
        safe: set[str] = set()
        others: set[str] = set()
        management = ManagementClient(session=self._session, timeout=timeout)
        try:
            for reply in management.ask(self._namespace, "describe"):
                for function in reply.get()["functions"]:
                    (safe if function.get("idempotent") else others).add(function["name"])
        except AmphoraError as error:
            # Such as a missing permission: nothing is known to be safe.
            log.throttled(
                "%s cannot be asked which functions are safe to repeat: %s", self._namespace, error
            )
            return frozenset()
        finally:
            management.close(CLOSING)
        return frozenset(safe - others)
