"""Replacing standard input, output and error if they are closed when the command starts.

Otherwise the next file or socket would get their numbers, and with them the output.
"""

from __future__ import annotations

import os
import sys


def open_standard_files() -> None:
    """Open the null device in place of each standard file that is closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest free number; those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has None for a file that was closed when it started.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
