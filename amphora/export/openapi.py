"""Services as an OpenAPI document (https://spec.openapis.org/oas/v3.1.0), for an HTTP gateway.

Each function is a POST to `/namespace/function`.  Its body is an array of arguments by position, or
an object of arguments by name.  The answer is the result; errors are problem details (RFC
9457).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from amphora.export.documents import (
    COMPONENTS,
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

VERSION = "3.1.0"
PROBLEM = "Problem"

_PROBLEM_SCHEMA: Schema = {
    "title": "Problem",
    "description": "What went wrong: problem details (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "executed": {
            "description": "Whether the function ran; null if it may have run.",
            "type": ["boolean", "null"],
        },
    },
}
_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds until the call ends.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def openapi(offers: Mapping[str, Offer], title: str) -> dict[str, Any]:
    """Return the document of some services, by namespace."""
    components = Components(offers, taken=(PROBLEM,), translate=_plain_tuples)
    versions = sorted({offer.version for offer in offers.values()} - {""})
    return {
        "openapi": VERSION,
        "info": {"title": title, "version": ", ".join(versions) or "0"},
        "paths": {
            path_of(namespace, function["name"]): {
                "post": _operation(components, namespace, offer, function)
            }
            for namespace, offer in sorted(offers.items())
            for function in sorted(offer.functions, key=lambda each: each["name"])
        },
        "components": {
            "schemas": {**components.schemas, PROBLEM: _PROBLEM_SCHEMA},
            "parameters": {"Timeout": _TIMEOUT},
            "responses": {
                PROBLEM: {
                    "description": "What went wrong.",
                    "content": {
                        "application/problem+json": {"schema": {"$ref": f"{COMPONENTS}{PROBLEM}"}}
                    },
                }
            },
        },
    }


def path_of(namespace: str, function: str) -> str:
    """Return the path of a function."""
    return f"/{_segment(namespace)}/{_segment(function)}"


def _segment(name: str) -> str:
    # HTTP clients take these two for steps in the path, see RFC 3986, 5.2.4.
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _operation(
    components: Components, namespace: str, offer: Offer, function: FunctionDescription
) -> dict[str, Any]:
    parameters = parameters_of(function, offer)
    operation: dict[str, Any] = {
        "operationId": f"{namespace}.{function['name']}",
        "tags": [namespace],
        "parameters": [{"$ref": "#/components/parameters/Timeout"}],
        "requestBody": {
            "required": any(map(is_needed, parameters)),
            "content": {"application/json": {"schema": _body(components, namespace, parameters)}},
        },
        "responses": {
            "200": _answer(components, namespace, function),
            "default": {"$ref": f"#/components/responses/{PROBLEM}"},
        },
        **extensions_of(function),
    }
    if function["doc"]:
        operation |= {"summary": summary_of(function["doc"]), "description": function["doc"]}
    if function.get("deprecated"):
        operation["deprecated"] = True
    return operation


def _answer(
    components: Components, namespace: str, function: FunctionDescription
) -> dict[str, Any]:
    result = components.schema(namespace, function.get("result"))
    if not function.get("stream"):
        return {"description": "The result.", "content": {"application/json": {"schema": result}}}
    item = components.schema(namespace, function.get("item"))
    return {
        "description": "The items of the stream: a line of JSON each, or server-sent events.",
        "content": {
            "application/x-ndjson": {"schema": item},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }


def _body(components: Components, namespace: str, parameters: list[ParameterDescription]) -> Schema:
    """Return the schema of the arguments: an array, an object, or either."""

    def schema_of(parameter: ParameterDescription) -> Schema:
        schema = components.schema(namespace, parameter.get("schema"))
        return defaulted(schema, parameter)

    kinds: dict[str, list[ParameterDescription]] = {}
    for each in parameters:
        kinds.setdefault(each["kind"], []).append(each)
    by_place_alone = kinds.get("positional_only", [])
    either = kinds.get("positional_or_keyword", [])
    by_name_alone = kinds.get("keyword_only", [])
    forms: list[Schema] = []
    if not any(map(is_needed, by_name_alone)):
        rest = kinds.get("var_positional", [])
        forms.append(_by_position([*by_place_alone, *either], rest, schema_of))
    if not any(map(is_needed, by_place_alone)):
        rest = kinds.get("var_keyword", [])
        forms.append(_by_name([*either, *by_name_alone], rest, schema_of))
    if not forms:
        # One body cannot pass some arguments by position and others by name.
        return {"description": "This function cannot be called over HTTP.", "not": {}}
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _by_position(
    parameters: list[ParameterDescription],
    rest: list[ParameterDescription],
    schema_of: Callable[[ParameterDescription], Schema],
) -> Schema:
    """Return the schema of arguments by position; `rest` has `*args`, if there is that."""
    array: Schema = {
        "title": "By position",
        "type": "array",
        "minItems": sum(map(is_needed, parameters)),
    }
    if parameters:
        array["prefixItems"] = [schema_of(each) for each in parameters]
    if rest:
        array["items"] = schema_of(rest[0])
    else:
        array["maxItems"] = len(parameters)
    return array


def _by_name(
    parameters: list[ParameterDescription],
    rest: list[ParameterDescription],
    schema_of: Callable[[ParameterDescription], Schema],
) -> Schema:
    """Return the schema of arguments by name; `rest` has `**kwargs`, if there is that."""
    named: Schema = {
        "title": "By name",
        "type": "object",
        "properties": {each["name"]: schema_of(each) for each in parameters},
        "additionalProperties": schema_of(rest[0]) if rest else False,
    }
    required = [each["name"] for each in parameters if is_needed(each)]
    if required:
        named["required"] = required
    return named


def _plain_tuples(schema: Schema) -> Schema:
    """Return a schema whose tuples are bounded by their number of items alone.

    Some generators of clients take no document in which a schema is `false`.
    """
    if schema.get("items") is False and "maxItems" in schema:
        return {name: part for name, part in schema.items() if name != "items"}
    return schema
