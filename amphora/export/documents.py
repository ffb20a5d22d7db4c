"""The common parts of OpenRPC and OpenAPI documents: schema names, references, parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from amphora.rpc.contract.reports import FunctionDescription, ParameterDescription
from amphora.rpc.contract.types.compatibility import Offer, spread
from amphora.rpc.contract.types.schemas import DEFINITIONS, Schema, with_default

COMPONENTS = "#/components/schemas/"
# The schema names that both formats allow.
_UNNAMED = re.compile(r"[^a-zA-Z0-9._-]")


class Components:
    """The schemas of the classes of some services, in one document.

    Args:
        offers: what the services offer, by namespace.
        taken: names that must not be used.
        translate: changes each schema into the dialect of the document.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        taken: tuple[str, ...] = (),
        translate: Callable[[Schema], Schema] = dict,
    ) -> None:
        self._translate = translate
        self._names: dict[tuple[str, str], str] = {}
        used = set(taken)
        for namespace, offer in sorted(offers.items()):
            for name in sorted(offer.definitions):
                # Of several services, each may have an Order of its own.
                full = name if len(offers) == 1 else f"{namespace}.{name}"
                self._names[namespace, name] = _free(_UNNAMED.sub("_", full), used)
        self.schemas = {
            self._names[namespace, name]: self.schema(namespace, offer.definitions[name])
            for namespace, offer in sorted(offers.items())
            for name in sorted(offer.definitions)
        }

    def schema(self, namespace: str, schema: Schema | None) -> Schema:
        """Return a schema of a service in the form of the document."""
        changed: Schema = self._changed(namespace, schema or {})
        return changed

    def _changed(self, namespace: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._changed(namespace, part) for part in value]
        if not isinstance(value, dict):
            return value
        changed = {key: self._part(namespace, key, part) for key, part in value.items()}
        target = changed.get("$ref")
        if isinstance(target, str):
            known = self._names.get((namespace, target.removeprefix(DEFINITIONS)))
            if known is None:
                # An array of unknown items.
                return {}
            changed["$ref"] = f"{COMPONENTS}{known}"
        return self._translate(changed)

    def _part(self, namespace: str, key: str, part: Any) -> Any:
        if key in ("default", "enum", "const", "examples"):
            # These are values, not schemas.
            return part
        if key == "properties" and isinstance(part, dict):
            # Their names may equal keywords.
            return {name: self._changed(namespace, each) for name, each in part.items()}
        return self._changed(namespace, part)


def _free(name: str, used: set[str]) -> str:
    free, number = name, 1
    while free in used:
        number += 1
        free = f"{name}_{number}"
    used.add(free)
    return free


def parameters_of(function: FunctionDescription, offer: Offer) -> list[ParameterDescription]:
    """Return the parameters of a function one by one; any parameters if they are unknown."""
    if not function["parameters"] and function["signature"].endswith("(...)"):
        return [
            {"name": "args", "kind": "var_positional"},
            {"name": "kwargs", "kind": "var_keyword"},
        ]
    return spread(function["parameters"], offer.definitions)


def is_needed(parameter: ParameterDescription) -> bool:
    """Return whether a parameter has to be passed."""
    return "default" not in parameter and not parameter["kind"].startswith("var_")


def defaulted(schema: Schema, parameter: ParameterDescription) -> Schema:
    """Return the schema of a parameter, with its default if that is known."""
    return with_default(schema, parameter["value"]) if "value" in parameter else schema


def summary_of(text: str) -> str:
    """Return the first line of a docstring, without its full stop."""
    return text.strip().partition("\n")[0].removesuffix(".")


def extensions_of(function: FunctionDescription) -> dict[str, Any]:
    """Return the properties of a function for which the format has no keywords."""
    said: dict[str, Any] = {
        f"x-{key}": True for key in ("idempotent", "cancellable", "stream") if function.get(key)
    }
    if function.get("deprecated"):
        said["x-deprecated"] = function["deprecated"]
    if function.get("errors"):
        said["x-errors"] = [dict(error) for error in function["errors"]]
    return said
