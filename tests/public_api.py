"""The public API as text: every name that users may import, with its signature.

    python -m tests.public_api    # writes tests/public_api.txt anew

`test_public_api.py` compares.  A difference there is a change that users may notice: where it is
meant, write the file anew, and say in CHANGELOG.md what it is.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tests.support.commands import commands_of

FILE = Path(__file__).with_suffix(".txt")

# What users import from, or are told about; and of a module without __all__, which names.
MODULES: dict[str, tuple[str, ...]] = {
    "amphora": (),
    "amphora.testing": (),
    "amphora.gateway": (),
    "amphora.arpc.mq": ("AMQPOperations", "JSONServer", "ServiceCaller", "make_json_server"),
    "amphora.transport.channels.raw_channel": ("RawChannel",),
    "amphora.transport.connections.endpoint": ("endpoint",),
    "amphora.observe.tracing": ("trace",),
    "amphora.observe.metrics": ("Metrics",),
    "amphora.observe.pool": ("Pool", "added", "decode", "encode"),
    "amphora.observe.exposition": ("SnapshotCollector", "exposition"),
    "pytest_amphora": (
        "amphora_broker",
        "amphora_calls",
        "amphora_client",
        "amphora_clock",
        "amphora_mock",
        "amphora_server",
        "module_amphora_broker",
        "module_amphora_calls",
        "module_amphora_client",
        "module_amphora_clock",
        "module_amphora_mock",
        "module_amphora_server",
        "session_amphora_broker",
        "session_amphora_calls",
        "session_amphora_client",
        "session_amphora_clock",
        "session_amphora_mock",
        "session_amphora_server",
    ),
}


def describe() -> str:
    """Return the whole API as text."""
    lines: list[str] = []
    for name, members in MODULES.items():
        module = importlib.import_module(name)
        lines += [f"module {name}", ""]
        for member in members or sorted(module.__all__):
            lines += [*describe_member(member, getattr(module, member)), ""]
    from amphora.cli.root import commands

    lines += ["command line", "", *describe_command("amphora", commands)]
    return "\n".join(lines) + "\n"


def describe_member(name: str, value: Any) -> Iterator[str]:
    """Yield the lines of a class or function."""
    if not inspect.isclass(value):
        yield f"def {name}{signature_of(value)}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if "__init__" in members_of(value) or hasattr(value, "__struct_fields__"):
        yield f"    def __init__{signature_of(value)}"
    for member, found in sorted(members_of(value).items()):
        if not member.startswith("_"):
            yield from (f"    {line}" for line in describe_attribute(member, found))


def members_of(of: type) -> dict[str, Any]:
    """Return what a class and the classes of amphora that it inherits from define."""
    found: dict[str, Any] = {}
    for each in reversed(of.__mro__):
        if each.__module__.partition(".")[0] == "amphora":
            found.update(vars(each))
            found.update(dict.fromkeys(inspect.get_annotations(each)))
            found.update(dict.fromkeys(set_by(vars(each).get("__init__")), None))
    return found


def set_by(constructor: Any) -> Iterator[str]:
    """Yield the attributes that a constructor sets."""
    if not inspect.isfunction(constructor) or constructor.__code__.co_filename == "<string>":
        return
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(constructor)))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def describe_attribute(name: str, value: Any) -> Iterator[str]:
    """Yield the lines of a method, a property or anything else in a class."""
    if isinstance(value, property):
        result = signature_of(value.fget) if value.fget else ""
        yield f"property {name}{result.removeprefix('()')}"
    elif isinstance(value, classmethod | staticmethod):
        yield f"{type(value).__name__} {name}{signature_of(value.__func__)}"
    elif inspect.isfunction(value):
        for each in typing.get_overloads(value) or [value]:
            yield f"def {name}{signature_of(each)}"
    else:
        yield f"attribute {name}"


def signature_of(function: Callable[..., Any]) -> str:
    """Return a signature, with annotations as they stand in the source."""
    function = getattr(function, "__wrapped__", function)
    signature = inspect.signature(function)
    words: list[str] = []
    before = None
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if before == parameter.POSITIONAL_ONLY != parameter.kind:
            words.append("/")
        stars: dict[Any, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        if parameter.kind == parameter.KEYWORD_ONLY and "*" not in [word[:1] for word in words]:
            words.append("*")
        word = stars.get(parameter.kind, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            word += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            default = parameter.default
            word += f" = {default if isinstance(default, enum.Enum) else repr(default)}"
        words.append(word)
        before = parameter.kind
    result = signature.return_annotation
    after = "" if result is signature.empty else f" -> {annotation(result)}"
    return f"({', '.join(words)}){after}"


def annotation(value: Any) -> str:
    """Return an annotation as text."""
    return value if isinstance(value, str) else inspect.formatannotation(value)


def describe_command(name: str, command: click.Command) -> Iterator[str]:
    """Yield a command with its arguments and options, and then those that it has."""
    words = ["/".join([*each.opts, *each.secondary_opts]) for each in command.params]
    yield " ".join([name, *words])
    if isinstance(command, click.Group):
        for below, each in sorted(commands_of(command).items()):
            if not each.hidden:
                yield from describe_command(f"{name} {below}", each)


if __name__ == "__main__":
    FILE.write_text(describe(), encoding="utf-8")
    sys.stdout.write(f"written: {FILE.name}\n")
