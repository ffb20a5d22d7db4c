"""Deadlines that calls inherit from where they are made."""

from __future__ import annotations

from collections.abc import Iterator

from amphora.net import clock
from amphora.rpc.context.blocks import block
from amphora.rpc.context.call import Scope, here
from amphora.rpc.contract.checks import check_timeout


@block
def deadline(seconds: float) -> Iterator[None]:
    """Give all calls made in the `with` block this many seconds together.

        with amphora.deadline(2.0):
            user = client.call.user(17)
            orders = client.call.orders(user)

    It never lengthens what a call has anyway, by its own `timeout`, by an outer block, or by the
    call that is served here.  Casts are sent whatever the time, except those that wait for the
    broker or a server.

    Raises:
        ValueError: `seconds` is not a positive number.
    """
    end = clock.monotonic() + check_timeout(seconds, "a deadline")
    outer = here.get()
    if outer is not None and outer.ends_at is not None:
        end = min(end, outer.ends_at)
    token = here.set(Scope(None if outer is None else outer.call, end))
    try:
        yield
    finally:
        here.reset(token)


def left_here(limit: float) -> float:
    """Return the seconds that calls made here have left, at least 0 and at most `limit`."""
    scope = here.get()
    if scope is None or scope.ends_at is None:
        return limit
    return min(max(scope.ends_at - clock.monotonic(), 0.0), limit)
