"""What mypy tells users of amphora."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from gevent import subprocess

import amphora
from amphora.transport.connections.endpoint import ConnectionSettings, endpoint

ROOT = Path(__file__).parents[1]
PROGRAM = Path("tests", "programs", "typed.py")


@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_a_users_program_is_typed_and_its_mistakes_are_found() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(PROGRAM)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_settings_of_a_connection_are_those_that_it_takes() -> None:
    taken = dict(endpoint.__annotations__)
    del taken["url"], taken["return"]
    assert ConnectionSettings.__annotations__.keys() == taken.keys()
    for name, kind in ConnectionSettings.__annotations__.items():
        assert kind.__forward_arg__ == taken[name], name


def test_the_source_of_what_is_exported_can_be_found() -> None:
    for name in amphora.__all__:
        lines = inspect.getsource(getattr(amphora, name)).splitlines()
        first = next(line for line in lines if not line.startswith("@"))
        assert name in first
