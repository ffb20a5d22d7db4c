"""What every test is held to: a run of made-up tests, each of which breaks one rule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from tests.conftest import longest_first

ROOT = Path(__file__).parents[1]

RULE_BREAKERS = """
import warnings

import gevent
import gevent.socket
import pytest
from gevent.event import Event

import tests.support.leaks
import tests.support.rabbitmq

tests.support.leaks.WIND_DOWN = 0.2
tests.support.rabbitmq.SERVER_PATHS = ()
kept = []


def test_good():
    with gevent.socket.socket():
        gevent.spawn(gevent.sleep, 0.01)


def test_leaves_a_greenlet():
    gevent.spawn(Event().wait)
    gevent.sleep(0)
    kept.append(gevent.spawn(Event().wait))


def test_leaves_a_socket():
    kept.append(gevent.socket.socket())


@pytest.mark.time_limit(0.2)
def test_waits_for_ever():
    Event().wait()


def test_warns():
    warnings.warn("old", DeprecationWarning)


def test_loses_a_greenlet_of_amphora():
    code = compile("def keep(): return {}['x']", tests.support.leaks.PACKAGE / "link.py", "exec")
    exec(code, globals())
    gevent.spawn(keep)


def test_spawns_what_fails_as_it_may():
    with pytest.raises(KeyError):
        gevent.spawn(lambda: {}["x"]).get()


def test_needs_rabbitmq(rabbit):
    pass
"""


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What pytest prints about the tests above, on a machine without RabbitMQ."""
    (tmp_path / "test_rules.py").write_text(RULE_BREAKERS)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AMPHORA_TEST_URL", raising=False)
    monkeypatch.delenv("AMPHORA_TEST_RABBITMQ", raising=False)
    monkeypatch.delenv("AMPHORA_TEST_BRIEFLY", raising=False)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.stdout


def test_each_broken_rule_is_named_and_only_good_tests_pass(outcome: str) -> None:
    assert "the test left behind:\n  <Greenlet" in outcome
    assert "the test left behind:\n  socket" in outcome
    assert "a greenlet died unseen:\n  <Greenlet" in outcome
    assert "died of KeyError: 'x'" in outcome
    assert "TimeoutError: the test was still waiting after 0.2 s" in outcome
    assert "DeprecationWarning: old" in outcome
    assert "RabbitMQ is not installed" in outcome
    # Three pass as tests, and fail in the check at their end.
    assert "= 2 failed, 5 passed, 4 errors in" in outcome


class Made:
    """A test of a name that may take so many seconds."""

    def __init__(self, name: str, seconds: float | None = None) -> None:
        self.name = name
        self._limit = seconds and pytest.mark.time_limit(seconds).mark

    def get_closest_marker(self, _: str) -> Any:
        return self._limit


@pytest.mark.parametrize(
    ("workers", "order"),
    [(1, "ZXYabcde"), (2, "ZYab Xcde"), (3, "Za Xbc Yde"), (9, "Z X Y a b c d e")],
)
def test_long_tests_begin_the_parts_of_all_workers(workers: int, order: str) -> None:
    tests: list[Any] = [Made("a"), Made("X", 200), Made("b"), Made("Y", 190), Made("c", 60)]
    tests += [Made("d", 0.2), Made("Z", 240), Made("e")]
    ordered = longest_first(tests, workers)
    assert [test.name for test in ordered] == list(order.replace(" ", ""))
