"""Services as OpenRPC and OpenAPI documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urljoin

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from amphora.export.openapi import openapi, path_of
from amphora.export.openrpc import openrpc
from amphora.rpc.contract.types.compatibility import Offer
from tests.export import service

# What https://spec.open-rpc.org has in each object: what must be there, and what may.
OBJECTS = {
    "document": ({"openrpc", "info", "methods"}, {"components"}),
    "info": ({"title", "version"}, set[str]()),
    "method": (
        {"name", "params"},
        {"tags", "summary", "description", "result", "deprecated", "paramStructure"},
    ),
    "descriptor": ({"name", "schema"}, {"required", "summary", "description", "deprecated"}),
}


def offers() -> dict[str, Offer]:
    return {"shop": service.offer()}


def check(kind: str, found: dict[str, Any]) -> None:
    """Check the keys of an object of OpenRPC."""
    must, may = OBJECTS[kind]
    keys = {key for key in found if not key.startswith("x-")}
    assert must <= keys <= must | may, (kind, keys)


def references(value: Any) -> Iterator[str]:
    """Yield all references in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def method(name: str) -> dict[str, Any]:
    (found,) = [each for each in openrpc(offers(), "shop")["methods"] if each["name"] == name]
    checked: dict[str, Any] = found
    return checked


def body_of(name: str) -> jsonschema.Draft202012Validator:
    """Return what validates the body of a call of a function over HTTP."""
    document = openapi(offers(), "shop")
    operation = document["paths"][f"/shop/{name}"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


# -- OpenRPC ------------------------------------------------------------------------------------


def test_an_openrpc_document_has_what_the_specification_asks_for() -> None:
    document = openrpc(offers(), "shop")
    check("document", document)
    check("info", document["info"])
    assert re.fullmatch(r"1\.3\.\d", document["openrpc"])
    for each in document["methods"]:
        check("method", each)
        check("descriptor", each["result"])
        for descriptor in each["params"]:
            check("descriptor", descriptor)
        needed = [descriptor["required"] for descriptor in each["params"]]
        assert needed == sorted(needed, reverse=True)
        assert each["paramStructure"] in ("either", "by-name", "by-position")
        for descriptor in (*each["params"], each["result"]):
            jsonschema.Draft7Validator.check_schema(descriptor["schema"])
    names = [each["name"] for each in document["methods"]]
    assert len(names) == len(set(names)) == len(service.offer().functions)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(schema)


def test_a_method_has_parameters_and_a_result() -> None:
    find = method("shop.find")
    assert find["summary"] == "Find an order"
    assert find["params"][0] == {
        "name": "id",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    }
    assert find["params"][1]["schema"] == {"type": "boolean", "default": False}
    assert find["result"]["schema"] == {
        "anyOf": [{"$ref": "#/components/schemas/Order"}, {"type": "null"}]
    }
    assert find["x-errors"] == [
        {"type": "NotFound", "doc": "There is no such order."},
        {"type": "LookupError", "doc": "Base class for lookup errors."},
    ]


def test_a_method_says_how_its_arguments_are_passed() -> None:
    assert method("shop.find")["paramStructure"] == "either"
    # One by position and one by name: neither alone is enough.
    assert method("shop.places")["paramStructure"] == "either"
    assert method("shop.untyped")["params"][-1]["x-kind"] == "var_keyword"
    by_name = [each["kind"] for each in service.offer().functions[2]["parameters"]]
    assert "keyword_only" in by_name


def test_tuples_are_those_of_draft_7() -> None:
    pair = next(each for each in method("shop.values")["params"] if each["name"] == "pair")
    assert pair["schema"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert pair["schema"]["additionalItems"] is False
    assert "prefixItems" not in pair["schema"]


def test_a_stream_has_its_items_beside_its_result() -> None:
    count = method("shop.count")
    assert (count["x-stream"], count["x-stream-item"]) == (True, {"type": "integer"})
    assert count["result"]["schema"] == {"type": "string"}


@pytest.mark.parametrize(
    ("kinds", "structure"),
    [
        ([], "either"),
        (["positional_only"], "by-position"),
        (["keyword_only"], "by-name"),
        (["positional_only", "keyword_only"], "either"),
    ],
)
def test_the_structure_of_parameters(kinds: list[str], structure: str) -> None:
    function: Any = {
        "name": "f",
        "signature": "f()",
        "doc": "",
        "parameters": [{"name": kind, "kind": kind} for kind in kinds],
    }
    (made,) = openrpc({"x": Offer("x", [function])}, "x")["methods"]
    assert made["paramStructure"] == structure


# -- OpenAPI ------------------------------------------------------------------------------------


def test_an_openapi_document_fits_the_published_meta_schema() -> None:
    document: Any = openapi(offers(), "shop")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    del document["paths"]["/shop/find"]["post"]["responses"]
    document["paths"]["/shop/find"]["post"]["surprise"] = 1
    assert list(OpenAPIV31SpecValidator(document).iter_errors())


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        (
            "find",
            [
                ["12345678-1234-5678-1234-567812345678"],
                {"id": "12345678-1234-5678-1234-567812345678", "deep": True},
            ],
            [[], {}, {"id": 1}, ["a", True], {"id": "a", "dep": True}, "a"],
        ),
        ("tail", [[], [5], {}, {"most": 5}], [["5"], [1, 2], {"least": 5}]),
        ("untyped", [[1], [1, 2, 3], {"a": 1, "z": 2}], [[], {"b": 1}]),
        ("builtin", [[], [1, 2], {"a": 1}], ["a"]),
        ("model", [[{"no": 1}], {"model": {"no": 1}}], [[{"no": 0}], [{}]]),
        # By position and by name at once.
        ("places", [], [[1], {"a": 1}, {}]),
    ],
)
def test_a_body_is_an_array_or_an_object_of_the_arguments(
    function: str, good: list[Any], bad: list[Any]
) -> None:
    validator = body_of(function)
    for body in good:
        validator.validate(body)
    for body in bad:
        assert not validator.is_valid(body), body


