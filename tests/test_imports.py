"""Which part of amphora may import which, checked on the source's own import statements."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent import subprocess

ROOT = Path(__file__).parents[1]

# A part is a file or folder right in the package. What it may import of the others:
ALLOWED = {
    "errors": set[str](),
    "wire": {"errors"},
    "transport": {"wire", "errors"},
    "rpc": {"transport", "wire", "errors"},
    "broker": {"wire", "errors"},
    "arpc": {"rpc", "transport", "wire", "errors"},
    "testing": {"rpc", "transport", "broker", "wire", "errors"},
    "cli": {"testing", "arpc", "rpc", "transport", "broker", "wire", "errors"},
}
# The package's own names, as in `from amphora import Session`: for what is above the others.
ALLOWED["__init__"] = {"arpc", "rpc", "transport", "wire", "errors"}
for above in ("testing", "cli"):
    ALLOWED[above].add("__init__")
ALLOWED["__main__"] = {"cli"}

# What turns bytes from outside into any object, or runs them.
NOWHERE = {"dill", "jsonpickle", "marshal", "pickle", "shelve", "yaml"}
NO_INPUT_OR_OUTPUT = {
    "asyncio",
    "gevent",
    "logging",
    "select",
    "socket",
    "ssl",
    "threading",
    "time",
}
# What setup.py has installed with amphora; pytest is there where its plugin is used.
NEEDED = {"click", "gevent", "msgspec", "pamqp", "rich"}
PAMQP_FILE = Path("wire", "codec.py")


def broken_rules(package: Path) -> Iterator[str]:
    """Yield a sentence for each import in `package` that there must not be."""
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package)
        part = file.parts[0].removesuffix(".py")
        if part not in ALLOWED:
            yield f"{file} belongs to no known part"
            continue
        for module in imported_modules(path.read_text(encoding="utf-8"), package.name, file):
            top, *below = module.split(".")
            if top == package.name:
                other = below[0] if below and below[0] in ALLOWED else "__init__"
                if other != part and other not in ALLOWED[part]:
                    yield f"{file} imports {module}: {part} must not know {other}"
            elif top in NOWHERE:
                yield f"{file} imports {module}: nothing that arrives is unpickled"
            elif top == "pamqp" and file != PAMQP_FILE:
                yield f"{file} imports {module}: only {PAMQP_FILE} may"
            elif part == "wire" and top in NO_INPUT_OR_OUTPUT:
                yield f"{file} imports {module}: wire is about bytes alone"


def imported_modules(source: str, package: str, file: Path) -> Iterator[str]:
    """Yield the full name of each module that `source` imports, wherever in it that is."""
    folder = [package, *file.parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if module == package:  # `from amphora import wire` is about wire, not about amphora
                yield from (f"{package}.{alias.name}" for alias in node.names)
            else:
                yield module


def test_imports_point_downward_only() -> None:
    assert list(broken_rules(ROOT / "amphora")) == []


def test_amphora_needs_little_and_is_python_alone() -> None:
    package = ROOT / "amphora"
    needed = set()
    for path in package.rglob("*.py"):
        file = path.relative_to(package)
        for module in imported_modules(path.read_text(encoding="utf-8"), "amphora", file):
            needed.add(module.partition(".")[0])
    assert needed - sys.stdlib_module_names - {"amphora", "pytest"} == NEEDED
    native = {".c", ".dll", ".pyd", ".pyx", ".so"}
    assert not [path for path in package.rglob("*") if path.suffix in native]


def test_importing_amphora_patches_nothing() -> None:
    program = """
import pkgutil, importlib, socket, threading
before = socket.socket, threading.Thread
import amphora
for module in pkgutil.walk_packages(amphora.__path__, "amphora."):
    importlib.import_module(module.name)
from gevent import monkey
assert (socket.socket, threading.Thread) == before
assert not monkey.saved, monkey.saved
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "source", "broken"),
    [
        ("wire/framing.py", "import socket", "wire is about bytes alone"),
        ("wire/framing.py", "from gevent.event import Event", "wire is about bytes alone"),
        ("wire/framing.py", "import pamqp.frame", "only wire/codec.py may"),
        ("wire/framing.py", "from amphora.rpc import client", "wire must not know rpc"),
        ("wire/framing.py", "from amphora import transport", "wire must not know transport"),
        ("wire/framing.py", "from ..transport import stream", "wire must not know transport"),
        ("wire/framing.py", "from .. import rpc", "wire must not know rpc"),
        ("transport/session.py", "def f():\n    import amphora.rpc", "transport must not know rpc"),
        ("transport/session.py", "import pickle", "nothing that arrives is unpickled"),
        ("rpc/server.py", "from amphora.broker.model import Queue", "rpc must not know broker"),
        ("rpc/server.py", "from amphora import testing", "rpc must not know testing"),
        ("broker/model.py", "import amphora.transport.stream", "broker must not know transport"),
        ("errors.py", "from amphora.wire import framing", "errors must not know wire"),
        ("errors.py", "from yaml import load", "nothing that arrives is unpickled"),
        ("rpc/client.py", "from amphora import AmqpRpcServer", "rpc must not know __init__"),
        ("wire/framing.py", "import amphora", "wire must not know __init__"),
        ("__init__.py", "from amphora.cli import main", "__init__ must not know cli"),
        ("misc/tools.py", "", "misc/tools.py belongs to no known part"),
    ],
)
def test_an_import_against_the_arrows_is_found(
    tmp_path: Path, file: str, source: str, broken: str
) -> None:
    write(tmp_path / "amphora" / file, source)
    (sentence,) = broken_rules(tmp_path / "amphora")
    assert sentence.endswith(broken)


def test_imports_along_the_arrows_are_allowed(tmp_path: Path) -> None:
    package = tmp_path / "amphora"
    write(package / "__init__.py", "from amphora.rpc.client import AmqpRpcClient")
    write(package / "errors.py", "import enum")
    write(package / "wire" / "codec.py", "import pamqp, struct\nfrom amphora import errors")
    write(package / "wire" / "framing.py", "from amphora.wire.codec import Method")
    write(package / "transport" / "stream.py", "import gevent.socket\nfrom ..wire import framing")
    write(package / "rpc" / "client.py", "from amphora.transport.session import Session")
    write(package / "broker" / "server.py", "import gevent\nfrom amphora.wire import content")
    write(package / "cli" / "main.py", "from amphora import AmqpRpcClient, broker")
    assert list(broken_rules(package)) == []


def write(path: Path, source: str) -> None:
    """Write a file, and make the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
