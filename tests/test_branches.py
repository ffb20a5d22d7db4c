"""What is measured of the tests is what coverage.py's own tracer would see, in all processes."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from gevent import subprocess

from amphora.errors import text_of
from tests.branches.__main__ import LOADING, ROOT, Run, find_modules
from tests.branches.marking import mark

# Each branch, with sides that are taken and sides that are not, written and not written.
SAMPLE = '''"""A docstring."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def decorator(function):
    return function


class Thing:
    """A class."""

    name: str = "thing"

    @property
    @decorator
    def double(self):
        """Another docstring."""
        return self.name * 2

    def unused(self):
        if self.name:
            return 1
        return 2


def branches(number):
    if number > 1:
        number -= 1
    if number > 10:
        number = 10
    elif number == 1:
        number = 1
    else:
        number = 0
    if not number:
        return "none"
    if number: number += 0
    return (
        "some"
        if number
        else "nothing"
    )


def loops(numbers):
    for number in numbers:
        if number == 2:
            continue
        if number == 4:
            break
    else:
        numbers = None
    for number in ():
        pass
    while numbers:
        numbers = numbers[1:]
    while True:
        if not numbers:
            break
    for _ in range(2):
        @decorator
        def inner():
            pass


def errors(error):
    try:
        if error is not None:
            raise error
    except KeyError:
        return "key"
    except (ValueError, TypeError):
        with contextlib.suppress(KeyError):
            raise KeyError
        return "value"
    else:
        return "none"
    finally:
        del error


def matches(value):
    match value:
        case "a" | "b":
            value = None
        case int() as number if number > 3:
            return number
        case []:
            pass
        case [_, *rest]:
            matches(rest)
    match value:
        case None:
            return "none"
        case str():
            if value:
                return "text"
        case _:
            return "else"
    match value:
        case "":
            value = "empty"
        case anything:
            value = anything
    match value:
        case "never":
            return value
    return None


def generate():
    for number in range(3):
        yield number
        if number:
            return


def run():
    Thing().double
    branches(2)
    branches(0)
    loops([1, 2, 3])
    loops([1, 4])
    errors(None)
    errors(ValueError())
    list(generate())
    matches("a")
    matches("c")
    matches(2)
    matches([1])
    matches("")
'''


def run(code: Any) -> None:
    names: dict[str, Any] = {"__name__": "sample"}
    exec(code, names)
    names["run"]()


def report(coverage: Coverage, path: Path, folder: Path) -> dict[str, Any]:
    """Return what coverage.py reports of a file."""
    coverage.json_report(morfs=[str(path)], outfile=str(folder / "report.json"))
    [told] = json.loads((folder / "report.json").read_text())["files"].values()
    names = ("executed_lines", "missing_lines", "executed_branches", "missing_branches")
    # Python 3.13 warns of a database that is left open, and coverage leaves it open.
    coverage.get_data().close(force=True)
    return {name: told[name] for name in names}


def test_of_a_file_the_same_is_told_as_with_a_tracer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)

    tracer = Coverage(data_file=None, branch=True, include=[str(path)], config_file=False)
    with tracer.collect():
        run(compile(SAMPLE, path, "exec"))
    traced = report(tracer, path, tmp_path)
    assert min(len(lines) for lines in traced.values()) > 5

    measured = Run(tmp_path, {"sample": path})
    marks = bytearray((tmp_path / "marks").read_bytes())
    monkeypatch.setattr("builtins.amphora_marks", marks, raising=False)
    run(mark(SAMPLE.encode(), str(path), 0)[0])
    (tmp_path / "marks").write_bytes(marks)
    coverage = Coverage(data_file=None, branch=True, config_file=False)
    measured.tell(coverage)
    assert report(coverage, path, tmp_path) == traced


def test_the_code_has_no_statement_whose_branches_are_not_known() -> None:
    for path in find_modules().values():
        assert mark(path.read_bytes(), str(path), 0)[1]


PROGRAM = """
import os, sys
exec(open(sys.argv[1]).read())
import amphora.errors

if os.fork() == 0:
    amphora.errors.text_of(ValueError("text"))
    os._exit(0)
os.wait()
os.kill(os.getpid(), 9)
"""


def test_a_program_is_measured_however_it_ends_and_so_are_its_children(tmp_path: Path) -> None:
    path = ROOT / "amphora" / "errors.py"
    measured = Run(tmp_path, {"amphora.errors": path})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, LOADING],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AMPHORA_BRANCHES": str(tmp_path)},
    )
    assert done.returncode == -signal.SIGKILL
    coverage = Coverage(data_file=None, branch=True, config_file=False)
    measured.tell(coverage)
    executed = report(coverage, path, tmp_path)["executed_lines"]
    lines, begins = inspect.getsourcelines(text_of)
    assert set(executed) & set(range(begins + 1, begins + len(lines)))
