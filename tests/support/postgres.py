"""A PostgreSQL of the test session's own.

It shares nothing with any other on the machine: its data and its only socket are in a temporary
folder, and it listens on no port.  As with the session's RabbitMQ, a watchdog kills it and removes
the folder when the session ends, however that is.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess

from tests.support.rabbitmq import WATCHDOG

# Where packages put the programs, the newest last.
FOLDERS = (
    Path("/usr/lib/postgresql"),
    Path("/opt/homebrew/opt"),
    Path("/usr/local/opt"),
)


class PostgresError(Exception):
    """The server did not start."""


def find_programs() -> Path | None:
    """Return the folder with PostgreSQL's programs; None if it, or psycopg, cannot be used."""
    if importlib.util.find_spec("psycopg") is None:
        return None
    try:
        import psycopg  # noqa: F401 (it needs libpq)
    except ImportError:
        return None
    found = [path for folder in FOLDERS for path in folder.glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.insert(0, Path(on_path).resolve())
    usable = [path.parent for path in found if path.with_name("postgres").exists()]
    return max(usable, key=_version, default=None)


def _version(folder: Path) -> int:
    digits = "".join(filter(str.isdigit, folder.parent.name))
    return int(digits or 0)


class PostgresServer:
    """One private server, from when it is made until `close`."""

    def __init__(self) -> None:
        programs = find_programs()
        if programs is None:
            raise PostgresError("PostgreSQL, or psycopg, is not installed")
        self.folder = Path(tempfile.mkdtemp(prefix="amphora-postgres-"))
        self._user = _other_user()
        if self._user is not None:
            # PostgreSQL refuses to run as root.
            shutil.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "watchdog", str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._start(programs)
        except BaseException:
            self.close()
            raise

    def _start(self, programs: Path) -> None:
        data, log = self.folder / "data", self.folder / "log"
        making = self._spawn(
            [programs / "initdb", "-D", data, "-U", "amphora", "-A", "trust", "-E", "UTF8", "-N"]
        )
        if making.wait(60.0) != 0:
            raise PostgresError(log.read_text())
        options = ["fsync=off", "listen_addresses=", f"unix_socket_directories={self.folder}"]
        settings = [word for option in options for word in ("-c", option)]
        serving = self._spawn([programs / "postgres", "-D", data, *settings])
        (self.folder / "postgres.pid").write_text(str(serving.pid))
        with gevent.Timeout(60.0, PostgresError(f"it took no connection: {self.folder}")):
            while not self._answers():
                if serving.poll() is not None:
                    raise PostgresError(log.read_text())
                gevent.sleep(0.02)

    def _spawn(self, command: list[str | Path]) -> Any:
        other: Any = {}
        if self._user is not None:
            other = {
                "user": self._user.pw_uid,
                "group": self._user.pw_gid,
                "extra_groups": [],
            }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                **other,
            )

    @property
    def dsn(self) -> str:
        """Where its database is, for psycopg."""
        return f"host={self.folder} user=amphora dbname=postgres"

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Kill it, and remove its data."""
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()


def _other_user() -> pwd.struct_passwd | None:
    """Return the user that it runs as if this is root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("there is no user for PostgreSQL, which refuses to run as root")
