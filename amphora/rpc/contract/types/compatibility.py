"""Whether a service can do what its callers expect, and what it cannot.

A caller may pass less than a service takes, and get more than it expects.  So arguments are
compared in one direction, from the caller to the service, and results in the other.  What one side
does not tell is no difference.  Constraints, such as a minimum, are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from amphora.errors import printable
from amphora.rpc.contract.reports import Description, FunctionDescription, ParameterDescription
from amphora.rpc.contract.types.schemas import DEFINITIONS, FORMATS, KEY, PYTHON, Schema

# Schemas within schemas are compared so deep; a longer chain counts as fitting.
DEEPEST = 50
_BY_POSITION = ("positional_only", "positional_or_keyword")
_BY_NAME = ("positional_or_keyword", "keyword_only")


@dataclass
class Offer:
    """What a service offers, or what a caller takes it to offer.

    Attributes:
        title: its name, for sentences.
        functions: the descriptions of its functions.
        definitions: the schemas that they refer to.
        version: its version, "" if it has none.
    """

    title: str
    functions: list[FunctionDescription]
    definitions: Mapping[str, Schema] = field(default_factory=dict)
    version: str = ""


def offer_of(answer: Any) -> Offer:
    """Return what a worker says that it offers.

    Raises:
        ValueError: it is not the answer of a worker to `describe`.
    """
    description = msgspec.convert(answer, Description)
    version = description.get("version", "")
    title = f"{description['namespace']} {version}".strip()
    return Offer(title, description["functions"], description.get("definitions", {}), version)


def differences(wanted: Offer, offered: Offer) -> list[str]:
    """Return a sentence for each reason why callers cannot use what is offered."""
    there = {function["name"]: function for function in offered.functions}
    found = []
    for function in wanted.functions:
        other = there.get(function["name"])
        if other is None:
            found.append(f"there is no function {_name(function['name'])}")
        else:
            found += [
                f"{_name(function['name'])}: {difference}"
                for difference in _Comparison(wanted, offered).functions(function, other)
            ]
    return found


class _Comparison:
    """The comparison of one function."""

    def __init__(self, wanted: Offer, offered: Offer) -> None:
        self._wanted = wanted
        self._offered = offered

    def functions(self, wanted: FunctionDescription, there: FunctionDescription) -> Iterator[str]:
        """Yield the differences."""
        if bool(wanted.get("stream")) != bool(there.get("stream")):
            yield "it is a stream" if there.get("stream") else "it is not a stream"
            return
        if there["parameters"] or not there["signature"].endswith("(...)"):
            yield from self._parameters(
                spread(wanted["parameters"], self._wanted.definitions),
                spread(there["parameters"], self._offered.definitions),
            )
        results = _Fit(self._offered.definitions, self._wanted.definitions)
        misfit = results.misfit(there.get("result", {}), wanted.get("result", {}))
        if misfit:
            yield f"the result{misfit}"
        misfit = results.misfit(there.get("item", {}), wanted.get("item", {}))
        if misfit:
            yield f"an item{misfit}"

    def _parameters(
        self, wanted: list[ParameterDescription], there: list[ParameterDescription]
    ) -> Iterator[str]:
        arguments = _Fit(self._wanted.definitions, self._offered.definitions)
        takers = _Takers(there, self._wanted.title)
        # Of those that the caller has too, all is said.
        met = [each["name"] for each in wanted]
        for place, each in enumerate(wanted):
            taker = takers.of(each, place)
            if isinstance(taker, str):
                yield taker
                continue
            met.append(taker["name"])
            name = _name(each["name"])
            if "default" in each and "default" not in taker and not _is_rest(taker):
                yield f"needs {name}, which may be left out in {self._wanted.title}"
            misfit = arguments.misfit(each.get("schema", {}), taker.get("schema", {}))
            if misfit:
                yield f"argument {name}{misfit}"
        for other in there:
            if "default" not in other and not _is_rest(other) and other["name"] not in met:
                yield f"needs {_name(other['name'])}, which {self._wanted.title} does not have"


class _Takers:
    """The parameters of a function, which take what is passed to it.

    Args:
        parameters: the parameters.
        title: the name of what is passed, for sentences.
    """

    def __init__(self, parameters: list[ParameterDescription], title: str) -> None:
        by_kind = {each["kind"]: each for each in parameters}
        self._rest = by_kind.get("var_positional")
        self._extra = by_kind.get("var_keyword")
        self._places = [each for each in parameters if each["kind"] in _BY_POSITION]
        self._names = {each["name"]: each for each in parameters if each["kind"] in _BY_NAME}
        self._title = title

    def of(self, passed: ParameterDescription, place: int) -> ParameterDescription | str:
        """Return what takes an argument, or why nothing does."""
        name = _name(passed["name"])
        by_place = self._places[place] if place < len(self._places) else self._rest
        by_name = self._names.get(passed["name"], self._extra)
        taker: ParameterDescription | None
        match passed["kind"]:
            case "var_positional":
                return self._rest or "takes no more arguments by position"
            case "var_keyword":
                return self._extra or "takes no other arguments by name"
            case "keyword_only":
                taker = by_name
            case "positional_only":
                taker = by_place
            case _:
                return self._both(name, by_place, by_name)
        return taker or f"takes no argument {name}"

    def _both(
        self,
        name: str,
        by_place: ParameterDescription | None,
        by_name: ParameterDescription | None,
    ) -> ParameterDescription | str:
        """Return what takes an argument by position and by name, or why nothing does."""
        if by_place is by_name:
            return by_place or f"takes no argument {name}"
        if by_place is None:
            return (
                f"takes no argument {name}"
                if by_name is self._extra
                else f"takes {name} by name only"
            )
        if by_place is self._rest and by_name is self._extra is not None:
            return by_place
        if by_place is self._rest or by_place["kind"] == "positional_only":
            return f"takes {name} by position only"
        return f"has {_name(by_place['name'])} where {self._title} has {name}"


def _is_rest(parameter: ParameterDescription) -> bool:
    return parameter["kind"].startswith("var_")


def spread(
    parameters: list[ParameterDescription], definitions: Mapping[str, Schema]
) -> list[ParameterDescription]:
    """Return parameters with those of `**options: Unpack[Options]` one by one."""
    single: list[ParameterDescription] = []
    for parameter in parameters:
        if not parameter.get("unpacked"):
            single.append(parameter)
            continue
        document = resolved(parameter.get("schema", {}), definitions)
        for name, schema in document.get("properties", {}).items():
            one: ParameterDescription = {"name": name, "kind": "keyword_only", "schema": schema}
            if name not in document.get("required", ()):
                one["default"] = "..."
            single.append(one)
    return single


def resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema that a schema refers to, or itself."""
    for _ in range(DEEPEST):
        if "$ref" not in schema:
            break
        schema = definitions.get(str(schema["$ref"]).removeprefix(DEFINITIONS), {})
    # As pydantic has a literal.
    return {**schema, "enum": [schema["const"]]} if "const" in schema else schema


