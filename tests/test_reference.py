"""The reference says what the code takes."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

from amphora.cli import gateway
from amphora.cli.root import commands
from amphora.cli.serving import config
from amphora.rpc.client import caller, management, proxy
from amphora.rpc.client.caller import CallerSettings
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.client.fanout import AmqpRpcFanoutClient
from amphora.rpc.contract import naming, streams
from amphora.rpc.functions.functions import Functions
from amphora.rpc.functions.terms import Terms
from amphora.rpc.functions.threads import Threads
from amphora.rpc.server.fanout import AmqpRpcFanoutServer
from amphora.rpc.server.server import AmqpRpcServer
from amphora.transport.connections import endpoint as default
from amphora.transport.connections.endpoint import endpoint
from amphora.wire.content import DEFAULT_MAX_MESSAGE_SIZE
from tests.public_api import annotation
from tests.support import pages
from tests.support.commands import commands_of

API = pages.page("reference/api")


@pytest.mark.parametrize(
    ("kind", "ways", "place"),
    [
        (AmqpRpcClient, ("call", "defer", "cast", "stream"), 0),
        (AmqpRpcFanoutClient, ("call", "defer", "cast", "gather"), 1),
    ],
)
def test_the_options_of_each_way_of_calling_are_those_that_the_page_tells(
    kind: Any, ways: tuple[str, ...], place: int
) -> None:
    rows = pages.tables(API)[place]
    told = {
        way: {pages.literals(row[0])[0] for row in rows if row[1 + column] == "yes"}
        for column, way in enumerate(ways)
    }
    with kind("options", url="amqp://127.0.0.1:1/") as client:
        taken = {way: set(proxy.options_of(getattr(client, way))) for way in ways}
    assert told == taken


def test_each_option_of_a_call_is_described_with_its_type() -> None:
    types: dict[str, str] = {}
    for options in (proxy.RepeatOptions, proxy.StreamOptions):
        types.update(options.__annotations__)
    described = pages.definitions(API)
    assert described.keys() == types.keys()
    for name, fields in described.items():
        assert fields.keys() == {"type", "default", "raises", "greenlets"}, name
        assert " | ".join(pages.literals(fields["type"])) == plain(types[name]), name


def test_the_defaults_of_options_are_those_of_the_code() -> None:
    described = pages.definitions(API)
    assert described["credit"]["default"] == str(streams.WINDOW)
    assert f"from 1 to {streams.MOST_WINDOW:,}" in described["credit"]["type"]
    assert f"which is {caller.DEFAULT_TIMEOUT:g} unless" in described["timeout"]["default"]


def plain(annotation: Any) -> str:
    """Return an annotation as it stands in the source."""
    return str(getattr(annotation, "__forward_arg__", annotation))


SETTINGS = pages.page("reference/settings")
CONNECTIONS, QUERY, CLIENTS, SERVERS, FUNCTIONS, SERVE, ENVIRONMENT = pages.tables(SETTINGS)


@pytest.mark.parametrize(
    ("rows", "function"),
    [
        (CONNECTIONS, endpoint),
        (CLIENTS, AmqpRpcClient.__init__),
        (SERVERS, AmqpRpcServer.__init__),
    ],
    ids=["connections", "clients", "servers"],
)
def test_the_settings_are_those_of_the_code(rows: list[list[str]], function: Any) -> None:
    parameters = inspect.signature(getattr(function, "__wrapped__", function)).parameters.values()
    taken = [
        (each.name, annotation(each.annotation), repr(each.default))
        for each in parameters
        if each.name not in ("self", "namespace", "connection")
    ]
    assert [settings_of(row) for row in rows] == taken


def test_the_other_clients_and_servers_take_what_the_page_says() -> None:
    clients = {settings_of(row)[0] for row in CLIENTS}
    connections = {settings_of(row)[0] for row in CONNECTIONS}
    assert {*CallerSettings.__optional_keys__} == (clients | connections) - {"queue_type"}
    assert f"whose ``timeout`` is ``{management.DEFAULT_TIMEOUT}``" in SETTINGS
    with pytest.raises(TypeError):
        AmqpRpcFanoutServer("math", url="amqp://127.0.0.1:1/", max_wait=1.0)


def test_the_terms_of_functions_are_those_of_the_code() -> None:
    told = {name: (type_, default) for name, type_, default in map(settings_of, FUNCTIONS)}
    assert {name: type_ for name, (type_, _) in told.items()} == {
        name: plain(value) for name, value in Terms.__annotations__.items()
    }


def test_the_options_of_the_url_are_those_of_the_code() -> None:
    names = [pages.literals(row[0])[0] for row in QUERY]
    with pytest.raises(ValueError, match=f"known are {', '.join(names)}$"):
        endpoint("amqp://localhost/?other=1")


def test_the_settings_of_serve_are_those_of_the_command() -> None:
    command = commands_of(commands)["serve"]
    taken = [each for each in command.params if each.name not in config.ABOUT]
    assert [pages.literals(row[0])[0] for row in SERVE] == [
        (each.name or "").replace("_", "-") for each in taken
    ]
    for each, (_, _, told, _) in zip(taken, SERVE, strict=True):
        if each.expose_value and not each.required:
            assert told == shown(each.to_info_dict()["default"]), each.name


def test_what_counts_without_a_setting_is_that_of_the_code() -> None:
    texts = {settings_of(row)[0]: row[3] for row in CONNECTIONS}
    assert f"``{default.DEFAULT_URL}``" in SETTINGS
    assert f"{default.DEFAULT_HEARTBEAT:g} without it" in texts["heartbeat"]
    assert f"{default.DEFAULT_CONNECT_TIMEOUT:g} without it" in texts["connect_timeout"]
    assert f"{DEFAULT_MAX_MESSAGE_SIZE >> 20} MiB without it" in texts["max_message_size"]


def test_the_variables_of_the_environment_are_those_of_the_code() -> None:
    assert gateway.TOKENS in [name for row in ENVIRONMENT for name in pages.literals(row[0])]


def shown(value: object) -> str:
    """Return the default of an option of a command as the page shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) else "(none)"


