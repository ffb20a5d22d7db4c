"""The answers of several workers to one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from amphora.cli.advice import missing_namespace
from amphora.cli.failures import Exit, Failure, as_json, exit_code_of, sentence_of
from amphora.cli.lookup import LEAST, count_workers, find_queue, rest_of
from amphora.cli.output import counted, show_error, show_json
from amphora.errors import NoResult, WrongRequest, WrongResult
from amphora.net.deadline import Deadline
from amphora.rpc.client.waiting.gather import Gathered, Reply
from amphora.rpc.contract import naming
from amphora.transport.session import Session

# Seconds to wait for answers before a question is repeated; then twice as long, and so on.
FIRST_ROUND = 0.5
PAUSE = 0.05
# Seconds for which the only worker may be gone while it is replaced.
COMEBACK = 2.0


class Replies:
    """Collect the answers of all workers, until the timeout of the request.

    Workers come and go, as in a rolling restart.  One that came while the request was on its way
    does not get it, and one that went was counted but does not answer.  So a question that changes
    nothing is repeated until all present workers have answered.  Switches greenlets.

    Args:
        worker: the only worker that was asked; None if all were.
        ask: sends the request, and waits for answers for the given seconds.
        timeout: seconds for all of it, of which connecting and earlier looks have had their part.
        again: whether asking twice does no harm.
        if_refused: the hint for a command that a worker does not have.
        json: print each answer as it comes, as one line: {"worker": ..., "result": ...}.
        check: raises WrongResult for an answer that cannot be understood.

    Attributes:
        good: the answers with a result, by worker id.
        exit_code: the exit code of the command, if nothing else happens.

    Raises:
        Failure: there is no worker.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        worker: str | None,
        ask: Callable[[float], Gathered],
        timeout: float,
        json: bool,
        *,
        again: bool = False,
        if_refused: str = "",
        check: Callable[[Any], object] | None = None,
    ) -> None:
        self.exit_code = Exit.DONE
        self._session = session
        self._namespace = namespace
        self._worker = worker
        self._ask = ask
        self._json = json
        self._check = check
        self._found: dict[str, Reply] = {}
        there = 0
        if again and worker is None:
            gathered = self._ask_again_and_again(rest_of(timeout))
        else:
            if worker is None:
                there = count_workers(session, namespace)
            self._found, gathered = self._gather(rest_of(timeout))
        replies = list(self._found.values())
        self.good = sorted(
            (reply for reply in replies if reply.error is None), key=lambda reply: reply.worker
        )
        # If all workers ignore the request, a lack of answers is not a failure.
        if not replies and not (gathered.complete and gathered.expected):
            if gathered.missing and not gathered.timed_out:
                raise Failure(Exit.NO_ANSWER, incomplete(namespace, gathered, timeout))
            raise nobody(session, namespace, worker, timeout)
        for reply in replies:
            if reply.error is not None:
                self.exit_code = exit_code_of(reply.error)
                if not json:
                    hint = if_refused if isinstance(reply.error, WrongRequest) else ""
                    show_error(f"{reply.worker}: {sentence_of(reply.error)}{hint}")
        # Workers that came after the others had been told to stop were not expected to answer.
        if not gathered.complete and not 0 < there <= len(replies):
            self.exit_code = Exit.NO_ANSWER
            show_error(incomplete(namespace, gathered, timeout))

    def _ask_again_and_again(self, timeout: float) -> Gathered:
        """Ask until all present workers have answered; return the last answers."""
        deadline, comeback = Deadline(timeout), Deadline(min(COMEBACK, timeout))
        patience = FIRST_ROUND
        gathered = None
        while True:
            left = deadline.left() or 0.0
            last = patience >= left
            try:
                replies, gathered = self._gather(max(min(patience, left), LEAST))
            except NoResult:
                # The time was too short for the broker to take the question.  The next one may have
                # more time, and earlier answers are known.
                if last and gathered is None:
                    raise
            else:
                nobody = not replies and not gathered.expected
                if nobody and not comeback.passed and self._was_there():
                    gevent.sleep(PAUSE)
                    continue
                if gathered.complete:
                    self._found = replies
                    return gathered
            if gathered is not None and (last or deadline.passed):
                return gathered
            gevent.sleep(PAUSE)
            patience *= 2

    def _was_there(self) -> bool:
        """Return whether there was a worker in the last minutes."""
        return find_queue(self._session, naming.roll_call_queue(self._namespace)) is not None

    def _gather(self, timeout: float) -> tuple[dict[str, Reply], Gathered]:
        gathered = self._ask(timeout)
        replies = {}
        for reply in map(self._checked, gathered):
            if self._json and reply.worker not in self._found:
                show_json(reply_as_json(reply))
            replies[reply.worker] = self._found[reply.worker] = reply
        return replies, gathered

    def _checked(self, reply: Reply) -> Reply:
        if self._check is None or reply.error is not None:
            return reply
        try:
            self._check(reply.value)
        except WrongResult as error:
            return Reply(reply.worker, reply.value, error)
        return reply


def reply_as_json(reply: Reply) -> dict[str, Any]:
    """Return an answer in the shape that --json prints."""
    if reply.error is not None:
        return {"worker": reply.worker, **as_json(reply.error)}
    return {"worker": reply.worker, "result": reply.value}


def incomplete(namespace: str, gathered: Gathered, timeout: float) -> str:
    """Return a sentence about the workers that have not answered."""
    if not gathered.missing:
        return f"it is not known whether all workers of {namespace} have answered"
    which = f"{gathered.missing} of {gathered.expected} workers of {namespace}"
    if gathered.timed_out:
        return f"{which} did not answer within {timeout:g} s"
    return f"{which} did not answer: they are gone, or their queues were unbound"


def nobody(session: Session, namespace: str, worker: str | None, timeout: float) -> Failure:
    """Return the failure for a command that no worker has answered.  Switches greenlets."""
    if worker is not None:
        if find_queue(session, naming.management_queue(worker)) is None:
            return Failure(Exit.NOBODY, f"there is no worker {worker!r}")
        return Failure(Exit.NO_ANSWER, f"{worker} did not answer within {timeout:g} s")
    there = count_workers(session, namespace)
    if there:
        return Failure(
            Exit.NO_ANSWER,
            f"{namespace} has {counted(there, 'worker')}, but no answer came within {timeout:g} s",
        )
    requests = find_queue(session, naming.request_queue(namespace))
    roll_call = find_queue(session, naming.roll_call_queue(namespace))
    if requests is None and roll_call is None:
        return missing_namespace(session, namespace)
    if roll_call is not None and roll_call.away:
        return Failure(
            Exit.NO_ANSWER,
            f"no answer came within {timeout:g} s, and the workers of {namespace} cannot be"
            " counted: a node of the broker is away",
        )
    if requests is not None and requests.consumers:
        return Failure(
            Exit.NOBODY, f"the servers of {namespace} run an older amphora, which has no management"
        )
    return Failure(Exit.NOBODY, f"no worker of {namespace} is running")
