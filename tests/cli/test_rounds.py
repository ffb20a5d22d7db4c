"""Questions to workers that the broker does not confirm in time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from amphora import NoResult
from amphora.cli import lookup
from amphora.cli.failures import Exit
from amphora.cli.replies import Replies
from amphora.rpc.client.offers import offers_of_all
from amphora.rpc.client.waiting.gather import Reply
from amphora.transport.links.topology import Found, Presence
from tests.support.clock import Clock

ANSWER = Reply("loud", {"namespace": "math", "functions": []}, None)


class Workers:
    """Two workers, of which one is silent, and a broker that confirms only some questions.

    `confirmed` tells which; the last of it holds for all that follow.
    """

    def __init__(self, *confirmed: bool) -> None:
        self._confirmed = list(confirmed)
        self.expected = 2
        self.missing = 1
        self.timed_out = True
        self.complete = False

    def __iter__(self) -> Iterator[Reply[Any]]:
        confirmed = self._confirmed.pop(0) if len(self._confirmed) > 1 else self._confirmed[0]
        gevent.sleep(0.01)
        if not confirmed:
            raise NoResult("the request was sent but not confirmed")
        yield ANSWER

    def ask(self, *words: Any, **options: Any) -> Any:
        """Return the answers, which come when they are iterated."""
        return self

    def count_workers(self, namespace: str) -> int:
        """Return how many there are."""
        return 2


def replies(workers: Workers) -> Replies:
    session: Any = SimpleNamespace()
    return Replies(session, "math", None, workers.ask, 1.0, json=True, again=True)


SOME = pytest.mark.parametrize("confirmed", [(True, False), (False, True), (False, True, False)])


@SOME
def test_a_question_that_is_not_confirmed_is_asked_again(
    capsys: pytest.CaptureFixture[str], confirmed: tuple[bool, ...]
) -> None:
    found = replies(Workers(*confirmed))
    assert found.good == [ANSWER]
    assert found.exit_code == Exit.NO_ANSWER
    out, err = capsys.readouterr()
    assert "1 of 2 workers of math did not answer within 1 s" in err
    assert [json.loads(line)["worker"] for line in out.splitlines()] == ["loud"]


@SOME
def test_services_are_asked_again_as_well(confirmed: tuple[bool, ...]) -> None:
    for thorough in (False, True):
        workers: Any = Workers(*confirmed)
        found, silent = offers_of_all(workers, 1.0, thorough=thorough)
        assert found == {"math": {"loud": ANSWER.value}}
        assert silent == {"math": 1}


def test_services_that_answer_late_are_found_beside_those_that_answer_at_once() -> None:
    late = Reply("late", {"namespace": "shop", "functions": []}, None)
    rounds = [[ANSWER], [ANSWER, late], [ANSWER, late]]

    def ask(*words: Any, **options: Any) -> Any:
        return rounds.pop(0)

    everybody: Any = SimpleNamespace(ask=ask, count_workers=lambda namespace: 1)
    found, silent = offers_of_all(everybody, 5.0, thorough=True)
    assert sorted(found) == ["math", "shop"]
    assert silent == {}
    assert rounds == []


def test_a_question_that_is_never_confirmed_is_an_error() -> None:
    with pytest.raises(NoResult, match="not confirmed"):
        replies(Workers(False))
    with pytest.raises(NoResult, match="not confirmed"):
        offers_of_all(Workers(False), 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [True, False])
def test_a_question_has_what_the_looks_before_it_have_left_of_the_time(
    again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("amphora.net.clock.monotonic", clock)
    asked: list[float] = []
    workers = Workers(True)
    workers.complete = True

    def ask(seconds: float) -> Any:
        asked.append(seconds)
        return workers

    def operate(look: Any, timeout: float) -> Found:
        clock.now += 0.2
        return Found(Presence.THERE, consumers=2)

    session: Any = SimpleNamespace(operate=operate)
    with lookup.within(0.5):
        lookup.find_queue(session, "rpc_math_request")
        Replies(session, "math", None, ask, 0.5, json=True, again=again)
    # Whoever does not ask again counts the workers first.
    assert asked[0] == pytest.approx(0.3 if again else 0.1)
