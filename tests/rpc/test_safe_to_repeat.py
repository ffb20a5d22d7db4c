"""Calls with a key are run once: `amphora.idempotent`."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest

import amphora
from amphora.errors import (
    ConnectionLost,
    NoResult,
    RemoteException,
    TimedOut,
    WrongRequest,
    WrongResult,
)
from amphora.rpc.contract import naming
from amphora.stores import PostgresStore, SqliteStore, connections
from amphora.stores.claims import Claim, fingerprint
from amphora.stores.store import Store
from tests.support.brokers import Broker
from tests.support.databases import Database, Firewall, SqliteDatabase, store_named
from tests.support.rpc import Gate, MakeClient, MakeServer, RunProgram
from tests.support.waiting import wait_until

KEYS = 40
KILLS = 4


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store in a database, which also has a table for work."""
    database.run("CREATE TABLE work (what text)")
    made = store_named(database.name)
    yield made
    made.close()


@pytest.fixture
def make_once(make_server: MakeServer, store: Store) -> MakeServer:
    """Make servers that run calls with keys once."""

    def make(*functions: Callable[..., Any], lease: float = 30.0, **settings: Any) -> Any:
        server = make_server(*functions, serve=False, **settings)
        server.middleware(amphora.idempotent(store, lease=lease))
        server.serve()
        return server

    return make


def work_of(database: Database) -> list[str]:
    """Return what was written in the table of work."""
    return sorted(what for (what,) in database.run("SELECT what FROM work"))


def rows_of(database: Database) -> list[Any]:
    """Return the keys that the store has, and whether there is an answer."""
    return database.run("SELECT key, answer IS NOT NULL FROM amphora_answers ORDER BY key")


