"""The books of one case: what was asked for, what was done, and whether the promises were kept.

Callers write down the beginning and the end of each call, handlers each execution, by the id of
the call.  The two are compared when all is over.  The words are those of Jepsen's checkers:
attempted, ok, lost, duplicated, unexpected.

Some promises are of time: a call ends soon after its deadline, the first answer comes soon after an
outage.  The whole catalogue has the machine to itself and holds them as they are.  In every test
run other tests take the processor, so there they are held loosely, or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from tests.faults import WHOLE

# Seconds after its deadline at which a caller gives a call up as hung.
HUNG_AFTER = 8.0
# The seconds after its deadline in which a call has to end.
GRACE = 1.0
# How long the first answer may take when the broker is back.
RECOVERY = 2.0
# How the outcome of a call begins that ended with what is no error of amphora's.
UNEXPECTED = "unexpected "
# Below this nobody feels a difference, and a busy machine makes some; in seconds.
IMPERCEPTIBLE = 0.1
# How many times the seconds that are promised may pass where other tests run beside the case.
SLACK = 5.0


def answer_to(call_id: str) -> str:
    """Return the one right answer to a call."""
    return hashlib.sha256(call_id.encode()).hexdigest()[:16]


@dataclass
class Ended:
    """How a call ended: "ok", "wrong", "hung" or an error's class; and what the error says."""

    at: float
    outcome: str
    executed: bool | None = None
    text: str = ""


