"""Workers that do not come on: when that is worth a word, and when it is enough."""

from __future__ import annotations

import logging
from typing import NamedTuple

from amphora.cli.serving.options import PoolOptions
from amphora.cli.serving.process import Worker


class Verdict(NamedTuple):
    """What is to be said of a worker, and done about it.

    Attributes:
        level, text, values: the line for the log.
        ends: the worker is to be ended.
        unloadable: because its program was not loaded in time.
    """

    level: int
    text: str
    values: tuple[object, ...]
    ends: bool = False
    unloadable: bool = False


def verdict(worker: Worker, now: float, options: PoolOptions, serving: int) -> Verdict | None:
    """Return what is to be said of a worker, None if nothing is.

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
    return Verdict(
        logging.WARNING,
        "%s has not reacted for %.0f s: something holds its processor, and nothing else runs in it"
        " meanwhile; %s",
        (worker, lasted, worker.place()),
    )
