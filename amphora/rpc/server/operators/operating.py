"""The commands about a worker's requests: what runs, ending it, and taking no more for a while."""

from __future__ import annotations

from typing import Protocol

from amphora.errors import printable
from amphora.net import clock
from amphora.net.log import Log
from amphora.rpc.contract import streams
from amphora.rpc.contract.reports import (
    Active,
    Activity,
    CancelledRequest,
    Pausing,
    Purged,
    Stack,
)
from amphora.rpc.contract.types.signatures import Handler
from amphora.rpc.server.operators.dead import Dead
from amphora.rpc.server.operators.management import asker, identity
from amphora.rpc.server.operators.stacks import all_stacks
from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.underway import Underway
from amphora.rpc.server.requests.handling import RequestHandling
from amphora.rpc.server.settings import Settings

audit = Log("amphora.audit")

# How many requests in progress are told at most.
MOST_TOLD = 1000


class Operated(Protocol):
    """What these commands need of a worker."""

    worker_id: str
    paused: bool
    underway: Underway

    def pause(self, paused: bool) -> None:
        """Take no requests for a while, or take them again."""


class Operating:
    """The commands about one worker's requests.

    Attributes:
        always: the commands that every server has.
        switched: the commands that a server has only if it was made with the word.
    """

    def __init__(self, worker: Operated, settings: Settings, requests: RequestHandling) -> None:
        self._worker = worker
        self._requests = requests
        self._dead = Dead(settings.session, settings.namespace, settings.functions)
        self.always: tuple[Handler, ...] = (self.active,)
        self.switched: dict[str, tuple[Handler, ...]] = {
            "pause": (self.pause, self.resume),
            "cancel": (self.cancel,),
            "threads": (self.threads,),
            "retry": (self.retry,),
            "purge": (self.drop, self.purge),
        }

    def active(self) -> Activity:
        """Return the requests in progress: function, since when, caller, id."""
        now = clock.monotonic()
        found = sorted(self._requests, key=lambda request: request.arrived)
        requests = [_told(request, now) for request in found[:MOST_TOLD]]
        return {**identity(self._worker.worker_id), "count": len(found), "requests": requests}

    def cancel(self, request_id: str) -> list[CancelledRequest]:
        """Cancel the requests in progress with an id, and tell their callers."""
        found = [request for request in self._requests if request.request_id == request_id]
        if found:
            self._note("cancel", request_id)
        cancelled: list[CancelledRequest] = []
        for request in found:
            call = request.call
            endable = call is not None and (not call.begun or call.to_cancel().can_end)
            request.revoked = True
            request.cancel()
            name = "" if call is None else call.function
            cancelled.append({"function": name, "ended": endable})
        return cancelled

    def pause(self) -> Pausing:
        """Take no more requests; those in progress go on."""
        self._note("pause")
        self._worker.pause(True)
        return self._pausing()

    def resume(self) -> Pausing:
        """Take requests again."""
        self._note("resume")
        self._worker.pause(False)
        return self._pausing()

    def threads(self) -> list[Stack]:
        """Return where all threads and greenlets of the process are."""
        self._note("threads")
        return all_stacks()

    def retry(self, ids: list[str] | None = None) -> int:
        """Try requests again that were given up, all of them without `ids`; return how many."""
        self._note("retry", *(ids or ["all"]))
        return self._dead.retry(ids)

    def drop(self, ids: list[str] | None = None) -> int:
        """Drop requests that were given up, all of them without `ids`; return how many."""
        self._note("drop", *(ids or ["all"]))
        return self._dead.drop(ids)

    def purge(self, label: str | None = None) -> Purged:
        """Drop what waits in the queue of all workers, or of a label."""
        self._note("purge", *([] if label is None else [label]))
        queue, count = self._dead.purge(label)
        return {"queue": queue, "purged": count}

    def _pausing(self) -> Pausing:
        state = "paused" if self._worker.paused else "serving"
        return {
            **identity(self._worker.worker_id),
            "state": state,
            "in_flight": len(self._worker.underway),
        }

    def _note(self, command: str, *arguments: str) -> None:
        words = " ".join((command, *(printable(each, 100) for each in arguments[:20])))
        audit.warning("%s: %s by %s", self._worker.worker_id, words, asker())


def _told(request: RequestInProgress, now: float) -> Active:
    call, properties = request.call, request.properties
    return {
        "id": request.request_id,
        "function": "" if call is None else call.function,
        "seconds": round(now - request.arrived, 6),
        "queue_wait": None if call is None else call.queue_wait,
        "user": properties.user_id,
        "client": properties.reply_to or "",
        "redelivered": request.redelivered,
        "begun": call is not None and call.begun,
        "stream": properties.message_type == streams.STREAM,
    }
