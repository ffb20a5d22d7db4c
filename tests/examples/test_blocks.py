"""Every block of code in the manual and the README is run, or checked for what it is.

Python stands in files: in `docs/snippets/`, which test_snippets.py has run, or in `examples/`,
whose programs the tests beside this one run.  A page shows such a file, or a part of it.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.support.blocks import Block, blocks, pages
from tests.support.processes import ROOT

SNIPPETS = ROOT / "docs" / "snippets"
EXAMPLES = ROOT / "examples"
TESTS = ROOT / "tests"

# Pages with Python of their own, and why it is in no program.
LEFT = {
    "docs/coming-from/aio-pika.rst": "programs of aio-pika, which only the benchmarks install",
    "docs/coming-from/grpc.rst": "programs of gRPC, which import what protoc generates",
    "docs/coming-from/nameko.rst": (
        "programs of nameko, whose pytest plugin would import eventlet into all of our tests"
    ),
    "docs/coming-from/oslo.messaging.rst": (
        "programs of oslo.messaging, which would bring fifty packages into all of our tests"
    ),
}

# What is read, and not run: output, differences, a shell's lines (test_documented_commands.py).
READ = {"", "console", "diff", "docker", "Dockerfile", "ini", "text"}
PARSED: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "yml": lambda text: list(yaml.safe_load_all(text)),
}

# Pages are the same for all Pythons.
pytestmark = pytest.mark.slow
all_pages = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_python(block: Block) -> bool:
    """Return whether a page shows Python that is in no file."""
    if block.file is not None:
        return False
    return block.language in ("python", "pycon") or (not block.language and parses(block.text))


def parses(text: str) -> bool:
    """Return whether text is Python that does something: not a word, a path or a number."""
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return False
    return any(
        not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Call)
        for statement in statements
    )


def is_in_a_program(text: str) -> bool:
    """Return whether text is a program, whose name may be in its first line."""
    name, _, rest = text.partition("\n")
    return any(
        program.read_text(encoding="utf-8") in (text, rest)
        for folder in (SNIPPETS, EXAMPLES)
        for program in folder.glob(f"*/{name.removeprefix('# ') or '*.py'}")
    )


def own_python(page: Path) -> list[int]:
    """Return the lines at which a page shows Python of its own."""
    return [
        block.line for block in blocks(page) if is_python(block) and not is_in_a_program(block.text)
    ]


@all_pages
def test_the_python_of_a_page_is_in_a_program(page: Path) -> None:
    # When a page of LEFT has none any more, it leaves LEFT.
    assert bool(own_python(page)) == (name_of(page) in LEFT), own_python(page)


@all_pages
def test_the_programs_that_a_page_shows_are_run(page: Path) -> None:
    for block in blocks(page):
        if block.file is not None and block.file.suffix == ".py":
            assert block.file.is_file(), block
            assert is_run(block.file), f"no test runs {block.file}"


def is_run(program: Path) -> bool:
    """Return whether a test runs a program of `docs/snippets/` or `examples/`."""
    if program.is_relative_to(SNIPPETS):
        return True  # as test_snippets.py and those it names do, and with what they import
    folder = program.relative_to(EXAMPLES).parent.as_posix()
    named = [text for text in texts_of(TESTS) if re.search(rf'"examples"\S* / "{folder}"', text)]
    named += [text for text in texts_of(TESTS) if f"examples/{folder}" in text]
    if any(re.search(rf'"{program.name}"|EXAMPLES\.glob\("\*\.py"\)', text) for text in named):
        return True
    # A program of the same folder may import it, or have it served.
    names = re.compile(rf'(from|import) {program.stem}\b|"{program.stem}:')
    siblings = {*program.parent.glob("*.py")} - {program}
    return bool(named) and any(names.search(path.read_text("utf-8")) for path in siblings)


@cache
def texts_of(folder: Path) -> list[str]:
    """Return the texts of all tests."""
    paths = [path for path in folder.rglob("test_*.py") if path != Path(__file__)]
    return [path.read_text(encoding="utf-8") for path in paths]


@all_pages
def test_a_part_of_a_program_says_where_all_of_it_is(page: Path) -> None:
    told: set[Path | None] = set()
    nameless = []
    for block in blocks(page):
        if block.file is None:
            continue
        if not block.is_part or block.options.get("caption", "").endswith(block.file.name):
            told.add(block.file)
        elif block.file not in told:
            nameless.append(block.line)
    assert nameless == []


@all_pages
def test_what_is_not_python_can_be_read_as_what_it_is(page: Path) -> None:
    for block in blocks(page):
        if block.language in PARSED:
            PARSED[block.language](block.text or Path(block.file or "").read_text("utf-8"))
        elif block.language not in ("py", "python"):
            assert block.language in READ, f"{page}:{block.line} is in an unknown language"


def test_the_blocks_of_a_page_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text(
        "A function::\n\n    def f():\n        pass\n\n"
        "Run this::\n\n    $ make test\n\nand that::\n\n    make test\n\n"
        "- a list:\n\n  .. code-block:: python\n     :caption: a.py\n\n     f()\n\n  More.\n\n"
        ".. literalinclude:: /snippets/calling/server.py\n   :pyobject: add\n\nThe end.\n"
    )
    function, run, that, call, file = blocks(page)
    assert function.text == "def f():\n    pass\n"
    assert (call.language, call.text, call.options) == ("python", "f()\n", {"caption": "a.py"})
    assert [is_python(block) for block in (function, run, that, call, file)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert file.file == SNIPPETS / "calling" / "server.py"
    assert file.is_part
    assert own_python(page) == [1, 16]


def test_a_program_that_no_test_runs_is_found() -> None:
    assert is_run(EXAMPLES / "math" / "server.py")
    assert not is_run(EXAMPLES / "math" / "nobody.py")
    assert not is_run(EXAMPLES / "nowhere" / "server.py")
