"""What a deferred call returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent.event import AsyncResult

from amphora.transport.publisher import Outgoing

if TYPE_CHECKING:
    from amphora.rpc.client import AmqpRpcClient


class Result(AsyncResult):  # type: ignore[type-arg]
    """The answer to a deferred call, when it is there.

    It is a gevent `AsyncResult`: `get(timeout=)` waits and returns the answer or raises what
    went wrong, `ready()`, `successful()`, `wait(timeout=)` and `exception` do what they do there,
    and `gevent.wait`, `gevent.iwait` and `gevent.joinall` take it.

    At the deadline of the call it fails with NoResult.  A result that is dropped is forgotten
    with its answer; the request itself is still served.
    """

    def __init__(self, client: AmqpRpcClient, function_name: str, timeout: float) -> None:
        super().__init__()
        self.function_name = function_name
        self.timeout = timeout
        self.request_id = ""
        self.outgoing: Outgoing | None = None
        self.ticket = 0
        self._client: AmqpRpcClient | None = client

    def __repr__(self) -> str:
        state = "pending"
        if self.ready():
            state = "ready" if self.successful() else f"failed: {type(self.exception).__name__}"
        return f"<Result of {self.function_name} [{state}]>"

    def __del__(self) -> None:
        client = self._client
        if client is not None and self.request_id and not self.ready():
            client.forget(self)
