"""Modules for the callers of a service."""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import msgspec
import pytest
from gevent import subprocess
from hypothesis import given
from hypothesis import strategies as st

from amphora.export.source import docstring, free_name, literal
from amphora.export.stubs import stub
from amphora.rpc.contract.types.apis import Api
from amphora.rpc.contract.types.compatibility import Offer, differences
from tests.export import service
from tests.support.processes import ROOT

IDENTITY = UUID("12345678-1234-5678-1234-567812345678")
NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)

# A second project: what mypy has to find there, it is told to ignore, and it says so if it does
# not find it.
CALLER = """
import datetime as dt
from typing import assert_type
from uuid import UUID

from amphora import AmqpRpcClient, Result, Stream
from shop_client import Line, Order, Point, ShopClient

client = AmqpRpcClient("shop")
shop = ShopClient(client)
order = shop.call.find(UUID(int=1), deep=True)
assert_type(order, Order | None)
if order is not None:
    assert_type(order.when, dt.datetime)
    assert_type(order.lines, list[Line])
    assert_type(order.parent, Order | None)
assert_type(shop.defer.find(UUID(int=1)), Result[Order | None])
assert_type(shop.stream.tail(3), Stream[Order])
for each in shop.call.tail():
    assert_type(each, Order)
assert_type(shop.call.places(1, "b", 0.5, c=dt.timedelta(1), depth=1), Point)
assert_type(shop.cast.find(UUID(int=1)), None)
assert_type(shop.call.send_message_sms_(UUID(int=1)), Order | None)

shop.call.find("1")  # type: ignore[arg-type]
shop.call.find()  # type: ignore[call-arg]
shop.call.fnd(UUID(int=1))  # type: ignore[attr-defined]
shop.defer.find(UUID(int=1), deep="yes")  # type: ignore[arg-type]
shop.stream.tail("3")  # type: ignore[arg-type]
shop.stream.find(UUID(int=1))  # type: ignore[attr-defined]
shop.defer.tail(3)  # type: ignore[attr-defined]
shop.cast.tail(3)  # type: ignore[attr-defined]
Line(article=1)  # type: ignore[arg-type]
"""


@pytest.fixture(scope="module")
def source() -> str:
    return stub("shop", service.offer())


@pytest.fixture(scope="module")
def module(source: str) -> Iterator[ModuleType]:
    """The stub as a module."""
    name = "shop_client_of_the_tests"
    made = sys.modules[name] = ModuleType(name)
    exec(compile(source, name, "exec"), vars(made))
    yield made
    del sys.modules[name]


