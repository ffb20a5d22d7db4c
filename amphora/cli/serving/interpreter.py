"""Starting a worker's Python like the supervisor's own, in the same directory.

Paths are kept as the user wrote them, with symbolic links, and are not resolved when the supervisor
starts: `current -> releases/2` may lead to another release at the next start.
"""

from __future__ import annotations

import os
import subprocess
import sys

import amphora


def current_directory() -> str:
    """Return the current directory by the name that the user gave it.

    The shell's PWD has that name, if it is still right; the system only knows where it leads.

    Raises:
        FileNotFoundError: the directory was deleted.
    """
    name = os.environ.get("PWD", "")
    here = os.getcwd()
    try:
        is_true = os.path.isabs(name) and os.path.samefile(name, here)
    except (OSError, ValueError):
        is_true = False
    return name if is_true else here


def python_command(directory: str, patch: bool) -> list[str]:
    """Return the command that starts `amphora` in another Python like this one.

    Args:
        directory: the current directory, as `current_directory` names it.
        patch: let gevent patch Python's library first.
    """
    # Patched before amphora, which imports ssl and others, is loaded.
    start = ["-m", "gevent.monkey", "--module", "amphora"] if patch else ["-m", "amphora"]
    return [_executable(directory), *_flags(directory), *start]


def _executable(directory: str) -> str:
    # Python makes the path absolute, but resolves the links in the directory.
    here = os.path.join(os.getcwd(), "")
    if sys.executable.startswith(here):
        return os.path.join(directory, sys.executable[len(here) :])
    return sys.executable


def _flags(directory: str) -> list[str]:
    # The options that multiprocessing passes on: -O, -W, -I and others.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        flags += ["-X", name if value is True else f"{name}={value}"]
    if sys.flags.ignore_environment:
        # A worker's output must appear at once; PYTHONUNBUFFERED may not be read.
        flags.append("-u")
    root = os.path.dirname(os.path.dirname(os.path.abspath(amphora.__file__)))
    if not os.path.samefile(root, directory):
        # With -m, Python looks for everything in the current directory first: amphora itself would
        # import the program's queue.py instead of Python's own.
        flags.append("-P")
    return flags


def shadows(directory: str) -> list[str]:
    """Return the files and packages in a directory that have names of Python's own modules."""
    found = []
    try:
        entries = sorted(os.listdir(directory))
    except OSError:
        return []
    for entry in entries:
        name, extension = os.path.splitext(entry)
        # Python's own package `test` is imported only by its tests.
        if name not in sys.stdlib_module_names or name == "test":
            continue
        if extension == ".py" or os.path.exists(os.path.join(directory, entry, "__init__.py")):
            found.append(entry)
    return found