class _Fit:
    """Whether the values of one schema fit another one.

    Args:
        ours: what the schemas of the values refer to.
        theirs: what the schemas refer to that they have to fit.
    """

    def __init__(self, ours: Mapping[str, Schema], theirs: Mapping[str, Schema]) -> None:
        self._ours = ours
        self._theirs = theirs
        self._open: list[tuple[Schema, Schema]] = []

    def misfit(self, value: Schema, taken: Schema) -> str:
        """Return what does not fit, as the end of a sentence; "" if nothing."""
        pair = value, taken
        if pair in self._open or len(self._open) > DEEPEST:
            # They contain themselves.
            return ""
        self._open.append(pair)
        try:
            return self._misfit(resolved(value, self._ours), resolved(taken, self._theirs), *pair)
        finally:
            self._open.pop()

    def _misfit(self, value: Schema, taken: Schema, named: Schema, other: Schema) -> str:
        if not _says(value) or not _says(taken):
            return ""
        if isinstance(value.get("type"), list) and "anyOf" in taken:
            # Each of them may fit another member.
            value = {"anyOf": [{**value, "type": kind} for kind in value["type"]]}
        if "anyOf" in value:
            misfits = (self.misfit(each, taken) for each in value["anyOf"])
            return next(filter(None, misfits), "")
        if len(value.get("enum", ())) > 1:
            fit = (not self.misfit({"enum": [each]}, taken) for each in value["enum"])
            return "" if all(fit) else self._differ(named, other)
        if "anyOf" in taken:
            found = [self.misfit(value, each) for each in taken["anyOf"]]
            if not all(found):
                return ""
            # Inside of the only one that is alike, there is more to say.
            inside = [misfit for misfit in found if not misfit.startswith(" is ")]
            return inside[0] if len(inside) == 1 else self._differ(named, other)
        if "enum" in value:
            fitting = all(_is_one(each, taken) for each in value["enum"])
            return "" if fitting else self._differ(named, other)
        if value.get("type") == "null" and None in taken.get("enum", ()):
            return ""
        if "enum" in taken or not self._alike(value, taken):
            return self._differ(named, other)
        kind = value.get("type")
        if kind == "array" and (inside_of := self._arrays(value, taken)) is not None:
            return inside_of
        if kind == "object" and (inside_of := self._objects(value, taken)) is not None:
            return inside_of
        return self._differ(named, other) if kind in ("array", "object") else ""

    def _differ(self, value: Schema, taken: Schema) -> str:
        if _names(value) & _names(taken):
            # One class that has changed: its name does not tell how.
            value = _without_names(value, self._ours)
            taken = _without_names(taken, self._theirs)
        return f" is {brief(value)}, and not {brief(taken)}"

    @staticmethod
    def _alike(value: Schema, taken: Schema) -> bool:
        """Return whether the types fit, without what is in them."""
        ours, theirs = _types(value), _types(taken)
        if "number" in theirs:
            theirs = theirs | {"integer"}
        if not ours <= theirs:
            return False
        return ours != {"string"} or _text_of(taken) in ("", _text_of(value))

    def _arrays(self, value: Schema, taken: Schema) -> str | None:
        """Return what does not fit in an array; None if it is of another kind."""
        ours, theirs = _places(value), _places(taken)
        if ours is None and theirs is None:
            return _inside("[]", self.misfit(value.get("items") or {}, taken.get("items") or {}))
        if ours is None:
            # Of a list without a hint for its items, nothing is known.
            return None if value.get("items") else ""
        if theirs is None:
            theirs = [taken.get("items") or {}] * len(ours)
        elif len(ours) > len(theirs) or value.get("minItems", 0) < taken.get("minItems", 0):
            return f" has {len(ours)} items, and not {len(theirs)}"
        misfits = (
            _inside(f"[{place}]", self.misfit(our, their))
            for place, (our, their) in enumerate(zip(ours, theirs, strict=False))
        )
        return next(filter(None, misfits), "")

    def _objects(self, value: Schema, taken: Schema) -> str | None:
        """Return what does not fit in an object; None if it is of another kind."""
        ours, theirs = value.get("properties"), taken.get("properties")
        if theirs is None:
            each = value.get("additionalProperties") or {}
            wide = taken.get("additionalProperties") or {}
            misfits = [
                _inside(f".{_name(name)}", self.misfit(schema, wide))
                for name, schema in (ours or {}).items()
            ]
            keys = self.misfit(_keys(value), _keys(taken))
            return next(filter(None, [*misfits, _inside("[]", self.misfit(each, wide)), keys]), "")
        if ours is None:
            return None
        for name in taken.get("required", ()):
            if name not in ours:
                return f" has no {_name(name)}"
            if name not in value.get("required", ()) and value.get(PYTHON) == "TypedDict":
                return f" may have no {_name(name)}"
        if taken.get("additionalProperties") is False:
            for name in ours:
                if name not in theirs:
                    return f" has {_name(name)}, which is not taken"
        for name, schema in theirs.items():
            misfit = _inside(f".{_name(name)}", self.misfit(ours.get(name, {}), schema))
            if misfit:
                return misfit
        return ""


