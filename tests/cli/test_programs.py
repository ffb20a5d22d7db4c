"""Finding the server of a program, and noticing that its source has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amphora.cli.serving.interpreter import current_directory, python_command
from amphora.cli.serving.programs import CannotLoad, load_server, parse_target
from amphora.cli.serving.sources import Patterns, Sources
from tests.support.processes import ROOT

SERVER = "from amphora import AmqpRpcServer\nserver = AmqpRpcServer('math')\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory; what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


# -- the server -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("math", ("math", "server")),
        ("math:server", ("math", "server")),
        ("shop.workers:make_server", ("shop.workers", "make_server")),
        ("a.b.c:Config.server", ("a.b.c", "Config.server")),
    ],
)
def test_a_target_is_a_module_and_a_name(target: str, parts: tuple[str, str]) -> None:
    assert parse_target(target) == parts


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("math.py", "try math:server"),
        ("./shop/workers.py", "try shop.workers:server"),
        ("shop/workers:server", "try shop.workers:server"),
        ("math.py:server", "try math:server"),
        ("math:", "try math:server"),
        ("math:make()", "try math:server"),
        ("", "package.module:server"),
        (":server", "package.module:server"),
        ("3d:server", "package.module:server"),
    ],
)
def test_a_target_that_is_none_gets_a_hint(target: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_target(target)


def test_a_server_is_found_in_the_current_directory(here: Path) -> None:
    (here / "prog_a.py").write_text(SERVER)
    assert load_server("prog_a").namespace == "math"
    assert load_server("prog_a:server") is sys.modules["prog_a"].server


def test_a_factory_is_called(here: Path) -> None:
    (here / "prog_b.py").write_text(f"{SERVER}def make():\n    return server\n")
    assert load_server("prog_b:make").namespace == "math"


def test_a_server_may_be_an_attribute_of_something(here: Path) -> None:
    (here / "prog_c.py").write_text(f"{SERVER}class Config:\n    it = server\n")
    assert load_server("prog_c:Config.it").namespace == "math"


def test_a_worker_of_arpcs_is_a_server(here: Path) -> None:
    (here / "prog_d.py").write_text(
        "from amphora.arpc import mq\n"
        "class Service:\n"
        "    def c_add(self, req):\n"
        "        return {'res': req['x'] + req['y']}\n"
        "def make():\n"
        "    return mq.make_json_server(mq.AMQPOperations(), 'example', Service())\n"
        "worker = make()\n"
    )
    server = load_server("prog_d:worker")
    assert server is sys.modules["prog_d"].worker.server
    assert load_server("prog_d:make").namespace == "example"
    with pytest.raises(CannotLoad, match=r"its servers are called worker$"):
        load_server("prog_d:wroker")


@pytest.mark.parametrize(
    ("source", "target", "complaint"),
    [
        ("", "nowhere", r"there is no module 'nowhere', neither in /.* nor on"),
        ("", "no.where", r"there is no module 'no', neither"),
        ("", "prog.sub", r"there is no module 'prog.sub', neither"),
        ("", "prog:server", r"the module prog \(.*prog.py\) has no 'server'; a server is made in"),
        (SERVER, "prog:srv", r"has no 'srv'; its servers are called server$"),
        ("server = 42", "prog", r"prog is not a server and returns none; it is 42$"),
        ("def server(): return 42", "prog", r"prog\(\) returns 42, and no server$"),
        ("def server(): pass", "prog", r"prog\(\) returns None, and no server$"),
        ("import nowhere", "prog", r"prog cannot be imported\nTraceback (.*\n)*.*No module named"),
        ("def (", "prog", r"prog cannot be imported\n.*prog.py\", line 1\n(.*\n)*SyntaxError"),
        ("1/0", "prog", r"prog cannot be imported\nTraceback .*\n  File \".*prog.py\", line 1"),
        ("def server():\n  1/0", "prog", r"prog\(\) raised\nTraceback .*\n  File \".*prog.py\""),
        (
            "raise SystemExit(3)",
            "prog",
            r"prog cannot be imported: it exits with 3\. ",
        ),
        ("def server(): exit('x')", "prog", r"prog\(\) exits with 'x'\. What the program does as"),
        ("def server(x): pass", "prog", r"prog\(\) raised\n(.*\n)*TypeError: .*argument: 'x'"),
        ("", "folder", r"the module folder \(.*/folder\) has no 'server'; a server is made in"),
        (
            "class App:\n  @property\n  def server(self): 1/0\napp = App()",
            "prog:app.server",
            r"prog:app.server cannot be had: server raised\n(.*\n)*ZeroDivisionError",
        ),
        (
            "class Lazy:\n  @property\n  def __class__(self): 1/0\nlazy = Lazy()",
            "prog:srv",
            r"has no 'srv'; a server is made in",
        ),
    ],
)
def test_what_is_wrong_with_a_program_is_told(
    here: Path, source: str, target: str, complaint: str
) -> None:
    (here / "prog.py").write_text(source)
    (here / "folder").mkdir()
    with pytest.raises(CannotLoad, match=complaint) as raised:
        load_server(target)
    assert "amphora/cli" not in str(raised.value)


# -- its source -----------------------------------------------------------------------------------


def touch(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_change_is_reported_once_when_it_is_over(tmp_path: Path) -> None:
    name = touch(tmp_path / "a.py")
    touch(tmp_path / "b.py")
    sources = Sources(str(tmp_path), "a")
    assert sources.changed() == []
    touch(tmp_path / "a.py", "1")
    assert sources.changed() == []  # somebody may be writing more
    touch(tmp_path / "a.py", "12")
    assert sources.changed() == []
    assert sources.changed() == [name]
    assert sources.changed() == []


def test_new_and_removed_files_are_changes(tmp_path: Path) -> None:
    old = Path(touch(tmp_path / "package" / "old.py"))
    sources = Sources(str(tmp_path), "package")
    old.unlink()
    new = touch(tmp_path / "package" / "sub" / "new.py")
    assert sources.changed() == []
    assert sources.changed() == [str(old), new]


@pytest.mark.parametrize(
    "name", [".git/a.py", "__pycache__/a.py", "venv/lib/a.py", "a.pyc", "node_modules/x/a.py"]
)
def test_what_is_not_the_programs_source_is_left_out(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "venv" / "pyvenv.cfg")
    sources = Sources(str(tmp_path), "a")
    touch(tmp_path / name)
    assert sources.changed() == []
    assert sources.changed() == []


def test_a_program_that_lies_elsewhere_is_watched_where_it_lies(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere / "shop" / "__init__.py", "raise SystemExit('imported')")
    name = touch(elsewhere / "shop" / "workers.py")
    single = touch(elsewhere / "single.py")
    sys.path.append(str(elsewhere))
    package, module = Sources(str(here), "shop.workers"), Sources(str(here), "single")
    touch(Path(name), "1")
    os.truncate(single, 1)
    for sources, changed in ((package, name), (module, single)):
        assert sources.changed() == []
        assert sources.changed() == [changed]


def test_linked_directories_are_looked_at_once(tmp_path: Path) -> None:
    name = touch(tmp_path / "elsewhere" / "shared.py")
    here = tmp_path / "here"
    touch(here / "a.py")
    (here / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(here)
    (here / "itself").symlink_to(here)
    (here / "nowhere").symlink_to(here / "missing")
    sources = Sources(str(here), "a")
    touch(Path(name), "1")
    assert sources.changed() == []
    assert sources.changed() == [str(here / "linked" / "shared.py")]


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    for release in ("one", "two"):
        touch(tmp_path / release / "a.py", release * len(release))
    current = tmp_path / "current"
    current.symlink_to("one")
    sources = Sources(str(current), "a")
    current.unlink()
    current.symlink_to("two")
    os.utime(tmp_path / "two" / "a.py", (1, 1))
    assert sources.changed() == []
    assert sources.changed() == [str(current / "a.py")]


def test_in_a_directory_that_is_too_big_the_program_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("amphora.cli.serving.sources.MOST_DIRECTORIES", 10)
    for number in range(30):
        touch(tmp_path / f"folder{number:02}" / "b.py")
    names = [touch(tmp_path / "z.py"), touch(tmp_path / "shop" / "workers.py")]
    single, package = Sources(str(tmp_path), "z"), Sources(str(tmp_path), "shop.workers")
    assert caplog.text.count("too many directories") == 2
    for name in names:
        touch(Path(name), "1")
    for sources, name in ((single, names[0]), (package, names[1])):
        assert sources.changed() == []
        assert name in sources.changed()
    assert caplog.text.count("too many directories") == 2


def test_the_whole_system_is_looked_at_in_bounded_time() -> None:
    sources = Sources("/", "no_such_program")
    assert sources.changed() == []


@pytest.mark.parametrize(
    ("include", "exclude", "seen"),
    [
        ([], [], {"a.py", "tests/b.py", "tests/deep/c.py"}),
        (["*.yaml"], [], {"a.py", "a.yaml", "tests/b.py", "tests/deep/c.py", "tests/d.yaml"}),
        (["tests/*.yaml"], ["*.py"], {"tests/d.yaml"}),
        (["*"], ["tests"], {"a.py", "a.yaml", "deep"}),
        ([], ["tests/deep"], {"a.py", "tests/b.py"}),
        ([], ["tests/*"], {"a.py"}),
        (["*.yaml"], ["a.*"], {"tests/b.py", "tests/deep/c.py", "tests/d.yaml"}),
    ],
)
def test_patterns_say_what_is_looked_at(
    tmp_path: Path, include: list[str], exclude: list[str], seen: set[str]
) -> None:
    names = ["a.py", "a.yaml", "deep", "tests/b.py", "tests/deep/c.py", "tests/d.yaml"]
    for name in names:
        touch(tmp_path / name)
    sources = Sources(str(tmp_path), "a", patterns=Patterns(str(tmp_path), include, exclude))
    for name in names:
        touch(tmp_path / name, "1")
    assert sources.changed() == []
    assert {os.path.relpath(each, tmp_path) for each in sources.changed()} == seen


# -- its python -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-I"], ["-I", "-u"]),
        (["-E", "-s"], ["-E", "-s", "-u"]),
        (["-O", "-B"], ["-O", "-B"]),
        (["-X", "importtime", "-X", "pycache_prefix=/x"], ["importtime", "pycache_prefix=/x"]),
        (["-W", "error::UserWarning"], ["-Werror::UserWarning"]),
    ],
)
def test_a_workers_python_has_the_flags_of_this_one(
    tmp_path: Path, flags: list[str], expected: list[str]
) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from amphora.cli.serving.interpreter import python_command\n"
        f"print(*python_command({str(tmp_path)!r}, False))"
    )
    words = subprocess.check_output(
        [sys.executable, *flags, "-c", code], cwd=tmp_path, text=True, stderr=subprocess.DEVNULL
    ).split()
    assert words[0] == sys.executable
    assert words[-2:] == ["-m", "amphora"]
    assert set(expected) <= set(words)
    # Not even a queue.py of the program's is taken for Python's own.
    assert "-P" in words


def test_an_interpreter_below_the_directory_is_named_by_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    current = tmp_path / "current"
    current.symlink_to("one")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "one" / "venv" / "bin" / "python"))
    directory = current_directory()
    assert directory == str(current)
    assert python_command(directory, False)[0] == str(current / "venv" / "bin" / "python")
