"""Workers that do not get on: when to log them, and when to end them."""

from __future__ import annotations

import logging
from typing import NamedTuple

from amphora.cli.serving.options import PoolOptions
from amphora.cli.serving.process import Worker


class Verdict(NamedTuple):
    """A verdict on a worker: what to log, and what to do.

    Attributes:
        level, text, values: the line for the log.
        ends: the worker must be ended.
        unloadable: it must be ended because its program was not loaded in time.
    """

    level: int
    text: str
    values: tuple[object, ...]
    ends: bool = False
    unloadable: bool = False


def verdict(worker: Worker, now: float, options: PoolOptions, serving: int) -> Verdict | None:
    """Return the verdict on a worker, None if there is nothing to log.

    Args:
        now: the present, on the monotonic clock.
        serving: how many workers take requests.
    """
    if not worker.ready:
        late = _late(worker, now - worker.started, options, serving)
        if late is not None:
            return late
    if (worker.loaded or worker.ready) and worker.heard.beaten is not None:
        return _held(worker, now - worker.heard.beaten, options.stuck_timeout)
    return None


def _late(worker: Worker, lasted: float, options: PoolOptions, serving: int) -> Verdict | None:
    limit = options.load_timeout
    if limit is not None and lasted > limit and not worker.loaded:
        return Verdict(
            logging.ERROR,
            "%s has not loaded the program within %g s and is ended; %s",
            (worker, limit, worker.place()),
            ends=True,
            unloadable=True,
        )
    if not worker.slow_to_start.is_due(lasted):
        return None
    return Verdict(
        logging.WARNING,
        "%s %s after %.0f s%s; %d of %d take requests",
        (
            worker,
            "does not take requests" if worker.loaded else "is still loading the program",
            lasted,
            "" if worker.loaded else f": {worker.place()}",
            serving,
            options.workers,
        ),
    )


def _held(worker: Worker, lasted: float, limit: float | None) -> Verdict | None:
    if limit is not None and lasted > limit:
        return Verdict(
            logging.ERROR,
            "%s has not reacted for %.1f s and is replaced; %s",
            (worker, lasted, worker.place()),
            ends=True,
        )
    if not worker.held.is_due(lasted):
        return None
    if worker.stands_at is None:
        # Its thread, which would tell the place, does not run either.
        return Verdict(
            logging.WARNING,
            "%s has not reacted for %.0f s, and cannot tell where it stands: the process is halted,"
            " or something holds it that does not let go of Python's lock",
            (worker, lasted),
        )
    return Verdict(
        logging.WARNING,
        "%s has not reacted for %.0f s: something holds its processor, and nothing else runs in it"
        " meanwhile; %s",
        (worker, lasted, worker.place()),
    )
