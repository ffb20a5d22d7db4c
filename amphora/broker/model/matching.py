"""Which bindings of an exchange a message matches: direct, fanout, topic and headers.

A matcher holds the bindings of one exchange in the shape that its type needs.  So routing a message
looks only at the bindings that match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from amphora.broker.model.bindings import Binding, Destination
from amphora.broker.model.errors import Refusal
from amphora.broker.model.values import equal, type_name
from amphora.wire.codes import ReplyCode


class Matcher(Protocol):
    """The bindings of one exchange, in the shape that its type needs."""

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise a `Refusal` if a binding must not have these arguments."""

    def add(self, binding: Binding) -> None:
        """Add a binding that is not here yet."""

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is here."""

    def match(
        self, routing_keys: tuple[str, ...], headers: Mapping[str, Any]
    ) -> Iterable[Destination]:
        """Return where a message goes; a destination may come more than once."""


class Direct:
    """A message goes to the bindings with its own routing key."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[Binding]] = {}

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Accept any arguments; they mean nothing here."""

    def add(self, binding: Binding) -> None:
        """Add a binding that is not here yet."""
        self._by_key.setdefault(binding.routing_key, []).append(binding)

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is here."""
        bindings = self._by_key[binding.routing_key]
        bindings.remove(binding)
        if not bindings:
            del self._by_key[binding.routing_key]

    def match(
        self, routing_keys: tuple[str, ...], headers: Mapping[str, Any]
    ) -> Iterable[Destination]:
        """Return where a message goes."""
        return [
            binding.destination for key in routing_keys for binding in self._by_key.get(key, ())
        ]


class Fanout:
    """A message goes to all bindings."""

    def __init__(self) -> None:
        self._bindings: dict[Binding, None] = {}

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Accept any arguments; they mean nothing here."""

    def add(self, binding: Binding) -> None:
        """Add a binding that is not here yet."""
        self._bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is here."""
        del self._bindings[binding]

    def match(
        self, routing_keys: tuple[str, ...], headers: Mapping[str, Any]
    ) -> Iterable[Destination]:
        """Return where a message goes."""
        return [binding.destination for binding in self._bindings]


class _Word:
    """A node of a topic exchange's tree: the bindings that end here, and the words that follow."""

    __slots__ = ("bindings", "following")

    def __init__(self) -> None:
        self.bindings: dict[Binding, None] = {}
        self.following: dict[str, _Word] = {}


class Topic:
    """A message goes to the bindings whose pattern fits its routing key.

    The words of all patterns form a tree.  Matching walks down every branch that fits; a branch
    `#` may take any number of words.  Each pair of a node and a position in the key is visited
    once, so a pattern with many `#` cannot make it slow.
    """

    def __init__(self) -> None:
        self._root = _Word()

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Accept any arguments; they mean nothing here."""

    def add(self, binding: Binding) -> None:
        """Add a binding that is not here yet."""
        node = self._root
        for word in _words(binding.routing_key):
            node = node.following.setdefault(word, _Word())
        node.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is here, and its branch if nothing else is on it."""
        path: list[tuple[_Word, str]] = []
        node = self._root
        for word in _words(binding.routing_key):
            path.append((node, word))
            node = node.following[word]
        del node.bindings[binding]
        for parent, word in reversed(path):
            child = parent.following[word]
            if child.bindings or child.following:
                break
            del parent.following[word]

    def match(
        self, routing_keys: tuple[str, ...], headers: Mapping[str, Any]
    ) -> Iterable[Destination]:
        """Return where a message goes."""
        found: list[Destination] = []
        for key in routing_keys:
            self._match_words(_words(key), found)
        return found

    def _match_words(self, words: list[str], found: list[Destination]) -> None:
        to_visit = [(self._root, 0)]
        visited: set[tuple[_Word, int]] = set()
        while to_visit:
            step = to_visit.pop()
            if step in visited:
                continue
            visited.add(step)
            node, position = step
            if position == len(words):
                found.extend(binding.destination for binding in node.bindings)
            else:
                for word in (words[position], "*"):
                    child = node.following.get(word)
                    if child is not None:
                        to_visit.append((child, position + 1))
            rest = node.following.get("#")
            if rest is not None:
                to_visit.extend((rest, end) for end in range(position, len(words) + 1))


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


class Headers:
    """A message goes to the bindings whose arguments its headers have.

    `x-match` says whether all or any of them must match; the kinds `-with-x` also look at names
    that begin with `x-` (https://www.rabbitmq.com/tutorials/amqp-concepts#exchange-headers).
    """

    KINDS = ("all", "any", "all-with-x", "any-with-x")

    def __init__(self) -> None:
        self._bindings: dict[Binding, None] = {}

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise a `Refusal` if `x-match` is invalid."""
        kind = arguments.get("x-match", "all")
        if not isinstance(kind, str):
            raise Refusal(
                ReplyCode.PRECONDITION_FAILED,
                f"Invalid x-match field type {type_name(kind)} (value {kind}); expected longstr",
            )
        if kind not in self.KINDS:
            raise Refusal(
                ReplyCode.PRECONDITION_FAILED,
                f'Invalid x-match field value <<"{kind}">>;'
                " expected all, any, all-with-x, or any-with-x",
            )

    def add(self, binding: Binding) -> None:
        """Add a binding that is not here yet."""
        self._bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is here."""
        del self._bindings[binding]

    def match(
        self, routing_keys: tuple[str, ...], headers: Mapping[str, Any]
    ) -> Iterable[Destination]:
        """Return where a message goes."""
        return [
            binding.destination
            for binding in self._bindings
            if headers_match(binding.arguments, headers)
        ]


def headers_match(pattern: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """Return whether a message's headers match the arguments of a binding.

    A value None in the pattern matches any value of that header.
    """
    kind = pattern.get("x-match", "all")
    with_x = kind.endswith("-with-x")
    matches = (
        name in headers and (value is None or equal(value, headers[name]))
        for name, value in pattern.items()
        if name != "x-match" and (with_x or not name.startswith("x-"))
    )
    return any(matches) if kind.startswith("any") else all(matches)


MATCHERS: dict[str, type[Matcher]] = {
    "direct": Direct,
    "fanout": Fanout,
    "topic": Topic,
    "headers": Headers,
}
