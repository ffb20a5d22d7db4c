"""One line for each request, for the log of a server.

A line has the same words in the same order each time, `name=value`, so that people and programs can
read it.  What a client has chosen (names and ids) is escaped, cut, and quoted where it is odd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from amphora.errors import RemoteException, printable
from amphora.net.log import Log
from amphora.rpc.context.call import CallContext
from amphora.rpc.context.outcome import OK, WITHOUT_ANSWER, Outcome

log = Log("amphora.access")

# So much is shown of a name or an id that a client has chosen.
LONGEST = 200
# A value that needs no quotes.
_PLAIN = re.compile(r"[\w.:/@%+~-]+", re.ASCII)
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_NO_TRACE = "0" * 32


def write(call: CallContext, outcome: Outcome) -> None:
    """Write the line of one request: an observer of servers.  Never switches greenlets."""
    seconds = outcome.seconds
    fields: dict[str, Any] = {
        "function": f"{call.namespace}.{call.function}" if call.function else None,
        "outcome": _word(call, outcome),
        "error": _error(outcome),
        "seconds": None if seconds is None else round(seconds, 6),
        "queue_wait": None if call.queue_wait is None else round(call.queue_wait, 6),
        "caller": call.user,
        "client": call.client,
        "id": call.id or None,
        "trace_id": trace_id_of(call.headers),
    }
    fields = {
        name: printable(value, LONGEST) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    line = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
    log.info("%s", line, fields={"message": "request", **fields, "worker": call.worker_id})


def _word(call: CallContext, outcome: Outcome) -> str:
    """Return in one word what has become of a request."""
    if outcome.status in WITHOUT_ANSWER or outcome.status == OK:
        return outcome.status.lower()
    if outcome.expected:
        return "expected"
    return "failed" if call.begun else "refused"


def _error(outcome: Outcome) -> str | None:
    """Return the name of the exception that is the answer to a request, None if there is none."""
    if outcome.status in WITHOUT_ANSWER or outcome.status == OK:
        return None
    own = outcome.status != RemoteException.__name__
    return f"amphora.{outcome.status}" if own else outcome.error_type


def trace_id_of(headers: Mapping[str, Any]) -> str | None:
    """Return the id of the trace that a request belongs to, None if it says none."""
    traceparent = headers.get("traceparent")
    if not isinstance(traceparent, str):
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    return None if found is None or found[1] == _NO_TRACE else found[1]


def _shown(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float | int):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return value if value != "-" and _PLAIN.fullmatch(value) else json.dumps(value)
