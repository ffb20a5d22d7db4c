"""What programs log only because the machine is slow."""

from __future__ import annotations

from collections.abc import Iterable

# A worker whose event loop got no processor, and a program that takes long to import.
SLOW = ("held the processor for", "is still loading the program")


def without_slowness(lines: Iterable[str]) -> list[str]:
    """Return lines of a log without those that a slow machine brings into any of them."""
    return [line for line in lines if not any(words in line for words in SLOW)]
