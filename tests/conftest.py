"""Fixtures of every test: a broker, a namespace of its own, and what each test is held to."""

from __future__ import annotations

import gc
import os
import secrets
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import hypothesis
import pytest

from tests.support.browser import find_browser
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.leaks import Baseline, Crashes, describe_greenlet, running_greenlets
from tests.support.patience import be_patient
from tests.support.postgres import PostgresServer, find_programs
from tests.support.rabbitmq import (
    ExternalBroker,
    RabbitNode,
    RabbitNotInstalled,
    find_installation,
)
from tests.support.slowness import tell_once

EXTERNAL_URL = os.environ.get("AMPHORA_TEST_URL") or None
# Only what shows what Python, or what amphora stands on, does to the code.
BRIEFLY = bool(os.environ.get("AMPHORA_TEST_BRIEFLY"))
# Ten times as long as the slowest take on a machine with nothing else to do.
TIME_LIMIT = 110.0


# A shell ignores ctrl-C for what it runs in the background, and so would every program that the
# tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

tests_begun = 0
failed_key = pytest.StashKey[bool]()

# No test measures time, hypothesis neither; and a failure in CI can be repeated anywhere.
hypothesis.settings.register_profile("amphora", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "briefly", parent=hypothesis.settings.get_profile("amphora"), max_examples=20
)
hypothesis.settings.load_profile("briefly" if BRIEFLY else "amphora")


@pytest.fixture(scope="session")
def private_node() -> Iterator[RabbitNode]:
    """A RabbitMQ of this session's own. Tests use `rabbit` or `rabbit_node`."""
    try:
        node = RabbitNode()
    except RabbitNotInstalled as error:
        pytest.fail(str(error), pytrace=False)
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture(scope="session")
def rabbit(request: pytest.FixtureRequest) -> RabbitNode | ExternalBroker:
    """The session's broker, with its `url`: AMPHORA_TEST_URL if set, else a private RabbitMQ."""
    if EXTERNAL_URL:
        return ExternalBroker(EXTERNAL_URL)
    node: RabbitNode = request.getfixturevalue("private_node")
    return node


@pytest.fixture
def rabbit_node(private_node: RabbitNode) -> Iterator[RabbitNode]:
    """The session's private RabbitMQ, to be managed, stopped, killed or frozen by the test.

    It is made ready again afterwards; `restart(wipe=True)` is allowed.
    """
    yield private_node
    private_node.recover()