@dataclass
class Ledger:
    """The books of one case.

    Attributes:
        timeout: seconds that a call may take.
        begun: when each call began, by its id.
        ended: how each call ended.
        executions: the times at which each call was executed.
        faults: what was injected, and when.
        back: when the broker could be reached again, and how long it could not.
        forsaken: prefixes of the ids of callers that were killed; nobody heard their ends.
        told: what the processes said of themselves when they ended.
        remains: what was left on the broker or in a process that should not have been.
        noise: lines of output that no case may cause.
        figures: what was measured besides.
    """

    timeout: float = 30.0
    begun: dict[str, float] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    executions: dict[str, list[float]] = field(default_factory=dict)
    faults: list[tuple[float, str]] = field(default_factory=list)
    back: list[tuple[float, float]] = field(default_factory=list)
    forsaken: list[str] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    figures: dict[str, float | str] = field(default_factory=dict)

    # -- writing ----------------------------------------------------------------------------------

    def read_journal(self, path: Path) -> None:
        """Take over what a client has written down."""
        for line in _lines(path):
            what, call_id, at, *rest = line.split(" ", 3)
            if what == "b":
                self.begun[call_id] = float(at)
            else:
                outcome, executed, text = json.loads(rest[0])
                self.ended[call_id] = Ended(float(at), outcome, executed, text)

    def read_executions(self, path: Path) -> None:
        """Take over what a server's handlers have written down."""
        for line in _lines(path):
            call_id, at, _ = line.split()
            self.executions.setdefault(call_id, []).append(float(at))

    def fault(self, what: str) -> None:
        """Write down that a fault is being injected."""
        self.faults.append((monotonic(), what))

    # -- adding up --------------------------------------------------------------------------------

    def heard_of(self, call_id: str) -> bool:
        """Return whether somebody was there for the end of a call."""
        return not call_id.startswith(tuple(self.forsaken))

    def of(self, outcome: str) -> list[str]:
        """Return the ids of the calls that ended in one way."""
        return [call_id for call_id, end in self.ended.items() if end.outcome == outcome]

    @property
    def hung(self) -> list[str]:
        """Calls that did not end, or long after their deadline."""
        endless = [i for i in self.begun if i not in self.ended and self.heard_of(i)]
        return self.of("hung") + endless

    @property
    def lost(self) -> list[str]:
        """Calls that were said to be taken or done and were not executed."""
        said = [i for i, end in self.ended.items() if end.outcome == "ok" or end.executed is True]
        return [i for i in said if i not in self.executions]

    @property
    def untrue(self) -> list[str]:
        """Calls of which it was said that they were not executed, and they were."""
        said = [i for i, end in self.ended.items() if end.executed is False]
        return [i for i in said if i in self.executions]

    @property
    def duplicated(self) -> int:
        """How many executions there were besides the first of each call."""
        return sum(len(times) - 1 for times in self.executions.values())

    @property
    def unexpected(self) -> int:
        """How many executions and answers there were that no call asked for, or not any more."""
        strange = [i for i in self.executions if i not in self.begun]
        answers = sum(told.get("unexpected_responses", 0) for told in self.told)
        return len(strange) + int(answers)

    @property
    def errors(self) -> Counter[str]:
        """How many calls ended with each class of error."""
        good = ("ok", "wrong", "hung")
        return Counter(end.outcome for end in self.ended.values() if end.outcome not in good)

    @property
    def first_answers(self) -> list[float]:
        """How many seconds the first answer took, each time the broker was back."""
        answered = sorted(self.ended[i].at for i in self.of("ok"))
        return [
            next((at - back for at in answered if at >= back), float("inf"))
            for back, _ in self.back
        ]

    def silences(self) -> dict[str, float]:
        """Return, for each client, the longest time without an answer to it, in seconds.

        It is counted from the first answer to the end of the last call, so a client that never gets
        an answer again is silent until then.  Clients that were killed are left out.
        """
        answers: dict[str, list[float]] = {}
        ends: dict[str, float] = {}
        for call_id, end in self.ended.items():
            if self.heard_of(call_id):
                client = call_id.rpartition("-")[0]
                ends[client] = max(end.at, ends.get(client, 0.0))
                if end.outcome == "ok":
                    answers.setdefault(client, []).append(end.at)
        return {
            client: longest_pause([*answers[client], last]) if client in answers else float("inf")
            for client, last in ends.items()
        }

    def typical(self, begin: float, end: float) -> float | None:
        """Return the median of the seconds that good calls took which began within a time."""
        took = [
            self.ended[i].at - self.begun[i] for i in self.of("ok") if begin < self.begun[i] < end
        ]
        return median(took) if len(took) >= 20 else None

    def summary(self) -> dict[str, Any]:
        """Return the sums."""
        return {
            "attempted": len(self.begun),
            "ok": len(self.of("ok")),
            "errors": dict(self.errors),
            "hung": len(self.hung),
            "wrong": len(self.of("wrong")),
            "lost": len(self.lost),
            "duplicated": self.duplicated,
            "unexpected": self.unexpected,
            "faults": len(self.faults),
            **self.figures,
        }


@dataclass
class Allowed:
    """What a case may cost besides what none may.

    Attributes:
        duplicates: how many executions there may be besides the first of each call.
        errors: the classes of the errors that calls may end with.
        failures: the share of the calls that may end with an error of any other class.
        recovery: the seconds to the first answer when the broker is back; None does not look.
        silence: the seconds that a client may be without an answer; None does not look.
        remains: whether something may be left behind.
        noise: whether tracebacks may be printed, as of handlers that raise.
        slower: whether calls may stay slower than before.
    """

    duplicates: int = 0
    errors: tuple[str, ...] = ()
    failures: float = 0.0
    recovery: float | None = RECOVERY
    silence: float | None = None
    remains: bool = False
    noise: bool = False
    slower: bool = False


def broken_promises(ledger: Ledger, allowed: Allowed, *, measured: bool = WHOLE) -> list[str]:
    """Return a line for each invariant that a case has broken, by the invariant's number.

    Args:
        ledger: the books of the case.
        allowed: what the case may cost.
        measured: whether the case had the machine to itself, so that its times mean something.
    """
    broken = [*_broken(ledger, allowed), *_late(ledger, allowed, 1.0 if measured else SLACK)]
    if measured:
        broken += [*_busy(ledger), *_slower(ledger, allowed)]
    return [f"{promise} (I{number})" for number, promise in sorted(broken, key=itemgetter(0))]


