"""Logging of what strangers can cause, at most once a second for each kind."""

from __future__ import annotations

import logging
from time import monotonic

INTERVAL = 1.0


class ThrottledLog:
    """A logger that cannot be flooded: of each kind of line, one a second at most.

    What was left out is counted and told with the next line of its kind.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, *args: object) -> None:
        """Log a warning; `kind` is its format, as for `logging`, and what is counted by."""
        now = monotonic()
        if now - self._last.get(kind, -INTERVAL) < INTERVAL:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._last[kind] = now
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            kind += " (and %d more like it)"
            args += (left_out,)
        self._logger.warning(kind, *args)
