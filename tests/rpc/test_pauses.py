"""How long an ignored request rests."""

from __future__ import annotations

from amphora.rpc.server.requests.pauses import LONGEST_PAUSE, REMEMBERED, Pauses


def test_a_request_does_not_rest_at_first_and_then_longer_each_time() -> None:
    pauses = Pauses()
    rested = [pauses.next("request") for _ in range(12)]
    assert rested[:4] == [0.0, 0.01, 0.02, 0.04]
    assert rested == sorted(rested)
    assert rested[-1] == LONGEST_PAUSE
    assert pauses.next("another") == 0.0


def test_a_request_without_an_id_rests_longest() -> None:
    assert Pauses().next("") == LONGEST_PAUSE


def test_only_the_last_requests_are_remembered() -> None:
    pauses = Pauses()
    pauses.next("first")
    for number in range(REMEMBERED):
        pauses.next(str(number))
    assert len(pauses) == REMEMBERED
    assert pauses.next("first") == 0.0
    assert pauses.next(str(REMEMBERED - 1)) == 0.01
