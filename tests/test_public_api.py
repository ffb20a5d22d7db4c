"""No public name or signature changes unseen."""

from __future__ import annotations

import difflib

from tests.public_api import FILE, describe


def test_the_public_api_is_the_one_that_is_written_down() -> None:
    written = FILE.read_text(encoding="utf-8").splitlines()
    now = describe().splitlines()
    difference = list(difflib.unified_diff(written, now, "written down", "now", n=0, lineterm=""))
    assert not difference, "\n".join(
        [
            "the public API is another. Where that is meant, tell users in CHANGELOG.md, and run:",
            "    python -m tests.public_api",
            *difference,
        ]
    )
