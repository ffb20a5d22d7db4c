"""Noticing that the source of a program has changed, by looking at its files.

Looked at are all Python files below the current directory, and the program's own package wherever
it is.  So a program that could not even be imported is seen when it is mended.  Linked directories
are followed, each real one once.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator

logger = logging.getLogger("amphora.serve")

# Directories that hold no sources of the program.
SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))
# What the system shows as files, and devices.
NO_FILES = frozenset(("/proc", "/sys", "/dev"))
# In a directory as big as `/`, a look would take longer than anybody waits for it.
MOST_DIRECTORIES = 2000

Snapshot = dict[str, tuple[int, int]]


class Sources:
    """The files of a program, and how they were when last looked at.

    Args:
        directory: the current directory.
        modules: the dotted names of the programs' modules.
    """

    def __init__(self, directory: str, *modules: str) -> None:
        # By name each time, as a link may lead elsewhere by then.  The program's own package comes
        # first: it is looked at even if the directory is too big for all of it.
        self._roots: list[str] = []
        for module in modules:
            top = module.partition(".")[0]
            self._roots += os.path.join(directory, top), os.path.join(directory, f"{top}.py")
            elsewhere = find_package(module)
            if elsewhere is not None and not _is_one_of(elsewhere, self._roots):
                self._roots.append(elsewhere)
        self._roots.append(directory)
        self._warned = False
        self._known = self._look()
        self._seen = self._known

    def changed(self) -> list[str]:
        """Return the files that have changed since the last call that returned any.

        A change is reported when it is there at two looks in a row: whoever writes many files
        has then finished.
        """
        before, self._seen = self._seen, self._look()
        if self._seen == self._known or self._seen != before:
            return []
        known, self._known = self._known, self._seen
        return sorted(
            name
            for name in known.keys() | self._seen.keys()
            if known.get(name) != self._seen.get(name)
        )

    def _look(self) -> Snapshot:
        found: Snapshot = {}
        seen: set[tuple[int, int]] = set()
        for root in self._roots:
            found.update(python_files(root, seen))
        if len(seen) >= MOST_DIRECTORIES and not self._warned:
            self._warned = True
            logger.warning(
                "%s holds too many directories to look for changes in all of them: it is looked at"
                " the program's own package and the first %d; start in the program's directory",
                self._roots[-1],
                MOST_DIRECTORIES,
            )
        return found


def _is_one_of(path: str, others: list[str]) -> bool:
    return os.path.realpath(path) in map(os.path.realpath, others)


def find_package(module: str) -> str | None:
    """Return where a module's outermost package lies; None if it is not to be found."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except Exception:  # noqa: BLE001 (whoever is asked for modules may raise anything)
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return spec.submodule_search_locations[0]
    return spec.origin if spec.has_location else None


def python_files(root: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each Python file at or below `root`, with its time of change and its size.

    Args:
        root: a file or a directory; nothing is yielded if there is none.
        seen: which directories were looked at; they are left out, and new ones added.
    """
    for path in _walk(root, seen) if os.path.isdir(root) else (root,):
        try:
            found = os.stat(path)
        except OSError:
            # Removed between two looks.
            continue
        yield path, (found.st_mtime_ns, found.st_size)


def _walk(root: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    for directory, below, files in os.walk(root, followlinks=True):
        if len(seen) >= MOST_DIRECTORIES or not _is_new(directory, seen):
            below.clear()
            continue
        below[:] = sorted(name for name in below if _may_hold_sources(directory, name))
        yield from (os.path.join(directory, name) for name in files if name.endswith(".py"))


def _is_new(directory: str, seen: set[tuple[int, int]]) -> bool:
    """Return whether a directory was not looked at yet, under whichever name."""
    try:
        found = os.stat(directory)
    except OSError:
        return False
    number = found.st_dev, found.st_ino
    if number in seen:
        return False
    seen.add(number)
    return True


def _may_hold_sources(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    return (
        name not in SKIPPED
        and not name.startswith(".")
        and path not in NO_FILES
        and not os.path.exists(os.path.join(path, "pyvenv.cfg"))
    )
