"""Python programs in processes of their own, such as a server that a test calls."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import gevent
from gevent import subprocess
from gevent.event import Event

ROOT = Path(__file__).resolve().parents[2]


class ProcessError(Exception):
    """A program did not do what the test waits for. The message ends with its output."""


def _as_in_a_terminal() -> None:
    """Undo what background jobs and nohup hand on: that ctrl-C or a hang-up is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class PythonProcess:
    """A Python program beside the tests: `with PythonProcess("server.py", ready="ready"):`.

    `arguments` follow `python -u -W error`: a script and its arguments, or "-c" and code, or "-m"
    and a module. Entering waits until a line of its output contains `ready`, at most `timeout`
    seconds. Leaving ends the program's whole process group. `env` is added to the environment, and
    `cwd` is the directory that it runs in.
    """

    def __init__(
        self,
        *arguments: str | Path,
        ready: str | None = None,
        timeout: float = 80.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self._ready = ready
        self._timeout = timeout
        self._cwd = cwd
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self._lines: list[str] = []
        self._printed: list[str] = []
        self._told: list[str] = []
        self._news = Event()
        self._open = 2

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", *self.arguments],
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_as_in_a_terminal,
        )
        out, err = self._process.stdout, self._process.stderr
        assert out is not None
        assert err is not None
        self._streams = (out, err)
        self._readers = [
            gevent.spawn(self._read, out, [self._lines, self._printed]),
            gevent.spawn(self._read, err, [self._lines, self._told]),
        ]
        try:
            if self._ready is not None:
                self.wait_for(self._ready, self._timeout)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        if error is not None:
            error.add_note(f"The output of {self!r}:\n{self.output}")

    def __repr__(self) -> str:
        return f"<PythonProcess {' '.join(self.arguments)[:80]}>"

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """The lines it has printed so far, to its standard output or error.

        A line of the one may be before or behind one of the other.
        """
        return list(self._lines)

    @property
    def printed(self) -> list[str]:
        """The lines it has printed so far to its standard output.

        What it logs is not there: on a busy machine anything in it may log a warning.
        """
        return list(self._printed)

    @property
    def told(self) -> list[str]:
        """The lines it has printed so far to its standard error: tracebacks, and what it logs."""
        return list(self._told)

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "\n".join(self._lines)

    @property
    def returncode(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def wait_for(self, text: str, timeout: float = 80.0) -> str:
        """Return the first line that contains `text`, waiting at most `timeout` seconds for it.

        Raises ProcessError when the program ends without one, or the time is over.
        """
        seen = 0
        try:
            with gevent.Timeout(timeout) as limit:
                while True:
                    self._news.clear()
                    ended = not self._open
                    for line in self._lines[seen:]:
                        seen += 1
                        if text in line:
                            return line
                    if ended:
                        raise ProcessError(
                            f"{self!r} ended without printing {text!r}:\n{self.output}"
                        )
                    self._news.wait()
        except gevent.Timeout as raised:
            if raised is not limit:
                raise
            raise ProcessError(
                f"{self!r} did not print {text!r} within {timeout:g} s:\n{self.output}"
            ) from None

    def signal_together(self, *numbers: signal.Signals) -> None:
        """Send it signals that all are there when it sees the first."""
        for number in (signal.SIGSTOP, *numbers, signal.SIGCONT):
            self.signal(number)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it (SIGKILL), and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout: float = 80.0) -> int:
        """Return its exit status, waiting at most `timeout` seconds; its output is then complete.

        Raises ProcessError when it still runs then.
        """
        try:
            status: int = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self!r} still runs after {timeout:g} s:\n{self.output}") from None
        gevent.joinall(self._readers, timeout)
        return status

    def _read(self, stream: IO[str], kept: list[list[str]]) -> None:
        for line in stream:
            for lines in kept:
                lines.append(line.rstrip("\n"))
            self._news.set()
        self._open -= 1
        self._news.set()

    def _end(self) -> None:
        try:
            # The group, because a child of the program would keep its output open.
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        gevent.joinall(self._readers)
        for stream in self._streams:
            stream.close()
