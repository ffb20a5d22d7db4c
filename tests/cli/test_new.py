"""`amphora new`: which names a project may have, where it may be, and what it depends on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import tomllib
from pathlib import Path

import pytest

import amphora as package
from amphora.cli.failures import Exit
from amphora.cli.starting import origin
from amphora.cli.starting.names import package_of
from amphora.cli.starting.new import FILES, in_make
from tests.cli.conftest import Amphora
from tests.support.processes import ROOT

TEMPLATES = ROOT / "amphora" / "cli" / "starting" / "template"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_project_is_made_and_the_next_commands_are_told(
    amphora_anywhere: Amphora, here: Path
) -> None:
    outcome = amphora_anywhere("new", "my-shop")
    assert (outcome.code, outcome.err) == (Exit.DONE, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "Made my-shop:"
    after = lines.index("Next:") + 2
    commands = [line.partition("#")[0].strip() for line in lines[after:]]
    assert commands == ["cd my-shop", "make test", "make broker"]
    made = {path.relative_to(here / "my-shop").as_posix() for path in here.rglob("*.*")}
    assert {"my_shop/server.py", "tests/test_my_shop.py", ".dockerignore", "local.mk"} <= made
    # What it says that it made is there.
    for line in lines[2 : lines.index("Next:") - 1]:
        assert (here / "my-shop" / line.split()[0]).is_file()


def test_every_template_is_used_and_no_placeholder_is_left(
    amphora_anywhere: Amphora, here: Path
) -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == {f"{name}.in" for name, _, _ in FILES}
    amphora_anywhere("new", "shop")
    for path in here.rglob("*"):
        assert not path.is_file() or "{{" not in path.read_text(), path


def test_the_namespace_is_the_name_and_amphora_is_at_least_this_one(
    amphora_anywhere: Amphora, here: Path
) -> None:
    amphora_anywhere("new", "My-shop")
    assert 'AmqpRpcServer("My-shop")' in (here / "My-shop" / "my_shop" / "server.py").read_text()
    project = tomllib.loads((here / "My-shop" / "pyproject.toml").read_text())["project"]
    assert project["name"] == "My-shop"
    assert project["dependencies"] == [f"amphora[metrics]>={package.__version__}"]


def test_the_readme_has_ten_lines(amphora_anywhere: Amphora, here: Path) -> None:
    amphora_anywhere("new", "shop")
    assert len((here / "shop" / "README.md").read_text().splitlines()) == 10


@pytest.mark.parametrize("there", [None, "an empty directory"])
def test_a_project_may_be_anywhere(
    amphora_anywhere: Amphora, here: Path, there: str | None
) -> None:
    folder = here / "a b" / "shop"
    if there:
        folder.mkdir(parents=True)
    outcome = amphora_anywhere("new", folder)
    assert outcome.code == Exit.DONE
    assert f"  cd '{folder}'\n" in outcome.out
    assert (folder / "shop" / "server.py").is_file()


def test_a_project_is_made_in_the_directory_where_the_command_runs(
    amphora_anywhere: Amphora, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "shop").mkdir()
    monkeypatch.chdir(here / "shop")
    assert amphora_anywhere("new", ".").code == Exit.DONE
    assert (here / "shop" / "shop" / "server.py").is_file()


def test_a_directory_with_something_in_it_is_left_alone(
    amphora_anywhere: Amphora, here: Path
) -> None:
    (here / "shop").mkdir()
    (here / "shop" / "Makefile").write_text("mine")
    outcome = amphora_anywhere("new", "shop")
    assert (outcome.code, outcome.out) == (Exit.FAILED, "")
    assert outcome.err == (
        "amphora: error: shop is there and not empty: name a directory that is not\n"
    )
    assert [path.name for path in here.rglob("*")] == ["shop", "Makefile"]


def test_a_place_that_cannot_be_written_is_named(amphora_anywhere: Amphora, here: Path) -> None:
    (here / "file").touch()
    outcome = amphora_anywhere("new", "file/shop")
    assert outcome.code == Exit.FAILED
    assert f"amphora: error: {here / 'file'}" in outcome.err
    assert "cannot be made: Not a directory" in outcome.err


@pytest.mark.parametrize(
    ("name", "why", "another"),
    [
        ("3d-shop", "begin with a letter", "d-shop"),
        ("my.shop", "letters (a to z), digits, - or _", "my-shop"),
        ("größe", "letters (a to z), digits, - or _", "gr-e"),
        ("--", "begin with a letter", "shop"),
        ("x" * 41, "1 to 40 letters", "x" * 40),
        ("math", "Python itself has something of that name", "math-service"),
        ("Queue", "Python itself has something of that name", "Queue-service"),
        ("class", "Python itself has something of that name", "class-service"),
        ("test", "Python itself has something of that name", "test-service"),
        ("gevent", "the project imports a package of that name", "gevent-service"),
        ("tests", "the project has another folder of that name", "tests-service"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_another(
    amphora_anywhere: Amphora, here: Path, name: str, why: str, another: str
) -> None:
    outcome = amphora_anywhere("new", "--", name)
    assert (outcome.code, outcome.out) == (Exit.USAGE, "")
    assert why in outcome.err
    assert outcome.err.endswith(f"try amphora new {another}\n")
    assert package_of(another)
    assert list(here.iterdir()) == []


def test_a_name_that_no_namespace_can_have_is_refused(amphora_anywhere: Amphora) -> None:
    outcome = amphora_anywhere("new", "my_queue_shop")
    assert outcome.code == Exit.USAGE
    assert "may not have _queue in it" in outcome.err


# -- where amphora comes from ---------------------------------------------------------------------


class Installed(importlib.metadata.Distribution):
    """An amphora that was installed from somewhere."""

    def __init__(self, record: dict[str, object] | None) -> None:
        self.record = record

    def read_text(self, filename: str) -> str | None:
        assert filename == "direct_url.json"
        return None if self.record is None else json.dumps(self.record)

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        raise NotImplementedError


def test_a_project_made_in_a_checkout_has_its_amphora(
    amphora_anywhere: Amphora, here: Path
) -> None:
    amphora_anywhere("new", "shop")
    assert f"AMPHORA ?= {in_make(str(ROOT))}\n" in (here / "shop" / "local.mk").read_text()


def test_the_place_where_pip_found_amphora_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = here / "a wheel.whl"
    wheel.touch()
    # It runs from where no checkout is.
    monkeypatch.setattr(package, "__file__", str(here / "amphora" / "__init__.py"))
    git = {"vcs": "git", "commit_id": "49408f8"}
    for record, expected in (
        (None, None),
        ({"url": here.as_uri(), "dir_info": {}}, str(here)),
        ({"url": (here / "gone").as_uri(), "dir_info": {}}, None),
        ({"url": wheel.as_uri(), "archive_info": {}}, str(wheel)),
        ({"url": "https://example.org/a.whl", "archive_info": {}}, "https://example.org/a.whl"),
        (
            {"url": "https://example.org/amphora.git", "vcs_info": git},
            "git+https://example.org/amphora.git@49408f8",
        ),
    ):
        monkeypatch.setattr(origin, "distribution", lambda _, record=record: Installed(record))
        assert origin.requirement() == expected


def test_signs_that_mean_something_to_make_are_escaped() -> None:
    assert in_make("/srv/$HOME/#1") == r"/srv/$$HOME/\#1"
