"""What importing amphora loads, and what it leaves to those who need it."""

from __future__ import annotations

import ast
import sys

import pytest
from gevent import subprocess

import amphora
from tests.support.processes import ROOT

# Nobody who imports amphora has asked for these.
HEAVY = {
    "asyncio",
    "click",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "pytest",
    "rich",
    "unittest",
}


def loaded_by(program: str) -> set[str]:
    """Return the modules that a program loads in a new interpreter, beyond those of its start."""
    wrapped = f"import sys\nbefore = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", wrapped],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_amphora_loads_its_errors_and_nothing_that_takes_time() -> None:
    loaded = loaded_by("import amphora; assert amphora.__version__")
    assert {name for name in loaded if name.startswith("amphora")} == {"amphora", "amphora.errors"}
    assert not loaded & {*HEAVY, "gevent", "msgspec", "pamqp", "ssl"}


@pytest.mark.parametrize(
    ("name", "not_needed"),
    [
        ("AmqpRpcClient", ("amphora.rpc.server",)),
        ("AmqpRpcServer", ("amphora.rpc.client.fanout",)),
    ],
)
def test_one_side_does_not_load_the_other(name: str, not_needed: tuple[str, ...]) -> None:
    loaded = loaded_by(f"from amphora import {name}")
    assert not loaded & HEAVY
    parts = (*not_needed, "amphora.arpc", "amphora.broker", "amphora.cli", "amphora.testing")
    assert not [module for module in loaded if module.startswith(parts)]


def test_all_names_are_there_and_type_checkers_see_them_where_they_are() -> None:
    tree = ast.parse((ROOT / "amphora" / "__init__.py").read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("amphora.")
        for alias in node.names
        if node.module != "amphora.errors"
    }
    assert seen == amphora._HOMES
    for name in amphora.__all__:
        assert getattr(amphora, name).__name__ == name
    assert set(amphora.__all__) <= set(dir(amphora))
    misspelt = "AmqpRpcCleint"
    with pytest.raises(AttributeError, match="module 'amphora' has no attribute 'AmqpRpcCleint'"):
        getattr(amphora, misspelt)


def test_a_command_begins_without_a_web_server() -> None:
    assert "gevent.pywsgi" not in loaded_by("import amphora.cli")
