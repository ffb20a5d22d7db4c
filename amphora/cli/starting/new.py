"""`amphora new`: make a project with a server, a client, tests and a container image."""

from __future__ import annotations

import shlex
import sys
from importlib import resources
from pathlib import Path

import click

import amphora
from amphora.cli.failures import Exit, Failure, settings_errors
from amphora.cli.settings import examples
from amphora.cli.starting import origin
from amphora.cli.starting.names import package_of

# Each file of a project: its template, its place, and its purpose.  A template is not named as a
# Python file, so that nothing takes it for a module of amphora.
FILES = (
    ("__init__.py", "{package}/__init__.py", ""),
    ("server.py", "{package}/server.py", "its functions; add your own"),
    ("client.py", "{package}/client.py", "calls them"),
    ("test_service.py", "tests/test_{package}.py", "tests them, with a broker of their own"),
    ("pyproject.toml", "pyproject.toml", "what it needs"),
    ("Makefile", "Makefile", "the commands below, and more"),
    ("Dockerfile", "Dockerfile", "its container image"),
    ("compose.yaml", "compose.yaml", "RabbitMQ and the service, in containers"),
    ("README.md", "README.md", ""),
    ("gitignore", ".gitignore", ""),
    ("dockerignore", ".dockerignore", ""),
)


@click.command(
    epilog=examples(
        "amphora new shop             # in the directory shop",
        "amphora new ~/code/shop      # in another directory",
    )
)
@click.argument("project", type=click.Path(path_type=Path))
def new(project: Path) -> None:
    """Make a project that runs: a server, a client, tests, and a container image.

    PROJECT is the directory to make.  Its last part is the name of the project, and the namespace
    of its service.
    """
    folder = project.expanduser().absolute()
    with settings_errors():
        package = package_of(folder.name)
    words = {"project": folder.name, "package": package, "version": amphora.__version__}
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise Failure(
                Exit.FAILED, f"{project} is there and not empty: name a directory that is not"
            )
        make(folder, words)
    except OSError as error:
        raise Failure(
            Exit.FAILED, f"{error.filename or project} cannot be made: {error.strerror}"
        ) from error
    click.echo(f"Made {project}:\n")
    for _, place, what in FILES:
        if what:
            click.echo(f"  {place.format(**words):<{width(words)}}  {what}")
    click.echo(
        f"\nNext:\n\n"
        f"  cd {shlex.quote(str(project))}\n"
        "  make test      # its tests; the first time makes a .venv for them\n"
        "  make broker    # and in other terminals `make serve` and `make call`"
    )


def make(folder: Path, words: dict[str, str]) -> None:
    """Write the files of a project.

    Raises:
        OSError: one of them cannot be written.
    """
    templates = resources.files("amphora.cli.starting") / "template"
    for template, place, _ in FILES:
        text = (templates / f"{template}.in").read_text(encoding="utf-8")
        for name, word in words.items():
            text = text.replace("{{" + name + "}}", word)
        write(folder / place.format(**words), text)
    write(folder / "local.mk", local_settings())


def write(path: Path, text: str) -> None:
    """Write a new file, and make its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)


def local_settings() -> str:
    """Return the project's settings for make that apply only to this machine."""
    lines = ["# Of this machine alone: git ignores it.", f"PYTHON ?= {in_make(python())}"]
    source = origin.requirement()
    if source is not None:
        lines.append(f"AMPHORA ?= {in_make(source)}")
    return "\n".join(lines) + "\n"


def python() -> str:
    """Return the path of the running Python, outside its virtual environment."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    return str(base) if base.exists() else sys.executable


def in_make(text: str) -> str:
    """Return a text as the value of a variable in a makefile."""
    return text.replace("$", "$$").replace("#", r"\#")


def width(words: dict[str, str]) -> int:
    """Return the length of the longest place of a file."""
    return max(len(place.format(**words)) for _, place, what in FILES if what)