def settings_of(row: list[str]) -> tuple[str, str, str]:
    """Return the name, the type and the default in a row of a table."""
    name, type_, default, _ = row
    return name.strip("`"), type_.strip("`"), default.strip("`")


LIMITS = [row for table in pages.tables(pages.page("reference/limits")) for row in table]
# What one of a unit is in the code, which has bytes and seconds.
UNITS = {"s": 1, "min": 60, "h": 3600, "bytes": 1, "KiB": 1024, "MiB": 1024**2}


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[3].replace("`", ""))
def test_a_limit_is_that_of_its_constant(row: list[str]) -> None:
    number, _, unit = row[1].partition(" ")
    home, name = pages.literals(row[3])
    value = getattr(importlib.import_module(f"amphora.{home}"), name)
    assert float(number.replace(",", "")) * UNITS.get(unit, 1) == value


def test_names_may_be_what_the_page_says() -> None:
    longest = "n" * 100
    assert naming.check_namespace(longest) == naming.check_client_id(longest) == longest
    for check in (naming.check_namespace, naming.check_client_id):
        for wrong in ("", longest + "n", "no spaces"):
            with pytest.raises(ValueError, match="must be 1 to 100 letters"):
                check(wrong)
    for wrong in ("mgt", "a_queue_b"):
        with pytest.raises(ValueError, match=r"reserved|may not have"):
            naming.check_namespace(wrong)
    functions = Functions("math", Threads(1))
    functions.add(len, "f" * 200)
    with pytest.raises(ValueError, match="1 to 200 characters"):
        functions.add(len, "f" * 201)
    assert naming.is_worker_number(naming.new_worker_id("math").removeprefix("math-"))
    assert naming.is_worker_number("0123456789")
    assert naming.routing_key_for("k" * 120) == "k" * 120
    assert naming.routing_key_for("k" * 121) != "k" * 121


@pytest.mark.parametrize("name", ["trace", "bench", "services", "top", "stubs"])
def test_the_lines_for_programs_have_the_names_that_the_help_gives(name: str) -> None:
    told = commands_of(commands)[name].help or ""
    shape = told[told.index("{") : told.rindex("}")]
    assert set(re.findall(r'"(\w+)"', shape)) == pages.names_in_json(name)