@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_a_stub_is_typed_and_a_wrong_call_is_found(source: str, tmp_path: Path) -> None:
    (tmp_path / "shop_client.py").write_text(source)
    (tmp_path / "caller.py").write_text(CALLER)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--cache-dir", str(ROOT / ".mypy_cache")),
            *("shop_client.py", "caller.py"),
        ],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_linters_have_nothing_to_say(source: str, tmp_path: Path) -> None:
    file = tmp_path / "shop_client.py"
    file.write_text(source)
    ruff = [sys.executable, "-m", "ruff"]
    for words in (
        ("check", "--isolated", "--select", "E4,E7,E9,F,B,UP,PIE"),
        ("format", "--check"),
    ):
        done = subprocess.run(
            [*ruff, *words, "--no-cache", str(file)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout


def test_the_same_service_makes_the_same_bytes(source: str) -> None:
    offer = service.offer()
    offer.functions.reverse()
    offer.definitions = dict(reversed(list(offer.definitions.items())))
    assert stub("shop", offer) == source


def test_a_stub_is_what_its_service_offers(module: Any) -> None:
    assert differences(Api(module.ShopAPI).offer(), service.offer()) == []
    assert {function.name for function in Api(module.ShopAPI).functions.values()} == {
        function["name"] for function in service.offer().functions
    }


def test_what_a_service_sends_becomes_the_classes_of_the_stub(module: Any) -> None:
    functions = Api(module.ShopAPI).functions
    line = service.Line("paper", made=NOON, notes=["blue"], tags={"a"}, extra={"b": 1})
    order = service.Order(IDENTITY, NOON, [line])
    sent = msgspec.json.decode(msgspec.json.encode(order))
    made = functions["find"].result(sent)
    assert type(made) is module.Order
    assert type(made.lines[0]) is module.Line
    assert made.lines[0].price == Decimal("1.50")
    assert made.lines[0].colour is module.Colour.RED
    assert msgspec.to_builtins(made) == msgspec.to_builtins(order)
    assert functions["count"].result("done") == "done"
    assert functions["places"].result([1]) == (1, 0, msgspec.UNSET)
    (model,) = functions["model"].result([{"no": 1, "kind": "a", "inner": [{"no": 2}]}])
    assert model.inner[0].no == 2
    assert functions["animals"].result({"ok": True}) == module.Result_(True)


def test_what_no_field_of_a_class_can_be_is_anything(source: str, module: Any) -> None:
    sent = {"parts": [{"no": 1}], "number": "a", "host": "127.0.0.1", "loads": {"127.0.0.1": 1}}
    shipment = Api(module.ShopAPI).functions["ship"].result(sent)
    assert shipment == module.Shipment(
        parts=[{"no": 1}], number="a", host="127.0.0.1", loads={"127.0.0.1": 1}
    )
    assert "    parts: list[Any] = field" in source


def test_a_tagged_union_is_a_union_of_its_classes(source: str, module: Any) -> None:
    assert "    def weigh(self, parcel: Small | Large, page: Page_int) -> Small | Large" in source
    weigh = Api(module.ShopAPI).functions["weigh"]
    assert weigh.result({"size": "large", "crates": 2}) == module.Large(2)
    # One class, whether it is in another one or not.
    assert source.count("class Page") == 1
    assert "    pages: Page_int | None = None" in source


def test_flags_may_be_combined_and_keys_may_be_numbers(module: Any) -> None:
    rare = Api(module.ShopAPI).functions["rare"]
    key = str(IDENTITY)
    assert rare.result({"1": 3, key: 0}) == {1: 3, IDENTITY: 0}


def test_a_definition_that_is_no_class_is_written_where_it_is_used(
    source: str, module: Any
) -> None:
    assert "    level: Literal[1, 2] | UnsetType = UNSET" in source
    (model,) = Api(module.ShopAPI).functions["model"].result([{"no": 1, "part": {"level": 2}}])
    assert model.part.level == 2


def test_what_a_stub_sends_is_what_its_service_takes(module: Any) -> None:
    assert msgspec.to_builtins(module.Line("paper", made=NOON)) == {
        "article": "paper",
        "price": "1.50",
        "colour": "red",
        "number": 1,
        "made": "2026-05-01T12:00:00Z",
        "notes": [],
        "tags": [],
    }
    assert module.Line("paper").made == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    kebab = module.Kebab(first_name="Alice")
    assert msgspec.to_builtins(kebab) == {
        "first-name": "Alice",
        "class": 1,
        "last_name": None,
        "notes": [],
    }
    assert msgspec.to_builtins(module.Dog("Rex")) == {"name": "Rex", "type": "Dog"}
    names = module.Names(date=dt.date(2026, 5, 1))
    assert msgspec.to_builtins(names) == {"date": "2026-05-01", "int": 3, "Line": None}


def test_docstrings_tell_of_errors_and_what_is_deprecated(module: Any) -> None:
    assert inspect.getdoc(module.ShopAPI.find) == (
        'Find an order.\n\nIt may say "nothing\\n", or """anything""".\n\n'
        "Raises:\n    RemoteException: NotFound: There is no such order.\n"
        "    RemoteException: LookupError: Base class for lookup errors."
    )
    offer = service.offer()
    offer.functions[0]["deprecated"] = "call find"
    assert '"""Follow the orders.\n\n        Deprecated: call find\n' in stub("shop", offer)


def test_a_namespace_gives_its_classes_their_names() -> None:
    offer = Offer("billing.eu", service.offer().functions[1:2])
    source = stub("billing.eu-2", offer)
    assert "class BillingEu2API(Protocol):" in source
    assert "Deferred" not in source
    assert "class N7API(Protocol):" in stub("7", offer).replace("class n7API", "class N7API")


def test_a_long_namespace_does_not_make_long_lines() -> None:
    source = stub("x" * 60, service.offer())
    compile(source, "stub", "exec")
    assert "        bound = (\n" in source


HOSTILE = 'x"""\nimport os\nos.abort()\n"""\\'


def test_nothing_that_arrives_becomes_code() -> None:
    parameter: Any = {"name": "a", "kind": "positional_or_keyword", "default": HOSTILE}
    function: Any = {
        "name": HOSTILE,
        "signature": "x()",
        "doc": HOSTILE,
        "deprecated": HOSTILE,
        "parameters": [
            {**parameter, "value": HOSTILE, "schema": {"enum": [HOSTILE]}},
            {**parameter, "name": HOSTILE, "schema": {"$ref": HOSTILE}},
            {**parameter, "name": "c", "schema": {"$ref": f"#/$defs/{HOSTILE}"}},
        ],
        "errors": [{"type": HOSTILE, "doc": HOSTILE}],
        "result": {"type": HOSTILE, "format": HOSTILE},
    }
    definitions: Any = {
        HOSTILE: {
            "type": "object",
            "description": HOSTILE,
            "properties": {HOSTILE: {"type": "string", "default": HOSTILE}},
        },
        f"{HOSTILE}2": {"enum": [HOSTILE], "x-enum-varnames": [HOSTILE]},
        f"{HOSTILE}3": {"type": "array", "prefixItems": [{}], "x-field-names": [HOSTILE]},
    }
    source = stub("x", Offer(HOSTILE, [function], definitions))
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported = [alias.name for node in imports for alias in node.names]
    assert imported == ["msgspec"]
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls <= {"client.bind", "isinstance", "cast", "function_name", "msgspec.field"}


@given(st.text())
def test_a_docstring_says_the_text_whatever_that_is(text: str) -> None:
    lines = docstring(text, "    ")
    tree = ast.parse("\n".join(["def f():", *lines, "    pass"]))
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    assert len(function.body) == 1 + bool(lines)


@given(st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False))
def test_a_literal_is_the_value(value: Any) -> None:
    source = literal(value)
    if source is not None:
        assert ast.literal_eval(source) == value


def test_what_is_no_plain_value_is_no_literal() -> None:
    assert literal([]) is None
    assert literal(float("nan")) is None
    assert literal(float("-inf")) is None


def test_names_are_made_where_there_are_none() -> None:
    assert free_name("a-b", ()) == "a_b"
    assert free_name("class", ()) == "class_"
    assert free_name("7", ()) == "n7"
    assert free_name("!", ()) == "unnamed"
    assert free_name("a", ("a", "a_")) == "a_2"
