"""Waiting for what a test cannot be told of: asked again and again, with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent
from gevent.event import Event

T = TypeVar("T")


def wait_until(ask: Callable[..., T], what: str = "", timeout: float = 80.0) -> T:
    """Return the first true answer of `ask`, asked every 10 ms for at most `timeout` seconds.

    Raises TimeoutError, with `what` was waited for and the last answer.
    """
    answer = ask()
    try:
        with gevent.Timeout(timeout):
            while not answer:
                gevent.sleep(0.01)
                answer = ask()
    except gevent.Timeout:
        waited_for = what or getattr(ask, "__name__", repr(ask))
        raise TimeoutError(
            f"not within {timeout:g} s: {waited_for} (last answer: {answer!r})"
        ) from None
    return answer


class TooLate(Event):  # type: ignore[misc]
    """An event that is set in the turn in which the time of those who wait for it is over."""

    def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        super().wait(timeout)
        return False
