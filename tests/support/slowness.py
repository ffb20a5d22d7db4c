"""What programs log only because the machine is slow, or only because it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest

from amphora.net import log

# A worker whose event loop got no processor, a program that takes long to import or to connect,
# and one whose first calls wait for seconds.
SLOW = (
    "held the processor for",
    "is still loading the program",
    "does not take requests after",
    "until its deadline",
)
# Longer than any test takes.
LONG = 1000.0


def without_slowness(lines: Iterable[str]) -> list[str]:
    """Return lines of a log without those that a slow machine brings into any of them."""
    return [line for line in lines if not any(words in line for words in SLOW)]


def tell_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have amphora log each throttled kind of line the first time in a test, and not again.

    In life there is one in a second: how many that are, and whether a test gets one that the test
    before has had, is up to the machine.
    """
    monkeypatch.setattr(log, "INTERVAL", LONG)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "amphora":
            for value in list(vars(module).values()):
                if isinstance(value, log.Log):
                    monkeypatch.setattr(value, "_last", {})
                    monkeypatch.setattr(value, "_left_out", {})
