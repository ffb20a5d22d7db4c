"""A file with the process id of the supervisor, which exists while the supervisor runs.

A lock on the file shows that a supervisor runs; the system releases it when the process ends,
however it ends.  The number alone would not do: another process may have it by now, and in a
container it is always 1.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


class Taken(Exception):
    """The file belongs to another process; the text says to which."""


@contextmanager
def pidfile(path: str | None) -> Iterator[None]:
    """Keep the process id in a file within the block; None does nothing.

    Raises:
        Taken: a running process has the file, or it holds something else.
        OSError: the file cannot be written.
    """
    if path is None:
        yield
        return
    # Python keeps workers from inheriting it, and with it the lock.
    file = _locked(path)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        try:
            # Done while no other process can have locked it; the file may belong to another by now.
            if _is_at(path, file):
                os.unlink(path)
        except OSError:
            pass  # its directory is gone, or no longer writable
        os.close(file)


def _locked(path: str) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(file, 20).strip().decode("ascii", "replace")
            os.close(file)
            raise Taken(f"{path} belongs to a running supervisor, process {pid or '?'}") from None
        except BaseException:
            os.close(file)
            raise
        if _is_at(path, file):
            if os.read(file, 20).strip().isdigit() or not os.fstat(file).st_size:
                return file
            os.close(file)
            raise Taken(f"{path} does not hold a process id, and is left alone")
        # Its owner has meanwhile removed it.
        os.close(file)


def _is_at(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
