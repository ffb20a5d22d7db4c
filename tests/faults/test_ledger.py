"""The books themselves: what is held against a case that broke a promise."""

from __future__ import annotations

from typing import Any

from tests.faults.ledger import SLACK, Allowed, Ended, Ledger, broken_promises


def books(*ends: tuple[float, str, bool | None], client: str = "client0") -> Ledger:
    """Return the books of a client's calls, each of which began a second before it ended."""
    ledger = Ledger(timeout=10.0)
    add(ledger, client, *ends)
    return ledger


def add(ledger: Ledger, client: str, *ends: tuple[float, str, bool | None]) -> None:
    for number, (at, outcome, executed) in enumerate(ends):
        call_id = f"{client}-{number}"
        ledger.begun[call_id] = at - 1.0
        ledger.ended[call_id] = Ended(at, outcome, executed)
        if outcome == "ok":
            ledger.executions[call_id] = [at]


def broken(ledger: Ledger, **allowed: Any) -> list[str]:
    return broken_promises(ledger, Allowed(**allowed), measured=True)


def test_the_longest_time_without_an_answer_is_each_clients_own() -> None:
    ledger = books((1.0, "ok", None), (2.0, "ok", None), (7.0, "ok", None), (8.0, "ok", None))
    add(ledger, "client1", (1.0, "ok", None), (4.0, "ok", None), (8.0, "ok", None))
    assert ledger.silences() == {"client0": 5.0, "client1": 4.0}
    assert broken(ledger, silence=5.0) == []
    assert broken(ledger, silence=4.5) == ["client0 had no answer for 5.0 s (I8)"]


def test_a_client_that_never_gets_an_answer_again_is_silent_to_its_end() -> None:
    ledger = books((1.0, "ok", None), (2.0, "NoResult", None), (31.0, "NoResult", None))
    assert ledger.silences() == {"client0": 30.0}
    assert books((1.0, "NoResult", None)).silences() == {"client0": float("inf")}


def test_a_client_that_was_killed_is_not_waited_for() -> None:
    ledger = books((1.0, "ok", None), (31.0, "ok", None))
    ledger.forsaken.append("client0-")
    assert ledger.silences() == {}


def test_a_share_of_the_calls_may_fail_and_not_more() -> None:
    ledger = books(*[(1.0, "ok", None)] * 98, *[(1.0, "NoResult", None)] * 2)
    assert broken(ledger, failures=0.02) == []
    assert broken(ledger, errors=("NoResult",)) == []
    [promise] = broken(ledger, failures=0.01)
    assert promise.startswith("2 calls ended with NoResult")


def test_what_is_no_error_of_amphoras_may_not_happen_once() -> None:
    ledger = books(*[(1.0, "ok", None)] * 99, (1.0, "unexpected KeyError", None))
    [promise] = broken(ledger, failures=0.5)
    assert promise.startswith("1 calls ended with unexpected KeyError")


def test_a_call_that_ran_and_is_said_not_to_have_run_is_untrue() -> None:
    ledger = books((1.0, "ok", None), (2.0, "Rejected", False))
    assert broken(ledger, failures=1.0) == []
    ledger.executions["client0-1"] = [1.5]
    [promise] = broken(ledger, failures=1.0)
    assert promise.startswith("client0-1 was executed, and Rejected says that it was not")


def slow_books(seconds: float) -> Ledger:
    """Return books of calls that end `seconds` late after an outage with a busy processor."""
    ledger = books(*[(5.0 + number / 10, "ok", None) for number in range(20)])
    ledger.faults.append((8.0, "the broker went"))
    ledger.back.append((9.0, 1.0))
    add(ledger, "client1", *[(11.0 + seconds + number / 100, "ok", None) for number in range(20)])
    for number in range(20):
        ledger.begun[f"client1-{number}"] = 11.1
    ledger.timeout = 0.5
    ledger.told.append({"cpu_while_down": 0.5})
    return ledger


def test_promises_of_time_are_held_where_nothing_else_takes_the_processor() -> None:
    numbers = {promise.rpartition(" ")[2] for promise in broken(slow_books(3.0), silence=0.05)}
    assert numbers == {"(I1)", "(I6)", "(I8)", "(I10)"}


def test_promises_of_time_are_held_loosely_in_every_test_run() -> None:
    allowed = Allowed(silence=1.0)
    assert broken_promises(slow_books(3.0), allowed, measured=False) == []
    promises = broken_promises(slow_books(3.0 * SLACK), allowed, measured=False)
    assert {promise.rpartition(" ")[2] for promise in promises} == {"(I1)", "(I8)"}