@pytest.fixture
def broker_url(rabbit: RabbitNode | ExternalBroker) -> str:
    """The URL of the session's broker."""
    return rabbit.url


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this session's own."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    made: Database
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "database")
    else:
        made = PostgresDatabase(request.getfixturevalue("postgres"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a greenlet or a socket behind, or in which a greenlet died unseen."""
    baseline = Baseline()
    with Crashes() as crashes:
        yield
        # The traceback of a failed test keeps all that the test held.
        if request.node.stash.get(failed_key, False):
            return
        leaks = baseline.leaks()
    if leaks:
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)
    if crashes.found:
        pytest.fail("a greenlet died unseen:\n  " + "\n  ".join(crashes.found), pytrace=False)


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have amphora wait longer than usual for brokers, unless the test is marked `hurried`."""
    if request.node.get_closest_marker("hurried") is None:
        be_patient(monkeypatch)


@pytest.fixture(autouse=True)
def throttled_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have amphora log each throttled kind of line once in each test."""
    tell_once(monkeypatch)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that have no place in this run; pytest counts them as deselected."""
    left_out = [
        item
        for item in items
        if is_left_out_briefly(item)
        or needs_missing_node(item)
        or needs_missing_browser(item)
        or needs_missing_database(item)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # Each of them takes one of as many equal parts, and in the end what others have left.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = longest_first(items, workers)


def longest_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return tests in an order in which no worker is left alone with a long one at the end.

    Those that may take longer than others begin each worker's part; the rest stays as it is.
    """
    long = [item for item in items if limit_of(item) > TIME_LIMIT]
    rest = [item for item in items if limit_of(item) <= TIME_LIMIT]
    long.sort(key=limit_of, reverse=True)
    ordered: list[pytest.Item] = []
    for number in range(workers):
        ordered += long[number::workers]
        end = len(items) * (number + 1) // workers
        count = max(end - len(ordered), 0)
        ordered += rest[:count]
        del rest[:count]
    return ordered


def is_left_out_briefly(item: pytest.Item) -> bool:
    """Return whether a test is left out of a brief run.

    Slow tests are about the broker or the load; what Python does to the code shows on the embedded
    broker as well as on RabbitMQ.
    """
    if not BRIEFLY:
        return False
    fixtures = {"cluster_rig", "private_node", "rabbit", "rabbit_node"}
    on_rabbitmq = "rabbitmq" in item.name.partition("[")[2] or not fixtures.isdisjoint(
        getattr(item, "fixturenames", ())
    )
    return on_rabbitmq or item.get_closest_marker("slow") is not None


def needs_missing_node(item: pytest.Item) -> bool:
    """Return whether a test manages a broker where there is only one that must not be managed."""
    return (
        EXTERNAL_URL is not None
        and not is_installed()
        and (
            "private_node" in getattr(item, "fixturenames", ())
            or "cluster_rig" in getattr(item, "fixturenames", ())
            or ("managed_broker" in getattr(item, "fixturenames", ()) and "rabbitmq" in item.name)
        )
    )


def needs_missing_browser(item: pytest.Item) -> bool:
    """Return whether a test uses a browser where none is installed; in CI it fails instead."""
    return (
        "browser" in getattr(item, "fixturenames", ())
        and not os.environ.get("CI")
        and find_browser() is None
    )


def needs_missing_database(item: pytest.Item) -> bool:
    """Return whether a test uses PostgreSQL where it is not installed; in CI it fails instead."""
    fixtures = getattr(item, "fixturenames", ())
    on_it = "database" in fixtures and "postgres" in item.name.partition("[")[2]
    return (
        (on_it or "postgres" in fixtures) and not os.environ.get("CI") and find_programs() is None
    )


def is_installed() -> bool:
    """Return whether there is a RabbitMQ to start."""
    try:
        find_installation()
    except RabbitNotInstalled:
        return False
    return True


def pytest_collection_finish() -> None:
    """Take what the imports made out of the collector's sight: each test's scan has less to see."""
    hide_objects()


def pytest_runtest_logstart() -> None:
    """Now and then, do the same with what pytest and hypothesis keep of the tests before."""
    global tests_begun
    tests_begun += 1
    if not tests_begun % 25:
        hide_objects()


def hide_objects() -> None:
    """Leave only objects that are made from now on to the collector and to `running_greenlets`."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test failed, for the fixtures that end after it."""
    report = yield
    if report.failed:
        item.stash[failed_key] = True
    # The processes of a parallel run exchange reports as UTF-8, which not all text can be.
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def limit_of(item: pytest.Item) -> float:
    """Return the seconds that a test may take."""
    marker = item.get_closest_marker("time_limit")
    return float(marker.args[0]) if marker else TIME_LIMIT


@contextmanager
def time_limit(item: pytest.Item) -> Iterator[None]:
    """End what waits too long, and tell what every greenlet was waiting for."""
    seconds = limit_of(item)
    timer = gevent.Timeout(seconds)
    timer.start()
    try:
        yield
    except gevent.Timeout as raised:
        if raised is not timer:
            raise
        waiting = [describe_greenlet(each) for each in running_greenlets() if each.gr_frame]
        item.add_report_section("call", "other greenlets", "\n".join(waiting))
        raise TimeoutError(f"the test was still waiting after {seconds:g} s") from raised
    finally:
        timer.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the time of fixtures."""
    with time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the time of a test."""
    with time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the time of a fixture's ending."""
    with time_limit(item):
        return (yield)
