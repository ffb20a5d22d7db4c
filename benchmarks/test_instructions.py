"""How many instructions a call takes, in the client and in the server.

    tox run -e instructions

Counted by valgrind, they are the same however busy the machine is: a change that makes calls
slower shows at once.  Needs valgrind, and takes minutes.  The bounds are a tenth above what was
counted with Python 3.11 when they were set; they include the part that `hot_path` plays.  When a
change makes calls cheaper, lower them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# The first calls, imports and whatever else happens once are in both counts.
FEW, MANY = 1000, 3000
BOUNDS = {"client": 118_000, "server": 118_000}


def instructions(side: str, calls: int, folder: Path) -> int:
    """Return how many instructions a process takes that makes or serves `calls` calls."""
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder / 'callgrind.out'}",
            *(sys.executable, "-m", "benchmarks.hot_path", side, str(calls)),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


@pytest.mark.parametrize("side", BOUNDS)
def test_a_call_takes_no_more_instructions_than_it_did(side: str, tmp_path: Path) -> None:  # noqa: D103
    few, many = (instructions(side, calls, tmp_path) for calls in (FEW, MANY))
    assert (many - few) / (MANY - FEW) <= BOUNDS[side]
