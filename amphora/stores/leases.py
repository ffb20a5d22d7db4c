"""Keeping the keys of unfinished runs."""

from __future__ import annotations

from typing import Any

import gevent

from amphora.net.log import Log
from amphora.stores.claims import Claim
from amphora.stores.store import Store

log = Log("amphora.rpc")

# How often a lease is renewed within its duration.
RENEWALS = 3


class Leases:
    """The leases of one worker, renewed together while there are any.

    Args:
        store: the store of the keys.
        seconds: the duration of a lease.
        keep: seconds for which the answers will be kept.
    """

    def __init__(self, store: Store, seconds: float, keep: float) -> None:
        self.seconds = seconds
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
        # One that hangs must not hold up the next one, which uses another connection.
        patience = self.seconds / RENEWALS / 2
        claims = list(self._claims)
        renew = self._store.renew
        try:
            late = gevent.with_timeout(
                patience, renew, claims, self.seconds, self._keep, timeout_value=True
            )
        except Exception as error:  # noqa: BLE001 (any database's own)
            log.throttled("the keys of calls that are running cannot be kept: %s", error)
        else:
            if late:
                log.throttled(
                    "the keys of calls that are running cannot be kept: the database has not"
                    " answered within %g s",
                    patience,
                )
