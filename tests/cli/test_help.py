"""The help, the version, and the completion of words in a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

import amphora as package
from amphora.cli.root import SECTIONS, commands
from tests.cli.conftest import Amphora
from tests.support.commands import commands_of
from tests.support.processes import ROOT, PythonProcess


def all_commands(group: click.Group = commands, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that lead to each command that is not hidden."""
    for name, command in commands_of(group).items():
        if isinstance(command, click.Group):
            yield from all_commands(command, *path, name)
        elif not command.hidden:
            yield (*path, name)


EVERY = list(all_commands())


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_has_help_with_examples(
    amphora_anywhere: Amphora, words: tuple[str, ...]
) -> None:
    outcome = amphora_anywhere(*words, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: amphora {' '.join(words)}")
    assert "\n  Examples:\n" in outcome.out
    assert f"    amphora {' '.join(words)} " in outcome.out
    assert amphora_anywhere(*words, "-h") == outcome


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_no_option_with_a_range_takes_what_is_no_number(words: tuple[str, ...]) -> None:
    command: click.Command = commands
    for word in words:
        assert isinstance(command, click.Group)
        command = commands_of(command)[word]
    for parameter in command.params:
        if isinstance(parameter.type, click.FloatRange):
            convert: Any = parameter.type.convert
            with pytest.raises(click.BadParameter, match="nan"):
                convert("nan", parameter, None)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_example_is_a_valid_command_line(words: tuple[str, ...]) -> None:
    command: click.Command = commands
    for word in words:
        assert isinstance(command, click.Group)
        command = commands_of(command)[word]
    lines = (command.epilog or "").splitlines()
    examples = [line for line in lines if line.startswith("  amphora ")]
    assert examples
    for example in examples:
        typed = re.split(r" \| | >+ ?", example)[0]
        given = shlex.split(typed, comments=True)
        assert given[1 : len(words) + 1] == list(words)
        # A command keeps the names of its help option from the first context that it is in.
        parent = click.Context(commands, **commands.context_settings)
        command.make_context(words[-1], given[len(words) + 1 :], parent).close()


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_is_documented(words: tuple[str, ...]) -> None:
    page = (ROOT / "docs" / "reference" / "cli.rst").read_text()
    assert f"\namphora {' '.join(words)}\n" in page


def test_the_help_has_every_command(amphora_anywhere: Amphora) -> None:
    outcome = amphora_anywhere("--help")
    shown = {line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ")}
    named = {name for section in SECTIONS.values() for name in section}
    every = commands_of(commands)
    assert named <= shown
    assert named == {name for name, command in every.items() if not command.hidden}
    assert {name: command.name for name, command in every.items()} == {name: name for name in every}


def test_without_a_command_the_help_is_shown(amphora_anywhere: Amphora) -> None:
    outcome = amphora_anywhere()
    assert outcome.code == 2
    assert "Usage: amphora" in outcome.err + outcome.out


def test_a_misspelled_command_is_wrong_usage(amphora_anywhere: Amphora) -> None:
    outcome = amphora_anywhere("pnig", "math")
    assert (outcome.code, outcome.out) == (2, "")
    assert "No such command 'pnig'; did you mean 'ping'?\n" in outcome.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cal", "math.add"], "No such command 'cal'; did you mean 'call'?\n"),
        (["queue", "lst"], "No such command 'lst'; did you mean 'list'?\n"),
        (["dead", "shwo"], "No such command 'shwo'; did you mean 'show'?\n"),
        (["nothing-near"], "No such command 'nothing-near'.\n"),
        (
            ["call", "math.add", "1", "--timout", "3"],
            "--timout; did you mean '--timeout'?  (an",
        ),
    ],
)
def test_what_is_misspelled_on_the_command_line_is_told_with_the_nearest(
    amphora_anywhere: Amphora, words: list[str], told: str
) -> None:
    outcome = amphora_anywhere(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err


def test_python_m_amphora_is_the_same_command() -> None:
    with PythonProcess("-m", "amphora", "--version") as process:
        assert process.wait() == 0
        assert process.lines == [f"amphora {package.__version__}"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("sta", ["stats"]), ("queue cr", ["create"]), ("call math.add --rout", ["--routing-key"])],
)
def test_words_are_completed_in_a_shell(
    amphora_anywhere: Amphora,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    offered: list[str],
) -> None:
    monkeypatch.setenv("_AMPHORA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"amphora {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    with pytest.raises(SystemExit):
        amphora_anywhere()
    found = [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]
    assert found == offered
