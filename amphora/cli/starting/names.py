"""The name of a project, and that of its package."""

from __future__ import annotations

import keyword
import re
import sys

from amphora.rpc.contract.naming import check_namespace

LONGEST = 40
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
# The project imports these, or has folders of these names.
TAKEN = frozenset({"amphora", "click", "gevent", "greenlet", "msgspec", "mypy", "pamqp", "pytest"})
# What Python has beside its list, for its own tests.
PYTHONS = sys.stdlib_module_names | {"test"}
FOLDERS = frozenset({"build", "tests", "wheels"})


def package_of(project: str) -> str:
    """Return the name of a project's package: `my_shop` for `My-shop`.

    Raises:
        ValueError: a project cannot have this name; the text says why, and suggests another.
    """
    if not _NAME.fullmatch(project) or len(project) > LONGEST:
        raise ValueError(
            f"the name {project!a:.100} must be 1 to {LONGEST} letters (a to z), digits, - or _,"
            f" begin with a letter and end with no sign: {_another(project)}"
        )
    check_namespace(project)
    package = re.sub(r"[_-]+", "_", project).lower()
    if package in PYTHONS or keyword.iskeyword(package):
        whose = "Python itself has something of that name"
    elif package in TAKEN:
        whose = "the project imports a package of that name"
    elif package in FOLDERS:
        whose = "the project has another folder of that name"
    else:
        return package
    raise ValueError(
        f"the package of the project would be called {package!r}, and {whose}:"
        f" {_another(f'{project}-service')}"
    )


def _another(name: str) -> str:
    """Return a hint with an allowed name that is similar to this one."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    better = "-".join(words)[:LONGEST].strip("-").lstrip("0123456789-")
    return f"try amphora new {better or 'shop'}"
