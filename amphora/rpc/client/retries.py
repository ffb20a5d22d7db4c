"""Making a call again that has failed, where that is safe."""

from __future__ import annotations

import random
from typing import Any

from amphora.errors import (
    AmphoraError,
    AuthenticationError,
    Busy,
    Cancelled,
    ChannelClosed,
    Denied,
    NoResult,
    PoisonRequest,
    RemoteException,
    WrongRequest,
    WrongResult,
    repr_of,
)
from amphora.net.backoff import FIRST_PAUSE, LONGEST_PAUSE, doubled

# What would be the same the next time, what has come of running the function, and the end.
FINAL = (
    AuthenticationError,
    Cancelled,
    Denied,
    NoResult,
    PoisonRequest,
    RemoteException,
    WrongRequest,
    WrongResult,
)


def check_retries(retries: Any) -> int:
    """Return how often a call may be made again.

    Raises:
        ValueError: it is not a number from 0 on.
    """
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ValueError(f"retries must be a number from 0 on, not {repr_of(retries)}")
    return retries


def may_pass(error: AmphoraError) -> bool:
    """Return whether a call that failed like this may go well the next time."""
    if isinstance(error, ChannelClosed):
        return error.passing
    return not isinstance(error, FINAL)


class Retries:
    """The retries of one call.

    Args:
        left: how often it may be made again.
    """

    def __init__(self, left: int) -> None:
        self._left = left
        self._longest = 0.0
        self._may_have_run = False

    def failed(self, error: AmphoraError) -> AmphoraError:
        """Note that an attempt failed; return the error that the caller gets if it was the last.

        One attempt that may have run the function leaves that unknown, whatever came after it.
        """
        if error.executed is False:
            return error.again(executed=None) if self._may_have_run else error
        self._may_have_run = True
        return error

    def pause(self, error: AmphoraError) -> float | None:
        """Return the seconds to wait before the next attempt, None if there is none.

        The pauses have full jitter, so that the calls which fail together are not repeated
        together.  A server that is busy says for how long it is to be left alone; that long, and up
        to as long again.
        """
        if not self._left or not may_pass(error):
            return None
        self._left -= 1
        self._longest = doubled(self._longest, FIRST_PAUSE, LONGEST_PAUSE)
        if isinstance(error, Busy) and error.retry_after is not None:
            return error.retry_after * random.uniform(1, 2)  # noqa: S311 (no secret)
        return random.uniform(0, self._longest)  # noqa: S311 (no secret)
