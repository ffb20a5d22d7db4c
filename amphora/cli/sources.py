"""Noticing that the source of a program has changed, by looking at its files.

Looked at are all Python files below the current directory, and the program's own package if it is
somewhere else.  So a program that could not even be imported is seen when it is mended.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

# Directories that hold no sources of the program.
SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages"))

Snapshot = dict[str, tuple[int, int]]


class Sources:
    """The files of a program, and how they were when last looked at.

    Args:
        directory: the current directory.
        module: the dotted name of the program's module.
    """

    def __init__(self, directory: str, module: str) -> None:
        self._roots = [directory]
        elsewhere = find_package(module)
        if elsewhere is not None and not Path(elsewhere).is_relative_to(directory):
            self._roots.append(elsewhere)
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
        return {name: stamp for root in self._roots for name, stamp in python_files(root)}


def find_package(module: str) -> str | None:
    """Return where a module's outermost package lies; None if it is not to be found."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return spec.submodule_search_locations[0]
    return spec.origin if spec.has_location else None


def python_files(root: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each Python file at or below `root`, with its time of change and its size."""
    if not os.path.isdir(root):
        paths = iter([root])
    else:
        paths = _walk(root)
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            # Removed between two looks.
            continue
        yield path, (found.st_mtime_ns, found.st_size)


def _walk(root: str) -> Iterator[str]:
    for directory, below, files in os.walk(root):
        below[:] = [
            name
            for name in below
            if name not in SKIPPED
            and not name.startswith(".")
            and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
        ]
        yield from (os.path.join(directory, name) for name in files if name.endswith(".py"))
