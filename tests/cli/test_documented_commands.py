"""The commands that the manual and the README show are those that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from amphora.cli.root import commands
from tests.support.blocks import pages
from tests.support.processes import ROOT

SHOWN = re.compile(r"(?:\$ |`|-m )amphora ((?:[a-z]|--)[^`\n]*)")
PROGRAM = re.compile(r"\bpython3? ((?:examples|docs)/\S+\.py)")

# Pages are the same for all Pythons.
pytestmark = pytest.mark.slow
all_pages = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


def shown_commands(page: Path) -> list[list[str]]:
    """Return the words behind `amphora` where a page shows a command; no pipes and no comments."""
    text = page.read_text(encoding="utf-8")
    return [shlex.split(re.split(r" +[|#>&]", each)[0]) for each in SHOWN.findall(text)]


def unknown_words(words: list[str]) -> list[str]:
    """Return the commands and options among words that amphora does not have."""
    command: click.Command = commands
    context = click.Context(command)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        if found is None:
            return words[:1]
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in parameter.opts}
    return [word for word in words if word.startswith("-") and word not in options]


@all_pages
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    wrong = {" ".join(words): unknown_words(words) for words in shown_commands(page)}
    assert {each: words for each, words in wrong.items() if words} == {}


@all_pages
def test_the_programs_that_a_page_tells_to_run_are_there(page: Path) -> None:
    programs = PROGRAM.findall(page.read_text(encoding="utf-8"))
    assert [name for name in programs if not (ROOT / name).is_file()] == []


def test_commands_are_found_wherever_they_are_shown(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text(
        "``amphora stats`` and `amphora`::\n\n    $ amphora call math.f 'a b' | jq .\n"
        "    $ amphora top shop  # all of it\n    $ python -m amphora demo\n"
    )
    assert shown_commands(page) == [
        ["stats"],
        ["call", "math.f", "a b"],
        ["top", "shop"],
        ["demo"],
    ]


def test_a_command_that_there_is_not_is_found() -> None:
    assert unknown_words(["tap", "shop"]) == ["tap"]
    assert unknown_words(["dead", "lost"]) == ["lost"]
    assert unknown_words(["serve", "shop", "--grce", "3"]) == ["--grce"]
    assert unknown_words(["serve", "shop", "--grace", "3"]) == []
