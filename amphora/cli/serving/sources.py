"""Noticing that the source of a program has changed, by looking at its files.

It looks at all Python files below the current directory and at the program's own package, wherever
it is; the user's patterns add or remove files.  So it also notices the repair of a program that
could not be imported.  Linked directories are followed, each real one once.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

logger = logging.getLogger("amphora.serve")

# Directories that hold no sources of the program.
SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))
# Directories of devices and of the system's pseudo-files.
NO_FILES = frozenset(("/proc", "/sys", "/dev"))
# In a directory as big as `/`, a search would take too long.
MOST_DIRECTORIES = 2000

Snapshot = dict[str, tuple[int, int]]


class Patterns:
    """The rules for sources: Python files and included files, but no excluded ones.

    A pattern is a shell pattern.  With a slash, it matches the path below the current directory.
    Without one, it matches any name on that path: a file, or a directory with its contents.

    Args:
        directory: the current directory.
        include, exclude: the patterns.
    """

    def __init__(
        self, directory: str, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self._directory = os.path.join(directory, "")
        self._include = include
        self._exclude = exclude

    def wants(self, path: str) -> bool:
        """Return whether a file is a source."""
        return (path.endswith(".py") or self._is_one(path, self._include)) and not self.skips(path)

    def skips(self, path: str) -> bool:
        """Return whether a file, or a directory with its contents, is excluded."""
        return self._is_one(path, self._exclude)

    def _is_one(self, path: str, patterns: Sequence[str]) -> bool:
        below = path.removeprefix(self._directory)
        return any(
            fnmatchcase(below if "/" in pattern else os.path.basename(path), pattern)
            for pattern in patterns
        )


class Sources:
    """The files of a program, and their state at the last look.

    Args:
        directory: the current directory.
        modules: the dotted names of the programs' modules.
        patterns: which files count; Python files unless given.
    """

    def __init__(self, directory: str, *modules: str, patterns: Patterns | None = None) -> None:
        self._patterns = patterns or Patterns(directory)
        # Resolved each time, because a link may lead elsewhere by then.  The program's own package
        # comes first, so it is searched even if the directory is too big to search completely.
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

        A change is reported when two looks in a row show it: then a program that writes many
        files has finished.
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
            found.update(source_files(root, seen, self._patterns))
        if len(seen) >= MOST_DIRECTORIES and not self._warned:
            self._warned = True
            logger.warning(
                "%s has too many directories to watch them all: only the program's own package and"
                " the first %d are watched; start amphora serve in the program's directory",
                self._roots[-1],
                MOST_DIRECTORIES,
            )
        return found


def _is_one_of(path: str, others: list[str]) -> bool:
    return os.path.realpath(path) in map(os.path.realpath, others)


def find_package(module: str) -> str | None:
    """Return the path of a module's outermost package; None if it is not found."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except Exception:  # noqa: BLE001 (finders of modules may raise anything)
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return spec.submodule_search_locations[0]
    return spec.origin if spec.has_location else None


def source_files(
    root: str, seen: set[tuple[int, int]], patterns: Patterns
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each source at or below `root`, with its time of change and its size.

    Args:
        root: a file or a directory; nothing is yielded if there is none.
        seen: the directories that were searched; they are skipped, and new ones are added.
        patterns: the rules for sources.
    """
    for path in _walk(root, seen, patterns) if os.path.isdir(root) else (root,):
        if not patterns.wants(path):
            continue
        try:
            found = os.stat(path)
        except OSError:
            # Removed between two looks.
            continue
        yield path, (found.st_mtime_ns, found.st_size)


def _walk(root: str, seen: set[tuple[int, int]], patterns: Patterns) -> Iterator[str]:
    for directory, below, files in os.walk(root, followlinks=True):
        if len(seen) >= MOST_DIRECTORIES or not _is_new(directory, seen):
            below.clear()
            continue
        below[:] = sorted(
            name
            for name in below
            if _may_hold_sources(directory, name)
            and not patterns.skips(os.path.join(directory, name))
        )
        yield from (os.path.join(directory, name) for name in files)


def _is_new(directory: str, seen: set[tuple[int, int]]) -> bool:
    """Return whether a directory was not searched yet under any name."""
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
