"""`amphora stubs`: a typed module, and whether the service is still what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cli.conftest import Amphora
from tests.support.rpc import MakeClient, MakeServer, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@dataclass
class Order:
    number: int
    when: datetime


def find(number: int, deep: bool = False) -> Order | None:
    """Find an order."""


def tail(most: int) -> Iterator[Order]:
    yield from ()


def changed(number: str, deep: bool = False) -> Order | None:
    """Find an order."""


@pytest.fixture
def stub(amphora: Amphora, make_server: MakeServer, namespace: str, tmp_path: Path) -> Path:
    """A file with the stub of a service, which is stopped."""
    servers = [make_server(*each, version="1.0") for each in ((find, tail), (tail, find))]
    outcome = amphora("stubs", namespace)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome == amphora("stubs", namespace, "--worker", servers[0].worker_id)
    file = tmp_path / "client.py"
    file.write_text(outcome.out)
    for server in servers:
        server.stop()
    return file


def test_a_stub_is_checked_against_a_service_that_can_do_more(
    amphora: Amphora, make_server: MakeServer, namespace: str, stub: Path
) -> None:
    assert "def find(self, number: int, deep: bool = False) -> Order | None:" in stub.read_text()
    make_server(find, tail, add, version="1.1")
    outcome = amphora("stubs", namespace, "--check", stub)
    assert outcome.code == 0
    assert outcome.out == ""
    assert f"API is what {namespace} offers" in outcome.err
    assert amphora("stubs", namespace, "--check", stub, "--json").json == {"differences": []}


def test_a_stub_calls_its_service_in_all_ways(
    amphora: Amphora,
    make_server: MakeServer,
    make_client: MakeClient,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []

    def note(text: str) -> None:
        sent.append(text)

    def orders(most: int) -> Iterator[Order]:
        for number in range(most):
            yield Order(number, NOON)

    server = make_server(note, orders)
    server.add_function(lambda number: Order(number, NOON), "get-order")
    server.add_function(find)
    made = ModuleType("stub_of_a_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    module = vars(made)
    exec(amphora("stubs", namespace).out, module)
    prefix = namespace[:1].upper() + namespace[1:]
    client = make_client()
    service = module[f"{prefix}Client"](client)
    assert service.call.find(1) is None
    assert service.call.get_order(7)["number"] == 7
    assert service.defer.find(number=1, deep=True).get() is None
    items = list(service.stream.orders(2))
    assert items == [module["Order"](0, NOON), module["Order"](1, NOON)]
    service.cast.note("done")
    wait_until(lambda: sent == ["done"])
    bound = client.bind(module[f"{prefix}API"], timeout=30.0)
    assert module[f"{prefix}Client"](bound).call.note("again") is None


def test_a_service_that_has_changed_is_refused_with_each_difference(
    amphora: Amphora, make_server: MakeServer, namespace: str, stub: Path
) -> None:
    make_server(version="2.0").add_function(changed, "find")
    outcome = amphora("stubs", namespace, "--check", stub)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines() == [
        f"amphora: error: {namespace} 2.0: find: argument number is integer, and not string",
        f"amphora: error: {namespace} 2.0: there is no function tail",
    ]
    outcome = amphora("stubs", namespace, "--check", stub, "--json")
    assert (outcome.code, len(outcome.json["differences"])) == (1, 2)


def test_workers_that_differ_need_a_choice_for_a_stub(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(find)
    make_server(tail)
    outcome = amphora("stubs", namespace)
    assert outcome.code == 1
    assert "do not all offer the same" in outcome.err
    assert amphora("stubs", namespace, "--worker", server.worker_id).code == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise ValueError", "ValueError: it says nothing"),
        ("x = 1", "is not a stub: it has 0 classes whose names end in API"),
        ("class XAPI: ...\nclass YAPI: ...", "it has 2 classes"),
        ("class XAPI: ...", "XAPI has no methods"),
        (None, "No such file"),
    ],
)
def test_what_is_no_stub_is_refused(
    amphora: Amphora, namespace: str, tmp_path: Path, source: str | None, text: str
) -> None:
    file = tmp_path / "stub.py"
    if source is not None:
        file.write_text(source)
    outcome = amphora("stubs", namespace, "--check", file)
    assert outcome.code == 2
    assert text in outcome.err


def test_a_file_that_is_no_python_is_refused(
    amphora: Amphora, namespace: str, tmp_path: Path
) -> None:
    outcome = amphora("stubs", namespace, "--check", tmp_path / "stub.txt")
    assert outcome.code == 2
    assert "is not a Python module" in outcome.err


def test_a_worker_that_cannot_be_understood_is_named(
    amphora: Amphora, make_server: MakeServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(find)
    describer: Any = server._worker.management._describer
    monkeypatch.setattr(describer, "functions", lambda: [{"name": 7}])
    outcome = amphora("stubs", namespace)
    assert outcome.code == 1
    assert f"{server.worker_id}: the worker's answer to describe cannot be" in outcome.err


def test_a_worker_that_fails_to_describe_itself_is_an_error(
    amphora: Amphora, make_server: MakeServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(find)
    describer: Any = server._worker.management._describer
    monkeypatch.setattr(describer, "functions", lambda: 1 / 0)
    outcome = amphora("stubs", namespace, "--json", "--timeout", 30)
    assert json.loads(outcome.out)["error"]["message"].startswith("not all workers")
