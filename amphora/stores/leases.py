"""Keeping the keys of runs that are still going."""

from __future__ import annotations

from typing import Any

import gevent

from amphora.net.log import Log
from amphora.stores.claims import Claim
from amphora.stores.store import Store

log = Log("amphora.rpc")

# How often a lease is renewed before it would end.
RENEWALS = 3


class Leases:
    """The leases of one worker, renewed together while there are any.

    Args:
        store: where they are.
        seconds: how long a lease is.
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
        """Renew a lease from now on."""
        self._claims.add(claim)
        if self._timer is None:
            pause = self.seconds / RENEWALS
            self._timer = gevent.get_hub().loop.timer(pause, pause)
            self._timer.start(self._renew_soon)

    def discard(self, claim: Claim) -> None:
        """Renew a lease no longer.  Never switches greenlets."""
        self._claims.discard(claim)
        if self._claims or self._timer is None:
            return
        self._timer.close()
        self._timer = None
        if self._renewing is not None:
            self._renewing.kill(block=False)

    def _renew_soon(self) -> None:
        """Have the leases renewed, unless they are just being.  Runs in the hub."""
        if self._renewing is None:
            self._renewing = gevent.spawn(self._renew)

    def _renew(self) -> None:
        try:
            self._store.renew(list(self._claims), self.seconds, self._keep)
        except Exception as error:  # noqa: BLE001 (any database's own)
            log.throttled("the keys of calls that are running cannot be kept: %s", error)
        finally:
            self._renewing = None
