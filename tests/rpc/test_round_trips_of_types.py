"""The table of what becomes of values on their way is true."""

from __future__ import annotations

from importlib.util import find_spec

from amphora import testing
from tests.rpc.round_trips import FILE, table


def rows(text: str) -> list[str]:
    """Return the rows of a table; without those of numpy, where it is not installed."""
    found = text.split("   * - ")
    return [row for row in found if "numpy" not in row or find_spec("numpy")]


def test_the_documentation_says_what_becomes_of_each_type() -> None:
    with testing.Broker() as broker:
        made = table(broker.url)
    written = rows(FILE.read_text(encoding="utf-8"))
    assert rows(made) == written, "python -m tests.rpc.round_trips writes the table anew"
    assert len(written) > 40