def _places(schema: Schema) -> list[Schema] | None:
    """Return the schemas of the items of a tuple, None for an array of any length."""
    places: list[Schema] | None = schema.get("prefixItems")
    return [] if places is None and schema.get("items") is False else places


def _keys(schema: Schema) -> Schema:
    """Return the schema of the keys of a dict."""
    names: Schema = schema.get("propertyNames", {})
    keys: Schema = names.get(KEY, names)
    return keys


def _names(schema: Schema) -> set[str]:
    """Return the names of the classes that a schema refers to."""
    return {str(each["$ref"]) for each in (schema, *schema.get("anyOf", ())) if "$ref" in each}


def _without_names(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema with the classes that it refers to."""
    if "anyOf" in schema:
        return {"anyOf": [resolved(each, definitions) for each in schema["anyOf"]]}
    return resolved(schema, definitions)


def _inside(path: str, misfit: str) -> str:
    return misfit and f"{path}{misfit}"


def _says(schema: Schema) -> bool:
    """Return whether a schema says which values fit."""
    return bool(schema.keys() & {"type", "enum", "const", "anyOf"})


def _types(schema: Schema) -> set[str]:
    kind = schema.get("type")
    return set(kind) if isinstance(kind, list) else {str(kind)}


def _text_of(schema: Schema) -> str:
    """Return what a text stands for, "" for any text."""
    name = schema.get("format")
    return str(name if name in FORMATS else schema.get("contentEncoding") or "")


def _is_one(value: Any, schema: Schema) -> bool:
    """Return whether a value is of one of the types of a schema."""
    if "enum" in schema:
        return any(value == each and type(value) is type(each) for each in schema["enum"])
    names: dict[type, set[str]] = {
        type(None): {"null"},
        bool: {"boolean"},
        int: {"integer", "number"},
        float: {"number"},
        str: {"string"},
    }
    return bool(names.get(type(value), set()) & _types(schema))


def brief(schema: Schema) -> str:
    """Return a schema in a few words."""
    if "$ref" in schema:
        return _name(str(schema["$ref"]).removeprefix(DEFINITIONS))
    if "anyOf" in schema:
        return " or ".join(brief(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(printable(repr(each), 50) for each in schema["enum"][:10])
    text = _text_of(schema)
    kind = schema.get("type", "anything")
    if kind == "array" and schema.get("items"):
        return f"array of {brief(schema['items'])}"
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return printable(f"{words} ({text})" if text else words, 200)


def _name(name: str) -> str:
    return printable(name, 100)
