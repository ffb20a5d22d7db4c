"""Keys and answers in a database, without calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest

from amphora.errors import WrongRequest
from amphora.net import clock
from amphora.rpc.context.call import CallContext
from amphora.stores import PostgresStore, SqliteStore, connections
from amphora.stores import store as store_module
from amphora.stores.claims import Answer, Claim, Earlier, Lease, fingerprint
from amphora.stores.leases import Leases, Watch
from amphora.stores.store import Store
from amphora.wire.properties import Properties
from tests.support.clock import Clock
from tests.support.databases import Database, Firewall, PostgresDatabase, store_named
from tests.support.waiting import wait_until

LEASE = 60.0
KEEP = 600.0
ANSWER = Answer("application/json", b'{"result":\xff}')


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store in a database."""
    made = store_named(database.name)
    yield made
    made.close()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the store, but not that of its database."""
    now = Clock()
    monkeypatch.setattr(clock, "monotonic", now)
    return now


def claim(key: str = "k", fingerprint: str = "f", scope: str = "s") -> Claim:
    return Claim(scope, key, fingerprint)


# -- keys -----------------------------------------------------------------------------------------


def test_a_key_is_for_one_run_at_a_time(store: Store) -> None:
    first = claim()
    assert store.claim(first, LEASE, KEEP) is None
    assert store.claim(claim(), LEASE, KEEP) == Earlier("f", None)
    assert store.claim(claim(fingerprint="g"), LEASE, KEEP) == Earlier("f", None)
    assert store.claim(claim("another key"), LEASE, KEEP) is None
    assert store.claim(claim(scope="another scope"), LEASE, KEEP) is None


def test_an_answer_is_kept_as_it_is(store: Store) -> None:
    first = claim()
    store.claim(first, LEASE, KEEP)
    assert store.finish(first, ANSWER, KEEP)
    assert store.claim(claim(fingerprint="g"), LEASE, KEEP) == Earlier("f", ANSWER)
    # It is not to be changed any more.
    assert not store.finish(first, Answer("application/json", b"other"), KEEP)
    store.release(first)
    store.renew([first], 0.001, 0.001)
    assert store.claim(claim(), LEASE, KEEP) == Earlier("f", ANSWER)


def test_a_key_that_is_released_is_free(store: Store) -> None:
    first, second = claim(), claim(fingerprint="g")
    store.claim(first, LEASE, KEEP)
    store.release(second)
    assert store.claim(second, LEASE, KEEP) is not None
    store.release(first)
    assert store.claim(second, LEASE, KEEP) is None


def test_a_key_is_free_for_the_same_call_when_its_lease_is_over(store: Store) -> None:
    first, second = claim(), claim()
    store.claim(first, 0.01, KEEP)
    # A third of that may be too short for the database; then the key is left alone for a moment.
    wait_until(lambda: store.claim(second, 6.0, KEEP) is None)
    assert not store.finish(first, ANSWER, KEEP)
    store.release(first)
    assert store.finish(second, ANSWER, KEEP)


def test_a_key_whose_lease_is_over_is_not_free_for_another_call(store: Store) -> None:
    first = claim()
    store.claim(first, 0.001, KEEP)
    gevent.sleep(0.01)
    assert store.claim(claim(fingerprint="g"), LEASE, KEEP) == Earlier("f", None)


def test_a_lease_that_is_known_to_be_lost_is_over(store: Store) -> None:
    first = claim()
    store.claim(first, LEASE, KEEP)
    earlier = store.claim(claim(), LEASE, KEEP)
    assert earlier is not None
    store.renew([first], 2 * LEASE, KEEP)
    # It was not the last one of this run.
    earlier = store.claim(claim(), LEASE, KEEP, earlier.lease)
    assert earlier is not None
    assert store.claim(claim(fingerprint="g"), LEASE, KEEP, earlier.lease) is not None
    assert store.claim(claim(), LEASE, KEEP, earlier.lease) is None
    assert store.claim(claim(), LEASE, KEEP, earlier.lease) is not None


def test_a_lease_that_is_the_same_for_its_whole_duration_is_lost(now: Clock) -> None:
    watch = Watch(30.0)
    for until, took, passed, lost in (
        (1.0, 0.0, 29.0, False),
        (1.0, 0.0, 0.5, False),
        (1.0, 0.0, 0.6, False),
        (1.0, 0.0, 0.1, True),
        # It is renewed after all.
        (2.0, 0.0, 31.0, False),
        # As long as the database is halted, nobody can renew a lease.
        (2.0, 31.0, 1.0, False),
        (2.0, 0.0, 30.0, False),
        (2.0, 0.0, 0.0, True),
    ):
        watch.note(Lease("owner", until), took)
        assert watch.lost == (Lease("owner", until) if lost else None)
        now.now += passed


def test_a_lease_that_is_renewed_is_not_over(store: Store) -> None:
    first, second = claim("a"), claim("b")
    store.claim(first, 0.2, KEEP)
    store.claim(second, 0.2, KEEP)
    store.renew([first], LEASE, KEEP)
    wait_until(lambda: store.claim(claim("b"), LEASE, KEEP) is None)
    assert store.claim(claim("a"), LEASE, KEEP) is not None
    assert store.finish(first, ANSWER, KEEP)


def test_leases_are_renewed_after_a_renewal_that_was_given_up_before_it_began(
    store: Store, database: Database
) -> None:
    def lease_of(key: str) -> float:
        ((until,),) = database.run(f"SELECT lease_until FROM amphora_answers WHERE key = '{key}'")
        return float(until)

    leases = Leases(store, 3.0, KEEP)
    first, second = claim("a"), claim("b")
    store.claim(first, leases.seconds, KEEP)
    leases.add(first)
    # The last run ends in the turn of the event loop in which its lease would be renewed.
    leases._renew_soon()
    leases.discard(first)
    store.claim(second, leases.seconds, KEEP)
    before = lease_of("b")
    leases.add(second)
    wait_until(lambda: lease_of("b") > before)
    leases.discard(second)


def test_an_answer_is_kept_for_its_time(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "abc":
        store.claim(claim(key), LEASE, KEEP)
    first, second = claim("d"), claim("e")
    for each in (first, second):
        store.claim(each, LEASE, KEEP)
        store.finish(each, ANSWER, 0.01)
    # Also where other arguments come with the key.
    wait_until(lambda: store.claim(claim("d", "g"), LEASE, KEEP) is None)
    count = "SELECT count(*) FROM amphora_answers"
    assert database.run(count) == [(5,)]
    monkeypatch.setattr(store_module, "PURGE_PAUSE", 0.0)

    def left() -> list[Any]:
        store.claim(claim("a"), LEASE, KEEP)
        return database.run(count)

    wait_until(lambda: left() == [(4,)])


def test_many_outdated_rows_are_removed_in_portions(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "abcde":
        store.claim(claim(key), 0.001, 0.0)
    outdated = f"SELECT count(*) FROM amphora_answers WHERE kept_until < {store._now}"
    wait_until(lambda: database.run(outdated) == [(5,)])
    monkeypatch.setattr(store_module, "MOST_PURGED", 2)
    now = Clock()
    now.now = clock.monotonic() + 2 * store_module.PURGE_PAUSE
    monkeypatch.setattr(clock, "monotonic", now)

    def left() -> list[Any]:
        store.claim(claim("f"), LEASE, KEEP)
        return database.run("SELECT count(*) FROM amphora_answers")

    # Each claim removes some of them at once, until there are no more.
    assert [left() for _ in range(3)] == [[(4,)], [(2,)], [(1,)]]
    store.claim(claim("g"), 0.001, 0.0)
    wait_until(lambda: store.claim(claim("g"), 0.001, 0.0) is None)
    assert left() == [(2,)]


# -- transactions ---------------------------------------------------------------------------------


def test_a_transaction_is_done_at_its_end_or_not_at_all(store: Store, database: Database) -> None:
    database.run("CREATE TABLE work (n integer)")
    with store.transaction() as connection:
        connection.execute("INSERT INTO work VALUES (1)")
        assert database.run("SELECT n FROM work") == []
    assert database.run("SELECT n FROM work") == [(1,)]

    def work_and_raise(error: BaseException) -> None:
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES (2)")
            raise error

    for error in (ZeroDivisionError(), gevent.Timeout()):
        with pytest.raises(type(error)):
            work_and_raise(error)
    assert database.run("SELECT n FROM work") == [(1,)]


def test_connections_are_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_IDLE", 1)
    with store.transaction() as first:
        pass
    with store.transaction() as second:
        assert second is first
    store.close()
    with store.transaction() as third:
        assert third is not first


def test_the_table_is_made_once_by_many_at_the_same_time(database: Database) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def claim_in_a_thread(number: int) -> None:
        store = store_named(database.name)
        try:
            together.wait(20)
            assert store.claim(claim(f"k{number}"), LEASE, KEEP) is None
        except BaseException as error:  # noqa: BLE001 (the test shows it)
            failures.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=claim_in_a_thread, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert database.run("SELECT count(*) FROM amphora_answers") == [(4,)]


def test_a_table_that_is_removed_is_made_again(store: Store, database: Database) -> None:
    store.claim(claim(), LEASE, KEEP)
    database.run("DROP TABLE amphora_answers")
    with pytest.raises(Exception, match="amphora_answers"):
        store.claim(claim(), LEASE, KEEP)
    assert store.claim(claim(), LEASE, KEEP) is None


def test_a_forked_child_has_connections_of_its_own(store: Store) -> None:
    with store.transaction() as connection:
        pass
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with store.transaction() as another:
                status = int(another is connection)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with store.transaction() as same:
        assert same is connection
        same.execute("SELECT 1")


# -- SQLite ---------------------------------------------------------------------------------------


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize("database", ["postgres"], indirect=True)


@only_sqlite
def test_whoever_waits_for_anothers_transaction_lets_greenlets_run(
    store: Store, database: Database
) -> None:
    other = database.connect()
    other.execute("BEGIN IMMEDIATE")
    waiting = gevent.spawn(store.claim, claim(), LEASE, KEEP)
    began = monotonic()
    while monotonic() - began < 0.1:
        gevent.sleep(0.001)
    assert not waiting.ready()
    other.rollback()
    assert waiting.get(timeout=20) is None
    other.close()


@only_sqlite
def test_a_transaction_of_others_is_waited_for_so_long(database: Database) -> None:
    store = SqliteStore(database.name.removeprefix("sqlite:"), patience=0.05)
    store.claim(claim(), LEASE, KEEP)
    other = database.connect()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="database is locked"):
        store.claim(claim("b"), LEASE, KEEP)
    other.close()
    assert store.claim(claim("b"), LEASE, KEEP) is None
    store.close()


@pytest.mark.parametrize("path", [":memory:", "", "file::memory:?cache=shared"])
def test_a_database_in_memory_is_no_store(path: str) -> None:
    with pytest.raises(ValueError, match="a SqliteStore needs a file"):
        SqliteStore(path)


def test_a_file_stays_the_same_when_the_process_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("database")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.claim(claim(), LEASE, KEEP) is None
    store.close()
    assert (tmp_path / "database").exists()


# -- PostgreSQL -----------------------------------------------------------------------------------


@only_postgres
def test_connections_that_commit_by_themselves_are_refused(database: Database) -> None:
    import psycopg

    assert isinstance(database, PostgresDatabase)
    dsn = database.name.removeprefix("postgres:")
    store = PostgresStore(lambda: psycopg.connect(dsn, autocommit=True))
    with pytest.raises(TypeError, match="without autocommit"):
        store.claim(claim(), LEASE, KEEP)


@only_postgres
def test_connections_that_were_lost_are_replaced(store: Store, database: Database) -> None:
    with store.transaction() as connection:
        pid = connection.info.backend_pid
    database.run(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(Exception, match=r"terminat|closed"):
        store.claim(claim(), LEASE, KEEP)
    assert store.claim(claim(), LEASE, KEEP) is None


@only_postgres
def test_outdated_rows_are_found_without_reading_all_rows(store: Store, database: Database) -> None:
    store.claim(claim(), LEASE, KEEP)
    purge = store._in_its_words(store_module.PURGE).replace("%s", "10")
    with database.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {purge}"))
    assert "Index Cond: (kept_until <" in plan


@only_postgres
def test_an_outdated_row_that_another_has_locked_holds_up_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect() -> Any:
        connection = database.connect()
        connection.execute("SET lock_timeout = '2s'")
        connection.commit()
        return connection

    store = PostgresStore(connect)
    store.claim(claim("a"), 0.001, 0.0)
    wait_until(lambda: store.claim(claim("a"), 0.001, 0.0) is None)
    monkeypatch.setattr(store_module, "PURGE_PAUSE", 0.0)
    with database.connect() as other:
        other.execute("SELECT * FROM amphora_answers FOR UPDATE")
        assert store.claim(claim("b"), LEASE, KEEP) is None
    store.close()


def is_taken_over_a_while_later(store: Store, now: Clock) -> bool:
    """Return whether a key whose lease is over is left to its run for a part of a new lease."""
    at_once = store.claim(claim(), LEASE, KEEP)
    now.now += LEASE
    return at_once == Earlier("f", None) and store.claim(claim(), LEASE, KEEP) is None


@only_sqlite
def test_no_key_is_taken_over_at_once_when_others_have_locked_the_file(
    database: Database, now: Clock
) -> None:
    store = SqliteStore(database.name.removeprefix("sqlite:"), patience=0.01)
    store.claim(claim(), 0.0, KEEP)
    other = database.connect()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="database is locked"):
        store.claim(claim(), LEASE, KEEP)
    other.close()
    assert is_taken_over_a_while_later(store, now)
    store.close()


@only_sqlite
def test_no_key_is_taken_over_at_once_after_a_long_wait_for_the_file(
    store: Store, database: Database, now: Clock
) -> None:
    store.claim(claim(), 0.0, KEEP)
    other = database.connect()
    other.execute("BEGIN IMMEDIATE")
    waiting = gevent.spawn(store.claim, claim(), LEASE, KEEP)
    gevent.idle()
    now.now += LEASE / 2
    other.close()
    assert waiting.get(timeout=20) == Earlier("f", None)
    assert is_taken_over_a_while_later(store, now)


@only_sqlite
def test_no_key_is_taken_over_at_once_when_leases_could_not_be_renewed(
    store: Store, database: Database, now: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim(claim(), 0.0, KEEP)
    leases = Leases(store, 0.3, KEEP)
    mine = claim("b")
    other = database.connect()
    other.execute("BEGIN IMMEDIATE")
    leases.add(mine)
    wait_until(lambda: "the database has not answered" in caplog.text)
    leases.discard(mine)
    other.close()
    assert is_taken_over_a_while_later(store, now)


@only_postgres
def test_a_connection_that_takes_no_statement_is_not_used_again(
    store: Store, database: Database
) -> None:
    store.claim(claim("a"), LEASE, KEEP)
    connections: list[Any] = []

    def connect() -> Any:
        connections.append(database.connect())
        # The first one is to a database that only reads for now.
        connections[-1].read_only = len(connections) == 1
        return connections[-1]

    mine = PostgresStore(connect)
    with pytest.raises(Exception, match="read-only"):
        mine.claim(claim(), LEASE, KEEP)
    assert mine.claim(claim(), LEASE, KEEP) is None
    assert [connection.closed for connection in connections] == [True, False]
    mine.close()


@pytest.fixture
def firewall(database: Database, monkeypatch: pytest.MonkeyPatch) -> Firewall:
    """A firewall before the database, where nobody waits long."""
    monkeypatch.setattr(connections, "PATIENCE", 1.0)
    return Firewall(database)


@only_postgres
def test_idle_connections_that_have_fallen_silent_are_replaced(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TRUSTED", 0.0)
    store = PostgresStore(firewall.connect)
    with store.transaction(), store.transaction():
        pass
    firewall.silence()
    assert store.claim(claim(), LEASE, KEEP) is None
    assert [connection.closed for connection in firewall.connections] == [True, True, False]
    store.close()


@only_postgres
@pytest.mark.parametrize("how", ["admits none", "is silent", "has lost one"])
def test_no_key_is_taken_over_at_once_when_the_database_was_away(
    firewall: Firewall, database: Database, now: Clock, how: str
) -> None:
    store = PostgresStore(firewall.connect)
    store.claim(claim(), 0.0, KEEP)
    if how == "admits none":
        store.close()
        firewall.admits = False
        with pytest.raises(TimeoutError):
            store.claim(claim(), LEASE, KEEP)
        firewall.admits = True
    elif how == "is silent":
        now.now += connections.TRUSTED
        firewall.silence()
    else:
        with store.transaction() as connection:
            database.run(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(Exception, match=r"terminat|closed"):
            store.claim(claim("b"), LEASE, KEEP)
    assert is_taken_over_a_while_later(store, now)
    store.close()


@only_postgres
def test_whoever_gets_no_connection_is_told(firewall: Firewall) -> None:
    store = PostgresStore(firewall.connect)
    firewall.admits = False
    with pytest.raises(TimeoutError, match="the database has not answered within"):
        store.claim(claim(), LEASE, KEEP)


@only_postgres
def test_a_transaction_whose_connection_has_fallen_silent_is_given_up(firewall: Firewall) -> None:
    store = PostgresStore(firewall.connect)

    def work() -> None:
        with store.transaction():
            firewall.silence()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert store.claim(claim(), LEASE, KEEP) is None
    store.close()


@only_postgres
def test_leases_are_renewed_after_a_renewal_whose_connection_has_fallen_silent(
    firewall: Firewall, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TRUSTED", 60.0)
    store = PostgresStore(firewall.connect)
    leases = Leases(store, 1.0, KEEP)
    mine = claim()
    store.claim(mine, leases.seconds, KEEP)
    firewall.silence()
    question = "SELECT lease_until FROM amphora_answers"
    before = database.run(question)
    leases.add(mine)
    wait_until(lambda: database.run(question) > before)
    leases.discard(mine)
    store.close()


# -- claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        ("g", [1, "a"], {"x": 1, "y": 2}),
        ("f", [1, "b"], {"x": 1, "y": 2}),
        ("f", ["a", 1], {"x": 1, "y": 2}),
        ("f", [1, "a"], {"x": 2, "y": 1}),
        ("f", [1, "a", {"x": 1, "y": 2}], {}),
        ("f", [True, "a"], {"x": 1, "y": 2}),
        ("f", [1 << 70, "a"], {"x": 1, "y": 2}),
        ("f", [b"a", {1: None}], {}),
    ],
)
def test_other_calls_have_other_fingerprints(
    function: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    assert fingerprint(function, args, kwargs) == fingerprint(function, list(args), dict(kwargs))
    assert fingerprint(function, args, kwargs) != fingerprint("f", [1, "a"], {"x": 1, "y": 2})


def test_the_order_of_keywords_does_not_matter() -> None:
    one = fingerprint("f", [{"a": 1, "b": {"c": 2, "d": 3}}], {"x": 1, "y": 2})
    assert one == fingerprint("f", [{"b": {"d": 3, "c": 2}, "a": 1}], {"y": 2, "x": 1})


def test_a_key_belongs_to_one_login_of_one_namespace() -> None:
    def scope(namespace: str, user: str | None) -> str:
        call = CallContext(Properties(user_id=user), namespace, "w")
        return Claim.of(call, "k").scope

    scopes = {scope("a", None), scope("a", "b"), scope("a", "b/c"), scope("a/b", None)}
    assert len(scopes) == 4


@pytest.mark.parametrize("where", ["args", "kwargs"])
def test_arguments_that_are_too_deep_for_a_key_are_named(where: str) -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = [deep]
    call = CallContext(Properties(), "shop", "w")
    call.function, call.args, call.kwargs = "buy", [1], {"order": 2}
    if where == "args":
        call.args.append(deep)
    else:
        call.kwargs["order"] = {"of": deep}
    with pytest.raises(WrongRequest, match="recursion: it is too deep") as caught:
        Claim.of(call, "k")
    part = "args[1][0][0]" if where == "args" else 'order["of"][0][0]'
    assert str(caught.value).startswith(f"the arguments of shop.buy cannot have a key: {part}")


def test_a_key_of_any_letters_is_ascii_in_the_database() -> None:
    def stored(key: str) -> str:
        return Claim.of(CallContext(Properties(), "a", "w"), key).key

    assert stored("cart 17/b?") == "cart 17/b?"
    keys = {stored(key) for key in ("ü", "%C3%BC", "%25", "%", "\n", "€" * 85)}
    assert len(keys) == 6
    assert all(key.isascii() and key.isprintable() for key in keys)


@only_postgres
def test_a_database_of_any_encoding_has_any_key(database: Database) -> None:
    import psycopg

    dsn = database.name.removeprefix("postgres:")
    database.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    store = PostgresStore(lambda: psycopg.connect(dsn, dbname="latin", options=""))
    call = CallContext(Properties(), "a", "w")
    assert store.claim(Claim.of(call, "ключ"), LEASE, KEEP) is None
    assert store.claim(Claim.of(call, "ключ"), LEASE, KEEP) is not None
    store.close()
    database.run("DROP DATABASE latin")


@pytest.mark.parametrize("key", ["", "x" * 256, 17, b"\xff", ["k"]])
def test_what_another_client_sends_as_a_key_is_checked(key: Any) -> None:
    call = CallContext(Properties(headers={"x-amphora-key": key}), "a", "w")
    with pytest.raises(WrongRequest, match="a key must be text of 1 to 255 bytes"):
        assert call.key
