"""Which part of amphora may import which, checked on the source's own import statements."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest
from gevent import subprocess

ROOT = Path(__file__).parents[1]

# A part is a file or folder right in the package. What it may import of the others:
ALLOWED = {
    "errors": set[str](),
    "wire": {"errors"},
    "net": {"errors"},
    "transport": {"net", "wire", "errors"},
    "rpc": {"transport", "net", "wire", "errors"},
    "broker": {"net", "wire", "errors"},
    "arpc": {"rpc", "transport", "net", "wire", "errors"},
    "stores": {"rpc", "net", "errors"},
    "export": {"rpc", "errors"},
    "testing": {"rpc", "transport", "broker", "net", "wire", "errors"},
    "web": {"observe", "rpc", "transport", "net", "errors"},
    "gateway": {"web", "export", "rpc", "transport", "net", "errors"},
    "observe": {"rpc", "transport", "net", "wire", "errors"},
    "cli": {
        *("gateway", "web", "export", "observe", "testing", "arpc", "rpc"),
        *("transport", "broker", "net", "wire", "errors"),
    },
}
# The package's own names, as in `from amphora import Session`: for what is above the others.
ALLOWED["__init__"] = {"arpc", "stores", "rpc", "transport", "wire", "errors"}
for above in ("testing", "cli"):
    ALLOWED[above].add("__init__")
ALLOWED["__main__"] = {"cli"}

# A room is a folder in a part, the files right in a part together, or one file that stands above
# the others.  What it may import of its own part, beside itself:
ROOMS: dict[str, set[str]] = {
    "transport": set(),
    "transport.channels": set(),
    "transport.connections": {"transport.channels", "transport"},
    "transport.links": {"transport.connections", "transport.channels"},
    "transport.publishing": {"transport.links", "transport.connections", "transport.channels"},
    "transport.session": {
        *("transport.publishing", "transport.links", "transport.connections"),
        *("transport.channels", "transport"),
    },
    "transport.consuming": {
        *("transport.session", "transport.links", "transport.connections"),
        "transport.channels",
    },
    "rpc.contract": set(),
    "rpc.contract.types": {"rpc.contract"},
    "rpc.functions": {"rpc.contract", "rpc.contract.types"},
    "rpc.context": {"rpc.contract"},
    "rpc.client.workers": {"rpc.contract"},
    "rpc.client.waiting": {"rpc.client.workers", "rpc.context", "rpc.contract"},
    "rpc.client.streams": {"rpc.client.waiting", "rpc.client.workers", "rpc.contract"},
    "rpc.client": {
        "rpc.client.streams",
        "rpc.client.waiting",
        "rpc.client.workers",
        "rpc.contract",
        "rpc.contract.types",
        "rpc.context",
    },
    "rpc.keyed": {"rpc.contract"},
    "rpc.server.settings": {"rpc.contract.types", "rpc.context", "rpc.functions"},
    "rpc.server.progress": {"rpc.contract", "rpc.context"},
    "rpc.server.answers": {"rpc.server.progress", "rpc.contract"},
    "rpc.server.streams": {
        "rpc.server.answers",
        "rpc.server.progress",
        "rpc.contract",
        "rpc.context",
    },
    "rpc.server.requests": {
        "rpc.server.streams",
        "rpc.server.answers",
        "rpc.server.progress",
        "rpc.contract",
        "rpc.context",
        "rpc.functions",
    },
    "rpc.server.operators": {
        "rpc.server.requests",
        "rpc.server.answers",
        "rpc.server.progress",
        "rpc.server.settings",
        "rpc.contract",
        "rpc.contract.types",
        "rpc.context",
        "rpc.functions",
    },
    "rpc.server": {
        "rpc.server.operators",
        "rpc.server.requests",
        "rpc.server.streams",
        "rpc.server.answers",
        "rpc.server.progress",
        "rpc.server.settings",
        "rpc.keyed",
        "rpc.contract",
        "rpc.contract.types",
        "rpc.context",
        "rpc.functions",
    },
    "broker": {"broker.protocol", "broker.model"},
    "broker.protocol": {"broker.model"},
    "broker.model": set(),
    "cli": set(),
    "cli.calling": {"cli"},
    "cli.operating": {"cli", "cli.calling"},
    "cli.serving": {"cli"},
    "cli.demo": {"cli"},
    "cli.starting": {"cli"},
    "cli.root": {
        *("cli", "cli.calling", "cli.operating", "cli.serving", "cli.demo", "cli.starting"),
    },
    "cli.__init__": {"cli.root"},
}

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
# What pyproject.toml has installed with amphora; pytest is there where its plugin is used.
NEEDED = {"click", "gevent", "msgspec", "pamqp"}
# What only one file imports, which is imported only where it is installed.
OPTIONAL = {
    "opentelemetry": Path("observe", "tracing.py"),
    "prometheus_client": Path("observe", "exposition.py"),
    "rich": Path("cli", "styled.py"),
}
PAMQP_FILE = Path("wire", "codec.py")
# What has to know how long something really took; the commands are processes of their own.
SYSTEM_TIME = {
    Path("net", "clock.py"),
    Path("net", "log.py"),
    Path("rpc", "server", "requests", "pool.py"),
    Path("rpc", "server", "requests", "watchdog.py"),
    Path("stores", "sqlite.py"),
}

DESIGN = ROOT / "docs" / "explanation" / "design.rst"


def broken_rules(package: Path) -> Iterator[str]:
    """Yield a sentence for each import in `package` that there must not be."""
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package)
        part = file.parts[0].removesuffix(".py")
        if part not in ALLOWED:
            yield f"{file} belongs to no known part"
            continue
        room = room_of(module_of(file))
        if not in_a_room(file, room):
            yield f"{file} belongs to no known room"
            continue
        for module in imported_modules(path.read_text(encoding="utf-8"), package.name, file):
            top, *below = module.split(".")
            if top == package.name:
                other = below[0] if below and below[0] in ALLOWED else "__init__"
                next_door = room_of(".".join(below))
                if other != part:
                    if other not in ALLOWED[part]:
                        yield f"{file} imports {module}: {part} must not know {other}"
                elif room is not None and next_door not in (None, room, *ROOMS[room]):
                    yield f"{file} imports {module}: {room} must not know {next_door}"
            elif top in NOWHERE:
                yield f"{file} imports {module}: nothing that arrives is unpickled"
            elif top == "pamqp" and file != PAMQP_FILE:
                yield f"{file} imports {module}: only {PAMQP_FILE} may"
            elif file != OPTIONAL.get(top, file):
                yield f"{file} imports {module}: only {OPTIONAL[top]} may"
            elif part == "wire" and top in NO_INPUT_OR_OUTPUT:
                yield f"{file} imports {module}: wire is about bytes alone"


def room_of(module: str) -> str | None:
    """Return the room of a module, None if it is in a part that has no rooms."""
    names = module.split(".")
    for length in range(len(names), 0, -1):
        room = ".".join(names[:length])
        if room in ROOMS:
            return room
    return None


def in_a_room(file: Path, room: str | None) -> bool:
    """Return whether a file of a part that has rooms is in one of them."""
    part = file.parts[0]
    if room is None:
        has_rooms = any(known.startswith(f"{part}.") for known in ROOMS)
        return not has_rooms or file.name == "__init__.py"
    return room != part or len(file.parts) <= 2


def module_of(file: Path) -> str:
    """Return the name of the module in a file of a package, as seen from the package."""
    return ".".join(file.with_suffix("").parts)


def imported_modules(source: str, package: str, file: Path) -> Iterator[str]:
    """Yield the full name of each module that `source` imports, wherever in it that is.

    A name that is imported from a module stands behind it: it may be a module as well.
    """
    folder = [package, *file.parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def import_circle(package: Path) -> list[str]:
    """Return modules of which each imports the next and the last the first; [] if none do.

    An import counts wherever it is: for a type alone, or in a function.
    """
    imports: dict[str, set[str]] = {}
    files = {path.relative_to(package) for path in package.rglob("*.py")}
    modules = {module_of(file): file for file in files}
    for module, file in modules.items():
        source = (package / file).read_text(encoding="utf-8")
        imports[module] = set()
        for name in imported_modules(source, package.name, file):
            top, _, below = name.partition(".")
            found = find_module(below, modules) if top == package.name else None
            if found is not None and found != module:
                imports[module].add(found)
    # Whoever imports nothing that is left is on no circle.
    done: set[str] = set()
    while ended := {name for name in imports.keys() - done if imports[name] <= done}:
        done |= ended
    walk: list[str] = []
    name = min(imports.keys() - done, default="")
    while name and name not in walk:
        walk.append(name)
        name = min(imports[name] - done)
    return walk[walk.index(name) :] if walk else []


def find_module(name: str, modules: Container[str]) -> str | None:
    """Return the module that a name is, or is imported from; None if it is in none of them."""
    names = name.split(".")
    for length in range(len(names), -1, -1):
        for module in (".".join(names[:length]), ".".join([*names[:length], "__init__"])):
            if module in modules:
                return module
    return None


def printed_tree(page: str) -> dict[str, str]:
    """Return what a page says of each file and folder (these end with a slash) of amphora.

    Raises:
        ValueError: a line says nothing of what it names, or names it twice.
    """
    tree: dict[str, str] = {}
    folders: list[str] = []
    for line in page[page.index("    amphora/") :].splitlines():
        if not line.startswith("    "):
            break
        name, _, phrase = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        folders = [*folders[:depth], name]
        path = "".join(folders)
        if not phrase.strip() or path in tree:
            raise ValueError(f"what is this line about? {line}")
        tree[path] = phrase.strip()
    return tree


def tree_on_disk(package: Path) -> set[str]:
    """Return the files and folders (these end with a slash) of a package, beside __init__.py."""
    tree = set()
    for path in package.rglob("*.py"):
        file = path.relative_to(package.parent)
        if file.name != "__init__.py":
            tree.add(file.as_posix())
        tree.update(f"{folder.as_posix()}/" for folder in file.parents if folder.name)
    return tree


def test_imports_point_downward_only() -> None:
    assert list(broken_rules(ROOT / "amphora")) == []


def test_no_files_import_each_other() -> None:
    assert import_circle(ROOT / "amphora") == []


def test_the_documentation_prints_the_tree_that_is_there() -> None:
    printed = printed_tree(DESIGN.read_text(encoding="utf-8")).keys()
    there = tree_on_disk(ROOT / "amphora")
    assert (printed - there, there - printed) == (set(), set())


def test_amphora_needs_little_and_is_python_alone() -> None:
    package = ROOT / "amphora"
    needed = set()
    for path in package.rglob("*.py"):
        file = path.relative_to(package)
        for module in imported_modules(path.read_text(encoding="utf-8"), "amphora", file):
            needed.add(module.partition(".")[0])
    # A newer Python has it; and who checks types has the other.
    newer = {"annotationlib", "typing_extensions"}
    ours = {"amphora", "pytest_amphora", "pytest"}
    assert needed - sys.stdlib_module_names - newer - ours - set(OPTIONAL) == NEEDED
    native = {".c", ".dll", ".pyd", ".pyx", ".so"}
    assert not [path for path in package.rglob("*") if path.suffix in native]


def test_deadlines_are_read_from_one_clock() -> None:
    package = ROOT / "amphora"
    paths = {path.relative_to(package): path for path in package.rglob("*.py")}
    reading = {
        file
        for file, path in paths.items()
        if file.parts[0] not in ("cli", "testing")
        and re.search(r"time import .*monotonic|time\.monotonic\b", path.read_text("utf-8"))
    }
    assert reading - {Path("broker", "model", "virtual_host.py")} == SYSTEM_TIME


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
        ("cli/operating/top.py", "def f():\n    import rich.live", "only cli/styled.py may"),
        ("wire/framing.py", "from amphora.rpc import client", "wire must not know rpc"),
        ("wire/framing.py", "from amphora import transport", "wire must not know transport"),
        ("wire/framing.py", "from ..transport import stream", "wire must not know transport"),
        ("wire/framing.py", "from .. import rpc", "wire must not know rpc"),
        ("transport/session.py", "def f():\n    import amphora.rpc", "transport must not know rpc"),
        ("transport/session.py", "import pickle", "nothing that arrives is unpickled"),
        ("rpc/server/b.py", "from amphora.broker.model import queues", "rpc must not know broker"),
        ("rpc/server/b.py", "from amphora import testing", "rpc must not know testing"),
        ("broker/server.py", "import amphora.transport.session", "broker must not know transport"),
        (
            "broker/model/queues.py",
            "from amphora.broker import server",
            "broker.model must not know broker",
        ),
        (
            "broker/protocol/node.py",
            "if TYPE_CHECKING:\n    from amphora.broker.clients import Client",
            "broker.protocol must not know broker",
        ),
        ("broker/more/tools.py", "", "broker/more/tools.py belongs to no known room"),
        ("cli/calling/call.py", "import amphora.cli.root", "cli.calling must not know cli.root"),
        (
            "cli/calling/call.py",
            "from ..serving import signals",
            "cli.calling must not know cli.serving",
        ),
        (
            "cli/demo/demo.py",
            "from amphora.cli.serving.serve import serve",
            "cli.demo must not know cli.serving",
        ),
        ("errors.py", "from amphora.wire import framing", "errors must not know wire"),
        ("errors.py", "from yaml import load", "nothing that arrives is unpickled"),
        ("rpc/client/a.py", "from amphora import AmqpRpcServer", "rpc must not know __init__"),
        (
            "rpc/client/a.py",
            "from amphora.rpc.server import b",
            "rpc.client must not know rpc.server",
        ),
        ("rpc/server/b.py", "import amphora.rpc.client.a", "rpc.server must not know rpc.client"),
        (
            "rpc/server/b.py",
            "from amphora.rpc import client",
            "rpc.server must not know rpc.client",
        ),
        (
            "rpc/contract/c.py",
            "import amphora.rpc.client.a",
            "rpc.contract must not know rpc.client",
        ),
        (
            "rpc/keyed/d.py",
            "from amphora.rpc.server.b import B",
            "rpc.keyed must not know rpc.server",
        ),
        ("rpc/e.py", "", "rpc/e.py belongs to no known room"),
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
    write(package / "__init__.py", "from amphora.rpc.client.a import AmqpRpcClient")
    write(package / "errors.py", "import enum")
    write(package / "wire" / "codec.py", "import pamqp, struct\nfrom amphora import errors")
    write(package / "wire" / "framing.py", "from amphora.wire.codec import Method")
    write(package / "transport" / "stream.py", "import gevent.socket\nfrom ..wire import framing")
    write(package / "rpc" / "client" / "a.py", "from amphora.transport.session import Session")
    write(package / "broker" / "server.py", "import gevent\nfrom amphora.wire import content")
    write(package / "broker" / "server.py", "from .protocol import node")
    write(package / "broker" / "protocol" / "node.py", "from ..model.queues import Queue")
    write(package / "cli" / "main.py", "from amphora import AmqpRpcClient, broker")
    write(package / "cli" / "root.py", "from amphora.cli.serving.serve import serve")
    write(package / "cli" / "serving" / "serve.py", "from amphora.cli import settings")
    assert list(broken_rules(package)) == []


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        ({"a": "import amphora.b", "b": "from amphora.c import x", "c": "import amphora.d"}, []),
        ({"a": "from amphora import b", "b": "from . import a"}, ["a", "b"]),
        ({"a": "def f():\n    from amphora.b import x", "b": "import amphora.a"}, ["a", "b"]),
        ({"a": "if TYPE_CHECKING:\n    import amphora.b", "b": "import amphora.a"}, ["a", "b"]),
        (
            {
                "a": "from amphora.b import x",
                "b": "from amphora.c.d import y",
                "c/d": "from amphora.c import x\nfrom amphora.e import z",
                "c/__init__": "from amphora.b import y",
                "e": "import os",
            },
            ["b", "c.d", "c.__init__"],
        ),
    ],
)
def test_a_circle_of_imports_is_found(
    tmp_path: Path, sources: dict[str, str], circle: list[str]
) -> None:
    for name, source in sources.items():
        write(tmp_path / "amphora" / f"{name}.py", source)
    assert import_circle(tmp_path / "amphora") == circle


def test_the_tree_on_a_page_is_read(tmp_path: Path) -> None:
    page = """
    amphora/        calls
      errors.py     all of them
      wire/         bytes
        codec.py    methods
      cli/          the command

What follows is no part of it.
"""
    assert printed_tree(page) == {
        "amphora/": "calls",
        "amphora/errors.py": "all of them",
        "amphora/wire/": "bytes",
        "amphora/wire/codec.py": "methods",
        "amphora/cli/": "the command",
    }
    with pytest.raises(ValueError, match=r"what is this line about\?   *errors.py"):
        printed_tree("    amphora/    calls\n      errors.py\n")
    for file in ("__init__.py", "errors.py", "wire/__init__.py", "wire/codec.py"):
        write(tmp_path / "amphora" / file, "")
    assert tree_on_disk(tmp_path / "amphora") == {
        "amphora/",
        "amphora/errors.py",
        "amphora/wire/",
        "amphora/wire/codec.py",
    }


def write(path: Path, source: str) -> None:
    """Write a file, and make the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
