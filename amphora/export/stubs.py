"""A module for callers of a service, made from the service's description.

The same description gives the same bytes.  Names, docstrings and defaults arrive over the wire, so
each goes through `source`, which turns them into names or literals and nothing else.
"""

from __future__ import annotations

import re
from keyword import iskeyword
from typing import NamedTuple

from amphora.export.classes import class_lines, is_class
from amphora.export.source import (
    TYPE_NAMES,
    WIDTH,
    Imports,
    docstring,
    free_name,
    literal,
)
from amphora.export.types import Types
from amphora.rpc.contract.reports import FunctionDescription, ParameterDescription
from amphora.rpc.contract.types.compatibility import Offer
from amphora.rpc.contract.types.schemas import Schema

CLIENT = """Calls the functions of {title}.

Args:
    client: the client, or what its `bind` returns, with options for all calls.
"""


class _Method(NamedTuple):
    """A function, its name as a method, and its parameters as source."""

    name: str
    function: FunctionDescription
    parameters: list[str]


def stub(namespace: str, offer: Offer) -> str:
    """Return the source of a module with the functions of a service."""
    return _Module(namespace, offer).source()


class _Module:
    def __init__(self, namespace: str, offer: Offer) -> None:
        self._title = offer.title
        words = re.split(r"[^0-9A-Za-z]+", namespace)
        self._prefix = free_name("".join(word[:1].upper() + word[1:] for word in words), ())
        self._imports = Imports()
        own = [f"{self._prefix}{end}" for end in ("API", "Deferred", "Casts", "Streams", "Client")]
        self._api, self._deferred, self._casts, self._streams, self._client = own
        self._types = types = Types(offer.definitions, self._imports, own)
        types.names = {
            name: own
            for name, own in types.names.items()
            if is_class(offer.definitions[name], types)
        }
        self._methods: list[_Method] = []
        taken: set[str] = set()
        for function in sorted(offer.functions, key=lambda each: each["name"]):
            name = function["name"]
            if not self._types.may_be_called(name) or name.startswith("_") or name in taken:
                name = free_name(name, (*taken, *TYPE_NAMES, *self._types.names.values()))
            taken.add(name)
            self._methods.append(_Method(name, function, self._parameters(function)))

    def source(self) -> str:
        """Return the whole module."""
        body: list[str] = []
        for name, own in self._types.names.items():
            definition = self._types.definitions[name]
            body += ["", "", *class_lines(own, definition, self._types)]
        calls = [each for each in self._methods if not each.function.get("stream")]
        streams = [each for each in self._methods if each.function.get("stream")]
        body += self._protocol(self._api, f"The functions of {self._title}.", self._methods, "")
        if calls:
            self._imports.use("Result")
            told = f"The functions of {self._title}, each of which returns a `Result` at once."
            body += self._protocol(self._deferred, told, calls, "Result")
            told = f"The functions of {self._title}, asked for no answer."
            body += self._protocol(self._casts, told, calls, "cast")
        if streams:
            self._imports.use("Stream")
            told = f"The functions of {self._title} that are called for their items."
            body += self._protocol(self._streams, told, streams, "Stream")
        body += self._client_lines(bool(calls), bool(streams))
        head = [
            f'"""The functions of {_safe(self._title)}, for their callers.',
            "",
            "Written by `amphora stubs`: changes are lost when it is written again.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            *self._imports.lines(),
        ]
        return "\n".join([*head, *body, ""])

    # -- methods ----------------------------------------------------------------------------------

    def _parameters(self, function: FunctionDescription) -> list[str]:
        if not function["parameters"] and function["signature"].endswith("(...)"):
            any_value = self._imports.use("Any")
            return [f"*args: {any_value}", f"**kwargs: {any_value}"]
        parts: list[str] = []
        kinds = [each["kind"] for each in function["parameters"]]
        for place, each in enumerate(function["parameters"]):
            kind = each["kind"]
            if kind == "keyword_only" and "var_positional" not in kinds and "*" not in parts:
                parts.append("*")
            parts.append(self._parameter(each))
            if kind == "positional_only" and "positional_only" not in kinds[place + 1 :]:
                parts.append("/")
        return parts

    def _parameter(self, parameter: ParameterDescription) -> str:
        schema: Schema = parameter.get("schema", {})
        name, kind = _parameter_name(parameter), self._types.of(schema)
        if parameter["kind"] == "var_positional":
            return f"*{name}: {kind}"
        if parameter["kind"] == "var_keyword":
            if parameter.get("unpacked"):
                kind = f"{self._imports.use('Unpack')}[{kind}]"
            return f"**{name}: {kind}"
        if "default" not in parameter:
            return f"{name}: {kind}"
        default = "..."
        if "value" in parameter:
            if schema:
                constant = self._types.constant(schema, parameter["value"])
                fits = constant != "None" or "None" in kind.split(" | ")
            else:
                constant, fits = literal(parameter["value"]), True
            default = constant if constant is not None and fits else default
        return f"{name}: {kind} = {default}"

    def _protocol(self, name: str, told: str, methods: list[_Method], form: str) -> list[str]:
        self._imports.use("Protocol")
        lines = ["", "", f"class {name}(Protocol):", *docstring(told, "    ")]
        for method in methods:
            lines += ["", *self._method(method, form)]
        return lines

    def _method(self, method: _Method, form: str) -> list[str]:
        lines = []
        if not form and method.name != method.function["name"]:
            self._imports.use("function_name")
            lines.append(f"    @function_name({literal(method.function['name'])})")
        own = [_parameter_name(each) for each in method.function["parameters"]]
        receiver = free_name("self", own)
        parameters = [receiver, *method.parameters]
        returned = self._returned(method.function, form)
        told = docstring(_told(method.function), "        ")
        end = "" if told else " ..."
        line = f"    def {method.name}({', '.join(parameters)}) -> {returned}:{end}"
        if len(line) > WIDTH:
            line = f"        {', '.join(parameters)}"
            inner = [line] if len(line) <= WIDTH else [f"        {part}," for part in parameters]
            lines += [f"    def {method.name}(", *inner, f"    ) -> {returned}:{end}"]
        else:
            lines.append(line)
        return [*lines, *told, "        ..."] if told else lines

    def _returned(self, function: FunctionDescription, form: str) -> str:
        # Asking for a type imports it, so each type is asked for only where it is written.
        if form == "cast":
            return "None"
        if form == "Stream":
            return f"Stream[{self._types.of(function.get('item'))}]"
        if form == "Result":
            return f"Result[{self._types.of(function.get('result'))}]"
        if not function.get("stream"):
            return self._types.of(function.get("result"))
        item = self._types.of(function.get("item"))
        if "result" in function:
            result = self._types.of(function["result"])
            return f"{self._imports.use('Generator')}[{item}, None, {result}]"
        return f"{self._imports.use('Iterator')}[{item}]"

    # -- the client -------------------------------------------------------------------------------

    def _client_lines(self, calls: bool, streams: bool) -> list[str]:
        for name in ("AmqpRpcClient", "Bound"):
            self._imports.use(name)
        ways = {"defer": self._deferred, "cast": self._casts} if calls else {}
        if streams:
            ways["stream"] = self._streams
        if ways:
            self._imports.use("cast")
        lines = [
            *("", "", f"class {self._client}:"),
            *docstring(CLIENT.format(title=self._title), "    "),
            "",
            f"    def __init__(self, client: AmqpRpcClient | Bound[{self._api}]) -> None:",
            *self._bound(),
            f"        self.call: {self._api} = bound.call",
        ]
        for way, name in ways.items():
            lines.append(f"        self.{way} = cast({literal(name)}, bound.{way})")
        return lines

    def _bound(self) -> list[str]:
        made = f"client.bind({self._api}) if isinstance(client, AmqpRpcClient) else client"
        line = f"        bound = {made}"
        return (
            [line]
            if len(line) <= WIDTH
            else ["        bound = (", f"            {made}", "        )"]
        )


def _parameter_name(parameter: ParameterDescription) -> str:
    name = parameter["name"]
    return name if name.isidentifier() and not iskeyword(name) else free_name(name, ())


def _told(function: FunctionDescription) -> str:
    """Return the docstring of a function, with further notes for callers."""
    parts = [function["doc"]] if function["doc"] else []
    if function.get("deprecated"):
        parts.append(f"Deprecated: {function['deprecated']}")
    errors = function.get("errors", [])
    if errors:
        told = []
        for each in errors:
            line = f"    RemoteException: {each['type']}: {each['doc'].partition(chr(10))[0]}"
            told.append(line.rstrip(": "))
        parts.append("\n".join(["Raises:", *told]))
    return "\n\n".join(parts)


def _safe(text: str) -> str:
    (line,) = docstring(text.replace("\n", " "), "") or ['""""""']
    return line[3:-3]
