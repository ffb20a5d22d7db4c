"""What is built to be published: a wheel and an sdist, as `pipx run build` makes them."""

from __future__ import annotations

import configparser
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import packaging.metadata
import pytest
import readme_renderer.markdown
from gevent import subprocess
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import amphora
from tests.support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(300)]

# What a checkout may have beside what is in it.
NOT_OURS = shutil.ignore_patterns(
    *(".git", ".*_cache", ".hypothesis", ".tox", ".venv", "env", "venv", "build", "dist"),
    *("*.egg-info", "_build", "__pycache__"),
)
BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, f"build_{sys.argv[1]}")(sys.argv[2])
"""


class Built(NamedTuple):
    """What was built of a checkout, and what was built of the sdist."""

    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=NOT_OURS)
    sdist = build("sdist", checkout, folder)
    with tarfile.open(sdist) as archive:
        # The first releases of Python 3.11 have no filters.
        safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "unpacked", **safely)
    (unpacked,) = (folder / "unpacked").iterdir()
    return Built(
        build("wheel", checkout, folder), sdist, build("wheel", unpacked, folder / "again")
    )


def build(what: str, source: Path, into: Path) -> Path:
    """Build a wheel or an sdist, and return where it is."""
    into.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(into)],
        cwd=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (path,) = into.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return path


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name; RECORD, which has their order, aside."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: archive.read(name) for name in names}


def of_the_metadata(wheel: Path, name: str) -> str:
    """Return the text of a file in the wheel's dist-info."""
    return contents(wheel)[f"amphora-{amphora.__version__}.dist-info/{name}"].decode()


def files(folder: Path, suffixes: Iterable[str]) -> Iterator[str]:
    """Yield the names of files in a folder of the checkout, as they stand in an archive."""
    for path in folder.rglob("*"):
        if path.suffix in suffixes and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix()


def test_the_wheel_has_the_package_and_the_plugin_and_nothing_else(built: Built) -> None:
    modules = {name for name in contents(built.wheel) if ".dist-info/" not in name}
    assert modules == {
        *files(ROOT / "amphora", {".py"}),
        *files(ROOT / "amphora" / "web" / "static", {".css", ".html", ".js", ".svg"}),
        *files(ROOT / "amphora" / "gateway" / "static", {".css", ".html", ".js"}),
        *files(ROOT / "amphora" / "cli" / "starting" / "template", {".in"}),
        "amphora/py.typed",
        "pytest_amphora.py",
    }


def test_the_sdist_has_what_the_wheel_is_built_and_tested_from(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        top, *_ = archive.getnames()
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    assert top == f"amphora-{amphora.__version__}"
    for folder in ("amphora", "tests", "examples", "benchmarks"):
        missing = (
            set(
                files(
                    ROOT / folder,
                    {".py", ".txt", ".conf", ".css", ".html", ".in", ".js", ".svg"},
                )
            )
            - names
        )
        assert missing == set()
    assert {"pyproject.toml", "setup.py", "tox.ini", "Makefile", "LICENSE", "CHANGELOG.md"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


def test_a_wheel_of_the_sdist_is_the_same_as_one_of_the_checkout(built: Built) -> None:
    first, second = contents(built.wheel), contents(built.wheel_of_sdist)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


def test_the_metadata_is_valid_and_says_what_is_needed(built: Built) -> None:
    text = of_the_metadata(built.wheel, "METADATA")
    metadata = packaging.metadata.Metadata.from_email(text, validate=True)
    assert (metadata.name, str(metadata.version)) == ("amphora", amphora.__version__)
    assert metadata.license_expression == "MIT"
    needed = [Requirement(str(each)) for each in metadata.requires_dist or ()]
    assert {each.name for each in needed if each.marker is None} == {
        "click",
        "gevent",
        "msgspec",
        "pamqp",
    }
    assert set(metadata.provides_extra or ()) == {"metrics", "otel", "pydantic", "rich"}
    assert (metadata.description or "").startswith("# amphora")


def test_the_package_index_can_show_the_readme(built: Built) -> None:
    metadata = packaging.metadata.Metadata.from_email(of_the_metadata(built.wheel, "METADATA"))
    assert metadata.description_content_type == "text/markdown"
    shown = readme_renderer.markdown.render(metadata.description or "")
    assert shown is not None
    assert "<table>" in shown
    assert shown.count("<pre") >= 2
    pages = f"{(metadata.project_urls or {})['Documentation']}en/latest/"
    for link in re.findall(r'href="([^"]+)"', shown):
        # Nothing is beside it there.
        assert re.match(r"https://|#", link), link
        if link.startswith(pages):
            page = link.removeprefix(pages).partition("#")[0].removesuffix(".html")
            files = [ROOT / "docs" / f"{page}.{suffix}" for suffix in ("rst", "md")]
            assert any(file.is_file() for file in files), link


def test_the_oldest_dependencies_that_are_allowed_are_those_that_are_tested() -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    tested = [Requirement(line) for line in tox["testenv:oldest"]["deps"].split()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    allowed = map(Requirement, [*project["dependencies"], *chain.from_iterable(extras)])
    bounds = {each.name: SpecifierSet(str(each.specifier).replace(">=", "==")) for each in allowed}
    # The tests need it, and it has the version of its API.
    bounds["opentelemetry-sdk"] = bounds["opentelemetry-api"]
    assert {each.name: each.specifier for each in tested} == bounds


def test_commands_and_the_plugin_are_entry_points_that_can_be_loaded(built: Built) -> None:
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(of_the_metadata(built.wheel, "entry_points.txt"))
    assert {section: dict(parser[section]) for section in parser.sections()} == {
        "console_scripts": {
            "amphora": "amphora.cli:main",
            "arpc_msg_sender": "amphora.arpc.sender:main",
            "arpc_msg_sender.py": "amphora.arpc.sender:main",
        },
        "pytest11": {"amphora": "pytest_amphora"},
    }


def test_what_is_installed_from_the_wheel_alone_works(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path)
    program = """
import contextlib, importlib, io, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import amphora, pytest_amphora
assert amphora.__file__.startswith(sys.argv[1]), amphora.__file__
for module in pkgutil.walk_packages(amphora.__path__, "amphora."):
    importlib.import_module(module.name)
with contextlib.redirect_stdout(io.StringIO()):
    assert amphora.cli.root.run(["new", "shop"]) == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")
    made = tmp_path / "shop"
    assert (made / "shop" / "server.py").is_file()
    # The project has its amphora from the index, as this one is told to be.
    assert "AMPHORA" not in (made / "local.mk").read_text()
