"""Asking the workers of a namespace, or of all, what they offer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

import gevent

from amphora.errors import AmphoraError, NoResult, WrongRequest, printable
from amphora.net import clock
from amphora.net.deadline import Deadline
from amphora.net.log import Log
from amphora.rpc.client.management import ManagementClient
from amphora.rpc.contract import naming
from amphora.rpc.contract.types.compatibility import Offer, differences, offer_of
from amphora.transport.links.topology import Exchange, Topology
from amphora.transport.session import Session

log = Log("amphora.rpc")

# Seconds to wait for the workers' descriptions.
TIMEOUT = 2.0
# Seconds to take leave of the broker.
CLOSING = 0.5
# Seconds after which they are asked again, if none has answered.
PAUSE = 10.0
# And between two questions of one who waits for a worker.
LOOK_AGAIN = 0.1

# Seconds for the workers of all namespaces to answer; then twice as long, while none does.
FIRST_ROUND = 0.5
SHORTEST_ROUND = 0.05

# By namespace, and in it by worker id: what each worker offers.
Offers = dict[str, dict[str, dict[str, Any]]]


def descriptions(session: Session, namespace: str, timeout: float) -> list[Any]:
    """Return what the workers of a namespace answer to `describe`.  Switches greenlets.

    Raises:
        AmphoraError: they cannot be asked, or one of them failed.
    """
    management = ManagementClient(session=session, timeout=timeout)
    try:
        return [reply.get() for reply in management.ask(namespace, "describe")]
    finally:
        management.close(CLOSING)


def offers_of_all(
    management: ManagementClient, timeout: float, *, thorough: bool = False
) -> tuple[Offers, dict[str, int]]:
    """Return what the workers of all namespaces offer, and how many of each have not answered.

    Which namespaces there are is not known, so all workers are asked at once for a moment.  Those
    of a namespace that has answered can be counted, and are asked again while one is missing.
    Switches greenlets.

    Args:
        timeout: seconds for all of it.
        thorough: ask all of them again until nobody new answers; else until anybody does.

    Raises:
        NoResult: the broker took no question in time.
        AmphoraError: it cannot be asked.
    """
    deadline = Deadline(timeout)
    found = _ask_all(management, deadline, thorough)
    silent = {}
    for namespace, workers in found.items():
        missing = _ask_the_missing(management, deadline, namespace, workers)
        if missing:
            silent[namespace] = missing
    return found, silent


def _ask_all(management: ManagementClient, deadline: Deadline, thorough: bool) -> Offers:
    """Ask all workers at once, in rounds; return what those offer that answer."""
    found: Offers = {}
    patience = FIRST_ROUND
    known = 0
    unconfirmed: NoResult | None = None
    confirmed = False
    while not deadline.passed:
        try:
            for reply in management.ask(
                None, "describe", timeout=_time_of_round(deadline, patience)
            ):
                if reply.error is None:
                    found.setdefault(reply.value["namespace"], {})[reply.worker] = reply.value
            confirmed = True
        except NoResult as error:
            # Its time was too short for the broker to take it.  That of another may not be.
            unconfirmed = error
        before, known = known, sum(map(len, found.values()))
        if known and (known == before or not thorough):
            break
        if not known:
            patience *= 2
    if unconfirmed is not None and not confirmed and not found:
        raise unconfirmed
    return found


def _ask_the_missing(
    management: ManagementClient, deadline: Deadline, namespace: str, workers: dict[str, Any]
) -> int:
    """Ask a namespace's workers again if one is missing; return how many have not answered.

    Args:
        workers: what those offer that have answered; the others are added.
    """

    def missing() -> int:
        return (management.count_workers(namespace) or 0) - len(workers)

    if missing() <= 0:
        return 0
    # Those that the broker has no time to ask are silent; the others have answered.
    with suppress(NoResult):
        for reply in management.ask(namespace, "describe", timeout=_time_of_round(deadline)):
            if reply.error is None:
                workers[reply.worker] = reply.value
    return max(missing(), 0)


def _time_of_round(deadline: Deadline, longest: float = inf) -> float:
    """Return the seconds for one round of answers, when all has to end by a deadline."""
    return max(deadline.left(longest), SHORTEST_ROUND)


def ping(session: Session, namespace: str | None, timeout: float) -> list[str]:
    """Return the ids of the workers that say within a time that they are there.

    Switches greenlets.

    Args:
        namespace: whose workers to ask, None for those of all namespaces.

    Raises:
        AmphoraError: they cannot be asked, or this login may not.
    """
    # A login without the permission learns it here, and not from lines in the log.
    exchange = Exchange(naming.request_exchange(naming.MANAGEMENT_NAMESPACE))
    session.operate(Topology(exchange).declare, timeout)
    management = ManagementClient(session=session, timeout=timeout)
    management._mailbox.unseen = True
    try:
        return [r.worker for r in management.ask(namespace, "ping") if r.error is None]
    finally:
        management.close(CLOSING)


class Check:
    """Compares an API with what the servers offer, once.

    Args:
        session: where to ask.
        namespace: whose servers to ask.
        wanted: returns what the API says.
        timeout: seconds for a call that does not say how many.

    Attributes:
        timeout: as given.
    """

    def __init__(
        self, session: Session, namespace: str, wanted: Callable[[], Offer], timeout: float
    ) -> None:
        self.timeout = timeout
        self._session = session
        self._namespace = namespace
        self._wanted = wanted
        self._again = 0.0
        self._problem: str | None = None

    @property
    def due(self) -> bool:
        """True if the workers are asked the next time."""
        return clock.monotonic() >= self._again

    def run(self, patience: float = 0.0, limit: float = TIMEOUT) -> None:
        """Compare, if that was not done.  Switches greenlets then.

        While no worker answers, nothing is compared, and they are asked again later.

        Args:
            patience: seconds to wait for a worker that answers.
            limit: seconds for all of it, whatever the patience.

        Raises:
            WrongRequest: a worker offers something else; each difference is named.
        """
        if self.due:
            self._problem = self._compare(patience, Deadline(limit))
        if self._problem:
            raise WrongRequest(self._problem)

    def _compare(self, patience: float, deadline: Deadline) -> str | None:
        until = clock.monotonic() + deadline.left(patience)
        offers = self._ask(deadline)
        while not offers and clock.monotonic() < until:
            gevent.sleep(LOOK_AGAIN)
            offers = self._ask(deadline)
        # A difference may be over in a moment: an old worker and a new one run side by side.
        self._again = clock.monotonic() + PAUSE
        wanted = self._wanted()
        found: list[str] = []
        titles = []
        for offer in offers:
            for difference in differences(wanted, offer):
                if difference not in found:
                    found.append(difference)
                if offer.title not in titles:
                    titles.append(offer.title)
        if found:
            others = printable(", ".join(sorted(titles)))
            return f"{wanted.title} is not what {others} offers: {'; '.join(found)}"
        if offers:
            self._again = float("inf")
        return None

    def _ask(self, deadline: Deadline) -> list[Offer]:
        try:
            seconds = _time_of_round(deadline, TIMEOUT)
            answers = descriptions(self._session, self._namespace, seconds)
            return [offer_of(answer) for answer in answers]
        except (AmphoraError, ValueError) as error:
            log.throttled("%s cannot be asked what it offers: %s", self._namespace, error)
            return []
