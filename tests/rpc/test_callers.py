"""Who calls what, and how often."""

from __future__ import annotations

from amphora.rpc.server.callers import KEPT, TOLD, Callers


def test_each_client_and_function_is_counted_and_most_come_first() -> None:
    callers = Callers()
    for user, client, function in [
        ("billing", "1", "add"),
        (None, "2", "add"),
        (None, "2", "add"),
        (None, "2", "sub"),
        (None, None, "add"),
    ]:
        callers.count(user, client, function)
    first, *others = callers.summary()
    assert first == {"user": None, "client": "2", "function": "add", "calls": 2}
    assert {"user": "billing", "client": "1", "function": "add", "calls": 1} in others
    assert {"user": None, "client": "", "function": "add", "calls": 1} in others
    assert len(others) == 3


def test_of_many_that_come_once_nothing_stays_but_those_that_call_most() -> None:
    callers = Callers()
    for number in range(20 * KEPT):
        callers.count(None, f"once-{number}", "add")
        callers.count(None, "often", "add")
    assert len(callers._counts) <= 2 * KEPT
    told = callers.summary()
    assert len(told) == TOLD
    assert (told[0]["client"], told[0]["calls"]) == ("often", 20 * KEPT)
