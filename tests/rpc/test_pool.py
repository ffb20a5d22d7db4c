"""The greenlets that run handlers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.local import local

from amphora.rpc.server.progress.in_progress import RequestInProgress
from amphora.rpc.server.progress.underway import Underway
from amphora.rpc.server.requests import pool
from amphora.rpc.server.requests.pool import HandlerPool
from tests.support.leaks import Baseline

LONG = 20.0
LIMIT = 2

setting: ContextVar[str] = ContextVar("setting", default="unset")


class Handling:
    """A pool whose handler does what the test has put into the request's place."""

    def __init__(self) -> None:
        self.underway = Underway()
        self.told: list[bool] = []
        self.pool = HandlerPool(
            lambda request: request(),  # type: ignore[operator]
            self.underway,
            LIMIT,
            self.told.append,
        )

    def submit(self, what: Any) -> None:
        request: RequestInProgress = what
        self.pool.submit(request)


@pytest.fixture
def handling() -> Iterator[Handling]:
    baseline = Baseline()
    handling = Handling()
    yield handling
    handling.pool.close()
    assert baseline.leaks() == []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The numbers of the greenlets that pools make, which go on for long."""
    made: list[object] = []

    class Counted(pool._Handler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(len(made))

    monkeypatch.setattr(pool, "_Handler", Counted)
    monkeypatch.setattr(pool, "LONGEST_TURN", LONG)
    return made


def test_a_request_is_in_progress_from_its_submission_to_its_end(handling: Handling) -> None:
    release, seen = Event(), []

    def handle() -> None:
        seen.append(gevent.getcurrent() in handling.underway)
        release.wait()

    handling.submit(handle)
    assert len(handling.underway) == 1
    assert seen == []  # nothing was switched
    gevent.sleep(0)
    assert seen == [True]
    assert gevent.getcurrent() not in handling.underway
    release.set()
    handling.underway.wait_handled(LONG)
    assert len(handling.underway) == 0


def test_what_a_handler_leaves_in_its_greenlet_and_context_reaches_no_other(
    handling: Handling,
) -> None:
    mine, seen = local(), []

    def leave() -> None:
        seen.append((getattr(mine, "value", "unset"), setting.get()))
        mine.value = "left"
        setting.set("left")

    for _ in range(3):
        handling.submit(leave)
        handling.underway.wait_handled(LONG)
    assert seen == [("unset", "unset")] * 3


locals_of_greenlets = local()


def leave_an_attribute() -> object:
    greenlet: Any = gevent.getcurrent()
    greenlet.left = True
    return None


def leave_a_value() -> object:
    locals_of_greenlets.value = "left"
    return None


def leave_a_link() -> object:
    greenlet: Any = gevent.getcurrent()
    greenlet.rawlink(lambda _: None)
    return None


@pytest.mark.parametrize(
    "leave",
    [
        lambda: gevent.Timeout.start_new(LONG),
        lambda: gevent.spawn_later(LONG, gevent.getcurrent().throw),
        lambda: weakref.ref(gevent.getcurrent()),
        gevent.getcurrent,
        leave_an_attribute,
        leave_a_value,
        leave_a_link,
        gevent.sleep,
    ],
)
def test_a_greenlet_goes_on_only_if_it_never_gave_way_and_is_as_good_as_new(
    handling: Handling, made: list[object], leave: Callable[[], object]
) -> None:
    begun: list[int] = []
    left: list[object] = []

    def handle() -> None:
        begun.append(len(made))

    def leaving() -> None:
        handle()
        left.append(leave())

    for what in (handle, handle, leaving, handle):
        handling.submit(what)
    handling.underway.wait_handled(LONG)
    # In a later turn.
    handling.submit(handle)
    assert len(handling.underway) == 1
    handling.underway.wait_handled(LONG)
    assert begun == [1, 1, 1, 2, 2]
    for each in left:
        if isinstance(each, gevent.Timeout):
            each.cancel()
        elif isinstance(each, gevent.Greenlet) and not each.dead:
            each.kill()


class Body:
    """What a request brings."""


def test_a_greenlet_that_waits_for_the_next_request_keeps_nothing_of_the_one_before(
    handling: Handling, made: list[object]
) -> None:
    kept: ContextVar[Body | None] = ContextVar("kept", default=None)
    bodies: list[weakref.ref[Body]] = []

    def handle() -> None:
        assert kept.get() is None
        body = Body()
        kept.set(body)
        bodies.append(weakref.ref(body))

    for _ in range(2):
        handling.submit(handle)
        handling.underway.wait_handled(LONG)
        assert len(handling.underway) == 0
        assert bodies.pop()() is None
    assert made == [0]


def test_a_greenlet_that_waits_for_a_request_may_be_killed_or_woken_by_mistake(
    handling: Handling, made: list[object]
) -> None:
    begun: list[int] = []

    def handle() -> None:
        begun.append(len(made))

    def submit() -> None:
        handling.submit(handle)
        handling.underway.wait_handled(LONG)

    submit()
    gevent.get_hub().loop.run_callback(handling.pool._idle.switch)
    gevent.sleep(0)
    submit()
    assert begun == [1, 1]
    handling.pool._idle.kill()
    assert handling.pool._idle is None
    submit()
    assert begun == [1, 1, 2]


def test_no_greenlet_waits_for_the_requests_of_a_pool_that_is_closed(handling: Handling) -> None:
    release = Event()
    ended: list[bool] = []

    def handle() -> None:
        ended.append(True)

    handling.submit(release.wait)
    gevent.sleep(0)
    handling.submit(handle)
    handling.pool.close()
    release.set()
    handling.underway.wait_handled(LONG)
    assert ended == [True]
    assert handling.pool._idle is None


def test_handlers_see_the_context_in_which_the_pool_was_made() -> None:
    token = setting.set("the server's")
    handling = Handling()
    setting.reset(token)
    seen: list[str] = []
    handling.submit(lambda: seen.append(setting.get()))
    handling.underway.wait_handled(LONG)
    assert seen == ["the server's"]
    handling.pool.close()


def test_a_handler_that_is_given_up_ends_and_one_that_has_not_begun_never_does(
    handling: Handling,
) -> None:
    ended: list[str] = []

    def handle() -> None:
        try:
            Event().wait()
        finally:
            ended.append("begun")

    handling.submit(handle)
    gevent.sleep(0)
    handling.submit(lambda: ended.append("not begun"))
    handling.pool.abort()
    assert len(handling.underway) == 0
    assert ended == []  # in their own greenlets
    gevent.sleep(0.001)
    assert ended == ["begun"]
    # The pool goes on.
    handling.submit(lambda: ended.append("next"))
    handling.underway.wait_handled(LONG)
    assert ended[1:] == ["next"]


def test_waiting_for_handlers_ends_at_the_timeout(handling: Handling) -> None:
    release = Event()
    handling.submit(release.wait)
    handling.underway.wait_handled(0.001)
    assert len(handling.underway) == 1
    release.set()
    handling.underway.wait_handled(None)
    assert len(handling.underway) == 0


def test_the_pool_counts_what_the_broker_does_not(handling: Handling) -> None:
    release = Event()
    begun: list[int] = []

    def handle() -> None:
        handling.pool.uncounted()
        begun.append(len(begun))
        release.wait()

    for _ in range(5):
        handling.submit(handle)
    # Until the first says so, the broker counts.
    gevent.sleep(0)
    assert handling.told == [False]
    release.set()
    handling.underway.wait_handled(LONG)
    assert begun == [0, 1, 2, 3, 4]
    assert handling.told == [False, True]
    begun.clear()
    release.clear()
    for _ in range(5):
        handling.submit(handle)
    gevent.sleep(0)
    assert begun == [0, 1]
    assert len(handling.underway) == 5
    assert handling.told == [False, True, False]
    release.set()
    handling.underway.wait_handled(LONG)
    assert begun == [0, 1, 2, 3, 4]
    assert handling.told == [False, True, False, True]


def test_what_waits_for_its_turn_is_given_up_with_the_rest(handling: Handling) -> None:
    begun: list[int] = []

    def handle() -> None:
        handling.pool.uncounted()
        begun.append(1)
        Event().wait()

    handling.submit(handle)
    gevent.sleep(0)
    for _ in range(3):
        handling.submit(handle)
    gevent.sleep(0)
    handling.pool.abort()
    gevent.sleep(0.001)
    assert len(begun) == LIMIT
    assert len(handling.underway) == 0