def _broken(ledger: Ledger, allowed: Allowed) -> Iterator[tuple[int, str]]:
    if not ledger.begun:
        yield 1, "nothing was called"
    for call_id in ledger.hung[:5]:
        yield 1, f"{call_id} never ended"
    for call_id in ledger.of("wrong")[:5]:
        yield 2, f"{call_id} got a wrong answer"
    for call_id in ledger.lost[:5]:
        yield 3, f"{call_id} is lost"
    errors = {name: count for name, count in ledger.errors.items() if name not in allowed.errors}
    too_many = sum(errors.values()) > allowed.failures * len(ledger.begun)
    for outcome, count in errors.items():
        if too_many or outcome.startswith(UNEXPECTED):
            one = ledger.ended[ledger.of(outcome)[0]]
            yield 3, f"{count} calls ended with {outcome}, such as: {one.text}"
    for call_id in ledger.untrue[:5]:
        end = ledger.ended[call_id]
        yield 4, f"{call_id} was executed, and {end.outcome} says that it was not: {end.text}"
    if ledger.duplicated > allowed.duplicates:
        yield 5, f"{ledger.duplicated} executions too many, and {allowed.duplicates} are allowed"
    if not allowed.remains:
        for told in ledger.told:
            for leak in told.get("leaks", ()):
                yield 7, f"left behind: {leak}"
            if told.get("pending"):
                yield 7, f"{told['pending']} calls are still pending"
        for remain in ledger.remains:
            yield 7, f"left behind: {remain}"
    if not allowed.noise:
        for line in ledger.noise[:5]:
            yield 9, f"printed: {line}"


def _late(ledger: Ledger, allowed: Allowed, slack: float) -> Iterator[tuple[int, str]]:
    for call_id, end in ledger.ended.items():
        late = end.at - ledger.begun[call_id] - ledger.timeout
        if late > slack * GRACE:
            yield 1, f"{call_id} ended {late:.1f} s after its deadline"
    if allowed.recovery is not None:
        for (_, away), took in zip(ledger.back, ledger.first_answers, strict=True):
            # The pauses between attempts are an eighth of the time that was tried for.
            limit = max(allowed.recovery, min(away / 8, 5.0) + 1.0)
            if took > slack * limit:
                yield 8, f"the first answer took {took:.1f} s after {away:.1f} s without a broker"
    if allowed.silence is not None:
        for client, silence in ledger.silences().items():
            if silence > slack * allowed.silence:
                yield 8, f"{client} had no answer for {silence:.1f} s"


def _busy(ledger: Ledger) -> Iterator[tuple[int, str]]:
    for told in ledger.told:
        if told.get("cpu_while_down", 0.0) > 0.03:
            yield 6, f"{told['cpu_while_down']:.0%} of a processor while the broker was away"


def _slower(ledger: Ledger, allowed: Allowed) -> Iterator[tuple[int, str]]:
    if allowed.slower or not ledger.faults or not ledger.back:
        return
    before = ledger.typical(0.0, ledger.faults[0][0])
    after = ledger.typical(ledger.back[-1][0] + 2.0, float("inf"))
    if before is not None and after is not None:
        ledger.figures["ms before"] = round(before * 1000, 1)
        ledger.figures["ms after"] = round(after * 1000, 1)
        if after > max(2 * before, IMPERCEPTIBLE):
            yield 10, f"calls take {after * 1000:.0f} ms and took {before * 1000:.0f} ms before"


def longest_pause(times: list[float]) -> float:
    """Return the longest time between one of several times and the next."""
    ordered = sorted(times)
    return max((after - before for before, after in pairwise(ordered)), default=0.0)


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a file; a process that was killed may have begun one more."""
    if not path.exists():
        return []
    return path.read_text().split("\n")[:-1]
