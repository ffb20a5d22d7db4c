"""The reference says what the code takes."""

from __future__ import annotations

from typing import Any

import pytest

from amphora.rpc.client import caller, proxy
from amphora.rpc.client.client import AmqpRpcClient
from amphora.rpc.client.fanout import AmqpRpcFanoutClient
from amphora.rpc.contract import streams
from tests.support import pages

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
