"""What systemd is told, by a socket as it makes them."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket

from amphora.cli.failures import Exit
from amphora.cli.serving import notify as module
from amphora.cli.serving.notify import READY, RELOADING, STOPPING, Notifier
from tests.cli.conftest import PROGRAMS, Serve, wait_for_workers
from tests.support.waiting import wait_until

embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


class Manager:
    """What a service manager hears."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[str] = []
        self.ear = gevent.spawn(self._listen)

    def _listen(self) -> None:
        while True:
            self.heard.append(self.socket.recv(4096).decode())

    def without(self, *starts: str) -> list[str]:
        """Return what was heard that does not begin with one of these."""
        return [each for each in self.heard if not each.startswith(starts)]

    def close(self) -> None:
        self.ear.kill()
        self.socket.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "file" else f"@{secrets.token_hex(8)}"
    manager = Manager(name)
    yield manager
    manager.close()


@embedded
def test_a_manager_hears_how_far_a_pool_is(serve: Serve, manager: Manager, tmp_path: Path) -> None:
    program = tmp_path / "service.py"
    program.write_text((PROGRAMS / "service.py").read_text())
    watchdog = {**manager.environment, "WATCHDOG_USEC": "300000"}
    pool = serve("-w", 2, env=watchdog, cwd=tmp_path)
    pids = wait_for_workers(pool, 2)
    wait_until(lambda: "STATUS=2 of 2 workers take requests" in manager.heard)
    quiet = ("STATUS=", "WATCHDOG=1")
    assert manager.without(*quiet) == ["READY=1"]
    assert manager.heard.index("READY=1") < manager.heard.index(
        "STATUS=2 of 2 workers take requests"
    )
    fed = manager.heard.count("WATCHDOG=1")
    wait_until(lambda: manager.heard.count("WATCHDOG=1") >= fed + 3)
    variables = Path(f"/proc/{pids[0]}/environ").read_bytes().split(b"\0")
    names = {each.partition(b"=")[0] for each in variables}
    assert not names & {b"NOTIFY_SOCKET", b"WATCHDOG_USEC"}
    pool.signal(signal.SIGHUP)
    wait_for_workers(pool, 2, *pids)
    wait_until(lambda: len(manager.without(*quiet)) == 3)
    reloading, ready = manager.without(*quiet)[1:]
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert ready == "READY=1"
    # A program that does not start ends a reload, too: the old workers go on.
    program.write_text("def (")
    pool.signal(signal.SIGHUP)
    wait_until(lambda: len(manager.without(*quiet)) == 5)
    assert manager.heard.count("READY=1") == 3
    pool.terminate()
    assert pool.wait() == Exit.DONE
    wait_until(lambda: manager.without(*quiet)[5:] == ["STOPPING=1"])


@embedded
def test_a_broker_that_is_away_is_no_reason_to_be_killed(
    serve: Serve, closed_port: int, tmp_path: Path
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    url = f"amqp://127.0.0.1:{closed_port}"
    serve(env={**manager.environment, "WATCHDOG_USEC": "300000", "AMQP_URL": url})
    wait_until(lambda: "READY=1" in manager.heard)
    fed = manager.heard.count("WATCHDOG=1")
    wait_until(lambda: manager.heard.count("WATCHDOG=1") > fed)
    assert "STATUS=0 of 1 workers take requests" in manager.heard
    manager.close()


def test_without_a_manager_nobody_is_told() -> None:
    notifier = Notifier({})
    notifier.phase(READY)
    notifier.status("well")
    notifier.feed()
    assert notifier.next_feed is None
    notifier.close()


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_if_it_is_this_process_that_it_watches(
    variables: dict[str, str],
    interval: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    clock = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    notifier = Notifier({**manager.environment, **variables})
    for clock[0] in (1000.0, 1000.5, 1001.1, 1001.2):
        notifier.feed()
    due = notifier.next_feed
    assert due == (None if interval is None else pytest.approx(1001.1 + interval / 3))
    # What comes last has everything before it.
    notifier.phase(STOPPING)
    wait_until(lambda: "STOPPING=1" in manager.heard)
    assert manager.heard.count("WATCHDOG=1") == (0 if interval is None else 2)
    notifier.close()
    manager.close()


def test_what_a_manager_has_no_room_for_is_said_later_and_each_change_once(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.phase(READY)  # nobody listens yet
    notifier.status("well")
    manager = Manager(address)
    for _ in range(3):
        notifier.phase(READY)
        notifier.status("well")
    notifier.phase(RELOADING)
    notifier.phase(READY)
    wait_until(lambda: len(manager.heard) == 4)
    assert manager.without("RELOADING") == ["READY=1", "STATUS=well", "READY=1"]
    notifier.close()
    manager.close()
