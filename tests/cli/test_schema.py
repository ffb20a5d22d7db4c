"""`amphora schema`: a service as a document that other tools read."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Amphora
from tests.support.rpc import MakeServer, add

pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


def test_a_service_is_printed_in_either_format(
    amphora: Amphora, make_server: MakeServer, namespace: str
) -> None:
    make_server(add, version="2.1.0")
    outcome = amphora("schema", namespace, "--openrpc")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert document["info"] == {"title": namespace, "version": "2.1.0"}
    assert [method["name"] for method in document["methods"]] == [f"{namespace}.add"]
    outcome = amphora("schema", namespace, "--openapi", "--json")
    assert list(outcome.json["paths"]) == [f"/{namespace}/add"]


def test_the_format_has_to_be_said(amphora: Amphora, namespace: str) -> None:
    outcome = amphora("schema", namespace)
    assert outcome.code == 2
    assert "--openrpc or --openapi" in outcome.err
