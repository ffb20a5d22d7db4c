"""The pages of the manual, and the blocks of code that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.pages import DOCS
from tests.support.processes import ROOT

DIRECTIVE = re.compile(r"^( *)\.\. (code-block|literalinclude):: *(\S*)$")
OPTION = re.compile(r"^ +:([\w-]+): ?(.*)$")
LITERAL = re.compile(r"^( *)(?!\.\. )(.*[^:.])?::$")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What of a file is shown, if not all of it.
PARTS = {"pyobject", "lines", "start-at", "start-after", "end-at", "end-before"}


@dataclass
class Block:
    """A block of code on a page.

    Attributes:
        line: the number of its first line.
        language: what the page says that it is; empty behind a plain `::`.
        text: what is shown; empty if that is in a file.
        file: the file that is shown.
        options: what the directive says besides.
    """

    line: int
    language: str = ""
    text: str = ""
    file: Path | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_part(self) -> bool:
        """Whether it shows a part of its file."""
        return not PARTS.isdisjoint(self.options)


def pages() -> list[Path]:
    """Return every page of the manual, and the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.rst"))]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return [
            Block(text.count("\n", 0, found.start()) + 1, found[1], found[2])
            for found in FENCE.finditer(text)
        ]
    return list(_blocks(page, text.splitlines()))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if directive := DIRECTIVE.match(line):
            indent, kind, argument = directive.groups()
            block = Block(number)
            while number < len(lines) and (option := OPTION.match(lines[number])):
                block.options[option[1]] = option[2]
                number += 1
            if kind == "literalinclude":
                folder = DOCS if argument.startswith("/") else page.parent
                block.file = (folder / argument.lstrip("/")).resolve()
                block.language = block.options.get("language", block.file.suffix[1:])
            else:
                block.language = argument
                block.text, number = _indented(lines, number, len(indent))
            yield block
        elif literal := LITERAL.match(line):
            block = Block(number)
            block.text, number = _indented(lines, number, len(literal[1]))
            yield block


def _indented(lines: list[str], number: int, indent: int) -> tuple[str, int]:
    """Return the lines that are indented by more than `indent`, and the next line's number."""
    shown = []
    while number < len(lines):
        line = lines[number]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        shown.append(line)
        number += 1
    widths = [len(line) - len(line.lstrip()) for line in shown if line.strip()]
    width = min(widths, default=0)
    return "\n".join(line[width:] for line in shown).strip("\n") + "\n", number
