"""Which functions their servers have declared to be safe to repeat."""

from __future__ import annotations

from amphora.errors import AmphoraError
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.client.offers import TIMEOUT, descriptions
from amphora.transport.session import Session

log = Log("amphora.rpc")

# Seconds for which the workers' descriptions are remembered.
REMEMBERED = 60.0


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
        if clock.monotonic() >= self._until:
            self._names = self._ask(min(timeout, TIMEOUT))
            self._until = clock.monotonic() + REMEMBERED
        return function in self._names

    def _ask(self, timeout: float) -> frozenset[str]:
        safe: set[str] = set()
        others: set[str] = set()
        try:
            for answer in descriptions(self._session, self._namespace, timeout):
                for function in answer["functions"]:
                    (safe if function.get("idempotent") else others).add(function["name"])
        except AmphoraError as error:
            # Such as a missing permission: nothing is known to be safe.
            log.throttled(
                "the workers of %s cannot be asked which functions are safe to repeat: %s",
                self._namespace,
                error,
            )
            return frozenset()
        return frozenset(safe - others)
