"""The leases of unfinished runs: renewing one's own, and watching those of others."""

from __future__ import annotations

from typing import Any

import gevent

from amphora.net import clock
from amphora.net.log import Log
from amphora.stores.claims import Claim, Lease
from amphora.stores.store import RENEWALS, Store

log = Log("amphora.rpc")


class Leases:
    """The leases of one worker, renewed together while there are any.

    Args:
        store: the store of the keys.
        seconds: the duration of a lease.
        keep: seconds for which the answers will be kept.
    """

    def __init__(self, store: Store, seconds: float, keep: float) -> None:
        self.seconds = seconds
        # Seconds for what is tried again on another connection.
        self.patience = seconds / RENEWALS / 2
        self._store = store
        self._keep = keep
        self._claims: set[Claim] = set()
        self._timer: Any = None
        self._renewing: gevent.Greenlet[..., None] | None = None

    def add(self, claim: Claim) -> None:
        """Start renewing a lease."""
        self._claims.add(claim)
        if self._timer is None:
            pause = self.seconds / RENEWALS
            self._timer = gevent.get_hub().loop.timer(pause, pause)
            self._timer.start(self._renew_soon)

    def discard(self, claim: Claim) -> None:
        """Stop renewing a lease.  Never switches greenlets."""
        self._claims.discard(claim)
        if self._claims or self._timer is None:
            return
        self._timer.close()
        self._timer = None
        if self._renewing is not None:
            self._renewing.kill(block=False)

    def _renew_soon(self) -> None:
        """Start a renewal of the leases, unless one is running.  Runs in the hub."""
        # One that was killed before it began is over as well.
        if self._renewing is None or self._renewing.ready():
            self._renewing = gevent.spawn(self._renew)

    def _renew(self) -> None:
        renew, claims = self._store.renew, list(self._claims)
        try:
            self._store.within(self.patience, renew, claims, self.seconds, self._keep)
        except Exception as error:  # noqa: BLE001 (any database's own)
            log.throttled("the keys of calls that are running cannot be kept: %s", error)


class Watch:
    """Watches the lease of another run, on the clock of this process.

    The clock of the database may be set back: then the lease of a lost run seems to go on for
    hours.  A run that is not lost renews its lease.

    Args:
        seconds: the duration of a lease.

    Attributes:
        lost: the lease, once it has been the same for its whole duration.
    """

    def __init__(self, seconds: float) -> None:
        self.lost: Lease | None = None
        self._seconds = seconds
        self._seen: Lease | None = None
        self._since = 0.0

    def note(self, lease: Lease | None, took: float) -> None:
        """Note the lease that the run has now; `took` is how long the answer took, in seconds."""
        now = clock.monotonic()
        # While it gave no answer, the database may have taken no renewal either.
        if lease != self._seen or took > self._seconds / RENEWALS:
            self._seen, self._since = lease, now
        self.lost = self._seen if now - self._since > self._seconds else None