def test_no_schema_is_false_where_a_number_says_as_much() -> None:
    validator = body_of("values")
    first = [[1], [1, "a"], {}, {}, "", "a"]
    assert validator.is_valid(first)
    assert not validator.is_valid([[1], [1, "a", 2], *first[2:]])
    assert '"items": false' not in json.dumps(openapi(offers(), "shop"))


def test_answers_are_results_lines_of_items_and_problems() -> None:
    paths = openapi(offers(), "shop")["paths"]
    find = paths["/shop/find"]["post"]
    assert find["operationId"] == "shop.find"
    assert find["requestBody"]["required"] is True
    assert list(find["responses"]["200"]["content"]) == ["application/json"]
    assert find["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
    tail = paths["/shop/tail"]["post"]
    assert tail["requestBody"]["required"] is False
    assert list(tail["responses"]["200"]["content"]) == [
        "application/x-ndjson",
        "text/event-stream",
    ]
    assert "/shop/na%C3%AFve" in paths


@pytest.mark.parametrize("name", [".", "..", "...", "a/..", "../a", "a/./b", "a/../b"])
def test_no_name_makes_an_address_that_clients_shorten(name: str) -> None:
    path = path_of("shop", name)
    assert urljoin("http://shop.example/", path) == f"http://shop.example{path}"
    assert unquote(path) == f"/shop/{name}"
    other_way_round = path_of("..", name)
    assert urljoin("http://shop.example/", other_way_round).endswith(other_way_round)


def test_what_is_deprecated_says_so_in_both() -> None:
    described = service.offer()
    function = next(each for each in described.functions if each["name"] == "tail")
    function["deprecated"] = "call find"
    operation = openapi({"shop": described}, "shop")["paths"]["/shop/tail"]["post"]
    assert (operation["deprecated"], operation["x-deprecated"]) == (True, "call find")
    (made,) = openrpc({"shop": Offer("shop", [function])}, "shop")["methods"]
    assert (made["deprecated"], made["x-deprecated"]) == (True, "call find")


# -- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [openrpc, openapi])
def test_several_services_keep_their_classes_apart(make: Any) -> None:
    first, second = service.offer(), service.offer()
    first.version, second.version = "1.0", "2.0"
    document = make({"shop": first, "other": second}, "all")
    assert document["info"] == {"title": "all", "version": "1.0, 2.0"}
    schemas = document["components"]["schemas"]
    assert {"shop.Order", "other.Order"} <= schemas.keys()
    targets = {target for target in references(document) if "/schemas/" in target}
    assert targets
    for target in targets:
        assert target.removeprefix("#/components/schemas/") in schemas


@pytest.mark.parametrize("make", [openrpc, openapi])
def test_no_text_names_a_schema_that_is_not_there(make: Any) -> None:
    document = make(offers(), "shop")
    targets = set(re.findall(r'"(#/[^"]*)"', json.dumps(document)))
    assert len(targets) > 20
    for target in targets:
        place = document
        for step in target.removeprefix("#/").split("/"):
            place = place[step]


@pytest.mark.parametrize("make", [openrpc, openapi])
def test_names_that_cannot_be_those_of_schemas_are_changed(make: Any) -> None:
    definitions: Any = {
        "Ärger": {"type": "object", "properties": {"$ref": {"type": "string"}}},
        "Xrger": {"enum": [{"$ref": "#/$defs/Ärger"}]},
        "Problem": {"type": "string"},
        "_rger": {"type": "integer"},
    }
    function: Any = {
        "name": "f",
        "signature": "f()",
        "doc": "",
        "parameters": [],
        "result": {"anyOf": [{"$ref": "#/$defs/Ärger"}, {"$ref": "#/$defs/Gone"}]},
    }
    document = make({"x": Offer("x", [function], definitions)}, "x")
    schemas = document["components"]["schemas"]
    # What is called like a keyword is a property, and what is in an enum a value.
    assert schemas["_rger_2"]["properties"] == {"$ref": {"type": "string"}}
    assert schemas["Xrger"]["enum"] == [{"$ref": "#/$defs/Ärger"}]
    assert {"#/components/schemas/_rger_2"} <= set(references(document))
    assert not any("Gone" in target for target in references(document))


def test_a_default_that_is_not_of_its_type_is_not_told() -> None:
    document = openapi(offers(), "shop")
    limit = document["components"]["schemas"]["Implicit"]["properties"]["limit"]
    assert limit == {"type": "integer"}
    after = next(each for each in method("shop.rare")["params"] if each["name"] == "after")
    assert (after["schema"], after["required"]) == ({"type": "integer"}, False)
