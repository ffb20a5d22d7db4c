"""Make the documentation's table of figures: `python -m tests.faults.table BOOKS ...`.

BOOKS are the files that runs with AMPHORA_FAULTS_REPORT have written.  What a later one says of a
case counts.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[2] / "docs" / "results" / "reliability-results.inc"
SUMS = ("attempted", "ok", "hung", "wrong", "lost", "duplicated")
# What a book has besides figures that were measured for one case alone.
COMMON = {*SUMS, "case", "test", "passed", "broker", "seed", "seconds", "errors", "unexpected"}


def main(*paths: str) -> None:
    books = {}
    for path in paths:
        for book in json.loads(Path(path).read_text()):
            books[book["case"], book["test"]] = book
    TABLE.write_text(table(list(books.values())))
    print(f"{TABLE} has {len(books)} cases")


def table(books: list[dict[str, Any]]) -> str:
    """Return the table as reStructuredText."""
    brokers = ", ".join(sorted({book["broker"] for book in books}))
    failed = sum(not book["passed"] for book in books)
    total = {name: f"{sum(book[name] for book in books):,}" for name in SUMS}
    python, cores = platform.python_version(), os.cpu_count()
    heading = (
        f"{len(books)} cases, {failed} of them failed; {total['attempted']} calls, of which"
        f" {total['lost']} were lost, {total['hung']} hung, {total['wrong']} got a wrong answer,"
        f" and {total['duplicated']} executions were one too many. {brokers};"
        f" Python {python}; {cores} cores."
    )
    lines = [
        ".. Made by `tox run -e faults`.",
        "",
        heading,
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 8 50 10 10 20 12 20",
        "",
    ]
    lines += row("case", "what holds", "calls", "ok", "errors", "run again", "measured")
    for book in sorted(books, key=lambda book: (book["case"], book["test"])):
        errors = ", ".join(f"{count:,} {name}" for name, count in sorted(book["errors"].items()))
        measured = {key: value for key, value in book.items() if key not in COMMON}
        faults = f"{measured.pop('faults'):,} faults"
        figures = "; ".join([faults, *(f"{name} {value}" for name, value in measured.items())])
        what = sentence(book["test"]) + ("" if book["passed"] else " **failed**")
        calls, ok, again = (f"{book[name]:,}" for name in ("attempted", "ok", "duplicated"))
        lines += row(book["case"], what, calls, ok, errors, again, figures)
    return "\n".join(lines) + "\n"


def row(*cells: str) -> list[str]:
    """Return a row of a list-table."""
    return [
        f"   {'*' if not number else ' '} - {cell}".rstrip() for number, cell in enumerate(cells)
    ]


def sentence(test: str) -> str:
    """Return a test's name as a sentence, with its parameters behind it."""
    name, _, parameters = test.partition("[")
    words = name.removeprefix("test_").replace("_", " ")
    # A parameter may have anything in it: as literal text it means nothing.
    kind = parameters.removesuffix("]").replace("`", "'")
    return words + (f" (``{kind}``)" if kind else "")


if __name__ == "__main__":
    main(*sys.argv[1:])
