"""The functions of the services behind a gateway, as their workers describe them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gevent.lock import RLock

from amphora.errors import AmphoraError
from amphora.gateway.problems import RETRY_AFTER, Problem
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.client.offers import descriptions
from amphora.rpc.contract.reports import FunctionDescription
from amphora.rpc.contract.types.compatibility import Offer, offer_of
from amphora.transport.session import Session

log = Log("amphora.gateway")

# Seconds to wait for the workers, and for which an answer is valid; less if no worker answered.
TIMEOUT = 2.0
FRESH = 10.0
FRESH_EMPTY = 1.0


class Directory:
    """The functions of some namespaces, and which of them may be called.

    Args:
        session: the session for questions to workers.
        namespaces: the namespaces.
        functions: the only functions, as `namespace.function`; None for all.
    """

    def __init__(
        self, session: Session, namespaces: Iterable[str], functions: frozenset[str] | None
    ) -> None:
        self._session = session
        self._functions = functions
        self._locks = {namespace: RLock() for namespace in namespaces}
        # Each with the time until which it is valid.
        self._offers: dict[str, tuple[float, Offer | None]] = {}

    @property
    def namespaces(self) -> Iterable[str]:
        """The namespaces."""
        return self._locks.keys()

    def allows(self, namespace: str, function: str) -> bool:
        """Return whether a function may be called, if it exists."""
        if namespace not in self._locks:
            return False
        return self._functions is None or f"{namespace}.{function}" in self._functions

    def known_stream(self, namespace: str, function: str) -> bool:
        """Return whether a function is known to be a stream.  Asks no worker."""
        _, offer = self._offers.get(namespace, (0.0, None))
        found = find(offer, function)
        return found is not None and bool(found.get("stream"))

    def offers(self) -> dict[str, Offer]:
        """Return the offers of all namespaces.  Switches greenlets.

        Raises:
            Problem: one of them cannot be asked.
        """
        found = {}
        for namespace in self._locks:
            offer = self.offer(namespace)
            if offer is None:
                wait = (("Retry-After", str(RETRY_AFTER)),)
                raise Problem(503, "The services cannot be asked what they offer.", headers=wait)
            found[namespace] = offer
        return found

    def offer(self, namespace: str) -> Offer | None:
        """Return the offer of a namespace, None if it is not available.  Switches greenlets."""
        with self._locks[namespace]:
            holds_until, offer = self._offers.get(namespace, (0.0, None))
            if clock.monotonic() < holds_until:
                return offer
            offers = self._ask(namespace)
            offer = None if offers is None else self._merged(namespace, offers)
            fresh = FRESH if offer is not None and offer.functions else FRESH_EMPTY
            self._offers[namespace] = clock.monotonic() + fresh, offer
            return offer

    def _ask(self, namespace: str) -> list[Offer] | None:
        try:
            answers = descriptions(self._session, namespace, TIMEOUT)
            return [offer_of(answer) for answer in answers]
        except (AmphoraError, ValueError) as error:
            log.throttled("%s cannot be asked what it offers: %s", namespace, error)
            return None

    def _merged(self, namespace: str, offers: list[Offer]) -> Offer:
        """Return what all workers together offer; where two differ, the first one counts."""
        merged = Offer(namespace, [], {})
        for offer in offers:
            there = {function["name"] for function in merged.functions}
            new = [
                function
                for function in offer.functions
                if function["name"] not in there and self.allows(namespace, function["name"])
            ]
            merged = replace(
                merged,
                functions=merged.functions + new,
                definitions={**offer.definitions, **merged.definitions},
                version=merged.version or offer.version,
            )
        return merged


def find(offer: Offer | None, function: str) -> FunctionDescription | None:
    """Return the description of a function; None if there is none."""
    if offer is None:
        return None
    return next((each for each in offer.functions if each["name"] == function), None)


def split(name: str, namespaces: Iterable[str]) -> tuple[str, str]:
    """Return the namespace and the function in `namespace.function`; "" twice if there is no match.

    Both may contain dots.
    """
    for namespace in sorted(namespaces, key=len, reverse=True):
        if name.startswith(f"{namespace}."):
            return namespace, name[len(namespace) + 1 :]
    return "", ""
