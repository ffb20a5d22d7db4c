"""A service as an OpenRPC document (https://spec.open-rpc.org, 1.3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amphora.export.documents import (
    Components,
    defaulted,
    extensions_of,
    is_needed,
    parameters_of,
    summary_of,
)
from amphora.rpc.contract.reports import FunctionDescription, ParameterDescription
from amphora.rpc.contract.types.compatibility import Offer
from amphora.rpc.contract.types.schemas import Schema

VERSION = "1.3.2"


def openrpc(offers: Mapping[str, Offer], title: str) -> dict[str, Any]:
    """Return the document of some services, by namespace.

    Its methods are named `namespace.function`.  A stream has the schema of its items in
    `x-stream-item`; further arguments by position or name are parameters with `x-kind`.
    """
    # OpenRPC uses the schemas of draft 7.
    components = Components(offers, translate=_draft_7)
    versions = sorted({offer.version for offer in offers.values()} - {""})
    return {
        "openrpc": VERSION,
        "info": {"title": title, "version": ", ".join(versions) or "0"},
        "methods": [
            _method(components, namespace, offer, function)
            for namespace, offer in sorted(offers.items())
            for function in sorted(offer.functions, key=lambda each: each["name"])
        ],
        "components": {"schemas": components.schemas},
    }


def _method(
    components: Components, namespace: str, offer: Offer, function: FunctionDescription
) -> dict[str, Any]:
    parameters = parameters_of(function, offer)
    method: dict[str, Any] = {
        "name": f"{namespace}.{function['name']}",
        "tags": [{"name": namespace}],
        "paramStructure": _structure(parameters),
        # As the specification asks, required parameters come first; by position, they already do.
        "params": [
            _descriptor(components, namespace, each)
            for each in sorted(parameters, key=lambda each: not is_needed(each))
        ],
        "result": {
            "name": "result",
            "schema": components.schema(namespace, function.get("result")),
        },
        **extensions_of(function),
    }
    if function["doc"]:
        method |= {"summary": summary_of(function["doc"]), "description": function["doc"]}
    if function.get("deprecated"):
        method["deprecated"] = True
    if function.get("stream"):
        method["x-stream-item"] = components.schema(namespace, function.get("item"))
    return method


def _descriptor(
    components: Components, namespace: str, parameter: ParameterDescription
) -> dict[str, Any]:
    schema = components.schema(namespace, parameter.get("schema"))
    descriptor = {
        "name": parameter["name"],
        "required": is_needed(parameter),
        "schema": defaulted(schema, parameter),
    }
    if parameter["kind"].startswith("var_"):
        descriptor["x-kind"] = parameter["kind"]
    return descriptor


def _structure(parameters: list[ParameterDescription]) -> str:
    by_position = any(each["kind"] == "positional_only" and is_needed(each) for each in parameters)
    by_name = any(each["kind"] == "keyword_only" and is_needed(each) for each in parameters)
    if by_position == by_name:
        return "either"
    return "by-position" if by_position else "by-name"


def _draft_7(schema: Schema) -> Schema:
    """Return a schema in draft 7, which describes tuples differently."""
    if "prefixItems" not in schema:
        return schema
    changed = dict(schema)
    more = changed.pop("items", None)
    changed["items"] = changed.pop("prefixItems")
    if more is not None:
        changed["additionalItems"] = more
    return changed
