"""The commands that the pages for operators show are those that there are."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from amphora.cli.root import commands
from tests.support.processes import ROOT

DOCS = ROOT / "docs"
PAGES = ["how-to/troubleshoot", "how-to/deploy"]
SHOWN = re.compile(r"(?:\$ |``)amphora ((?:[a-z]|--)[^`\n]*)")


def shown_commands(page: str) -> list[str]:
    """Return what stands behind `amphora` where a page shows a command."""
    return SHOWN.findall((DOCS / f"{page}.rst").read_text(encoding="utf-8"))


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


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_there(page: str) -> None:
    shown = shown_commands(page)
    assert shown
    wrong = {each: unknown_words(shlex.split(each, comments=True)) for each in shown}
    assert {each: words for each, words in wrong.items() if words} == {}


def test_a_command_that_there_is_not_is_found() -> None:
    assert unknown_words(["tap", "shop"]) == ["tap"]
    assert unknown_words(["dead", "lost"]) == ["lost"]
    assert unknown_words(["serve", "shop", "--grce", "3"]) == ["--grce"]
    assert unknown_words(["serve", "shop", "--grace", "3"]) == []
