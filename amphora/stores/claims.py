"""The stored data of a call with a key."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from amphora.errors import WrongRequest, printable
from amphora.rpc.context.call import CallContext
from amphora.rpc.contract.bodies import Response
from amphora.rpc.contract.serializers import JSON, serializer_for
from amphora.rpc.contract.unsendable import named_arguments, refused_part

_encode = msgspec.msgpack.Encoder().encode
# What stands in a stored key as it is: printable ASCII, except for what begins an escape.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


@dataclass(frozen=True)
class Claim:
    """The claim of one run to be the only one of its key.

    Attributes:
        scope: where the key is unique: the namespace, and the client's login if that is known.
        key: the key of the call, as the database has it.
        fingerprint: distinguishes this call from calls of other functions or with other arguments.
        owner: distinguishes this run from all others.
    """

    scope: str
    key: str
    fingerprint: str
    owner: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def of(cls, call: CallContext, key: str) -> Claim:
        """Return the claim of a call.

        Raises:
            WrongRequest: its arguments have no fingerprint.
        """
        # Another login must not get the answer just by knowing a key.
        scope = f"{call.namespace}/{quote(call.user or '')}"
        try:
            told_by = fingerprint(call.function, call.args, call.kwargs)
        except ValueError as error:
            why = refused_part(
                named_arguments(call.args, call.kwargs),
                lambda value: fingerprint("", [value], {}),
                error,
            )
            name = f"{call.namespace}.{printable(call.function, 100)}"
            raise WrongRequest(f"the arguments of {name} cannot have a key: {why}") from None
        # Every database has ASCII; one in Latin-1 could take no other letters.
        return cls(scope, quote(key, _PLAIN), told_by)


@dataclass(frozen=True)
class Answer:
    """The result of a run, in the form in which it is sent."""

    content_type: str
    body: bytes

    @classmethod
    def of(cls, call: CallContext, result: Any) -> Answer:
        """Return the answer to a call.

        Raises:
            ValueError: the result cannot be sent.
        """
        serializer = serializer_for(call.content_type) or JSON
        return cls(serializer.content_type, serializer.encode(Response(result=result)))

    def result(self) -> Any:
        """Return the result in the answer."""
        serializer = serializer_for(self.content_type) or JSON
        return serializer.decode_response(self.body).result


class Lease(NamedTuple):
    """The lease of a run, which is another one whenever it is renewed.

    Attributes:
        owner: the run.
        until: the time of its end, on the clock of the database.
    """

    owner: str
    until: float


@dataclass(frozen=True)
class Earlier:
    """The record of an earlier run of the same key.

    Attributes:
        fingerprint: the fingerprint of its call.
        answer: its answer, None if it seems to be unfinished.
        lease: its lease; None if it has just ended without an answer.
    """

    fingerprint: str
    answer: Answer | None
    lease: Lease | None = field(default=None, compare=False)


def fingerprint(function: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    """Return a text that is the same only for the same function and arguments.

    Raises:
        ValueError: the arguments are too deep.
    """
    try:
        told = _encode(_in_order([function, args, kwargs]))
    except RecursionError:
        raise ValueError("recursion: it is too deep") from None
    return hashlib.sha256(told).hexdigest()


def _in_order(value: Any) -> Any:
    """Return a value whose bytes do not depend on the order of the keys in its dicts."""
    if isinstance(value, dict):
        parts = [(_encode(_in_order(key)), _in_order(part)) for key, part in value.items()]
        return dict(sorted(parts, key=itemgetter(0)))
    if isinstance(value, list | tuple):
        return [_in_order(part) for part in value]
    if isinstance(value, int) and value.bit_length() > 63:
        # It is too large for MessagePack, and its text cannot equal a program's.
        return msgspec.msgpack.Ext(0, str(value).encode())
    return value