class Ran:
    """Functions that note their runs."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def note(self, *args: Any, **kwargs: Any) -> Any:
        self.runs.append((args, kwargs))
        return len(self.runs)

    def other(self, *args: Any, **kwargs: Any) -> Any:
        return self.note(*args, **kwargs)


# -- answers --------------------------------------------------------------------------------------


def test_a_call_with_a_key_is_run_once(make_once: MakeServer, make_client: MakeClient) -> None:
    ran = Ran()
    make_once(ran.note)
    client = make_client()
    assert client.call(key="a").note(1, x=[2], y=3) == 1
    assert client.call(key="a").note(1, y=3, x=[2]) == 1
    assert make_client().call(key="a").note(1, x=[2], y=3) == 1
    assert client.call(key="b").note(1, x=[2], y=3) == 2
    assert len(ran.runs) == 2


def test_calls_without_a_key_pass(
    make_once: MakeServer, make_client: MakeClient, database: Database
) -> None:
    ran = Ran()
    make_once(ran.note)
    client = make_client()
    assert [client.call.note(1) for _ in range(3)] == [1, 2, 3]
    client.call(key="a").note(1)
    assert [key for key, _ in rows_of(database)] == ["a"]


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_an_answer_is_the_same_each_time(
    make_once: MakeServer, make_client: MakeClient, serializer: Any
) -> None:
    def values() -> Any:
        moment = datetime.datetime(
            2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=3))
        )
        return {"b": b"\xff\0", "t": moment, "n": None, "l": [1.5, -1, "ü"], "big": 2**60}

    make_once(values)
    client = make_client(serializer=serializer)
    assert client.call(key="a").values() == client.call(key="a").values() == client.call.values()


def test_a_key_belongs_to_one_call(make_once: MakeServer, make_client: MakeClient) -> None:
    ran = Ran()
    make_once(ran.note, ran.other)
    client = make_client()
    client.call(key="a").note(1)
    for call in (
        lambda: client.call(key="a").note(2),
        lambda: client.call(key="a").note(1, x=1),
        lambda: client.call(key="a").other(1),
        lambda: client.call(key="a", retries=3).note(2),
    ):
        with pytest.raises(WrongRequest, match="the key 'a' was used for another call") as caught:
            call()
        assert caught.value.executed is False
    assert len(ran.runs) == 1


def test_a_cast_with_a_key_is_run_once(
    make_once: MakeServer, make_client: MakeClient, database: Database
) -> None:
    ran = Ran()
    make_once(ran.note)
    client = make_client()
    client.cast(key="a").note(1)
    wait_until(lambda: ran.runs)
    wait_until(lambda: rows_of(database) == [("a", True)])
    client.cast(key="a", wait_publish=True).note(1)
    assert client.call(key="a").note(1) == 1


# -- work -----------------------------------------------------------------------------------------


def test_work_and_answer_are_one_transaction(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    seen = []

    def order(name: str) -> str:
        with store.transaction() as connection:
            connection.execute(f"INSERT INTO work VALUES ('{name}')")
        with store.transaction() as connection:
            connection.execute(f"INSERT INTO work VALUES ('{name} again')")
        seen.append(work_of(database))
        return name

    make_once(order)
    client = make_client()
    assert client.call(key="a").order("tea") == "tea"
    assert client.call(key="a").order("tea") == "tea"
    # It is committed with the answer.
    assert seen == [[]]
    assert work_of(database) == ["tea", "tea again"]
    # Without a key each block is a transaction.
    client.call.order("soup")
    assert seen[1] == ["soup", "soup again", "tea", "tea again"]


def test_a_function_that_raises_has_not_been_run(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    ran = Ran()

    def order(name: str) -> Any:
        with store.transaction() as connection:
            connection.execute(f"INSERT INTO work VALUES ('{name}')")
        if ran.note() < 3:
            raise ValueError("out of tea")
        return name

    make_once(order)
    client = make_client()
    for _ in range(2):
        with pytest.raises(RemoteException, match="out of tea"):
            client.call(key="a").order("tea")
        assert work_of(database) == []
        assert rows_of(database) == []
    # So it may come with other arguments as well.
    assert client.call(key="a").order("soup") == "soup"
    assert work_of(database) == ["soup"]


def test_a_block_that_raises_leaves_nothing_of_itself(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    def order() -> str:
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('before')")
        for error in (ValueError(), gevent.Timeout()):
            try:
                with store.transaction() as connection:
                    connection.execute("INSERT INTO work VALUES ('raised')")
                    raise error
            except type(error):
                pass
        try:
            with store.transaction() as connection:
                connection.execute("INSERT INTO no_table VALUES (1)")
        except Exception:  # noqa: BLE001 (each driver's own)
            pass
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('behind')")
            with store.transaction() as inner:
                inner.execute("INSERT INTO work VALUES ('inside')")
        return "ok"

    make_once(order)
    assert make_client().call(key="a").order() == "ok"
    assert work_of(database) == ["before", "behind", "inside"]


def test_a_call_is_one_transaction_of_one_greenlet(
    make_once: MakeServer, make_client: MakeClient, store: Store
) -> None:
    def order() -> None:
        with store.transaction():
            amphora.spawn(store.transaction().__enter__).get()

    make_once(order)
    with pytest.raises(RemoteException, match="RuntimeError: another greenlet of this call"):
        make_client().call(key="a").order()


def test_a_transaction_that_is_lost_is_no_answer(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    def order(how: str) -> str:
        try:
            with store.transaction() as connection:
                connection.execute("INSERT INTO work VALUES ('half')")
                getattr(connection, how)()
                raise ValueError("what goes on without it")
        except ValueError:
            return "done"

    make_once(order)
    client = make_client()
    with pytest.raises(RemoteException, match="the transaction of this call was lost"):
        client.call(key="a").order("close")
    assert work_of(database) == []
    # What a handler does must not be done.
    with pytest.raises(RemoteException, match="the transaction of this call was lost"):
        client.call(key="b").order("commit")
    assert rows_of(database) == []


def test_a_block_that_hides_its_error_leaves_nothing_of_itself_or_ends_the_call(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    def order() -> str:
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('before')")
        try:
            with store.transaction() as connection:
                connection.execute("INSERT INTO work VALUES ('hidden')")
                try:
                    connection.execute(failing)
                except Exception:  # noqa: BLE001 (each driver's own)
                    pass
        except Exception:  # noqa: BLE001 (each driver's own)
            pass
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('behind')")
        return "ok"

    make_once(order)
    client = make_client()
    if isinstance(database, SqliteDatabase):
        # SQLite ends the whole transaction, as on a full disk.
        failing = "INSERT OR ROLLBACK INTO work VALUES (NULL)"
        database.run("DROP TABLE work")
        database.run("CREATE TABLE work (what text NOT NULL)")
        with pytest.raises(RemoteException, match="the transaction of this call was lost"):
            client.call(key="a").order()
        assert work_of(database) == []
        assert rows_of(database) == []
    else:
        failing = "INSERT INTO no_table VALUES (1)"
        assert client.call(key="a").order() == "ok"
        assert work_of(database) == ["before", "behind"]


def test_functions_in_threads_use_the_transaction(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    def order() -> str:
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('in a thread')")
        return "done"

    make_once().add_function(order, threadpool=True)
    client = make_client()
    assert client.call(key="a").order() == client.call(key="a").order() == "done"
    assert work_of(database) == ["in a thread"]


def test_a_thread_that_goes_on_without_its_call_does_no_work(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    may_go_on = threading.Event()
    told: list[str] = []

    def write(*names: str) -> None:
        try:
            with store.transaction() as connection:
                for name in names:
                    connection.execute(f"INSERT INTO work VALUES ('{name}')")
                    assert may_go_on.wait(20)
        except RuntimeError as error:
            told.append(str(error))

    def order() -> None:
        write("before", "behind")
        write("later")

    make_once().add_function(order, threadpool=True, timeout=0.2)
    with pytest.raises(TimedOut):
        make_client().call(key="a").order()
    may_go_on.set()
    wait_until(lambda: len(told) == 2)
    assert told == ["the call has ended without an answer: its work is rolled back"] * 2
    assert work_of(database) == []
    assert rows_of(database) == []


@pytest.mark.parametrize("error", [None, ValueError("out of tea")])
def test_a_greenlet_in_a_transaction_keeps_it_to_itself_when_its_call_ends(
    make_once: MakeServer,
    make_client: MakeClient,
    store: Store,
    database: Database,
    error: Exception | None,
) -> None:
    gate = Gate()
    left: list[gevent.Greenlet[..., Any]] = []

    def write() -> None:
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('before')")
            gate.hold()
            connection.execute("INSERT INTO work VALUES ('behind')")

    def order() -> None:
        left.append(amphora.spawn(write))
        wait_until(lambda: gate.entered)
        if error is not None:
            raise error

    make_once(order)
    client = make_client()
    with pytest.raises(RemoteException, match=str(error or "has returned while another greenlet")):
        client.call(key="a").order()
    assert rows_of(database) == [("a", False)]
    gate.open()
    with pytest.raises(RuntimeError, match="the call has ended without an answer"):
        left[0].get(timeout=20)
    assert work_of(database) == []
    assert rows_of(database) == []


def test_a_result_that_cannot_be_sent_is_not_kept(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    def order() -> Any:
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('lost')")
        return object()

    make_once(order)
    with pytest.raises(WrongResult, match="cannot be sent"):
        make_client().call(key="a").order()
    assert work_of(database) == []
    assert rows_of(database) == []


# -- at the same time -----------------------------------------------------------------------------


def test_calls_whose_first_run_is_going_wait_for_its_answer(
    make_once: MakeServer, make_client: MakeClient
) -> None:
    gate = Gate()
    for _ in range(2):
        make_once(gate.hold, lease=5.0)
    client = make_client()
    calls = [client.defer(key="a").hold("x") for _ in range(6)]
    wait_until(lambda: gate.entered)
    # Longer than a lease, which is renewed.
    until = monotonic() + 6.0
    wait_until(lambda: monotonic() > until)
    assert gate.entered == ["x"]
    assert not any(call.ready() for call in calls)
    gate.open()
    assert [call.get(timeout=20) for call in calls] == ["x"] * 6
    assert gate.entered == ["x"]


def test_a_call_keeps_its_key_while_the_database_is_away_for_longer_than_a_lease(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    gate, database = Gate(), SqliteDatabase(tmp_path / "database")
    store = SqliteStore(tmp_path / "database", patience=0.01)
    for _ in range(2):
        server = make_server(gate.hold, serve=False)
        server.middleware(amphora.idempotent(store, lease=4.0))
        server.serve()
    client = make_client()
    calls = [client.defer(key="a").hold("x")]
    wait_until(lambda: gate.entered)
    with closing(database.connect()) as other:
        other.execute("BEGIN EXCLUSIVE")
        calls += [client.defer(key="a").hold("x") for _ in range(4)]
        until = monotonic() + 4.5
        wait_until(lambda: monotonic() > until)
    # Whoever comes first now, the lease is renewed.
    now = "(julianday('now') - 2440587.5) * 86400"
    question = f"SELECT lease_until > {now} FROM amphora_answers"
    wait_until(lambda: database.run(question) == [(1,)])
    gate.open()
    assert [call.get(timeout=20) for call in calls] == ["x"] * 5
    assert gate.entered == ["x"]
    store.close()


def test_a_key_of_a_lost_run_is_free_after_a_lease_if_the_clock_was_set_back(
    make_once: MakeServer, make_client: MakeClient, store: Store, namespace: str
) -> None:
    ran = Ran()
    make_once(ran.note, lease=0.3)
    lost = Claim(f"{namespace}/", "a", fingerprint("note", [1], {}))
    store.claim(lost, 36000.0, 86400.0)
    assert make_client(timeout=20.0).call(key="a").note(1) == 1


def test_a_run_that_has_lost_its_key_has_done_nothing(
    make_once: MakeServer, make_client: MakeClient, store: Store, database: Database
) -> None:
    gate = Gate()

    def order() -> str:
        gate.hold()
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('late')")
        return "late"

    make_once(order)
    call = make_client().defer(key="a").order()
    wait_until(lambda: gate.entered)
    # As if its process had been halted, and another worker had run the call.
    answer = '\'{"result": "in time"}\''
    if database.name.startswith("postgres"):
        answer = f"convert_to({answer}, 'UTF8')"
    else:
        answer = f"CAST({answer} AS blob)"
    database.run(
        "UPDATE amphora_answers SET owner = 'another', content_type = 'application/json',"
        f" answer = {answer}"
    )
    gate.open()
    assert call.get(timeout=20) == "in time"
    assert work_of(database) == []
    assert len(gate.entered) == 1


def test_a_call_that_is_made_again_gets_the_answer_of_its_first_run(
    make_once: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    gate = Gate()
    make_once(gate.hold)
    client = make_client()
    calls = [
        gevent.spawn(client.call(retries=3).hold, "without"),
        gevent.spawn(client.call(retries=3, key="a").hold, "with"),
    ]
    wait_until(lambda: len(gate.entered) == 2)
    # The answers are lost, when the requests were taken.
    broker.delete_queue(naming.response_queue(client.namespace, client.client_id))
    with pytest.raises(ConnectionLost):
        calls[0].get(timeout=20)
    gate.open()
    assert calls[1].get(timeout=20) == "with"
    assert sorted(gate.entered) == ["with", "without"]


def test_a_call_goes_back_while_the_database_cannot_be_reached(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    ran = Ran()
    store = SqliteStore(tmp_path / "missing" / "database")
    server = make_server(ran.note, serve=False)
    server.middleware(amphora.idempotent(store))
    server.serve()
    call = make_client().defer(key="a").note()
    wait_until(lambda: server.statistics.ignored > 1)
    assert make_client().call.note() == 1
    (tmp_path / "missing").mkdir()
    assert call.get(timeout=20) == 2
    store.close()


def test_an_answer_is_kept_when_the_database_is_back(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    ran, database = Ran(), SqliteDatabase(tmp_path / "database")
    store = SqliteStore(tmp_path / "database", patience=0.01)
    gate = Gate()

    def work() -> Any:
        gate.hold(None)
        return ran.note()

    server = make_server(work, serve=False)
    server.middleware(amphora.idempotent(store))
    server.serve()
    client = make_client()
    call = client.defer(key="a").work()
    wait_until(lambda: gate.entered)
    with closing(database.connect()) as other:
        other.execute("BEGIN EXCLUSIVE")
        gate.open()
        wait_until(lambda: ran.runs)
        gevent.sleep(0.1)
        assert not call.ready()
    assert call.get() == 1
    assert client.call(key="a").work() == 1
    store.close()


class LosingCommit:
    """A connection that is lost at its commit, before or after the database has done that."""

    def __init__(self, connection: Any, comes_through: bool) -> None:
        self._connection = connection
        self._comes_through = comes_through

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        if self._comes_through:
            self._connection.commit()
        self._connection.close()
        raise OSError("the connection is lost")


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("comes_through", [True, False])
def test_what_has_become_of_a_commit_is_asked_when_the_database_is_back(
    make_server: MakeServer, make_client: MakeClient, database: Database, comes_through: bool
) -> None:
    losing = False
    tries = 0

    def connect() -> Any:
        nonlocal tries
        if not losing:
            return database.connect()
        tries += 1
        if tries == 1:
            return LosingCommit(database.connect(), comes_through)
        if tries < 4:
            raise OSError("the database is away")
        return database.connect()

    store = PostgresStore(connect)

    def order() -> str:
        nonlocal losing
        store.close()
        losing = True
        with store.transaction() as connection:
            connection.execute("INSERT INTO work VALUES ('tea')")
        return "done"

    database.run("CREATE TABLE work (what text)")
    server = make_server(order, serve=False)
    server.middleware(amphora.idempotent(store))
    server.serve()
    call = make_client().defer(key="a").order()
    if comes_through:
        assert call.get(timeout=20) == "done"
    else:
        with pytest.raises(RemoteException, match="the connection is lost"):
            call.get(timeout=20)
    assert work_of(database) == ["tea"] * comes_through
    assert rows_of(database) == [("a", True)] * comes_through
    assert tries == 4
    store.close()


# -- a database that has fallen silent -------------------------------------------------------------


@pytest.fixture
def firewall(database: Database, monkeypatch: pytest.MonkeyPatch) -> Firewall:
    """A firewall before the database, where no idle connection is asked whether it lives."""
    monkeypatch.setattr(connections, "TRUSTED", 600.0)
    monkeypatch.setattr(connections, "PATIENCE", 1.0)
    database.run("CREATE TABLE work (what text)")
    return Firewall(database)


@pytest.fixture
def store_behind(firewall: Firewall) -> Iterator[Store]:
    """A store that makes its connections through the firewall."""
    made = PostgresStore(firewall.connect)
    yield made
    made.close()


# When the connections fall silent, and what becomes of the call.
SILENT = [
    ("before the call", None),
    ("before the block", TimeoutError),
    ("in the block", TimeoutError),
    ("in a block that raises", ZeroDivisionError),
    ("behind the block", TimeoutError),
    ("without a block", None),
]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize(("when", "raised"), SILENT)
def test_a_call_ends_whenever_the_connections_of_its_store_fall_silent(
    make_server: MakeServer,
    make_client: MakeClient,
    firewall: Firewall,
    store_behind: Store,
    database: Database,
    when: str,
    raised: type[Exception] | None,
) -> None:
    ran = []

    def order() -> str:
        ran.append(when)
        if when in ("before the block", "without a block"):
            firewall.silence()
        if when == "without a block":
            return "done"
        with store_behind.transaction() as connection:
            connection.cursor().execute("INSERT INTO work VALUES ('tea')")
            if when.startswith("in "):
                firewall.silence()
            if when == "in a block that raises":
                raise ZeroDivisionError
        if when == "behind the block":
            firewall.silence()
        return "done"

    server = make_server(order, serve=False)
    server.middleware(amphora.idempotent(store_behind, lease=1.0))
    server.serve()
    # Connections that will be used again.
    with store_behind.transaction(), store_behind.transaction():
        pass
    if when == "before the call":
        firewall.silence()
    call = make_client().defer(key="a").order()
    if raised is None:
        assert call.get(timeout=20) == "done"
        assert rows_of(database) == [("a", True)]
    else:
        with pytest.raises(RemoteException, match=raised.__name__):
            call.get(timeout=20)
        # All of it is as if it had not been run.
        wait_until(lambda: rows_of(database) == [])
        assert work_of(database) == []
    assert ran == [when]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_server_stops_while_the_database_of_its_store_is_halted(
    make_server: MakeServer,
    make_client: MakeClient,
    firewall: Firewall,
    store_behind: Store,
) -> None:
    gate = Gate()
    server = make_server(gate.hold, serve=False)
    server.middleware(amphora.idempotent(store_behind, lease=1.0))
    server.serve()
    client = make_client()
    first = client.defer(key="a").hold(1)
    wait_until(lambda: gate.entered)
    with store_behind.transaction(), store_behind.transaction():
        pass
    firewall.silence()
    firewall.admits = False
    second = client.defer(key="b", timeout=2.0).hold(2)
    gate.open()
    # It is not kept.
    assert first.get() == 1
    with pytest.raises(NoResult):
        second.get()
    with gevent.Timeout(20.0):
        server.stop()
    assert gate.entered == [1]


def test_an_answer_that_cannot_be_kept_comes_before_its_caller_has_left(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    ran, database = Ran(), SqliteDatabase(tmp_path / "database")
    store = SqliteStore(tmp_path / "database", patience=0.01)
    locked: list[Any] = []

    def work() -> Any:
        locked.append(database.connect())
        locked[0].execute("BEGIN EXCLUSIVE")
        return ran.note()

    server = make_server(work, serve=False)
    server.middleware(amphora.idempotent(store, lease=0.5))
    server.serve()
    assert make_client().call(key="a").work() == 1
    locked[0].close()
    store.close()


# -- processes that are killed --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.time_limit(180)
def test_each_key_is_done_once_by_servers_that_are_being_killed(
    make_client: MakeClient, run_program: RunProgram, database: Database, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    database.run("CREATE TABLE orders (name text)")

    def start() -> Any:
        return run_program("keyed_server", database.name, ledger, ready="serving")

    def runs() -> list[tuple[str, int]]:
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return [(name, int(pid)) for name, pid in map(str.split, lines)]

    servers = [start(), start()]
    client = make_client(timeout=150.0)
    names = [f"order-{number}" for number in range(KEYS)]
    results = []
    for kill in range(KILLS):
        some = names[kill::KILLS]
        results += [(name, client.defer(key=name).order(name)) for name in some * 3]
        pid = wait_until(lambda some=some: next((p for name, p in runs() if name in some), None))
        # Its requests go to the other at once, and their keys when its leases are over.
        victim = next(server for server in servers if server.pid == pid)
        victim.kill()
        servers[servers.index(victim)] = start()
    answers: dict[str, set[str]] = {}
    for name, result in results:
        answers.setdefault(name, set()).add(result.get(timeout=150))
    # Whoever asks for the same gets the same, and the work of the transaction is done once.
    assert [len(answers[name]) for name in names] == [1] * KEYS
    assert sorted(database.run("SELECT name FROM orders")) == sorted((name,) for name in names)
    # Work outside of it is begun again at most once for each kill, where it was interrupted.
    begun = [name for name, _ in runs()]
    repeated = {name: begun.count(name) - 1 for name in names}
    assert all(0 <= again <= KILLS for again in repeated.values())
    assert 0 < sum(repeated.values()) <= KILLS * 5, repeated
